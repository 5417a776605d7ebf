//! `pvmigrate resume [RUN]`

use super::session::{self, Start};
use super::{Failure, Global, state_dir, ui};
use crate::journal::Runs;
use crate::script::{Script, undo};
use crate::words::{Kind, Problem, RunId};
use tokio_util::sync::CancellationToken;

/// Go on with a run that stopped or was killed
///
/// It continues with the script and the options that it began with, whatever has become of the script's file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run; the newest one that stopped if left out
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    session::needs_a_cluster_that_stays(global)?;
    let runs = Runs::new(&state_dir(global)?);
    let run = match &args.run {
        Some(text) => RunId::parse(text)?,
        None => runs.latest_stopped()?,
    };
    let (file, journal, _) = runs.open(&run)?;
    if journal.ended(undo::BRANCH).is_some() {
        return Err(Problem::refused(format!("run {run} was taken back: there is nothing to resume")).into());
    }
    if journal.is_past(undo::BRANCH, 1) {
        return Err(Failure::from(
            Problem::refused(format!("run {run} is being taken back: it does not go on"))
                .hint(format!("pvmigrate rollback {run}")),
        ));
    }
    if journal.ended("root").is_some() {
        ui::talk(&format!("run {run} is done: there is nothing to resume"));
        return Ok(());
    }
    if file.sources.is_empty() {
        return Err(Failure::from(
            Problem::usage(format!("run {run} was typed line by line: there is no script to go on with"))
                .hint(format!("what it did, and what it was doing when it stopped: pvmigrate runs show {run}"))
                .hint("look at the objects, then type what is missing in a new `pvmigrate repl`")
                .hint(format!("when nothing is left to do: pvmigrate runs forget {run} --force")),
        ));
    }
    let cancel = CancellationToken::new();
    let script = Script::stored(&file.script, &file.sources, &cancel).map_err(|problems| Failure {
        problems,
        sources: file.sources.iter().map(|source| (source.name.clone(), source.text.clone())).collect(),
        last: Vec::new(),
        code: 5,
    })?;
    let runtime = session::runtime()?;
    session::on_signals(global, &runtime, &cancel);
    let reached = session::reach(global, &runtime)?;
    if reached.uid != file.cluster_uid {
        return Err(Failure::from(
            Problem::new(Kind::Diverged, format!("run {run} belongs to another cluster"))
                .quote(format!("it began on context `{}` ({})", file.context, file.server))
                .quote(format!("this is context `{}` ({})", reached.cluster.context(), reached.cluster.server()))
                .hint(format!("pvmigrate resume {run} --context {}", file.context)),
        ));
    }
    ui::talk(&format!("resuming run {run} of {} after {} records", file.script, journal.len()));
    let voice = ui::voice(global);
    // The plan was confirmed when the run began, or is asked for again.
    let yes = global.yes || file.yes;
    let (cluster, trial) = reached.into_parts();
    let start = Start { script, runtime, cluster, journal, file, voice, cancel, yes, trial };
    session::execute(start)?.conclude(global).map(|_| ())
}
