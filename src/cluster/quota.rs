//! Whether all targets of a unit fit a namespace's quotas at once. Pure.
//!
//! The server judges one claim at a time: each of two claims may fit where both together do not.

use super::pvc::Pvc;
use super::text;
use crate::words::{Json, size};

/// What is too little: the quota's name and in what, of which so much is left and so much needed.
#[derive(Debug, PartialEq, Eq)]
pub struct Shortage {
    pub quota: String,
    pub resource: String,
    pub left: u64,
    pub needed: u64,
}

/// Compares the target claims that a unit makes with what the quotas of their namespace have left.
pub fn shortages(quotas: &[Json], targets: &[Json]) -> Vec<Shortage> {
    let mut found = Vec::new();
    for quota in quotas {
        for (resource, hard) in quota["status"]["hard"].as_object().into_iter().flatten() {
            let (class, what) = match resource.split_once(".storageclass.storage.k8s.io/") {
                Some((class, what)) => (Some(class), what),
                None => (None, resource.strip_prefix("count/").unwrap_or(resource)),
            };
            let theirs = targets.iter().map(Pvc).filter(|claim| class.is_none_or(|class| claim.class() == class));
            let needed: u64 = match what {
                "persistentvolumeclaims" => theirs.map(|_| 1).sum(),
                "requests.storage" => theirs.map(Pvc::request_bytes).sum(),
                _ => continue,
            };
            let amount = |quantity: &Json| quantity.as_str().and_then(|text| size::parse_bytes(text).ok());
            let Some(hard) = amount(hard) else { continue };
            let used = amount(&quota["status"]["used"][resource]).unwrap_or(0);
            let left = hard.saturating_sub(used);
            if needed > left {
                let quota = text(quota, "/metadata/name").to_owned();
                found.push(Shortage { quota, resource: resource.clone(), left, needed });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_fits_one_by_one_may_not_fit_at_once() {
        let target =
            |class: &str| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": "64Mi"}}}});
        let quota = |resource: &str, hard: &str, used: &str| {
            let status = json!({"hard": {resource: hard}, "used": {resource: used}});
            json!({"metadata": {"name": "q"}, "status": status})
        };
        let two = [target("fast"), target("fast")];
        for (resource, hard, used, short) in [
            ("persistentvolumeclaims", "4", "2", None),
            ("persistentvolumeclaims", "3", "2", Some((1, 2))),
            ("count/persistentvolumeclaims", "2", "2", Some((0, 2))),
            ("requests.storage", "256Mi", "128Mi", None),
            ("requests.storage", "192Mi", "128Mi", Some((64 << 20, 128 << 20))),
            ("fast.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "0", Some((1, 2))),
            ("slow.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "1", None),
            ("fast.storageclass.storage.k8s.io/requests.storage", "100Mi", "0", Some((100 << 20, 128 << 20))),
            ("pods", "0", "9", None),
        ] {
            let got = shortages(&[quota(resource, hard, used)], &two);
            let got = got.first().map(|shortage| (shortage.left, shortage.needed));
            assert_eq!(got, short, "{resource} {hard} {used}");
        }
    }
}
