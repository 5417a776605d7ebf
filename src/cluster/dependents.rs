//! What needs the bytes of a volume that is to be given up: snapshots and clones that its driver may keep by reference, and
//! what stands under its claim's name now. Read whole, so that a person hears every reason at once.

use super::error::Error;
use super::guard::Fresh;
use super::ledger::Swapped;
use super::pv::{Backend, Pv};
use super::pvc::Pvc;
use super::{Cluster, known, text};
use crate::words::{Json, Problem};

/// Everything that is looked at before a replaced volume is freed.
///
/// # Errors
/// If some of it cannot be read: then nothing is freed.
pub async fn before_free(cluster: &Cluster, volume: &Json, swapped: &Swapped) -> Result<Fresh, Problem> {
    let pv = Pv(volume);
    let look = |e: Error| e.problem(&format!("see what needs the volume `{}`", pv.name()), None);
    let (volumes, claims) = (known("PersistentVolume"), known("PersistentVolumeClaim"));
    let mut fresh = Fresh { target: Some(volume.clone()), ..Fresh::default() };
    if let Some(claim) = pv.claim() {
        fresh.claim = cluster.find(&claims, &claim.namespace, &claim.name).await.map_err(look)?;
    }
    let claim = &swapped.claim;
    fresh.successor = cluster.find(&claims, &claim.namespace, &claim.name).await.map_err(look)?;
    fresh.successor_volume = cluster.find(&volumes, "", &swapped.target).await.map_err(look)?;
    fresh.volumes = cluster.list_all(&volumes, "").await.map_err(look)?;
    if let Some(Backend::Handle(driver, handle)) = pv.backend() {
        if let Some(kind) = cluster.find_resource("VolumeSnapshotContent.snapshot.storage.k8s.io").await? {
            let contents = cluster.list_all(&kind, "").await.map_err(look)?;
            let of_it = |content: &&Json| {
                text(content, "/spec/source/volumeHandle") == handle
                    && ["", driver.as_str()].contains(&text(content, "/spec/driver"))
            };
            let names = contents.iter().filter(of_it).map(|content| text(content, "/metadata/name"));
            fresh.dependents.extend(names.map(|name| format!("VolumeSnapshotContent:{name} depends on it")));
        }
        let claims = cluster.list_all(&claims, &claim.namespace).await.map_err(look)?;
        let clones = clones(&driver, swapped, &claims, &fresh.volumes);
        fresh.dependents.extend(clones);
    }
    Ok(fresh)
}

/// Claims that were made from the claim by the driver of this volume. Where the new volume is of the same driver, a clone may
/// be of that one: the clocks of servers do not tell, and both are kept.
fn clones(driver: &str, swapped: &Swapped, claims: &[Json], volumes: &[Json]) -> Vec<String> {
    let is_of_it = |clone: &&Json| {
        let names = |at: &str| {
            text(clone, &format!("{at}/kind")) == "PersistentVolumeClaim"
                && text(clone, &format!("{at}/name")) == swapped.claim.name
        };
        (names("/spec/dataSource") || names("/spec/dataSourceRef")) && Pvc(clone).reference() != swapped.claim
    };
    let same_driver = |clone: &&Json| {
        let volume = volumes.iter().find(|volume| Pv(volume).name() == Pvc(clone).volume());
        match volume.and_then(|volume| Pv(volume).backend()) {
            Some(Backend::Handle(theirs, _)) => theirs == driver,
            Some(_) => false,
            // It is still being made, from whatever.
            None => true,
        }
    };
    let clones = claims.iter().filter(is_of_it).filter(same_driver);
    clones.map(|clone| format!("PersistentVolumeClaim:{} may be a clone of it", Pvc(clone).reference())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::PvcRef;
    use serde_json::json;

    #[test]
    fn a_clone_that_the_same_driver_made_needs_the_volume() {
        let swapped = Swapped { claim: PvcRef::new("shop", "data"), uid: "u2".into(), target: "new".into() };
        let claim = |name: &str, from: Json, volume: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"volumeName": volume, "dataSource": from}});
        let of_data = json!({"kind": "PersistentVolumeClaim", "name": "data"});
        let csi = |name: &str, driver: &str| json!({"metadata": {"name": name}, "spec": {"csi": {"driver": driver, "volumeHandle": name}}});
        let volumes = [csi("a", "one.example"), csi("b", "other.example")];
        for (clone, counts) in [
            (claim("copy", of_data.clone(), "a"), true),
            (claim("copy", of_data.clone(), "b"), false),
            (claim("copy", of_data.clone(), ""), true),
            (claim("copy", json!({"kind": "PersistentVolumeClaim", "name": "logs"}), "a"), false),
            (claim("copy", json!({"kind": "VolumeSnapshot", "name": "data"}), "a"), false),
            (claim("data", of_data, "a"), false),
        ] {
            let found = clones("one.example", &swapped, std::slice::from_ref(&clone), &volumes);
            let told = ["PersistentVolumeClaim:shop/copy may be a clone of it".to_owned()];
            assert_eq!(found, if counts { &told[..] } else { &[] }, "{clone}");
        }
    }
}
