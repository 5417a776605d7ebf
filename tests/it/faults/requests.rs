//! Every request of an undisturbed run meets everything that a server and a network can answer instead.

use super::{ONE, Reference, equal, named, reference};
use crate::crash::trial::{ACKED, STAYS, Shop, Trial};
use crate::matrix::{Came, Level, Plan};
use pvmigrate::cli::exit_code;
use pvmigrate::lab::faults::{Again, Answer, Fault, Form, Seen, Then, Verb, When};
use pvmigrate::trial::Doom;
use pvmigrate::words::{Kind, Problem};
use std::time::Duration;

/// The least pause after a failure.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What can happen to a request.
fn faults_of(seen: &Seen) -> Vec<Fault> {
    let of = |then: Then| Fault::new(seen.on(), then);
    let status = |code: u16| of(Then::Status(Answer::of(code)));
    let busy = Answer { retry_after_s: Some(1), body: Form::Text, ..Answer::of(429) };
    let mut all = vec![
        of(Then::Status(busy)),
        status(403),
        status(500),
        status(503),
        of(Then::Status(Answer { body: Form::Html, ..Answer::of(504) })),
        of(Then::Lost),
        of(Then::Truncated),
    ];
    match seen.verb {
        verb if verb.is_write() => {
            all.push(status(409));
            all.extend([500, 503, 504].map(|code| status(code).when(When::After)));
            all.push(of(Then::AnswerLost));
        }
        Verb::Get => all.extend([1, 3].map(|changes| of(Then::Stale(changes)))),
        Verb::List => {
            all.push(status(410));
            all.extend([1, 3].map(|changes| of(Then::Stale(changes))));
        }
        Verb::Watch => {
            all.extend([Then::WatchDropped, Then::WatchSilent, Then::WatchExpired, Then::Reset].map(of));
            all.push(status(410));
        }
        _ => {}
    }
    all
}

#[test]
fn whatever_one_request_meets_the_run_ends_as_if_nothing_had_happened() {
    every_request("whatever_one_request_meets", &ACKED);
}

#[test]
fn whatever_one_request_of_a_relabelling_meets_it_ends_as_if_nothing_had_happened() {
    every_request("whatever_one_request_of_a_relabelling_meets", &STAYS);
}

fn every_request(test: &'static str, shop: &'static Shop) {
    let whole = reference(shop);
    let cases = named(whole.requests.iter().flat_map(faults_of));
    let plan = Plan {
        test,
        one: ONE,
        whole: Level::All,
        sample: if crate::matrix::level() == Level::Ci { Duration::from_secs(60) } else { Duration::from_secs(5) },
        at_once: 8,
    };
    let met = plan.run(&cases, |faults| single(&whole, shop, faults));
    assert!(met > 0, "no fault had an occasion");
}

fn single(whole: &Reference, shop: &'static Shop, faults: &[Fault]) -> Result<Came, String> {
    let trial = Trial::of(shop);
    let layer = trial.plan(faults.to_vec());
    let first = trial.run(&Doom::none(), false);
    let is_met = layer.unfired().is_empty();
    let is_write = faults.iter().any(|fault| fault.on.verb.is_some_and(Verb::is_write));
    if !is_met && is_write {
        return Err(format!("it did not happen: {first:?}"));
    }
    trial.check_always();
    // I17: nothing is asked for ever, and nothing at once again.
    patient(&layer.again(), faults)?;
    let (asked, usual) = (layer.seen().len(), whole.requests.len());
    if asked > 3 * usual + 100 {
        return Err(format!("{asked} requests, where {usual} are usual"));
    }
    let stop = trial.stop();
    if let Some((problem, changed)) = &stop {
        honest(problem, *changed, faults)?;
        if !changed {
            // Nothing is to be gone on with: the next run is another one.
            let differences = whole.before.differences(&trial.end());
            return if differences.is_empty() { Ok(Came::Right) } else { Err(differences.join("\n")) };
        }
        trial.plan(Vec::new());
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}\n(stopped with {problem:?})"))?;
        trial.check_always();
    }
    // Of claims that were not there yet, or not bound, there was nothing to move.
    let on = &faults[0].on;
    let is_old_list = (on.verb, on.kind.as_deref()) == (Some(Verb::List), Some("PersistentVolumeClaim"))
        && matches!(faults[0].then, Then::Stale(_));
    if is_met && is_old_list && stop.is_none() && whole.before.differences(&trial.end()).is_empty() {
        return if trial.litter().is_empty() {
            Ok(Came::Right)
        } else {
            Err("nothing was moved, but something is left".to_owned())
        };
    }
    trial.told_the_truth()?;
    let is_anew = stop.as_ref().is_some_and(|(problem, _)| problem.restart);
    equal(&whole.end, &trial, is_anew).map_err(|why| format!("{why}\n({stop:?})"))?;
    Ok(if is_met { Came::Right } else { Came::NotMet })
}

/// Whether what failed was asked again only after a pause, or as late as the server had said.
fn patient(again: &[Again], faults: &[Fault]) -> Result<(), String> {
    for one in again {
        let told = match &faults[one.fault].then {
            Then::Status(answer) => answer.retry_after_s.map(Duration::from_secs),
            // Whoever believed it has the right to look again.
            Then::Stale(_) => continue,
            _ => None,
        };
        let least = told.unwrap_or(BACK_OFF);
        if one.after < least {
            return Err(format!("I17 {} came again after {:?}: at least {least:?}", one.on, one.after));
        }
    }
    Ok(())
}

/// Whether the stop is one that the fault explains, with the code that says whether anything was changed.
fn honest(problem: &Problem, changed: bool, faults: &[Fault]) -> Result<(), String> {
    let code = exit_code(problem.kind, changed);
    let told = format!("stopped with exit code {code}, changed {changed}: {problem:?}");
    let is_try = faults[0].on.verb == Some(Verb::DryRun);
    let may: &[Kind] = match &faults[0].then {
        Then::Status(answer) => match answer.code {
            // What a try is refused for speaks against the move.
            403 if is_try => &[Kind::Refused],
            403 => &[Kind::Forbidden],
            409 => &[Kind::Conflict],
            410 => &[Kind::Rejected, Kind::Unreachable],
            _ => &[Kind::Unreachable],
        },
        // Old news may say that somebody else was there, or that what was seen is gone.
        Then::Stale(_) => &[Kind::Refused, Kind::Conflict, Kind::NotFound, Kind::Voided],
        _ => &[Kind::Unreachable],
    };
    if !may.contains(&problem.kind) {
        return Err(format!("{told}\nshould be one of {may:?}"));
    }
    match (changed, code) {
        (false, 3) | (true, 4 | 5) => Ok(()),
        _ => Err(told),
    }
}
