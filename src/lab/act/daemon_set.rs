//! DaemonSets: one pod on each node that fits.
//!
//! Called by the loop for the set and for pods that belong to nobody. A pod is meant for its node by a node affinity; it
//! is the scheduler that puts it there. What must stay true: a node gets at most one pod; a pod that is going still
//! holds its node.

use super::events::{created_pods, say};
use super::owner::{self, controlled_by, controllers_of, is_going, name, namespace, releases};
use super::pod::{self, born, count, is_available, is_ready, phase, with_status};
use super::revisions::{self, Revisions};
use super::selector::{self, allows_node, untolerated};
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, list_of, text};
use serde_json::json;
use std::collections::BTreeMap;

pub static DAEMON_SET: Controller = Controller { name: "daemonset-controller", wakes, act };

const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
/// What a daemon bears beyond its template, and with which effect.
const BEARS: [(&str, &str); 6] = [
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
];

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    match key.kind {
        "DaemonSet" => {
            let mut keys = vec![key.clone()];
            if let (true, Some(set)) = (owner::is_new_owner(commit), &commit.after) {
                let orphans = owner::orphans(state, set, "Pod", &set["spec"]["selector"]);
                keys.extend(orphans.into_iter().filter_map(owner::key_of));
            }
            keys
        }
        "ControllerRevision" => controllers_of(commit, "DaemonSet"),
        "Pod" => {
            let mut keys = controllers_of(commit, "DaemonSet");
            if owner::concerns_orphan(commit) {
                keys.push(key.clone());
            }
            keys
        }
        "Node" if is_other_node(commit) => state.list("DaemonSet", "").map(|(key, _)| key.clone()).collect(),
        _ => Vec::new(),
    }
}

/// A node came, went, or fits other pods than before; its heartbeats do not matter.
fn is_other_node(commit: &Commit) -> bool {
    match (&commit.before, &commit.after) {
        (Some(before), Some(after)) => {
            before["spec"] != after["spec"] || before["metadata"]["labels"] != after["metadata"]["labels"]
        }
        _ => true,
    }
}

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(pod) if key.kind == "Pod" => Turn::of(adopt(state, pod)),
        Some(set) => keep(state, set),
    }
}

fn adopt(state: &State, pod: &Value) -> Vec<Write> {
    if !owner::is_orphan(pod) {
        return Vec::new();
    }
    let mut sets = state.list("DaemonSet", namespace(pod)).map(|(_, set)| set);
    let labels = &pod["metadata"]["labels"];
    let taker = sets.find(|set| !is_going(set) && selector::matches(&set["spec"]["selector"], labels));
    taker.map(|set| Write::Update(owner::adopted(pod, set))).into_iter().collect()
}

/// Where a pod is, or is meant to be.
fn node_of(pod: &Value) -> &str {
    let assigned = text(&pod["spec"]["nodeName"]);
    if !assigned.is_empty() {
        return assigned;
    }
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = list_of(&required["nodeSelectorTerms"]).iter();
    let mut names = terms.flat_map(|term| list_of(&term["matchFields"])).filter(|one| one["key"] == "metadata.name");
    names.next().and_then(|one| one["values"][0].as_str()).unwrap_or_default()
}

/// The spec of a pod for this node.
fn spec_for(template: &Value, node: &str) -> Value {
    let mut spec = template["spec"].clone();
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = list_of(&required["nodeSelectorTerms"]).to_vec();
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in &mut terms {
        term["matchFields"] = field.clone();
    }
    required["nodeSelectorTerms"] = terms.into();
    spec["tolerations"] = tolerations(&template["spec"]);
    spec
}

fn tolerations(spec: &Value) -> Value {
    let mut all = list_of(&spec["tolerations"]).to_vec();
    for (key, effect) in BEARS {
        let one = json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect});
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all.into()
}

/// Whether a node shall have a pod, and whether one that is there may stay.
fn fits(spec: &Value, tolerations: &Value, node: &Value) -> (bool, bool) {
    if !allows_node(spec, node) {
        return (false, false);
    }
    let may_stay = untolerated(tolerations, node, &["NoExecute"]).is_empty();
    (may_stay && untolerated(tolerations, node, &["NoSchedule"]).is_empty(), may_stay)
}

