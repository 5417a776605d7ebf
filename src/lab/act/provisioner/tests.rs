//! Tables: a class, a claim, and the volume that comes of them, or why there is none.

use super::super::rehearsal::Stage;
use super::*;

fn class(parameters: Value) -> Value {
    json!({
        "kind": "StorageClass", "metadata": {"name": "slow"}, "provisioner": "shared.lab.pvmigrate.io",
        "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete", "parameters": parameters,
    })
}

fn claim(change: impl Fn(&mut Value)) -> Value {
    let mut claim = json!({
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:00Z",
            "annotations": {annotations::STORAGE_PROVISIONER: "shared.lab.pvmigrate.io"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    change(&mut claim);
    claim
}

fn settled(class: Value, claim: Value) -> Stage {
    let mut stage = Stage::new(&[&PROVISIONER]);
    stage.put(class);
    stage.put(claim);
    stage.settle();
    stage
}

fn volumes(stage: &Stage) -> usize {
    stage.state.list("PersistentVolume", "").count()
}

#[test]
fn parameters_are_known_or_refused() {
    let rows = [
        (json!(null), Ok((0, false, false))),
        (json!({"delaySeconds": "3"}), Ok((3, false, false))),
        (json!({"fail": "provision"}), Ok((0, true, false))),
        (json!({"node": "local"}), Ok((0, false, true))),
        (json!({"delaySeconds": "-1"}), Err("delaySeconds \"-1\" is no number of seconds")),
        (json!({"delaySeconds": "soon"}), Err("delaySeconds \"soon\" is no number of seconds")),
        (json!({"delaySeconds": "86401"}), Err("delaySeconds \"86401\" is no number of seconds")),
        (json!({"fail": "attach"}), Err("unknown value \"attach\" of parameter \"fail\"")),
        (json!({"node": "remote"}), Err("unknown value \"remote\" of parameter \"node\"")),
        (json!({"type": "ssd"}), Err("unknown parameter \"type\"")),
    ];
    for (parameters, expected) in rows {
        let read = Parameters::read(&class(parameters.clone()));
        let read = read.map(|one| (one.delay_s, one.fails, one.is_local));
        assert_eq!(read, expected.map_err(str::to_owned), "{parameters}");
    }
}

#[test]
fn what_cannot_be_made_is_said() {
    type Change = fn(&mut Value);
    let same: Change = |_| {};
    let invalid = "rpc error: code = InvalidArgument desc =";
    let rows: &[(Value, Change, &str)] = &[
        (json!({"fail": "provision"}), same, "rpc error: code = Internal desc = the class says fail: provision"),
        (json!({"type": "ssd"}), same, "unknown parameter \"type\""),
        (
            json!(null),
            |c| c["spec"]["accessModes"] = json!(["ReadWriteOncePod"]),
            &format!("{invalid} shared.lab.pvmigrate.io has no access mode ReadWriteOncePod"),
        ),
        (
            json!(null),
            |c| c["spec"]["volumeMode"] = "Block".into(),
            &format!("{invalid} shared.lab.pvmigrate.io has no block volumes"),
        ),
        (
            json!(null),
            |c| c["spec"]["selector"] = json!({"matchLabels": {"a": "b"}}),
            "claim Selector is not supported",
        ),
        (
            json!(null),
            |c| c["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "s"}),
            &format!("{invalid} shared.lab.pvmigrate.io makes no clones"),
        ),
        (
            json!({"node": "local"}),
            same,
            &format!(
                "{invalid} node: local needs a selected node with a \
            kubernetes.io/hostname, so a class with WaitForFirstConsumer"
            ),
        ),
    ];
    for (parameters, change, why) in rows {
        let stage = settled(class(parameters.clone()), claim(change));
        let said =
            format!("data Warning ProvisioningFailed failed to provision volume with StorageClass \"slow\": {why}");
        assert!(stage.events.contains(&said), "{said}: {:?}", stage.events);
        assert_eq!((volumes(&stage), stage.disks.len()), (0, 0), "{why}");
    }
}

#[test]
fn a_volume_is_made_as_its_class_says() {
    let mut slow = class(json!(null));
    slow["reclaimPolicy"] = "Retain".into();
    slow["mountOptions"] = json!(["noatime"]);
    let stage = settled(slow, claim(|_| {}));
    let volume = stage.get("PersistentVolume", "", "pvc-uid-data");
    let spec = &volume["spec"];
    assert_eq!(
        (&spec["persistentVolumeReclaimPolicy"], &spec["mountOptions"]),
        (&json!("Retain"), &json!(["noatime"]))
    );
    assert_eq!((&spec["csi"]["volumeHandle"], &spec["claimRef"]["uid"]), (&json!("pvc-uid-data"), &json!("uid-data")));
    assert_eq!(annotations::get(&volume, annotations::PROVISIONED_BY), Some("shared.lab.pvmigrate.io"));
    assert!(stage.disks.contains("pvc-uid-data"));
    assert!(stage.events.contains("data Normal ProvisioningSucceeded Successfully provisioned volume pvc-uid-data"));
}

#[test]
fn nothing_is_made_for_who_does_not_ask() {
    let rows: [fn(&mut Value); 4] = [
        |c| c["metadata"]["annotations"] = json!({}),
        |c| c["spec"]["volumeName"] = "v".into(),
        |c| {
            c["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
            c["metadata"]["finalizers"] = json!(["x.io/f"]);
        },
        |c| c["metadata"]["annotations"][annotations::STORAGE_PROVISIONER] = "disk.lab.pvmigrate.io".into(),
    ];
    for (n, change) in rows.into_iter().enumerate() {
        let stage = settled(class(json!(null)), claim(change));
        assert_eq!((volumes(&stage), stage.events.len()), (0, 0), "row {n}");
    }
}

#[test]
fn a_delay_counts_from_the_claim_or_from_its_first_pod() {
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
    let mut stage = settled(class(json!({"delaySeconds": "60"})), claim(|_| {}));
    let key = Key::new("PersistentVolumeClaim", "shop", "data");
    assert_eq!((volumes(&stage), act(&stage.state, &key).again_at), (0, Some(at(60))));
    // Chosen later by a pod that came later: the delay begins anew.
    let mut chosen = stage.get("PersistentVolumeClaim", "shop", "data");
    annotations::set(&mut chosen, annotations::SELECTED_NODE, "node1");
    stage.put(chosen);
    stage.put(json!({
        "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:30Z"},
        "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]},
    }));
    assert_eq!(act(&stage.state, &key).again_at, Some(at(90)));
    stage.state.set_now(at(90));
    stage.settle();
    assert_eq!(volumes(&stage), 1);
}

#[test]
fn a_volume_is_deleted_when_it_was_given_back_and_is_nowhere_attached() {
    let volume = |phase: &str, policy: &str, by: &str| {
        json!({
            "kind": "PersistentVolume", "metadata": {"name": "v", "annotations": {annotations::PROVISIONED_BY: by}},
            "spec": {"csi": {"driver": "disk.lab.pvmigrate.io", "volumeHandle": "h"},
                "persistentVolumeReclaimPolicy": policy},
            "status": {"phase": phase},
        })
    };
    let ours = "disk.lab.pvmigrate.io";
    let rows = [
        ("Released", "Delete", ours, true),
        ("Bound", "Delete", ours, false),
        ("Available", "Delete", ours, false),
        ("Failed", "Delete", ours, false),
        ("Released", "Retain", ours, false),
        ("Released", "Delete", "other", false),
    ];
    for (phase, policy, by, goes) in rows {
        let mut stage = Stage::new(&[&PROVISIONER]);
        stage.disks.insert("h".into());
        stage.put(volume(phase, policy, by));
        stage.settle();
        let left = (volumes(&stage), stage.disks.len());
        assert_eq!(left, if goes { (0, 0) } else { (1, 1) }, "{phase} {policy} {by}");
    }
    let mut stage = Stage::new(&[&PROVISIONER]);
    stage.disks.insert("h".into());
    stage.put(json!({
        "kind": "VolumeAttachment", "metadata": {"name": "a"},
        "spec": {"attacher": ours, "nodeName": "node1", "source": {"persistentVolumeName": "v"}},
    }));
    stage.put(volume("Released", "Delete", ours));
    stage.settle();
    let said = "v Warning VolumeFailedDelete persistentvolume v is still attached to node node1";
    assert!(stage.events.contains(said) && stage.disks.len() == 1, "{:?}", stage.events);
    stage.state.remove(&Key::new("VolumeAttachment", "", "a"), "test");
    stage.settle();
    assert_eq!((volumes(&stage), stage.disks.len()), (0, 0));
}

/// A claim of the driver that clones, and a clone of it that is asked for.
fn with_clone(change: impl Fn(&mut [Value; 4])) -> Stage {
    let disk = "disk.lab.pvmigrate.io";
    let mut class = class(json!(null));
    class["provisioner"] = disk.into();
    let source = claim(|c| {
        c["spec"]["volumeName"] = "v".into();
        c["status"]["phase"] = "Bound".into();
    });
    let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"volumeMode": "Filesystem",
        "capacity": {"storage": "1Gi"}, "csi": {"driver": disk, "volumeHandle": "h"}}});
    let clone = claim(|c| {
        c["metadata"]["name"] = "clone".into();
        c["metadata"]["annotations"][annotations::STORAGE_PROVISIONER] = disk.into();
        c["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "data"});
    });
    let mut all = [class, source, volume, clone];
    change(&mut all);
    let mut stage = Stage::new(&[&PROVISIONER]);
    stage.disks.insert("h".into());
    all.into_iter().for_each(|object| stage.put(object));
    stage.settle();
    stage
}

#[test]
fn a_clone_is_made_of_a_volume_of_the_same_driver() {
    let stage = with_clone(|_| {});
    assert_eq!((volumes(&stage), stage.disks.len()), (2, 2), "{:?}", stage.events);
    type Change = fn(&mut [Value; 4]);
    let rows: [(Change, &str); 6] = [
        (|[_, source, ..]| source["metadata"]["name"] = "other".into(), "is not there"),
        (|[_, source, ..]| source["status"]["phase"] = "Pending".into(), "going or not bound"),
        (|[.., volume, _]| volume["spec"]["csi"]["driver"] = "shared.lab.pvmigrate.io".into(), "no volume of disk.lab"),
        (|[.., volume, _]| volume["spec"]["capacity"]["storage"] = "2Gi".into(), "not smaller"),
        (|[.., clone]| clone["spec"]["volumeMode"] = "Block".into(), "original's mode"),
        (|[.., volume, _]| volume["spec"]["nodeAffinity"] = json!({"required": {}}), "of one node"),
    ];
    for (change, why) in rows {
        let stage = with_clone(change);
        assert!(
            stage.events.iter().any(|said| said.contains("ProvisioningFailed") && said.contains(why)),
            "{why}: {:?}",
            stage.events
        );
        assert_eq!((volumes(&stage), stage.disks.len()), (1, 1), "{why}");
    }
}

#[test]
fn who_is_being_cloned_does_not_go() {
    let mut stage = with_clone(|[class, ..]| class["parameters"] = json!({"delaySeconds": "60"}));
    let source = stage.get("PersistentVolumeClaim", "shop", "data");
    assert_eq!(source["metadata"]["finalizers"], json!([CLONING]));
    let mut going = source.clone();
    going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    stage.put(going);
    stage.settle();
    assert!(stage.state.get("PersistentVolumeClaim", "shop", "data").is_some());
    // Whoever waits for the clone is gone, or has it.
    for is_given_up in [true, false] {
        let mut stage = with_clone(|[class, ..]| class["parameters"] = json!({"delaySeconds": "60"}));
        let mut going = stage.get("PersistentVolumeClaim", "shop", "data");
        going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        stage.put(going);
        if is_given_up {
            stage.state.remove(&Key::new("PersistentVolumeClaim", "shop", "clone"), "test");
        } else {
            let mut bound = stage.get("PersistentVolumeClaim", "shop", "clone");
            bound["spec"]["volumeName"] = "its".into();
            stage.put(bound);
        }
        stage.settle();
        assert!(stage.state.get("PersistentVolumeClaim", "shop", "data").is_none(), "{is_given_up}");
    }
}
