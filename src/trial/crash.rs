//! The crash test: every write of a script is disturbed in every way, the run is resumed, and separately taken back; the
//! ends are compared with an undisturbed run and with the beginning.
//!
//! Each case has a lab of its own. What must stay true: a case is repeated exactly by its name and the seed; a
//! disturbance that did not happen is a failure of the case, not a pass.

use super::doom::{Doom, Effect, How};
use super::picture::{Noise, Picture};
use super::stage::{Notes, Play, RUN_WITHIN, Stage, TakeBack};
use super::tell::{self, Cost};
use super::view::{self, Beginning};
use super::watch::Watch;
use super::{Site, Snapshot};
use crate::script::undo;
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, RunId};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many times as long as an undisturbed run, and this at least, may one take that was disturbed.
const TIMES: u32 = 10;
const SHORTEST: Duration = Duration::from_secs(30);

/// What is tested, and where.
pub struct Exam {
    pub script: Snapshot,
    pub site: Site,
    /// The script's options.
    pub args: Json,
    pub parallel: usize,
    /// Only cases that have this in their name or their write.
    pub filter: Option<String>,
    /// Only so many cases, picked by the seed.
    pub sample: Option<usize>,
}

/// What is done after the disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Resume,
    Rollback,
}

impl Then {
    pub fn word(self) -> &'static str {
        match self {
            Then::Resume => "resume",
            Then::Rollback => "rollback",
        }
    }
}

/// One disturbance and what follows.
#[derive(Clone, Debug)]
pub struct Case {
    /// Of the write in the undisturbed run, from 1.
    pub number: usize,
    pub effect: Effect,
    pub how: How,
    pub then: Then,
}

impl Case {
    /// `12:before-done:resume`
    pub fn name(&self) -> String {
        format!("{}:{}:{}", self.number, self.how.word(), self.then.word())
    }
}

/// How a case ended.
#[derive(Debug)]
pub struct Verdict {
    pub case: Case,
    /// What happened to the run.
    pub cause: String,
    /// What that would have cost; empty is good.
    pub costs: Vec<String>,
    pub seconds: f64,
}

/// An undisturbed run.
pub struct Reference {
    pub effects: Vec<Effect>,
    /// What is wrong with it by itself.
    pub costs: Vec<Cost>,
    /// A disturbed run that takes longer waits for something that never comes.
    within: Duration,
    beginning: Beginning,
    before: Picture,
    end: Picture,
    noise: Noise,
}

impl Reference {
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }
}

/// Runs the script twice without any disturbance.
///
/// # Errors
/// What ended it before its end: there is nothing to compare with then.
pub fn reference(exam: &Exam) -> Result<Reference, Problem> {
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| undisturbed(exam, "undisturbed-2"));
        let first = undisturbed(exam, "undisturbed-1");
        (first, other.join().unwrap_or_else(|_| Err(Problem::bug("the undisturbed run panicked"))))
    });
    let (mut first, second) = (first?, second?);
    first.noise = first.end.noise(&second.end);
    let lines = |one: &Reference| one.effects.iter().map(Effect::line).collect::<BTreeSet<_>>();
    let (here, there) = (lines(&first), lines(&second));
    if let Some(line) = here.symmetric_difference(&there).next() {
        first.costs.push(Cost::new(
            "writes",
            format!("two undisturbed runs do not make the same writes ({line}): a run cannot be replayed that way"),
        ));
    }
    Ok(first)
}

fn undisturbed(exam: &Exam, name: &str) -> Result<Reference, Problem> {
    let stage = exam.site.stage(name)?;
    let watch = Watch::on(&stage.lab, Beginning::of(&stage.lab));
    let before = view::picture(&stage.lab, watch.beginning());
    let doom = Doom::none();
    let begun = Clock.monotonic();
    run(&stage, exam, &doom, false, RUN_WITHIN)?;
    let within = SHORTEST.max(Clock.monotonic().duration_since(begun) * TIMES);
    stage.rest();
    let end = view::picture(&stage.lab, watch.beginning());
    let mut costs = standing(&stage, &watch, &doom);
    costs.extend(tell::stopped(watch.beginning(), &end));
    let beginning = watch.beginning().clone();
    Ok(Reference { effects: doom.effects(), costs, within, beginning, before, end, noise: Noise::default() })
}

