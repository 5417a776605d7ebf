//! The language side of a session: variables, functions and modules that survive a line, and the lines that succeeded.
//!
//! What is typed is one text that grows: every line is compiled at its place in it, so that a position names the line
//! that was typed, even when a function of an earlier one fails.

use super::complete::{Known, OF_ARRAYS};
use super::line::Underscore;
use crate::script::resolver::{Resolver, Sources};
use crate::script::view::{View, to_json};
use crate::script::{Script, args, check, errors, value};
use crate::words::{Json, Problem};
use rhai::{AST, Array, Dynamic, Engine, Expr, Map, ModuleResolver, Position, Scope, Stmt};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The name that positions carry.
pub const NAME: &str = "repl";
/// The last result.
const LAST: &str = "_";

pub struct Lines {
    pub engine: Engine,
    scope: Scope<'static>,
    /// The functions of all lines; no statements.
    functions: AST,
    modules: Resolver,
    sources: Arc<Sources>,
    underscore: Underscore,
    /// Everything that was typed, wrong or right.
    text: String,
    kept: Vec<Kept>,
    /// Which of the kept lines `_` is from.
    last: Option<usize>,
}

/// A line that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub text: String,
    /// The bytes at which it uses `_`, and the line that `_` was from.
    pub uses: Vec<usize>,
    pub of: Option<usize>,
    /// It is one expression: its value can be given a name.
    pub is_expression: bool,
}

/// A line that was compiled and checked, and not run.
pub struct Prepared {
    ast: AST,
    kept: Kept,
    /// The number of its first line in the session.
    pub line: usize,
    /// The values of what it asks for with `arg`.
    pub options: Json,
}

impl Lines {
    pub fn new(script: Script) -> Self {
        let Script { mut engine, sources, .. } = script;
        let underscore = Underscore::allow(&mut engine);
        Lines {
            engine,
            scope: Scope::new(),
            functions: AST::empty(),
            modules: Resolver::new(sources.clone()),
            sources,
            underscore,
            text: String::new(),
            kept: Vec::new(),
            last: None,
        }
    }

    /// Compiles and checks a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prepare(&mut self, typed: &str) -> Result<Prepared, Vec<Problem>> {
        let typed = typed.trim();
        let before = self.text.matches('\n').count();
        self.text.push_str(typed);
        self.text.push('\n');
        let placed = "\n".repeat(before) + typed;
        self.underscore.open(&placed);
        let compiled = self.engine.compile_with_scope(&self.scope, &placed);
        let uses = self.underscore.close();
        let mut ast = compiled.map_err(|e| vec![errors::parse_problem(&e, NAME)])?;
        ast.set_source(NAME);
        let options = args::read(&ast, NAME).map_err(|problem| vec![problem])?;
        let kept = Kept {
            text: typed.to_owned(),
            uses: uses.into_iter().map(|at| at - before).collect(),
            of: self.last,
            is_expression: matches!(ast.statements(), [Stmt::Expr(_) | Stmt::FnCall(..)]),
        };
        let mut whole = self.functions.merge(&ast);
        whole.set_source(NAME);
        let faults = check::check(&self.engine, &self.sources, NAME, &whole);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Prepared { ast: whole, kept, line: before + 1, options: args::otherwise(&options) })
    }

    /// Runs a line on this thread. What it named stays if it succeeds.
    ///
    /// # Errors
    /// What ended it, with its place.
    pub fn run(&mut self, line: Prepared, tag: Dynamic, cancel: &CancellationToken) -> Result<Dynamic, Problem> {
        self.engine.set_default_tag(tag);
        let cancel = cancel.clone();
        self.engine.on_progress(move |_| cancel.is_cancelled().then_some(Dynamic::UNIT));
        let named = self.scope.len();
        let result = match value(&self.engine, &mut self.scope, &line.ast, NAME) {
            Ok(value) => value.flatten(),
            Err(problem) => {
                self.scope.rewind(named);
                // Closures of this line may have been put into older variables.
                let mut closures = line.ast.clone_functions_only();
                closures.retain_functions(|_, _, name, _| name.starts_with("anon$"));
                self.functions = self.functions.merge(&closures);
                return Err(problem);
            }
        };
        self.keep_modules(&line.ast)?;
        self.functions = line.ast;
        self.functions.clear_statements();
        self.kept.push(line.kept);
        if !result.is_unit() {
            let _ = self.scope.remove::<Dynamic>(LAST);
            self.scope.push_dynamic(LAST, result.clone());
            self.last = Some(self.kept.len() - 1);
        }
        Ok(result)
    }

    /// An import is forgotten by rhai at the end of its text: here it stays.
    fn keep_modules(&mut self, ast: &AST) -> Result<(), Problem> {
        for statement in ast.statements() {
            if let Stmt::Import(import, _) = statement
                && let (Expr::StringConstant(path, _), alias) = (&import.0, &import.1)
                && !alias.name.is_empty()
            {
                let module = self
                    .modules
                    .resolve(&self.engine, Some(NAME), path, Position::NONE)
                    .map_err(|e| errors::problem(&e, NAME))?;
                self.engine.register_static_module(alias.name.as_str(), module);
            }
        }
        Ok(())
    }

    /// The lines that succeeded, in order.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Names and texts that places point into.
    pub fn sources(&self) -> Vec<(String, String)> {
        let imported = self.sources.all().into_iter().map(|source| (source.name, source.text));
        std::iter::once((NAME.to_owned(), self.text.clone())).chain(imported).collect()
    }

    /// What completion may offer.
    pub fn known(&self) -> Known {
        let functions =
            self.functions.iter_functions().map(|f| f.name.to_owned()).filter(|name| !name.starts_with("anon$"));
        let variables = self.scope.iter().map(|(name, _, value)| (name.to_owned(), fields(&value.flatten())));
        Known { variables: variables.collect(), functions: functions.collect() }
    }
}

