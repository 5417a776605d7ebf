//! `pvmigrate repl`

use super::repl_input::{Input, Typed};
use super::session::{self, Reached};
use super::{Failure, Global, Output, exit_code, report, ui};
use crate::cluster::{Door, Ledger, Vigils};
use crate::journal::Journal;
use crate::repl::{Answer, Host, Repl, lines, table};
use crate::script::Script;
use crate::words::{Json, Kind, Problem, RunId, names};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Explore and change a cluster line by line, with the words of scripts
///
/// Lines are Rhai; `:help` lists the words. What changes the cluster is journaled as in a run. Without a terminal, lines
/// are read from stdin until the first one that fails.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn main(global: &Global) -> Result<(), Failure> {
    let global = &session::looking(global);
    let mut script = Script::typed("", &CancellationToken::new()).map_err(|problems| Failure {
        problems,
        sources: Vec::new(),
        last: Vec::new(),
        code: 70,
    })?;
    script.name = lines::NAME.into();
    let runtime = session::runtime()?;
    let running = Running::default();
    running.on_signals(&runtime, session::stopping(global));
    let reached = session::reach(global, &runtime)?;
    let (file, journal) = session::open_run(global, &reached, &script, Json::Null, std::env::args().collect())?;
    let (voice, cancel) = (ui::voice(global), CancellationToken::new());
    let fence = session::fence(&reached.cluster, &file, journal.lock_name(), &voice, &cancel)?;
    let journal = Arc::new(journal.fenced(fence));
    let input = Input::open(&reached, &reached.state_dir(global)?)?;
    if input.is_terminal() {
        ui::talk(&format!(
            "pvmigrate {} on {} ({}), run {}",
            env!("CARGO_PKG_VERSION"),
            file.context,
            file.server,
            file.run
        ));
        ui::talk(":help lists the words, Ctrl-D ends");
    }
    let door = Door {
        cluster: reached.cluster.clone(),
        journal: journal.clone(),
        ledger: Arc::new(Ledger::from_facts(&[])?),
        vigils: Arc::new(Vigils::default()),
        cancel,
    };
    let host = Host { door, runtime: runtime.handle().clone(), voice, yes: global.yes };
    let repl = Repl::new(script, host);
    // Scripts may nest calls deeper than the first thread's stack allows.
    let ended = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("repl".into()).stack_size(session::STACK_BYTES);
        match thread.spawn_scoped(scope, || converse(global, repl, input, &journal, &running)) {
            Ok(handle) => handle.join().unwrap_or_else(|_| Err(Problem::bug("the prompt's thread panicked").into())),
            Err(e) => Err(Problem::local("no thread can be started", &e).into()),
        }
    });
    conclude(global, reached, runtime, journal, &file.run, ended)
}

/// Closes the journal; a session that changed nothing leaves none.
fn conclude(
    global: &Global,
    reached: Reached,
    runtime: tokio::runtime::Runtime,
    journal: Arc<Journal>,
    run: &RunId,
    mut ended: Result<(), Failure>,
) -> Result<(), Failure> {
    let changed = journal.has_changed();
    if ended.is_ok() && changed {
        journal.end("root", Json::Null)?;
    }
    if let Err(problem) = journal.close() {
        tracing::debug!("{problem}");
    }
    if let Some(fence) = journal.fence() {
        runtime.block_on(fence.release());
    }
    drop((journal, reached));
    runtime.shutdown_background();
    if global.lab.is_some() {
        // The run is gone with the cluster.
        return ended;
    }
    if changed {
        let line = format!("what was changed: pvmigrate runs show {run}");
        match &mut ended {
            Ok(()) => ui::talk(&line),
            Err(failure) => failure.last.push(line),
        }
    } else if let Err(problem) = session::forget(global, run) {
        tracing::debug!("{problem}");
    }
    ended
}

