//! Deployments: ReplicaSets of successive templates, one of which shall have all the replicas.
//!
//! Called by the loop for the Deployment and for ReplicaSets that belong to nobody. How many replicas each set gets is
//! in `rollout`, what is said of it all in `conditions`. What must stay true: never fewer available pods than promised
//! because of a rollout; with Recreate no new pod while an old one is there.

mod conditions;
mod rollout;

use super::events::{is_new, say};
use super::owner::{self, controlled_by, controller_reference, controllers_of, is_going, name, namespace, releases};
use super::pod::{born, is_finished, with_status};
use super::selector;
use super::template::{hash, is_same};
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, text};
pub(super) use rollout::resolve;
use rollout::{Limits, replicas};
use serde_json::{Map, json};

pub static DEPLOYMENT: Controller = Controller { name: "deployment-controller", wakes, act };

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not get.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    match key.kind {
        "Deployment" => {
            let mut keys = vec![key.clone()];
            if let (true, Some(deployment)) = (owner::is_new_owner(commit), &commit.after) {
                let orphans = owner::orphans(state, deployment, "ReplicaSet", &deployment["spec"]["selector"]);
                keys.extend(orphans.into_iter().filter_map(owner::key_of));
            }
            keys
        }
        "ReplicaSet" => {
            let mut keys = controllers_of(commit, "Deployment");
            if owner::concerns_orphan(commit) {
                keys.push(key.clone());
            }
            keys
        }
        // With Recreate the last old pod is waited for.
        "Pod" if commit.after.as_ref().is_none_or(|pod| is_finished(pod)) => {
            let sets = controllers_of(commit, "ReplicaSet");
            let owner = |set: &Key| owner::owner_key(owner::controller_of(state.at(set)?)?, &set.namespace);
            sets.iter().filter_map(owner).filter(|key| key.kind == "Deployment").collect()
        }
        _ => Vec::new(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(set) if key.kind == "ReplicaSet" => Turn::of(adopt(state, set)),
        Some(deployment) => sync(state, deployment),
    }
}

fn adopt(state: &State, set: &Value) -> Vec<Write> {
    if !owner::is_orphan(set) {
        return Vec::new();
    }
    let mut all = state.list("Deployment", namespace(set)).map(|(_, deployment)| deployment);
    let labels = &set["metadata"]["labels"];
    let taker = all.find(|one| !is_going(one) && selector::matches(&one["spec"]["selector"], labels));
    taker.map(|deployment| Write::Update(owner::adopted(set, deployment))).into_iter().collect()
}

/// A Deployment and its ReplicaSets, oldest first.
struct Look<'a> {
    state: &'a State,
    deployment: &'a Value,
    limits: Limits,
    /// The one with the template as it is now.
    new: Option<&'a Value>,
    old: Vec<&'a Value>,
}

fn sync(state: &State, deployment: &Value) -> Turn {
    let selector = &deployment["spec"]["selector"];
    let mut sets: Vec<&Value> = controlled_by(state, deployment, "ReplicaSet").collect();
    let mut writes = Vec::new();
    if !is_going(deployment) {
        writes.extend(releases(&sets, deployment, selector));
    }
    sets.retain(|set| selector::matches(selector, &set["metadata"]["labels"]));
    sets.sort_by_key(|set| (born(set), name(set)));
    let template = &deployment["spec"]["template"];
    let at = sets.iter().position(|set| is_same(&without_hash(&set["spec"]["template"]), template));
    let new = at.map(|at| sets.remove(at));
    let look = Look { state, deployment, limits: Limits::of(deployment), new, old: sets };

    if is_going(deployment) {
        let status = look.status(false);
        writes.extend(with_status(deployment, status).map(Write::Status));
        return Turn::of(writes);
    }
    if new.is_none() {
        let orphans = owner::orphans(state, deployment, "ReplicaSet", selector);
        if !orphans.is_empty() {
            writes.extend(orphans.into_iter().map(|set| Write::Update(owner::adopted(set, deployment))));
            return Turn::of(writes);
        }
    }
    look.act(writes)
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(HASH);
    }
    template
}

