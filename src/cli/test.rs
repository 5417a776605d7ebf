//! `pvmigrate test SCRIPT [--crash]`

use super::{Failure, Global, Output, exit_code, report, run, session, state_dir, ui};
use crate::lab::scenario::Scenario;
use crate::script::Script;
use crate::trial::crash::{self, Exam, Reference, Then, Verdict};
use crate::trial::suite::{self, Outcome, Suite};
use crate::trial::{Site, Snapshot, tell};
use crate::words::clock::{Clock, human_seconds};
use crate::words::{Json, Problem, names};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Test a script in labs: run its tests, or kill it at every write
///
/// The tests are functions `test_…` in NAME_test.rhai beside NAME.rhai; each has a cluster of its own in this process. With
/// --crash the script itself is run undisturbed, then killed at every write in every way, resumed, and separately taken back:
/// the report says what a crash would have cost. Nothing is asked of a real cluster. docs/testing.md has the words of tests.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path or name of the script
    #[arg(value_name = "SCRIPT")]
    script: String,
    /// Kill it at every write, resume and take back, and compare
    #[arg(long)]
    crash: bool,
    /// What the labs begin with: a YAML file, `shop` or `small` [default: SCENARIO of the test file, or shop]
    #[arg(long, value_name = "FILE")]
    scenario: Option<String>,
    /// Only the tests, or the cases of --crash, with this in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How many labs at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// Decides what is random in the labs, and which cases --sample takes [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only so many cases of --crash
    #[arg(long, value_name = "N", requires = "crash")]
    sample: Option<usize>,
    /// The script's own options for --crash [default: OPTIONS of the test file]
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// What the exit code table says of failed tests.
const FAILED: u8 = 1;

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    if global.lab.is_some() || global.kubeconfig.is_some() || global.context.is_some() {
        return Err(Problem::usage("test makes clusters of its own: it takes no --lab, --kubeconfig or --context")
            .hint(format!("pvmigrate test {} --scenario FILE", names::plain(&args.script)))
            .into());
    }
    if !args.crash && !args.options.is_empty() {
        return Err(Problem::usage("options after -- are for --crash")
            .hint("a test gives them to run(#{ … }), or they are OPTIONS of the test file")
            .into());
    }
    let cancel = CancellationToken::new();
    let script = Script::load(&args.script, &cancel).map_err(|problems| run::failed_to_load(&args.script, problems))?;
    let suite = Suite::find(&args.script).map_err(|(problems, sources)| Failure {
        problems,
        sources,
        last: Vec::new(),
        code: 2,
    })?;
    let snapshot = Snapshot::of(&script);
    let scenario = scenario(args, suite.as_ref())?;
    let seed = args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let runtime = session::runtime()?;
    session::on_interrupt(&runtime, &cancel);
    let place = Place::make(global)?;
    let images = super::lab::images()?;
    let site = Site { dir: place.dir.clone(), images, scenario, seed, cancel: cancel.clone(), exit_code };
    let ended = if args.crash {
        crash_test(global, args, &script, snapshot, suite.as_ref(), site)
    } else {
        match suite {
            Some(suite) => tests(global, args, &suite, &snapshot, &site),
            None => Err(no_tests(&args.script, &snapshot)),
        }
    };
    drop(place);
    runtime.shutdown_background();
    if cancel.is_cancelled() {
        return Err(Failure { problems: vec![], sources: vec![], last: vec!["interrupted".into()], code: 130 });
    }
    ended
}

fn no_tests(script: &str, snapshot: &Snapshot) -> Failure {
    let file = suite::file_of(script);
    let required = snapshot.options.iter().filter(|spec| spec.required);
    let options: Vec<String> = required.map(|spec| format!("\"{}\": \"…\"", spec.name)).collect();
    let script = names::plain(script);
    let mut failure = Failure::from(
        Problem::usage(format!("{script} has no tests: there is no {}", names::plain(&file)))
            .hint(format!("--crash needs none: pvmigrate test {script} --crash -- OPTIONS"))
            .hint(format!("write {}, for example:", names::plain(&file))),
    );
    let options = format!("const OPTIONS = #{{ {} }};", options.join(", ")).replace("{  }", "{}");
    failure.last = [
        &options,
        "",
        "fn test_it_comes_to_its_end() {",
        "    let end = run();",
        "    assert(end.ok, end.error);",
        "    assert_eq(lost_lines(), []);",
        "}",
    ]
    .into_iter()
    .map(|line| format!("    {line}").trim_end().to_owned())
    .collect();
    failure
}

