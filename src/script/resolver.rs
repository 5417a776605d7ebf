//! Where imports come from: `std/…` is embedded, everything else lies in the script's folder and stays there.
//!
//! rhai's own resolver lets `../` escape and aborts the process on an import cycle; this one does neither. It also
//! remembers every source, so that a run can be continued with what it began with.

use super::errors;
use super::session::Branch;
use crate::journal::Source;
use crate::words::{Problem, names};
use rhai::{AST, Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

type SharedModule = Shared<Module>;

/// The embedded stdlib: name and text.
pub const STDLIB: &[(&str, &str)] = &[
    ("std/back", include_str!("../../stdlib/back.rhai")),
    ("std/choose", include_str!("../../stdlib/choose.rhai")),
    ("std/engine", include_str!("../../stdlib/engine.rhai")),
    ("std/plan", include_str!("../../stdlib/plan.rhai")),
    ("std/unit", include_str!("../../stdlib/unit.rhai")),
];

/// The embedded stock scripts.
pub const STOCK: &[(&str, &str)] = &[("sc-migrate", include_str!("../../scripts/sc-migrate.rhai"))];

/// The tests of the stock scripts.
pub const TESTS: &[(&str, &str)] = &[("sc-migrate_test", include_str!("../../scripts/sc-migrate_test.rhai"))];

/// The sources of one run.
pub struct Sources {
    /// The folder of the script; `None` for stock scripts and for what was stored.
    folder: Option<PathBuf>,
    /// Everything that was read, or everything there is.
    known: Mutex<HashMap<String, String>>,
    /// True if only `known` counts: a resumed run.
    frozen: bool,
}

impl Sources {
    /// Finds a script by path or by stock name.
    ///
    /// # Errors
    /// If there is neither.
    pub fn find(script: &str) -> Result<(Self, String), Problem> {
        let path = Path::new(script);
        if path.is_file() {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Problem::usage(format!("the script `{}` cannot be read", names::plain(script))).because(&e)
            })?;
            let folder = path.canonicalize().ok().and_then(|full| full.parent().map(Path::to_owned));
            let sources = Sources { folder, known: Mutex::default(), frozen: false };
            sources.remember(&main_name(script), &text);
            return Ok((sources, text));
        }
        if let Some((name, text)) = STOCK.iter().find(|(name, _)| *name == script) {
            let sources = Sources { folder: None, known: Mutex::default(), frozen: false };
            sources.remember(name, text);
            return Ok((sources, (*text).to_owned()));
        }
        let mut problem = Problem::usage(format!("there is no script `{}`", names::plain(script)));
        if let Some(word) = names::did_you_mean(script, STOCK.iter().map(|(name, _)| *name)) {
            problem = problem.hint(format!("did you mean `{word}`?"));
        }
        Err(problem.hint("pvmigrate scripts lists the stock scripts; anything else is a path"))
    }

    /// What a run was begun with.
    pub fn stored(sources: &[Source]) -> Self {
        let known = sources.iter().map(|source| (source.name.clone(), source.text.clone())).collect();
        Sources { folder: None, known: Mutex::new(known), frozen: true }
    }

    /// Text that was typed.
    pub fn typed() -> Self {
        Sources { folder: std::env::current_dir().ok(), known: Mutex::default(), frozen: false }
    }

    /// Everything that was read so far, sorted by name.
    pub fn all(&self) -> Vec<Source> {
        let mut all: Vec<Source> =
            self.lock().iter().map(|(name, text)| Source { name: name.clone(), text: text.clone() }).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The text of a source by the name that positions carry.
    pub fn text(&self, name: &str) -> Option<String> {
        self.lock().get(name).cloned()
    }

    /// Reads what `import "path"` in `from` means; the name is the module's identity.
    pub fn import(&self, from: &str, path: &str) -> Result<(String, String), Problem> {
        let name = self.name_of(from, path)?;
        if let Some(text) = self.lock().get(&name) {
            return Ok((name, text.clone()));
        }
        if let Some((_, text)) = STDLIB.iter().find(|(known, _)| *known == name) {
            if !self.frozen {
                self.remember(&name, text);
            }
            return Ok((name, (*text).to_owned()));
        }
        let missing = || {
            let mut problem = Problem::usage(format!("there is no module `{}`", names::plain(path)));
            if let Some(word) = names::did_you_mean(path, STDLIB.iter().map(|(known, _)| *known)) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            problem.hint("imports are `std/…` or files of the script's own folder, without .rhai")
        };
        let folder = self.folder.as_ref().filter(|_| !self.frozen && !name.starts_with("std/")).ok_or_else(missing)?;
        let file = folder.join(format!("{name}.rhai")).canonicalize().map_err(|_| missing())?;
        if !file.starts_with(folder) {
            return Err(Problem::usage(format!(
                "the module `{}` lies outside the script's folder",
                names::plain(path)
            )));
        }
        let text = std::fs::read_to_string(file).map_err(|e| missing().because(&e))?;
        self.remember(&name, &text);
        Ok((name, text))
    }

    fn name_of(&self, from: &str, path: &str) -> Result<String, Problem> {
        if path.starts_with("std/") {
            return Ok(path.to_owned());
        }
        let mut parts: Vec<String> = match from.rsplit_once('/') {
            Some((folder, _)) if !from.starts_with("std/") => folder.split('/').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        for part in Path::new(path).components() {
            match part {
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir if parts.pop().is_some() => {}
                _ => {
                    return Err(Problem::usage(format!(
                        "the module `{}` lies outside the script's folder",
                        names::plain(path)
                    )));
                }
            }
        }
        Ok(parts.join("/"))
    }

    fn remember(&self, name: &str, text: &str) {
        self.lock().insert(name.to_owned(), text.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name that positions in a script carry: the file's own, without its ending.
pub fn main_name(script: &str) -> String {
    Path::new(script).file_stem().map_or_else(|| script.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// rhai's side of [`Sources`].
pub struct Resolver {
    pub sources: Arc<Sources>,
    modules: Mutex<HashMap<String, SharedModule>>,
    /// What is being imported right now, outermost first.
    open: Mutex<Vec<String>>,
}

impl Resolver {
    pub fn new(sources: Arc<Sources>) -> Self {
        Resolver { sources, modules: Mutex::default(), open: Mutex::default() }
    }

    fn load(
        &self,
        engine: &Engine,
        from: &str,
        path: &str,
        position: Position,
    ) -> Result<SharedModule, Box<EvalAltResult>> {
        let thrown = |problem: Problem| errors::throw(&problem, position);
        let (name, text) = self.sources.import(from, path).map_err(thrown)?;
        if let Some(module) = self.modules.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(module.clone());
        }
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = open.iter().position(|other| *other == name) {
                let cycle = open[first..].iter().chain([&name]).cloned().collect::<Vec<_>>().join(" -> ");
                return Err(thrown(Problem::usage(format!("the modules import each other: {cycle}"))));
            }
            open.push(name.clone());
        }
        let made = compile(engine, &name, &text).map_err(|problem| {
            Box::new(EvalAltResult::ErrorTerminated(rhai::Dynamic::from(Arc::new(problem)), position))
        });
        let made = made.and_then(|ast| {
            let mut state = engine.new_global_runtime_state();
            state.tag = Branch::nowhere().tag();
            Module::eval_ast_as_new_raw(engine, &mut Scope::new(), &mut state, &ast)
                .map_err(|e| Box::new(EvalAltResult::ErrorInModule(name.clone(), e, position)))
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let module: SharedModule = made?.into();
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).insert(name, module.clone());
        Ok(module)
    }
}

/// Compiles one source, so that its positions name it.
pub fn compile(engine: &Engine, name: &str, text: &str) -> Result<AST, Problem> {
    let mut ast = engine.compile(text).map_err(|e| errors::parse_problem(&e, name))?;
    ast.set_source(name);
    Ok(ast)
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<SharedModule, Box<EvalAltResult>> {
        self.load(engine, source.unwrap_or_default(), path, position)
    }
}
