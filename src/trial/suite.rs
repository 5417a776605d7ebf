//! The test file of a script: `NAME_test.rhai` beside `NAME.rhai`, with functions `test_…`.
//!
//! Each test has a lab of its own. What must stay true: nothing of the file is run before its tests.

use super::scene::Scene;
use super::words::{self, Place};
use super::{Site, Snapshot};
use crate::script::resolver::{STOCK, Sources, TESTS};
use crate::script::session::Branch;
use crate::script::view::{to_dynamic, to_json};
use crate::script::{Script, caught};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Place as At, Problem};
use rhai::{CallFnOptions, Dynamic, Scope};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The engine's thread needs room for the call levels that scripts may use.
const STACK_BYTES: usize = 64 << 20;

/// A test file that was read and checked.
pub struct Suite {
    pub snapshot: Snapshot,
    /// In the order of the file.
    pub tests: Vec<Test>,
    /// `const OPTIONS`: what `run()` runs with, and the crash test.
    pub options: Json,
    /// `const SCENARIO`, and the folder that it is seen from.
    pub scenario: Option<String>,
    pub folder: Option<PathBuf>,
}

/// One function.
#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    pub line: usize,
    params: usize,
}

impl Test {
    fn place(&self, script: &str) -> At {
        At { script: script.to_owned(), line: self.line, column: 1, calls: Vec::new() }
    }
}

/// What is wrong with a test file, and the texts that the places point into, by name.
pub type Faulty = (Vec<Problem>, Vec<(String, String)>);

/// How one ended.
#[derive(Debug)]
pub struct Outcome {
    pub test: Test,
    pub failure: Option<Problem>,
    /// Why the last run of the script stopped, if it did.
    pub stopped: Option<Problem>,
    pub seconds: f64,
}

/// Where the tests of a script are: a path, or the name of embedded ones.
pub fn file_of(script: &str) -> String {
    match script.strip_suffix(".rhai") {
        Some(bare) => format!("{bare}_test.rhai"),
        None => format!("{script}_test"),
    }
}