fn scenario(args: &Args, suite: Option<&Suite>) -> Result<Scenario, Problem> {
    let given = args.scenario.clone().map(|name| (name, None));
    let theirs = suite.and_then(|suite| Some((suite.scenario.clone()?, suite.folder.clone())));
    let Some((name, folder)) = given.or(theirs) else { return Ok(Scenario::shop(false)) };
    if let Some(stock) = Scenario::stock(&name) {
        return Ok(stock);
    }
    let path = folder.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name));
    super::lab::read(&path).map_err(|problem| problem.hint("`shop` and `small` are scenarios that need no file"))
}

/// The directory of all labs of this process; a lock says that it lives.
struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    fn make(global: &Global) -> Result<Place, Problem> {
        let all = state_dir(global)?.join("tests");
        let all = std::path::absolute(&all).map_err(|e| Problem::usage("--state-dir is no path").because(&e))?;
        sweep(&all);
        let dir = all.join(std::process::id().to_string());
        let unusable = |e: std::io::Error| Problem::local(format!("{} cannot be written", dir.display()), &e);
        std::fs::create_dir_all(&dir).map_err(unusable)?;
        let lock = File::create(dir.join("lock")).map_err(unusable)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| unusable(errno.into()))?;
        Ok(Place { dir, _lock: lock })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!("{}: {error}", self.dir.display());
        }
    }
}

/// Removes what killed processes left.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let lock = File::open(entry.path().join("lock"));
        let is_free = lock
            .is_ok_and(|lock| rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_free && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::debug!("{}: {error}", entry.path().display());
        }
    }
}

fn texts(snapshots: &[&Snapshot]) -> Vec<(String, String)> {
    let all = snapshots.iter().flat_map(|snapshot| &snapshot.sources);
    all.map(|source| (source.name.clone(), source.text.clone())).collect()
}

fn tests(global: &Global, args: &Args, suite: &Suite, script: &Snapshot, site: &Site) -> Result<(), Failure> {
    let filter = args.filter.as_deref().unwrap_or_default();
    let chosen: Vec<_> = suite.tests.iter().filter(|test| test.name.contains(filter)).cloned().collect();
    if chosen.is_empty() {
        let problem = match suite.tests.len() {
            0 => Problem::usage(format!("{} has no functions `test_…`", suite.snapshot.name)),
            _ => Problem::usage(format!("no test has `{}` in its name", names::plain(filter))).hint(format!(
                "there are: {}",
                suite.tests.iter().map(|test| &test.name[..]).collect::<Vec<_>>().join(", ")
            )),
        };
        return Err(problem.into());
    }
    let begun = Clock.monotonic();
    let sources = texts(&[&suite.snapshot, script]);
    let width = chosen.iter().map(|test| test.name.len()).max().unwrap_or(0);
    let told = |outcome: &Outcome| {
        match global.output {
            Output::Json => ui::print_json(&test_json(outcome)),
            Output::Text => {
                let word = if outcome.failure.is_none() { "ok" } else { "FAILED" };
                let time = human_seconds(outcome.seconds);
                ui::print(&format!("{word:<7} {:<width$} {time:>6}", outcome.test.name));
            }
        }
        if let Some(failure) = &outcome.failure {
            report::problem(failure, &sources);
            if let Some(stopped) = &outcome.stopped {
                ui::talk(&format!("the last run of {} in it had stopped:", script.name));
                report::problem(stopped, &sources);
            }
        }
    };
    let outcomes = suite.run(site, script, &chosen, args.parallel, &told);
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let passed = outcomes.len() - failed;
    let time = human_seconds(Clock.monotonic().duration_since(begun).as_secs_f64());
    ui::talk(&format!("{passed} passed, {failed} failed in {time} (seed {})", site.seed));
    if failed == 0 { Ok(()) } else { Err(failure()) }
}

