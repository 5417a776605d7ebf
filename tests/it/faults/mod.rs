//! Everything that a server, a network and other people can do to a run, one at a time: each request of an undisturbed
//! run meets each fault, and somebody else acts in every gap between two requests.
//!
//! A run that met one ends done and equal to the undisturbed one, or stops honestly and ends so when it is resumed
//! without it. What must hold after every commit is the oracle's; what a fault is, `lab::faults`.

mod requests;
mod somebody;
mod twice;

use crate::crash::trial::{End, Shop, Trial};
use pvmigrate::lab::faults::{Fault, Seen};
use pvmigrate::trial::Doom;
use std::collections::BTreeMap;

/// Repeats one case: the fault, or the faults in a list.
const ONE: &str = "PVMIGRATE_FAULT";

/// An undisturbed run: every request of it, and its end.
struct Reference {
    /// The requests that came in each of two runs, in the order of the first.
    requests: Vec<Seen>,
    before: End,
    end: End,
}

fn reference(shop: &'static Shop) -> Reference {
    let one = || {
        let trial = Trial::of(shop);
        let before = trial.end();
        let faults = trial.plan(Vec::new());
        let outcome = trial.run(&Doom::none(), false);
        assert!(outcome.is_ok(), "undisturbed: {outcome:?}");
        trial.check_always();
        assert_eq!(trial.litter(), Vec::<String>::new(), "I19");
        (faults.seen(), before, trial.end())
    };
    let ((first, before, end), (second, _, same)) = (one(), one());
    assert_eq!(end.differences(&same), Vec::<String>::new());
    let key = |seen: &Seen| serde_json::to_string(&seen.on()).expect("it is plain data");
    let again: BTreeMap<String, &Seen> = second.iter().map(|seen| (key(seen), seen)).collect();
    // How often a wait looks depends on the machine.
    let requests: Vec<Seen> = first.into_iter().filter(|seen| again.contains_key(&key(seen))).collect();
    assert!(requests.len() > 40, "{} requests", requests.len());
    Reference { requests, before, end }
}

/// The faults as cases, and what was asked for by hand.
fn named(faults: impl IntoIterator<Item = Fault>) -> Vec<(String, Vec<Fault>)> {
    let mut cases: BTreeMap<String, Vec<Fault>> =
        faults.into_iter().map(|fault| (fault.to_string(), vec![fault])).collect();
    if let Some(text) = crate::matrix::asked(ONE) {
        let plan = match serde_json::from_str::<Vec<serde_json::Value>>(&text) {
            Ok(several) => several.into_iter().map(Fault::read).collect::<Result<_, _>>(),
            Err(_) => Fault::parse(&text).map(|fault| vec![fault]),
        };
        cases.insert(text, plan.unwrap_or_else(|why| panic!("{ONE}: {why}")));
    }
    cases.into_iter().collect()
}

/// Compares an end with the undisturbed one. A unit that was as it was found and begun anew has made its target twice.
fn equal(end: &End, trial: &Trial, is_anew: bool) -> Result<(), String> {
    let (mut wanted, mut is) = (end.clone(), trial.end());
    if is_anew {
        wanted.counts.clear();
        is.counts.clear();
    }
    let differences = wanted.differences(&is);
    if !differences.is_empty() {
        return Err(differences.join("\n"));
    }
    let litter = trial.litter();
    if litter.is_empty() { Ok(()) } else { Err(format!("I19 left behind: {}", litter.join(", "))) }
}
