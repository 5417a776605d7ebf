//! Kinds whose objects are only data in the lab: CronJob, HorizontalPodAutoscaler, ReplicationController.
//!
//! Their controllers do not exist, so they are refused unless marked inert. What must stay true: an inert one is
//! stored as the real server stores it.

use super::deployment::not_more;
use super::field::{drop_nulls, fill, fill_text, is_empty, keep_status, need, not_negative, one_of, set, sub};
use super::{Rules, job, pod_spec, selector};
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::{Value, json};

pub const REPLICATION_CONTROLLER: Rules = Rules {
    unsimulated: |_| vec![Cause::unsimulated("kind", "ReplicationControllers")],
    default: default_rc,
    prepare: |new, old| keep_status(new, old, json!({"replicas": 0})),
    validate: validate_rc,
    validate_status: |new, _| {
        let mut causes = Vec::new();
        not_more(&new["status"], &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], &mut causes);
        causes
    },
    ..super::PLAIN
};

pub const CRON_JOB: Rules = Rules {
    unsimulated: |_| vec![Cause::unsimulated("kind", "CronJobs")],
    default: default_cron,
    prepare: |new, old| keep_status(new, old, json!({})),
    validate: validate_cron,
    ..super::PLAIN
};

pub const HORIZONTAL_POD_AUTOSCALER: Rules = Rules {
    unsimulated: |_| vec![Cause::unsimulated("kind", "HorizontalPodAutoscalers")],
    default: |hpa| {
        let spec = sub(hpa, "spec");
        drop_nulls(spec);
        fill(spec, "minReplicas", 1);
        fill(spec, "targetCPUUtilizationPercentage", 80);
    },
    prepare: |new, old| keep_status(new, old, json!({"currentReplicas": 0, "desiredReplicas": 0})),
    validate: validate_hpa,
    ..super::PLAIN
};

fn default_rc(controller: &mut Value) {
    let spec = sub(controller, "spec");
    drop_nulls(spec);
    pod_spec::default_template(spec);
    fill(spec, "replicas", 1);
    let labels = spec["template"]["metadata"]["labels"].clone();
    if is_empty(&spec["selector"]) && !is_empty(&labels) {
        set(spec, "selector", labels.clone());
    }
    let metadata = sub(controller, "metadata");
    if is_empty(&metadata["labels"]) && !is_empty(&labels) {
        set(metadata, "labels", labels);
    }
    fill(sub(controller, "status"), "replicas", 0);
}

fn validate_rc(controller: &Value) -> Vec<Cause> {
    let spec = &controller["spec"];
    let mut causes = Vec::new();
    not_negative("spec.minReadySeconds", &spec["minReadySeconds"], &mut causes);
    need("spec.selector", &spec["selector"], &mut causes);
    not_negative("spec.replicas", &spec["replicas"], &mut causes);
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector::picks(&json!({"matchLabels": spec["selector"]}), labels) {
        causes.push(selector::does_not_match(labels));
    }
    causes.extend(pod_spec::validate_template("spec.template", &spec["template"]));
    pod_spec::must_restart_always(controller, "ReplicationController", &mut causes);
    causes
}

fn default_cron(cron: &mut Value) {
    let spec = sub(cron, "spec");
    drop_nulls(spec);
    fill_text(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    let template = sub(spec, "jobTemplate");
    set(sub(template, "metadata"), "creationTimestamp", Value::Null);
    pod_spec::default_template(sub(template, "spec"));
}

fn validate_cron(cron: &Value) -> Vec<Cause> {
    let spec = &cron["spec"];
    let mut causes = Vec::new();
    let schedule = text(&spec["schedule"]);
    let fields = schedule.split_whitespace().count();
    if need("spec.schedule", &spec["schedule"], &mut causes) && !schedule.starts_with('@') && fields != 5 {
        let why = format!("Expected exactly 5 fields, found {fields}: {schedule}");
        causes.push(Cause::invalid("spec.schedule", &spec["schedule"], &why));
    }
    let policies = ["Allow", "Forbid", "Replace"];
    one_of("spec.concurrencyPolicy", &spec["concurrencyPolicy"], &policies, &mut causes);
    let template = &spec["jobTemplate"]["spec"]["template"];
    causes.extend(pod_spec::validate_template("spec.jobTemplate.spec.template", template));
    job::restart("spec.jobTemplate.spec.template.spec", &template["spec"], &mut causes);
    causes
}

fn validate_hpa(hpa: &Value) -> Vec<Cause> {
    let spec = &hpa["spec"];
    let mut causes = Vec::new();
    let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if least < 1 {
        causes.push(Cause::invalid("spec.minReplicas", &least.into(), "must be greater than or equal to 1"));
    }
    if most < 1 {
        causes.push(Cause::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    } else if most < least {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &most.into(), why));
    }
    for key in ["kind", "name"] {
        need(&format!("spec.scaleTargetRef.{key}"), &spec["scaleTargetRef"][key], &mut causes);
    }
    if least == 0 {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        causes.push(Cause::forbidden("spec.metrics", why));
    }
    causes
}
