//! ControllerRevisions: the templates that a StatefulSet or DaemonSet has had.
//!
//! Pure plans. Called by `stateful_set` and `daemon_set`. What must stay true: the same template is the same revision,
//! also of a set that was deleted and made again.

use super::owner::{adopted, controlled_by, controller_reference, is_orphan, name, namespace};
use super::template::{hash, is_same};
use super::{State, Value, Write};
use crate::lab::store::text;
use serde_json::json;

/// The revisions of a set, or what has to be written before there are any.
pub enum Revisions {
    Due(Box<Write>),
    Known {
        /// That of the template as it is now.
        update: Value,
        /// Those of other templates, oldest first.
        older: Vec<Value>,
    },
}

/// The revisions of this set. `hash_label` carries the hash on the revision.
pub fn of(state: &State, set: &Value, hash_label: &str, collisions: i64) -> Revisions {
    let mut all: Vec<&Value> = controlled_by(state, set, "ControllerRevision").collect();
    all.sort_by_key(|revision| number(revision));
    let template = template_of(set);
    let next = all.last().map_or(1, |last| number(last) + 1);
    let Some(at) = all.iter().position(|revision| is_same(&revision["data"]["spec"]["template"], &template)) else {
        return make(state, set, template, hash_label, collisions, next);
    };
    let update = all.remove(at);
    if number(update) + 1 < next {
        // A template of old is the newest now.
        let mut update = update.clone();
        update["revision"] = next.into();
        return Revisions::Due(Box::new(Write::Update(update)));
    }
    Revisions::Known { update: update.clone(), older: all.into_iter().cloned().collect() }
}

fn make(state: &State, set: &Value, template: Value, hash_label: &str, collisions: i64, next: i64) -> Revisions {
    let hash = hash(&template, collisions);
    let full = format!("{}-{hash}", name(set));
    let there = state.get("ControllerRevision", namespace(set), &full);
    if let Some(there) = there {
        if is_orphan(there) && is_same(&there["data"]["spec"]["template"], &template) {
            return Revisions::Due(Box::new(Write::Update(adopted(there, set))));
        }
        if collisions < 16 {
            return make(state, set, template, hash_label, collisions + 1, next);
        }
    }
    let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
    labels[hash_label] = hash.into();
    let mut meta = json!({"name": full, "namespace": namespace(set), "labels": labels});
    let set_annotations = &set["metadata"]["annotations"];
    if set_annotations.as_object().is_some_and(|all| !all.is_empty()) {
        meta["annotations"] = set_annotations.clone();
    }
    meta["ownerReferences"] = json!([controller_reference(set)]);
    Revisions::Due(Box::new(Write::Create(json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": meta,
        "data": {"spec": {"template": template}}, "revision": next,
    }))))
}

/// The hash in a revision's name.
pub fn hash_of<'a>(revision: &'a Value, set: &Value) -> &'a str {
    name(revision).strip_prefix(name(set)).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default()
}

/// Deletes the oldest that are not in use and beyond the limit.
pub fn history(older: &[Value], limit: i64, is_used: impl Fn(&Value) -> bool) -> Vec<Write> {
    let unused: Vec<&Value> = older.iter().filter(|revision| !is_used(revision)).collect();
    let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    let keys = unused.into_iter().take(surplus).map(|revision| {
        let key = super::Key::new("ControllerRevision", namespace(revision), name(revision));
        Write::delete(key, revision)
    });
    keys.collect()
}

fn number(revision: &Value) -> i64 {
    revision["revision"].as_i64().unwrap_or_default()
}

fn template_of(set: &Value) -> Value {
    let mut template = json!({"$patch": "replace"});
    for field in ["metadata", "spec"] {
        template[field] = set["spec"]["template"][field].clone();
    }
    template
}

/// StatefulSets say `collisionCount` also when it is zero, DaemonSets do not.
pub fn collision_count(set: &Value, status: &mut Value) {
    match set["status"]["collisionCount"].as_i64() {
        Some(collisions) => status["collisionCount"] = collisions.into(),
        None if text(&set["kind"]) == "StatefulSet" => status["collisionCount"] = 0.into(),
        None => {}
    }
}
