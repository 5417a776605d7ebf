//! A part of a run, taken back and done anew: the end is that of a run that nobody disturbed.

use super::trial::Trial;
use super::{SAMPLE, each, lines, reference};
use pvmigrate::trial::{Doom, How};

/// The last comparison before the workload is stopped; the claims of the unit are switched after it.
const HOT: &str = "root/9~shop/data/8";
/// The target is there and protected, and nothing is copied yet.
const PREPARED: &str = "root/9~shop/data/5";

fn moved() -> Trial {
    let trial = Trial::new();
    trial.run(&Doom::none(), false).unwrap();
    trial
}

/// Taken back to a step before the switch, broken off at any write, gone on with, and resumed.
#[test]
fn a_crash_during_a_rollback_of_a_part_is_gone_on_with() {
    let (_, end) = reference();
    let end = end.made_anew();
    let (undisturbed, doom) = (moved(), Doom::none());
    undisturbed.take_back_to(&doom, "reverse", HOT).unwrap();
    let effects = lines(&doom);
    undisturbed.check_always();
    undisturbed.run(&Doom::none(), true).unwrap();
    undisturbed.check_always();
    assert_eq!(end.differences(&undisturbed.end().made_anew()), Vec::<String>::new());
    each("a_crash_during_a_rollback_of_a_part", &effects, &How::ALL, SAMPLE / 2, |point, how| {
        let (trial, doom) = (moved(), Doom::at(point, how));
        let first = trial.take_back_to(&doom, "reverse", HOT);
        if !doom.has_fired() || first.is_ok() == how.kills() {
            return Err(format!("the fault did not fire, or not as it should: {first:?}"));
        }
        if first.is_err() {
            trial.take_back_to(&Doom::none(), "reverse", HOT).map_err(|why| format!("again: {why}"))?;
        }
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
        trial.check_always();
        let differences = end.differences(&trial.end().made_anew());
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    });
}

/// Without a switch since, the unit goes back to the very step: what was before it stays and is used again.
#[test]
fn a_part_before_the_switch_is_taken_back_to_its_step() {
    let (effects, end) = reference();
    let stop = effects.iter().position(|effect| effect.contains(".stop ")).unwrap();
    let trial = Trial::new();
    let doom = Doom::at(stop, How::AfterDone);
    trial.run(&doom, false).unwrap_err();
    let before = lines(&doom);
    let made = |effects: &[String]| effects.iter().filter(|one| one.contains(" create PersistentVolumeClaim")).count();
    assert_eq!(made(&before), 1);
    let back = Doom::none();
    trial.take_back_to(&back, "compare", PREPARED).unwrap();
    let undone = lines(&back);
    assert!(undone.iter().any(|one| one.contains(".start patch Deployment")), "{undone:?}");
    assert!(!undone.iter().any(|one| one.contains("PersistentVolume")), "claim and volumes stay: {undone:?}");
    let again = Doom::none();
    trial.run(&again, true).unwrap();
    trial.check_always();
    let written = lines(&again);
    assert_eq!(Some(&written[0]), effects.iter().find(|one| one.contains("/6~")), "{written:?}");
    assert_eq!(end.differences(&trial.end()), Vec::<String>::new());
}

/// Twice, and the second time further back: nothing of the first is in the way.
#[test]
fn parts_are_taken_back_one_after_the_other_and_then_the_whole() {
    let before = Trial::new().end().made_anew();
    let trial = moved();
    trial.take_back_to(&Doom::none(), "reverse", "root/9~shop/data/13").unwrap();
    trial.run(&Doom::none(), true).unwrap();
    trial.take_back_to(&Doom::none(), "reverse", "root/7").unwrap();
    let unknown = trial.take_back_to(&Doom::none(), "reverse", HOT).unwrap_err();
    assert!(unknown.contains("has no step"), "{unknown}");
    trial.run(&Doom::none(), true).unwrap();
    trial.take_back(&Doom::none(), "reverse").unwrap();
    trial.check_always();
    assert_eq!(before.differences(&trial.end().made_anew()), Vec::<String>::new());
}
