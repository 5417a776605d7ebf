//! A tiny cluster for the controllers' tests: it performs their writes on a State, and plays scheduler and kubelet.
//!
//! Not the API: it checks little, and what is wrong here panics. What must stay true: it performs one write at a time and
//! asks again, as the real loop does; when all is quiet, nobody wants anything any more.

use super::owner::{is_going, uid};
use super::pod::{is_finished, seconds, stamp};
use super::{Controller, Key, Propagation, State, Value, Write};
use crate::lab::kind::{self, Generation};
use crate::lab::store::{claims_of, list_of, text};
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The controllers of workloads. The drive itself schedules and runs; nothing here has storage.
static CONTROLLERS: &[&Controller] = &[
    &super::deployment::DEPLOYMENT,
    &super::replica_set::REPLICA_SET,
    &super::stateful_set::STATEFUL_SET,
    &super::daemon_set::DAEMON_SET,
    &super::job::JOB,
    &super::garbage::GARBAGE,
    &super::namespaces::NAMESPACES,
    &super::pod_gc::POD_GC,
    &super::node_lifecycle::NODE_LIFECYCLE,
];

pub struct Drive {
    pub state: State,
    /// `reason message`, each once.
    pub said: Vec<String>,
    /// Pods that are going stay.
    pub holds: bool,
    /// New pods do not become ready.
    pub is_slow: bool,
    /// The most pods there ever were, and the most that were not going.
    pub most_pods: usize,
    pub most_active: usize,
    /// How often a controller was asked.
    pub asked: usize,
    is_reversed: bool,
    seen: u64,
    queue: BTreeSet<(usize, Key)>,
    again: BTreeMap<(usize, Key), Timestamp>,
    heard: BTreeSet<String>,
}

impl Drive {
    /// Runs a story with the controllers in both orders.
    pub fn both(story: impl Fn(&mut Drive)) {
        for is_reversed in [false, true] {
            let mut drive = Drive::new(is_reversed);
            story(&mut drive);
        }
    }

    fn new(is_reversed: bool) -> Drive {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut drive = Drive {
            state: State::new(7, now),
            said: Vec::new(),
            holds: false,
            is_slow: false,
            most_pods: 0,
            most_active: 0,
            asked: 0,
            is_reversed,
            seen: 0,
            queue: BTreeSet::new(),
            again: BTreeMap::new(),
            heard: BTreeSet::new(),
        };
        for node in ["node1", "node2"] {
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            drive.make(json!({"kind": "Node", "metadata": {"name": node, "labels": {"host": node}}, "status": status}));
        }
        let spec = json!({"finalizers": ["kubernetes"]});
        drive.make(json!({"kind": "Namespace", "metadata": {"name": "shop"}, "spec": spec}));
        drive
    }

