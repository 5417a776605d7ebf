//! `pvmigrate rollback [RUN]`

use super::session::{self, Ended, Met};
use super::{Failure, Global, OnFailure, Output, report, ui};
use crate::cluster::Fact;
use crate::cluster::ledger::Books;
use crate::copy::pod::check_patch;
use crate::journal::{Back, Event, Journal, State, StepId, whole_step};
use crate::script::{Script, undo};
use crate::words::{Json, Kind, Problem, RunId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Take a run back: newest first, until everything is as it was before
///
/// Nothing is needed but the run's journal. Whatever somebody else has changed since stops it, with the difference. It can
/// be broken off at any moment: the same command goes on.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The run; the newest one that stopped if left out
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Only say what would be done, what cannot be, and what somebody else has changed since
    #[arg(long)]
    plan: bool,
    /// Take back only what came after this step, as `runs show` names it; the run can then be resumed from there. A unit whose
    /// claims were switched since goes back whole
    #[arg(long, value_name = "STEP")]
    to: Option<String>,
    /// Take this object back although somebody else has changed it since: Kind:namespace/name, as messages name it. Holds for
    /// this rollback only (may be given several times)
    #[arg(long, value_name = "OBJECT")]
    force: Vec<String>,
    /// Copy what was written on the new volumes back to the old ones, verified, before they are used again; all but the last of
    /// it while the workloads still run
    #[arg(long, conflicts_with = "discard_new_data")]
    reverse_sync: bool,
    /// Go back to the old volumes as they are: what was written since stays on the new ones, which are kept
    #[arg(long)]
    discard_new_data: bool,
    /// The agent's image, instead of the run's
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// YAML file merged over every copy pod, instead of the run's
    #[arg(long, value_name = "FILE")]
    pod_patch: Option<PathBuf>,
    /// User that copies, instead of the run's
    #[arg(long, value_name = "UID")]
    run_as: Option<i64>,
    /// How many units at once
    #[arg(long, value_name = "INT", default_value_t = 4)]
    parallel: u8,
}

/// What became of it.
enum Outcome {
    /// There was nothing to do, and this was said.
    Said,
    /// Taken back, but for these.
    Back(Vec<Problem>),
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    take_back(global, args).map(|_| ())
}

/// Ends a run. One that failed is taken back at once, if that was asked for and if it is known how everything stands.
///
/// # Errors
/// The failure of the run, whatever became of the way back.
pub fn conclude(global: &Global, ended: Ended) -> Result<(), Failure> {
    let (run, changed) = (ended.run.clone(), ended.changed);
    let Err(mut failed) = ended.conclude(global) else { return Ok(()) };
    let unknown = |problem: &Problem| {
        matches!(problem.kind, Kind::Interrupted | Kind::Unreachable | Kind::Local | Kind::Bug | Kind::Diverged)
    };
    if global.on_failure != OnFailure::Rollback || !changed || failed.problems.iter().any(unknown) {
        return Err(failed);
    }
    for problem in &failed.problems {
        report::problem(problem, &failed.sources);
    }
    ui::talk(&format!("run {run} failed: it is taken back"));
    let args = Args { run: Some(run.to_string()), parallel: 4, ..Args::default() };
    let back = take_back(&Global { yes: true, ..global.clone() }, &args);
    failed.problems.clear();
    match back {
        Ok(Outcome::Back(kept)) if kept.is_empty() => {
            failed.code = 6;
            failed.last = vec![format!("run {run} failed, and was taken back: everything is as it was before")];
        }
        Ok(_) => failed.last.insert(0, format!("run {run} was not taken back whole")),
        Err(why) => {
            if why.problems.iter().any(|problem| problem.kind == Kind::Interrupted) {
                failed.code = why.code;
            }
            failed.problems = why.problems;
            failed.sources.extend(why.sources);
            failed.last.splice(0..0, why.last);
        }
    }
    Err(failed)
}

/// Everything that is known before the cluster is asked.
struct Planned {
    plan: undo::Plan,
    back: Back,
    state: State,
    books: Books,
    /// It was begun before, with these options.
    begun: Option<Back>,
}

