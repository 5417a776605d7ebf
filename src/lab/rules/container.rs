//! Containers: what they default to and what they may say.
//!
//! Not what the lab can run of it (`pod_limits`). Used by `pod_spec` for pods and templates alike.

use super::field::{
    drop_empty, each, entries, fill, fill_text, is_empty, need, no_back_steps, not_found, one_of, quantity, required,
    sub, wrong,
};
use crate::lab::meta;
use crate::lab::quantity::{self, Quantity};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

/// The fields that 1.20 knows.
const FIELDS: [&str; 22] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];

/// Fills in one container.
pub fn default(container: &mut Value) {
    super::field::keep(container, &FIELDS);
    let policy = if has_no_tag(text(&container["image"])) { "Always" } else { "IfNotPresent" };
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    let resources = sub(container, "resources");
    for list in ["limits", "requests"] {
        if let Some(list) = resources.get_mut(list) {
            quantity::tidy(list);
        }
    }
    for port in each(container, "ports") {
        fill_text(port, "protocol", "TCP");
    }
    for env in each(container, "env") {
        if env["valueFrom"]["fieldRef"].is_object() {
            fill_text(&mut env["valueFrom"]["fieldRef"], "apiVersion", "v1");
        }
    }
    drop_empty(
        container,
        &["command", "args", "env", "envFrom", "ports", "volumeMounts", "volumeDevices", "workingDir"],
    );
}

/// Limits are requests if nothing else is requested. Of pods only: templates stay as they are.
pub fn default_requests(container: &mut Value) {
    let limits = container["resources"]["limits"].clone();
    let Some(limits) = limits.as_object().filter(|all| !all.is_empty()) else { return };
    let requests = sub(sub(container, "resources"), "requests");
    for (name, amount) in limits {
        fill(requests, name, amount.clone());
    }
}

/// No tag and no digest, or the tag `latest`.
fn has_no_tag(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty(),
    }
}

