//! The same where the volume stays: each write of `--engine relabel`, and each of its way back.

use super::trial::{DB_STAYS, End, STAYS, Shop, Trial};
use super::{SAMPLE, each, lines};
use pvmigrate::trial::{Doom, How};
use std::collections::BTreeSet;

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
        let (trial, doom) = (moved(), Doom::at(point, how));
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
    });
}