impl<'a> Look<'a> {
    fn act(&self, mut writes: Vec<Write>) -> Turn {
        if let Some(status) = self.pause_changed() {
            writes.push(Write::Status(status));
            return Turn::of(writes);
        }
        if self.deployment["spec"]["paused"] == true || self.is_scaling() {
            writes.extend(self.revisions());
            writes.extend(self.scale());
            let status = self.status(false);
            writes.extend(with_status(self.deployment, status).map(Write::Status));
            return Turn::of(writes);
        }
        if self.deployment["spec"]["strategy"]["type"] == "Recreate" {
            self.recreate(&mut writes);
        } else {
            self.roll(&mut writes);
        }
        let status = self.status(true);
        let is_complete = self.is_complete(&status);
        let again_at = self.deadline(&status);
        writes.extend(with_status(self.deployment, status).map(Write::Status));
        if is_complete {
            writes.extend(self.history());
        }
        Turn { writes, again_at }
    }

    fn all(&self) -> impl Iterator<Item = &'a Value> {
        self.old.iter().copied().chain(self.new)
    }

    /// Somebody changed the number of replicas, not the template.
    fn is_scaling(&self) -> bool {
        let desired = self.limits.replicas.to_string();
        self.all()
            .filter(|set| replicas(set) > 0)
            .any(|set| set["metadata"]["annotations"][DESIRED].as_str().is_some_and(|annotation| annotation != desired))
    }

    fn recreate(&self, writes: &mut Vec<Write>) {
        writes.extend(self.revisions());
        let scaled: Vec<Write> = self.old.iter().flat_map(|set| self.resize(set, 0)).collect();
        if !scaled.is_empty() {
            writes.extend(scaled);
            return;
        }
        let pods = self.old.iter().flat_map(|set| controlled_by(self.state, set, "Pod"));
        if pods.into_iter().any(|pod| !is_finished(pod)) {
            return;
        }
        match self.new {
            None => self.make(writes),
            Some(new) => writes.extend(self.resize(new, self.limits.replicas)),
        }
    }

    fn roll(&self, writes: &mut Vec<Write>) {
        let Some(new) = self.new else { return self.make(writes) };
        writes.extend(self.revisions());
        let wanted = rollout::new_size(&self.limits, new, &self.old);
        let scaled = self.resize(new, wanted);
        if !scaled.is_empty() {
            writes.extend(scaled);
            return;
        }
        let shrunk = rollout::old_sizes(&self.limits, new, &self.old);
        writes.extend(shrunk.into_iter().flat_map(|(set, size)| self.resize(set, size)));
    }

    /// So many replicas in proportion, when the number changed in the middle of a rollout or of a pause.
    fn scale(&self) -> Vec<Write> {
        let sizes = rollout::scaled(&self.limits, self.deployment, self.new, &self.old);
        sizes.into_iter().flat_map(|(set, size)| self.rescale(set, size)).collect()
    }

    /// Gives a ReplicaSet another size.
    fn resize(&self, set: &Value, size: i64) -> Vec<Write> {
        if replicas(set) == size { Vec::new() } else { self.rescale(set, size) }
    }

    /// The same, or only notes on it what the Deployment wants.
    fn rescale(&self, set: &Value, size: i64) -> Vec<Write> {
        let mut changed = set.clone();
        self.note_sizes(&mut changed);
        changed["spec"]["replicas"] = size.into();
        if changed == *set {
            return Vec::new();
        }
        let direction = if size > replicas(set) { "up" } else { "down" };
        let mut writes = Vec::new();
        if replicas(set) != size {
            let message = format!("Scaled {direction} replica set {} to {size}", name(set));
            writes.extend(say(self.state, self.deployment, false, "ScalingReplicaSet", message));
        }
        writes.push(Write::Update(changed));
        writes
    }

    fn note_sizes(&self, set: &mut Value) {
        set["metadata"]["annotations"][DESIRED] = self.limits.replicas.to_string().into();
        set["metadata"]["annotations"][MAX] = (self.limits.replicas + self.limits.surge).to_string().into();
    }

    /// The ReplicaSet of the template as it is now.
    fn make(&self, writes: &mut Vec<Write>) {
        let deployment = self.deployment;
        let template = &deployment["spec"]["template"];
        let collisions = deployment["status"]["collisionCount"].as_i64().unwrap_or_default();
        let hash = hash(template, collisions);
        let full = format!("{}-{hash}", name(deployment));
        if self.state.get("ReplicaSet", namespace(deployment), &full).is_some() {
            // Somebody else's: the next hash is another.
            let mut changed = deployment.clone();
            changed["status"]["collisionCount"] = (collisions + 1).into();
            writes.push(Write::Status(changed));
            return;
        }
        let mut template = template.clone();
        template["metadata"]["labels"][HASH] = hash.clone().into();
        let mut selector = deployment["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = hash.into();
        let mut annotations = self.inherited();
        annotations.insert(REVISION.into(), self.next_revision().to_string().into());
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": full, "namespace": namespace(deployment), "labels": template["metadata"]["labels"],
                "annotations": annotations, "ownerReferences": [controller_reference(deployment)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        });
        if let Some(seconds) = deployment["spec"]["minReadySeconds"].as_i64().filter(|seconds| *seconds > 0) {
            set["spec"]["minReadySeconds"] = seconds.into();
        }
        self.note_sizes(&mut set);
        let size = rollout::new_size(&self.limits, &set, &self.old);
        set["spec"]["replicas"] = size.into();
        writes.push(Write::Create(set));
    }

    /// The annotations that ReplicaSets get from the Deployment.
    fn inherited(&self) -> Map<String, Value> {
        let all = self.deployment["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        all.into_iter().filter(|(key, _)| !OWN.contains(&&key[..])).collect()
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| revision_of(set)).max().unwrap_or_default() + 1
    }

    /// Gives the new ReplicaSet the newest revision, and says it on the Deployment.
    fn revisions(&self) -> Vec<Write> {
        let Some(new) = self.new else { return Vec::new() };
        let mut changed = new.clone();
        for (key, value) in self.inherited() {
            changed["metadata"]["annotations"][key] = value;
        }
        let (now, next) = (revision_of(new), self.next_revision());
        if now < next {
            if now > 0 {
                let history = text(&new["metadata"]["annotations"][REVISION_HISTORY]);
                let history = if history.is_empty() { now.to_string() } else { format!("{history},{now}") };
                changed["metadata"]["annotations"][REVISION_HISTORY] = history.into();
            }
            changed["metadata"]["annotations"][REVISION] = next.to_string().into();
        }
        match self.deployment["spec"]["minReadySeconds"].as_i64().filter(|seconds| *seconds > 0) {
            Some(seconds) => changed["spec"]["minReadySeconds"] = seconds.into(),
            None => {
                changed["spec"].as_object_mut().and_then(|spec| spec.shift_remove("minReadySeconds"));
            }
        }
        let mut writes = Vec::new();
        if changed != *new {
            writes.push(Write::Update(changed));
            return writes;
        }
        if let Some(said) = self.revision_said() {
            let size = replicas(new);
            if size > 0 && is_new(self.state, new) {
                let message = format!("Scaled up replica set {} to {size}", name(new));
                writes.extend(say(self.state, self.deployment, false, "ScalingReplicaSet", message));
            }
            writes.push(Write::Status(said));
        }
        writes
    }

    /// Deletes old ReplicaSets without pods, beyond the limit.
    fn history(&self) -> Vec<Write> {
        let Some(limit) = self.deployment["spec"]["revisionHistoryLimit"].as_u64() else { return Vec::new() };
        let old: Vec<&&Value> = self.old.iter().filter(|set| !is_going(set)).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        let is_empty = |set: &&&Value| {
            let seen = set["status"]["observedGeneration"].as_i64().unwrap_or_default();
            replicas(set) == 0
                && set["status"]["replicas"].as_i64().unwrap_or_default() == 0
                && set["metadata"]["generation"].as_i64().unwrap_or_default() <= seen
        };
        let surplus = old.into_iter().take(surplus).filter(is_empty);
        surplus.map(|set| Write::delete(Key::new("ReplicaSet", namespace(set), name(set)), set)).collect()
    }
}

fn revision_of(set: &Value) -> i64 {
    text(&set["metadata"]["annotations"][REVISION]).parse().unwrap_or_default()
}