fn take_back(global: &Global, args: &Args) -> Result<Outcome, Failure> {
    // The run is ours before its journal is read: nobody adds to it any more.
    let taken = session::take_up(global, args.run.as_deref())?;
    let global = &taken.global.clone();
    let (run, events) = (taken.run.clone(), taken.events()?);
    if taken.journal.ended(undo::BRANCH).is_some() {
        ui::talk(&format!("run {run} is taken back already"));
        return Ok(Outcome::Said);
    }
    let how = match (args.reverse_sync, args.discard_new_data) {
        (true, _) => "reverse",
        (_, true) => "discard",
        _ => "compare",
    };
    let planned = plan(global, args, &taken.journal, &run, &events, how)?;
    let Planned { plan, .. } = &planned;
    if !plan.obstacles.is_empty() {
        if args.plan {
            show(global, &run, &planned, how, &[], args);
        }
        return Err(Failure {
            problems: planned.plan.obstacles,
            sources: vec![],
            last: vec!["nothing was changed".into()],
            code: 3,
        });
    }
    if plan.units.is_empty() {
        if !args.plan {
            session::sweep(global, &taken.file, &taken.journal)?;
        }
        let since = planned.back.to.as_ref().map_or(String::new(), |to| format!(" after step {to}"));
        ui::talk(&format!("run {run} has changed nothing{since} that could be taken back"));
        return Ok(Outcome::Said);
    }
    let there: BTreeSet<&str> = plan.objects().collect();
    if let Some(other) = args.force.iter().find(|object| !there.contains(object.as_str())) {
        return Err(Failure::from(
            Problem::usage(format!("this rollback does not touch `{other}`"))
                .hint("--force wants an object as messages name it: Deployment:shop/web")
                .hint(session::line(global, &format!("rollback {run} --plan"))),
        ));
    }
    let options = options(args, how, &taken.file.args)?;
    let script = Script::typed(undo::SCRIPT, &taken.cancel).map_err(|problems| Failure {
        problems,
        sources: vec![],
        last: vec![],
        code: 70,
    })?;
    let mut met = taken.reach("rollback")?;
    let foreign = changed_by_others(&met, &run, &planned)?;
    if args.plan {
        show(global, &run, &planned, how, &foreign, args);
        return Ok(Outcome::Said);
    }
    let unforced = foreign.iter().filter(|one| !args.force.contains(&one.object));
    let problems: Vec<Problem> = unforced.map(|one| stops(one, global, &run, args)).collect();
    if !problems.is_empty() {
        let last = if planned.begun.is_some() { "nothing more was changed" } else { "nothing was changed" };
        return Err(Failure { problems, sources: vec![], last: vec![last.into()], code: 5 });
    }
    let mut told = vec![head(&planned, &run, &met.file.script)];
    told.extend(undo::describe_to(&planned.plan, &planned.back, how));
    told.extend(foreign.iter().flat_map(overridden));
    confirmed(global, &told, planned.begun.is_some())?;

    let Planned { mut plan, mut back, begun, .. } = planned;
    back.how = options.clone();
    if let Some(before) = begun.filter(|before| !before.how.is_null() && before.how != options) {
        begin_anew(&met.journal, &plan, &before, global, &run)?;
    }
    if met.journal.taking_back().as_ref() != Some(&back) {
        let fact = serde_json::to_value(Fact::TakingBack(back.clone())).expect("facts are plain data");
        met.journal.fact(&StepId::new(back.branch.as_str()), fact)?;
    }
    let again = format!("to go on: {}", session::line(global, &typed(&run, &back)));
    undo::note_left(&met.journal, &mut plan, &back.branch);
    met.file.args = undo::args(&plan, &options, args.parallel);
    session::execute_in(met.start(script, ui::voice(global), true), &back.branch)?
        .conclude_with(global, vec![again])?;
    for problem in &plan.kept {
        ui::talk(&format!("not taken back: {problem}"));
    }
    match &back.to {
        None => ui::talk(&format!("run {run} is taken back")),
        Some(to) => {
            ui::talk(&format!("what run {run} did after step {to} is taken back"));
            ui::talk(&format!("the run can be continued: {}", session::resume_line(global, &run)));
        }
    }
    Ok(Outcome::Back(plan.kept))
}

