//! The controllers: what the cluster does by itself.
//!
//! Each is a pure function from the state and one object to the writes that are due now. It is asked again after every
//! write that it made, so it returns the writes in order, each right only if those before it are done, and nothing when
//! all is well. Not the loop that asks (`turn`), and no way around the API: every write goes through `handle` like a
//! user's. What must stay true: a controller looks at the state only, never at the system's clock; asking it twice
//! changes nothing; a write that changes nothing counts as done.

pub mod annotations;
pub mod attach;
pub mod binder;
pub mod daemon_set;
pub mod deployment;
#[cfg(test)]
mod drive;
pub mod drivers;
pub mod events;
pub mod expand;
pub mod garbage;
pub mod job;
pub mod namespaces;
pub mod node_lifecycle;
pub mod owner;
pub mod placement;
pub mod pod;
pub mod pod_gc;
pub mod protection;
pub mod provisioner;
pub mod quota;
#[cfg(test)]
mod rehearsal;
pub mod replica_set;
pub mod revisions;
pub mod scheduler;
pub mod selector;
pub mod stateful_set;
#[cfg(test)]
mod stories;
pub mod template;
pub mod tokens;

use super::store::{Commit, Key, State};
use jiff::Timestamp;
use serde_json::Value;

/// One controller.
pub struct Controller {
    /// As its events name it: `job-controller`; its user is `system:lab:job-controller`.
    pub name: &'static str,
    /// The objects to look at because of a commit. They need not exist.
    pub wakes: fn(&State, &Commit) -> Vec<Key>,
    /// What is due for one object, which may be gone.
    pub act: fn(&State, &Key) -> Turn,
}

/// What a controller wants now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// In order. The first that changes something is made, and the events right behind it; then the controller is
    /// asked again.
    pub writes: Vec<Write>,
    /// When to ask again although nothing changed.
    pub again_at: Option<Timestamp>,
}

/// One write of a controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// `AlreadyExists` counts as done; any other refusal ends the turn and it is tried again later.
    Create(Value),
    /// The whole object as it shall be, with the resourceVersion that was read: a conflict ends the turn.
    Update(Value),
    /// The same for its `/status`.
    Status(Value),
    /// Of this uid only. Gone counts as done; so does one that is going already, unless this makes its grace shorter.
    Delete { key: Key, uid: String, grace_s: Option<u64>, propagation: Propagation },
    /// The pod's `/binding`.
    Bind { pod: Key, node: String },
    /// `/finalize` of a namespace: the object as it shall be.
    Finalize(Value),
    /// An Event about this object, unless the same was said of the same uid before.
    Event { about: Value, is_warning: bool, reason: &'static str, message: String },
    /// Makes the directory behind a volume, with what is in that of another one. There already counts as done.
    MakeDisk { handle: String, bytes: u64, is_block: bool, from: Option<String> },
    /// Throws the directory behind a volume away. Gone counts as done.
    RemoveDisk { handle: String },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Turn {
    /// Nothing is due.
    pub fn rest() -> Turn {
        Turn::default()
    }

    pub fn of(writes: Vec<Write>) -> Turn {
        Turn { writes, again_at: None }
    }

    /// Nothing is due before this time.
    pub fn wait_until(at: Timestamp) -> Turn {
        Turn { writes: Vec::new(), again_at: Some(at) }
    }

    /// The object shall be so; due only if it is not.
    pub fn update(&mut self, before: &Value, after: Value) {
        if *before != after {
            self.writes.push(Write::Update(after));
        }
    }

    /// The object's status shall be so; due only if it is not.
    pub fn status(&mut self, before: &Value, after: Value) {
        if before["status"] != after["status"] {
            self.writes.push(Write::Status(after));
        }
    }

    /// Events come before the status that they tell of: afterwards nobody would know that they are due.
    pub fn event(&mut self, about: &Value, is_warning: bool, reason: &'static str, message: impl Into<String>) {
        self.writes.push(Write::event(about, is_warning, reason, message));
    }
}

impl Write {
    /// Deletes this very object, as garbage collection and workload controllers do.
    pub fn delete(key: Key, object: &Value) -> Write {
        let uid = super::store::text(&object["metadata"]["uid"]).to_owned();
        Write::Delete { key, uid, grace_s: None, propagation: Propagation::Background }
    }

    pub fn event(about: &Value, is_warning: bool, reason: &'static str, message: impl Into<String>) -> Write {
        Write::Event { about: about.clone(), is_warning, reason, message: message.into() }
    }
}

/// All controllers that are pure, in the order in which they are asked when no seed shuffles them. The kubelets are in
/// `runtime`: they have processes.
pub static CONTROLLERS: &[&Controller] = &[
    &tokens::TOKENS,
    &quota::QUOTA,
    &binder::BINDER,
    &provisioner::PROVISIONER,
    &expand::EXPAND,
    &protection::CLAIM_PROTECTION,
    &protection::VOLUME_PROTECTION,
    &scheduler::SCHEDULER,
    &attach::ATTACH,
    &deployment::DEPLOYMENT,
    &replica_set::REPLICA_SET,
    &stateful_set::STATEFUL_SET,
    &daemon_set::DAEMON_SET,
    &job::JOB,
    &garbage::GARBAGE,
    &namespaces::NAMESPACES,
    &pod_gc::POD_GC,
    &node_lifecycle::NODE_LIFECYCLE,
];
