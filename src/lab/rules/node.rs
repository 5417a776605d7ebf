//! Nodes: their status comes from whoever registers them, their taints from anybody.

use super::Rules;
use super::field::{each, fill, is_empty, one_of, set, sub, wrong};
use crate::lab::meta;
use crate::lab::quantity;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

pub const RULES: Rules = Rules { default, prepare, validate, validate_update, ..super::PLAIN };

fn default(node: &mut Value) {
    sub(node, "spec");
    let status = sub(node, "status");
    for list in ["capacity", "allocatable"] {
        if let Some(list) = status.get_mut(list) {
            quantity::tidy(list);
        }
    }
    if !is_empty(&status["capacity"]) {
        let capacity = status["capacity"].clone();
        fill(status, "allocatable", capacity);
    }
    fill(sub(sub(status, "daemonEndpoints"), "kubeletEndpoint"), "Port", 0);
    let info = sub(status, "nodeInfo");
    for key in [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ] {
        fill(info, key, "");
    }
    for taint in each(sub(node, "spec"), "taints") {
        super::field::drop_empty(taint, &["value", "timeAdded"]);
    }
    super::field::drop_empty(sub(node, "spec"), &["taints"]);
}

fn prepare(node: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        set(node, "status", old["status"].clone());
    }
}

fn validate(node: &Value) -> Vec<Cause> {
    let taints = list_of(&node["spec"]["taints"]);
    let mut causes = Vec::new();
    for (at, taint) in taints.iter().enumerate() {
        // The real server says `metadata` here, and so do we.
        let field = format!("metadata.taints[{at}]");
        let (key, value) = (text(&taint["key"]), text(&taint["value"]));
        causes.extend(wrong(&format!("{field}.key"), key, &meta::qualified_name(key)));
        causes.extend(wrong(&format!("{field}.value"), value, &meta::label_value(value)));
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        one_of(&format!("{field}.effect"), &taint["effect"], &effects, &mut causes);
        let same = |one: &Value| one["key"] == taint["key"] && one["effect"] == taint["effect"];
        if taints[..at].iter().any(same) {
            let message = format!(
                "Duplicate value: core.Taint{{Key:\"{key}\", Value:\"{value}\", Effect:\"{}\", TimeAdded:<nil>}}: \
                 taints must be unique by key and effect pair",
                text(&taint["effect"])
            );
            causes.push(Cause { reason: "FieldValueDuplicate", message, field });
        }
    }
    causes
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, field, what) in
        [("podCIDRs", "spec.podCIDRs", "podCIDR"), ("providerID", "spec.providerID", "providerID")]
    {
        let (new, old) = (&new["spec"][key], &old["spec"][key]);
        if !is_empty(old) && new != old {
            let why = format!("node updates may not change {what} except from \"\" to valid");
            causes.push(Cause::forbidden(field, why));
        }
    }
    causes
}
