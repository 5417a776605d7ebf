//! ReplicaSets (and ReplicationControllers): so many pods of one template.
//!
//! Called by the loop for the set and for pods that belong to nobody. What must stay true: pods that are finished or
//! going are not counted; a pod that can be taken in is never made a second time.

use super::events::{created_pods, say};
use super::owner::{self, controlled_by, controllers_of, is_going, name, releases};
use super::pod::{self, count, is_active, with_status};
use super::selector;
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, text};
use serde_json::json;

pub static REPLICA_SET: Controller = Controller { name: "replicaset-controller", wakes, act };

const KINDS: [&str; 2] = ["ReplicaSet", "ReplicationController"];

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let mut keys = Vec::new();
    if KINDS.contains(&commit.key.kind) {
        keys.push(commit.key.clone());
        if let (true, Some(set)) = (owner::is_new_owner(commit), &commit.after) {
            let orphans = owner::orphans(state, set, "Pod", &selector_of(set));
            keys.extend(orphans.into_iter().filter_map(owner::key_of));
        }
    }
    if commit.key.kind == "Pod" {
        keys.extend(KINDS.into_iter().flat_map(|kind| controllers_of(commit, kind)));
        if owner::concerns_orphan(commit) {
            keys.push(commit.key.clone());
        }
    }
    keys
}

/// A ReplicationController's selector is a plain map.
fn selector_of(set: &Value) -> Value {
    match text(&set["kind"]) {
        "ReplicationController" => json!({"matchLabels": set["spec"]["selector"]}),
        _ => set["spec"]["selector"].clone(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(pod) if key.kind == "Pod" => Turn::of(adopt(state, pod)),
        Some(set) => keep(state, set),
    }
}

/// An orphan goes to the first set that selects it.
fn adopt(state: &State, pod: &Value) -> Vec<Write> {
    if !owner::is_orphan(pod) || !is_active(pod) {
        return Vec::new();
    }
    let sets = KINDS.into_iter().flat_map(|kind| state.list(kind, owner::namespace(pod)));
    let mut takers =
        sets.filter(|(_, set)| !is_going(set) && selector::matches(&selector_of(set), &pod["metadata"]["labels"]));
    takers.next().map(|(_, set)| Write::Update(owner::adopted(pod, set))).into_iter().collect()
}

fn keep(state: &State, set: &Value) -> Turn {
    let selector = selector_of(set);
    let owned: Vec<&Value> = controlled_by(state, set, "Pod").filter(|pod| is_active(pod)).collect();
    let mut writes = Vec::new();
    if !is_going(set) {
        writes.extend(releases(&owned, set, &selector));
    }
    let pods: Vec<&Value> =
        owned.into_iter().filter(|pod| selector::matches(&selector, &pod["metadata"]["labels"])).collect();
    writes.extend(created_pods(state, set, &pods));
    if !is_going(set) {
        writes.extend(size(state, set, &pods, &selector));
    }
    let min_ready_s = set["spec"]["minReadySeconds"].as_i64().unwrap_or_default();
    let status = status(state, set, &pods, min_ready_s);
    writes.extend(with_status(set, status).map(Write::Status));
    Turn { writes, again_at: pod::next_available(&pods, min_ready_s, state.now()) }
}

/// As many pods as there shall be.
fn size<'a>(state: &'a State, set: &'a Value, pods: &[&'a Value], selector: &Value) -> Vec<Write> {
    let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or_default();
    if pods.len() < wanted {
        let orphans = owner::orphans(state, set, "Pod", selector).into_iter().filter(|pod| is_active(pod));
        let adopted: Vec<Write> = orphans.map(|pod| Write::Update(owner::adopted(pod, set))).collect();
        if !adopted.is_empty() {
            return adopted;
        }
        let pod = pod::from_template(set, &set["spec"]["template"]);
        return vec![Write::Create(pod); wanted - pods.len()];
    }
    let surplus = pods.len() - wanted;
    if surplus == 0 {
        return Vec::new();
    }
    let related = related(state, set);
    let on = |pod: &Value| text(&pod["spec"]["nodeName"]).to_owned();
    let crowd = |pod: &Value| related.iter().filter(|other| on(other) == on(pod)).count();
    let going = pod::first_to_go(pods.to_vec(), crowd);
    let mut writes = Vec::new();
    for pod in going.into_iter().take(surplus) {
        writes.extend(say(state, set, false, "SuccessfulDelete", format!("Deleted pod: {}", name(pod))));
        writes.push(pod::delete(pod));
    }
    writes
}

/// The active pods of all sets with the same owner: crowded nodes are thinned out first.
fn related<'a>(state: &'a State, set: &'a Value) -> Vec<&'a Value> {
    let owner = owner::controller_of(set).map(|owner| text(&owner["uid"]));
    let siblings: Vec<&Value> = match owner {
        Some(owner) => state.owned_by(owner).map(|one| &**one).filter(|one| one["kind"] == set["kind"]).collect(),
        None => vec![set],
    };
    siblings.into_iter().flat_map(|set| controlled_by(state, set, "Pod")).filter(|pod| is_active(pod)).collect()
}

fn status(state: &State, set: &Value, pods: &[&Value], min_ready_s: i64) -> Value {
    let number = |fits: &dyn Fn(&Value) -> bool| pods.iter().filter(|pod| fits(pod)).count() as i64;
    let labels = json!({"matchLabels": set["spec"]["template"]["metadata"]["labels"]});
    let mut status = json!({"replicas": pods.len()});
    count(&mut status, "fullyLabeledReplicas", number(&|pod| selector::matches(&labels, &pod["metadata"]["labels"])));
    count(&mut status, "readyReplicas", number(&pod::is_ready));
    count(&mut status, "availableReplicas", number(&|pod| pod::is_available(pod, min_ready_s, state.now())));
    count(&mut status, "observedGeneration", set["metadata"]["generation"].as_i64().unwrap_or_default());
    if !set["status"]["conditions"].is_null() {
        status["conditions"] = set["status"]["conditions"].clone();
    }
    status
}
