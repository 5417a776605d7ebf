//! The same where the volume stays: each write of `--engine relabel`, and each of its way back.

use super::trial::{DB_STAYS, End, STAYS, Shop, TWO_STAY, Trial};
use super::{ONE, SAMPLE, each, lines};
use crate::matrix::{Came, Level, Plan};
use pvmigrate::lab::faults::Fault;
use pvmigrate::lab::store::{State, text};
use pvmigrate::trial::{Doom, How};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// The writes of an undisturbed run, and its end.
pub(super) fn reference(shop: &'static Shop) -> (Vec<String>, End) {
    let (trial, doom) = (Trial::of(shop), Doom::none());
    trial.run(&doom, false).unwrap();
    trial.check_always();
    (lines(&doom), trial.end())
}

pub(super) fn same(end: &End, trial: &Trial) -> Result<(), String> {
    trial.check_always();
    let litter = trial.litter();
    let differences = end.differences(&trial.end());
    if differences.is_empty() && litter.is_empty() { Ok(()) } else { Err(format!("{differences:?} {litter:?}")) }
}

/// Cut off at a write and gone on with.
pub(super) fn resumed(
    shop: &'static Shop,
    point: usize,
    how: How,
    effects: &[String],
    end: &End,
) -> Result<(), String> {
    let (trial, doom) = (Trial::of(shop), Doom::at(point, how));
    let first = trial.run(&doom, false);
    if !doom.has_fired() || first.is_ok() == how.kills() {
        return Err(format!("the fault did not fire, or not as it should: {first:?}"));
    }
    if lines(&doom)[..=point] != effects[..=point] {
        return Err(format!("another write was met: {:?}", lines(&doom).last()));
    }
    if first.is_err() {
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
    }
    trial.told_the_truth()?;
    same(end, &trial)
}

#[test]
fn a_crash_at_any_write_of_a_relabelling_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference(&STAYS);
    assert_eq!(effects, reference(&STAYS).0, "the writes of a run are the same each time");
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("relabel", effects.join("\n"));
    });
    each("a_crash_at_any_write_of_a_relabelling", &effects, &How::ALL, SAMPLE / 4, |point, how| {
        resumed(&STAYS, point, how, &effects, &end)
    });
}

#[test]
fn a_crash_at_any_write_of_a_relabelling_of_a_set_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference(&DB_STAYS);
    each("a_crash_at_any_write_of_a_relabelling_of_a_set", &effects, &How::ALL, SAMPLE / 4, |point, how| {
        resumed(&DB_STAYS, point, how, &effects, &end)
    });
}

