//! The same where a volume is handed over to a claim of another name: each write, and each of its way back.

use super::relabel::{reference, resumed, taken_back, taken_back_twice};
use super::trial::{RENAMED, Trial};
use super::{SAMPLE, each, lines};
use pvmigrate::trial::{Doom, How};

#[test]
fn a_crash_at_any_write_of_a_hand_over_ends_as_if_nothing_had_happened() {
    let (effects, end) = reference(&RENAMED);
    assert_eq!(effects, reference(&RENAMED).0, "the writes of a run are the same each time");
    insta::with_settings!({snapshot_path => "../../golden/effects", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("hand-over", effects.join("\n"));
    });
    each("a_crash_at_any_write_of_a_hand_over", &effects, &How::ALL, SAMPLE / 8, |point, how| {
        resumed(&RENAMED, point, how, &effects, &end)
    });
}

#[test]
fn a_crash_at_any_write_of_a_hand_over_is_taken_back() {
    let (effects, _) = reference(&RENAMED);
    let before = Trial::of(&RENAMED).end().made_anew();
    let kills: Vec<How> = How::ALL.into_iter().filter(|how| how.kills()).collect();
    each("a_crash_at_any_write_of_a_hand_over_is_taken_back", &effects, &kills, SAMPLE / 8, |point, how| {
        taken_back(&RENAMED, point, how, &before)
    });
}

#[test]
fn a_crash_during_the_way_back_of_a_hand_over_is_gone_on_with() {
    let before = Trial::of(&RENAMED).end().made_anew();
    let moved = || {
        let trial = Trial::of(&RENAMED);
        trial.run(&Doom::none(), false).unwrap();
        trial
    };
    let (undisturbed, doom) = (moved(), Doom::none());
    undisturbed.take_back(&doom, "compare").unwrap();
    let effects = lines(&doom);
    each("a_crash_during_the_way_back_of_a_hand_over", &effects, &How::ALL, SAMPLE / 8, |point, how| {
        taken_back_twice(&moved(), point, how, &before)
    });
}