fn test_json(outcome: &Outcome) -> Json {
    let place = outcome.failure.as_ref().and_then(|problem| problem.place.as_ref());
    json!({
        "test": outcome.test.name, "ok": outcome.failure.is_none(),
        "error": outcome.failure.as_ref().map(|problem| &problem.message),
        "details": outcome.failure.as_ref().map(|problem| &problem.source),
        "at": place.map(|place| format!("{}:{}", place.script, place.line)),
        "stopped": outcome.stopped.as_ref().map(|problem| &problem.message),
        "seconds": rounded(outcome.seconds),
    })
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn failure() -> Failure {
    Failure { problems: vec![], sources: vec![], last: vec![], code: FAILED }
}

fn crash_test(
    global: &Global,
    args: &Args,
    script: &Script,
    snapshot: Snapshot,
    suite: Option<&Suite>,
    site: Site,
) -> Result<(), Failure> {
    let values = match (suite, args.options.is_empty()) {
        (Some(suite), true) => snapshot.values(&suite.options)?,
        _ => match run::parse(global, script, &args.options) {
            Ok((_, values, options)) if !options.are_meant()? => values,
            Ok(_) => {
                return Err(Problem::usage("a crash test runs on labs of its own: --in-cluster is for `run`").into());
            }
            Err(run::Parsed::Said(0)) => return Ok(()),
            Err(run::Parsed::Said(code)) => {
                let last = vec![format!(
                    "hint: the script's own options stand after `--`: pvmigrate test {} --crash -- OPTIONS",
                    names::plain(&args.script)
                )];
                return Err(Failure { problems: vec![], sources: vec![], last, code });
            }
            Err(run::Parsed::Wrong(problem)) => return Err(problem.into()),
        },
    };
    let exam = Exam {
        script: snapshot,
        site,
        args: values,
        parallel: args.parallel,
        filter: args.filter.clone(),
        sample: args.sample,
    };
    let begun = Clock.monotonic();
    ui::talk(&format!("running {} undisturbed (seed {})", exam.script.name, exam.site.seed));
    let reference = crash::reference(&exam).map_err(|problem| Failure {
        problems: vec![problem],
        sources: texts(&[&exam.script]),
        last: vec!["this is without any crash: it has to come to its end first".into()],
        code: FAILED,
    })?;
    let cases = crash::cases(&exam, &reference);
    if cases.is_empty() {
        return match &args.filter {
            Some(filter) if !reference.effects.is_empty() => {
                Err(Problem::usage(format!("no case has `{}` in its name or its write", names::plain(filter)))
                    .hint("a case is called NUMBER:WAY:resume or NUMBER:WAY:rollback, as the report has it")
                    .into())
            }
            _ => {
                ui::talk("it writes nothing: there is nothing to kill");
                conclude(global, args, &exam, &reference, &[], begun)
            }
        };
    }
    let count = reference.effects.len();
    ui::talk(&format!("killing it: {} cases at {count} writes, {} at once", cases.len(), exam.parallel));
    let counter = ui::Counter::new(cases.len());
    let told = |verdict: &Verdict| {
        counter.one(verdict.costs.is_empty());
        if global.output == Output::Json {
            ui::print_json(&case_json(verdict, &reference));
        }
    };
    let verdicts = crash::run_all(&exam, &reference, &cases, &told);
    counter.end();
    conclude(global, args, &exam, &reference, &verdicts, begun)
}

fn case_json(verdict: &Verdict, reference: &Reference) -> Json {
    let Verdict { case, cause, costs, seconds } = verdict;
    json!({
        "case": case.name(), "write": tell::write(&case.effect, reference.beginning()), "at": case.effect.at,
        "way": case.how.word(), "then": case.then.word(), "ok": costs.is_empty(), "cause": cause, "costs": costs,
        "seconds": rounded(*seconds),
    })
}

fn conclude(
    global: &Global,
    args: &Args,
    exam: &Exam,
    reference: &Reference,
    verdicts: &[Verdict],
    begun: std::time::Instant,
) -> Result<(), Failure> {
    let passed = verdicts.iter().filter(|verdict| verdict.costs.is_empty()).count();
    let undisturbed: Vec<&str> = reference.costs.iter().map(|cost| &cost.what[..]).collect();
    match global.output {
        Output::Json => ui::print_json(&json!({
            "script": exam.script.name, "seed": exam.site.seed, "writes": reference.effects.len(),
            "undisturbed": undisturbed, "cases": verdicts.len(), "passed": passed,
        })),
        Output::Text => {
            ui::print_table(&table(reference, verdicts), &["n", "write", "at", "resume", "rollback"]);
            for what in &undisturbed {
                ui::print(&format!("undisturbed: {what}"));
            }
            for line in costs(verdicts) {
                ui::print(&names::plain(&line));
            }
        }
    }
    let time = human_seconds(Clock.monotonic().duration_since(begun).as_secs_f64());
    ui::talk(&format!("{passed} of {} cases passed in {time} (seed {})", verdicts.len(), exam.site.seed));
    if let Some(first) = verdicts.iter().find(|verdict| !verdict.costs.is_empty()) {
        let options: Vec<String> = args.options.iter().map(|word| session::quoted(word)).collect();
        let options = if options.is_empty() { String::new() } else { format!(" -- {}", options.join(" ")) };
        let scenario = args.scenario.as_ref().map(|name| format!(" --scenario {}", session::quoted(name)));
        ui::talk(&format!(
            "to repeat one: pvmigrate test {} --crash{} --seed {} --filter {}{options}",
            session::quoted(&args.script),
            scenario.unwrap_or_default(),
            exam.site.seed,
            first.case.name()
        ));
    }
    if passed == verdicts.len() && undisturbed.is_empty() { Ok(()) } else { Err(failure()) }
}

/// What was not good: ways that cost the same at one write are told together.
fn costs(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut groups: Vec<Vec<&Verdict>> = Vec::new();
    for verdict in verdicts.iter().filter(|verdict| !verdict.costs.is_empty()) {
        let is_same = |other: &&Verdict| {
            other.case.number == verdict.case.number
                && other.case.then == verdict.case.then
                && other.costs == verdict.costs
        };
        match groups.iter_mut().find(|group| group.first().is_some_and(is_same)) {
            Some(group) => group.push(verdict),
            None => groups.push(vec![verdict]),
        }
    }
    for group in groups {
        let Some((first, others)) = group.split_first() else { continue };
        let name = first.case.name();
        let indent = " ".repeat(name.len());
        for (index, cost) in first.costs.iter().enumerate() {
            lines.push(match index {
                0 => format!("{name}  {}: {cost}", first.cause),
                _ => format!("{indent}  and {cost}"),
            });
        }
        if !others.is_empty() {
            let ways: Vec<&str> = others.iter().map(|other| other.case.how.word()).collect();
            lines.push(format!("{indent}  the same: {}", ways.join(", ")));
        }
    }
    lines
}

/// A row for each write: how many of the cases passed.
fn table(reference: &Reference, verdicts: &[Verdict]) -> Vec<Json> {
    let mut counts: BTreeMap<(usize, &str), (usize, usize)> = BTreeMap::new();
    for verdict in verdicts {
        let (passed, all) = counts.entry((verdict.case.number, verdict.case.then.word())).or_default();
        *passed += usize::from(verdict.costs.is_empty());
        *all += 1;
    }
    let told = |number: usize, then: Then| match counts.get(&(number, then.word())) {
        Some((passed, all)) => Json::from(format!("{passed} of {all}")),
        None => Json::Null,
    };
    let rows = reference.effects.iter().enumerate().map(|(index, effect)| {
        json!({
            "n": index + 1, "write": tell::write(effect, reference.beginning()), "at": tell::place(effect),
            "resume": told(index + 1, Then::Resume), "rollback": told(index + 1, Then::Rollback),
        })
    });
    rows.collect()
}
