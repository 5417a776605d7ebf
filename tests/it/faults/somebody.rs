//! Somebody else acts in every gap between two requests of a run.
//!
//! Whatever that is, no byte is lost and nothing of theirs is undone behind their back; the run ends as it should, or
//! stops and says who or what it was, and goes on when that is over.

use super::{ONE, Reference, equal, named, reference};
use crate::crash::trial::{ACKED, DB, DB_STAYS, STAYS, Shop, Trial};
use crate::matrix::{Came, Level, Plan, level};
use pvmigrate::cluster::text;
use pvmigrate::lab::faults::{Change, Fault, Patch, Seen, Then, Verb, Which};
use pvmigrate::trial::Doom;
use pvmigrate::words::Kind;
use serde_json::{Value, json};
use std::time::Duration;

fn patch(kind: &str, name: &str, like: Value, body: Value) -> Change {
    Change::Patch(Patch { kind: kind.into(), name: name.into(), namespace: "*".into(), like, body })
}

fn delete(kind: &str, name: &str, like: Value) -> Change {
    Change::Delete(Which { kind: kind.into(), name: name.into(), namespace: "*".into(), like })
}

/// What somebody may do, by a word for it.
fn deeds(shop: &Shop) -> Vec<(&'static str, Change)> {
    let thief = |class: &str| {
        Change::Create(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "thief", "namespace": "shop", "labels": {"thief": ""}},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "64Mi"}},
            },
        }))
    };
    let volume = |class: &str| json!({"spec": {"storageClassName": class}});
    vec![
        ("a thief of the source", thief("slow")),
        ("a thief of the target", thief("fast")),
        (
            "scaled up",
            patch(shop.kind, shop.workload, json!({"spec": {"replicas": 0}}), json!({"spec": {"replicas": 1}})),
        ),
        (
            "the claim is edited",
            patch("PersistentVolumeClaim", shop.claim, Value::Null, json!({"metadata": {"labels": {"edited": "yes"}}})),
        ),
        (
            "the policy is put back",
            patch(
                "PersistentVolume",
                "*",
                volume("slow"),
                json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
            ),
        ),
        (
            "a volume is edited",
            patch("PersistentVolume", "*", volume("fast"), json!({"metadata": {"labels": {"edited": "yes"}}})),
        ),
        ("the copy pod is deleted", delete("Pod", "*pvmigrate*", Value::Null)),
        ("the namespace goes", delete("Namespace", "shop", Value::Null)),
    ]
}

fn cases(requests: &[Seen], shop: &Shop, only: Option<&str>) -> Vec<(String, Vec<Fault>)> {
    let deeds = deeds(shop);
    named(requests.iter().flat_map(|seen| {
        // Between the guard's last look at the volume and the deletion of its claim there is one moment, and no
        // precondition of one object speaks about another: a policy that is put back just then takes the old volume
        // with it. The verified copy is Retain by then.
        let is_that_moment =
            |word: &str| word == "the policy is put back" && seen.verb == Verb::Delete && seen.name == shop.claim;
        let fitting = deeds.iter().filter(|(word, _)| only.is_none_or(|only| only == *word) && !is_that_moment(word));
        fitting.map(|(_, change)| Fault::new(seen.on(), Then::Somebody(change.clone()))).collect::<Vec<_>>()
    }))
}

#[test]
fn somebody_else_in_any_gap_of_a_deployments_run_costs_no_byte() {
    let whole = reference(&ACKED);
    let cases = cases(&whole.requests, &ACKED, None);
    let sample = if level() == Level::Ci { Duration::from_secs(45) } else { Duration::from_secs(5) };
    let test = "somebody_else_in_any_gap_of_a_deployments_run";
    let plan = Plan { test, one: ONE, whole: Level::All, sample, at_once: 8 };
    plan.run(&cases, |faults| single(&whole, &ACKED, faults));
}

/// A StatefulSet that is scaled up makes its claim anew.
#[test]
fn somebody_else_in_any_gap_of_a_statefulsets_run_costs_no_byte() {
    let whole = reference(&DB);
    let cases = cases(&whole.requests, &DB, Some("scaled up"));
    let sample = if level() == Level::Ci { Duration::from_secs(30) } else { Duration::from_secs(4) };
    let test = "somebody_else_in_any_gap_of_a_statefulsets_run";
    let plan = Plan { test, one: ONE, whole: Level::All, sample, at_once: 8 };
    plan.run(&cases, |faults| single(&whole, &DB, faults));
}

