//! The same where the driver makes the new volume of the old one, and where it was asked to and does not.

use super::relabel::{reference, resumed, same};
use super::trial::{CLONED, NOT_CLONED, Shop, Trial};
use super::{ONE, SAMPLE, each, lines};
use crate::matrix::{Came, Level, Plan};
use crate::mutants::{Mutant, Mutation, PLAIN, Way};
use pvmigrate::trial::{Doom, How};
use serde_json::json;

#[test]
fn a_crash_at_any_write_of_a_move_by_clone_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference(&CLONED);
    assert_eq!(effects, reference(&CLONED).0, "the writes of a run are the same each time");
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("clone", effects.join("\n"));
    });
    each("a_crash_at_any_write_of_a_move_by_clone", &effects, &How::ALL, SAMPLE / 4, |point, how| {
        resumed(&CLONED, point, how, &effects, &end)
    });
}

/// The writes before the first hot pass: what comes then is what comes without clones.
fn until_the_pass(effects: &[String]) -> Vec<String> {
    let put_away = effects.iter().position(|line| line.contains(".put-away")).expect("what waits in vain goes");
    let pass = put_away + effects[put_away..].iter().position(|line| line.ends_with(" create Pod")).expect("a pass");
    effects[..pass].to_vec()
}

#[test]
fn a_crash_where_no_clone_is_made_ends_with_a_copy() {
    let (effects, end) = reference(&NOT_CLONED);
    let first = until_the_pass(&effects);
    each("a_crash_where_no_clone_is_made", &first, &How::ALL, SAMPLE / 4, |point, how| {
        resumed(&NOT_CLONED, point, how, &effects, &end)
    });
}

#[test]
fn a_crash_at_any_write_of_a_move_by_clone_is_taken_back() {
    let (effects, _) = reference(&CLONED);
    taken_back("a_crash_of_a_clone_is_taken_back", &CLONED, &effects);
}

#[test]
fn a_crash_where_no_clone_is_made_is_taken_back() {
    let effects = until_the_pass(&reference(&NOT_CLONED).0);
    taken_back("a_crash_without_a_clone_is_taken_back", &NOT_CLONED, &effects);
}

fn taken_back(test: &'static str, shop: &'static Shop, effects: &[String]) {
    let before = Trial::of(shop).end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each(test, effects, &kills, SAMPLE / 8, |point, how| super::taken_back_on(&Trial::of(shop), point, how, &before));
}

/// The pass over the clone fails for good, and the clone may not be deleted: it is left.
static LEFT: Mutant = Mutant {
    id: "left",
    what: "a clone that a failed attempt leaves",
    wire: |ask, stage| {
        // Before it only the source was flushed.
        if stage.is("create-1", 1) {
            let args = ask.body.pointer_mut("/spec/containers/0/args").and_then(|args| args.as_array_mut());
            args.expect("it is told what to do").push(json!("--no-such-flag"));
        }
        let is_claim = ask.method == "DELETE" && ask.path.contains("/persistentvolumeclaims/");
        if is_claim { Way::Refuse(403, "Forbidden", "not now") } else { Way::Send }
    },
    ..PLAIN
};

#[test]
fn a_crash_while_the_clone_of_a_failed_attempt_is_put_away_is_gone_on_with() {
    let left = || {
        let mut trial = Trial::of(&CLONED);
        let mutation = Mutation::new(&LEFT, trial.lab().core());
        trial.change(&mutation);
        let ended = trial.run(&Doom::none(), false);
        assert!(mutation.did() && ended.as_ref().is_err_and(|why| why.contains("no-such-flag")), "{ended:?}");
        let claims = trial.lab().core().look(|state| state.list("PersistentVolumeClaim", "shop").count());
        assert_eq!(claims, 2, "the clone is left");
        let nothing = Mutation::new(&PLAIN, trial.lab().core());
        trial.change(&nothing);
        trial
    };
    let (undisturbed, doom) = (left(), Doom::none());
    undisturbed.run(&doom, true).unwrap();
    undisturbed.told_the_truth().unwrap();
    undisturbed.check_always();
    let end = undisturbed.end();
    let effects = lines(&doom);
    let point = effects.iter().position(|line| line.contains(".put-away-left ")).expect("it is put away");
    let test = "a_crash_while_the_clone_of_a_failed_attempt_is_put_away";
    let cases = How::ALL.map(|how| (how.word().to_owned(), how));
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample: SAMPLE / 4, at_once: 4 };
    plan.run(&cases, |how| {
        let (trial, doom) = (left(), Doom::at(point, *how));
        let first = trial.run(&doom, true);
        if !doom.has_fired() || first.is_ok() == how.kills() {
            return Err(format!("the fault did not fire, or not as it should: {first:?}"));
        }
        if first.is_err() {
            trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}"))?;
        }
        trial.told_the_truth()?;
        same(&end, &trial).map(|()| Came::Right)
    });
}
