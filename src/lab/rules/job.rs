//! Jobs: their selector is made from their uid, so it must be known before `prepare`.

use super::field::{drop_nulls, fill, immutable, invalid_go, is_empty, keep_status, not_negative, set, sub};
use super::{Rules, pod_limits, pod_spec, selector};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::{Value, json};

pub const RULES: Rules =
    Rules { unsimulated: pod_limits::of_template, default, prepare, validate, validate_update, validate_status };

/// The fields of the spec that 1.20 knows and has switched on.
const FIELDS: [&str; 7] =
    ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "selector", "manualSelector", "template"];

fn default(job: &mut Value) {
    default_spec(sub(job, "spec"));
    // What has labels keeps them; the others get their template's.
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let metadata = sub(job, "metadata");
    if is_empty(&metadata["labels"]) && !is_empty(&labels) {
        set(metadata, "labels", labels);
    }
}

/// Also of the jobs that a CronJob makes.
fn default_spec(spec: &mut Value) {
    drop_nulls(spec);
    super::field::keep(spec, &FIELDS);
    pod_spec::default_template(spec);
    // Neither said means one pod; only parallelism means a queue.
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    fill(spec, "backoffLimit", 6);
}

fn prepare(job: &mut Value, old: Option<&Value>) {
    keep_status(job, old, json!({}));
    if old.is_some() || job["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    let inherits = is_empty(&job["metadata"]["labels"])
        || job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"];
    let spec = sub(job, "spec");
    let labels = sub(sub(sub(spec, "template"), "metadata"), "labels");
    fill(labels, "job-name", name);
    fill(labels, "controller-uid", uid.clone());
    let labels = labels.clone();
    fill(sub(sub(spec, "selector"), "matchLabels"), "controller-uid", uid);
    if inherits {
        set(sub(job, "metadata"), "labels", labels);
    }
}

fn validate(job: &Value) -> Vec<Cause> {
    let spec = &job["spec"];
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let mut causes = Vec::new();
    if spec["manualSelector"] != true && selector.is_object() {
        let (uid, name) = (text(&job["metadata"]["uid"]), text(&job["metadata"]["name"]));
        meta::has_label("spec.template.metadata", labels, "controller-uid", uid, &mut causes);
        meta::has_label("spec.template.metadata", labels, "job-name", name, &mut causes);
        let expected = json!({"controller-uid": uid, "job-name": name});
        if selector::is_usable(selector) && !selector::picks(selector, &expected) {
            causes.push(invalid_go("spec.selector", &selector::go(selector), "`selector` not auto-generated"));
        }
    }
    causes.extend(validate_spec(job));
    causes
}

/// All but how the selector came to be.
fn validate_spec(job: &Value) -> Vec<Cause> {
    let spec = &job["spec"];
    let selector = &spec["selector"];
    let labels = &spec["template"]["metadata"]["labels"];
    let mut causes = Vec::new();
    for key in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit"] {
        not_negative(&format!("spec.{key}"), &spec[key], &mut causes);
    }
    match selector.is_object() {
        true => causes.extend(selector::validate("spec.selector", selector)),
        false => causes.push(Cause::required("spec.selector", "")),
    }
    if selector::is_usable(selector) && selector.is_object() && !selector::picks(selector, labels) {
        causes.push(selector::does_not_match(labels));
    }
    causes.extend(pod_spec::validate_template("spec.template", &spec["template"]));
    restart("spec.template.spec", &spec["template"]["spec"], &mut causes);
    causes
}

/// Pods of jobs end.
pub fn restart(field: &str, spec: &Value, causes: &mut Vec<Cause>) {
    if !["OnFailure", "Never"].contains(&text(&spec["restartPolicy"])) {
        let why = "valid values: \"OnFailure\", \"Never\"";
        causes.push(Cause::required(format!("{field}.restartPolicy"), why));
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    // The real server looks at the spec twice when it is changed.
    let mut causes = validate_spec(new);
    if new["spec"]["completions"] != old["spec"]["completions"] {
        causes.push(immutable("spec.completions", &new["spec"]["completions"]));
    }
    causes.extend(selector::immutable(new, old));
    if new["spec"]["template"] != old["spec"]["template"] {
        causes.push(invalid_go("spec.template", "core.PodTemplateSpec{…}", "field is immutable"));
    }
    causes
}

fn validate_status(new: &Value, _old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for key in ["active", "succeeded", "failed"] {
        not_negative(&format!("status.{key}"), &new["status"][key], &mut causes);
    }
    causes
}
