//! What the controllers say about what they do.
//!
//! Events are derived from the state like all writes: that a pod was made is said while it is new. Nothing is said in a
//! namespace that is going, where nothing can be made. Called by the workload controllers.

use super::owner::{is_going, name, namespace, uid};
use super::pod::{born, seconds};
use super::{Key, State, Value, Write};
use crate::lab::store::text;
use serde_json::json;

/// How long after it was made an object counts as new, in seconds.
const NEW_S: i64 = 10;

/// An Event, if there is a place for it.
pub fn say(
    state: &State,
    about: &Value,
    is_warning: bool,
    reason: &'static str,
    message: String,
) -> impl Iterator<Item = Write> + use<> {
    let here = state.get("Namespace", "", namespace(about));
    let has_place = here.is_none_or(|namespace| !is_going(namespace));
    has_place.then(|| Write::event(&reference(about), is_warning, reason, message)).into_iter()
}

/// As much of an object as an Event needs.
fn reference(about: &Value) -> Value {
    let meta = &about["metadata"];
    let mut short = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if !meta[field].is_null() {
            short[field] = meta[field].clone();
        }
    }
    json!({"apiVersion": about["apiVersion"], "kind": about["kind"], "metadata": short})
}

/// `Created pod: …` of the pods that its owner made just now.
pub fn created_pods(state: &State, owner: &Value, pods: &[&Value]) -> Vec<Write> {
    let prefix = format!("{}-", name(owner));
    let is_new = |pod: &&&Value| {
        text(&pod["metadata"]["generateName"]) == prefix
            && born(pod) >= born(owner)
            && born(pod).saturating_add(seconds(NEW_S)).is_ok_and(|end| end >= state.now())
    };
    let new = pods.iter().filter(is_new);
    new.flat_map(|pod| say(state, owner, false, "SuccessfulCreate", format!("Created pod: {}", name(pod)))).collect()
}

/// Whether an object was made just now.
pub fn is_new(state: &State, object: &Value) -> bool {
    born(object).saturating_add(seconds(NEW_S)).is_ok_and(|end| end >= state.now())
}

/// What a controller says when the API refused what it wanted to make; `message` is the Status'.
pub fn refused(state: &State, object: &Value, message: &str) -> Option<Write> {
    let reference = super::owner::controller_of(object)?;
    let key: Key = super::owner::owner_key(reference, namespace(object))?;
    let owner = state.at(&key).filter(|owner| uid(owner) == text(&reference["uid"]))?;
    let message = match (key.kind, text(&object["kind"])) {
        ("StatefulSet", kind) => {
            let named = name(object);
            format!("create {kind} {named} in StatefulSet {} failed error: {message}", key.name)
        }
        ("Deployment", "ReplicaSet") => {
            let text = format!("Failed to create new replica set {:?}: {message}", name(object));
            return say(state, owner, true, "ReplicaSetCreateError", text).next();
        }
        _ => format!("Error creating: {message}"),
    };
    say(state, owner, true, "FailedCreate", message).next()
}
