//! The same where the volume stays: each write of `--engine relabel`, and each of its way back.

use super::trial::{DB_STAYS, End, STAYS, Shop, Trial};
use super::{ONE, SAMPLE, each, lines};
use crate::matrix::{Came, Level, Plan};
use pvmigrate::lab::faults::Fault;
use pvmigrate::lab::store::text;
use pvmigrate::trial::{Doom, How};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The writes of an undisturbed run, and its end.
fn reference(shop: &'static Shop) -> (Vec<String>, End) {
    let (trial, doom) = (Trial::of(shop), Doom::none());
    trial.run(&doom, false).unwrap();
    trial.check_always();
    (lines(&doom), trial.end())
}

fn same(end: &End, trial: &Trial) -> Result<(), String> {
    trial.check_always();
    let litter = trial.litter();
    let differences = end.differences(&trial.end());
    if differences.is_empty() && litter.is_empty() { Ok(()) } else { Err(format!("{differences:?} {litter:?}")) }
}

/// Cut off at a write and gone on with.
fn resumed(shop: &'static Shop, point: usize, how: How, effects: &[String], end: &End) -> Result<(), String> {
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
#[test]
fn a_crash_at_any_write_of_a_relabelling_is_taken_back() {
    let (effects, _) = reference(&STAYS);
    let before = Trial::of(&STAYS).end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each("a_crash_at_any_write_of_a_relabelling_is_taken_back", &effects, &kills, SAMPLE / 4, |point, how| {
        let (trial, doom) = (Trial::of(&STAYS), Doom::at(point, how));
        trial.run(&doom, false).err().ok_or("it went on after its death")?;
        trial.take_back(&Doom::none(), "compare").map_err(|why| format!("rollback: {why}"))?;
        trial.check_always();
        let differences = before.differences(&trial.end().made_anew());
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
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
fn taken_back_twice(trial: &Trial, point: usize, how: How, before: &End) -> Result<(), String> {
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

/// Somebody starts the workload when its volume is reserved, or so late that its pod holds the claim that is being deleted, or
/// calls the volume after its old class when the claim is gone: what is written then is written in no undisturbed run.
fn disturbed(write: &str) -> Trial {
    let trial = Trial::of(&STAYS);
    let started =
        json!({"somebody": {"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}}});
    if write == "held" {
        // The deletion is held up until its pod is on a node, and holds the claim.
        let on = json!({"verb": "delete", "kind": "PersistentVolumeClaim"});
        let faults = [started, json!({"delay_s": 0.5})].map(|then| Fault::read(json!({"on": on, "then": then})));
        trial.plan(faults.map(|fault| fault.expect("it is a fault")).into());
        return trial;
    }
    let somebody = if write == ".return" {
        json!({"on": {"verb": "patch", "kind": "PersistentVolume", "nth": 2}, "when": "after", "then": started})
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

#[test]
fn a_crash_at_a_write_that_only_a_disturbed_relabelling_makes_is_gone_on_with() {
    let (_, end) = reference(&STAYS);
    let before = Trial::of(&STAYS).end().made_anew();
    // Somebody's pod is made by controllers: now and then only when nobody asks for it any more.
    let met = |write: &'static str, doom: &dyn Fn() -> Arc<Doom>, is_met: &dyn Fn(&[String]) -> bool| {
        let attempt = |_| {
            let (trial, doom) = (disturbed(write), doom());
            let first = trial.run(&doom, false);
            is_met(&lines(&doom)).then_some((trial, doom, first))
        };
        (0..5).find_map(attempt).ok_or_else(|| format!("{write} was met in none of five runs"))
    };
    let mut cases = Vec::new();
    for (write, made_in) in [(".return", ".return "), (".reserve-again", ".reserve-again "), ("held", "6.stop ")] {
        let is_made = |line: &String| line.contains(made_in);
        let (trial, doom, first) = met(write, &Doom::none, &|effects| effects.iter().any(is_made)).unwrap();
        first.unwrap();
        trial.plan(Vec::new());
        trial.take_back(&Doom::none(), "compare").unwrap();
        assert_eq!(before.differences(&trial.end().made_anew()), [""; 0], "{write} is taken back");
        let effects = lines(&doom);
        let from = effects.iter().position(is_made).expect("it is met");
        for line in if write == "held" { &effects[from..] } else { &effects[from..=from] } {
            let point = effects.iter().position(|other| other == line).expect("it is one of them");
            let word = line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            cases.extend(How::ALL.map(|how| (format!("{word}:{}", how.word()), (write, point, line.clone(), how))));
        }
    }
    let test = "a_crash_at_a_write_that_only_a_disturbed_relabelling_makes";
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases, |(write, point, line, how)| {
        let met = met(write, &|| Doom::at(*point, *how), &|effects| effects.get(*point) == Some(line));
        let (trial, doom, first) = met?;
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
