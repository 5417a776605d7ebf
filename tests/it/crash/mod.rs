//! A crash at every write: each write of a migration on the lab is disturbed in each of seven ways, the run is resumed, and
//! the end is compared with an undisturbed one.
//!
//! The lab, the journal's place and the script run in this process, so that the instant of death is exact; one twin kills
//! the real process. A failure prints the one line that repeats it.

mod clone;
mod hand_over;
pub mod oracle;
mod part;
mod relabel;
pub mod trial;

use crate::matrix::{Came, Level, Plan, Random, level, seed};
use pvmigrate::lab::faults::Fault;
use pvmigrate::trial::doom::Effect;
use pvmigrate::trial::{Doom, How};
use serde_json::json;
use std::time::Duration;
use trial::{End, LARGE, Trial};

/// What the sample of an ordinary `cargo test` may take.
const SAMPLE: Duration = Duration::from_secs(20);
/// Repeats one case: `PVMIGRATE_CRASH=12:before-done`.
const ONE: &str = "PVMIGRATE_CRASH";
/// Repeats one pair: `PVMIGRATE_CRASH_TWICE=12:before-done+3:torn-line`.
const TWO: &str = "PVMIGRATE_CRASH_TWICE";
/// How many second crashes the gate tries.
const PAIRS: usize = 120;

/// The writes of an undisturbed run, in their order, and its end.
pub fn reference() -> (Vec<String>, End) {
    let trial = Trial::new();
    let doom = Doom::none();
    let outcome = trial.run(&doom, false);
    assert!(outcome.is_ok(), "undisturbed: {outcome:?}");
    trial.check_always();
    (lines(&doom), trial.end())
}

/// Each write with its step: the same in every run.
fn lines(doom: &Doom) -> Vec<String> {
    doom.effects().iter().map(Effect::line).collect()
}

#[test]
fn a_crash_at_any_write_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference();
    let (again, same) = reference();
    assert_eq!(effects, again, "the writes of a run are the same each time");
    assert_eq!(end.differences(&same), Vec::<String>::new());
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("sc-migrate", effects.join("\n"));
    });
    let name = "a_crash_at_any_write";
    each(name, &effects, &How::ALL, SAMPLE, |point, how| single(point, how, &effects, &end));
}

/// The same with the journal in the cluster: whoever goes on has nothing but that.
#[test]
fn a_crash_at_any_write_is_resumed_from_the_cluster() {
    let (effects, end) = reference();
    let (trial, doom) = (Trial::in_cluster(), Doom::none());
    trial.run(&doom, false).unwrap();
    assert_eq!(lines(&doom), effects, "the writes are the same wherever the journal is");
    assert_eq!(end.differences(&trial.end()), Vec::<String>::new());
    let kept = trial.bytes_kept();
    eprintln!("a_crash_at_any_write_is_resumed_from_the_cluster: {kept} bytes are kept of a run of one claim");
    assert!(kept < 60 << 10, "{kept} bytes");
    each("a_crash_at_any_write_is_resumed", &effects, &How::ALL, SAMPLE / 2, |point, how| {
        single_on(Trial::in_cluster(), point, how, &effects, &end)
    });
}

/// Cut off at any write with the journal in the cluster, and taken back by somebody who has nothing else.
#[test]
fn a_crash_at_any_write_is_taken_back_from_the_cluster() {
    let (effects, _) = reference();
    let before = Trial::new().end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each("a_crash_at_any_write_is_taken_back", &effects, &kills, SAMPLE / 4, |point, how| {
        taken_back_on(&Trial::in_cluster(), point, how, &before)
    });
}

/// Cut off at any write and taken back instead of resumed: everything is as before the run.
#[test]
fn a_rollback_after_a_crash_leaves_nothing_of_the_run() {
    let (effects, _) = reference();
    let before = Trial::new().end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each("a_rollback_after_a_crash", &effects, &kills, SAMPLE / 2, |point, how| {
        taken_back_on(&Trial::new(), point, how, &before)
    });
}

