//! DaemonSets: no replicas, and a generation of the template of their own.

use super::deployment::{at_most_all, not_fewer_collisions, share};
use super::field::{
    drop_nulls, fill, fill_text, invalid_go, is_empty, keep_status, not_negative, set, sub, unsupported_go,
};
use super::{Rules, pod_limits, pod_spec, selector};
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::{Value, json};

pub const RULES: Rules =
    Rules { unsimulated: pod_limits::of_template, default, prepare, validate, validate_update, validate_status };

const GENERATION: &str = "deprecated.daemonset.template.generation";
const COUNTS: [&str; 4] = ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

fn default(daemons: &mut Value) {
    let spec = sub(daemons, "spec");
    drop_nulls(spec);
    super::field::keep(spec, &["selector", "template", "updateStrategy", "minReadySeconds", "revisionHistoryLimit"]);
    pod_spec::default_template(spec);
    let strategy = sub(spec, "updateStrategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(sub(strategy, "rollingUpdate"), "maxUnavailable", 1);
    }
    fill(spec, "revisionHistoryLimit", 10);
    let status = sub(daemons, "status");
    for key in COUNTS {
        fill(status, key, 0);
    }
}

fn prepare(daemons: &mut Value, old: Option<&Value>) {
    let zero: serde_json::Map<String, Value> = COUNTS.iter().map(|key| ((*key).to_owned(), json!(0))).collect();
    keep_status(daemons, old, zero.into());
    let generation = match old {
        None => 1,
        Some(old) => {
            let before = text(&old["metadata"]["annotations"][GENERATION]).parse().unwrap_or(1);
            before + u64::from(old["spec"]["template"] != daemons["spec"]["template"])
        }
    };
    set(sub(sub(daemons, "metadata"), "annotations"), GENERATION, generation.to_string());
}

fn validate(daemons: &Value) -> Vec<Cause> {
    let spec = &daemons["spec"];
    let selector = &spec["selector"];
    let mut causes = Vec::new();
    if selector.is_object() {
        causes.extend(selector::validate("spec.selector", selector));
    }
    // Nothing is said of a selector that cannot be used but what is wrong with it.
    let mut said = Vec::new();
    if selector::validate_template_labels(daemons, "", &mut said) {
        causes.append(&mut said);
    }
    if selector.is_object() && is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"]) {
        let why = "empty selector is invalid for daemonset";
        causes.push(invalid_go("spec.selector", &selector::go(selector), why));
    }
    causes.extend(pod_spec::validate_template("spec.template", &spec["template"]));
    pod_spec::must_restart_always(daemons, "DaemonSet", &mut causes);
    not_negative("spec.minReadySeconds", &spec["minReadySeconds"], &mut causes);
    strategy(&spec["updateStrategy"], &mut causes);
    not_negative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"], &mut causes);
    causes
}

fn strategy(strategy: &Value, causes: &mut Vec<Cause>) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            const FIELD: &str = "spec.updateStrategy.rollingUpdate.maxUnavailable";
            let most = &rolling["maxUnavailable"];
            share(FIELD, most, causes);
            if most == 0 || most == "0%" {
                causes.push(invalid_go(FIELD, &super::field::go_int_or_string(most), "cannot be 0"));
            }
            at_most_all(FIELD, most, causes);
        }
        other => {
            let rolling = if rolling.is_object() { "0xc000000000" } else { "nil" };
            let go = format!(
                "apps.DaemonSetUpdateStrategy{{Type:\"{other}\", RollingUpdate:(*apps.RollingUpdateDaemonSet)({rolling})}}"
            );
            causes.push(unsupported_go("spec.updateStrategy", &go, &["RollingUpdate", "OnDelete"]));
        }
    }
}

/// The real server looks at the spec twice when it is changed.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    [validate(new), selector::immutable(new, old)].concat()
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let more =
        ["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount"];
    for key in COUNTS.iter().chain(&more) {
        not_negative(&format!("status.{key}"), &new["status"][*key], &mut causes);
    }
    not_fewer_collisions(new, old, &mut causes);
    causes
}
