//! The scheduler: one pod at a time gets the node that suits it and has the fewest pods.
//!
//! Filters as the real one names them: unschedulable, taints, selectors and node affinity, volumes. Not simulated:
//! requests of cpu and memory, ports, affinity between pods, spreading by topology, preemption, priorities. What must
//! stay true: claims that wait for their first pod are bound before the pod is; the choice made for them is in the
//! objects (`selected-node`, `claimRef`), so that being asked again chooses the same.

#[cfg(test)]
mod tests;

use super::binder::matching::{self, For};
use super::{Controller, Turn, Write, annotations, binder, drivers, placement};
use crate::lab::store::{Commit, Key, State, claims_of, list_of, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub static SCHEDULER: Controller = Controller { name: "default-scheduler", wakes, act };

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let of_claim = |key: &Key| -> Vec<Key> {
        let pods = state.pods_of_claim(&key.namespace, &key.name).filter(|pod| is_due(pod));
        pods.map(|pod| Key::new("Pod", &key.namespace, text(&pod["metadata"]["name"]))).collect()
    };
    let all = || state.pods_on("").filter(|(_, pod)| is_due(pod)).map(|(key, _)| key.clone()).collect();
    // Those that have a claim at all: a volume is nothing to the others.
    let with_claims = || {
        let pods = state.pods_on("").filter(|(_, pod)| claims_of(&pod["spec"]).next().is_some() && is_due(pod));
        pods.map(|(key, _)| key.clone()).collect()
    };
    match commit.key.kind {
        "Pod" => vec![commit.key.clone()],
        "PersistentVolumeClaim" => of_claim(&commit.key),
        "PersistentVolume" => {
            let object = commit.after.as_ref().or(commit.before.as_ref());
            let is_free = object.is_some_and(|one| one["spec"]["claimRef"].is_null());
            let claim = object.and_then(|one| binder::claim_key(one));
            if is_free { with_claims() } else { claim.map(|key| of_claim(&key)).unwrap_or_default() }
        }
        "Node" if of_interest(&commit.before) != of_interest(&commit.after) => all(),
        "StorageClass" => all(),
        _ => Vec::new(),
    }
}

/// What of a node decides; its heartbeats do not.
fn of_interest(node: &Option<Arc<Value>>) -> Option<(&Value, &Value, Option<Value>)> {
    let node = node.as_ref()?;
    Some((&node["metadata"]["labels"], &node["spec"], placement::repelled_by(&Value::Null, node)))
}

fn is_due(pod: &Value) -> bool {
    let scheduler = pod["spec"]["schedulerName"].as_str().unwrap_or("default-scheduler");
    text(&pod["spec"]["nodeName"]).is_empty()
        && scheduler == "default-scheduler"
        && pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(pod) = state.at(key).filter(|pod| key.kind == "Pod" && is_due(pod)) else { return Turn::rest() };
    let nodes: Vec<&Arc<Value>> = state.list("Node", "").map(|(_, node)| node).collect();
    if nodes.is_empty() {
        return unschedulable(state, pod, "no nodes available to schedule pods".into());
    }
    let claims = match Claims::of(state, pod) {
        Ok(claims) => claims,
        Err(why) => return unschedulable(state, pod, refusal(nodes.len(), &BTreeMap::from([(why, nodes.len())]))),
    };
    let mut why: BTreeMap<String, usize> = BTreeMap::new();
    let mut suiting = Vec::new();
    for node in &nodes {
        match claims.obstacle(state, pod, node) {
            Some(reason) => *why.entry(reason).or_default() += 1,
            None => suiting.push(*node),
        }
    }
    let Some(node) = favourite(state, &claims, &suiting) else {
        return unschedulable(state, pod, refusal(nodes.len(), &why));
    };
    let name = text(&node["metadata"]["name"]);
    if !claims.waiting.is_empty() {
        return claims.choose(state, node);
    }
    let message = format!("Successfully assigned {}/{} to {name}", key.namespace, key.name);
    // Said only behind the binding: one that is refused was not done.
    let said = Write::event(pod, false, "Scheduled", message);
    Turn::of(vec![Write::Bind { pod: key.clone(), node: name.to_owned() }, said])
}

