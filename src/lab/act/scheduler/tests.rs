//! Tables: nodes, a pod and its claims; and where the pod goes, or what is said. The texts were seen on a real 1.20.2.

use super::super::binder::BINDER;
use super::super::rehearsal::Stage;
use super::*;

fn node(name: &str, change: impl Fn(&mut Value)) -> Value {
    let mut node = json!({
        "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut node);
    node
}

fn pod(name: &str, claims: &[&str]) -> Value {
    let volumes: Vec<Value> = claims.iter().map(|one| json!({"persistentVolumeClaim": {"claimName": one}})).collect();
    json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": {"volumes": volumes},
        "status": {"phase": "Pending"},
    })
}

fn claim(name: &str, class: &str) -> Value {
    json!({
        "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop", "annotations": {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    })
}

/// On one node only, if it is named.
fn volume(name: &str, class: &str, host: &str) -> Value {
    let mut volume = json!({
        "kind": "PersistentVolume", "metadata": {"name": name, "annotations": {}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Retain", "local": {"path": "/data"}},
        "status": {"phase": "Available"},
    });
    if !host.is_empty() {
        let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}});
    }
    volume
}

fn late_class() -> Value {
    json!({
        "kind": "StorageClass", "metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn stage(objects: impl IntoIterator<Item = Value>) -> Stage {
    let mut stage = Stage::new(&[&SCHEDULER, &BINDER]);
    objects.into_iter().for_each(|one| stage.put(one));
    stage.settle();
    stage
}

/// The node of the pod `web`, or why it has none.
fn outcome(stage: &Stage) -> String {
    let pod = stage.get("Pod", "shop", "web");
    let condition = list_of(&pod["status"]["conditions"]).iter().find(|one| one["type"] == "PodScheduled");
    let message = condition.map(|one| text(&one["message"])).unwrap_or_default();
    match text(&pod["spec"]["nodeName"]) {
        "" => {
            assert!(stage.events.contains(&format!("web Warning FailedScheduling {message}")), "{:?}", stage.events);
            message.to_owned()
        }
        node => {
            let said = format!("web Normal Scheduled Successfully assigned shop/web to {node}");
            assert!(stage.events.contains(&said), "{:?}", stage.events);
            node.to_owned()
        }
    }
}

#[test]
fn nodes_that_do_not_suit_are_named_by_their_reason() {
    type Change = fn(&mut Value);
    let same: Change = |_| {};
    let cordoned: Change = |node| node["spec"]["unschedulable"] = true.into();
    let tainted: Change = |node| {
        node["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]);
    };
    let silent: Change = |node| node["status"]["conditions"][0]["status"] = "Unknown".into();
    let picky: Change = |pod| pod["spec"]["nodeSelector"] = json!({"no": "such"});
    let second: Change = |pod| pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    let bears: Change = |pod| pod["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    let bears_all: Change = |pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let rows: &[(Change, Change, Change, &str)] = &[
        (same, same, same, "node1"),
        (same, same, second, "node2"),
        (cordoned, same, same, "node2"),
        (tainted, same, same, "node2"),
        (silent, same, same, "node2"),
        (tainted, cordoned, bears, "node1"),
        (tainted, cordoned, bears_all, "node1"),
        (
            cordoned,
            tainted,
            picky,
            "0/2 nodes are available: 1 node(s) had taint {k: v}, that the pod didn't tolerate, \
          1 node(s) were unschedulable.",
        ),
        (same, same, picky, "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity."),
        (
            cordoned,
            same,
            picky,
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity, 1 node(s) were \
          unschedulable.",
        ),
        (
            silent,
            silent,
            same,
            "0/2 nodes are available: 2 node(s) had taint {node.kubernetes.io/unreachable: }, that \
          the pod didn't tolerate.",
        ),
    ];
    for (n, (first, other, of_pod, expected)) in rows.iter().enumerate() {
        let mut web = pod("web", &[]);
        of_pod(&mut web);
        let stage = stage([node("node1", first), node("node2", other), web]);
        assert_eq!(outcome(&stage), *expected, "row {n}");
    }
    assert_eq!(outcome(&stage([pod("web", &[])])), "no nodes available to schedule pods");
}

#[test]
fn claims_keep_a_pod_waiting_for_their_own_reasons() {
    let nodes = || [node("node1", |_| {}), node("node2", |_| {})];
    let said = |why: &str| format!("0/2 nodes are available: 2 {why}.");
    let outcome_with =
        |more: Vec<Value>| outcome(&stage(nodes().into_iter().chain(more).chain([pod("web", &["data"])])));
    assert_eq!(outcome_with(vec![]), said("persistentvolumeclaim \"data\" not found"));
    assert_eq!(outcome_with(vec![claim("data", "none")]), said("pod has unbound immediate PersistentVolumeClaims"));
    let mut going = claim("data", "none");
    going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    going["metadata"]["finalizers"] = json!(["x.io/f"]);
    assert_eq!(outcome_with(vec![going]), said("persistentvolumeclaim \"data\" is being deleted"));
    let mut lost = claim("data", "none");
    lost["spec"]["volumeName"] = "gone".into();
    lost["metadata"]["annotations"][annotations::BIND_COMPLETED] = "yes".into();
    assert_eq!(outcome_with(vec![lost]), said("pvc(s) bound to non-existent pv(s)"));
    let missing = "node(s) didn't find available persistent volumes to bind";
    assert_eq!(outcome_with(vec![late_class(), claim("data", "local")]), said(missing));
    let here = vec![volume("v", "slow", "node2"), claim("data", "slow")];
    assert_eq!(outcome_with(here), "node2");
    let elsewhere = vec![volume("v", "slow", "node9"), claim("data", "slow")];
    assert_eq!(outcome_with(elsewhere), said("node(s) had volume node affinity conflict"));
}

#[test]
fn a_volume_that_waits_for_its_first_pod_draws_it_to_its_node() {
    let objects = [
        node("node1", |_| {}),
        node("node2", |_| {}),
        late_class(),
        volume("v1", "local", "node1"),
        volume("v2", "local", "node2"),
        claim("data", "local"),
        claim("logs", "local"),
    ];
    let mut one = pod("web", &["data"]);
    one["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    let chosen = stage(objects.clone().into_iter().chain([one]));
    assert_eq!(outcome(&chosen), "node2");
    let of = |stage: &Stage, name: &str| stage.get("PersistentVolumeClaim", "shop", name)["spec"]["volumeName"].clone();
    assert_eq!((of(&chosen, "data"), of(&chosen, "logs")), (json!("v2"), Value::Null));
    // Two claims of one pod need two volumes on one node.
    let both = stage(objects.clone().into_iter().chain([pod("web", &["data", "logs"])]));
    let message = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(outcome(&both), message);
    let more = [volume("v3", "local", "node2"), pod("web", &["data", "logs"])];
    assert_eq!(outcome(&stage(objects.into_iter().chain(more))), "node2");
}

#[test]
fn pods_spread_and_follow_their_disks() {
    let mut spread = stage([node("node1", |_| {}), node("node2", |_| {})]);
    for name in ["a", "b", "c", "web"] {
        spread.put(pod(name, &[]));
        spread.settle();
    }
    let nodes: Vec<String> = ["a", "b", "c", "web"]
        .iter()
        .map(|name| text(&spread.get("Pod", "shop", name)["spec"]["nodeName"]).to_owned())
        .collect();
    assert_eq!(nodes, ["node1", "node2", "node1", "node2"]);
    let mut disk = volume("v", "slow", "");
    disk["spec"]["csi"] = json!({"driver": "disk.lab.pvmigrate.io", "volumeHandle": "h"});
    let attached = json!([{"name": drivers::name_on_node(&disk), "devicePath": ""}]);
    let objects = [
        node("node1", |_| {}),
        node("node2", |node| node["status"]["volumesAttached"] = attached.clone()),
        disk,
        claim("data", "slow"),
        pod("web", &["data"]),
    ];
    assert_eq!(outcome(&stage(objects)), "node2");
}

#[test]
fn pods_of_others_are_left_alone() {
    for change in [
        (|pod: &mut Value| pod["spec"]["schedulerName"] = "other".into()) as fn(&mut Value),
        |pod| pod["status"]["phase"] = "Failed".into(),
        |pod| {
            pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
            pod["metadata"]["finalizers"] = json!(["x.io/f"]);
        },
    ] {
        let mut web = pod("web", &[]);
        change(&mut web);
        let stage = stage([node("node1", |_| {}), web]);
        assert_eq!(stage.get("Pod", "shop", "web")["spec"]["nodeName"], Value::Null);
        assert!(stage.events.is_empty(), "{:?}", stage.events);
    }
}
