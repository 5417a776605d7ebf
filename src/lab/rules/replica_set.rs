//! ReplicaSets, and the template rules that they share with Deployments.

use super::deployment::{not_more, not_more_than_ready};
use super::field::{drop_nulls, fill, keep_status, not_negative, set, sub};
use super::{Rules, pod_limits, pod_spec, selector};
use crate::lab::status::Cause;
use serde_json::{Value, json};

pub const RULES: Rules = Rules {
    unsimulated: pod_limits::of_template,
    default,
    prepare: |new, old| keep_status(new, old, json!({"replicas": 0})),
    validate,
    validate_update,
    validate_status,
};

fn default(replicas: &mut Value) {
    let spec = sub(replicas, "spec");
    drop_nulls(spec);
    super::field::keep(spec, &["replicas", "minReadySeconds", "selector", "template"]);
    pod_spec::default_template(spec);
    fill(spec, "replicas", 1);
    let status = sub(replicas, "status");
    if status["replicas"].is_null() {
        set(status, "replicas", 0);
    }
}

fn validate(replicas: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    not_negative("spec.replicas", &replicas["spec"]["replicas"], &mut causes);
    not_negative("spec.minReadySeconds", &replicas["spec"]["minReadySeconds"], &mut causes);
    // "deployment" is what the real server says here too.
    selector::validate_of_workload(replicas, "deployment", &mut causes);
    validate_template(replicas, &mut causes);
    causes
}

/// The template of pods that are replicas of each other.
pub fn validate_template(object: &Value, causes: &mut Vec<Cause>) {
    if selector::validate_template_labels(object, "invalid label selector", causes) {
        causes.extend(pod_spec::validate_template("spec.template", &object["spec"]["template"]));
        pod_spec::must_restart_always(object, "ReplicaSet", causes);
    }
}

/// The real server looks at the spec twice when it is changed.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    [validate(new), selector::immutable(new, old)].concat()
}

fn validate_status(new: &Value, _old: &Value) -> Vec<Cause> {
    let status = &new["status"];
    let mut causes = Vec::new();
    for key in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        not_negative(&format!("status.{key}"), &status[key], &mut causes);
    }
    not_more(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], &mut causes);
    not_more_than_ready(status, &mut causes);
    causes
}
