//! ResourceQuotas at work: how much is used, and whether one more fits.
//!
//! Usage is counted from the state at each question, so that it is never behind. The status of a quota is written by
//! its controller (`act::quota`) with `quota_status`.

use super::limit_ranger::sums;
use super::{Operation, class_of, forbidden};
use crate::lab::kind::{KINDS, Kind};
use crate::lab::quantity::Quantity;
use crate::lab::rules::field::{entries, is_empty};
use crate::lab::status::Status;
use crate::lab::store::{State, list_of, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// Kinds that are counted by their plain plural too.
const PLAIN: [&str; 5] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets"];

/// `{hard, used}` of this quota now.
pub fn quota_status(state: &State, quota: &Value) -> Value {
    let hard = &quota["spec"]["hard"];
    let used = used(state, quota);
    let shown: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    match is_empty(hard) {
        true => json!({}),
        false => json!({"hard": hard, "used": shown}),
    }
}

/// What is used of what the quota limits.
fn used(state: &State, quota: &Value) -> Amounts {
    let namespace = text(&quota["metadata"]["namespace"]);
    let mut used: Amounts =
        entries(&quota["spec"]["hard"]).into_iter().map(|(name, _)| (name.to_owned(), Quantity::ZERO)).collect();
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        let counts = used.keys().any(|name| concerns(kind, name));
        if !counts {
            continue;
        }
        for (_, object) in state.list(kind.kind, namespace) {
            for (name, amount) in usage(kind, object) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = sum.plus(amount);
                }
            }
        }
    }
    used
}

/// Whether objects of this kind use this resource.
fn concerns(kind: &Kind, resource: &str) -> bool {
    let counted = resource.strip_prefix("count/").unwrap_or(resource);
    match kind.kind {
        "Pod" => {
            let first = resource.split('.').next().unwrap_or(resource);
            counted == "pods"
                || ["cpu", "memory", "ephemeral-storage"].contains(&resource)
                || (["requests", "limits"].contains(&first) && resource != "requests.storage")
        }
        "PersistentVolumeClaim" => {
            counted == "persistentvolumeclaims"
                || resource == "requests.storage"
                || resource.contains(".storageclass.storage.k8s.io/")
        }
        _ => resource == format!("count/{}", kind.qualified()) || PLAIN.contains(&resource) && resource == kind.plural,
    }
}

/// What one object uses.
fn usage(kind: &Kind, object: &Value) -> Amounts {
    let one = Quantity::whole(1);
    let mut all = Amounts::from([(format!("count/{}", kind.qualified()), one)]);
    if PLAIN.contains(&kind.plural) && kind.group.is_empty() {
        all.insert(kind.plural.to_owned(), one);
    }
    match kind.kind {
        "PersistentVolumeClaim" => {
            let size = Quantity::of(&object["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO);
            all.insert("requests.storage".into(), size);
            let class = class_of(object);
            if !class.is_empty() {
                let prefix = format!("{class}.storageclass.storage.k8s.io");
                all.insert(format!("{prefix}/persistentvolumeclaims"), one);
                all.insert(format!("{prefix}/requests.storage"), size);
            }
        }
        "Pod" if !["Succeeded", "Failed"].contains(&text(&object["status"]["phase"])) => {
            all.insert("pods".into(), one);
            let whole = sums(&object["spec"]);
            for (resource, amount) in entries(&whole["requests"]) {
                let amount = Quantity::of(amount).unwrap_or(Quantity::ZERO);
                all.insert(resource.to_owned(), amount);
                all.insert(format!("requests.{resource}"), amount);
            }
            for (resource, amount) in entries(&whole["limits"]) {
                let amount = Quantity::of(amount).unwrap_or(Quantity::ZERO);
                all.insert(format!("limits.{resource}"), amount);
            }
        }
        _ => {}
    }
    all
}

/// Refuses what would use more than a quota allows. The first quota that minds speaks.
pub fn check(
    state: &State,
    kind: &Kind,
    operation: Operation,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    // Of all that changes, only a claim's size uses more.
    if operation == Operation::Update && kind.kind != "PersistentVolumeClaim" || !kind.namespaced {
        return Ok(());
    }
    let after = usage(kind, object);
    let before = old.map(|old| usage(kind, old)).unwrap_or_default();
    for (key, quota) in state.list("ResourceQuota", namespace) {
        let hard = &quota["spec"]["hard"];
        let name = &key.name;
        if kind.kind == "Pod" {
            let missing = unsaid(hard, object);
            if !missing.is_empty() {
                let why = format!("failed quota: {name}: must specify {}", missing.join(","));
                return Err(forbidden(kind, object, why));
            }
        }
        let used = used(state, quota);
        let [mut wanted, mut taken, mut allowed] = [const { Vec::new() }; 3];
        for (resource, amount) in &after {
            let Some(most) = Quantity::of(&hard[resource.as_str()]) else { continue };
            let more = before.get(resource).map_or(*amount, |before| amount.minus(*before));
            let now = used.get(resource).copied().unwrap_or(Quantity::ZERO);
            if more.is_zero() || more.is_negative() || now.plus(more) <= most {
                continue;
            }
            wanted.push(format!("{resource}={more}"));
            taken.push(format!("{resource}={now}"));
            allowed.push(format!("{resource}={most}"));
        }
        if !wanted.is_empty() {
            let why = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                wanted.join(","),
                taken.join(","),
                allowed.join(",")
            );
            return Err(forbidden(kind, object, why));
        }
    }
    Ok(())
}

/// What the quota limits and a container of the pod does not say.
fn unsaid(hard: &Value, pod: &Value) -> Vec<String> {
    let says = |name: &str| {
        let (list, resource) = name.split_once('.').unwrap_or(("requests", name));
        list_of(&pod["spec"]["containers"]).iter().all(|one| !one["resources"][list][resource].is_null())
    };
    let must = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    entries(hard)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| must.contains(name) && !says(name))
        .map(str::to_owned)
        .collect()
}