    pub fn make(&mut self, mut object: Value) -> Value {
        let kind = kind::kind(text(&object["kind"]));
        object["apiVersion"] = kind.api_version().into();
        if kind.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = "shop".into();
        }
        assert!(self.apply(Write::Create(object.clone())), "{object}");
        let commit = self.state.since(self.state.revision() - 1).unwrap().last().unwrap().clone();
        (**commit.after.as_ref().unwrap()).clone()
    }

    pub fn get(&self, kind: &'static str, name: &str) -> Value {
        self.find(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    pub fn find(&self, kind: &'static str, name: &str) -> Option<Value> {
        let namespace = if kind::kind(kind).namespaced { "shop" } else { "" };
        self.state.get(kind, namespace, name).map(|object| (**object).clone())
    }

    pub fn names(&self, kind: &'static str) -> Vec<String> {
        self.state.list(kind, "").map(|(key, _)| key.name.clone()).collect()
    }

    /// The only object of a kind.
    pub fn only(&self, kind: &'static str) -> Value {
        let names = self.names(kind);
        assert_eq!(names.len(), 1, "{names:?}");
        self.get(kind, &names[0])
    }

    pub fn update(&mut self, kind: &'static str, name: &str, change: impl Fn(&mut Value)) {
        let mut object = self.get(kind, name);
        change(&mut object);
        assert!(self.apply(Write::Update(object)));
    }

    pub fn status(&mut self, kind: &'static str, name: &str, status: Value) {
        let mut object = self.get(kind, name);
        object["status"] = status;
        assert!(self.apply(Write::Status(object)));
    }

    pub fn scale(&mut self, kind: &'static str, name: &str, replicas: u32) {
        self.update(kind, name, |object| object["spec"]["replicas"] = replicas.into());
    }

    pub fn delete(&mut self, kind: &'static str, name: &str, propagation: Propagation) {
        let object = self.get(kind, name);
        let key = super::owner::key_of(&object).unwrap();
        self.apply(Write::Delete { key, uid: uid(&object).to_owned(), grace_s: None, propagation });
    }

    /// Performs a write; whether it changed something.
    pub fn apply(&mut self, write: Write) -> bool {
        match write {
            Write::Create(object) => self.create(object),
            Write::Update(object) => self.replace(object, false),
            Write::Status(object) => self.replace(object, true),
            Write::Delete { key, uid, grace_s, propagation } => self.remove(&key, &uid, grace_s, propagation),
            Write::Finalize(object) => {
                let key = super::owner::key_of(&object).unwrap();
                assert_eq!(object["spec"]["finalizers"], json!([]));
                self.state.remove(&key, "test").is_some()
            }
            Write::Event { about, reason, message, .. } => {
                if self.heard.insert(format!("{} {reason} {message}", uid(&about))) {
                    self.said.push(format!("{reason} {message}"));
                }
                false
            }
            Write::Bind { .. } | Write::MakeDisk { .. } | Write::RemoveDisk { .. } => panic!("{write:?}"),
        }
    }

    /// Nothing can be made in a namespace that is going.
    fn is_refused(&self, write: &Write) -> bool {
        let Write::Create(object) = write else { return false };
        let namespace = self.state.get("Namespace", "", text(&object["metadata"]["namespace"]));
        namespace.is_some_and(|namespace| is_going(namespace))
    }

    fn create(&mut self, mut object: Value) -> bool {
        let kind = kind::kind(text(&object["kind"]));
        assert_eq!(text(&object["apiVersion"]), kind.api_version(), "{object}");
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            meta["name"] = format!("{}{}", text(&meta["generateName"]), self.state.suffix()).into();
        }
        let key = Key::new(kind.kind, text(&meta["namespace"]), text(&meta["name"]));
        if self.state.at(&key).is_some() {
            return false;
        }
        meta["uid"] = self.state.uid().into();
        meta["creationTimestamp"] = stamp(self.state.now());
        if kind.generation != Generation::None {
            meta["generation"] = 1.into();
        }
        match kind.kind {
            "Pod" => {
                object["status"] = json!({"phase": "Pending"});
                for claim in claims_of(&object["spec"]) {
                    let claim = self.state.get("PersistentVolumeClaim", &key.namespace, claim);
                    assert!(claim.is_some_and(|claim| !is_going(claim)), "{object}");
                }
            }
            "Node" => {}
            _ => object["status"] = json!({}),
        }
        self.state.put(key, object, "test");
        let pods: Vec<bool> = self.state.list("Pod", "").map(|(_, pod)| !is_going(pod)).collect();
        self.most_pods = self.most_pods.max(pods.len());
        self.most_active = self.most_active.max(pods.into_iter().filter(|is_active| *is_active).count());
        true
    }

    fn replace(&mut self, object: Value, is_status: bool) -> bool {
        let key = super::owner::key_of(&object).unwrap();
        let old = self.state.at(&key).unwrap_or_else(|| panic!("{key} is gone")).clone();
        assert_eq!(old["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"], "{object}");
        let mut new = object;
        if is_status {
            new["spec"] = old["spec"].clone();
        } else {
            new["status"] = old["status"].clone();
        }
        new.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        if new == *old {
            return false;
        }
        let annotations = |object: &Value| object["metadata"]["annotations"].clone();
        let is_new = match kind::kind(key.kind).generation {
            _ if is_status => false,
            Generation::None => false,
            Generation::Spec => new["spec"] != old["spec"],
            Generation::SpecAndAnnotations => new["spec"] != old["spec"] || annotations(&new) != annotations(&old),
        };
        if is_new {
            new["metadata"]["generation"] = (new["metadata"]["generation"].as_i64().unwrap() + 1).into();
        }
        let is_done = is_going(&new)
            && list_of(&new["metadata"]["finalizers"]).is_empty()
            && !["Pod", "Namespace"].contains(&key.kind);
        self.state.put(key.clone(), new, "test");
        if is_done {
            self.state.remove(&key, "test");
        }
        true
    }

    fn remove(&mut self, key: &Key, wanted: &str, grace_s: Option<u64>, propagation: Propagation) -> bool {
        let Some(old) = self.state.at(key).cloned() else { return false };
        let is_pod_at_once = key.kind == "Pod" && grace_s == Some(0);
        if uid(&old) != wanted || (is_going(&old) && !is_pod_at_once) {
            return false;
        }
        let mut new = (*old).clone();
        let mut finalizers = list_of(&new["metadata"]["finalizers"]).to_vec();
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => finalizers.push("foregroundDeletion".into()),
            Propagation::Orphan => finalizers.push("orphan".into()),
        }
        let has_grace =
            key.kind == "Pod" && !text(&new["spec"]["nodeName"]).is_empty() && !is_finished(&new) && !is_pod_at_once;
        if finalizers.is_empty() && !has_grace && key.kind != "Namespace" {
            return self.state.remove(key, "test").is_some();
        }
        new["metadata"]["finalizers"] = finalizers.into();
        new["metadata"]["deletionTimestamp"] = stamp(self.state.now());
        new["metadata"]["deletionGracePeriodSeconds"] = if has_grace { 30 } else { 0 }.into();
        self.state.put(key.clone(), new, "test");
        true
    }

    /// What scheduler and kubelet do for one pod; whether they did something.
    fn kubelet(&mut self) -> bool {
        let pods: Vec<(Key, std::sync::Arc<Value>)> =
            self.state.list("Pod", "").map(|(key, pod)| (key.clone(), pod.clone())).collect();
        for (key, pod) in pods {
            let mut new = (*pod).clone();
            let node = text(&pod["spec"]["nodeName"]);
            let end = text(&pod["metadata"]["annotations"]["test/end"]).to_owned();
            let is_there = node.is_empty() || self.state.get("Node", "", node).is_some();
            match text(&pod["status"]["phase"]) {
                _ if !is_there => continue,
                _ if is_going(&pod) && !self.holds && list_of(&pod["metadata"]["finalizers"]).is_empty() => {
                    self.state.remove(&key, "kubelet");
                    return true;
                }
                _ if is_going(&pod) => continue,
                "Pending" if node.is_empty() => {
                    let term = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                                /nodeSelectorTerms/0/matchFields/0/values/0";
                    new["spec"]["nodeName"] = pod.pointer(term).cloned().unwrap_or_else(|| "node1".into());
                }
                "Pending" if !self.is_slow => {
                    let ready =
                        json!({"type": "Ready", "status": "True", "lastTransitionTime": stamp(self.state.now())});
                    new["status"] = json!({"phase": "Running", "conditions": [ready]});
                }
                "Running" if !end.is_empty() => new["status"] = json!({"phase": end}),
                _ => continue,
            }
            self.state.put(key, new, "kubelet");
            return true;
        }
        false
    }

    /// Runs until nobody wants anything.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            self.wake();
            let next = if self.is_reversed { self.queue.pop_last() } else { self.queue.pop_first() };
            match next {
                Some(next) => self.ask(next),
                None if self.kubelet() => {}
                None => return self.check_rest(),
            }
        }
        panic!("no end: {:?}", self.state.since(self.state.revision() - 4).unwrap().collect::<Vec<_>>());
    }

    fn wake(&mut self) {
        let commits: Vec<_> = self.state.since(self.seen).unwrap().cloned().collect();
        self.seen = self.state.revision();
        for commit in commits {
            for (at, controller) in CONTROLLERS.iter().enumerate() {
                let keys = (controller.wakes)(&self.state, &commit);
                self.queue.extend(keys.into_iter().map(|key| (at, key)));
            }
        }
    }

    fn ask(&mut self, next: (usize, Key)) {
        self.asked += 1;
        let turn = (CONTROLLERS[next.0].act)(&self.state, &next.1);
        match turn.again_at {
            Some(at) => self.again.insert(next.clone(), at),
            None => self.again.remove(&next),
        };
        for write in turn.writes {
            if self.is_refused(&write) {
                return;
            }
            if self.apply(write) {
                self.queue.insert(next);
                return;
            }
        }
    }

    /// Every controller is asked about every object: a wake that was forgotten shows here.
    fn check_rest(&mut self) {
        let kinds = kind::KINDS.iter().map(|kind| kind.kind);
        let keys: Vec<Key> = kinds.flat_map(|kind| self.state.list(kind, "").map(|(key, _)| key.clone())).collect();
        for (controller, key) in CONTROLLERS.iter().flat_map(|one| keys.iter().map(move |key| (one, key))) {
            let has_part = match controller.name {
                "deployment-controller" => ["Deployment", "ReplicaSet"].contains(&key.kind),
                "replicaset-controller" => ["ReplicaSet", "Pod"].contains(&key.kind),
                "statefulset-controller" => ["StatefulSet", "Pod"].contains(&key.kind),
                "daemonset-controller" => ["DaemonSet", "Pod"].contains(&key.kind),
                "job-controller" => key.kind == "Job",
                "namespace-controller" => key.kind == "Namespace",
                "pod-garbage-collector" => key.kind == "Pod",
                "node-controller" => ["Node", "Pod"].contains(&key.kind),
                _ => true,
            };
            if !has_part {
                continue;
            }
            for write in (controller.act)(&self.state, key).writes {
                assert!(
                    self.is_refused(&write) || !self.apply(write.clone()),
                    "{} still wants of {key}: {write:?}",
                    controller.name
                );
            }
        }
    }

    /// Lets time pass, then runs until nobody wants anything.
    pub fn pass(&mut self, count: i64) {
        let now = self.state.now().checked_add(seconds(count)).unwrap();
        self.state.set_now(now);
        let due = self.again.iter().filter(|(_, at)| **at <= now).map(|(next, _)| next.clone());
        self.queue.extend(due.collect::<Vec<_>>());
        self.settle();
    }
}
