//! One table: a bound claim that asks for a size, and what it and its volume have afterwards.

use super::super::rehearsal::Stage;
use super::*;

#[test]
fn only_a_bound_claim_of_our_driver_and_a_class_that_allows_it_grows() {
    // Driver, whether the class allows it, phase, asked for, the volume's size; both afterwards.
    let rows = [
        ("shared.lab.pvmigrate.io", true, "Bound", "2Gi", "1Gi", "2Gi", "2Gi"),
        ("disk.lab.pvmigrate.io", true, "Bound", "2Gi", "1Gi", "2Gi", "2Gi"),
        // The volume had grown when the controller stopped.
        ("shared.lab.pvmigrate.io", true, "Bound", "2Gi", "2Gi", "2Gi", "2Gi"),
        // The volume is larger than what is asked for.
        ("shared.lab.pvmigrate.io", true, "Bound", "2Gi", "5Gi", "5Gi", "2Gi"),
        ("shared.lab.pvmigrate.io", true, "Bound", "1Gi", "1Gi", "1Gi", "1Gi"),
        ("shared.lab.pvmigrate.io", false, "Bound", "2Gi", "1Gi", "1Gi", "1Gi"),
        ("shared.lab.pvmigrate.io", true, "Pending", "2Gi", "1Gi", "1Gi", "1Gi"),
        ("shared.lab.pvmigrate.io", true, "Lost", "2Gi", "1Gi", "1Gi", "1Gi"),
        ("other.example.com", true, "Bound", "2Gi", "1Gi", "1Gi", "1Gi"),
    ];
    for (n, (driver, allowed, phase, asked, size, volume_after, claim_after)) in rows.into_iter().enumerate() {
        let mut stage = Stage::new(&[&EXPAND]);
        stage.put(json!({
            "kind": "StorageClass", "metadata": {"name": "slow"}, "provisioner": driver, "allowVolumeExpansion": allowed,
        }));
        stage.put(json!({
            "kind": "PersistentVolume", "metadata": {"name": "v"}, "status": {"phase": "Bound"},
            "spec": {"capacity": {"storage": size}, "csi": {"driver": driver, "volumeHandle": "v"},
                "claimRef": {"namespace": "shop", "name": "data", "uid": "uid-data"}},
        }));
        stage.put(json!({
            "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"},
            "spec": {"storageClassName": "slow", "volumeName": "v", "resources": {"requests": {"storage": asked}}},
            "status": {"phase": phase, "capacity": {"storage": "1Gi"}},
        }));
        stage.settle();
        let volume = stage.get("PersistentVolume", "", "v");
        let claim = stage.get("PersistentVolumeClaim", "shop", "data");
        let found = (&volume["spec"]["capacity"]["storage"], &claim["status"]["capacity"]["storage"]);
        assert_eq!(found, (&json!(volume_after), &json!(claim_after)), "row {n}");
        let has_grown = claim_after != "1Gi";
        let ends = stage.events.contains("data Normal VolumeResizeSuccessful Resize volume succeeded");
        assert_eq!((stage.events.len(), ends), if has_grown { (2, true) } else { (0, false) }, "row {n}");
    }
}

#[test]
fn a_volume_of_another_claim_is_not_touched() {
    let mut stage = Stage::new(&[&EXPAND]);
    stage.put(json!({"kind": "StorageClass", "metadata": {"name": "slow"}, "allowVolumeExpansion": true}));
    stage.put(json!({
        "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "1Gi"}, "csi": {"driver": "shared.lab.pvmigrate.io", "volumeHandle": "v"},
            "claimRef": {"namespace": "shop", "name": "data", "uid": "uid-of-an-older-one"}},
    }));
    stage.put(json!({
        "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "shop"},
        "spec": {"storageClassName": "slow", "volumeName": "v", "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }));
    stage.settle();
    assert_eq!(stage.get("PersistentVolume", "", "v")["spec"]["capacity"]["storage"], "1Gi");
}
