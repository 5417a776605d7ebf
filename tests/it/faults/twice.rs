//! Every write arrives twice, as from a proxy that tries again: each of a run, and each of what takes it back.

use super::{ONE, equal, named, reference};
use crate::crash::trial::{ACKED, STAYS, Shop, Trial};
use crate::matrix::{Came, Level, Plan};
use pvmigrate::lab::faults::{Fault, Seen, Then};
use pvmigrate::trial::Doom;
use std::time::Duration;

fn twice(requests: &[Seen]) -> Vec<(String, Vec<Fault>)> {
    named(requests.iter().filter(|seen| seen.verb.is_write()).map(|seen| {
        let mut on = seen.on();
        on.name = on.name.map(|name| without_its_volume(&name));
        Fault::new(on, Then::Twice)
    }))
}

/// The name of a temporary claim on the way back is made of its volume's, which is another one in each lab.
fn without_its_volume(name: &str) -> String {
    name.split_once("-pvmigrate-").map_or(name.to_owned(), |(like, _)| format!("{like}-pvmigrate-*"))
}

#[test]
fn a_write_that_arrives_twice_is_done_once() {
    each_write("a_write_that_arrives_twice", &ACKED, 15);
}

#[test]
fn a_write_of_a_relabelling_that_arrives_twice_is_done_once() {
    each_write("a_write_of_a_relabelling_that_arrives_twice", &STAYS, 8);
}

fn each_write(test: &'static str, shop: &'static Shop, least: usize) {
    let whole = reference(shop);
    let cases = twice(&whole.requests);
    assert!(cases.len() > least, "{} writes", cases.len());
    let sample = Duration::from_secs(3);
    let plan = Plan { test, one: ONE, whole: Level::Ci, sample, at_once: 4 };
    plan.run(&cases, |faults| {
        let trial = Trial::of(shop);
        let layer = trial.plan(faults.clone());
        trial.run(&Doom::none(), false)?;
        if !layer.unfired().is_empty() {
            return Err("it did not happen".to_owned());
        }
        trial.check_always();
        equal(&whole.end, &trial, false).map(|()| Came::Right)
    });
}

#[test]
fn an_undo_that_arrives_twice_is_done_once() {
    let before = Trial::of(&ACKED).end().made_anew();
    let moved = || {
        let trial = Trial::of(&ACKED);
        trial.run(&Doom::none(), false).unwrap();
        trial
    };
    let undisturbed = moved();
    let layer = undisturbed.plan(Vec::new());
    undisturbed.take_back(&Doom::none(), "reverse").unwrap();
    let cases = twice(&layer.seen());
    assert!(cases.len() > 15, "{} writes", cases.len());
    let sample = Duration::from_secs(3);
    let plan = Plan { test: "an_undo_that_arrives_twice", one: ONE, whole: Level::Ci, sample, at_once: 4 };
    plan.run(&cases, |faults| {
        let trial = moved();
        let layer = trial.plan(faults.clone());
        trial.take_back(&Doom::none(), "reverse")?;
        if !layer.unfired().is_empty() {
            return Err("it did not happen".to_owned());
        }
        trial.check_always();
        let differences = before.differences(&trial.end().made_anew());
        if differences.is_empty() { Ok(Came::Right) } else { Err(differences.join("\n")) }
    });
}
