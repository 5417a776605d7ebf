//! `pvmigrate resume [RUN]`

use super::{Failure, Global, OnFailure, in_cluster, rollback, session, ui};
use crate::script::{Script, undo};
use crate::words::Problem;

/// Go on with a run that stopped or was killed
///
/// It continues with the script and the options that it began with, whatever has become of the script's file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run; the newest one that stopped if left out
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// What becomes of the run if it fails; exit code 6: it failed, and everything is as it was before
    #[arg(long, value_enum, default_value_t = OnFailure::Stop, value_name = "WHAT")]
    on_failure: OnFailure,
    /// This is a pod of that Job
    #[arg(long, hide = true, value_name = "NAME")]
    of_job: Option<String>,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    let ended = resume(global, args);
    if let (Some(job), Err(failure)) = (&args.of_job, &ended) {
        in_cluster::ended_badly(global, job, failure);
    }
    ended
}

fn resume(global: &Global, args: &Args) -> Result<(), Failure> {
    let global = &Global { on_failure: args.on_failure, ..global.clone() };
    // Whoever had to wait for another process reads what that one did.
    while !go_on(global, args)? {}
    Ok(())
}

/// False if what was read of the run is out of date by now.
fn go_on(global: &Global, args: &Args) -> Result<bool, Failure> {
    let taken = session::take_up(global, args.run.as_deref())?;
    let global = &taken.global.clone();
    let (run, file, journal) = (taken.run.clone(), &taken.file, &taken.journal);
    if journal.ended(undo::BRANCH).is_some() {
        return Err(Problem::refused(format!("run {run} was taken back: there is nothing to resume")).into());
    }
    if journal.is_past(undo::BRANCH, 1) || journal.taking_back().is_some() {
        let begun = journal.taking_back().unwrap_or_default();
        let message = match &begun.to {
            None => format!("run {run} is being taken back: it does not go on"),
            Some(to) => format!("what run {run} did after step {to} is being taken back: that is finished first"),
        };
        return Err(Failure::from(
            Problem::refused(message).hint(session::line(global, &rollback::typed(&run, &begun))),
        ));
    }
    if journal.ended("root").is_some() {
        ui::talk(&format!("run {run} is done: there is nothing to resume"));
        return Ok(true);
    }
    if file.sources.is_empty() {
        return Err(Failure::from(
            Problem::usage(format!("run {run} was typed line by line: there is no script to go on with"))
                .hint(format!("what it did, and what it was doing when it stopped: pvmigrate runs show {run}"))
                .hint("look at the objects, then type what is missing in a new `pvmigrate repl`")
                .hint(format!("when nothing is left to do: pvmigrate runs forget {run} --force")),
        ));
    }
    let script = Script::stored(&file.script, &file.sources, &taken.cancel).map_err(|problems| Failure {
        problems,
        sources: file.sources.iter().map(|source| (source.name.clone(), source.text.clone())).collect(),
        last: Vec::new(),
        code: 5,
    })?;
    let met = taken.reach("resume")?;
    ui::talk(&format!("resuming run {run} of {} after {} records", met.file.script, met.journal.len()));
    // The plan was confirmed when the run began, or is asked for again.
    let yes = global.yes || met.file.yes;
    let ended = session::execute(met.start(script, ui::voice(global), yes))?;
    if ended.behind {
        ui::talk(&format!("another process went on with run {} meanwhile: it is read anew", ended.run));
        return Ok(false);
    }
    rollback::conclude(global, ended).map(|()| true)
}