/// One case: cut off, taken back, compared.
fn taken_back_on(trial: &Trial, point: usize, how: How, before: &End) -> Result<(), String> {
    let doom = Doom::at(point, how);
    let first = trial.run(&doom, false);
    if !doom.has_fired() || first.is_ok() {
        return Err(format!("the fault did not fire: {first:?}"));
    }
    let told = match trial.take_back(&Doom::none(), "compare") {
        // What the workload wrote on the new volume comes along.
        Err(why) if why.contains("was started on the new volume") => trial.take_back(&Doom::none(), "reverse"),
        told => told,
    };
    told.map_err(|why| format!("rollback: {why}"))?;
    trial.check_always();
    let differences = before.differences(&trial.end().made_anew());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

/// A run that is over, taken back: everything is as before it, but for a volume with new data that is kept when told.
#[test]
fn a_run_that_is_over_is_taken_back() {
    let before = Trial::new().end().made_anew();
    for how in ["discard", "reverse"] {
        let trial = Trial::new();
        trial.run(&Doom::none(), false).unwrap();
        let refused = trial.take_back(&Doom::none(), "compare").unwrap_err();
        assert!(refused.contains("was started on the new volume"), "{refused}");
        trial.take_back(&Doom::none(), how).unwrap();
        trial.check_always();
        let differences = before.differences(&trial.end().made_anew());
        match how {
            "discard" => {
                assert_eq!(differences.len(), 1, "{differences:?}");
                assert!(differences[0].contains("PersistentVolume of class fast") && differences[0].contains("Retain"));
            }
            _ => assert_eq!(differences, Vec::<String>::new()),
        }
    }
}

/// A rollback that is cut off at any of its own writes goes on where it was.
#[test]
fn a_crash_during_a_rollback_is_gone_on_with() {
    let before = Trial::new().end().made_anew();
    let moved = || {
        let trial = Trial::new();
        trial.run(&Doom::none(), false).unwrap();
        trial
    };
    let (undisturbed, doom) = (moved(), Doom::none());
    undisturbed.take_back(&doom, "reverse").unwrap();
    let effects = lines(&doom);
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("rollback", effects.join("\n"));
    });
    each("a_crash_during_a_rollback", &effects, &How::ALL, SAMPLE / 2, |point, how| {
        let (trial, doom) = (moved(), Doom::at(point, how));
        let first = trial.take_back(&doom, "reverse");
        if !doom.has_fired() || first.is_ok() == how.kills() {
            return Err(format!("the fault did not fire, or not as it should: {first:?}"));
        }
        if first.is_err() {
            trial.take_back(&Doom::none(), "reverse").map_err(|why| format!("again: {why}"))?;
        }
        trial.check_always();
        let differences = before.differences(&trial.end().made_anew());
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    });
}

/// Every write in every way, the cases named as `12:before-done`.
fn each(
    test: &'static str,
    effects: &[String],
    ways: &[How],
    sample: Duration,
    case: impl Fn(usize, How) -> Result<(), String> + Sync,
) {
    let points = effects.iter().enumerate();
    let cases: Vec<_> = points
        .flat_map(|(point, effect)| ways.iter().map(move |how| (word(point, *how), (point, *how, effect.clone()))))
        .collect();
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample, at_once: 4 };
    plan.run(&cases, |(point, how, effect)| {
        case(*point, *how).map(|()| Came::Right).map_err(|why| format!("{effect}: {why}"))
    });
}

fn word(point: usize, how: How) -> String {
    format!("{point}:{}", how.word())
}

/// With much to copy another hot pass follows the first, and with `--verify changed` a comparison follows both.
#[test]
fn a_crash_in_a_second_hot_pass_and_its_comparison_ends_as_if_nothing_had_happened() {
    let (trial, doom) = (Trial::of(&LARGE), Doom::none());
    trial.run(&doom, false).unwrap();
    let (effects, end) = (lines(&doom), trial.end());
    let stop = effects.iter().position(|line| line.contains(".stop ")).expect("it is stopped");
    let pods: Vec<usize> = (0..stop).filter(|at| effects[*at].ends_with(" Pod")).collect();
    assert_eq!(pods.len(), 6, "two passes and a comparison, made and deleted: {effects:?}");
    let cases = pods.iter().skip(2).flat_map(|at| How::ALL.map(|how| (word(*at, how), (*at, how))));
    let test = "a_crash_in_a_second_hot_pass_and_its_comparison";
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases.collect::<Vec<_>>(), |(point, how)| {
        let (trial, doom) = (Trial::of(&LARGE), Doom::at(*point, *how));
        let first = trial.run(&doom, false);
        if !doom.has_fired() || first.is_ok() == how.kills() || lines(&doom)[*point] != effects[*point] {
            return Err(format!("the fault did not fire, or not as it should: {first:?}"));
        }
        if first.is_err() {
            trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
        }
        trial.check_always();
        trial.told_the_truth()?;
        let differences = end.differences(&trial.end());
        if differences.is_empty() { Ok(Came::Right) } else { Err(differences.join("\n")) }
    });
}

