//! StatefulSets: the only workload whose claims are templates too.
//!
//! Their pods' specs are not checked here: the real server finds mistakes when the pods are made.

use super::deployment::{not_fewer_collisions, not_more};
use super::field::{
    drop_empty, drop_nulls, each, fill, fill_text, invalid_go, is_empty, keep_status, not_negative, set, sub,
};
use super::{Rules, persistent_volume_claim, pod_limits, pod_spec, selector};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

pub const RULES: Rules = Rules {
    unsimulated,
    default,
    prepare: |new, old| keep_status(new, old, json!({"replicas": 0})),
    validate,
    validate_update,
    validate_status,
};

/// The fields of the spec that 1.20 knows.
const FIELDS: [&str; 8] = [
    "replicas",
    "selector",
    "template",
    "volumeClaimTemplates",
    "serviceName",
    "podManagementPolicy",
    "updateStrategy",
    "revisionHistoryLimit",
];

fn unsimulated(set: &Value) -> Vec<Cause> {
    let mut causes = pod_limits::of_template(set);
    for (at, claim) in list_of(&set["spec"]["volumeClaimTemplates"]).iter().enumerate() {
        if !is_empty(&claim["spec"]["dataSource"]) {
            let field = format!("spec.volumeClaimTemplates[{at}].spec.dataSource");
            causes.push(Cause::unsimulated(field, "volumes that are made from others"));
        }
    }
    causes
}

fn default(stateful: &mut Value) {
    let spec = sub(stateful, "spec");
    drop_nulls(spec);
    super::field::keep(spec, &FIELDS);
    pod_spec::default_template(spec);
    fill(spec, "replicas", 1);
    fill_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = sub(spec, "updateStrategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(sub(strategy, "rollingUpdate"), "partition", 0);
    }
    fill(spec, "revisionHistoryLimit", 10);
    drop_empty(spec, &["volumeClaimTemplates"]);
    for claim in each(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        let metadata = sub(claim, "metadata");
        drop_empty(metadata, &["labels", "annotations"]);
        set(metadata, "creationTimestamp", Value::Null);
        persistent_volume_claim::default(claim);
    }
    fill(sub(stateful, "status"), "replicas", 0);
}

fn validate(set: &Value) -> Vec<Cause> {
    let spec = &set["spec"];
    let mut causes = Vec::new();
    if !["OrderedReady", "Parallel"].contains(&text(&spec["podManagementPolicy"])) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        causes.push(Cause::invalid("spec.podManagementPolicy", &spec["podManagementPolicy"], why));
    }
    strategy(&spec["updateStrategy"], &mut causes);
    not_negative("spec.replicas", &spec["replicas"], &mut causes);
    selector::validate_of_workload(set, "statefulset", &mut causes);
    if selector::validate_template_labels(set, "", &mut causes) {
        causes.extend(pod_spec::validate_template_metadata("spec.template", &spec["template"]));
    }
    pod_spec::must_restart_always(set, "StatefulSet", &mut causes);
    causes
}

fn strategy(strategy: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.updateStrategy";
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "OnDelete" if rolling.is_object() => {
            let shown = format!(
                "apps.RollingUpdateStatefulSetStrategy{{Partition:{}}}",
                rolling["partition"].as_i64().unwrap_or(0)
            );
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            causes.push(invalid_go(&format!("{FIELD}.rollingUpdate"), &shown, why));
        }
        "OnDelete" => {}
        "RollingUpdate" => not_negative(&format!("{FIELD}.rollingUpdate.partition"), &rolling["partition"], causes),
        other => {
            let rolling = if rolling.is_object() { "0xc000000000" } else { "nil" };
            let shown = format!(
                "apps.StatefulSetUpdateStrategy{{Type:\"{other}\", \
                 RollingUpdate:(*apps.RollingUpdateStatefulSetStrategy)({rolling})}}"
            );
            causes.push(invalid_go(FIELD, &shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let rest = |set: &Value| {
        let mut spec = set["spec"].clone();
        for key in ["replicas", "template", "updateStrategy"] {
            super::field::drop_key(&mut spec, key);
        }
        drop_nulls(&mut spec);
        spec
    };
    let mut causes = Vec::new();
    let why = "updates to statefulset spec for fields other than 'replicas', 'template', and 'updateStrategy' are \
               forbidden";
    if rest(new) != rest(old) {
        causes.push(Cause::forbidden("spec", why));
    }
    // Asked a second time, behind the other rules.
    not_negative("spec.replicas", &new["spec"]["replicas"], &mut causes);
    causes
}

fn validate_status(new: &Value, old: &Value) -> Vec<Cause> {
    let status = &new["status"];
    let mut causes = Vec::new();
    for key in
        ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "observedGeneration", "collisionCount"]
    {
        not_negative(&format!("status.{key}"), &status[key], &mut causes);
    }
    not_more(status, &["readyReplicas", "currentReplicas", "updatedReplicas"], &mut causes);
    not_fewer_collisions(new, old, &mut causes);
    causes
}