fn plan(
    global: &Global,
    args: &Args,
    journal: &Journal,
    run: &RunId,
    events: &[Event],
    how: &str,
) -> Result<Planned, Failure> {
    // Of before there was a record of it, only the whole could be taken back.
    let old = journal.is_past(undo::BRANCH, 1).then(|| Back { branch: undo::BRANCH.into(), ..Back::default() });
    let begun = journal.taking_back().or(old);
    let to = args.to.as_ref().map(|step| whole_step(&StepId::new(step.trim())));
    if let Some(begun) = begun.as_ref().filter(|begun| begun.to != to) {
        let what =
            begun.to.as_ref().map_or_else(|| "the whole run".to_owned(), |step| format!("what came after {step}"));
        return Err(Failure::from(
            Problem::refused(format!("{what} is being taken back: that is finished first"))
                .hint(session::line(global, &typed(run, begun))),
        ));
    }
    if how != "reverse" && undo::has_copied_back(events) {
        let mut all = begun.clone().unwrap_or_default();
        all.how["how"] = "reverse".into();
        return Err(Failure::from(
            Problem::refused("an old volume is being written over from a new one: only that can be finished")
                .hint(session::line(global, &typed(run, &all))),
        ));
    }
    let (state, books) = undo::before_rollback(events)?;
    let (plan, back) = match &to {
        Some(to) => undo::plan_to(events, how, to)?,
        None => (undo::plan(&state, &books, how), Back { branch: undo::BRANCH.into(), ..Back::default() }),
    };
    Ok(Planned { plan, back, state, books, begun })
}

/// The options of the copy pods and of what is overridden: those of the run, unless told.
fn options(args: &Args, how: &str, of_the_run: &Json) -> Result<Json, Problem> {
    let given = |name: &str| of_the_run.get(name).cloned().unwrap_or(Json::Null);
    let pod_patch = match &args.pod_patch {
        Some(path) => super::run::yaml("pod-patch", &path.display().to_string())?,
        None => given("pod-patch"),
    };
    check_patch(&pod_patch)?;
    Ok(json!({
        "how": how, "force": args.force, "pod_patch": pod_patch, "waive": given("waive"),
        "image": args.image.as_ref().map_or_else(|| given("image"), |image| json!(image)),
        "run_as": args.run_as.map_or_else(|| given("run-as"), |uid| json!(uid)),
        "typed": {"image": args.image, "pod_patch": args.pod_patch, "run_as": args.run_as},
    }))
}

/// The command with the options that a rollback was begun with.
pub fn typed(run: &RunId, back: &Back) -> String {
    let mut line = format!("rollback {run}");
    let mut add = |flag: &str, value: &Json| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!(" {flag} {}", session::quoted(&value)));
    };
    if let Some(to) = &back.to {
        add("--to", &json!(to));
    }
    for object in back.how["force"].as_array().into_iter().flatten() {
        add("--force", object);
    }
    for (flag, field) in [("--image", "image"), ("--pod-patch", "pod_patch"), ("--run-as", "run_as")] {
        let value = &back.how["typed"][field];
        if !value.is_null() {
            add(flag, value);
        }
    }
    match back.how["how"].as_str() {
        Some("reverse") => line.push_str(" --reverse-sync"),
        Some("discard") => line.push_str(" --discard-new-data"),
        _ => {}
    }
    line
}

/// Looks at what the plan would change, before anything is.
fn changed_by_others(met: &Met, run: &RunId, planned: &Planned) -> Result<Vec<undo::Foreign>, Problem> {
    let mut objects = BTreeMap::new();
    for (object, write) in undo::to_look_at(&planned.plan, &planned.state) {
        let found = met.runtime.block_on(async {
            let Some(kind) =
                met.cluster.find_resource(&format!("{}/{}", write.gvk.api_version(), write.gvk.kind)).await?
            else {
                return Ok(None);
            };
            let found = met.cluster.find(&kind, &write.namespace, &write.name).await;
            found.map_err(|e| e.problem(&format!("look at {object}"), Some(&write.object())))
        });
        objects.insert(object, found?);
    }
    Ok(undo::foreign(run, &planned.plan, &planned.state, &planned.books, &objects))
}