/// Line after line until the end. On a terminal a failure is said and the session goes on.
fn converse(
    global: &Global,
    mut repl: Repl,
    mut input: Input,
    journal: &Journal,
    running: &Running,
) -> Result<(), Failure> {
    running.lock().at_prompt = input.is_terminal();
    loop {
        let line = match input.read(&repl)? {
            Typed::Line(line) if line.trim().is_empty() => continue,
            Typed::Line(line) => line,
            Typed::Nothing => continue,
            Typed::End => return Ok(()),
        };
        let writes = journal.writes();
        let cancel = running.begin();
        let result = repl.take(&line, &cancel);
        let told_to_end = running.done();
        let result = result.and_then(|answer| say(global, answer).map_err(|problem| vec![problem]));
        match result {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(problems) if input.is_terminal() => {
                for problem in &problems {
                    if problem.kind == Kind::Interrupted {
                        ui::talk("interrupted");
                    } else {
                        report::problem(problem, &repl.sources());
                    }
                }
                if journal.writes() > writes {
                    ui::talk(&format!("part of it was done: pvmigrate runs show {} tells what", journal.run()));
                }
            }
            Err(problems) => {
                let kind = problems.first().map_or(Kind::Bug, |problem| problem.kind);
                let code = exit_code(kind, journal.has_changed());
                let last = if journal.has_changed() { Vec::new() } else { vec!["nothing was changed".to_owned()] };
                return Err(Failure { problems, sources: repl.sources(), last, code });
            }
        }
        if told_to_end {
            return Err(Failure { problems: Vec::new(), sources: Vec::new(), last: Vec::new(), code: 130 });
        }
    }
}

/// Prints what a line came to; true if it was the last one.
fn say(global: &Global, answer: Answer) -> Result<bool, Problem> {
    match answer {
        Answer::Value(Json::Null) => {}
        Answer::Value(value) if global.output == Output::Json => ui::print_json(&value),
        Answer::Value(value) => {
            if let Some(text) = table::show(&value) {
                ui::print(&text);
            }
        }
        Answer::Yaml(value) => ui::print(names::plain(table::yaml(&value).trim_end()).as_str()),
        Answer::Json(value) => ui::print(&serde_json::to_string_pretty(&value).unwrap_or_default()),
        Answer::Text(text) => ui::print(&text),
        Answer::Save { file, text } => {
            use std::io::Write as _;
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&file)
                .and_then(|mut out| out.write_all(text.as_bytes()))
                .map_err(|e| Problem::usage(format!("`{}` cannot be written", names::plain(&file))).because(&e))?;
            ui::talk(&format!("saved: pvmigrate run {}", names::plain(&file)));
        }
        Answer::Quit => return Ok(true),
    }
    Ok(false)
}

/// The line in hand, for whoever presses Ctrl-C.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    line: Option<CancellationToken>,
    /// Somebody sits at the prompt: a Ctrl-C that comes when a line has just ended is meant for that line.
    at_prompt: bool,
    told_to_end: bool,
}

impl Running {
    fn begin(&self) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.lock().line = Some(cancel.clone());
        cancel
    }

    /// True if the whole session is to end.
    fn done(&self) -> bool {
        let mut state = self.lock();
        state.line = None;
        state.told_to_end
    }

    /// Ctrl-C stops the line in hand, the second one the process; SIGTERM ends the session. The journal is whole at
    /// every instant.
    fn on_signals(&self, runtime: &tokio::runtime::Runtime, stopping: &'static str) {
        use tokio::signal::unix::{SignalKind, signal};
        let running = self.clone();
        let terminal = ui::Terminal::now();
        runtime.spawn(async move {
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            loop {
                let ends = tokio::select! { _ = int.recv() => false, _ = term.recv() => true };
                let mut state = running.lock();
                state.told_to_end |= ends;
                match &state.line {
                    Some(line) if !line.is_cancelled() => {
                        ui::talk(stopping);
                        line.cancel();
                    }
                    None if state.at_prompt && !ends => {}
                    _ => {
                        terminal.restore();
                        ui::leave(130);
                    }
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
