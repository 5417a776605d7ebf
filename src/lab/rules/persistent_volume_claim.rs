//! PersistentVolumeClaims: what may be asked for, and how little of it may change.
//!
//! Not which volume they get (`act`), and not whether they may grow (`admit`).

use super::field::{
    drop_empty, drop_nulls, entries, fill_text, immutable, is_empty, keep_status, one_of, quantity, set, sub, wrong,
};
use super::persistent_volume::{ACCESS_MODES, positive};
use super::{Rules, selector};
use crate::lab::meta;
use crate::lab::quantity::{self, Quantity};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

pub const RULES: Rules = Rules { unsimulated, default, prepare, validate, validate_update, validate_status };

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The fields of the spec that 1.20 knows.
const FIELDS: [&str; 7] =
    ["accessModes", "selector", "resources", "volumeName", "storageClassName", "volumeMode", "dataSource"];

fn unsimulated(claim: &Value) -> Vec<Cause> {
    let spec = &claim["spec"];
    let is_clone =
        text(&spec["dataSource"]["kind"]) == "PersistentVolumeClaim" && is_empty(&spec["dataSource"]["apiGroup"]);
    [("dataSource", is_clone), ("dataSourceRef", false)]
        .into_iter()
        .filter(|(key, is_simulated)| !is_empty(&spec[*key]) && !is_simulated)
        .map(|(key, _)| Cause::unsimulated(format!("spec.{key}"), "volumes that are made from others than claims"))
        .collect()
}

pub fn default(claim: &mut Value) {
    default_spec(sub(claim, "spec"));
    let status = sub(claim, "status");
    fill_text(status, "phase", "Pending");
    if let Some(capacity) = status.get_mut("capacity") {
        quantity::tidy(capacity);
    }
}

fn default_spec(spec: &mut Value) {
    drop_nulls(spec);
    super::field::keep(spec, &FIELDS);
    let resources = sub(spec, "resources");
    for list in ["requests", "limits"] {
        if let Some(list) = resources.get_mut(list) {
            quantity::tidy(list);
        }
    }
    fill_text(spec, "volumeMode", "Filesystem");
    drop_empty(spec, &["volumeName"]);
    // The one field that the server shows although there is nothing in it.
    if let Some(source) = spec.get_mut("dataSource").filter(|source| source.is_object()) {
        *source = json!({"apiGroup": source["apiGroup"], "kind": source["kind"], "name": source["name"]});
    }
}

fn prepare(claim: &mut Value, old: Option<&Value>) {
    keep_status(claim, old, json!({"phase": "Pending"}));
}

fn validate(claim: &Value) -> Vec<Cause> {
    let spec = &claim["spec"];
    let mut causes = Vec::new();
    if spec["selector"].is_object() {
        causes.extend(selector::validate("spec.selector", &spec["selector"]));
    }
    if is_empty(&spec["accessModes"]) {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    for mode in list_of(&spec["accessModes"]) {
        one_of("spec.accessModes", mode, &ACCESS_MODES, &mut causes);
    }
    const STORAGE: &str = "spec.resources[storage]";
    match &spec["resources"]["requests"]["storage"] {
        Value::Null => causes.push(Cause::required(STORAGE, "")),
        amount => positive(STORAGE, amount, &mut causes),
    }
    let class = text(&spec["storageClassName"]);
    if !class.is_empty() {
        causes.extend(wrong("spec.storageClassName", class, &meta::dns1123_subdomain(class)));
    }
    one_of("spec.volumeMode", &spec["volumeMode"], &["Block", "Filesystem"], &mut causes);
    if spec["dataSource"].is_object() && is_empty(&spec["dataSource"]["name"]) {
        causes.push(Cause::required("spec.dataSource.name", ""));
    }
    causes
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    // The real server says what differs too, on lines of its own.
    const IMMUTABLE: &str = "spec is immutable after creation except resources.requests for bound claims";
    const STORAGE: &str = "spec.resources.requests.storage";
    let mut causes = Vec::new();
    let (mut after, mut before) = (new["spec"].clone(), old["spec"].clone());
    if is_empty(&before["volumeName"]) {
        set(&mut before, "volumeName", after["volumeName"].clone());
    }
    let class_of = |claim: &Value| claim["metadata"]["annotations"][CLASS_ANNOTATION].clone();
    let (new_class, old_class) = (class_of(new), class_of(old));
    // The old annotation may become the field of the same value.
    let is_upgrade = old_class.is_string()
        && new_class.is_null()
        && before["storageClassName"].is_null()
        && after["storageClassName"] == old_class;
    if is_upgrade {
        set(&mut after, "storageClassName", Value::Null);
    } else if text(&new_class) != text(&old_class) {
        let field = format!("metadata.annotations.{CLASS_ANNOTATION}");
        causes.push(immutable(&field, &text(&new_class).into()));
    }
    let amount = |claim: &Value| Quantity::of(&claim["spec"]["resources"]["requests"]["storage"]);
    if new["status"]["phase"] == "Bound" && after["resources"]["requests"].is_object() {
        let same = before["resources"]["requests"]["storage"].clone();
        set(&mut after["resources"]["requests"], "storage", same);
    }
    drop_nulls(&mut after);
    drop_nulls(&mut before);
    if after != before {
        causes.push(Cause::forbidden("spec", IMMUTABLE));
    }
    if amount(new) < amount(old) {
        causes.push(Cause::forbidden(STORAGE, "field can not be less than previous value"));
    }
    if new["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
        causes.push(immutable("volumeMode", &new["spec"]["volumeMode"]));
    }
    causes
}

fn validate_status(new: &Value, _old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, amount) in entries(&new["status"]["capacity"]) {
        let field = format!("status.capacity[{name}]");
        if quantity(&field, amount, &mut causes).is_some_and(Quantity::is_negative) {
            let value = Quantity::of(amount).map_or(0, Quantity::as_i64).into();
            causes.push(Cause::invalid(field, &value, "must be a valid resource quantity"));
        }
    }
    causes
}