/// The run is cut off, and so is what goes on with it; the third try ends as if nothing had happened.
#[test]
fn a_second_crash_during_the_resume_changes_nothing() {
    let (effects, end) = reference();
    let mut random = Random::new(seed());
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    let mut pairs = std::collections::BTreeMap::new();
    while pairs.len() < PAIRS {
        let (first, second) = (random.below(effects.len()), random.below(effects.len()));
        let (how, again) = (kills[random.below(kills.len())], How::ALL[random.below(How::ALL.len())]);
        // What is left for the resume is fewer writes; the last ones are met too.
        let second = second % (effects.len() - first);
        let pair = (first, how, second, again);
        pairs.insert(format!("{}+{}", word(first, how), word(second, again)), pair);
    }
    if let Some((text, pair)) = crate::matrix::asked(TWO).and_then(|text| read_pair(&text).map(|pair| (text, pair))) {
        pairs.insert(text, pair);
    }
    let pairs: Vec<_> = pairs.into_iter().collect();
    let sample = SAMPLE / 5;
    let plan = Plan { test: "a_second_crash", one: TWO, whole: Level::Ci, sample, at_once: 4 };
    let met = plan.run(&pairs, |(first, how, second, again)| {
        let trial = Trial::new();
        let doom = Doom::at(*first, *how);
        trial.run(&doom, false).err().ok_or("it went on after its death")?;
        let doom = Doom::at(*second, *again);
        let resumed = trial.run(&doom, true);
        if resumed.is_err() {
            trial.run(&Doom::none(), true).map_err(|why| format!("third: {why} (second: {resumed:?})"))?;
        }
        trial.check_always();
        trial.told_the_truth()?;
        let differences = end.differences(&trial.end());
        match differences.is_empty() {
            true if doom.has_fired() => Ok(Came::Right),
            // The resume had fewer writes left.
            true => Ok(Came::NotMet),
            false => Err(differences.join("\n")),
        }
    });
    assert!(level() == Level::Sample || crate::matrix::asked(TWO).is_some() || met > PAIRS / 2, "{met} second crashes");
}

/// Somebody scales the workload up while its pods are to go. The resume stops it once more, and that write is killed and
/// taken back like every other.
#[test]
fn a_crash_when_it_is_stopped_once_more_ends_as_if_nothing_had_happened() {
    let (_, end) = reference();
    let before = Trial::new().end().made_anew();
    let ways = How::ALL.into_iter().flat_map(|how| [(how, false), (how, true)]);
    let cases: Vec<_> = ways
        .filter(|(how, is_back)| !is_back || how.kills())
        .map(|(how, is_back)| (format!("{}{}", how.word(), if is_back { "+back" } else { "" }), (how, is_back)))
        .collect();
    let test = "a_crash_when_it_is_stopped_once_more";
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases, |(how, is_back)| {
        let trial = scaled_up_while_it_stops()?;
        let doom = Doom::at(0, *how);
        let second = trial.run(&doom, true);
        let met = lines(&doom);
        if !doom.has_fired() || second.is_ok() == how.kills() || !met[0].contains(".stop-2") {
            return Err(format!("the second stop was not met: {met:?}, {second:?}"));
        }
        if *is_back {
            trial.take_back(&Doom::none(), "compare").map_err(|why| format!("rollback: {why}"))?;
        } else if second.is_err() {
            trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
        }
        trial.check_always();
        let differences =
            if *is_back { before.differences(&trial.end().made_anew()) } else { end.differences(&trial.end()) };
        if differences.is_empty() { Ok(Came::Right) } else { Err(differences.join("\n")) }
    });
}

/// A run that stopped because somebody scaled its workload up again. If the pods are all gone before the scale-up is seen,
/// the stop is over and it is the final pass that notices: then another one is made.
fn scaled_up_while_it_stops() -> Result<Trial, String> {
    let scaled = json!({
        "on": {"verb": "patch", "kind": "Deployment", "name": "web"}, "when": "after",
        "then": {"somebody": {"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}}},
    });
    for _ in 0..20 {
        let trial = Trial::new();
        let layer = trial.plan(vec![Fault::read(scaled.clone()).expect("it is a fault")]);
        let stopped = trial.run(&Doom::none(), false).err().unwrap_or_default();
        if !layer.unfired().is_empty() {
            return Err("it was not scaled up".to_owned());
        }
        if stopped.contains("while its pods were to go") {
            trial.plan(Vec::new());
            return Ok(trial);
        }
    }
    Err("its pods were gone first each time".to_owned())
}

fn read_pair(text: &str) -> Option<(usize, How, usize, How)> {
    let one = |text: &str| {
        let (point, how) = text.split_once(':')?;
        Some((point.parse().ok()?, How::ALL.into_iter().find(|one| one.word() == how)?))
    };
    let (first, second) = text.split_once('+')?;
    let ((first, how), (second, again)) = (one(first)?, one(second)?);
    Some((first, how, second, again))
}

/// One case: disturbed, resumed, compared.
fn single(point: usize, how: How, effects: &[String], end: &End) -> Result<(), String> {
    single_on(Trial::new(), point, how, effects, end)
}

fn single_on(trial: Trial, point: usize, how: How, effects: &[String], end: &End) -> Result<(), String> {
    let doom = Doom::at(point, how);
    let first = trial.run(&doom, false);
    if !doom.has_fired() {
        return Err(format!("the fault did not fire: {first:?}"));
    }
    let met = lines(&doom);
    if met[..=point] != effects[..=point] {
        return Err(format!("another write was met: {:?}", met.last()));
    }
    match (&first, how.kills()) {
        (Err(_), true) => {}
        (Ok(()), true) => return Err("it went on after its death".to_owned()),
        // A lost request or answer is a matter of the run itself: it reads what became of it.
        (Ok(()), false) => {}
        (Err(why), false) => eprintln!("crash: {point}:{}: stopped by itself: {why}", how.word()),
    }
    if first.is_err() {
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
    }
    trial.check_always();
    trial.told_the_truth()?;
    let differences = end.differences(&trial.end());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}
