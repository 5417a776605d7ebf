//! A disk, two nodes and their pods: who has it when.

use super::super::rehearsal::Stage;
use super::*;

fn disk(modes: &[&str]) -> Value {
    json!({
        "kind": "PersistentVolume", "metadata": {"name": "v"}, "status": {"phase": "Bound"},
        "spec": {"csi": {"driver": "disk.lab.pvmigrate.io", "volumeHandle": "h"}, "accessModes": modes,
            "claimRef": {"namespace": "shop", "name": "data", "uid": "uid-data"}},
    })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "status": {"phase": "Pending"},
        "spec": {"nodeName": node, "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]},
    })
}

fn stage(volume: Value) -> Stage {
    let mut stage = Stage::new(&[&ATTACH]);
    for node in ["node1", "node2"] {
        stage.put(json!({"kind": "Node", "metadata": {"name": node}, "status": {}}));
    }
    stage.put(json!({
        "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
    }));
    stage.put(volume);
    stage.settle();
    stage
}

/// The nodes to which it is attached: by the attachments, and by what the nodes say.
fn at(stage: &Stage) -> (Vec<String>, Vec<String>) {
    let attachments = stage.state.list("VolumeAttachment", "").filter(|(_, one)| one["status"]["attached"] == true);
    let mut by_attachment: Vec<String> =
        attachments.map(|(_, one)| text(&one["spec"]["nodeName"]).to_owned()).collect();
    by_attachment.sort();
    let says = |node: &Value| {
        list_of(&node["status"]["volumesAttached"]).iter().any(|one| one["name"] == drivers::name_on_node(&disk(&[])))
    };
    let by_node =
        stage.state.list("Node", "").filter(|(_, node)| says(node)).map(|(key, _)| key.name.clone()).collect();
    (by_attachment, by_node)
}

fn only(node: &str) -> (Vec<String>, Vec<String>) {
    (vec![node.to_owned()], vec![node.to_owned()])
}

fn phase(stage: &mut Stage, pod: &str, phase: &str) {
    let mut object = stage.get("Pod", "shop", pod);
    object["status"]["phase"] = phase.into();
    stage.put(object);
    stage.settle();
}

fn in_use(stage: &mut Stage, node: &str, is_in_use: bool) {
    let mut object = stage.get("Node", "", node);
    object["status"]["volumesInUse"] = if is_in_use { json!([drivers::name_on_node(&disk(&[]))]) } else { json!([]) };
    stage.put(object);
    stage.settle();
}

#[test]
fn a_disk_follows_its_pods_one_node_at_a_time() {
    let mut stage = stage(disk(&["ReadWriteOnce"]));
    assert_eq!(at(&stage), (vec![], vec![]));
    stage.put(pod("a", "node1"));
    stage.settle();
    assert_eq!(at(&stage), only("node1"));
    assert!(stage.events.contains("a Normal SuccessfulAttachVolume AttachVolume.Attach succeeded for volume \"v\" "));
    let finalizers = stage.get("PersistentVolume", "", "v")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!(["external-attacher/disk-lab-pvmigrate-io"]));
    in_use(&mut stage, "node1", true);
    stage.put(pod("b", "node2"));
    stage.settle();
    assert_eq!(at(&stage), only("node1"));
    let refused = "b Warning FailedAttachVolume Multi-Attach error for volume \"v\" Volume is already used by pod(s) a";
    assert!(stage.events.contains(refused), "{:?}", stage.events);
    // The pod has ended and the node has not let go yet.
    phase(&mut stage, "a", "Succeeded");
    assert_eq!(at(&stage), only("node1"));
    in_use(&mut stage, "node1", false);
    assert_eq!(at(&stage), only("node2"));
    phase(&mut stage, "b", "Failed");
    assert_eq!(at(&stage), (vec![], vec![]));
    assert_eq!(stage.get("PersistentVolume", "", "v")["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_node_that_holds_it_without_a_pod_is_named_by_no_pod() {
    let mut stage = stage(disk(&["ReadWriteOnce"]));
    stage.put(pod("a", "node1"));
    stage.settle();
    in_use(&mut stage, "node1", true);
    stage.state.remove(&Key::new("Pod", "shop", "a"), "test");
    stage.put(pod("b", "node2"));
    stage.settle();
    let refused = "b Warning FailedAttachVolume Multi-Attach error for volume \"v\" Volume is already exclusively attached \
                   to one node and can't be attached to another";
    assert!(stage.events.contains(refused), "{:?}", stage.events);
    // A node that is gone holds nothing.
    stage.state.remove(&Key::new("Node", "", "node1"), "test");
    stage.settle();
    assert_eq!(at(&stage), only("node2"));
}

#[test]
fn a_disk_that_is_only_read_may_be_on_both_nodes() {
    let mut stage = stage(disk(&["ReadOnlyMany"]));
    stage.put(pod("a", "node1"));
    stage.put(pod("b", "node2"));
    stage.settle();
    let both = vec!["node1".to_owned(), "node2".to_owned()];
    assert_eq!(at(&stage), (both.clone(), both));
}

#[test]
fn what_is_not_bound_or_not_ours_is_not_attached() {
    let rows: [fn(&mut Value); 3] = [
        |v| v["spec"]["csi"]["driver"] = "shared.lab.pvmigrate.io".into(),
        |v| v["spec"]["csi"]["driver"] = "other.example.com".into(),
        |v| v["spec"]["claimRef"]["uid"] = "of-an-older-claim".into(),
    ];
    for (n, change) in rows.into_iter().enumerate() {
        let mut volume = disk(&["ReadWriteOnce"]);
        change(&mut volume);
        let mut stage = stage(volume);
        stage.put(pod("a", "node1"));
        stage.settle();
        assert_eq!(stage.state.list("VolumeAttachment", "").count(), 0, "row {n}");
    }
}

#[test]
fn only_the_volumes_of_which_a_node_says_otherwise_are_asked_for() {
    let node = |used: &[&str], attached: &[&str]| {
        let attached: Vec<Value> = attached.iter().map(|name| json!({"name": name})).collect();
        json!({"status": {"volumesInUse": used, "volumesAttached": attached}})
    };
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    let rows = [
        (node(&[], &[]), node(&[], &[]), names(&[])),
        (node(&["a", "b"], &[]), node(&["b", "a"], &[]), names(&[])),
        (node(&["a"], &["b"]), node(&["a", "c"], &[]), names(&["b", "c"])),
    ];
    for (before, after, expected) in rows {
        assert_eq!(changed(Some(&before), Some(&after)), expected);
    }
    assert_eq!((changed(None, Some(&json!({}))), changed(Some(&json!({})), None)), (None, None));
}
