//! What is in use stays: the finalizers of claims that pods name and of volumes that are bound.
//!
//! Not a refusal: a DELETE is taken, the object goes when nobody uses it any more. Both finalizers come back if
//! somebody takes them from an object that is not going.

use super::{Controller, Turn};
use crate::lab::store::{Commit, Key, State, claims_of, list_of, text};
use serde_json::{Value, json};

pub static CLAIM_PROTECTION: Controller =
    Controller { name: "pvc-protection", wakes: wakes_claims, act: protect_claim };
pub static VOLUME_PROTECTION: Controller =
    Controller { name: "pv-protection", wakes: wakes_volumes, act: protect_volume };

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

fn wakes_claims(_: &State, commit: &Commit) -> Vec<Key> {
    let claims = |pod: &Value| -> Vec<Key> {
        claims_of(&pod["spec"]).map(|one| Key::new("PersistentVolumeClaim", &commit.key.namespace, one)).collect()
    };
    match (commit.key.kind, &commit.before, &commit.after) {
        ("PersistentVolumeClaim", ..) => vec![commit.key.clone()],
        ("Pod", Some(before), None) => claims(before),
        _ => Vec::new(),
    }
}

fn wakes_volumes(_: &State, commit: &Commit) -> Vec<Key> {
    if commit.key.kind == "PersistentVolume" { vec![commit.key.clone()] } else { Vec::new() }
}

fn protect_claim(state: &State, key: &Key) -> Turn {
    let Some(claim) = state.at(key).filter(|_| key.kind == "PersistentVolumeClaim") else { return Turn::rest() };
    // A pod that has no node yet does not count: no kubelet starts it with a claim that is going. Any other does, in
    // whatever phase.
    let is_used =
        || state.pods_of_claim(&key.namespace, &key.name).any(|pod| !text(&pod["spec"]["nodeName"]).is_empty());
    protect(claim, OF_CLAIMS, is_used)
}

fn protect_volume(state: &State, key: &Key) -> Turn {
    let Some(volume) = state.at(key).filter(|_| key.kind == "PersistentVolume") else { return Turn::rest() };
    protect(volume, OF_VOLUMES, || volume["status"]["phase"] == "Bound")
}

fn protect(object: &Value, finalizer: &str, is_used: impl Fn() -> bool) -> Turn {
    let is_going = !object["metadata"]["deletionTimestamp"].is_null();
    let finalizers = list_of(&object["metadata"]["finalizers"]);
    let has = finalizers.iter().any(|one| one == finalizer);
    let mut after = object.clone();
    if is_going && has && !is_used() {
        let rest: Vec<&Value> = finalizers.iter().filter(|one| *one != finalizer).collect();
        after["metadata"]["finalizers"] = json!(rest);
    } else if !is_going && !has {
        let all: Vec<Value> = finalizers.iter().cloned().chain([finalizer.into()]).collect();
        after["metadata"]["finalizers"] = all.into();
    }
    let mut turn = Turn::rest();
    turn.update(object, after);
    turn
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn what_is_used_keeps_its_finalizer() {
        const GOING: &str = "2026-01-01T00:00:00Z";
        let pod = |node: &str| Some(json!({"node": node}));
        // going, has it, pod, has it afterwards
        let rows = [
            (false, false, None, true),
            (false, true, None, true),
            (true, true, None, false),
            (true, false, None, false),
            (true, true, pod("node1"), true),
            (true, true, pod(""), false),
        ];
        for (is_going, has, pod, expected) in rows {
            let mut state = State::new(1, Timestamp::UNIX_EPOCH);
            let key = Key::new("PersistentVolumeClaim", "shop", "data");
            let mut claim = json!({"metadata": {"name": "data", "namespace": "shop", "finalizers": []}});
            if is_going {
                claim["metadata"]["deletionTimestamp"] = GOING.into();
            }
            if has {
                claim["metadata"]["finalizers"] = json!([OF_CLAIMS]);
            }
            state.put(key.clone(), claim, "me");
            if let Some(pod) = &pod {
                let volumes = json!([{"persistentVolumeClaim": {"claimName": "data"}}]);
                let spec = json!({"nodeName": pod["node"], "volumes": volumes});
                let pod = json!({"metadata": {"name": "web"}, "spec": spec, "status": {"phase": "Succeeded"}});
                state.put(Key::new("Pod", "shop", "web"), pod, "me");
            }
            let turn = protect_claim(&state, &key);
            let after = match &turn.writes[..] {
                [] => has,
                [super::super::Write::Update(after)] => after["metadata"]["finalizers"] == json!([OF_CLAIMS]),
                other => panic!("{other:?}"),
            };
            assert_eq!(after, expected, "{is_going} {has} {pod:?}");
        }
    }

    #[test]
    fn a_bound_volume_stays() {
        for (phase, stays) in [("Bound", true), ("Released", false), ("Available", false), ("Failed", false)] {
            let mut state = State::new(1, Timestamp::UNIX_EPOCH);
            let key = Key::new("PersistentVolume", "", "a");
            let metadata =
                json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [OF_VOLUMES]});
            state.put(key.clone(), json!({"metadata": metadata, "status": {"phase": phase}}), "me");
            assert_eq!(protect_volume(&state, &key).writes.is_empty(), stays, "{phase}");
        }
    }
}
