//! PersistentVolumes: one source that never changes, and everything around it that may.
//!
//! Not their phases, which the binder writes.

use super::field::{
    drop_empty, drop_nulls, entries, fill, fill_text, immutable, invalid_go, is_empty, keep_status, need,
    no_back_steps, one_of, quantity, required, sub, wrong,
};
use super::{Rules, selector};
use crate::lab::meta;
use crate::lab::quantity::{self, Quantity};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

pub const RULES: Rules = Rules { unsimulated, default, prepare, validate, validate_update, ..super::PLAIN };

/// What a volume may be made of, in the order in which the real server looks.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// The other fields of the spec that 1.20 knows.
const FIELDS: [&str; 8] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
];
/// Those that the lab has directories for.
const SIMULATED: [&str; 4] = ["hostPath", "nfs", "local", "csi"];
pub const ACCESS_MODES: [&str; 3] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce"];

fn unsimulated(pv: &Value) -> Vec<Cause> {
    let spec = &pv["spec"];
    let mut causes = Vec::new();
    for source in SOURCES.iter().filter(|source| spec[**source].is_object() && !SIMULATED.contains(source)) {
        causes.push(Cause::unsimulated(format!("spec.{source}"), format!("volumes of type {source}")));
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        causes.push(Cause::unsimulated("spec.persistentVolumeReclaimPolicy", "recycling"));
    }
    causes
}

fn default(pv: &mut Value) {
    let spec = sub(pv, "spec");
    drop_nulls(spec);
    let known: Vec<&str> = SOURCES.iter().chain(&FIELDS).copied().collect();
    super::field::keep(spec, &known);
    if let Some(capacity) = spec.get_mut("capacity") {
        quantity::tidy(capacity);
    }
    fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill_text(spec, "volumeMode", "Filesystem");
    if spec["hostPath"].is_object() {
        fill(&mut spec["hostPath"], "type", "");
    }
    drop_empty(spec, &["storageClassName", "mountOptions"]);
    fill_text(sub(pv, "status"), "phase", "Pending");
}

fn prepare(pv: &mut Value, old: Option<&Value>) {
    keep_status(pv, old, json!({"phase": "Pending"}));
}

fn validate(pv: &Value) -> Vec<Cause> {
    let spec = &pv["spec"];
    let mut causes = Vec::new();
    if is_empty(&spec["accessModes"]) {
        causes.push(required("spec.accessModes"));
    }
    for mode in list_of(&spec["accessModes"]) {
        one_of("spec.accessModes", mode, &ACCESS_MODES, &mut causes);
    }
    capacity(&spec["capacity"], &mut causes);
    let policies = ["Delete", "Recycle", "Retain"];
    one_of("spec.persistentVolumeReclaimPolicy", &spec["persistentVolumeReclaimPolicy"], &policies, &mut causes);
    let affinity = &spec["nodeAffinity"];
    if affinity.is_object() {
        const FIELD: &str = "spec.nodeAffinity.required";
        match affinity["required"].is_object() {
            true => causes.extend(selector::validate_node(FIELD, &affinity["required"])),
            false => causes.push(Cause::required(FIELD, "must specify required node constraints")),
        }
    }
    let mut count = 0;
    for source in SOURCES.into_iter().filter(|source| spec[*source].is_object()) {
        count += 1;
        if count > 1 {
            causes.push(Cause::forbidden(format!("spec.{source}"), "may not specify more than 1 volume type"));
            continue;
        }
        validate_source(source, &spec[source], &mut causes);
        if source == "local" && !affinity.is_object() {
            causes.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
        }
    }
    if count == 0 {
        causes.push(Cause::required("spec", "must specify a volume type"));
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" && spec["hostPath"]["path"] == "/" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        causes.push(Cause::forbidden("spec.persistentVolumeReclaimPolicy", why));
    }
    let class = text(&spec["storageClassName"]);
    if !class.is_empty() {
        causes.extend(wrong("spec.storageClassName", class, &meta::dns1123_subdomain(class)));
    }
    one_of("spec.volumeMode", &spec["volumeMode"], &["Block", "Filesystem"], &mut causes);
    causes
}

fn capacity(capacity: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "spec.capacity";
    if is_empty(capacity) {
        causes.push(required(FIELD));
    }
    let all = entries(capacity);
    if capacity["storage"].is_null() || all.len() > 1 {
        let shown: Vec<String> = all
            .iter()
            .map(|(name, amount)| format!("\"{name}\":{}", Quantity::of(amount).unwrap_or(Quantity::ZERO).go()))
            .collect();
        let go = match capacity {
            Value::Null => "core.ResourceList(nil)".to_owned(),
            _ => format!("core.ResourceList{{{}}}", shown.join(", ")),
        };
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {go}: supported values: \"storage\""),
            field: FIELD.into(),
        });
    }
    for (name, amount) in all {
        positive(&format!("{FIELD}[{name}]"), amount, causes);
    }
}

/// An amount greater than nothing.
pub fn positive(field: &str, amount: &Value, causes: &mut Vec<Cause>) {
    let Some(found) = quantity(field, amount, causes) else { return };
    if found.is_negative() || found.is_zero() {
        causes.push(Cause::invalid(field, &found.to_string().into(), "must be greater than zero"));
    }
}

fn validate_source(source: &str, value: &Value, causes: &mut Vec<Cause>) {
    let field = format!("spec.{source}");
    match source {
        "hostPath" | "local" => {
            let field = format!("{field}.path");
            if need(&field, &value["path"], causes) {
                no_back_steps(&field, &value["path"], causes);
            }
        }
        "nfs" => {
            need(&format!("{field}.server"), &value["server"], causes);
            let field = format!("{field}.path");
            need(&field, &value["path"], causes);
            if !text(&value["path"]).starts_with('/') {
                causes.push(Cause::invalid(field, &text(&value["path"]).into(), "must be an absolute path"));
            }
        }
        "csi" => {
            let driver = text(&value["driver"]);
            need(&format!("{field}.driver"), &value["driver"], causes);
            causes.extend(wrong(&format!("{field}.driver"), driver, &meta::dns1123_subdomain(&driver.to_lowercase())));
            need(&format!("{field}.volumeHandle"), &value["volumeHandle"], causes);
        }
        _ => {}
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (&new["spec"], &old["spec"]);
    let mut causes = Vec::new();
    let source = |spec: &Value| {
        let mut only = spec.clone();
        super::field::keep(&mut only, &SOURCES);
        only
    };
    if source(new) != source(old) {
        let why = "spec.persistentvolumesource is immutable after creation";
        causes.push(Cause::forbidden("spec.persistentvolumesource", why));
    }
    if new["volumeMode"] != old["volumeMode"] {
        causes.push(immutable("volumeMode", &new["volumeMode"]));
    }
    if old["nodeAffinity"].is_object() && new["nodeAffinity"] != old["nodeAffinity"] {
        let shown = match new["nodeAffinity"].is_object() {
            true => "core.VolumeNodeAffinity{Required:(*core.NodeSelector)(0xc000000000)}",
            false => "\"null\"",
        };
        causes.push(invalid_go("nodeAffinity", shown, "field is immutable"));
    }
    causes
}
