//! A stage for tests of controllers: applies turns to a state until nothing is due.
//!
//! Not `handle` and not the loop: no rules, no admission. It keeps what controllers rely on: versions are checked,
//! status and the rest are written apart, finalizers hold what is deleted, an event is said once.

use super::{Controller, Turn, Write};
use crate::lab::{
    kind,
    store::{Key, State, list_of, text},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub struct Stage {
    pub state: State,
    pub controllers: Vec<&'static Controller>,
    /// `Warning ClaimLost …`, sorted.
    pub events: BTreeSet<String>,
    pub disks: BTreeSet<String>,
    looked: u64,
}

impl Stage {
    pub fn new(controllers: &[&'static Controller]) -> Stage {
        let state = State::new(1, Timestamp::UNIX_EPOCH);
        let (events, disks) = (BTreeSet::new(), BTreeSet::new());
        Stage { state, controllers: controllers.to_vec(), events, disks, looked: 0 }
    }

    pub fn key(object: &Value) -> Key {
        let metadata = &object["metadata"];
        Key::new(kind::kind(text(&object["kind"])).kind, text(&metadata["namespace"]), text(&metadata["name"]))
    }

    /// Writes an object as it is; what has no uid gets its name as one.
    pub fn put(&mut self, mut object: Value) {
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", text(&object["metadata"]["name"])).into();
        }
        self.state.put(Self::key(&object), object, "test");
    }

    /// Makes the first write that changes something, and the events right behind it.
    pub fn first(&mut self, turn: &Turn) -> bool {
        let mut changed = false;
        for write in &turn.writes {
            if changed && !matches!(write, Write::Event { .. }) {
                break;
            }
            changed |= self.apply(write);
        }
        changed
    }

    fn stored(&mut self, key: Key, before: &Value, mut after: Value) -> bool {
        if *before == after {
            return false;
        }
        let holds = !list_of(&after["metadata"]["finalizers"]).is_empty();
        if !after["metadata"]["deletionTimestamp"].is_null() && !holds {
            self.state.remove(&key, "test");
        } else {
            after["metadata"]["uid"] = before["metadata"]["uid"].clone();
            self.state.put(key, after, "test");
        }
        true
    }

    fn apply(&mut self, write: &Write) -> bool {
        match write {
            Write::Create(object) => {
                let is_new = self.state.at(&Self::key(object)).is_none();
                if is_new {
                    self.put(object.clone());
                }
                is_new
            }
            Write::Update(object) | Write::Status(object) => {
                let key = Self::key(object);
                let before = self.state.at(&key).expect("only what is there is updated").clone();
                let version = |one: &Value| one["metadata"]["resourceVersion"].clone();
                assert_eq!(version(&before), version(object), "{key}");
                let mut after = (*before).clone();
                if let Write::Status(_) = write {
                    after["status"] = object["status"].clone();
                } else {
                    after = object.clone();
                    after["status"] = before["status"].clone();
                }
                self.stored(key, &before, after)
            }
            Write::Delete { key, uid, .. } => {
                let Some(before) = self.state.at(key).filter(|one| one["metadata"]["uid"] == uid.as_str()).cloned()
                else {
                    return false;
                };
                let mut after = (*before).clone();
                after["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
                self.stored(key.clone(), &before, after)
            }
            Write::Bind { pod, node } => {
                let mut after = (**self.state.at(pod).expect("the pod is there")).clone();
                after["spec"]["nodeName"] = node.as_str().into();
                after["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
                self.state.put(pod.clone(), after, "test");
                true
            }
            Write::Event { about, is_warning, reason, message } => {
                let kind = if *is_warning { "Warning" } else { "Normal" };
                self.events.insert(format!("{} {kind} {reason} {message}", text(&about["metadata"]["name"])))
            }
            Write::MakeDisk { handle, .. } => self.disks.insert(handle.clone()),
            Write::RemoveDisk { handle } => self.disks.remove(handle),
            Write::Finalize(_) => panic!("no storage controller finalizes namespaces"),
        }
    }

    /// Looks at everything that was woken until nothing changes, at most so many writes.
    pub fn settle_for(&mut self, mut writes: usize) {
        let mut due: BTreeSet<(usize, Key)> = BTreeSet::new();
        loop {
            let commits: Vec<_> = self.state.since(self.looked).expect("the window is wide").cloned().collect();
            self.looked = self.state.revision();
            for commit in &commits {
                for (n, controller) in self.controllers.iter().enumerate() {
                    due.extend((controller.wakes)(&self.state, commit).into_iter().map(|key| (n, key)));
                }
            }
            let Some((n, key)) = due.pop_first() else { return };
            let turn = (self.controllers[n].act)(&self.state, &key);
            if self.first(&turn) {
                due.insert((n, key));
                writes -= 1;
                if writes == 0 {
                    return;
                }
            }
        }
    }

    /// Until nothing is due; then, asked about every object, nobody wants anything.
    pub fn settle(&mut self) {
        self.settle_for(1_000);
        for kind in ["PersistentVolume", "PersistentVolumeClaim", "Pod"] {
            let keys: Vec<Key> = self.state.list(kind, "").map(|(key, _)| key.clone()).collect();
            for key in keys {
                for controller in self.controllers.clone() {
                    let turn = (controller.act)(&self.state, &key);
                    assert!(!self.first(&turn), "{} wants {turn:?} of {key}", controller.name);
                }
            }
        }
    }

    pub fn get(&self, kind: &'static str, namespace: &str, name: &str) -> Value {
        self.state.get(kind, namespace, name).map_or(Value::Null, |one| (**one).clone())
    }
}
