//! The spec of a pod, alone or in a template: defaults and rules.
//!
//! Not what the lab cannot run of it (`pod_limits`), and not what may change later (`pod`). Used by every kind that
//! has pods.

use super::field::{
    drop_empty, drop_nulls, each, fill, fill_text, is_empty, need, need_named, one_of, set, sub, wrong,
};
use super::{container, field::invalid_go};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

/// Sources of volumes in the order in which the real server looks at them.
pub const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];

/// The fields that 1.20 knows.
const FIELDS: [&str; 35] = [
    "volumes",
    "initContainers",
    "containers",
    "ephemeralContainers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsPolicy",
    "nodeSelector",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "nodeName",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "securityContext",
    "imagePullSecrets",
    "hostname",
    "subdomain",
    "affinity",
    "schedulerName",
    "tolerations",
    "hostAliases",
    "priorityClassName",
    "priority",
    "dnsConfig",
    "readinessGates",
    "runtimeClassName",
    "enableServiceLinks",
    "preemptionPolicy",
    "overhead",
    "topologySpreadConstraints",
    "setHostnameAsFQDN",
];

/// Fills in the spec.
pub fn default(spec: &mut Value) {
    drop_nulls(spec);
    super::field::keep(spec, &FIELDS);
    if is_empty(&spec["serviceAccountName"]) && !is_empty(&spec["serviceAccount"]) {
        let old_name = spec["serviceAccount"].clone();
        set(spec, "serviceAccountName", old_name);
    }
    if !is_empty(&spec["serviceAccountName"]) {
        let name = spec["serviceAccountName"].clone();
        set(spec, "serviceAccount", name);
    }
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "securityContext", json!({}));
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for one in each(spec, list) {
            container::default(one);
            for port in each(one, "ports").filter(|_| host_network) {
                let number = port["containerPort"].clone();
                fill(port, "hostPort", number);
            }
        }
    }
    for volume in each(spec, "volumes") {
        if !SOURCES.iter().any(|source| volume[*source].is_object()) {
            set(volume, "emptyDir", json!({}));
        }
        for source in ["secret", "configMap", "downwardAPI", "projected"] {
            if volume[source].is_object() {
                fill(&mut volume[source], "defaultMode", 420);
            }
        }
        if volume["hostPath"].is_object() {
            fill(&mut volume["hostPath"], "type", "");
        }
        if let Some(limit) = volume.get_mut("emptyDir").filter(|one| one["sizeLimit"].is_string()) {
            crate::lab::quantity::tidy(limit);
        }
    }
    let keys =
        ["nodeName", "volumes", "initContainers", "nodeSelector", "tolerations", "imagePullSecrets", "hostAliases"];
    drop_empty(spec, &keys);
    drop_empty(spec, &["serviceAccountName", "serviceAccount", "hostname", "subdomain", "priorityClassName"]);
    for flag in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[flag] == false {
            super::field::drop_key(spec, flag);
        }
    }
}

/// Fills in a template: its metadata is printed with a creation time of null.
pub fn default_template(owner_spec: &mut Value) {
    let template = sub(owner_spec, "template");
    let metadata = sub(template, "metadata");
    drop_nulls(metadata);
    drop_empty(metadata, &["labels", "annotations", "name", "namespace", "finalizers", "ownerReferences"]);
    set(metadata, "creationTimestamp", Value::Null);
    default(sub(template, "spec"));
}

/// Causes of a template: its metadata, then its spec.
pub fn validate_template(field: &str, template: &Value) -> Vec<Cause> {
    let mut causes = validate_template_metadata(field, template);
    causes.extend(validate(&format!("{field}.spec"), &template["spec"]));
    causes
}

pub fn validate_template_metadata(field: &str, template: &Value) -> Vec<Cause> {
    let metadata = &template["metadata"];
    let mut causes = meta::labels(&format!("{field}.labels"), &metadata["labels"]);
    causes.extend(meta::annotations(&format!("{field}.annotations"), &metadata["annotations"]));
    causes
}

/// Templates of pods that run until they are stopped.
pub fn must_restart_always(object: &Value, what: &str, causes: &mut Vec<Cause>) {
    let spec = &object["spec"]["template"]["spec"];
    one_of("spec.template.spec.restartPolicy", &spec["restartPolicy"], &["Always"], causes);
    if !spec["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {what} is not Supported");
        causes.push(Cause::forbidden("spec.template.spec.activeDeadlineSeconds", why));
    }
}

