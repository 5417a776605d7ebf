//! Tables, as `kubectl get` asks for them, and partial metadata. Cells are those of 1.20; columns carry no descriptions.
//!
//! Ages are counted from the `now` that the caller gives. A kind without own columns shows its name and when it was
//! created, as in Kubernetes. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What of each object a row carries: `includeObject` of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    /// Nothing.
    None,
    /// Kind and metadata.
    #[default]
    Metadata,
    /// Everything.
    Object,
}

impl Include {
    /// Reads `includeObject`.
    ///
    /// # Errors
    /// If it is none of `None`, `Metadata`, `Object`.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            )),
        }
    }
}

/// A Table of objects of one kind; `version` is `v1` or `v1beta1`. `metadata` is the list's, or what a single object gives:
/// its resourceVersion. In a watch only the first event has columns.
#[must_use]
pub fn table(
    kind: &str,
    version: &str,
    objects: &[&Value],
    metadata: &Value,
    include: Include,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let shown = match include {
                Include::None => Value::Null,
                Include::Metadata => {
                    let mut partial = partial(object, version);
                    // Read from an older form, which keeps this elsewhere.
                    if kind == "DaemonSet" {
                        drop_annotation(&mut partial["metadata"], "deprecated.daemonset.template.generation");
                    }
                    partial
                }
                Include::Object => whole(kind, object),
            };
            json!({"cells": cells(kind, object, now), "object": shown})
        })
        .collect();
    let columns = if with_columns { columns(kind) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn drop_annotation(metadata: &mut Value, name: &str) {
    let Some(annotations) = metadata["annotations"].as_object_mut() else { return };
    annotations.shift_remove(name);
    if annotations.is_empty()
        && let Some(metadata) = metadata.as_object_mut()
    {
        metadata.shift_remove("annotations");
    }
}

/// The object with its kind, which those of lists leave out: clients cannot read a row's without it.
fn whole(kind: &str, object: &Value) -> Value {
    let api_version = super::kind::kind(kind).api_version();
    let mut whole = json!({"kind": kind, "apiVersion": api_version});
    for (field, value) in object.as_object().into_iter().flatten() {
        whole[field.as_str()] = value.clone();
    }
    whole
}

/// `PartialObjectMetadata` of an object.
#[must_use]
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// `PartialObjectMetadataList` of a list.
#[must_use]
pub fn partial_list(objects: &[&Value], metadata: &Value, version: &str) -> Value {
    let items: Vec<Value> = objects.iter().map(|object| partial(object, version)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "items": items,
    })
}

/// Names of columns; `#` marks integers, `?` booleans, `@` dates, `*` what only `-o wide` shows.
fn layout(kind: &str) -> &'static str {
    match kind {
        "PersistentVolume" => {
            "Name|Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|Reason|Age|*VolumeMode"
        }
        "PersistentVolumeClaim" => "Name|Status|Volume|Capacity|Access Modes|StorageClass|Age|*VolumeMode",
        "Pod" => "Name|Ready|Status|#Restarts|Age|*IP|*Node|*Nominated Node|*Readiness Gates",
        "Deployment" => "Name|Ready|Up-to-date|Available|Age|*Containers|*Images|*Selector",
        "ReplicaSet" | "ReplicationController" => "Name|#Desired|#Current|#Ready|Age|*Containers|*Images|*Selector",
        "StatefulSet" => "Name|Ready|Age|*Containers|*Images",
        "DaemonSet" => {
            "Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age|*Containers|*Images|*Selector"
        }
        "Job" => "Name|Completions|Duration|Age|*Containers|*Images|*Selector",
        "CronJob" => "Name|Schedule|?Suspend|#Active|Last Schedule|Age|*Containers|*Images|*Selector",
        "Namespace" => "Name|Status|Age",
        "Node" => {
            "Name|Status|Roles|Age|Version|*Internal-IP|*External-IP|*OS-Image|*Kernel-Version|*Container-Runtime"
        }
        "StorageClass" => "Name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
        "Event" => "Last Seen|Type|Reason|Object|*Subobject|*Source|Message|*First Seen|*Count|*Name",
        "ConfigMap" => "Name|Data|Age",
        "Lease" => "Name|Holder|Age",
        "ResourceQuota" => "Name|Age|Request|Limit",
        "Secret" => "Name|Type|Data|Age",
        "ServiceAccount" => "Name|Secrets|Age",
        "VolumeAttachment" => "Name|Attacher|PV|Node|?Attached|Age",
        "PodDisruptionBudget" => "Name|Min Available|Max Unavailable|#Allowed Disruptions|Age",
        "CSINode" => "Name|#Drivers|Age",
        "ValidatingWebhookConfiguration" => "Name|#Webhooks|Age",
        _ => "Name|@Created At",
    }
}

