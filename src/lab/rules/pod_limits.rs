//! What of a pod the lab would have to ignore although it changes behaviour: refused, not ignored.
//!
//! Not what Kubernetes refuses (`pod_spec`). Used by every kind that has pods. What must stay true: whatever is not
//! named here either works or does not matter to volumes.

use super::field::is_empty;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

/// Sources that the lab can mount.
const SOURCES: [&str; 5] = ["persistentVolumeClaim", "emptyDir", "configMap", "secret", "hostPath"];

/// Of the spec at this path, as it was sent.
pub fn unsimulated(field: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut refuse = |key: &str, what: &str| causes.push(Cause::unsimulated(format!("{field}.{key}"), what));
    for (key, what) in [
        ("initContainers", "init containers"),
        ("ephemeralContainers", "ephemeral containers"),
        ("topologySpreadConstraints", "topology spread"),
        ("priorityClassName", "priorities"),
        ("readinessGates", "readiness gates"),
        ("runtimeClassName", "runtime classes"),
        ("overhead", "overhead"),
    ] {
        if !is_empty(&spec[key]) {
            refuse(key, what);
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        if !is_empty(&spec["affinity"][key][required]) {
            refuse(&format!("affinity.{key}.{required}"), "affinity between pods");
        }
    }
    for (at, volume) in list_of(&spec["volumes"]).iter().enumerate() {
        for (source, value) in super::field::entries(volume) {
            if source != "name" && !value.is_null() && !SOURCES.contains(&source) {
                refuse(&format!("volumes[{at}].{source}"), &format!("volumes of type {source}"));
            }
        }
        if volume["persistentVolumeClaim"].is_null() {
            continue;
        }
        let name = text(&volume["name"]);
        if name.contains('/') {
            refuse(&format!("volumes[{at}].name"), "slashes in names");
        }
    }
    for (at, container) in list_of(&spec["containers"]).iter().enumerate() {
        for (key, what) in [
            ("lifecycle", "lifecycle hooks"),
            ("livenessProbe", "probes"),
            ("readinessProbe", "probes"),
            ("startupProbe", "probes"),
        ] {
            if !is_empty(&container[key]) {
                refuse(&format!("containers[{at}].{key}"), what);
            }
        }
        for (nth, mount) in list_of(&container["volumeMounts"]).iter().enumerate() {
            for key in ["subPath", "subPathExpr", "mountPropagation"] {
                if !is_empty(&mount[key]) && mount[key] != "None" {
                    refuse(&format!("containers[{at}].volumeMounts[{nth}].{key}"), key);
                }
            }
        }
    }
    causes
}

/// Of the template of a workload.
pub fn of_template(object: &Value) -> Vec<Cause> {
    unsimulated("spec.template.spec", &object["spec"]["template"]["spec"])
}