fn keep(state: &State, set: &Value) -> Turn {
    let selector = &set["spec"]["selector"];
    let mut pods: Vec<&Value> = controlled_by(state, set, "Pod").collect();
    let mut writes = Vec::new();
    if !is_going(set) {
        writes.extend(releases(&pods, set, selector));
    }
    pods.retain(|pod| selector::matches(selector, &pod["metadata"]["labels"]));
    let collisions = set["status"]["collisionCount"].as_i64().unwrap_or_default();
    let (update, older) = match revisions::of(state, set, HASH, collisions) {
        Revisions::Due(write) => {
            writes.extend((!is_going(set)).then_some(*write));
            return Turn::of(writes);
        }
        Revisions::Known { update, older } => (update, older),
    };
    let look = Look::new(state, set, &pods, revisions::hash_of(&update, set).to_owned());
    writes.extend(created_pods(state, set, &pods));
    if !is_going(set) {
        let placed = look.place();
        let is_placed = placed.is_empty();
        writes.extend(placed);
        if is_placed {
            writes.extend(look.roll());
        }
    }
    writes.extend(with_status(set, look.status()).map(Write::Status));
    let limit = set["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
    let is_used = |revision: &Value| {
        let hash = revisions::hash_of(revision, set);
        pods.iter().any(|pod| text(&pod["metadata"]["labels"][HASH]) == hash)
    };
    writes.extend(revisions::history(&older, limit, is_used));
    Turn { writes, again_at: pod::next_available(&pods, look.min_ready_s, state.now()) }
}

struct Look<'a> {
    state: &'a State,
    set: &'a Value,
    hash: String,
    min_ready_s: i64,
    /// Node, whether it shall have a pod, whether one may stay.
    nodes: Vec<(&'a str, bool, bool)>,
    /// Node → its pods, oldest first.
    pods: BTreeMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Look<'a> {
    fn new(state: &'a State, set: &'a Value, all: &[&'a Value], hash: String) -> Look<'a> {
        let spec = &set["spec"]["template"]["spec"];
        let tolerations = tolerations(spec);
        let nodes = state.list("Node", "").map(|(_, node)| {
            let (shall, may) = fits(spec, &tolerations, node);
            (name(node), shall, may)
        });
        let mut pods: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for pod in all {
            pods.entry(node_of(pod)).or_default().push(pod);
        }
        for pods in pods.values_mut() {
            pods.sort_by_key(|pod| (born(pod), name(pod)));
        }
        let min_ready_s = set["spec"]["minReadySeconds"].as_i64().unwrap_or_default();
        Look { state, set, hash, min_ready_s, nodes: nodes.collect(), pods }
    }

    fn pods_on(&self, node: &str) -> &[&'a Value] {
        self.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Makes what is missing, deletes what failed, is too much, or has no place.
    fn place(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (node, shall, may) in &self.nodes {
            let there = self.pods_on(node);
            if *shall && there.is_empty() {
                if let Some(orphans) = self.orphans(node) {
                    return orphans;
                }
                writes.push(Write::Create(self.pod(node)));
                continue;
            }
            let mut kept = 0;
            for pod in there.iter().filter(|pod| !is_going(pod)) {
                if phase(pod) == "Failed" && (*shall || *may) {
                    let set = self.set;
                    let message = format!(
                        "Found failed daemon pod {}/{} on node {node}, will try to kill it",
                        namespace(set),
                        name(pod)
                    );
                    writes.extend(say(self.state, set, true, "FailedDaemonPod", message));
                    writes.extend(self.delete(pod));
                } else if !may || kept > 0 {
                    writes.extend(self.delete(pod));
                } else {
                    kept += 1;
                }
            }
        }
        let known = |node: &str| self.nodes.iter().any(|(name, ..)| *name == node);
        let lost = self.pods.iter().filter(|(node, _)| !known(node)).flat_map(|(_, pods)| pods);
        // Those that were never assigned wait for a node that will not come.
        let lost = lost.filter(|pod| !is_going(pod) && text(&pod["spec"]["nodeName"]).is_empty());
        writes.extend(lost.flat_map(|pod| self.delete(pod)));
        writes
    }

    fn orphans(&self, node: &str) -> Option<Vec<Write>> {
        let orphans = owner::orphans(self.state, self.set, "Pod", &self.set["spec"]["selector"]);
        let writes: Vec<Write> = orphans
            .into_iter()
            .filter(|pod| node_of(pod) == node)
            .map(|pod| Write::Update(owner::adopted(pod, self.set)))
            .collect();
        (!writes.is_empty()).then_some(writes)
    }

    fn pod(&self, node: &str) -> Value {
        let template = &self.set["spec"]["template"];
        let mut pod = pod::from_template(self.set, template);
        pod["metadata"]["labels"][HASH] = self.hash.clone().into();
        pod["metadata"]["labels"][GENERATION] = self.generation().into();
        pod["spec"] = spec_for(template, node);
        pod
    }

    fn generation(&self) -> String {
        let noted = &self.set["metadata"]["annotations"]["deprecated.daemonset.template.generation"];
        noted.as_str().map_or_else(|| self.set["metadata"]["generation"].to_string(), str::to_owned)
    }

    fn delete(&self, pod: &Value) -> Vec<Write> {
        let message = format!("Deleted pod: {}", name(pod));
        let mut writes: Vec<Write> = say(self.state, self.set, false, "SuccessfulDelete", message).collect();
        writes.push(pod::delete(pod));
        writes
    }

    fn is_new(&self, pod: &Value) -> bool {
        text(&pod["metadata"]["labels"][HASH]) == self.hash
    }

    /// Deletes old pods: all that are not available, and as many others as may be missing at a time.
    fn roll(&self) -> Vec<Write> {
        let strategy = &self.set["spec"]["updateStrategy"];
        if strategy["type"] == "OnDelete" {
            return Vec::new();
        }
        let is_up = |pod: &&Value| is_available(pod, self.min_ready_s, self.state.now()) && !is_going(pod);
        let wanted: Vec<&str> = self.nodes.iter().filter(|(_, shall, _)| *shall).map(|(node, ..)| *node).collect();
        let allowed = match &strategy["rollingUpdate"]["maxUnavailable"] {
            Value::Null => 1,
            // Rounded up, unlike a Deployment's.
            other => super::deployment::resolve(other, wanted.len() as i64, true),
        };
        let missing = wanted.iter().filter(|node| !self.pods_on(node).iter().any(is_up)).count() as i64;
        let old = self.pods.values().flatten().copied().filter(|pod| !self.is_new(pod) && !is_going(pod));
        let (up, down): (Vec<&Value>, Vec<&Value>) = old.partition(is_up);
        let room = usize::try_from(allowed - missing).unwrap_or_default();
        down.into_iter().chain(up.into_iter().take(room)).flat_map(|pod| self.delete(pod)).collect()
    }

    fn status(&self) -> Value {
        let (mut desired, mut current, mut astray, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
        for (node, shall, _) in &self.nodes {
            let first = self.pods_on(node).first();
            if !shall {
                astray += i64::from(first.is_some());
                continue;
            }
            desired += 1;
            let Some(pod) = first else { continue };
            current += 1;
            ready += i64::from(is_ready(pod));
            available += i64::from(is_available(pod, self.min_ready_s, self.state.now()));
            updated += i64::from(self.is_new(pod));
        }
        let mut status = json!({
            "currentNumberScheduled": current, "numberMisscheduled": astray,
            "desiredNumberScheduled": desired, "numberReady": ready,
        });
        count(&mut status, "observedGeneration", self.set["metadata"]["generation"].as_i64().unwrap_or_default());
        count(&mut status, "updatedNumberScheduled", updated);
        count(&mut status, "numberAvailable", available);
        count(&mut status, "numberUnavailable", desired - available);
        revisions::collision_count(self.set, &mut status);
        status
    }
}