/// Causes of a pod's spec.
pub fn validate(field: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let volumes = volumes(&format!("{field}.volumes"), list_of(&spec["volumes"]), &mut causes);
    causes.extend(container::validate(&format!("{field}.containers"), list_of(&spec["containers"]), &volumes));
    let restarts = ["Always", "OnFailure", "Never"];
    one_of(&format!("{field}.restartPolicy"), &spec["restartPolicy"], &restarts, &mut causes);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&format!("{field}.dnsPolicy"), &spec["dnsPolicy"], &policies, &mut causes);
    causes.extend(meta::labels(&format!("{field}.nodeSelector"), &spec["nodeSelector"]));
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if required.is_object() {
        let field = format!("{field}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
        causes.extend(super::selector::validate_node(&field, required));
    }
    for key in ["serviceAccountName", "nodeName"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            causes.extend(wrong(&format!("{field}.{key}"), name, &meta::dns1123_subdomain(name)));
        }
    }
    if spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        causes.push(Cause::invalid(format!("{field}.activeDeadlineSeconds"), &spec["activeDeadlineSeconds"], why));
    }
    for key in ["hostname", "subdomain"] {
        let name = text(&spec[key]);
        if !name.is_empty() {
            causes.extend(wrong(&format!("{field}.{key}"), name, &meta::dns1123_label(name)));
        }
    }
    for (at, one) in list_of(&spec["tolerations"]).iter().enumerate() {
        toleration(&format!("{field}.tolerations[{at}]"), one, &mut causes);
    }
    causes
}

/// Says what is wrong with the volumes and returns those that can be mounted.
fn volumes<'a>(field: &str, volumes: &'a [Value], causes: &mut Vec<Cause>) -> Vec<&'a Value> {
    let mut usable: Vec<&Value> = Vec::new();
    for (at, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let mut found = Vec::new();
        let mut sources = 0;
        for source in SOURCES.iter().filter(|source| volume[**source].is_object()) {
            sources += 1;
            if sources > 1 {
                let why = "may not specify more than 1 volume type";
                found.push(Cause::forbidden(format!("{field}.{source}"), why));
                continue;
            }
            let name = match *source {
                "persistentVolumeClaim" => "claimName",
                "secret" => "secretName",
                "configMap" => "name",
                _ => continue,
            };
            need(&format!("{field}.{source}.{name}"), &volume[*source][name], &mut found);
        }
        need_named(&format!("{field}.name"), &volume["name"], &mut found);
        if usable.iter().any(|before| before["name"] == volume["name"]) {
            found.push(Cause::duplicate(format!("{field}.name"), &volume["name"]));
        }
        if found.is_empty() {
            usable.push(volume);
        }
        causes.append(&mut found);
    }
    usable
}

fn toleration(field: &str, one: &Value, causes: &mut Vec<Cause>) {
    let (key, operator, value, effect) =
        (text(&one["key"]), text(&one["operator"]), text(&one["value"]), text(&one["effect"]));
    let at = format!("{field}.operator");
    if !key.is_empty() {
        causes.extend(wrong(&format!("{field}.key"), key, &meta::qualified_name(key)));
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        causes.push(Cause::invalid(&at, &operator.into(), why));
    }
    if !one["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.push(Cause::invalid(format!("{field}.effect"), &effect.into(), why));
    }
    match operator {
        "" | "Equal" => {
            let problems = meta::label_value(value).join(";");
            if !problems.is_empty() {
                causes.push(Cause::invalid(&at, &value.into(), &problems));
            }
        }
        "Exists" if !value.is_empty() => {
            let seconds = if one["tolerationSeconds"].is_null() { "nil" } else { "0xc000000000" };
            let shown = format!(
                "core.Toleration{{Key:\"{key}\", Operator:\"Exists\", Value:\"{value}\", Effect:\"{effect}\", \
                 TolerationSeconds:(*int64)({seconds})}}"
            );
            causes.push(invalid_go(&at, &shown, "value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        _ => causes.push(Cause::unsupported(&at, &operator.into(), &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        one_of(&format!("{field}.effect"), &one["effect"], &effects, causes);
    }
}
