//! `pvmigrate rollback [RUN]`

use super::{Failure, Global, session, ui};
use crate::script::{Script, undo};
use crate::words::{Json, Problem};
use serde_json::json;

/// Take a run back: newest first, until everything is as it was before
///
/// Nothing is needed but the run's journal. Whatever somebody else has changed since stops it, with the difference. It can
/// be broken off at any moment: the same command goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run; the newest one that stopped if left out
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    plan: bool,
    /// Copy what was written on the new volumes back to the old ones, verified, before they are used again
    #[arg(long, conflicts_with = "discard_new_data")]
    reverse_sync: bool,
    /// Go back to the old volumes as they are: what was written since stays on the new ones, which are kept
    #[arg(long)]
    discard_new_data: bool,
    /// How many units at once
    #[arg(long, value_name = "INT", default_value_t = 4)]
    parallel: u8,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    // The run is ours before its journal is read: nobody adds to it any more.
    let taken = session::take_up(global, args.run.as_deref())?;
    let global = &taken.global.clone();
    let (run, events) = (taken.run.clone(), taken.events()?);
    if taken.journal.ended(undo::BRANCH).is_some() {
        ui::talk(&format!("run {run} is taken back already"));
        return Ok(());
    }
    let (state, books) = undo::before_rollback(&events)?;
    let how = match (args.reverse_sync, args.discard_new_data) {
        (true, _) => "reverse",
        (_, true) => "discard",
        _ => "compare",
    };
    if how != "reverse" && undo::has_copied_back(&events) {
        return Err(Failure::from(
            Problem::refused("an old volume is being written over from a new one: only that can be finished")
                .hint(session::line(global, &format!("rollback {run} --reverse-sync"))),
        ));
    }
    let plan = undo::plan(&state, &books, how);
    if !plan.obstacles.is_empty() {
        return Err(Failure {
            problems: plan.obstacles,
            sources: vec![],
            last: vec!["nothing was changed".into()],
            code: 3,
        });
    }
    if plan.units.is_empty() {
        ui::talk(&format!("run {run} has changed nothing that could be taken back"));
        return Ok(());
    }
    let mut told = vec![format!("run {run} of {} is taken back, newest first:", taken.file.script)];
    told.extend(undo::describe(&plan, how));
    if args.plan {
        ui::print(&told.join("\n"));
        return Ok(());
    }
    let script = Script::typed(undo::SCRIPT, &taken.cancel).map_err(|problems| Failure {
        problems,
        sources: vec![],
        last: vec![],
        code: 70,
    })?;
    let mut met = taken.reach("rollback")?;
    let voice = ui::voice(global);
    let begun = met.journal.is_past(undo::BRANCH, 1);
    if global.yes || begun {
        ui::talk(&told.join("\n"));
    } else {
        match voice.confirm(&told.join("\n")) {
            Some(true) => {}
            Some(false) => return Err(Problem::refused("not confirmed").into()),
            None => {
                return Err(Problem::refused("nobody is here to confirm")
                    .hint("add --yes to go on without asking")
                    .into());
            }
        }
    }
    let given = |name: &str| met.file.args.get(name).cloned().unwrap_or(Json::Null);
    let opts = json!({"how": how, "image": given("image"), "pod_patch": given("pod-patch"), "run_as": given("run-as")});
    met.file.args = undo::args(&plan, &opts, args.parallel);
    let way = match how {
        "reverse" => " --reverse-sync",
        "discard" => " --discard-new-data",
        _ => "",
    };
    let again = format!("to go on: {}", session::line(global, &format!("rollback {run}{way}")));
    session::execute_in(met.start(script, voice, true), undo::BRANCH)?.conclude_with(global, vec![again])?;
    ui::talk(&format!("run {run} is taken back"));
    Ok(())
}
