//! One look at a claim: it is bound, it waits, or it is lost.

use super::super::{Turn, annotations};
use super::matching::{self, For};
use crate::lab::store::{State, text};
use serde_json::Value;
use std::sync::Arc;

pub fn sync(state: &State, claim: &Value) -> Turn {
    if annotations::has(claim, annotations::BIND_COMPLETED) { completed(state, claim) } else { unbound(state, claim) }
}

fn unbound(state: &State, claim: &Value) -> Turn {
    let wanted = text(&claim["spec"]["volumeName"]);
    if wanted.is_empty() {
        return match choose(state, claim) {
            Some(volume) => super::bind(volume, claim),
            None => without_volume(state, claim),
        };
    }
    let Some(volume) = state.get("PersistentVolume", "", wanted) else {
        return pending(claim, None);
    };
    if volume["spec"]["claimRef"].is_null() {
        return match matching::mismatch(volume, claim) {
            None => super::bind(volume, claim),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{wanted}\": {why}");
                pending(claim, Some((true, "VolumeMismatch", message)))
            }
        };
    }
    // What is reserved for a claim is bound to it without a look at the class.
    if matching::bound_to(volume, claim) {
        return super::bind(volume, claim);
    }
    // The real controller stops here with an error if it had set the name itself; the claim stays as it is.
    if annotations::has(claim, annotations::BOUND_BY_CONTROLLER) {
        return Turn::rest();
    }
    let message = format!("volume \"{wanted}\" already bound to a different claim.");
    pending(claim, Some((true, "FailedBinding", message)))
}

/// The volume for a claim that names none.
pub fn choose<'a>(state: &'a State, claim: &Value) -> Option<&'a Arc<Value>> {
    let purpose = if super::waits_for_consumer(state, claim) { For::Delayed } else { For::AtOnce };
    matching::best(super::volumes(state).map(|(_, volume)| volume), claim, purpose)
}

fn without_volume(state: &State, claim: &Value) -> Turn {
    if super::waits_for_consumer(state, claim) && !annotations::has(claim, annotations::SELECTED_NODE) {
        return pending(claim, Some(waiting(state, claim)));
    }
    if !matching::class_of(claim).is_empty() {
        return ask_for_volume(state, claim);
    }
    let message = "no persistent volumes available for this claim and no storage class is set".to_owned();
    pending(claim, Some((false, "FailedBinding", message)))
}

fn waiting(state: &State, claim: &Value) -> (bool, &'static str, String) {
    let (namespace, name) = (text(&claim["metadata"]["namespace"]), text(&claim["metadata"]["name"]));
    let pods: Vec<&str> = state
        .pods_of_claim(namespace, name)
        .filter(|pod| text(&pod["spec"]["nodeName"]).is_empty())
        .map(|pod| text(&pod["metadata"]["name"]))
        .collect();
    let message = match &pods[..] {
        [] => {
            let message = "waiting for first consumer to be created before binding".to_owned();
            return (false, "WaitForFirstConsumer", message);
        }
        [pod] => format!("waiting for pod {pod} to be scheduled"),
        pods => format!("waiting for pods {} to be scheduled", pods.join(",")),
    };
    (false, "WaitForPodScheduled", message)
}

/// Nothing in this cluster makes volumes except external provisioners: the claim is handed to the class's.
fn ask_for_volume(state: &State, claim: &Value) -> Turn {
    let mut turn = Turn::rest();
    let name = matching::class_of(claim);
    let Some(class) = state.get("StorageClass", "", name) else {
        let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
        turn.event(claim, true, "ProvisioningFailed", message);
        return turn;
    };
    let provisioner = text(&class["provisioner"]);
    if provisioner.starts_with("kubernetes.io/") {
        turn.event(claim, true, "ProvisioningFailed", format!("no volume plugin matched name: {provisioner}"));
        return turn;
    }
    let mut after = claim.clone();
    annotations::set(&mut after, annotations::STORAGE_PROVISIONER, provisioner);
    turn.update(claim, after);
    let message = format!(
        "waiting for a volume to be created, either by external provisioner \"{provisioner}\" or manually created by \
         system administrator"
    );
    turn.event(claim, false, "ExternalProvisioning", message);
    turn
}

fn completed(state: &State, claim: &Value) -> Turn {
    let name = text(&claim["spec"]["volumeName"]);
    if name.is_empty() {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    }
    let Some(volume) = state.get("PersistentVolume", "", name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    };
    let reference = &volume["spec"]["claimRef"];
    if reference.is_null() || reference["uid"] == claim["metadata"]["uid"] {
        return super::bind(volume, claim);
    }
    lost(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

fn pending(claim: &Value, event: Option<(bool, &'static str, String)>) -> Turn {
    let mut turn = Turn::rest();
    if let Some((is_warning, reason, message)) = event {
        turn.event(claim, is_warning, reason, message);
    }
    turn.status(claim, without_bound(claim, "Pending"));
    turn
}

fn lost(claim: &Value, reason: &'static str, message: &str) -> Turn {
    let mut turn = Turn::rest();
    if claim["status"]["phase"] != "Lost" {
        turn.event(claim, true, reason, message);
    }
    turn.status(claim, without_bound(claim, "Lost"));
    turn
}

fn without_bound(claim: &Value, phase: &str) -> Value {
    let mut after = claim.clone();
    if let Some(status) = after["status"].as_object_mut() {
        status.shift_remove("accessModes");
        status.shift_remove("capacity");
    }
    after["status"]["phase"] = phase.into();
    after
}
