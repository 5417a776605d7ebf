//! Tables: a volume and a claim before, and what has become of them when nothing is due any more.

use super::super::rehearsal::Stage;
use super::super::{annotations::PROVISIONED_BY, protection, provisioner, scheduler};
use super::*;

fn volume(change: impl Fn(&mut Value)) -> Value {
    let mut volume = json!({
        "kind": "PersistentVolume",
        "metadata": {"name": "vol", "annotations": {}},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "persistentVolumeReclaimPolicy": "Retain",
        },
        "status": {"phase": "Pending"},
    });
    change(&mut volume);
    volume
}

fn claim(change: impl Fn(&mut Value)) -> Value {
    let mut claim = json!({
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "shop", "annotations": {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Pending"},
    });
    change(&mut claim);
    claim
}

fn settled(volume: Option<Value>, claim: Option<Value>) -> Stage {
    let mut stage = Stage::new(&[&BINDER]);
    volume.into_iter().chain(claim).for_each(|one| stage.put(one));
    stage.settle();
    stage
}

/// `Bound data uid-data | Bound vol`, and the reasons of the events.
fn told(stage: &Stage) -> (String, String, Vec<String>) {
    let (volume, claim) =
        (stage.get("PersistentVolume", "", "vol"), stage.get("PersistentVolumeClaim", "shop", "data"));
    let reference = &volume["spec"]["claimRef"];
    let of_volume =
        format!("{} {} {}", text(&volume["status"]["phase"]), text(&reference["name"]), text(&reference["uid"]));
    let of_claim = format!("{} {}", text(&claim["status"]["phase"]), text(&claim["spec"]["volumeName"]));
    let reasons = stage.events.iter().map(|one| one.split(' ').nth(2).unwrap().to_owned()).collect();
    (of_volume.trim().to_owned(), of_claim.trim().to_owned(), reasons)
}

fn to(name: &str, uid: &str) -> Value {
    let mut reference = json!({"namespace": "shop", "name": name});
    if !uid.is_empty() {
        reference["uid"] = uid.into();
    }
    reference
}

#[test]
fn volumes_and_claims_end_as_the_real_ones() {
    type Change = fn(&mut Value);
    let same: Change = |_| {};
    let named: Change = |c| c["spec"]["volumeName"] = "vol".into();
    let completed: Change = |c| {
        c["spec"]["volumeName"] = "vol".into();
        c["metadata"]["annotations"][annotations::BIND_COMPLETED] = "yes".into();
    };
    let elsewhere: Change = |c| c["spec"]["volumeName"] = "other".into();
    let ours: Change = |v| v["spec"]["claimRef"] = to("data", "uid-data");
    let gone: Change = |v| v["spec"]["claimRef"] = to("data", "old");
    type Row = (&'static str, Change, Change, &'static str, &'static str, &'static [&'static str]);
    let rows: &[Row] = &[
        ("alike", same, same, "Bound data uid-data", "Bound vol", &[]),
        (
            "too small",
            |v| v["spec"]["capacity"]["storage"] = "1Mi".into(),
            named,
            "Available",
            "Pending vol",
            &["VolumeMismatch"],
        ),
        (
            "other class",
            |v| v["spec"]["storageClassName"] = "fast".into(),
            named,
            "Available",
            "Pending vol",
            &["VolumeMismatch"],
        ),
        (
            "no class found",
            |v| v["spec"]["storageClassName"] = "fast".into(),
            same,
            "Available",
            "Pending",
            &["ProvisioningFailed"],
        ),
        (
            "no class asked",
            same,
            |c| c["spec"]["storageClassName"] = "".into(),
            "Available",
            "Pending",
            &["FailedBinding"],
        ),
        (
            "reserved by name, other class",
            |v| {
                v["spec"]["claimRef"] = to("data", "");
                v["spec"]["storageClassName"] = "fast".into();
            },
            same,
            "Bound data uid-data",
            "Bound vol",
            &[],
        ),
        (
            "reserved for another",
            |v| v["spec"]["claimRef"] = to("logs", ""),
            named,
            "Available logs",
            "Pending vol",
            &["FailedBinding"],
        ),
        ("half bound", ours, same, "Bound data uid-data", "Bound vol", &[]),
        ("stale uid", gone, same, "Released data old", "Pending", &["ProvisioningFailed"]),
        ("stale uid, named", gone, named, "Released data old", "Pending vol", &["FailedBinding"]),
        ("lost its claimRef", same, completed, "Bound data uid-data", "Bound vol", &[]),
        (
            "misbound",
            |v| v["spec"]["claimRef"] = to("logs", ""),
            completed,
            "Available logs",
            "Lost vol",
            &["ClaimMisbound"],
        ),
        (
            "bound elsewhere, by controller",
            |v| {
                v["spec"]["claimRef"] = to("data", "uid-data");
                v["metadata"]["annotations"][annotations::BOUND_BY_CONTROLLER] = "yes".into();
            },
            elsewhere,
            "Available",
            "Pending other",
            &[],
        ),
        ("bound elsewhere, by user", ours, elsewhere, "Available data", "Pending other", &[]),
        (
            "bound elsewhere, provisioned",
            |v| {
                v["spec"]["claimRef"] = to("data", "uid-data");
                v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
                v["metadata"]["annotations"][PROVISIONED_BY] = "some.driver".into();
            },
            elsewhere,
            "Released data uid-data",
            "Pending other",
            &[],
        ),
        (
            "delete without a plugin",
            |v| {
                v["spec"]["claimRef"] = to("data", "old");
                v["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into();
            },
            elsewhere,
            "Failed data old",
            "Pending other",
            &["VolumeFailedDelete"],
        ),
        (
            "wrong mode",
            |v| {
                v["spec"]["claimRef"] = to("data", "uid-data");
                v["spec"]["volumeMode"] = "Block".into();
            },
            same,
            "Pending data uid-data",
            "Pending",
            &["ProvisioningFailed", "VolumeMismatch", "VolumeMismatch"],
        ),
    ];
    for (name, of_volume, of_claim, volume_after, claim_after, reasons) in rows {
        let found = told(&settled(Some(volume(of_volume)), Some(claim(of_claim))));
        assert_eq!(
            (&found.0[..], &found.1[..], &found.2[..]),
            (*volume_after, *claim_after, &reasons.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()[..]),
            "{name}"
        );
    }
}

#[test]
fn a_lost_claim_is_healed_when_its_volume_comes_back() {
    let mut stage = settled(Some(volume(|_| {})), Some(claim(|_| {})));
    stage.state.remove(&Key::new("PersistentVolume", "", "vol"), "me");
    stage.settle();
    assert_eq!(told(&stage).1, "Lost vol");
    stage.put(volume(|_| {}));
    stage.settle();
    assert_eq!(told(&stage).1, "Bound vol");
}

#[test]
fn a_binding_that_stops_anywhere_is_finished() {
    let (volume, claim) = (volume(|v| v["status"]["phase"] = "Available".into()), claim(|_| {}));
    let end = told(&settled(Some(volume.clone()), Some(claim.clone())));
    for writes in 1..=4 {
        let mut stage = Stage::new(&[&BINDER]);
        stage.put(volume.clone());
        stage.put(claim.clone());
        stage.settle_for(writes);
        let mut resumed = Stage::new(&[&BINDER]);
        for object in [stage.get("PersistentVolume", "", "vol"), stage.get("PersistentVolumeClaim", "shop", "data")] {
            resumed.put(object);
        }
        resumed.settle();
        assert_eq!(told(&resumed), end, "after {writes} writes");
    }
}

#[test]
fn a_class_that_waits_is_provisioned_on_the_chosen_node_and_deleted_with_its_claim() {
    let mut stage = Stage::new(&[
        &BINDER,
        &provisioner::PROVISIONER,
        &protection::CLAIM_PROTECTION,
        &protection::VOLUME_PROTECTION,
        &scheduler::SCHEDULER,
    ]);
    stage.put(json!({
        "kind": "StorageClass", "metadata": {"name": "slow"}, "provisioner": "shared.lab.pvmigrate.io",
        "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete", "parameters": {"node": "local"},
    }));
    let node = json!({
        "kind": "Node", "metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "node1"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    stage.put(node);
    stage.put(claim(|_| {}));
    stage.settle();
    assert!(told(&stage).2.contains(&"WaitForFirstConsumer".to_owned()), "{:?}", stage.events);
    stage.put(json!({
        "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}, "status": {"phase": "Pending"},
    }));
    stage.settle();
    assert_eq!(stage.get("Pod", "shop", "web")["spec"]["nodeName"], "node1", "{:?}", stage.events);
    assert_eq!(told(&stage).1, "Bound pvc-uid-data");
    assert_eq!(stage.disks.len(), 1);
    stage.state.remove(&Key::new("Pod", "shop", "web"), "me");
    let mut going = stage.get("PersistentVolumeClaim", "shop", "data");
    going["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    stage.put(going);
    stage.settle();
    assert_eq!((stage.state.list("PersistentVolume", "").count(), stage.disks.len()), (0, 0), "{:?}", stage.events);
}
