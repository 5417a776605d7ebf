//! The controller of ResourceQuotas: keeps their status.
//!
//! Not what refuses (`admit::quota`), which counts for itself. Every change of an object in a namespace with quotas
//! wakes them.

use super::{Controller, Turn, Write};
use crate::lab::admit::quota::quota_status;
use crate::lab::store::{Commit, Key, State};

pub static QUOTA: Controller = Controller { name: "quota", wakes, act };

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let namespace = &commit.key.namespace;
    if namespace.is_empty() || commit.key.kind == "Event" {
        return Vec::new();
    }
    state.list("ResourceQuota", namespace).map(|(key, _)| key.clone()).collect()
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(quota) = state.at(key) else { return Turn::rest() };
    let status = quota_status(state, quota);
    if quota["status"] == status {
        return Turn::rest();
    }
    let mut changed = (**quota).clone();
    changed["status"] = status;
    Turn::of(vec![Write::Status(changed)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quota_says_what_is_used() {
        let mut state = State::new(1, jiff::Timestamp::UNIX_EPOCH);
        let key = Key::new("ResourceQuota", "shop", "q");
        let hard = json!({"persistentvolumeclaims": "2", "requests.storage": "3Gi"});
        let quota = json!({"metadata": {"name": "q", "namespace": "shop"}, "spec": {"hard": hard}});
        state.put(key.clone(), quota, "me");
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        state.put(Key::new("PersistentVolumeClaim", "shop", "data"), claim, "me");
        let [Write::Status(written)] = &act(&state, &key).writes[..] else { panic!("one write is due") };
        assert_eq!(
            written["status"],
            json!({"hard": hard, "used": {"persistentvolumeclaims": "1", "requests.storage": "1Gi"}})
        );
        state.put(key.clone(), written.clone(), "me");
        assert_eq!(act(&state, &key), Turn::rest());
        let commit = state.since(1).unwrap().next().unwrap().clone();
        assert_eq!(wakes(&state, &commit), [key]);
    }
}
