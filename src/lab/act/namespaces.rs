//! Namespaces: what each has from the start, and how one goes.
//!
//! Called by the loop for a Namespace. What must stay true: a namespace goes only after everything in it.

use super::owner::is_going;
use super::pod::{condition, stamp, time, with_status};
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::kind::KINDS;
use crate::lab::store::{Commit, list_of};
use jiff::SignedDuration;
use serde_json::json;

pub static NAMESPACES: Controller = Controller { name: "namespace-controller", wakes, act };

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    if key.kind == "Namespace" {
        return vec![key.clone()];
    }
    let namespace = Key::new("Namespace", "", &key.namespace[..]);
    let Some(here) = state.at(&namespace) else { return Vec::new() };
    let is_lost = commit.after.is_none() && FIRST.contains(&(key.kind, &key.name[..]));
    if is_lost || is_going(here) { vec![namespace] } else { Vec::new() }
}

/// So long everybody can see that a namespace is going; the real controller takes five seconds.
const MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// What every namespace has.
const FIRST: [(&str, &str); 2] = [("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")];

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(namespace) if is_going(namespace) => match time(&namespace["metadata"]["deletionTimestamp"]) {
            Some(since) if since + MOMENT > state.now() => Turn::wait_until(since + MOMENT),
            _ => Turn::of(empty(state, namespace, &key.name)),
        },
        Some(_) => Turn::of(furnish(state, &key.name)),
    }
}

fn furnish(state: &State, namespace: &str) -> Vec<Write> {
    let missing = FIRST.into_iter().filter(|(kind, name)| state.get(kind, namespace, name).is_none());
    let objects = missing.map(|(kind, name)| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        if kind == "ConfigMap" {
            // There is no certificate: the lab speaks plain HTTP.
            object["data"] = json!({"ca.crt": ""});
        }
        Write::Create(object)
    });
    objects.collect()
}

/// All that is in a namespace, then the namespace.
fn empty(state: &State, namespace: &Value, name: &str) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut remaining = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        let mut left = 0;
        for (key, object) in state.list(kind.kind, name) {
            left += 1;
            if !is_going(object) {
                writes.push(Write::delete(key.clone(), object));
            }
        }
        if left > 0 {
            let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
            remaining.push(format!("{}{group} has {left} resource instances", kind.plural));
        }
    }
    if !writes.is_empty() {
        return writes;
    }
    if !remaining.is_empty() {
        return with_status(namespace, status(state, namespace, name, &remaining))
            .map(Write::Status)
            .into_iter()
            .collect();
    }
    if list_of(&namespace["spec"]["finalizers"]).iter().any(|one| one == "kubernetes") {
        let mut done = namespace.clone();
        let rest: Vec<Value> =
            list_of(&namespace["spec"]["finalizers"]).iter().filter(|one| *one != "kubernetes").cloned().collect();
        done["spec"]["finalizers"] = rest.into();
        return vec![Write::Finalize(done)];
    }
    Vec::new()
}

/// What is still there, and which finalizers hold it.
fn status(state: &State, namespace: &Value, name: &str, remaining: &[String]) -> Value {
    let mut held: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        for finalizer in state.list(kind.kind, name).flat_map(|(_, object)| list_of(&object["metadata"]["finalizers"]))
        {
            *held.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let held: Vec<String> =
        held.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let content = format!("Some resources are remaining: {}", remaining.join(", "));
    let finalizers = match &held[..] {
        [] => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
        _ => (
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", held.join(", ")),
        ),
    };
    let all = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        (
            "NamespaceDeletionContentFailure",
            ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned()),
        ),
        ("NamespaceContentRemaining", ("True", "SomeResourcesRemain", content)),
        ("NamespaceFinalizersRemaining", finalizers),
    ];
    let conditions = all.into_iter().map(|(kind, (is, reason, message))| {
        let before = condition(namespace, kind).filter(|before| before["status"] == is);
        let since = before.map_or_else(|| stamp(state.now()), |before| before["lastTransitionTime"].clone());
        json!({"type": kind, "status": is, "lastTransitionTime": since, "reason": reason, "message": message})
    });
    json!({"phase": "Terminating", "conditions": conditions.collect::<Vec<Value>>()})
}
