//! Which volume suits a claim.
//!
//! Pure questions about one claim and some volumes. Not the binding. Asked by the binder for claims that bind at once,
//! and by the scheduler, for one node, for those that wait for their first pod.

use super::super::{annotations, placement};
use crate::lab::quantity::Quantity;
use crate::lab::store::{list_of, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The class that a claim asks for or a volume has; empty for none.
pub fn class_of(object: &Value) -> &str {
    annotations::get(object, annotations::STORAGE_CLASS).unwrap_or_else(|| text(&object["spec"]["storageClassName"]))
}

pub fn capacity(volume: &Value) -> u64 {
    bytes(&volume["spec"]["capacity"]["storage"])
}

pub fn requested(claim: &Value) -> u64 {
    bytes(&claim["spec"]["resources"]["requests"]["storage"])
}

/// Quantities were checked when the object was written.
pub fn bytes(quantity: &Value) -> u64 {
    Quantity::of(quantity).and_then(|found| found.as_i64().try_into().ok()).unwrap_or(0)
}

/// The volume is bound to, or reserved for, this claim: by uid, or by name as long as it says no uid.
pub fn bound_to(volume: &Value, claim: &Value) -> bool {
    let (reference, metadata) = (&volume["spec"]["claimRef"], &claim["metadata"]);
    !reference.is_null()
        && reference["name"] == metadata["name"]
        && reference["namespace"] == metadata["namespace"]
        && (text(&reference["uid"]).is_empty() || reference["uid"] == metadata["uid"])
}

pub fn same_volume_mode(volume: &Value, claim: &Value) -> bool {
    let mode = |object: &Value| object["spec"]["volumeMode"].as_str().unwrap_or("Filesystem").to_owned();
    mode(volume) == mode(claim)
}

fn has_access_modes(volume: &Value, claim: &Value) -> bool {
    let offered = list_of(&volume["spec"]["accessModes"]);
    list_of(&claim["spec"]["accessModes"]).iter().all(|mode| offered.contains(mode))
}

/// Why a claim that names this volume cannot have it.
pub fn mismatch(volume: &Value, claim: &Value) -> Option<String> {
    if !volume["metadata"]["deletionTimestamp"].is_null() {
        return Some(format!("the volume is marked for deletion \"{}\"", text(&volume["metadata"]["name"])));
    }
    let problem = if capacity(volume) < requested(claim) {
        "requested PV is too small"
    } else if class_of(volume) != class_of(claim) {
        "storageClassName does not match"
    } else if !same_volume_mode(volume, claim) {
        "incompatible volumeMode"
    } else if !has_access_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(problem.into())
}

/// Who asks for the best volume.
#[derive(Clone, Copy)]
pub enum For<'a> {
    /// The binder: any volume.
    AtOnce,
    /// The binder, for a claim that waits for its first pod: only what is reserved for it.
    Delayed,
    /// The scheduler: a volume that can be used on this node.
    Node(&'a Value),
}

/// The volume that a claim gets: of those with the fewest access modes the one that is reserved for it, else the
/// smallest.
pub fn best<'a>(
    volumes: impl Iterator<Item = &'a Arc<Value>>,
    claim: &Value,
    purpose: For<'_>,
) -> Option<&'a Arc<Value>> {
    let mut by_modes: BTreeMap<(usize, String), Vec<&Arc<Value>>> = BTreeMap::new();
    for volume in volumes.filter(|one| is_open(one, claim) && has_access_modes(one, claim)) {
        let mut modes: Vec<&str> = list_of(&volume["spec"]["accessModes"]).iter().map(text).collect();
        modes.sort_unstable();
        let group = if let For::Node(_) = purpose { (0, String::new()) } else { (modes.len(), modes.join(",")) };
        by_modes.entry(group).or_default().push(volume);
    }
    by_modes.into_values().find_map(|group| best_of(&group, claim, purpose))
}

/// Free or reserved for this claim, large enough, of the same mode and here to stay.
fn is_open(volume: &Value, claim: &Value) -> bool {
    (volume["spec"]["claimRef"].is_null() || bound_to(volume, claim))
        && capacity(volume) >= requested(claim)
        && same_volume_mode(volume, claim)
        && volume["metadata"]["deletionTimestamp"].is_null()
}

fn best_of<'a>(volumes: &[&'a Arc<Value>], claim: &Value, purpose: For<'_>) -> Option<&'a Arc<Value>> {
    let is_reachable = |volume: &Value| match purpose {
        For::Node(node) => placement::volume_fits(volume, node),
        _ => true,
    };
    if let Some(reserved) = volumes.iter().find(|one| bound_to(one, claim)) {
        return is_reachable(reserved).then_some(reserved);
    }
    if let For::Delayed = purpose {
        return None;
    }
    let suits = |volume: &Value| {
        volume["status"]["phase"] == "Available"
            && placement::selects(&claim["spec"]["selector"], &volume["metadata"]["labels"])
            && class_of(volume) == class_of(claim)
            && is_reachable(volume)
    };
    volumes.iter().filter(|one| suits(one)).min_by_key(|one| capacity(one)).copied()
}

/// A free volume could be this claim's.
pub fn could_have(volume: &Value, claim: &Value) -> bool {
    is_open(volume, claim) && has_access_modes(volume, claim) && class_of(volume) == class_of(claim)
}