fn stops(one: &undo::Foreign, global: &Global, run: &RunId, args: &Args) -> Problem {
    let mut problem = Problem::new(Kind::Conflict, one.message.clone()).object(&one.object);
    for line in &one.differences {
        problem = problem.quote(line);
    }
    problem = problem.hint("put it right by hand, then the same command again");
    if !undo::may_be_forced(&one.object) {
        return problem;
    }
    let mut force = args.force.clone();
    force.push(one.object.clone());
    let how = json!({"force": force, "how": match (args.reverse_sync, args.discard_new_data) {
        (true, _) => "reverse",
        (_, true) => "discard",
        _ => "compare",
    }});
    let to = args.to.as_ref().map(StepId::new);
    let line = typed(run, &Back { to, how, ..Back::default() });
    problem.hint(format!("or override it: {}", session::line(global, &line)))
}

fn overridden(one: &undo::Foreign) -> Vec<String> {
    let mut lines = vec![format!("  --force overrides: {}", one.message)];
    lines.extend(one.differences.iter().map(|line| format!("    {line}")));
    lines
}

fn head(planned: &Planned, run: &RunId, script: &str) -> String {
    match &planned.back.to {
        None => format!("run {run} of {script} is taken back, newest first:"),
        Some(to) => format!("what run {run} of {script} did after step {to} is taken back, newest first:"),
    }
}

fn show(global: &Global, run: &RunId, planned: &Planned, how: &str, foreign: &[undo::Foreign], args: &Args) {
    let Planned { plan, back, .. } = planned;
    let is_forced = |one: &undo::Foreign| args.force.contains(&one.object);
    if global.output == Output::Json {
        let problems = |all: &[Problem]| all.iter().map(|one| json!(one)).collect::<Vec<_>>();
        let foreign: Vec<Json> = foreign
            .iter()
            .map(|one| {
                json!({"object": one.object, "message": one.message, "differences": one.differences,
                    "may_be_forced": undo::may_be_forced(&one.object), "forced": is_forced(one)})
            })
            .collect();
        ui::print_json(&json!({
            "run": run, "to": back.to, "how": how, "units": undo::lines(plan, how), "whole": back.whole,
            "stays": plan.stays.iter().map(|(_, what)| what).collect::<Vec<_>>(), "not_taken_back": problems(&plan.kept),
            "obstacles": problems(&plan.obstacles), "changed_by_others": foreign,
        }));
        return;
    }
    let mut told = vec![head(planned, run, "the journal")];
    told[0] = told[0].replace(" of the journal", "");
    told.extend(undo::describe_to(plan, back, how));
    for one in foreign {
        if is_forced(one) {
            told.extend(overridden(one));
            continue;
        }
        told.push(format!("  stops it: {}", one.message));
        told.extend(one.differences.iter().map(|line| format!("    {line}")));
        if undo::may_be_forced(&one.object) {
            told.push(format!("    --force {} overrides it", one.object));
        }
    }
    ui::print(&told.join("\n"));
}

fn confirmed(global: &Global, told: &[String], begun: bool) -> Result<(), Problem> {
    if global.yes || begun {
        ui::talk(&told.join("\n"));
        return Ok(());
    }
    match ui::voice(global).confirm(&told.join("\n")) {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::refused("not confirmed")),
        None => Err(Problem::refused("nobody is here to confirm").hint("add --yes to go on without asking")),
    }
}

/// Other options than before: what was not finished is begun anew, unless a claim is on its way.
fn begin_anew(
    journal: &Journal,
    plan: &undo::Plan,
    before: &Back,
    global: &Global,
    run: &RunId,
) -> Result<(), Problem> {
    let open: Vec<String> = undo::open_units(journal, plan, &before.branch);
    if open.iter().any(|branch| undo::is_on_its_way(journal, branch)) {
        return Err(Problem::refused(
            "a claim is on its way back: that is finished with the options it was begun with",
        )
        .hint(session::line(global, &typed(run, before))));
    }
    let why = Problem::new(Kind::Interrupted, "it is begun anew with other options");
    open.iter().try_for_each(|branch| journal.give_up(branch, &why))
}
