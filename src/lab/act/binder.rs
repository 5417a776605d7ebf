//! The binder: claims and volumes find each other, lose each other and are given back.
//!
//! The rules of the real controller, branch for branch: one look at a claim (`claim`), one at a volume (`volume`), and
//! who suits whom (`matching`). Not who makes volumes (`provisioner`), nor who chooses the node for those that wait for
//! their first pod (`scheduler`). What must stay true: binding is four writes in one order, and whoever finds it half
//! done goes on with it.

mod claim;
pub(super) mod matching;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod tests;
mod volume;

use super::{Controller, Turn, annotations};
use crate::lab::store::{Commit, Key, State, list_of, text};
use serde_json::{Value, json};

pub static BINDER: Controller = Controller { name: "persistentvolume-controller", wakes, act };

fn act(state: &State, key: &Key) -> Turn {
    match (state.at(key), key.kind) {
        (Some(claim), "PersistentVolumeClaim") => claim::sync(state, claim),
        (Some(volume), "PersistentVolume") => volume::sync(state, volume),
        _ => Turn::rest(),
    }
}

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let (before, after) = (commit.before.as_deref(), commit.after.as_deref());
    let mut keys = Vec::new();
    match commit.key.kind {
        "PersistentVolumeClaim" => {
            keys.push(commit.key.clone());
            let name = |claim: Option<&Value>| claim.map(|one| text(&one["spec"]["volumeName"]).to_owned());
            // Volumes that wait for this claim learn that it is gone, or has chosen.
            if after.is_none() || (before.is_some() && name(before) != name(after)) {
                let names_it = |volume: &Value| claim_key(volume).as_ref() == Some(&commit.key);
                keys.extend(volumes(state).filter(|(_, one)| names_it(one)).map(|(key, _)| key.clone()));
            }
            for volume in [name(before), name(after)].into_iter().flatten().filter(|one| !one.is_empty()) {
                keys.push(Key::new("PersistentVolume", "", volume));
            }
        }
        "PersistentVolume" => {
            keys.push(commit.key.clone());
            keys.extend([before, after].into_iter().flatten().filter_map(claim_key));
            let claim_ref = |volume: Option<&Value>| volume.map(|one| one["spec"]["claimRef"].clone());
            if claim_ref(before) != claim_ref(after) || changed(before, after, "/metadata/deletionTimestamp") {
                let names_it = |claim: &Value| claim["spec"]["volumeName"] == commit.key.name.as_str();
                let claims = state.list("PersistentVolumeClaim", "");
                keys.extend(claims.filter(|(_, one)| names_it(one)).map(|(key, _)| key.clone()));
            }
        }
        "StorageClass" => keys.extend(pending_of_class(state, &commit.key.name)),
        // Claims that wait for a first pod say which pods could not be scheduled.
        "Pod" if is_unschedulable(after) && !is_unschedulable(before) => {
            let spec = after.map(|pod| &pod["spec"]).unwrap_or(&Value::Null);
            let claims = crate::lab::store::claims_of(spec);
            keys.extend(claims.map(|one| Key::new("PersistentVolumeClaim", &commit.key.namespace, one)));
        }
        _ => {}
    }
    keys.sort();
    keys.dedup();
    keys
}

fn changed(before: Option<&Value>, after: Option<&Value>, pointer: &str) -> bool {
    before.and_then(|one| one.pointer(pointer)) != after.and_then(|one| one.pointer(pointer))
}

fn is_unschedulable(pod: Option<&Value>) -> bool {
    let conditions = pod.map(|one| list_of(&one["status"]["conditions"])).unwrap_or_default();
    conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "False")
}

fn volumes(state: &State) -> impl Iterator<Item = (&Key, &std::sync::Arc<Value>)> {
    state.list("PersistentVolume", "")
}

/// The claim that a volume's claimRef names.
pub(super) fn claim_key(volume: &Value) -> Option<Key> {
    let reference = &volume["spec"]["claimRef"];
    let (namespace, name) = (text(&reference["namespace"]), text(&reference["name"]));
    (!name.is_empty()).then(|| Key::new("PersistentVolumeClaim", namespace, name))
}

/// The claims of a class that have no volume yet.
pub(super) fn pending_of_class(state: &State, class: &str) -> Vec<Key> {
    let waits = |claim: &Value| text(&claim["spec"]["volumeName"]).is_empty() && matching::class_of(claim) == class;
    state.list("PersistentVolumeClaim", "").filter(|(_, one)| waits(one)).map(|(key, _)| key.clone()).collect()
}

/// The claim's class binds only when a pod was scheduled.
pub(super) fn waits_for_consumer(state: &State, claim: &Value) -> bool {
    let class = state.get("StorageClass", "", matching::class_of(claim));
    class.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
}

/// What a claimRef says of this claim.
pub(super) fn reference(claim: &Value) -> Value {
    let metadata = &claim["metadata"];
    json!({
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": "v1",
        "resourceVersion": metadata["resourceVersion"],
    })
}

/// The volume with its claimRef filled in for this claim.
pub(super) fn reserved(volume: &Value, claim: &Value) -> Value {
    let mut after = volume.clone();
    let old = &volume["spec"]["claimRef"];
    let same = |field: &str| old[field] == claim["metadata"][field];
    if !["name", "namespace", "uid"].into_iter().all(same) {
        after["spec"]["claimRef"] = reference(claim);
    }
    if !matching::bound_to(volume, claim) && !annotations::has(volume, annotations::BOUND_BY_CONTROLLER) {
        annotations::set(&mut after, annotations::BOUND_BY_CONTROLLER, "yes");
    }
    after
}

/// The four writes of a binding, those that are still to be done.
fn bind(volume: &Value, claim: &Value) -> Turn {
    let mut turn = Turn::rest();
    let reserved = reserved(volume, claim);
    turn.update(volume, reserved.clone());
    turn.status(volume, volume::with_phase(reserved, "Bound"));
    let mut named = claim.clone();
    if claim["spec"]["volumeName"] != volume["metadata"]["name"] {
        named["spec"]["volumeName"] = volume["metadata"]["name"].clone();
        if !annotations::has(claim, annotations::BOUND_BY_CONTROLLER) {
            annotations::set(&mut named, annotations::BOUND_BY_CONTROLLER, "yes");
        }
    }
    if !annotations::has(claim, annotations::BIND_COMPLETED) {
        annotations::set(&mut named, annotations::BIND_COMPLETED, "yes");
    }
    turn.update(claim, named.clone());
    // A claim that is bound already may be smaller than its volume on purpose: while it is being expanded.
    if claim["status"]["phase"] != "Bound" {
        named["status"]["capacity"] = volume["spec"]["capacity"].clone();
    }
    named["status"]["phase"] = "Bound".into();
    named["status"]["accessModes"] = volume["spec"]["accessModes"].clone();
    turn.status(claim, named);
    turn
}
