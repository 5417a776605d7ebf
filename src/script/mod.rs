//! Scripts: the only part that speaks Rhai. Policy is written in Rhai; this is what makes running it safe.
//!
//! What must stay true: the engine's thread never awaits and the runtime never runs a script; every primitive is a
//! step; nothing here knows the order of a migration.

pub mod args;
mod changes;
pub mod check;
pub mod engine;
pub mod enter;
pub mod errors;
mod parallel;
pub mod primitives;
pub mod resolver;
pub mod rights;
pub mod session;
pub mod undo;
pub mod view;

use crate::words::{Json, Kind, Problem};
use resolver::Sources;
use rhai::{AST, Engine, Scope};
use session::{Branch, Session};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A script that was found, compiled and checked, and not run.
pub struct Script {
    pub name: String,
    pub engine: Engine,
    pub ast: AST,
    pub sources: Arc<Sources>,
    pub options: Vec<args::Spec>,
}

impl Script {
    /// Finds a script by path or stock name, with everything that it imports.
    ///
    /// # Errors
    /// If it is not there, does not parse, or a check finds a fault.
    pub fn load(script: &str, cancel: &CancellationToken) -> Result<Self, Vec<Problem>> {
        let (sources, text) = Sources::find(script).map_err(|problem| vec![problem])?;
        Self::compile(&resolver::main_name(script), &text, sources, cancel)
    }

    /// Takes a script up again from what a run stored.
    ///
    /// # Errors
    /// As [`Script::load`].
    pub fn stored(
        name: &str,
        sources: &[crate::journal::Source],
        cancel: &CancellationToken,
    ) -> Result<Self, Vec<Problem>> {
        let name = resolver::main_name(name);
        let sources = Sources::stored(sources);
        let text = sources
            .text(&name)
            .ok_or_else(|| vec![Problem::new(Kind::Diverged, format!("the run does not hold its script `{name}`"))])?;
        Self::compile(&name, &text, sources, cancel)
    }

    /// Compiles a text that was typed.
    ///
    /// # Errors
    /// As [`Script::load`].
    pub fn typed(text: &str, cancel: &CancellationToken) -> Result<Self, Vec<Problem>> {
        Self::compile("typed", text, Sources::typed(), cancel)
    }

    fn compile(name: &str, text: &str, sources: Sources, cancel: &CancellationToken) -> Result<Self, Vec<Problem>> {
        Self::with_words(name, text, sources, cancel, |_| {})
    }

    /// Compiles a text that may use more words than scripts have: a test.
    ///
    /// # Errors
    /// As [`Script::load`].
    pub fn with_words(
        name: &str,
        text: &str,
        sources: Sources,
        cancel: &CancellationToken,
        words: impl FnOnce(&mut Engine),
    ) -> Result<Self, Vec<Problem>> {
        let sources = Arc::new(sources);
        let mut engine = engine::new(sources.clone(), cancel);
        words(&mut engine);
        let ast = resolver::compile(&engine, name, text).map_err(|problem| vec![problem])?;
        let options = args::read(&ast, name).map_err(|problem| vec![problem])?;
        let faults = check::check(&engine, &sources, name, &ast);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Script { name: name.to_owned(), engine, ast, sources, options })
    }

    /// What it may need of a cluster, whatever its options are.
    pub fn needs(&self) -> rights::Needs {
        rights::needs(&self.engine, &self.sources, &self.name, &self.ast)
    }

    /// The `//!` lines at the head.
    pub fn about(&self) -> String {
        self.ast.doc().lines().map(|line| line.trim_start_matches("//!").trim()).collect::<Vec<_>>().join("\n")
    }

    /// Runs it to its end on this thread, which must be none of the runtime's.
    ///
    /// # Errors
    /// What ended it before, with the place in the script.
    pub fn run(&mut self, session: &Arc<Session>, branch: &str) -> Result<Json, Problem> {
        self.engine.set_default_tag(Branch::root(session.clone(), branch).tag());
        evaluate(&self.engine, &mut Scope::new(), &self.ast, &self.name)
    }
}

/// Runs something of the engine's; a panic of ours becomes a problem, with the journal intact.
///
/// # Errors
/// What ended it, with the place in the script.
pub fn caught<T>(name: &str, run: impl FnOnce() -> Result<T, Box<rhai::EvalAltResult>>) -> Result<T, Problem> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(errors::problem(&error, name)),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Problem::bug(format!("the script's thread panicked: {}", text.unwrap_or("no message"))))
        }
    }
}

/// Runs a tree and returns its value as JSON.
///
/// # Errors
/// As [`value`].
pub fn evaluate(engine: &Engine, scope: &mut Scope<'_>, ast: &AST, name: &str) -> Result<Json, Problem> {
    value(engine, scope, ast, name).map(|value| view::to_json(&value).unwrap_or(Json::Null))
}

/// Runs a tree.
///
/// # Errors
/// What ended it, with the place in the script.
pub fn value(engine: &Engine, scope: &mut Scope<'_>, ast: &AST, name: &str) -> Result<rhai::Dynamic, Problem> {
    caught(name, || engine.eval_ast_with_scope::<rhai::Dynamic>(scope, ast))
}

#[cfg(test)]
mod tests;
