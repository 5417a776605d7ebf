//! StatefulSets: pods with a name, a number and claims of their own.
//!
//! Called by the loop for the set and for pods that belong to nobody. What must stay true: a claim is made before its
//! pod and never deleted; a claim that is there is used, whoever made it; while one is going, its pod waits; with
//! OrderedReady one pod at a time is made, deleted or replaced.

use super::events::{is_new, say};
use super::owner::{self, controlled_by, controllers_of, is_going, name, namespace};
use super::pod::{self, count, is_ready, phase, with_status};
use super::revisions::{self, Revisions};
use super::selector;
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, list_of, text};
use serde_json::{Map, json};

pub static STATEFUL_SET: Controller = Controller { name: "statefulset-controller", wakes, act };

/// The label with the name of the revision.
const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    match key.kind {
        "StatefulSet" => {
            let mut keys = vec![key.clone()];
            if let (true, Some(set)) = (owner::is_new_owner(commit), &commit.after) {
                let orphans = owner::orphans(state, set, "Pod", &set["spec"]["selector"]);
                keys.extend(orphans.into_iter().filter_map(owner::key_of));
            }
            keys
        }
        "ControllerRevision" => controllers_of(commit, "StatefulSet"),
        "Pod" => {
            let mut keys = controllers_of(commit, "StatefulSet");
            if owner::concerns_orphan(commit) {
                keys.push(key.clone());
            }
            if commit.after.is_none() {
                keys.extend(sets_of(state, key));
            }
            keys.dedup();
            keys
        }
        "PersistentVolumeClaim" if commit.after.is_none() => sets_of(state, key),
        _ => Vec::new(),
    }
}

/// The sets that could want an object of this name: `data-db-0` may be of `db` and of `data-db`.
fn sets_of(state: &State, key: &Key) -> Vec<Key> {
    let Some((base, number)) = key.name.rsplit_once('-') else { return Vec::new() };
    if number.parse::<usize>().is_err() {
        return Vec::new();
    }
    let ends = std::iter::once(0).chain(base.match_indices('-').map(|(at, _)| at + 1));
    let keys = ends.map(|at| Key::new("StatefulSet", &key.namespace[..], &base[at..]));
    keys.filter(|key| state.at(key).is_some()).collect()
}

fn act(state: &State, key: &Key) -> Turn {
    match state.at(key) {
        None => Turn::rest(),
        Some(pod) if key.kind == "Pod" => Turn::of(adopt(state, pod)),
        Some(set) => Turn::of(sync(state, set)),
    }
}

/// The number in a pod's name, if the pod could be one of this set.
fn ordinal(set: &Value, pod: &Value) -> Option<usize> {
    name(pod).strip_prefix(name(set))?.strip_prefix('-')?.parse().ok()
}

fn takes(set: &Value, pod: &Value) -> bool {
    ordinal(set, pod).is_some() && selector::matches(&set["spec"]["selector"], &pod["metadata"]["labels"])
}

fn adopt(state: &State, pod: &Value) -> Vec<Write> {
    if !owner::is_orphan(pod) {
        return Vec::new();
    }
    let mut sets = state.list("StatefulSet", namespace(pod)).map(|(_, set)| set);
    let taker = sets.find(|set| !is_going(set) && takes(set, pod));
    taker.map(|set| Write::Update(owner::adopted(pod, set))).into_iter().collect()
}

/// A claim is going, so that its pod cannot be made: what is due all the same.
struct Blocked(Vec<Write>);

/// All that one look at a set needs.
struct Set<'a> {
    state: &'a State,
    set: &'a Value,
    replicas: usize,
    /// One at a time.
    is_ordered: bool,
    /// Names and templates of the two revisions.
    current: (String, Value),
    update: (String, Value),
    /// By number; only the pods of this set.
    pods: Vec<(usize, &'a Value)>,
}

