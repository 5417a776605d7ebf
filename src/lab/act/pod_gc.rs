//! Pods that nobody else would remove: of nodes that are gone, and those that go before they ever had a node.
//!
//! Called by the loop for a Pod. What must stay true: a pod of a node that is there is its kubelet's.

use super::owner::{is_going, uid};
use super::pod::{born, is_finished, seconds};
use super::{Controller, Key, Propagation, State, Turn, Write};
use crate::lab::store::{Commit, text};

pub static POD_GC: Controller = Controller { name: "pod-garbage-collector", wakes, act };

/// How long a pod may name a node that is not there yet, in seconds.
const PATIENCE_S: i64 = 40;

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let key = &commit.key;
    match key.kind {
        "Node" if commit.after.is_none() => {
            let pods = state.list("Pod", "").filter(|(_, pod)| text(&pod["spec"]["nodeName"]) == key.name);
            pods.map(|(key, _)| key.clone()).collect()
        }
        "Pod" if commit.after.is_some() => vec![key.clone()],
        _ => Vec::new(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(pod) = state.at(key) else { return Turn::rest() };
    let node = text(&pod["spec"]["nodeName"]);
    let delete = || {
        let (key, uid) = (key.clone(), uid(pod).to_owned());
        Turn::of(vec![Write::Delete { key, uid, grace_s: Some(0), propagation: Propagation::Background }])
    };
    if node.is_empty() {
        return if is_going(pod) && !is_finished(pod) && !has_no_grace(pod) { delete() } else { Turn::rest() };
    }
    if state.get("Node", "", node).is_some() || (is_going(pod) && has_no_grace(pod)) {
        return Turn::rest();
    }
    match born(pod).checked_add(seconds(PATIENCE_S)) {
        Ok(at) if at > state.now() => Turn::wait_until(at),
        _ => delete(),
    }
}

/// It was told to go at once; only finalizers hold it.
fn has_no_grace(pod: &serde_json::Value) -> bool {
    pod["metadata"]["deletionGracePeriodSeconds"] == 0
}
