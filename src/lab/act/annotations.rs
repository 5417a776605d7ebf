//! The annotations by which the storage controllers and the scheduler talk to each other.
//!
//! Not rules: what follows from them is in the controllers that read them.

use serde_json::Value;

/// On a claim: it was bound once. Without its volume it is lost, not pending.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either side: the binder set the reference, so it may also take it back.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it and will delete it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a volume: its plugin was replaced by this CSI driver.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a claim: who shall make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node that the scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On either side: the class, from before there was a field; it overrides the field.
pub const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub fn get<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

pub fn has(object: &Value, name: &str) -> bool {
    get(object, name).is_some()
}

pub fn set(object: &mut Value, name: &str, value: &str) {
    object["metadata"]["annotations"][name] = value.into();
}

/// The last one takes the empty map with it.
pub fn remove(object: &mut Value, name: &str) {
    let Some(all) = object["metadata"]["annotations"].as_object_mut() else { return };
    all.shift_remove(name);
    if all.is_empty()
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.shift_remove("annotations");
    }
}
