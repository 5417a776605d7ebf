//! A new volume that is a clone of the old one. Pure: when its driver could make one, and what its provisioner says meanwhile.
//!
//! Not whether the driver can: no object of the API tells. Not who decides either: that is policy. What must stay true: nobody
//! takes a clone for a copy; a pass goes over it like over any other target, and it is compared like any other.

use super::pv::Pv;
use super::pvc::{Pvc, Shape};
use super::text;
use crate::words::{Json, size};

/// Where a class says which file system its volumes get.
const FILE_SYSTEM: [&str; 3] = ["csi.storage.k8s.io/fstype", "fstype", "fsType"];

/// What a volume gets of whom nobody says anything.
const USUAL_FILE_SYSTEM: &str = "ext4";

/// File systems that refuse to be mounted beside another of the same id, or take both for one.
const ALONE: [&str; 2] = ["btrfs", "xfs"];

/// What of provisioners' answers (gRPC codes) means that they are still at it, as external-provisioner has it.
const AT_IT: [&str; 5] = ["Canceled", "DeadlineExceeded", "Unavailable", "ResourceExhausted", "Aborted"];

/// What speaks against a clone of the claim's volume in the class `to`; nothing if its driver might make one.
pub fn obstacles(claim: Pvc<'_>, volume: Pv<'_>, to: &Json, wanted: &Shape) -> Vec<String> {
    let driver = text(volume.0, "/spec/csi/driver");
    if driver.is_empty() {
        return vec![format!("volume `{}` is of no CSI driver, and no other can clone", volume.name())];
    }
    let (name, provisioner) = (text(to, "/metadata/name"), text(to, "/provisioner"));
    if driver != provisioner {
        return vec![format!("the volume is of the driver `{driver}`, the class `{name}` is of `{provisioner}`")];
    }
    let mut found = Vec::new();
    if let Some(bytes) = wanted.size.as_deref().and_then(|size| size::parse_bytes(size).ok())
        && bytes < volume.capacity_bytes()
    {
        found.push("a clone is not smaller than its original".to_owned());
    }
    if !claim.is_block() {
        let has = or_usual(text(volume.0, "/spec/csi/fsType"));
        if ALONE.contains(&has) {
            found.push(format!("two of the same `{has}` are not mounted on one node: a clone has its original's id"));
        }
        let gets = FILE_SYSTEM.into_iter().find_map(|key| to["parameters"][key].as_str()).map_or("", str::trim);
        if has != or_usual(gets) {
            found.push(format!(
                "a clone has its original's file system `{has}`, the class `{name}` has `{}`",
                or_usual(gets)
            ));
        }
    }
    found
}

fn or_usual(file_system: &str) -> &str {
    if file_system.is_empty() { USUAL_FILE_SYSTEM } else { file_system }
}

/// Why the provisioner of the claim with this uid will not make its volume, if its last event of failure says so.
pub fn refusal(events: &[Json], uid: &str) -> Option<String> {
    let said = events.iter().filter(|event| text(event, "/involvedObject/uid") == uid).filter_map(|event| {
        // Times of events are whole seconds: of one second the last word is that it was made, else that it failed.
        let word = match text(event, "/reason") {
            "Provisioning" => 0,
            "ProvisioningFailed" => 1,
            "ProvisioningSucceeded" => 2,
            _ => return None,
        };
        Some((told_at(event), word, text(event, "/message")))
    });
    let (_, word, said) = said.max()?;
    let is_at_it = AT_IT.iter().any(|code| said.contains(&format!("code = {code} ")));
    (word == 1 && !is_at_it).then(|| said.to_owned())
}

fn told_at(event: &Json) -> &str {
    ["/lastTimestamp", "/eventTime"]
        .into_iter()
        .map(|time| text(event, time))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_one_driver_for_both_and_what_fits_may_be_cloned() {
        let claim = json!({"metadata": {"name": "data", "namespace": "shop"}, "spec": {"volumeMode": "Filesystem"}});
        let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "2Gi"},
            "csi": {"driver": "a.example", "volumeHandle": "h", "fsType": "ext3"}}});
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "a.example",
            "parameters": {"csi.storage.k8s.io/fstype": "ext3"}});
        let with = |base: &Json, patch: Json| {
            let mut object = base.clone();
            json_patch::merge(&mut object, &patch);
            object
        };
        let told = |claim: &Json, volume: &Json, class: &Json, size: &str| {
            let size = Some(size.to_owned()).filter(|size| !size.is_empty());
            obstacles(Pvc(claim), Pv(volume), class, &Shape { size, ..Shape::default() }).join("; ")
        };
        assert_eq!(told(&claim, &volume, &class, ""), "");
        assert_eq!(told(&claim, &volume, &class, "2Gi"), "");
        let by_hand = with(&volume, json!({"spec": {"csi": null, "hostPath": {"path": "/x"}}}));
        let other = with(&class, json!({"provisioner": "b.example"}));
        let plain = with(&class, json!({"parameters": null}));
        let usual = with(&volume, json!({"spec": {"csi": {"fsType": null}}}));
        let xfs = with(&volume, json!({"spec": {"csi": {"fsType": "xfs"}}}));
        let block = with(&claim, json!({"spec": {"volumeMode": "Block"}}));
        for (claim, volume, class, size, wanted) in [
            (&claim, &by_hand, &class, "", "no CSI driver"),
            (&claim, &volume, &other, "", "`b.example`"),
            (&claim, &volume, &class, "1Gi", "not smaller"),
            (&claim, &volume, &plain, "", "file system `ext3`, the class `fast` has `ext4`"),
            (&claim, &usual, &class, "", "file system `ext4`, the class `fast` has `ext3`"),
            (&claim, &usual, &plain, "", ""),
            (&block, &volume, &plain, "", ""),
            (&claim, &xfs, &class, "", "two of the same `xfs`"),
        ] {
            let told = told(claim, volume, class, size);
            assert!(if wanted.is_empty() { told.is_empty() } else { told.contains(wanted) }, "{told} / {wanted}");
        }
    }

    #[test]
    fn who_is_still_at_it_has_not_refused() {
        let event = |uid: &str, reason: &str, at: &str, message: &str| json!({"involvedObject": {"uid": uid}, "reason": reason, "lastTimestamp": at, "message": message});
        let (no, busy) =
            ("rpc error: code = InvalidArgument desc = no clones", "rpc error: code = Aborted desc = at it");
        let failed = |at: &str, message: &str| event("u", "ProvisioningFailed", at, message);
        for (events, wanted) in [
            (vec![], None),
            (vec![failed("1", no)], Some(no)),
            (vec![failed("1", busy)], None),
            (vec![failed("2", busy), failed("1", no)], None),
            (vec![failed("1", busy), failed("2", no)], Some(no)),
            (vec![failed("1", "the driver cannot")], Some("the driver cannot")),
            (vec![failed("1", no), event("u", "ProvisioningSucceeded", "1", "a volume")], None),
            (vec![event("of another", "ProvisioningFailed", "1", no)], None),
            (vec![event("u", "Provisioning", "1", no)], None),
            (vec![event("u", "Provisioning", "1", "now"), failed("1", no)], Some(no)),
            (vec![failed("1", no), event("u", "Provisioning", "2", "again")], None),
        ] {
            assert_eq!(refusal(&events, "u").as_deref(), wanted, "{events:?}");
        }
    }
}
