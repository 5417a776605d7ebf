//! Garbage collection: what has no living owner goes, and an owner that waits for its dependents goes after them.
//!
//! Called by the loop for any object that has owners or whose deletion waits for its dependents. What must stay true: an
//! owner is the object of that uid; nothing goes while one owner lives; what belongs to kinds nobody serves is left
//! alone.

use super::owner::{is_going, key_of, owner_key, uid, with_owners};
use super::{Controller, Key, Propagation, State, Turn, Value, Write};
use crate::lab::store::{Commit, list_of, text};

pub static GARBAGE: Controller = Controller { name: "generic-garbage-collector", wakes, act };

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let mut keys = Vec::new();
    let owners = |object: &Option<std::sync::Arc<Value>>| {
        object.as_ref().map_or(&[][..], |object| list_of(&object["metadata"]["ownerReferences"])).to_vec()
    };
    let (before, after) = (owners(&commit.before), owners(&commit.after));
    match &commit.after {
        Some(object) if !after.is_empty() || waits(object) => keys.push(commit.key.clone()),
        _ => {}
    }
    // Its owners may be waiting for it.
    if commit.after.is_none() || before != after {
        let all = before.iter().chain(&after).filter_map(|owner| owner_key(owner, &commit.key.namespace));
        keys.extend(all.filter(|key| state.at(key).is_some_and(|owner| waits(owner))));
    }
    // Its dependents lose it now, or are waited for.
    let last = commit.after.as_ref().or(commit.before.as_ref());
    if let Some(object) = last.filter(|object| commit.after.is_none() || waits(object)) {
        keys.extend(state.owned_by(uid(object)).filter_map(|dependent| key_of(dependent)));
    }
    keys
}

fn has(object: &Value, finalizer: &str) -> bool {
    list_of(&object["metadata"]["finalizers"]).iter().any(|one| one == finalizer)
}

/// It is going, and this controller has a part in that.
fn waits(object: &Value) -> bool {
    is_going(object) && (has(object, FOREGROUND) || has(object, ORPHAN))
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(object) = state.at(key) else { return Turn::rest() };
    if is_going(object) {
        let writes = match () {
            () if has(object, ORPHAN) => orphan(state, object),
            () if has(object, FOREGROUND) => after_dependents(state, object),
            () => Vec::new(),
        };
        return Turn::of(writes);
    }
    Turn::of(without_owner(state, key, object))
}

/// The object without one finalizer.
fn without(object: &Value, finalizer: &str) -> Write {
    let mut object = object.clone();
    let rest: Vec<Value> =
        list_of(&object["metadata"]["finalizers"]).iter().filter(|one| *one != finalizer).cloned().collect();
    match (rest.is_empty(), object["metadata"].as_object_mut()) {
        (true, Some(meta)) => {
            meta.shift_remove("finalizers");
        }
        _ => object["metadata"]["finalizers"] = rest.into(),
    }
    Write::Update(object)
}

/// The dependents forget their owner, then it goes.
fn orphan(state: &State, owner: &Value) -> Vec<Write> {
    let me = uid(owner);
    let dependents = state.owned_by(me).map(|one| Write::Update(with_owners(one, |reference| reference["uid"] != me)));
    dependents.chain([without(owner, ORPHAN)]).collect()
}

/// The dependents that block go first; they find out by themselves (see `without_owner`).
fn after_dependents(state: &State, owner: &Value) -> Vec<Write> {
    let me = uid(owner);
    let blocks = |one: &Value| {
        let references = list_of(&one["metadata"]["ownerReferences"]).iter();
        references.filter(|reference| reference["uid"] == me).any(|reference| reference["blockOwnerDeletion"] == true)
    };
    if state.owned_by(me).any(|one| blocks(one)) { Vec::new() } else { vec![without(owner, FOREGROUND)] }
}

/// What an owner reference leads to.
#[derive(PartialEq)]
enum Owner {
    Solid,
    /// It is deleted in the foreground: the dependents go first.
    Waiting,
    Gone,
    Unknown,
}

fn owner(state: &State, key: &Key, reference: &Value) -> Owner {
    let Some(owner_key) = owner_key(reference, &key.namespace) else { return Owner::Unknown };
    if key.namespace.is_empty() && crate::lab::kind::kind(owner_key.kind).namespaced {
        // An object of the whole cluster cannot have an owner in some namespace; nobody can tell which one.
        return Owner::Unknown;
    }
    match state.at(&owner_key).filter(|owner| uid(owner) == text(&reference["uid"])) {
        None => Owner::Gone,
        Some(owner) if is_going(owner) && has(owner, FOREGROUND) => Owner::Waiting,
        Some(_) => Owner::Solid,
    }
}

fn without_owner(state: &State, key: &Key, object: &Value) -> Vec<Write> {
    let references = list_of(&object["metadata"]["ownerReferences"]);
    let owners: Vec<Owner> = references.iter().map(|reference| owner(state, key, reference)).collect();
    if references.is_empty() || owners.contains(&Owner::Unknown) {
        return Vec::new();
    }
    if owners.contains(&Owner::Solid) {
        let is_solid = |reference: &Value| owner(state, key, reference) == Owner::Solid;
        let is_all = owners.iter().all(|owner| *owner == Owner::Solid);
        return if is_all { Vec::new() } else { vec![Write::Update(with_owners(object, is_solid))] };
    }
    let has_dependents = state.owned_by(uid(object)).next().is_some();
    let propagation = match () {
        () if owners.contains(&Owner::Waiting) && has_dependents => Propagation::Foreground,
        () if has(object, ORPHAN) => Propagation::Orphan,
        () if has(object, FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    };
    vec![Write::Delete { key: key.clone(), uid: uid(object).to_owned(), grace_s: None, propagation }]
}
