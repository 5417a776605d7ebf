//! Namespaces: born active, with the finalizer that lets their controller empty them.

use super::Rules;
use super::field::{is_empty, keep_status, set, sub};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

pub const RULES: Rules = Rules { default, prepare, validate, validate_status, ..super::PLAIN };

fn default(namespace: &mut Value) {
    sub(namespace, "spec");
}

fn prepare(namespace: &mut Value, old: Option<&Value>) {
    keep_status(namespace, old, json!({"phase": "Active"}));
    let spec = sub(namespace, "spec");
    match old {
        // Only `/finalize` changes them later.
        Some(old) if old["spec"]["finalizers"].is_array() => set(spec, "finalizers", old["spec"]["finalizers"].clone()),
        Some(_) => super::field::drop_key(spec, "finalizers"),
        None => {
            let mut all = list_of(&spec["finalizers"]).to_vec();
            if !all.contains(&"kubernetes".into()) {
                all.push("kubernetes".into());
            }
            set(spec, "finalizers", all);
        }
    }
}

fn validate(namespace: &Value) -> Vec<Cause> {
    let finalizers = list_of(&namespace["spec"]["finalizers"]).iter().map(text);
    finalizers
        .filter(|name| !meta::is_known_finalizer(name))
        .map(|name| meta::unqualified("spec.finalizers", name))
        .collect()
}

fn validate_status(new: &Value, _old: &Value) -> Vec<Cause> {
    let phase = &new["status"]["phase"];
    let (expected, why) = match is_empty(&new["metadata"]["deletionTimestamp"]) {
        true => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
        false => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    };
    if text(phase) == expected { Vec::new() } else { vec![Cause::invalid("status.Phase", phase, why)] }
}