/// `0/2 nodes are available: 1 node(s) were unschedulable, ….`
fn refusal(nodes: usize, why: &BTreeMap<String, usize>) -> String {
    let mut reasons: Vec<String> = why.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

fn unschedulable(state: &State, pod: &Value, message: String) -> Turn {
    let old = list_of(&pod["status"]["conditions"]).iter().find(|one| one["type"] == "PodScheduled");
    let mut turn = Turn::rest();
    turn.event(pod, true, "FailedScheduling", message.clone());
    let is_new = old.is_none_or(|one| one["status"] != "False");
    if !is_new && old.is_some_and(|one| one["message"] == message.as_str() && one["reason"] == "Unschedulable") {
        return turn;
    }
    let mut condition = json!({"type": "PodScheduled", "status": "False", "lastProbeTime": null});
    condition["lastTransitionTime"] = match old {
        Some(old) if !is_new => old["lastTransitionTime"].clone(),
        _ => state.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
    };
    condition["reason"] = "Unschedulable".into();
    condition["message"] = message.into();
    let others = list_of(&pod["status"]["conditions"]).iter().filter(|one| one["type"] != "PodScheduled");
    let all: Vec<Value> = others.cloned().chain([condition]).collect();
    let mut after = pod.clone();
    after["status"]["conditions"] = all.into();
    turn.status(pod, after);
    turn
}

/// The node that has the fewest pods, the first by name of several. One to which a disk of the pod is attached already
/// comes first.
fn favourite<'a>(state: &State, claims: &Claims, nodes: &[&'a Arc<Value>]) -> Option<&'a Arc<Value>> {
    if let [] | [_] = nodes {
        return nodes.first().copied();
    }
    let is_over = |pod: &Value| matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    let pods = |node: &str| state.pods_on(node).filter(|(_, pod)| !is_over(pod)).count();
    nodes.iter().copied().min_by_key(|node| {
        let name = text(&node["metadata"]["name"]);
        let attached = list_of(&node["status"]["volumesAttached"]);
        let has = |volume: &Arc<Value>| attached.iter().any(|one| one["name"] == drivers::name_on_node(volume));
        let disks = claims.bound.iter().filter(|volume| has(volume)).count();
        (std::cmp::Reverse(disks), pods(name), name.to_owned())
    })
}

/// The claims of one pod.
struct Claims<'a> {
    /// The volumes of those that are bound.
    bound: Vec<&'a Arc<Value>>,
    /// Those that wait for their first pod.
    waiting: Vec<&'a Arc<Value>>,
    /// One is bound to a volume that is not there.
    is_lost: bool,
}

impl<'a> Claims<'a> {
    /// Or why no node can have the pod.
    fn of(state: &'a State, pod: &Value) -> Result<Claims<'a>, String> {
        let mut claims = Claims { bound: Vec::new(), waiting: Vec::new(), is_lost: false };
        for name in claims_of(&pod["spec"]) {
            let claim = state.get("PersistentVolumeClaim", text(&pod["metadata"]["namespace"]), name);
            let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if !claim["metadata"]["deletionTimestamp"].is_null() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let volume = text(&claim["spec"]["volumeName"]);
            if !volume.is_empty() && annotations::has(claim, annotations::BIND_COMPLETED) {
                match state.get("PersistentVolume", "", volume) {
                    Some(volume) => claims.bound.push(volume),
                    None => claims.is_lost = true,
                }
            } else if volume.is_empty() && binder::waits_for_consumer(state, claim) {
                claims.waiting.push(claim);
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".into());
            }
        }
        Ok(claims)
    }

    /// The first filter that a node does not pass.
    fn obstacle(&self, state: &State, pod: &Value, node: &Value) -> Option<String> {
        let cordoned = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
        if node["spec"]["unschedulable"] == true && !placement::tolerates(pod, &cordoned) {
            return Some("node(s) were unschedulable".into());
        }
        if let Some(taint) = placement::repelled_by(pod, node) {
            let (key, value) = (text(&taint["key"]), text(&taint["value"]));
            return Some(format!("node(s) had taint {{{key}: {value}}}, that the pod didn't tolerate"));
        }
        if !placement::pod_fits(pod, node) {
            return Some("node(s) didn't match Pod's node affinity".into());
        }
        if self.is_lost {
            return Some("pvc(s) bound to non-existent pv(s)".into());
        }
        if !self.bound.iter().all(|volume| placement::volume_fits(volume, node)) {
            return Some("node(s) had volume node affinity conflict".into());
        }
        let missing = "node(s) didn't find available persistent volumes to bind";
        self.found(state, node).is_none().then(|| missing.into())
    }

    /// For each claim that waits a volume that is there; `None` in it: one will be made. `None`: neither on this node.
    fn found(&self, state: &'a State, node: &Value) -> Option<Vec<Option<&'a Arc<Value>>>> {
        let mut found: Vec<Option<&Arc<Value>>> = Vec::new();
        for claim in &self.waiting {
            let selected = annotations::get(claim, annotations::SELECTED_NODE);
            if selected.is_some_and(|name| node["metadata"]["name"] != name) {
                return None;
            }
            let taken = |volume: &&Arc<Value>| found.iter().flatten().any(|one| Arc::ptr_eq(one, volume));
            let free = state.list("PersistentVolume", "").map(|(_, volume)| volume).filter(|volume| !taken(volume));
            let volume = if selected.is_some() { None } else { matching::best(free, claim, For::Node(node)) };
            let class = state.get("StorageClass", "", matching::class_of(claim));
            let provisioner = class.map(|class| text(&class["provisioner"])).unwrap_or_default();
            if volume.is_none() && (provisioner.is_empty() || provisioner == "kubernetes.io/no-provisioner") {
                return None;
            }
            found.push(volume);
        }
        Some(found)
    }

    /// Writes the choice into the objects; the binder and the provisioner do the rest.
    fn choose(&self, state: &State, node: &Value) -> Turn {
        let mut turn = Turn::rest();
        let found = self.found(state, node).unwrap_or_default();
        for (claim, volume) in self.waiting.iter().zip(found) {
            match volume {
                Some(volume) => turn.update(volume, binder::reserved(volume, claim)),
                None => {
                    let mut after = (***claim).clone();
                    annotations::set(&mut after, annotations::SELECTED_NODE, text(&node["metadata"]["name"]));
                    turn.update(claim, after);
                }
            }
        }
        turn
    }
}