/// Causes of all containers of a pod, whose usable volumes are given.
pub fn validate(field: &str, containers: &[Value], volumes: &[&Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    if containers.is_empty() {
        causes.push(required(field));
    }
    for (at, one) in containers.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let name_field = format!("{field}.name");
        if need(&name_field, &one["name"], &mut causes) {
            causes.extend(wrong(&name_field, text(&one["name"]), &meta::dns1123_label(text(&one["name"]))));
        }
        if containers[..at].iter().any(|before| before["name"] == one["name"]) {
            causes.push(Cause::duplicate(name_field, &one["name"]));
        }
        need(&format!("{field}.image"), &one["image"], &mut causes);
        ports(&field, list_of(&one["ports"]), &mut causes);
        env(&field, list_of(&one["env"]), &mut causes);
        mounts(&field, one, volumes, &mut causes);
        devices(&field, one, volumes, &mut causes);
        let pull = format!("{field}.imagePullPolicy");
        one_of(&pull, &one["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], &mut causes);
        resources(&format!("{field}.resources"), &one["resources"], &mut causes);
    }
    causes
}

fn ports(field: &str, ports: &[Value], causes: &mut Vec<Cause>) {
    for (at, port) in ports.iter().enumerate() {
        let field = format!("{field}.ports[{at}]");
        let name = text(&port["name"]);
        if !name.is_empty() {
            causes.extend(wrong(&format!("{field}.name"), name, &port_name(name)));
            if ports[..at].iter().any(|before| before["name"] == port["name"]) {
                causes.push(Cause::duplicate(format!("{field}.name"), &port["name"]));
            }
        }
        for key in ["containerPort", "hostPort"] {
            let field = format!("{field}.{key}");
            match port[key].as_i64() {
                None | Some(0) if key == "hostPort" => {}
                None | Some(0) => causes.push(required(&field)),
                Some(1..=65535) => {}
                Some(_) => {
                    causes.push(Cause::invalid(field, &port[key], "must be between 1 and 65535, inclusive"));
                }
            }
        }
        one_of(&format!("{field}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], causes);
    }
}

fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters".into());
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.chars().all(|c| fits(c) || c == '-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !name.chars().any(|c| c.is_ascii_lowercase()) {
        problems.push("must contain at least one letter or number (a-z, 0-9)".into());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".into());
    }
    problems
}

fn env(field: &str, env: &[Value], causes: &mut Vec<Cause>) {
    for (at, one) in env.iter().enumerate() {
        let field = format!("{field}.env[{at}]");
        if need(&format!("{field}.name"), &one["name"], causes) {
            causes.extend(wrong(&format!("{field}.name"), text(&one["name"]), &env_name(text(&one["name"]))));
        }
        let from = &one["valueFrom"];
        if from.is_null() {
            continue;
        }
        let field = format!("{field}.valueFrom");
        let path = text(&from["fieldRef"]["fieldPath"]);
        if from["fieldRef"].is_object() && !is_field_path(path) {
            let why = format!("error converting fieldPath: field label not supported: {path}");
            causes.push(Cause::invalid(format!("{field}.fieldRef.fieldPath"), &path.into(), &why));
        }
        if !is_empty(&one["value"]) {
            causes.push(Cause::invalid(field, &"".into(), "may not be specified when `value` is not empty"));
        }
    }
}

fn is_field_path(path: &str) -> bool {
    const PATHS: [&str; 10] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.annotations",
        "metadata.labels",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.podIP",
        "status.podIPs",
    ];
    PATHS.contains(&path.split('[').next().unwrap_or(path))
}

fn env_name(name: &str) -> Vec<String> {
    let edge = |c: char| c.is_ascii_alphabetic() || "-._".contains(c);
    let mut problems = Vec::new();
    if !name.starts_with(edge) || !name.chars().all(|c| edge(c) || c.is_ascii_digit()) {
        problems.push(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
             must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for \
             validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"
                .into(),
        );
    }
    match name {
        "." | ".." => problems.push(format!("must not be '{name}'")),
        _ if name.starts_with("..") => problems.push("must not start with '..'".into()),
        _ => {}
    }
    problems
}

fn mounts(field: &str, container: &Value, volumes: &[&Value], causes: &mut Vec<Cause>) {
    let (mounts, devices) = (list_of(&container["volumeMounts"]), list_of(&container["volumeDevices"]));
    for (at, mount) in mounts.iter().enumerate() {
        let field_of = |key: &str| format!("{field}.volumeMounts[{at}].{key}");
        let path = &mount["mountPath"];
        need(&field_of("name"), &mount["name"], causes);
        if !volumes.iter().any(|one| one["name"] == mount["name"]) {
            causes.push(not_found(&field_of("name"), &text(&mount["name"]).into()));
        }
        need(&field_of("mountPath"), path, causes);
        if mounts[..at].iter().any(|before| before["mountPath"] == *path) {
            causes.push(Cause::invalid(field_of("mountPath"), path, "must be unique"));
        }
        if devices.iter().any(|one| one["name"] == mount["name"]) {
            causes.push(Cause::invalid(field_of("name"), &mount["name"], "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|one| !path.is_null() && one["devicePath"] == *path) {
            let why = "must not already exist as a path in volumeDevices";
            causes.push(Cause::invalid(field_of("mountPath"), path, why));
        }
        // The real server leaves the number out of this path.
        let sub_path = format!("{field}.volumeMounts.subPath");
        if text(&mount["subPath"]).starts_with('/') {
            causes.push(Cause::invalid(&sub_path, &mount["subPath"], "must be a relative path"));
        }
        no_back_steps(&sub_path, &mount["subPath"], causes);
    }
}

fn devices(field: &str, container: &Value, volumes: &[&Value], causes: &mut Vec<Cause>) {
    let (mounts, devices) = (list_of(&container["volumeMounts"]), list_of(&container["volumeDevices"]));
    for (at, device) in devices.iter().enumerate() {
        let field_of = |key: &str| format!("{field}.volumeDevices[{at}].{key}");
        let (name, path) = (&device["name"], &device["devicePath"]);
        need(&field_of("name"), name, causes);
        if devices[..at].iter().any(|before| before["name"] == *name) {
            causes.push(Cause::invalid(field_of("name"), name, "must be unique"));
        }
        match volumes.iter().find(|one| one["name"] == *name) {
            None => causes.push(not_found(&field_of("name"), name)),
            Some(volume) if !volume["persistentVolumeClaim"].is_object() => {
                let why = "can only use volume source type of PersistentVolumeClaim for block mode";
                causes.push(Cause::invalid(field_of("name"), name, why));
            }
            Some(_) => {}
        }
        need(&field_of("devicePath"), path, causes);
        if devices[..at].iter().any(|before| before["devicePath"] == *path) {
            causes.push(Cause::invalid(field_of("devicePath"), path, "must be unique"));
        }
        if mounts.iter().any(|one| one["name"] == *name) {
            causes.push(Cause::invalid(field_of("name"), name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|one| !path.is_null() && one["mountPath"] == *path) {
            let why = "must not already exist as a path in volumeMounts";
            causes.push(Cause::invalid(field_of("devicePath"), path, why));
        }
    }
}

fn resources(field: &str, resources: &Value, causes: &mut Vec<Cause>) {
    for list in ["limits", "requests"] {
        for (name, amount) in entries(&resources[list]) {
            let at = format!("{field}.{list}[{name}]");
            let is_standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
            if !is_standard && !name.contains('/') {
                for why in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    causes.push(Cause::invalid(&at, &name.into(), why));
                }
            }
            let Some(amount) = quantity(&at, amount, causes) else { continue };
            if amount.is_negative() {
                causes.push(Cause::invalid(&at, &amount.to_string().into(), "must be greater than or equal to 0"));
            }
            let limit = Quantity::of(&resources["limits"][name]);
            if list == "requests" && limit.is_some_and(|limit| amount > limit) {
                let why = format!("must be less than or equal to {name} limit");
                causes.push(Cause::invalid(format!("{field}.requests"), &amount.to_string().into(), &why));
            }
        }
    }
}