fn fields(value: &Dynamic) -> Vec<String> {
    if let Some(view) = value.read_lock::<View>() {
        return view.fields();
    }
    if let Some(map) = value.read_lock::<Map>() {
        return map.keys().map(ToString::to_string).collect();
    }
    if value.is::<Array>() { OF_ARRAYS.iter().map(|name| (*name).to_owned()).collect() } else { Vec::new() }
}

/// A result as JSON; what JSON cannot hold by its type.
pub fn plain(value: &Dynamic) -> Json {
    to_json(value).unwrap_or_else(|_| Json::String(format!("a {}", value.type_name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::session::Branch;

    fn session() -> Lines {
        let mut script = Script::typed("", &CancellationToken::new()).map_err(|_| ()).unwrap();
        script.name = NAME.into();
        Lines::new(script)
    }

    fn say(lines: &mut Lines, typed: &str) -> String {
        let prepared = match lines.prepare(typed) {
            Ok(prepared) => prepared,
            Err(problems) => return format!("refused: {}", problems[0]),
        };
        match lines.run(prepared, Branch::nowhere().tag(), &CancellationToken::new()) {
            Ok(value) => plain(&value).to_string(),
            Err(problem) => {
                let line = problem.place.as_ref().map_or(0, |place| place.line);
                format!("failed in line {line}: {problem}")
            }
        }
    }

    fn talk(script: &[(&str, &str)]) -> Lines {
        let mut lines = session();
        for (typed, want) in script {
            assert_eq!(say(&mut lines, typed), *want, "{typed}");
        }
        lines
    }

    #[test]
    fn names_functions_closures_and_modules_survive_a_line() {
        talk(&[
            ("let n = 2;", "null"),
            ("fn double(x) { x * 2 }", "null"),
            ("double(n)", "4"),
            ("let add = |x| x + n;", "null"),
            ("add.call(1)", "3"),
            ("fn double(x) { x * 20 }", "null"),
            ("double(n)", "40"),
            ("let twice = |f, x| f.call(f.call(x));", "null"),
            ("twice.call(add, 1)", "5"),
            ("import \"std/choose\" as choose;", "null"),
            // The module is still known, or this would be an undefined one.
            ("choose::nothing()", "failed in line 11: there is no function `choose::nothing ()`"),
            ("chose::nothing()", "refused: undefined module: chose"),
        ]);
    }

    #[test]
    fn the_last_result_is_a_name_and_the_last_arm_stays_one() {
        talk(&[
            ("1 + 1", "2"),
            ("_ * 10", "20"),
            ("let x = _;", "null"),
            ("_ + x", "40"),
            ("switch _ { 1 => \"one\", _ => \"many\" }", "\"many\""),
            ("`${_} things`", "\"many things\""),
            ("[1, 2, 3]", "[1,2,3]"),
            ("_.map(|n| n * 2)", "[2,4,6]"),
            ("let f = |n| n + _[0];", "null"),
            ("f.call(1)", "3"),
            ("_ + 1", "4"),
        ]);
    }

    #[test]
    fn places_are_lines_of_the_session_and_failures_leave_nothing() {
        let lines = talk(&[
            ("fn inverse(x) {\n  1 / x\n}", "null"),
            ("inverse(0)", "failed in line 2: division by zero: 1 / 0"),
            ("let a = 1; throw \"no\"", "failed in line 5: no"),
            ("a", "refused: undefined variable: a"),
            ("fn lost() { 1 } throw \"no\"", "failed in line 7: no"),
            ("lost()", "refused: there is no function `lost`"),
            ("scal(1)", "refused: there is no function `scal`"),
            ("inverse(1)", "1"),
        ]);
        let kept: Vec<&str> = lines.kept().iter().map(|line| line.text.as_str()).collect();
        assert_eq!(kept, ["fn inverse(x) {\n  1 / x\n}", "inverse(1)"]);
    }

    #[test]
    fn a_line_is_stopped_and_the_next_one_runs() {
        let mut lines = session();
        let stopped = CancellationToken::new();
        stopped.cancel();
        let line = lines.prepare("loop {}").map_err(|_| ()).unwrap();
        let problem = lines.run(line, Branch::nowhere().tag(), &stopped).unwrap_err();
        assert_eq!(problem.kind, crate::words::Kind::Interrupted);
        assert_eq!(say(&mut lines, "1 + 1"), "2");
    }
}
