//! What a controller wants to know of a pod, and how a pod comes from a template.
//!
//! Pure functions over one pod. Not the kubelet, which makes these facts. Called by the workload controllers.

use super::owner::{controller_reference, is_going, namespace};
use super::{Value, Write};
use crate::lab::store::{list_of, text};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

pub fn phase(pod: &Value) -> &str {
    text(&pod["status"]["phase"])
}

/// It ended by itself.
pub fn is_finished(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor going.
pub fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_going(pod)
}

/// The condition of this type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list_of(&object["status"]["conditions"]).iter().find(|one| one["type"] == kind)
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// When it will have been ready for so long, if it is ready now.
pub fn available_at(pod: &Value, min_ready_s: i64) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready["status"] == "True")?;
    let since = time(&ready["lastTransitionTime"]).unwrap_or(Timestamp::UNIX_EPOCH);
    if min_ready_s == 0 { Some(Timestamp::UNIX_EPOCH) } else { since.checked_add(seconds(min_ready_s)).ok() }
}

pub fn is_available(pod: &Value, min_ready_s: i64, now: Timestamp) -> bool {
    available_at(pod, min_ready_s).is_some_and(|at| at <= now)
}

/// The first time in the future at which one of these pods becomes available.
pub fn next_available(pods: &[&Value], min_ready_s: i64, now: Timestamp) -> Option<Timestamp> {
    pods.iter().filter_map(|pod| available_at(pod, min_ready_s)).filter(|at| *at > now).min()
}

pub fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

/// A time of the API.
pub fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// As the API writes times: whole seconds, UTC.
pub fn stamp(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// When it was made.
pub fn born(object: &Value) -> Timestamp {
    time(&object["metadata"]["creationTimestamp"]).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A pod as this owner's template says it; its name is generated.
pub fn from_template(owner: &Value, template: &Value) -> Value {
    let mut meta = json!({
        "generateName": format!("{}-", text(&owner["metadata"]["name"])), "namespace": namespace(owner),
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            meta[field] = template["metadata"][field].clone();
        }
    }
    meta["ownerReferences"] = json!([controller_reference(owner)]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

/// Deletes this pod, as controllers do: with the pod's own grace.
pub fn delete(pod: &Value) -> Write {
    let key = super::Key::new("Pod", namespace(pod), text(&pod["metadata"]["name"]));
    Write::delete(key, pod)
}

/// Which of these a controller gives up first: not assigned, pending, not ready, crowded, ready for a shorter time,
/// restarted more often, younger.
pub fn first_to_go(mut pods: Vec<&Value>, crowd: impl Fn(&Value) -> usize) -> Vec<&Value> {
    pods.sort_by_cached_key(|pod| {
        let phase = match phase(pod) {
            "Pending" | "" => 0,
            "Running" => 2,
            _ => 1,
        };
        let ready_since = condition(pod, "Ready").and_then(|ready| time(&ready["lastTransitionTime"]));
        let restarts = list_of(&pod["status"]["containerStatuses"])
            .iter()
            .filter_map(|status| status["restartCount"].as_i64())
            .max()
            .unwrap_or_default();
        (
            !text(&pod["spec"]["nodeName"]).is_empty(),
            phase,
            is_ready(pod),
            std::cmp::Reverse(crowd(pod)),
            std::cmp::Reverse(ready_since.filter(|_| is_ready(pod))),
            std::cmp::Reverse(restarts),
            std::cmp::Reverse(born(pod)),
            text(&pod["metadata"]["name"]).to_owned(),
        )
    });
    pods
}

/// The object with another status; `None` if it is the same.
pub fn with_status(object: &Value, status: Value) -> Option<Value> {
    if object["status"] == status {
        return None;
    }
    let mut object = object.clone();
    object["status"] = status;
    Some(object)
}

/// Adds a number to a status, which leaves out zeros.
pub fn count(status: &mut Value, field: &str, number: i64) {
    if number != 0 {
        status[field] = number.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_useful_pod_goes_first() {
        let pod = |name: &str, node: &str, phase: &str, ready_since: &str, born: &str| {
            let ready = json!({"type": "Ready", "status": if ready_since.is_empty() { "False" } else { "True" },
                "lastTransitionTime": ready_since});
            json!({
                "metadata": {"name": name, "creationTimestamp": born}, "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": [ready]},
            })
        };
        let (early, late) = ("2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z");
        let pods = [
            pod("old", "node1", "Running", early, early),
            pod("young", "node1", "Running", early, late),
            pod("new-ready", "node1", "Running", late, early),
            pod("crowded", "node2", "Running", early, early),
            pod("not-ready", "node1", "Running", "", early),
            pod("pending", "node1", "Pending", "", early),
            pod("unassigned", "", "Pending", "", early),
        ];
        let crowd = |pod: &Value| usize::from(pod["spec"]["nodeName"] == "node2");
        let order = first_to_go(pods.iter().collect(), crowd);
        let names: Vec<&str> = order.iter().map(|pod| text(&pod["metadata"]["name"])).collect();
        assert_eq!(names, ["unassigned", "pending", "not-ready", "crowded", "new-ready", "young", "old"]);
    }
}