impl Suite {
    /// Reads the tests of a script; nothing if it has none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn find(script: &str) -> Result<Option<Suite>, Faulty> {
        let file = file_of(script);
        let is_stock = !Path::new(script).is_file() && STOCK.iter().any(|(name, _)| *name == script);
        let (sources, text, folder) = if is_stock {
            let Some((name, text)) = TESTS.iter().find(|(name, _)| *name == file) else { return Ok(None) };
            let source = crate::journal::Source { name: (*name).to_owned(), text: (*text).to_owned() };
            (Sources::stored(&[source]), (*text).to_owned(), None)
        } else {
            if !Path::new(&file).is_file() {
                return Ok(None);
            }
            let (sources, text) = Sources::find(&file).map_err(|problem| (vec![problem], Vec::new()))?;
            (sources, text, Path::new(&file).parent().map(Path::to_owned))
        };
        let name = crate::script::resolver::main_name(&file);
        let failed = |problems| (problems, vec![(name.clone(), text.clone())]);
        let read = Script::with_words(&name, &text, sources, &CancellationToken::new(), |engine| {
            words::register(engine, &Place::default());
        });
        let script = read.map_err(failed)?;
        let suite = Suite::read(&script, &text, folder).map_err(|problem| failed(vec![problem]))?;
        Ok(Some(suite))
    }

    fn read(script: &Script, text: &str, folder: Option<PathBuf>) -> Result<Suite, Problem> {
        let mut suite =
            Suite { snapshot: Snapshot::of(script), tests: Vec::new(), options: json!({}), scenario: None, folder };
        // A test file may have no imports; its own text is needed all the same.
        if !suite.snapshot.sources.iter().any(|source| source.name == script.name) {
            let source = crate::journal::Source { name: script.name.clone(), text: text.to_owned() };
            suite.snapshot.sources.push(source);
        }
        for (name, is_constant, value) in script.ast.iter_literal_variables(true, false) {
            let value = to_json(&value)?;
            match (name, is_constant, value) {
                ("OPTIONS", true, value @ Json::Object(_)) => suite.options = value,
                ("SCENARIO", true, Json::String(value)) => suite.scenario = Some(value),
                ("OPTIONS", true, _) => return Err(Problem::usage("OPTIONS is a map of the script's options")),
                ("SCENARIO", true, _) => return Err(Problem::usage("SCENARIO is the path of a file, or a name")),
                _ => {}
            }
        }
        for function in script.ast.iter_functions().filter(|function| function.name.starts_with("test_")) {
            let line = line_of(text, function.name);
            if function.params.len() > 1 {
                let mut problem =
                    Problem::usage(format!("the test `{}` takes no arguments, or one map", function.name));
                problem.place = Some(At { script: script.name.clone(), line, column: 1, calls: Vec::new() });
                return Err(problem);
            }
            suite.tests.push(Test { name: function.name.to_owned(), line, params: function.params.len() });
        }
        suite.tests.sort_by_key(|test| test.line);
        Ok(suite)
    }

    /// Runs tests, several at once; `told` hears of each that is over.
    pub fn run(
        &self,
        site: &Site,
        script: &Snapshot,
        tests: &[Test],
        parallel: usize,
        told: &(dyn Fn(&Outcome) + Sync),
    ) -> Vec<Outcome> {
        let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..parallel.clamp(1, 64) {
                scope.spawn(|| {
                    while let Some(test) = tests.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let begun = Clock.monotonic();
                        let (ended, stopped) = self.one(site, script, test);
                        if site.cancel.is_cancelled() {
                            return;
                        }
                        let seconds = Clock.monotonic().duration_since(begun).as_secs_f64();
                        let outcome = Outcome { test: test.clone(), failure: ended.err(), stopped, seconds };
                        told(&outcome);
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|outcome| outcome.test.line);
        outcomes
    }

    /// How a test ended, and why the last run in it stopped.
    fn one(&self, site: &Site, script: &Snapshot, test: &Test) -> (Result<(), Problem>, Option<Problem>) {
        let scene = match Scene::open(site, &test.name, script, &self.options) {
            Ok(scene) => Arc::new(scene),
            Err(problem) => return (Err(problem), None),
        };
        let ended = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(test.name.clone()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(|| self.call(site, &scene, test)))) {
                Ok(handle) => match handle.join() {
                    Ok(Ok(ended)) => ended,
                    _ => Err(Problem::bug("the test's thread panicked")),
                },
                Err(e) => Err(Problem::local("no thread can be started", &e)),
            }
        });
        let ended = ended.and_then(|()| match scene.not_happened() {
            None => Ok(()),
            Some(what) => {
                let mut problem = Problem::new(Kind::Thrown, format!("{what} did not happen"));
                problem.place = Some(test.place(&self.snapshot.name));
                Err(problem.hint("run(…).writes lists what a run writes"))
            }
        });
        (ended, scene.stopped())
    }

    fn call(&self, site: &Site, scene: &Arc<Scene>, test: &Test) -> Result<(), Problem> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Problem::local("no threads can be started", &e))?;
        let session = scene.session(&runtime)?;
        let place = Place::default();
        let text = self.text();
        let sources = Sources::stored(&self.snapshot.sources);
        let words = |engine: &mut rhai::Engine| words::register(engine, &place);
        let script = Script::with_words(&self.snapshot.name, &text, sources, &site.cancel, words);
        let mut script = script.map_err(|mut problems| problems.remove(0))?;
        if place.set(scene.clone()).is_err() {
            return Err(Problem::bug("the words of a test have a lab before it begins"));
        }
        script.engine.set_default_tag(Branch::root(session.clone(), "test").tag());
        let given = json!({"name": test.name, "options": self.options, "seed": site.seed as i64});
        let args: Vec<Dynamic> = (0..test.params).map(|_| to_dynamic(&given)).collect();
        let options = CallFnOptions::new().eval_ast(true);
        let (engine, ast) = (&script.engine, &script.ast);
        let call =
            || engine.call_fn_with_options::<Dynamic>(options, &mut Scope::new(), ast, &test.name, args).map(|_| ());
        let ended = caught(&script.name, call);
        drop(session);
        runtime.shutdown_background();
        ended
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let own = self.snapshot.sources.iter().find(|source| source.name == self.snapshot.name);
        own.map(|source| source.text.clone()).unwrap_or_default()
    }
}

fn line_of(text: &str, function: &str) -> usize {
    let begins = |line: &str| {
        let rest = line.trim_start().trim_start_matches("private ").strip_prefix("fn ");
        rest.and_then(|rest| rest.trim_start().strip_prefix(function))
            .is_some_and(|rest| rest.trim_start().starts_with('('))
    };
    text.lines().position(begins).map_or(0, |at| at + 1)
}