/// The volume is one and the same for all of it.
#[test]
fn somebody_else_in_any_gap_of_a_relabelling_costs_no_byte() {
    for (shop, only) in [(&STAYS, None), (&DB_STAYS, Some("scaled up"))] {
        let whole = reference(shop);
        let cases = cases(&whole.requests, shop, only);
        let sample = if level() == Level::Ci { Duration::from_secs(20) } else { Duration::from_secs(3) };
        let test = "somebody_else_in_any_gap_of_a_relabelling";
        let plan = Plan { test, one: ONE, whole: Level::All, sample, at_once: 8 };
        plan.run(&cases, |faults| single(&whole, shop, faults));
    }
}

fn single(whole: &Reference, shop: &'static Shop, faults: &[Fault]) -> Result<Came, String> {
    let trial = Trial::of(shop);
    let layer = trial.plan(faults.to_vec());
    let first = trial.run(&Doom::none(), false);
    if !layer.unfired().is_empty() {
        // There was nothing to do it to.
        first?;
        trial.check_always();
        equal(&whole.end, &trial, false)?;
        return Ok(Came::NotMet);
    }
    let Then::Somebody(change) = &faults[0].then else { return Err("it is nobody's deed".to_owned()) };
    trial.plan(Vec::new());
    trial.lab().settle(Duration::from_secs(30));
    trial.check_always();
    let stop = trial.stop().map(|(problem, _)| problem);
    if stop.as_ref().is_some_and(|problem| problem.kind == Kind::Bug) {
        return Err(format!("stopped with {stop:?}"));
    }
    if matches!(change, Change::Delete(Which { kind, .. }) if kind == "Namespace") {
        // What was protected by then is there afterwards: that is I1, which was checked. The rest went with it.
        return Ok(Came::Right);
    }
    if let Some(problem) = &stop {
        let may = [Kind::Refused, Kind::Conflict, Kind::Voided, Kind::Copy, Kind::Timeout];
        let told = || format!("stopped with {problem:?}");
        if !may.contains(&problem.kind) {
            return Err(told());
        }
        if problem.message.contains("while it was being deleted") {
            // Somebody came between the last look and the deletion. What they wrote is on the source alone, and the way
            // back leads there.
            trial.stop_workload()?;
            trial.take_back(&Doom::none(), "compare").map_err(|why| format!("rollback: {why}\n({})", told()))?;
            trial.check_always();
            return trial.lost_nothing().map(|()| Came::Right);
        }
        if problem.message.contains("is being deleted, and pod") {
            // Whom it names is to be stopped first.
            trial.stop_workload()?;
        }
        trial.run(&Doom::none(), true).map_err(|why| format!("resume: {why}\n({})", told()))?;
        trial.check_always();
    }
    let (class, claimed, phase, edited) = trial.lab().core().look(|state| {
        let claim = state.get("PersistentVolumeClaim", "shop", shop.claim).cloned().unwrap_or_default();
        let volume = state.get("PersistentVolume", "", text(&claim, "/spec/volumeName")).cloned().unwrap_or_default();
        let edited = claim["metadata"]["labels"]["edited"] == "yes";
        let class = |object: &Value| text(object, "/spec/storageClassName").to_owned();
        (class(&volume), class(&claim), text(&claim, "/status/phase").to_owned(), edited)
    });
    if (&class[..], &phase[..]) != ("fast", "Bound") {
        return Err(format!("the claim is {phase} on {class:?}"));
    }
    if matches!(change, Change::Patch(Patch { kind, .. }) if kind == "PersistentVolumeClaim") && !edited {
        return Err("what somebody else wrote on the claim is lost".to_owned());
    }
    trial.clear_of_somebody();
    // The set made the claim from its template, which names the old class: what it stands on is what counts.
    if shop.kind == "StatefulSet" && claimed == "slow" {
        assert_eq!(trial.litter(), Vec::<String>::new(), "I19");
    } else if !trial.is_source_lost() {
        let is_anew = stop.is_some_and(|problem| problem.restart);
        equal(&whole.end, &trial, is_anew)?;
    }
    trial.lost_nothing().map(|()| Came::Right)
}
