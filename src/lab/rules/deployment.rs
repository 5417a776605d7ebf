//! Deployments.

use super::field::{
    drop_nulls, fill, fill_text, go_int_or_string, invalid_go, keep_status, not_negative, sub, unsupported_go,
};
use super::replica_set::validate_template;
use super::{Rules, pod_limits, pod_spec, selector};
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::{Value, json};

pub const RULES: Rules = Rules {
    unsimulated: pod_limits::of_template,
    default,
    prepare: |new, old| keep_status(new, old, json!({})),
    validate,
    validate_update: selector::immutable,
    validate_status,
};

/// The fields of the spec that 1.20 knows.
const FIELDS: [&str; 8] = [
    "replicas",
    "selector",
    "template",
    "strategy",
    "minReadySeconds",
    "revisionHistoryLimit",
    "paused",
    "progressDeadlineSeconds",
];

fn default(deployment: &mut Value) {
    let spec = sub(deployment, "spec");
    drop_nulls(spec);
    super::field::keep(spec, &FIELDS);
    pod_spec::default_template(spec);
    fill(spec, "replicas", 1);
    let strategy = sub(spec, "strategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = sub(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    }
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
}

fn validate(deployment: &Value) -> Vec<Cause> {
    let spec = &deployment["spec"];
    let mut causes = Vec::new();
    not_negative("spec.replicas", &spec["replicas"], &mut causes);
    selector::validate_of_workload(deployment, "deployment", &mut causes);
    validate_template(deployment, &mut causes);
    strategy(&spec["strategy"], &mut causes);
    not_negative("spec.minReadySeconds", &spec["minReadySeconds"], &mut causes);
    not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"], &mut causes);
    let deadline = &spec["progressDeadlineSeconds"];
    not_negative("spec.progressDeadlineSeconds", deadline, &mut causes);
    if deadline.as_i64().is_some_and(|seconds| seconds <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        let why = "must be greater than minReadySeconds";
        causes.push(Cause::invalid("spec.progressDeadlineSeconds", deadline, why));
    }
    causes
}

fn strategy(strategy: &Value, causes: &mut Vec<Cause>) {
    const ROLLING: &str = "spec.strategy.rollingUpdate";
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "Recreate" if rolling.is_object() => {
            causes.push(Cause::forbidden(ROLLING, "may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            share(&format!("{ROLLING}.maxUnavailable"), unavailable, causes);
            share(&format!("{ROLLING}.maxSurge"), surge, causes);
            let is_zero = |value: &Value| value == 0 || value == "0%";
            if is_zero(unavailable) && is_zero(surge) {
                let field = format!("{ROLLING}.maxUnavailable");
                let why = "may not be 0 when `maxSurge` is 0";
                causes.push(invalid_go(&field, &go_int_or_string(unavailable), why));
            }
            at_most_all(&format!("{ROLLING}.maxUnavailable"), unavailable, causes);
        }
        other => {
            let rolling = if rolling.is_object() { "0xc000000000" } else { "nil" };
            let go = format!(
                "apps.DeploymentStrategy{{Type:\"{other}\", RollingUpdate:(*apps.RollingUpdateDeployment)({rolling})}}"
            );
            causes.push(unsupported_go("spec.strategy", &go, &["Recreate", "RollingUpdate"]));
        }
    }
}

/// A number of pods or a percentage of them.
pub fn share(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    match value {
        Value::String(text) => {
            let number = text.strip_suffix('%').unwrap_or_default();
            if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit()) {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
                causes.push(invalid_go(field, &go_int_or_string(value), why));
            }
        }
        other => not_negative(field, other, causes),
    }
}

pub fn at_most_all(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|text| text.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        causes.push(invalid_go(field, &go_int_or_string(value), "must not be greater than 100%"));
    }
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let status = &new["status"];
    let mut causes = Vec::new();
    for key in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ] {
        not_negative(&format!("status.{key}"), &status[key], &mut causes);
    }
    not_more(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], &mut causes);
    not_more_than_ready(status, &mut causes);
    not_fewer_collisions(new, old, &mut causes);
    causes
}

/// Parts of `status.replicas`.
pub fn not_more(status: &Value, keys: &[&str], causes: &mut Vec<Cause>) {
    let count = |key: &str| status[key].as_i64().unwrap_or(0);
    for key in keys {
        if count(key) > count("replicas") {
            let why = "cannot be greater than status.replicas";
            causes.push(Cause::invalid(format!("status.{key}"), &count(key).into(), why));
        }
    }
}

pub fn not_more_than_ready(status: &Value, causes: &mut Vec<Cause>) {
    let count = |key: &str| status[key].as_i64().unwrap_or(0);
    let available = count("availableReplicas");
    if available > count("readyReplicas") {
        let why = "cannot be greater than readyReplicas";
        causes.push(Cause::invalid("status.availableReplicas", &available.into(), why));
    }
}

/// The count of collisions only grows.
pub fn not_fewer_collisions(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    const KEY: &str = "collisionCount";
    if let Some(before) = old["status"][KEY].as_i64() {
        let now = new["status"][KEY].as_i64().unwrap_or(0);
        if new["status"][KEY].is_null() || now < before {
            causes.push(Cause::invalid("status.collisionCount", &now.into(), "cannot be decremented"));
        }
    }
}
