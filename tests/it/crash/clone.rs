//! The same where the driver makes the new volume of the old one, and where it was asked to and does not.

use super::relabel::{reference, resumed};
use super::trial::{CLONED, NOT_CLONED, Shop, Trial};
use super::{SAMPLE, each};
use pvmigrate::trial::How;

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
