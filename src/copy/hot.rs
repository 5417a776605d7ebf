//! Whether a unit's volumes can be copied while their users run: pure.
//!
//! Not a refusal of the move: most of what speaks against a hot copy is gone when the users are. Asked by `find_obstacles`,
//! and for the node of a last copy. What must stay true: a unit is stopped without a hot copy only if the last copy can
//! be made somewhere.

use crate::cluster::pv::Pv;
use crate::cluster::pvc::Pvc;
use crate::cluster::units::{Unit, ours};
use crate::cluster::workload::claims_of_spec;
use crate::cluster::{text, workload};
use crate::words::Json;
use serde::Serialize;
use serde_json::json;

/// Why one claim cannot be copied while it is used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Obstacle {
    pub unit: String,
    /// `Kind:ns/name` of what stands in the way.
    pub object: String,
    pub reason: String,
    /// True if it is there when nobody uses the claim, too.
    pub stays: bool,
    pub hint: String,
}

/// Why no pod with these tolerations may start on a node; `None` if it may, as far as the node says.
pub fn closed(node: &Json, tolerations: &[Json]) -> Option<String> {
    let cordon = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    let bears = |taint: &Json| tolerations.iter().any(|one| tolerates(one, taint));
    if node["spec"]["unschedulable"] == true && !bears(&cordon) {
        return Some("it is cordoned".into());
    }
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut repelling = taints.filter(|taint| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute"));
    // A node that is away is waited for, not avoided: its own taints say no more than that.
    let is_passing =
        |taint: &Json| text(taint, "/key").starts_with("node.kubernetes.io/") && taint["key"] != cordon["key"];
    let taint = repelling.find(|taint| !is_passing(taint) && !bears(taint))?;
    Some(format!("it has the taint {}={}:{}", text(taint, "/key"), text(taint, "/value"), text(taint, "/effect")))
}

/// As the scheduler has it (k8s.io/api/core/v1: `Toleration`).
fn tolerates(toleration: &Json, taint: &Json) -> bool {
    let of = |field: &str| text(toleration, field);
    let effect = matches!(of("/effect"), "") || toleration["effect"] == taint["effect"];
    let key = matches!(of("/key"), "") || toleration["key"] == taint["key"];
    let value = of("/operator") == "Exists" || of("/value") == text(taint, "/value");
    effect && key && value && (!of("/key").is_empty() || of("/operator") == "Exists")
}

/// The tolerations that copy pods of a workload have.
pub fn tolerations(like: &Json, patch: &Json) -> Vec<Json> {
    let patched = patch.pointer("/spec/tolerations").filter(|list| list.is_array());
    patched.unwrap_or(&like["tolerations"]).as_array().cloned().unwrap_or_default()
}

/// What keeps the claims of a unit from being copied while they are used. `class`: that of the targets, if it is known.
pub fn obstacles(unit: &Unit, volumes: &[Json], nodes: &[Json], class: &Json, patch: &Json) -> Vec<Obstacle> {
    let waits_for_pods = text(class, "/volumeBindingMode") == "WaitForFirstConsumer";
    let mut found = Vec::new();
    let like =
        unit.workloads.first().and_then(workload::template).map_or(Json::Null, |template| template["spec"].clone());
    let tolerations = tolerations(&like, patch);
    for claim in unit.claims.iter().map(Pvc) {
        let is_over = |pod: &Json| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let uses = |pod: &&Json| {
            let on_node = !text(pod, "/spec/nodeName").is_empty();
            on_node && !is_over(pod) && !ours(pod) && claims_of_spec(&pod["spec"]).contains(&claim.name())
        };
        let users: Vec<&Json> = unit.pods.iter().filter(uses).collect();
        let Some(user) = users.first() else { continue };
        let add = |found: &mut Vec<Obstacle>, reason: String, stays: bool, hint: String| {
            let object = workload::reference(claim.0).to_string();
            found.push(Obstacle { unit: unit.key.clone(), object, reason, stays, hint });
        };
        if claim.modes().contains(&"ReadWriteOncePod") {
            let pod = text(user, "/metadata/name");
            add(
                &mut found,
                format!("its mode is ReadWriteOncePod and pod `{pod}` has it: no other pod can mount it"),
                false,
                String::new(),
            );
            continue;
        }
        if claim.modes().iter().any(|mode| mode.ends_with("Many")) {
            continue;
        }
        let names = users.iter().map(|pod| text(pod, "/spec/nodeName"));
        let on = names.filter_map(|name| nodes.iter().find(|node| text(node, "/metadata/name") == name));
        let Some((node, why)) = on.filter_map(|node| Some((node, closed(node, &tolerations)?))).next() else {
            continue;
        };
        let name = text(node, "/metadata/name");
        // Where the bytes are on the node itself, nobody gets at them from elsewhere.
        let volume = volumes.iter().map(Pv).find(|volume| volume.name() == claim.volume());
        let is_there_only = volume.is_some_and(|volume| is_of_one_node(volume, node));
        // Its target is to be where it is used, and is made there by a pod of ours.
        let stays = is_there_only || waits_for_pods;
        let hint = format!("let pods start there: kubectl uncordon {name}, or tolerate its taint with --pod-patch");
        add(&mut found, format!("it is used on node {name}, where no copy pod may start: {why}"), stays, hint);
    }
    found
}

/// True if the volume can be used on this node only.
fn is_of_one_node(volume: Pv<'_>, node: &Json) -> bool {
    let host = text(node, "/metadata/labels/kubernetes.io~1hostname");
    let name = text(node, "/metadata/name");
    let terms = volume.0.pointer("/spec/nodeAffinity/required/nodeSelectorTerms").and_then(Json::as_array);
    let is_here =
        |rule: &Json| rule["operator"] == "In" && (rule["values"] == json!([host]) || rule["values"] == json!([name]));
    let names_one = |term: &Json| {
        ["matchExpressions", "matchFields"].iter().any(|part| term[*part].as_array().into_iter().flatten().any(is_here))
    };
    volume.0.pointer("/spec/local").is_some()
        || terms.is_some_and(|terms| !terms.is_empty() && terms.iter().all(names_one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(change: Json) -> Json {
        let mut node = json!({"metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "node1"}}});
        node["spec"] = change;
        node
    }

    #[test]
    fn a_node_is_closed_to_pods_that_do_not_bear_it() {
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "value": "v", "effect": effect}]});
        for (spec, tolerations, is_closed) in [
            (json!({}), json!([]), false),
            (json!({"unschedulable": true}), json!([]), true),
            (json!({"unschedulable": true}), json!([{"operator": "Exists"}]), false),
            (
                json!({"unschedulable": true}),
                json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]),
                false,
            ),
            (taint("disk", "NoSchedule"), json!([]), true),
            (taint("disk", "NoExecute"), json!([]), true),
            (taint("disk", "PreferNoSchedule"), json!([]), false),
            (taint("disk", "NoSchedule"), json!([{"key": "disk", "operator": "Exists"}]), false),
            (taint("disk", "NoSchedule"), json!([{"key": "disk", "value": "v"}]), false),
            (taint("disk", "NoSchedule"), json!([{"key": "disk", "value": "w"}]), true),
            (taint("disk", "NoSchedule"), json!([{"key": "disk", "operator": "Exists", "effect": "NoExecute"}]), true),
            (taint("disk", "NoSchedule"), json!([{"key": "cpu", "operator": "Exists"}]), true),
            // It comes and goes with the node.
            (taint("node.kubernetes.io/not-ready", "NoExecute"), json!([]), false),
            (taint("node.kubernetes.io/unschedulable", "NoSchedule"), json!([]), true),
        ] {
            let tolerations = tolerations.as_array().unwrap();
            assert_eq!(closed(&node(spec.clone()), tolerations).is_some(), is_closed, "{spec} {tolerations:?}");
        }
    }

    #[test]
    fn what_keeps_a_claim_from_a_hot_copy() {
        let unit = |mode: &str, phase: &str, on: &str| {
            let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop", "uid": "c"},
                "spec": {"accessModes": [mode], "volumeName": "pv-1"}});
            let volumes = json!([{"persistentVolumeClaim": {"claimName": "data"}}]);
            let pod = json!({"kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop"}, "status": {"phase": phase},
                "spec": {"nodeName": on, "volumes": volumes}});
            let web = json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"template": {"spec": {"volumes": volumes}}}});
            serde_json::from_value::<Unit>(json!({"key": "shop/data", "namespace": "shop", "claims": [claim],
                "workloads": [web], "pods": [pod], "bare": [], "foreign": []}))
            .unwrap()
        };
        let pv = |spec: Json| json!({"metadata": {"name": "pv-1"}, "spec": spec});
        let one = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]}]}}});
        let zone = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]}}});
        let (open, cordoned) = (json!({}), json!({"unschedulable": true}));
        let bears = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let (once, pod) = ("ReadWriteOnce", "ReadWriteOncePod");
        for (mode, phase, on, volume, spec, patch, wanted) in [
            (once, "Running", "node1", &zone, &open, &Json::Null, ""),
            (pod, "Running", "node1", &zone, &open, &Json::Null, "ReadWriteOncePod"),
            (pod, "Pending", "", &zone, &open, &Json::Null, ""),
            (pod, "Succeeded", "node1", &zone, &open, &Json::Null, ""),
            (once, "Running", "node1", &zone, &cordoned, &Json::Null, "it is cordoned"),
            (once, "Running", "node1", &zone, &cordoned, &bears, ""),
            ("ReadWriteMany", "Running", "node1", &zone, &cordoned, &Json::Null, ""),
            (once, "Running", "node1", &one, &cordoned, &Json::Null, "it is cordoned, and stays"),
        ] {
            let found =
                obstacles(&unit(mode, phase, on), &[pv(volume.clone())], &[node(spec.clone())], &Json::Null, patch);
            let said = found.iter().map(|one| format!("{}{}", one.reason, if one.stays { ", and stays" } else { "" }));
            let said: Vec<String> = said.collect();
            assert_eq!(said.len(), usize::from(!wanted.is_empty()), "{mode} {phase} {spec}: {said:?}");
            assert!(said.iter().all(|said| said.contains(wanted)), "{wanted}: {said:?}");
            assert_eq!(said.iter().any(|said| said.ends_with("and stays")), wanted.ends_with("and stays"), "{said:?}");
        }
        // A class that makes its volumes where a pod starts would make it where none may.
        let waiting = json!({"volumeBindingMode": "WaitForFirstConsumer"});
        for (mode, stays) in [(once, true), (pod, false)] {
            let unit = unit(mode, "Running", "node1");
            let found = obstacles(&unit, &[pv(zone.clone())], &[node(cordoned.clone())], &waiting, &Json::Null);
            assert_eq!((found.len(), found[0].stays), (1, stays), "{mode}");
        }
    }
}