fn sync(state: &State, set: &Value) -> Vec<Write> {
    let owned: Vec<&Value> = controlled_by(state, set, "Pod").collect();
    let mut writes = Vec::new();
    if !is_going(set) {
        let strangers = owned.iter().filter(|pod| !takes(set, pod));
        let me = owner::uid(set);
        writes.extend(strangers.map(|pod| Write::Update(owner::with_owners(pod, |one| one["uid"] != me))));
    }
    let mut pods: Vec<(usize, &Value)> =
        owned.into_iter().filter(|pod| takes(set, pod)).filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
    pods.sort_by_key(|(number, _)| *number);

    let collisions = set["status"]["collisionCount"].as_i64().unwrap_or_default();
    let (update, older) = match revisions::of(state, set, "controller.kubernetes.io/hash", collisions) {
        Revisions::Due(_) if is_going(set) => return writes,
        Revisions::Due(write) => {
            writes.push(*write);
            return writes;
        }
        Revisions::Known { update, older } => (update, older),
    };
    let current = older.iter().find(|revision| revision["metadata"]["name"] == set["status"]["currentRevision"]);
    let pair = |revision: &Value| (name(revision).to_owned(), revision["data"]["spec"]["template"].clone());
    let look = Set {
        state,
        set,
        replicas: usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or_default(),
        is_ordered: set["spec"]["podManagementPolicy"] != "Parallel",
        current: pair(current.unwrap_or(&update)),
        update: pair(&update),
        pods,
    };
    writes.extend(look.said());
    if !is_going(set) {
        match look.pods_due() {
            Ok(due) => writes.extend(due),
            Err(Blocked(due)) => {
                // What cannot be made ends the look: nothing is counted either.
                writes.extend(due);
                return writes;
            }
        }
    }
    writes.extend(with_status(set, look.status()).map(Write::Status));
    let limit = set["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
    let is_used = |revision: &Value| {
        let named = name(revision);
        named == look.current.0 || look.pods.iter().any(|(_, pod)| revision_of(pod) == named)
    };
    writes.extend(revisions::history(&older, limit, is_used));
    writes
}

fn revision_of(pod: &Value) -> &str {
    text(&pod["metadata"]["labels"][REVISION])
}

fn is_running_and_ready(pod: &Value) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

fn is_healthy(pod: &Value) -> bool {
    is_running_and_ready(pod) && !is_going(pod)
}

impl Set<'_> {
    /// What was made just now.
    fn said(&self) -> Vec<Write> {
        let set = name(self.set);
        let mut writes = Vec::new();
        let is_made_here = |object: &Value| {
            is_new(self.state, object) && pod::born(object) >= pod::born(self.set) && !is_going(object)
        };
        for (_, pod) in self.pods.iter().filter(|(_, pod)| is_made_here(pod)) {
            let named = name(pod);
            let message = format!("create Pod {named} in StatefulSet {set} successful");
            writes.extend(say(self.state, self.set, false, "SuccessfulCreate", message));
        }
        writes
    }

    fn pod_at(&self, number: usize) -> Option<&Value> {
        self.pods.iter().find(|(at, _)| *at == number).map(|(_, pod)| *pod)
    }

    fn pods_due(&self) -> Result<Vec<Write>, Blocked> {
        let mut writes = Vec::new();
        for number in 0..self.replicas {
            match self.pod_at(number) {
                None => match self.make(number) {
                    Ok(due) => writes.extend(due),
                    Err(Blocked(due)) => {
                        writes.extend(due);
                        return Err(Blocked(writes));
                    }
                },
                Some(pod) if phase(pod) == "Failed" && !is_going(pod) => writes.extend(self.replace_failed(pod)),
                Some(pod) if is_healthy(pod) || !self.is_ordered => {
                    writes.extend(self.identity(pod));
                    continue;
                }
                // It is going, or not ready yet.
                Some(pod) => writes.extend(self.identity(pod)),
            }
            if self.is_ordered {
                return Ok(writes);
            }
        }
        if self.scale_down(&mut writes) {
            return Ok(writes);
        }
        writes.extend(self.roll());
        Ok(writes)
    }

    /// The label with the name, which an adopted pod may lack.
    fn identity(&self, pod: &Value) -> Option<Write> {
        if is_going(pod) || pod["metadata"]["labels"][POD_NAME] == pod["metadata"]["name"] {
            return None;
        }
        let mut pod = pod.clone();
        pod["metadata"]["labels"][POD_NAME] = pod["metadata"]["name"].clone();
        Some(Write::Update(pod))
    }

    /// The claims, then the pod; nothing while a pod of this name is in the way.
    fn make(&self, number: usize) -> Result<Vec<Write>, Blocked> {
        let named = format!("{}-{number}", name(self.set));
        if let Some(other) = self.state.get("Pod", namespace(self.set), &named) {
            let can_adopt = owner::is_orphan(other) && takes(self.set, other);
            return Ok(can_adopt.then(|| Write::Update(owner::adopted(other, self.set))).into_iter().collect());
        }
        let mut writes = Vec::new();
        let mut going = Vec::new();
        for template in list_of(&self.set["spec"]["volumeClaimTemplates"]) {
            let claim = claim(self.set, template, number);
            match self.state.get("PersistentVolumeClaim", namespace(self.set), name(&claim)) {
                Some(there) if is_going(there) => going.push(format!("pvc {} is being deleted", name(there))),
                Some(there) => writes.extend(self.said_of_claim(there, &named)),
                None => writes.push(Write::Create(claim)),
            }
        }
        let why = match &going[..] {
            [] => {
                writes.push(Write::Create(self.pod(number)));
                return Ok(writes);
            }
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let message = format!("create Pod {named} in StatefulSet {} failed error: {why}", name(self.set));
        writes.extend(say(self.state, self.set, true, "FailedCreate", message));
        Err(Blocked(writes))
    }

    fn said_of_claim(&self, claim: &Value, pod: &str) -> Vec<Write> {
        if !is_new(self.state, claim) || pod::born(claim) < pod::born(self.set) {
            return Vec::new();
        }
        let message = format!("create Claim {} Pod {pod} in StatefulSet {} success", name(claim), name(self.set));
        say(self.state, self.set, false, "SuccessfulCreate", message).collect()
    }

    fn pod(&self, number: usize) -> Value {
        let set = self.set;
        let named = format!("{}-{number}", name(set));
        let (revision, template) = self.revision_for(number);
        let mut pod = pod::from_template(set, template);
        let mut meta = Map::new();
        meta.insert("name".into(), named.clone().into());
        meta.extend(pod["metadata"].as_object().cloned().unwrap_or_default());
        pod["metadata"] = meta.into();
        pod["metadata"]["labels"][REVISION] = revision.clone().into();
        pod["metadata"]["labels"][POD_NAME] = named.clone().into();
        pod["spec"]["hostname"] = named.into();
        pod["spec"]["subdomain"] = set["spec"]["serviceName"].clone();
        let templates = list_of(&set["spec"]["volumeClaimTemplates"]);
        let mut volumes: Vec<Value> = templates
            .iter()
            .map(|one| json!({"name": name(one), "persistentVolumeClaim": {"claimName": claim_name(set, one, number)}}))
            .collect();
        let others = list_of(&pod["spec"]["volumes"]).iter();
        volumes.extend(others.filter(|other| !templates.iter().any(|one| name(one) == text(&other["name"]))).cloned());
        if !volumes.is_empty() {
            pod["spec"]["volumes"] = volumes.into();
        }
        pod
    }

    /// Pods below the partition stay as they were.
    fn revision_for(&self, number: usize) -> (&String, &Value) {
        let strategy = &self.set["spec"]["updateStrategy"];
        let is_old = strategy["type"] == "RollingUpdate"
            && match strategy["rollingUpdate"]["partition"].as_u64() {
                Some(partition) => (number as u64) < partition,
                None if strategy["rollingUpdate"].is_null() => {
                    (number as u64) < self.set["status"]["currentReplicas"].as_u64().unwrap_or_default()
                }
                None => false,
            };
        let (revision, template) = if is_old { &self.current } else { &self.update };
        (revision, template)
    }

    fn replace_failed(&self, pod: &Value) -> Vec<Write> {
        let (ns, set) = (namespace(pod), name(self.set));
        let message = format!("StatefulSet {ns}/{set} is recreating failed Pod {}", name(pod));
        let mut writes: Vec<Write> = say(self.state, self.set, true, "RecreatingFailedPod", message).collect();
        writes.extend(self.delete(pod));
        writes
    }

    fn delete(&self, pod: &Value) -> Vec<Write> {
        let message = format!("delete Pod {} in StatefulSet {} successful", name(pod), name(self.set));
        let mut writes: Vec<Write> = say(self.state, self.set, false, "SuccessfulDelete", message).collect();
        writes.push(pod::delete(pod));
        writes
    }

    /// The pods that are too many, highest first. True if the rest has to wait.
    fn scale_down(&self, writes: &mut Vec<Write>) -> bool {
        let condemned = self.pods.iter().filter(|(number, _)| *number >= self.replicas);
        // The lowest sick pod may go even if it is not ready: nobody waits for it.
        let first_sick = self.pods.iter().find(|(_, pod)| !is_healthy(pod)).map(|(number, _)| *number);
        for (number, pod) in condemned.rev() {
            if is_going(pod) {
                if self.is_ordered {
                    return true;
                }
                continue;
            }
            if self.is_ordered && !is_running_and_ready(pod) && first_sick != Some(*number) {
                return true;
            }
            writes.extend(self.delete(pod));
            if self.is_ordered {
                return true;
            }
        }
        false
    }

    /// The highest pod of an old revision, once all above it are well.
    fn roll(&self) -> Vec<Write> {
        let strategy = &self.set["spec"]["updateStrategy"];
        if strategy["type"] == "OnDelete" {
            return Vec::new();
        }
        let partition = strategy["rollingUpdate"]["partition"].as_u64().unwrap_or_default();
        let partition = usize::try_from(partition).unwrap_or(usize::MAX);
        for number in (partition..self.replicas).rev() {
            match self.pod_at(number) {
                Some(pod) if revision_of(pod) != self.update.0 && !is_going(pod) => return self.delete(pod),
                Some(pod) if is_healthy(pod) => {}
                _ => return Vec::new(),
            }
        }
        Vec::new()
    }

    fn status(&self) -> Value {
        let set = self.set;
        let number = |fits: &dyn Fn(&Value) -> bool| self.pods.iter().filter(|(_, pod)| fits(pod)).count() as i64;
        let is_of = |revision: &str, pod: &Value| !is_going(pod) && revision_of(pod) == revision;
        let ready = number(&is_running_and_ready);
        let updated = number(&|pod| is_of(&self.update.0, pod));
        let (mut current, mut current_revision) = (number(&|pod| is_of(&self.current.0, pod)), &self.current.0);
        let total = self.pods.len() as i64;
        let is_rolling = set["spec"]["updateStrategy"]["type"] == "RollingUpdate";
        if is_rolling && updated == total && ready == total {
            (current, current_revision) = (updated, &self.update.0);
        }
        let mut status = json!({});
        count(&mut status, "observedGeneration", set["metadata"]["generation"].as_i64().unwrap_or_default());
        status["replicas"] = total.into();
        count(&mut status, "readyReplicas", ready);
        count(&mut status, "currentReplicas", current);
        count(&mut status, "updatedReplicas", updated);
        status["currentRevision"] = current_revision.clone().into();
        status["updateRevision"] = self.update.0.clone().into();
        revisions::collision_count(set, &mut status);
        status
    }
}

fn claim_name(set: &Value, template: &Value, number: usize) -> String {
    format!("{}-{}-{number}", name(template), name(set))
}

/// A claim as its template says it, with the labels by which the set selects. It has no owner: it outlives the set.
fn claim(set: &Value, template: &Value, number: usize) -> Value {
    let mut meta = json!({"name": claim_name(set, template, number), "namespace": namespace(set)});
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.extend(set["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default());
    if !labels.is_empty() {
        meta["labels"] = labels.into();
    }
    for field in ["annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            meta[field] = template["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn the_sets_that_could_want_a_name() {
        let mut state = State::new(1, Timestamp::UNIX_EPOCH);
        for name in ["db", "my-db"] {
            state.put(Key::new("StatefulSet", "shop", name), json!({}), "test");
        }
        let cases = [
            ("data-db-0", vec!["db"]),
            ("data-my-db-12", vec!["my-db", "db"]),
            ("db-0", vec!["db"]),
            ("data-db", vec![]),
            ("db", vec![]),
            ("data-web-0", vec![]),
        ];
        for (name, expected) in cases {
            let keys = sets_of(&state, &Key::new("PersistentVolumeClaim", "shop", name));
            assert_eq!(keys.iter().map(|key| &key.name[..]).collect::<Vec<_>>(), expected, "{name}");
        }
    }
}