fn columns(kind: &str) -> Value {
    let columns = layout(kind).split('|').map(|column| {
        let (wide, column) = column.strip_prefix('*').map_or((0, column), |column| (1, column));
        let of = |mark: char, name: &'static str| column.strip_prefix(mark).map(|column| (name, column));
        let (of_type, name) =
            of('#', "integer").or_else(|| of('?', "boolean")).or_else(|| of('@', "date")).unwrap_or(("string", column));
        let format = if name == "Name" || name == "Attacher" { "name" } else { "" };
        json!({"name": name, "type": of_type, "format": format, "description": "", "priority": wide})
    });
    Value::Array(columns.collect())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

fn cells(kind: &str, object: &Value, now: Timestamp) -> Value {
    let name = text(object, "/metadata/name");
    let age = age(text(object, "/metadata/creationTimestamp"), now);
    let status = |pointer: &str| {
        let deleting = object.pointer("/metadata/deletionTimestamp").is_some();
        if deleting { "Terminating".to_owned() } else { text(object, pointer).to_owned() }
    };
    let replicas = |pointer: &str| number(object, pointer);
    let (containers, images) = layout_containers(
        object,
        if kind == "CronJob" {
            "/spec/jobTemplate/spec/template/spec/containers"
        } else {
            "/spec/template/spec/containers"
        },
    );
    let selector = || object.pointer("/spec/selector").map_or_else(|| "<none>".to_owned(), label_selector);
    let mode = or(text(object, "/spec/volumeMode"), "<unset>");
    match kind {
        "PersistentVolume" => {
            let claim = match (text(object, "/spec/claimRef/namespace"), text(object, "/spec/claimRef/name")) {
                (_, "") => String::new(),
                (namespace, name) => format!("{namespace}/{name}"),
            };
            json!([
                name,
                text(object, "/spec/capacity/storage"),
                access_modes(list(object, "/spec/accessModes")),
                text(object, "/spec/persistentVolumeReclaimPolicy"),
                status("/status/phase"),
                claim,
                class(object),
                text(object, "/status/reason"),
                age,
                mode
            ])
        }
        "PersistentVolumeClaim" => {
            let volume = text(object, "/spec/volumeName");
            let bound = !volume.is_empty();
            let capacity = if bound { text(object, "/status/capacity/storage") } else { "" };
            let modes = if bound { access_modes(list(object, "/status/accessModes")) } else { String::new() };
            json!([name, status("/status/phase"), volume, capacity, modes, class(object), age, mode])
        }
        "Pod" => pod(object, name, &age),
        "Deployment" => {
            let ready = format!("{}/{}", replicas("/status/readyReplicas"), replicas("/spec/replicas"));
            let updated = replicas("/status/updatedReplicas");
            json!([name, ready, updated, replicas("/status/availableReplicas"), age, containers, images, selector()])
        }
        "ReplicaSet" | "ReplicationController" => {
            let selector = if kind == "ReplicaSet" { selector() } else { labels(object.pointer("/spec/selector")) };
            let (current, ready) = (replicas("/status/replicas"), replicas("/status/readyReplicas"));
            json!([name, replicas("/spec/replicas"), current, ready, age, containers, images, selector])
        }
        "StatefulSet" => {
            let ready = format!("{}/{}", replicas("/status/readyReplicas"), replicas("/spec/replicas"));
            json!([name, ready, age, containers, images])
        }
        "DaemonSet" => json!([
            name,
            replicas("/status/desiredNumberScheduled"),
            replicas("/status/currentNumberScheduled"),
            replicas("/status/numberReady"),
            replicas("/status/updatedNumberScheduled"),
            replicas("/status/numberAvailable"),
            labels(object.pointer("/spec/template/spec/nodeSelector")),
            age,
            containers,
            images,
            selector()
        ]),
        "Job" => {
            let done = replicas("/status/succeeded");
            let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
                Some(wanted) => format!("{done}/{wanted}"),
                None if replicas("/spec/parallelism") > 1 => format!("{done}/1 of {}", replicas("/spec/parallelism")),
                None => format!("{done}/1"),
            };
            let duration = match (text(object, "/status/startTime"), text(object, "/status/completionTime")) {
                ("", _) => String::new(),
                (start, "") => self::age(start, now),
                (start, end) => end.parse().map_or_else(|_| String::new(), |end| self::age(start, end)),
            };
            json!([name, completions, duration, age, containers, images, selector()])
        }
        "CronJob" => {
            let suspend = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
                Some(true) => "True",
                Some(false) => "False",
                None => "<unset>",
            };
            let last = match text(object, "/status/lastScheduleTime") {
                "" => "<none>".to_owned(),
                time => self::age(time, now),
            };
            let selector =
                object.pointer("/spec/jobTemplate/spec/selector").map_or("<none>".to_owned(), label_selector);
            let schedule = text(object, "/spec/schedule");
            json!([name, schedule, suspend, count(object, "/status/active"), last, age, containers, images, selector])
        }
        "Namespace" => json!([name, text(object, "/status/phase"), age]),
        "Node" => node(object, name, &age),
        "StorageClass" => {
            let expands = object.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false);
            let default =
                ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
                    .iter()
                    .any(|key| object["metadata"]["annotations"][key] == "true");
            let name = if default { format!("{name} (default)") } else { name.to_owned() };
            let (policy, binding) =
                (or(text(object, "/reclaimPolicy"), "Delete"), or(text(object, "/volumeBindingMode"), "<unset>"));
            json!([name, text(object, "/provisioner"), policy, binding, expands, age])
        }
        "Event" => event(object, name, now),
        "ConfigMap" => json!([name, count(object, "/data") + count(object, "/binaryData"), age]),
        "Lease" => json!([name, text(object, "/spec/holderIdentity"), age]),
        "ResourceQuota" => {
            let (requests, limits) = quota(object);
            json!([name, age, requests, limits])
        }
        "Secret" => json!([name, text(object, "/type"), count(object, "/data"), age]),
        "ServiceAccount" => json!([name, count(object, "/secrets"), age]),
        "VolumeAttachment" => {
            let attached = object.pointer("/status/attached").and_then(Value::as_bool).unwrap_or(false);
            let volume = text(object, "/spec/source/persistentVolumeName");
            json!([name, text(object, "/spec/attacher"), volume, text(object, "/spec/nodeName"), attached, age])
        }
        "PodDisruptionBudget" => {
            let amount = |pointer: &str| match object.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => "N/A".to_owned(),
            };
            let allowed = replicas("/status/disruptionsAllowed");
            json!([name, amount("/spec/minAvailable"), amount("/spec/maxUnavailable"), allowed, age])
        }
        "CSINode" => json!([name, count(object, "/spec/drivers"), age]),
        "ValidatingWebhookConfiguration" => json!([name, count(object, "/webhooks"), age]),
        _ => json!([name, text(object, "/metadata/creationTimestamp")]),
    }
}

