//! Pods: what they say when nothing was said, what they may say, and the little that may change.
//!
//! Not templates of pods (`pod_spec`), and not the account and tolerations that admission adds (`admit`).

use super::field::{drop_nulls, each, entries, fill, keep_status, set, sub, wrong};
use super::{Rules, container, pod_limits, pod_spec};
use crate::lab::meta;
use crate::lab::quantity::Quantity;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

pub const RULES: Rules = Rules {
    unsimulated: |pod| pod_limits::unsimulated("spec", &pod["spec"]),
    default,
    prepare,
    validate,
    validate_update,
    validate_status,
};

fn default(pod: &mut Value) {
    let spec = sub(pod, "spec");
    drop_nulls(spec);
    pod_spec::default(spec);
    for one in each(spec, "containers") {
        container::default_requests(one);
    }
    fill(spec, "enableServiceLinks", true);
    let Some(status) = pod.get_mut("status") else { return };
    for one in each(status, "conditions") {
        fill(one, "lastProbeTime", Value::Null);
        fill(one, "lastTransitionTime", Value::Null);
    }
    for one in each(status, "containerStatuses") {
        for (key, value) in [("state", json!({})), ("lastState", json!({})), ("ready", json!(false))] {
            fill(one, key, value);
        }
        for (key, value) in [("restartCount", json!(0)), ("image", json!("")), ("imageID", json!(""))] {
            fill(one, key, value);
        }
    }
}

fn prepare(pod: &mut Value, old: Option<&Value>) {
    let class = qos_class(&pod["spec"]);
    keep_status(pod, old, json!({"phase": "Pending", "qosClass": class}));
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut all_limited = true;
    let mut any = false;
    for one in list_of(&spec["containers"]) {
        let (limits, requests) = (&one["resources"]["limits"], &one["resources"]["requests"]);
        let counts = |list: &Value| {
            entries(list).iter().any(|(name, amount)| {
                ["cpu", "memory"].contains(name) && Quantity::of(amount).is_some_and(|one| !one.is_zero())
            })
        };
        any |= counts(limits) || counts(requests);
        all_limited &= ["cpu", "memory"].iter().all(|name| {
            let limit = Quantity::of(&limits[*name]);
            limit.is_some_and(|one| !one.is_zero()) && Quantity::of(&requests[*name]) == limit
        });
    }
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

fn validate(pod: &Value) -> Vec<Cause> {
    let mut causes = pod_spec::validate("spec", &pod["spec"]);
    for (at, one) in list_of(&pod["spec"]["containers"]).iter().enumerate() {
        let image = text(&one["image"]);
        if image != image.trim() {
            let why = "must not have leading or trailing whitespace";
            causes.push(Cause::invalid(format!("spec.containers[{at}].image"), &one["image"], why));
        }
    }
    causes
}

/// What may change is made equal, then the rest is compared.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`, \
                        `spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` (only \
                        additions to existing tolerations)";
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut causes = Vec::new();
    if list_of(&new["containers"]).len() != list_of(&old["containers"]).len() {
        causes.push(Cause::forbidden("spec.containers", "pod updates may not add or remove containers"));
        return causes;
    }
    deadline(&new["activeDeadlineSeconds"], &old["activeDeadlineSeconds"], &mut causes);
    let key = |one: &Value| {
        let mut one = one.clone();
        super::field::drop_key(&mut one, "tolerationSeconds");
        one
    };
    let kept: Vec<Value> = list_of(&new["tolerations"]).iter().map(key).collect();
    if !list_of(&old["tolerations"]).iter().all(|one| kept.contains(&key(one))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden("spec.tolerations", why));
        return causes;
    }
    let mut same = new.clone();
    for key in ["tolerations", "activeDeadlineSeconds"] {
        set(&mut same, key, old[key].clone());
    }
    for (at, one) in each(&mut same, "containers").enumerate() {
        set(one, "image", old["containers"][at]["image"].clone());
    }
    let mut before = old.clone();
    drop_nulls(&mut same);
    drop_nulls(&mut before);
    if same != before {
        causes.push(Cause::forbidden("spec", ONLY));
    }
    causes
}

fn deadline(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (new.as_i64(), old.as_i64()) {
        (Some(new_value), _) if !(0..=i64::from(i32::MAX)).contains(&new_value) => {
            causes.push(Cause::invalid(FIELD, new, "must be between 0 and 2147483647, inclusive"));
        }
        (Some(new_value), Some(old_value)) if old_value < new_value => {
            causes.push(Cause::invalid(FIELD, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            causes.push(Cause::invalid(FIELD, new, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let node = text(&new["status"]["nominatedNodeName"]);
    let mut causes = Vec::new();
    if !node.is_empty() {
        causes.extend(wrong("status.nominatedNodeName", node, &meta::dns1123_subdomain(node)));
    }
    let policy = text(&old["spec"]["restartPolicy"]);
    for (at, one) in list_of(&new["status"]["containerStatuses"]).iter().enumerate() {
        let before = list_of(&old["status"]["containerStatuses"]).iter().find(|two| two["name"] == one["name"]);
        let Some(ended) = before.map(|before| &before["state"]["terminated"]).filter(|ended| ended.is_object()) else {
            continue;
        };
        let stays = policy == "Never" || (policy == "OnFailure" && ended["exitCode"].as_i64().unwrap_or(0) == 0);
        if stays && one["state"]["terminated"].is_null() {
            let why = "may not be transitioned to non-terminated state";
            causes.push(Cause::forbidden(format!("status.containerStatuses[{at}].state"), why));
        }
    }
    causes
}