/// The cases, in the order of the writes; a sample is in the seed's order.
pub fn cases(exam: &Exam, reference: &Reference) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, effect) in reference.effects.iter().enumerate() {
        for then in [Then::Resume, Then::Rollback] {
            for how in How::ALL.into_iter().filter(|how| then == Then::Resume || how.kills()) {
                cases.push(Case { number: index + 1, effect: effect.clone(), how, then });
            }
        }
    }
    if let Some(filter) = &exam.filter {
        cases.retain(|case| {
            let write = tell::write(&case.effect, &reference.beginning);
            case.name() == *filter || write.contains(filter) || matches_part(&case.name(), filter)
        });
    }
    if let Some(count) = exam.sample {
        shuffle(&mut cases, exam.site.seed);
        cases.truncate(count);
    }
    cases
}

/// `12` is the write 12 and not 112; words match as they stand.
fn matches_part(name: &str, filter: &str) -> bool {
    let (parts, wanted) = (name.split(':').collect::<Vec<_>>(), filter.split(':').collect::<Vec<_>>());
    parts.windows(wanted.len()).any(|window| window == wanted)
}

fn shuffle<T>(list: &mut [T], seed: u64) {
    let mut random = seed | 1;
    for at in (1..list.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        list.swap(at, (random % (at as u64 + 1)) as usize);
    }
}