fn class(object: &Value) -> &str {
    object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

fn access_modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let short = short.iter().filter(|(mode, _)| modes.iter().any(|one| one == mode)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

fn layout_containers(object: &Value, pointer: &str) -> (String, String) {
    let all = |field: &str| {
        list(object, pointer).iter().map(|container| text(container, field).to_owned()).collect::<Vec<_>>().join(",")
    };
    (all("/name"), all("/image"))
}

fn labels(labels: Option<&Value>) -> String {
    let mut pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn label_selector(selector: &Value) -> String {
    let mut parts: Vec<String> = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in list(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

fn ended(state: &Value) -> String {
    match (text(state, "/reason"), number(state, "/signal"), number(state, "/exitCode")) {
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, ..) => reason.to_owned(),
    }
}

fn pod(object: &Value, name: &str, age: &str) -> Value {
    let mut reason = or(text(object, "/status/reason"), text(object, "/status/phase")).to_owned();
    let (mut restarts, mut ready, mut initializing) = (0, 0, false);
    let init = list(object, "/status/initContainerStatuses");
    for (index, status) in init.iter().enumerate() {
        restarts += number(status, "/restartCount");
        let (done, waiting) = (status.pointer("/state/terminated"), text(status, "/state/waiting/reason"));
        match done {
            Some(done) if number(done, "/exitCode") == 0 => continue,
            Some(done) => reason = format!("Init:{}", ended(done)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => reason = format!("Init:{waiting}"),
            None => reason = format!("Init:{index}/{}", count(object, "/spec/initContainers")),
        }
        initializing = true;
        break;
    }
    if !initializing {
        restarts = 0;
        let mut running = false;
        for status in list(object, "/status/containerStatuses").iter().rev() {
            restarts += number(status, "/restartCount");
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if let Some(done) = status.pointer("/state/terminated") {
                reason = ended(done);
            } else if status["ready"] == true && status.pointer("/state/running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            reason =
                if list(object, "/status/conditions").iter().any(is_ready) { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        reason = if text(object, "/status/reason") == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    let address = or(text(object, "/status/podIPs/0/ip"), text(object, "/status/podIP"));
    let gates = list(object, "/spec/readinessGates");
    let open = |gate: &&Value| {
        list(object, "/status/conditions")
            .iter()
            .any(|one| one["type"] == gate["conditionType"] && one["status"] == "True")
    };
    let gates = match gates {
        [] => "<none>".to_owned(),
        gates => format!("{}/{}", gates.iter().filter(open).count(), gates.len()),
    };
    json!([
        name,
        format!("{ready}/{}", count(object, "/spec/containers")),
        reason,
        restarts,
        age,
        or(address, "<none>"),
        or(text(object, "/spec/nodeName"), "<none>"),
        or(text(object, "/status/nominatedNodeName"), "<none>"),
        gates
    ])
}

fn node(object: &Value, name: &str, age: &str) -> Value {
    let ready = list(object, "/status/conditions").iter().find(|one| one["type"] == "Ready");
    let mut status = match ready {
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let empty = Map::new();
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&empty);
    let mut roles: Vec<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |of: &str| {
        let found = list(object, "/status/addresses").iter().find(|address| address["type"] == of);
        found.map_or("<none>", |address| text(address, "/address")).to_owned()
    };
    let info = |field: &str| or(text(object, &format!("/status/nodeInfo/{field}")), "<unknown>").to_owned();
    json!([
        name,
        status,
        or(&roles.join(","), "<none>"),
        age,
        text(object, "/status/nodeInfo/kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion")
    ])
}

fn event(object: &Value, name: &str, now: Timestamp) -> Value {
    let since = |pointer: &str| age(or(text(object, pointer), text(object, "/eventTime")), now);
    let mut last = since("/lastTimestamp");
    let mut times = number(object, "/count").max(1);
    if object.get("series").is_some_and(Value::is_object) {
        last = age(text(object, "/series/lastObservedTime"), now);
        times = number(object, "/series/count");
    }
    let about = match text(object, "/involvedObject/name") {
        "" => text(object, "/involvedObject/kind").to_lowercase(),
        name => format!("{}/{name}", text(object, "/involvedObject/kind").to_lowercase()),
    };
    let component = or(text(object, "/source/component"), text(object, "/reportingComponent"));
    let source = match or(text(object, "/source/host"), text(object, "/reportingInstance")) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    json!([
        last,
        text(object, "/type"),
        text(object, "/reason"),
        about,
        text(object, "/involvedObject/fieldPath"),
        source,
        text(object, "/message").trim(),
        since("/firstTimestamp"),
        times,
        name
    ])
}

fn quota(object: &Value) -> (String, String) {
    let mut hard: Vec<(&String, &Value)> =
        object.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten().collect();
    hard.sort_by_key(|(name, _)| *name);
    let (limits, requests): (Vec<_>, Vec<_>) = hard.into_iter().partition(|(name, _)| name.starts_with("limits."));
    let written = |of: Vec<(&String, &Value)>| {
        let used = |name: &str| object["status"]["used"][name].as_str().unwrap_or("0").to_owned();
        let line =
            |(name, hard): (&String, &Value)| format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default());
        of.into_iter().map(line).collect::<Vec<_>>().join(", ")
    };
    (written(requests), written(limits))
}

/// How long ago a time was, in the short form of kubectl.
#[must_use]
pub fn age(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = now.as_second() - time.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        _ if seconds < -1 => "<invalid>".to_owned(),
        _ if seconds < 0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects of a real 1.20.2 cluster, with the cells that its server made of them.
    const CASES: &str = include_str!("table_cases.json");

    #[test]
    fn cells_as_a_real_server_shows_them() {
        let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
        let mut wrong = Vec::new();
        for case in cases {
            let kind = case["kind"].as_str().expect("a kind");
            // The clock of the server may have been a second further when it answered.
            let close = (0..=1).any(|later| {
                let now = Timestamp::from_second(case["now"].as_i64().expect("seconds") + later).expect("a time");
                cells(kind, &case["object"], now) == case["cells"]
            });
            if !close {
                let now = Timestamp::from_second(case["now"].as_i64().expect("seconds")).expect("a time");
                wrong.push(format!("{kind}: {}\n  not {}", cells(kind, &case["object"], now), case["cells"]));
            }
            assert_eq!(columns(kind).as_array().map(Vec::len), case["cells"].as_array().map(Vec::len), "{kind}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn ages() {
        let now = Timestamp::from_second(1_000_000_000).expect("a time");
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (245, "4m5s"),
            (900, "15m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (800_000, "9d"),
            (70_000_000, "2y80d"),
        ] {
            let then = Timestamp::from_second(1_000_000_000 - seconds).expect("a time").to_string();
            assert_eq!(age(&then, now), want, "{seconds}");
        }
    }
}
