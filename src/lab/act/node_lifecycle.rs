//! Nodes that are not ready: they get taints, and their pods are told to go after the time that they bear it.
//!
//! Called by the loop for a Node and for the Pods on it. Not the one who finds out that a node is silent. What must stay
//! true: a pod is never removed here, only asked to go: what runs on a silent node may still run.

use super::events::say;
use super::owner::{is_going, name, namespace};
use super::pod::{self, condition, is_ready, seconds, stamp, time};
use super::selector::tolerates;
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, list_of, text};
use jiff::Timestamp;
use serde_json::json;

pub static NODE_LIFECYCLE: Controller = Controller { name: "node-controller", wakes, act };

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    match (key.kind, &commit.after) {
        ("Node", Some(node)) => {
            let was = commit.before.as_ref().is_some_and(|before| {
                before["spec"]["taints"] == node["spec"]["taints"] && readiness(before) == readiness(node)
            });
            let mut keys = vec![key.clone()];
            if !was {
                let pods = state.list("Pod", "").filter(|(_, pod)| text(&pod["spec"]["nodeName"]) == key.name);
                keys.extend(pods.map(|(key, _)| key.clone()));
            }
            keys
        }
        ("Pod", Some(pod)) if !text(&pod["spec"]["nodeName"]).is_empty() => vec![key.clone()],
        _ => Vec::new(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(node) if key.kind == "Node" => Turn::of(taint(state, node)),
        Some(pod) => bear(state, pod),
    }
}

/// `True`, `False` or `Unknown`; a node that says nothing has just come.
fn readiness(node: &Value) -> &str {
    condition(node, "Ready").map_or("True", |ready| text(&ready["status"]))
}

/// The taints that the node's condition asks for; others stay.
fn taint(state: &State, node: &Value) -> Vec<Write> {
    let wanted = match readiness(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    let before = list_of(&node["spec"]["taints"]);
    let is_ours = |taint: &Value| [NOT_READY, UNREACHABLE].contains(&text(&taint["key"]));
    let mut taints: Vec<Value> = before
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.is_some_and(|wanted| taint["key"] == wanted))
        .cloned()
        .collect();
    let missing = wanted.into_iter().flat_map(|key| ["NoSchedule", "NoExecute"].map(|effect| (key, effect)));
    for (key, effect) in missing {
        if !taints.iter().any(|taint| taint["key"] == key && taint["effect"] == effect) {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": stamp(state.now())}));
        }
    }
    if taints == before {
        return Vec::new();
    }
    let mut changed = node.clone();
    match (taints.is_empty(), changed["spec"].as_object_mut()) {
        (true, Some(spec)) => {
            spec.shift_remove("taints");
        }
        _ => changed["spec"]["taints"] = taints.into(),
    }
    vec![Write::Update(changed)]
}

/// How long a pod bears its node's taints.
fn bear(state: &State, pod: &Value) -> Turn {
    let Some(node) = state.get("Node", "", text(&pod["spec"]["nodeName"])) else { return Turn::rest() };
    let mut writes = Vec::new();
    if readiness(node) == "Unknown" && is_ready(pod) {
        writes.push(Write::Status(not_ready(state, pod)));
    }
    if is_going(pod) {
        return Turn::of(writes);
    }
    match leaves_at(pod, node) {
        Some(at) if at <= state.now() => {
            let message = format!("Marking for deletion Pod {}/{}", namespace(pod), name(pod));
            writes.extend(say(state, pod, false, "TaintManagerEviction", message));
            writes.push(pod::delete(pod));
            Turn::of(writes)
        }
        at => Turn { writes, again_at: at },
    }
}

/// When a pod has to leave; `None` if it may stay.
fn leaves_at(pod: &Value, node: &Value) -> Option<Timestamp> {
    let tolerations = list_of(&pod["spec"]["tolerations"]);
    let taints = list_of(&node["spec"]["taints"]).iter().filter(|taint| taint["effect"] == "NoExecute");
    let ends = taints.filter_map(|taint| {
        let since = time(&taint["timeAdded"]).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut bearing = tolerations.iter().filter(|one| tolerates(one, taint)).peekable();
        if bearing.peek().is_none() {
            return Some(since);
        }
        let shortest = bearing.filter_map(|one| one["tolerationSeconds"].as_i64()).min()?;
        since.checked_add(seconds(shortest.max(0))).ok()
    });
    ends.min()
}

/// Nobody hears of it any more.
fn not_ready(state: &State, pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        for ready in conditions.iter_mut().filter(|one| one["type"] == "Ready") {
            ready["status"] = "False".into();
            ready["lastTransitionTime"] = stamp(state.now());
        }
    }
    pod
}
