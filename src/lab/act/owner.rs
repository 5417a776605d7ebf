//! Who belongs to whom: owner references, and taking in or letting go of what a selector says.
//!
//! Not garbage collection, which acts on what is written here (`garbage`). Called by the workload controllers. What
//! must stay true: an owner is known by its uid, its name alone proves nothing.

use super::selector;
use super::{Key, State, Value, Write};
use crate::lab::kind;
use crate::lab::store::{Commit, list_of, text};
use serde_json::json;

/// The reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    list_of(&object["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true)
}

/// Whether its controller is the object of this uid.
pub fn is_controlled_by(object: &Value, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner["uid"] == uid)
}

/// What this owner controls, sorted.
pub fn controlled_by<'a>(state: &'a State, owner: &Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let uid = uid(owner).to_owned();
    let mine: Vec<&Value> = state
        .owned_by(&uid)
        .map(|object| &**object)
        .filter(|object| object["kind"] == kind && is_controlled_by(object, &uid))
        .collect();
    mine.into_iter()
}

pub fn uid(object: &Value) -> &str {
    text(&object["metadata"]["uid"])
}

pub fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

pub fn namespace(object: &Value) -> &str {
    text(&object["metadata"]["namespace"])
}

/// Its deletion has begun.
pub fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The key of an object that says its kind; the kind is one that the lab serves.
pub fn key_of(object: &Value) -> Option<Key> {
    Some(Key::new(kind::find(text(&object["kind"]))?.kind, namespace(object), name(object)))
}

/// The key of an owner, as seen from this namespace. `None` for a kind that the lab does not serve.
pub fn owner_key(reference: &Value, namespace: &str) -> Option<Key> {
    let group = text(&reference["apiVersion"]).rsplit_once('/').map_or("", |(group, _)| group);
    let kind = kind::find(text(&reference["kind"])).filter(|kind| kind.group == group)?;
    let namespace = if kind.namespaced { namespace } else { "" };
    Some(Key::new(kind.kind, namespace, text(&reference["name"])))
}

/// The keys of the controllers before and after a commit, if they are of this kind.
pub fn controllers_of(commit: &Commit, kind: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    for object in [&commit.before, &commit.after].into_iter().flatten() {
        let owner = controller_of(object).and_then(|owner| owner_key(owner, &commit.key.namespace));
        keys.extend(owner.filter(|key| key.kind == kind));
    }
    keys.dedup();
    keys
}

/// A reference that says: this controls it, and waits for it when it is deleted in the foreground.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    })
}

/// The object with this owner as its controller.
pub fn adopted(object: &Value, owner: &Value) -> Value {
    let mut object = object.clone();
    let mut owners = list_of(&object["metadata"]["ownerReferences"]).to_vec();
    owners.push(controller_reference(owner));
    object["metadata"]["ownerReferences"] = owners.into();
    object
}

/// The object without the references that this says no to.
pub fn with_owners(object: &Value, stays: impl Fn(&Value) -> bool) -> Value {
    let mut object = object.clone();
    let owners: Vec<Value> =
        list_of(&object["metadata"]["ownerReferences"]).iter().filter(|owner| stays(owner)).cloned().collect();
    match (owners.is_empty(), object["metadata"].as_object_mut()) {
        (true, Some(meta)) => {
            meta.shift_remove("ownerReferences");
        }
        _ => object["metadata"]["ownerReferences"] = owners.into(),
    }
    object
}

/// What this owner may take in: of this kind, in its namespace, without a controller, not going, and selected.
pub fn orphans<'a>(state: &'a State, owner: &'a Value, kind: &'static str, selector: &Value) -> Vec<&'a Value> {
    if is_going(owner) {
        return Vec::new();
    }
    let all = state.list(kind, namespace(owner)).map(|(_, object)| &**object);
    all.filter(|object| is_orphan(object) && selector::matches(selector, &object["metadata"]["labels"])).collect()
}

pub fn is_orphan(object: &Value) -> bool {
    controller_of(object).is_none() && !is_going(object)
}

/// Lets go of what it controls and no longer selects.
pub fn releases(owned: &[&Value], owner: &Value, selector: &Value) -> Vec<Write> {
    let strangers = owned.iter().filter(|object| !selector::matches(selector, &object["metadata"]["labels"]));
    let me = uid(owner);
    strangers.map(|object| Write::Update(with_owners(object, |reference| reference["uid"] != me))).collect()
}

/// Whether a commit made an orphan, or changed how one is selected.
pub fn concerns_orphan(commit: &Commit) -> bool {
    let Some(after) = commit.after.as_ref().filter(|after| is_orphan(after)) else {
        return false;
    };
    commit.before.as_ref().is_none_or(|before| {
        controller_of(before).is_some() || before["metadata"]["labels"] != after["metadata"]["labels"]
    })
}

/// Whether a commit made this object or changed whom it selects.
pub fn is_new_owner(commit: &Commit) -> bool {
    let Some(after) = &commit.after else { return false };
    commit.before.as_ref().is_none_or(|before| before["spec"]["selector"] != after["spec"]["selector"])
}
