//! One look at a volume: it is free, bound, given back, or left over.

use super::super::{Turn, annotations};
use super::{claim, matching};
use crate::lab::store::{State, text};
use serde_json::Value;

pub fn sync(state: &State, volume: &Value) -> Turn {
    let reference = &volume["spec"]["claimRef"];
    if reference.is_null() {
        return free(state, volume);
    }
    if text(&reference["uid"]).is_empty() {
        return phase(volume, "Available");
    }
    let claim = super::claim_key(volume).and_then(|key| state.at(&key));
    // The name may have been given to another claim since.
    let Some(claim) = claim.filter(|one| one["metadata"]["uid"] == reference["uid"]) else {
        return release(volume);
    };
    let chosen = text(&claim["spec"]["volumeName"]);
    if chosen.is_empty() {
        // The claim itself finishes the binding, unless it never can.
        return if matching::same_volume_mode(volume, claim) { Turn::rest() } else { wrong_mode(volume, claim) };
    }
    if volume["metadata"]["name"] == chosen {
        return phase(volume, "Bound");
    }
    let policy = text(&volume["spec"]["persistentVolumeReclaimPolicy"]);
    if annotations::has(volume, annotations::PROVISIONED_BY) && policy == "Delete" {
        return release(volume);
    }
    unbind(volume)
}

/// A free volume goes to the first claim that was waiting for one. The claim chooses: perhaps another volume.
fn free(state: &State, volume: &Value) -> Turn {
    if volume["status"]["phase"] != "Available" {
        return phase(volume, "Available");
    }
    let waits = |claim: &Value| {
        text(&claim["spec"]["volumeName"]).is_empty()
            && !annotations::has(claim, annotations::BIND_COMPLETED)
            && matching::could_have(volume, claim)
    };
    let mut waiting = state.list("PersistentVolumeClaim", "").filter(|(_, one)| waits(one));
    let chosen = waiting.find_map(|(_, one)| claim::choose(state, one).map(|volume| super::bind(volume, one)));
    chosen.unwrap_or_default()
}

fn wrong_mode(volume: &Value, claim: &Value) -> Turn {
    let (of_volume, of_claim) = (text(&volume["metadata"]["name"]), text(&claim["metadata"]["name"]));
    let mut turn = Turn::rest();
    let message = format!(
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{of_claim}\" due to incompatible volumeMode."
    );
    turn.event(volume, true, "VolumeMismatch", message);
    let message = format!(
        "Cannot bind PersistentVolume \"{of_volume}\" to requested PersistentVolumeClaim due to incompatible volumeMode."
    );
    turn.event(claim, true, "VolumeMismatch", message);
    turn
}

/// Its claim is gone. A volume that has failed keeps that phase: people shall see it.
fn release(volume: &Value) -> Turn {
    if !matches!(text(&volume["status"]["phase"]), "Released" | "Failed") {
        return phase(volume, "Released");
    }
    reclaim(volume)
}

/// Volumes with a provisioner are left to it; for all others there is no plugin in this cluster.
fn reclaim(volume: &Value) -> Turn {
    if annotations::get(volume, annotations::MIGRATED_TO).is_some_and(|one| !one.is_empty()) {
        return Turn::rest();
    }
    let name = text(&volume["metadata"]["name"]);
    match text(&volume["spec"]["persistentVolumeReclaimPolicy"]) {
        "Delete" => match annotations::get(volume, annotations::PROVISIONED_BY).unwrap_or_default() {
            "" => failed(
                volume,
                "VolumeFailedDelete",
                &format!(
                    "Error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
                ),
            ),
            plugin if plugin.starts_with("kubernetes.io/") => {
                failed(volume, "VolumeFailedDelete", &format!("no volume plugin matched name: {plugin}"))
            }
            _ => Turn::rest(),
        },
        "Recycle" => failed(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        _ => Turn::rest(),
    }
}

fn failed(volume: &Value, reason: &'static str, message: &str) -> Turn {
    let mut turn = Turn::rest();
    if volume["status"]["phase"] != "Failed" {
        turn.event(volume, true, reason, message);
        let mut after = with_phase(volume.clone(), "Failed");
        after["status"]["message"] = message.into();
        turn.status(volume, after);
    }
    turn
}

/// The claim was bound to another volume. What the binder set it takes back whole; of what a user set only the uid.
fn unbind(volume: &Value) -> Turn {
    let mut after = volume.clone();
    if annotations::has(volume, annotations::BOUND_BY_CONTROLLER) {
        annotations::remove(&mut after, annotations::BOUND_BY_CONTROLLER);
        if let Some(spec) = after["spec"].as_object_mut() {
            spec.shift_remove("claimRef");
        }
    } else if let Some(reference) = after["spec"]["claimRef"].as_object_mut() {
        reference.shift_remove("uid");
    }
    let mut turn = Turn::rest();
    turn.update(volume, after.clone());
    turn.status(volume, with_phase(after, "Available"));
    turn
}

fn phase(volume: &Value, phase: &str) -> Turn {
    let mut turn = Turn::rest();
    turn.status(volume, with_phase(volume.clone(), phase));
    turn
}

/// The phase and nothing that was said of an earlier one.
pub fn with_phase(mut volume: Value, phase: &str) -> Value {
    if let Some(status) = volume["status"].as_object_mut() {
        status.shift_remove("message");
        status.shift_remove("reason");
    }
    volume["status"]["phase"] = phase.into();
    volume
}