/// Carries the cases out, several at once; `told` hears of each that is over. Those that an interruption left out are
/// missing in the answer.
pub fn run_all(exam: &Exam, reference: &Reference, cases: &[Case], told: &(dyn Fn(&Verdict) + Sync)) -> Vec<Verdict> {
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..exam.parallel.clamp(1, 64) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let begun = Clock.monotonic();
                    // Every case has a lab of its own: a panic leaves nothing half done for the others.
                    let ended = catch_unwind(AssertUnwindSafe(|| disturbed(exam, reference, case)));
                    if exam.site.cancel.is_cancelled() {
                        return;
                    }
                    let ended = ended.unwrap_or_else(|panic| Err(format!("pvmigrate panicked: {}", said(&*panic))));
                    let costs = ended.unwrap_or_else(|why| vec![why]);
                    let seconds = Clock.monotonic().duration_since(begun).as_secs_f64();
                    let cause = tell::cause(&case.effect, case.how, &reference.beginning);
                    let verdict = Verdict { case: case.clone(), cause, costs, seconds };
                    told(&verdict);
                    verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdicts.sort_by_key(|verdict| (verdict.case.number, verdict.case.then.word(), verdict.case.how.word()));
    verdicts
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

/// One case: what it costs, in sentences; or what it came to instead of an end.
fn disturbed(exam: &Exam, reference: &Reference, case: &Case) -> Result<Vec<String>, String> {
    let stage = exam.site.stage(&case.name()).map_err(|problem| tell::problem(&problem))?;
    let watch = Watch::on(&stage.lab, Beginning::of(&stage.lab));
    let doom = Doom::at_write(&case.effect.line(), case.how);
    let within = reference.within;
    let first = run(&stage, exam, &doom, false, within);
    if !doom.has_fired() {
        return Err(match first {
            Ok(_) => "this write was not made again: the script does not do the same each time".to_owned(),
            Err(problem) => format!("the run stopped before it: {}", tell::problem(&problem)),
        });
    }
    let known: BTreeSet<&str> = reference.costs.iter().map(|cost| &cost.about[..]).collect();
    let quiet = Doom::none();
    let (mut costs, want, end) = match case.then {
        Then::Resume => {
            if first.is_err() {
                run(&stage, exam, &quiet, true, within)
                    .map_err(|problem| format!("resume stops: {}", tell::problem(&problem)))?;
            }
            stage.rest();
            let end = view::picture(&stage.lab, watch.beginning());
            (standing(&stage, &watch, &quiet), reference.end.clone(), end)
        }
        Then::Rollback => {
            take_back(&stage, &quiet, within)
                .map_err(|problem| format!("rollback stops: {}", tell::problem(&problem)))?;
            stage.rest();
            let end = view::picture(&stage.lab, watch.beginning()).made_anew();
            (standing(&stage, &watch, &quiet), reference.before.clone().made_anew(), end)
        }
    };
    costs.extend(doom.faults().into_iter().map(|fault| Cost::new("requests", fault)));
    let leaves = if first.is_ok() { "the run" } else { case.then.word() };
    let mut told: Vec<String> =
        costs.into_iter().filter(|cost| !known.contains(&cost.about[..])).map(|cost| cost.what).collect();
    told.extend(tell::differences(&want, &end, &reference.noise).into_iter().map(|what| format!("{leaves} {what}")));
    Ok(told)
}

/// What holds of every end: data, lines of writers, rules, requests.
fn standing(stage: &Stage, watch: &Watch, doom: &Doom) -> Vec<Cost> {
    let mut costs = Vec::new();
    for (claim, what) in view::lost(&stage.lab, watch.beginning()) {
        costs.push(Cost::new(format!("data of {claim}"), format!("the data of claim {claim}: {what}")));
    }
    for what in watch.lost_lines(&stage.lab) {
        let about = what.split(" has ").next().unwrap_or_default();
        costs.push(Cost::new(format!("lines of {about}"), format!("writes are lost: {what}")));
    }
    costs.extend(watch.broken().into_iter().map(|what| Cost::new(what.clone(), what)));
    costs.extend(doom.faults().into_iter().map(|fault| Cost::new("requests", fault)));
    costs
}

fn run_id() -> RunId {
    RunId::parse("01234567").unwrap_or_else(|_| RunId::random())
}

fn run(stage: &Stage, exam: &Exam, doom: &Arc<Doom>, resumed: bool, within: Duration) -> Result<Json, Problem> {
    let cancel = exam.site.cancel.child_token();
    let script = exam.script.open(&cancel)?;
    let notes = Arc::new(Notes::default());
    let voice = notes.clone();
    let play =
        Play { script, cancel, args: exam.args.clone(), branch: "root".into(), resumed, voice, within, faults: None };
    stage.play(&run_id(), doom, play).map_err(|problem| waiting(problem, &notes))
}

/// A run that was ended: the last that it said tells what it was waiting for.
fn waiting(mut problem: Problem, notes: &Notes) -> Problem {
    if let Some(line) = notes.said().log.last().filter(|_| problem.kind == Kind::Timeout) {
        problem.message.push_str(&format!("; the last it said: {line}"));
    }
    problem
}

/// What the workload wrote on a new volume comes along.
fn take_back(stage: &Stage, doom: &Arc<Doom>, within: Duration) -> Result<(), Problem> {
    let notes = Arc::new(Notes::default());
    let voice = || notes.clone();
    let back = |how| stage.take_back(&run_id(), doom, TakeBack { how, voice: voice(), within, faults: None });
    let ended = match back("compare") {
        Err(problem) if problem.kind == Kind::Refused && !stage.journal(&run_id())?.is_past(undo::BRANCH, 1) => {
            back("reverse")
        }
        ended => ended,
    };
    ended.map_err(|problem| waiting(problem, &notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_part_of_a_name() {
        let name = "12:before-done:resume";
        for (filter, fits) in [
            ("12", true),
            ("2", false),
            ("12:before-done", true),
            ("before-done", true),
            ("done", false),
            ("resume", true),
            ("12:before-done:resume", true),
            ("12:resume", false),
        ] {
            assert_eq!(matches_part(name, filter), fits, "{filter}");
        }
    }
}