/// Wherever it was cut off, it is taken back without a word about new data: there is none elsewhere.
pub(super) fn taken_back(shop: &'static Shop, point: usize, how: How, before: &End) -> Result<(), String> {
    let (trial, doom) = (Trial::of(shop), Doom::at(point, how));
    trial.run(&doom, false).err().ok_or("it went on after its death")?;
    trial.take_back(&Doom::none(), "compare").map_err(|why| format!("rollback: {why}"))?;
    trial.check_always();
    let differences = before.differences(&trial.end().made_anew());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

#[test]
fn a_crash_at_any_write_of_a_relabelling_is_taken_back() {
    let (effects, _) = reference(&STAYS);
    let before = Trial::of(&STAYS).end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each("a_crash_at_any_write_of_a_relabelling_is_taken_back", &effects, &kills, SAMPLE / 4, |point, how| {
        taken_back(&STAYS, point, how, &before)
    });
}

#[test]
fn a_crash_during_the_way_back_of_a_relabelling_is_gone_on_with() {
    let before = Trial::of(&STAYS).end().made_anew();
    let moved = || {
        let trial = Trial::of(&STAYS);
        trial.run(&Doom::none(), false).unwrap();
        trial
    };
    let (undisturbed, doom) = (moved(), Doom::none());
    undisturbed.take_back(&doom, "compare").unwrap();
    let effects = lines(&doom);
    let kinds: BTreeSet<&str> = effects.iter().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(!kinds.contains("Pod"), "nothing is copied: {effects:?}");
    each("a_crash_during_the_way_back_of_a_relabelling", &effects, &How::ALL, SAMPLE / 4, |point, how| {
        taken_back_twice(&moved(), point, how, &before)
    });
}

/// Cut off between the volume's new name and the claim's end: the way back leaves the claim and calls the volume as before.
#[test]
fn a_crash_during_the_way_back_of_half_a_relabelling_is_gone_on_with() {
    let before = Trial::of(&STAYS).end().made_anew();
    let (effects, _) = reference(&STAYS);
    let deletion = effects.iter().position(|line| line.contains(".delete-original ")).expect("it is deleted");
    let half = || {
        let (trial, doom) = (Trial::of(&STAYS), Doom::at(deletion, How::AfterStart));
        assert!(trial.run(&doom, false).is_err() && doom.has_fired());
        trial
    };
    let (undisturbed, doom) = (half(), Doom::none());
    undisturbed.take_back(&doom, "compare").unwrap();
    let effects = lines(&doom);
    assert!(effects.iter().any(|line| line.contains(".stay ")), "{effects:?}");
    each("a_crash_during_the_way_back_of_half_a_relabelling", &effects, &How::ALL, SAMPLE / 4, |point, how| {
        taken_back_twice(&half(), point, how, &before)
    });
}

/// A way back that is cut off, and gone on with.
pub(super) fn taken_back_twice(trial: &Trial, point: usize, how: How, before: &End) -> Result<(), String> {
    let doom = Doom::at(point, how);
    let first = trial.take_back(&doom, "compare");
    if !doom.has_fired() || first.is_ok() == how.kills() {
        return Err(format!("the fault did not fire, or not as it should: {first:?}"));
    }
    if first.is_err() {
        trial.take_back(&Doom::none(), "compare").map_err(|why| format!("again: {why}"))?;
    }
    trial.check_always();
    let differences = before.differences(&trial.end().made_anew());
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

/// Somebody starts the workload when its volume is reserved, or calls the volume after its old class when the claim is gone:
/// what is written then is written in no undisturbed run.
fn disturbed(write: &str) -> Trial {
    let trial = Trial::of(&STAYS);
    let somebody = if write == ".return" {
        json!({
            "on": {"verb": "patch", "kind": "PersistentVolume", "nth": 2}, "when": "after",
            "then": {"somebody": {"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}}},
        })
    } else {
        let volume = trial.lab().core().look(|state| {
            let claim = state.list("PersistentVolumeClaim", "").next().expect("there is one").1.clone();
            text(&claim["spec"]["volumeName"]).to_owned()
        });
        let body = json!({"spec": {"storageClassName": "slow"}});
        json!({
            "on": {"verb": "delete", "kind": "PersistentVolumeClaim"}, "when": "after",
            "then": {"somebody": {"patch": {"kind": "PersistentVolume", "name": volume, "body": body}}},
        })
    };
    trial.plan(vec![Fault::read(somebody).expect("it is a fault")]);
    trial
}

/// Somebody's pod is made by controllers: now and then only when nobody asks for it any more. Then it is tried again.
fn until_met<T>(attempt: impl Fn() -> Option<T>) -> Result<T, String> {
    (0..5).find_map(|_| attempt()).ok_or_else(|| "it was met in none of five runs".to_owned())
}

#[test]
fn a_crash_at_a_write_that_only_a_disturbed_relabelling_makes_is_gone_on_with() {
    let (_, end) = reference(&STAYS);
    let mut cases = Vec::new();
    for write in [".return", ".reserve-again"] {
        let point = until_met(|| {
            let (trial, doom) = (disturbed(write), Doom::none());
            trial.run(&doom, false).unwrap();
            lines(&doom).iter().position(|line| line.contains(&format!("{write} ")))
        });
        let point = point.unwrap();
        cases.extend(How::ALL.map(|how| (format!("{}:{}", &write[1..], how.word()), (write, point, how))));
    }
    let test = "a_crash_at_a_write_that_only_a_disturbed_relabelling_makes";
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases, |(write, point, how)| {
        let (trial, doom, first) = until_met(|| {
            let (trial, doom) = (disturbed(write), Doom::at(*point, *how));
            let first = trial.run(&doom, false);
            let is_met = lines(&doom).get(*point).is_some_and(|line| line.contains(write));
            is_met.then_some((trial, doom, first))
        })?;
        if !doom.has_fired() || first.is_ok() == how.kills() {
            return Err(format!("the fault did not fire, or not as it should: {first:?}"));
        }
        if first.is_err() {
            trial.plan(Vec::new());
            trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
        }
        trial.told_the_truth()?;
        same(&end, &trial).map(|()| Came::Right)
    });
}

/// Somebody starts the workload so late that its pod holds the claim that is being deleted: until that is stopped a run does
/// not go on, nor does a rollback that meets it. One that finds it there stops it, as it stops whoever the run has stopped.
#[test]
fn a_pod_that_holds_the_claim_is_named_and_whoever_stops_it_goes_on() {
    let (_, end) = reference(&STAYS);
    let before = Trial::of(&STAYS).end().made_anew();
    let is_held = |ended: Result<(), String>| ended.is_err_and(|why| why.contains("is being deleted, and pod `web-"));
    let somebody_starts_it = |trial: &Trial| {
        let on = json!({"verb": "delete", "kind": "PersistentVolumeClaim"});
        let started = json!({"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}});
        // The deletion is held up until the pod is on a node.
        let faults =
            [json!({"somebody": started}), json!({"delay_s": 1.0})].map(|then| json!({"on": on, "then": then}));
        trial.plan(faults.map(|fault| Fault::read(fault).expect("it is a fault")).into());
    };
    let held = || {
        until_met(|| {
            let trial = Trial::of(&STAYS);
            somebody_starts_it(&trial);
            let is_met = is_held(trial.run(&Doom::none(), false));
            trial.plan(Vec::new());
            is_met.then_some(trial)
        })
        .unwrap()
    };

    let forth = held();
    assert!(is_held(forth.run(&Doom::none(), true)));
    forth.stop_workload().unwrap();
    forth.run(&Doom::none(), true).unwrap();
    forth.told_the_truth().unwrap();
    same(&end, &forth).unwrap();

    let is_as_before = |trial: &Trial| {
        trial.check_always();
        assert_eq!(before.differences(&trial.end().made_anew()), [""; 0]);
    };
    let found = held();
    found.take_back(&Doom::none(), "compare").unwrap();
    is_as_before(&found);

    let met = until_met(|| {
        let trial = Trial::of(&STAYS);
        trial.run(&Doom::none(), false).unwrap();
        somebody_starts_it(&trial);
        let is_met = is_held(trial.take_back(&Doom::none(), "compare"));
        trial.plan(Vec::new());
        is_met.then_some(trial)
    })
    .unwrap();
    assert!(is_held(met.take_back(&Doom::none(), "compare")));
    met.stop_workload().unwrap();
    met.take_back(&Doom::none(), "compare").unwrap();
    is_as_before(&met);
}

/// Somebody has started what a dead run had stopped. A way back that stops it and then fails does not leave it so.
#[test]
fn whoever_ran_before_a_way_back_that_fails_runs_after_it() {
    let before = Trial::of(&STAYS).end().made_anew();
    let (effects, _) = reference(&STAYS);
    let start = effects.iter().position(|line| line.contains(".start ")).expect("it is started");
    let (trial, doom) = (Trial::of(&STAYS), Doom::at(start, How::BeforeStart));
    assert!(trial.run(&doom, false).is_err() && doom.has_fired());
    trial.scale_workload(1);
    let ready = |state: &State| state.list("Deployment", "shop").any(|(_, web)| web["status"]["readyReplicas"] == 1);
    let is_ready = || trial.lab().wait(Duration::from_secs(10), |state| ready(state).then_some(())).is_some();
    assert!(is_ready());
    // The volume may not be called as before.
    let refused = json!({"on": {"verb": "patch", "kind": "PersistentVolume"}, "then": {"status": {"code": 403}}});
    let layer = trial.plan(vec![Fault::read(refused).expect("it is a fault")]);
    let doom = Doom::none();
    assert!(trial.take_back(&doom, "compare").is_err() && layer.unfired().is_empty());
    assert!(lines(&doom).iter().any(|line| line.contains(".stop ")), "{:?}", lines(&doom));
    assert!(is_ready());
    trial.plan(Vec::new());
    trial.take_back(&Doom::none(), "compare").unwrap();
    trial.check_always();
    assert_eq!(before.differences(&trial.end().made_anew()), [""; 0]);
}

/// Of two claims the first was called after its new class, the second got its volume back because somebody started the
/// workload, and that was stopped again: nobody is started on the way back before both claims are as they were.
#[test]
fn a_crash_when_one_of_two_claims_was_given_back_is_taken_back() {
    let before = Trial::of(&TWO_STAY).end().made_anew();
    let disturbed = || {
        let trial = Trial::of(&TWO_STAY);
        // Both are retained, then both are reserved.
        let somebody = json!({
            "on": {"verb": "patch", "kind": "PersistentVolume", "nth": 4}, "when": "after",
            "then": {"somebody": {"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}}},
        });
        trial.plan(vec![Fault::read(somebody).expect("it is a fault")]);
        trial
    };
    let is_stopped_again = |effects: &[String]| {
        let returned = effects.iter().position(|line| line.contains(".return "))?;
        effects[returned..].iter().position(|line| line.contains(".stop ")).map(|after| returned + after)
    };
    let point = until_met(|| {
        let (trial, doom) = (disturbed(), Doom::none());
        trial.run(&doom, false).unwrap();
        is_stopped_again(&lines(&doom))
    });
    let cases = How::ALL.into_iter().filter(|how| how.kills()).map(|how| (how.word().to_owned(), (point.clone(), how)));
    let test = "a_crash_when_one_of_two_claims_was_given_back";
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases.collect::<Vec<_>>(), |(point, how)| {
        let point = point.clone()?;
        let trial = until_met(|| {
            let (trial, doom) = (disturbed(), Doom::at(point, *how));
            let first = trial.run(&doom, false);
            (first.is_err() && doom.has_fired() && is_stopped_again(&lines(&doom)) == Some(point)).then_some(trial)
        })?;
        trial.plan(Vec::new());
        trial.take_back(&Doom::none(), "compare").map_err(|why| format!("rollback: {why}"))?;
        trial.check_always();
        let differences = before.differences(&trial.end().made_anew());
        if differences.is_empty() { Ok(Came::Right) } else { Err(differences.join("\n")) }
    });
}
