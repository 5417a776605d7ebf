//! Kinds with few rules: Event, Lease, VolumeAttachment, CSIDriver.

use super::Rules;
use super::field::{drop_nulls, fill, invalid_go, is_empty, keep_status, need, set, sub, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::{Value, json};

pub const EVENT: Rules = Rules {
    default: |event| {
        sub(event, "involvedObject");
        sub(event, "source");
        for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            if event[key].is_null() {
                set(event, key, Value::Null);
            }
        }
        fill(event, "reportingComponent", "");
        fill(event, "reportingInstance", "");
    },
    validate: |event| {
        let (own, other) = (text(&event["metadata"]["namespace"]), text(&event["involvedObject"]["namespace"]));
        // Events about objects without a namespace live in `default`.
        if own == other || (other.is_empty() && own == "default") {
            return Vec::new();
        }
        vec![Cause::invalid("involvedObject.namespace", &other.into(), "does not match event.namespace")]
    },
    ..super::PLAIN
};

pub const LEASE: Rules = Rules {
    default: |lease| {
        let spec = sub(lease, "spec");
        drop_nulls(spec);
    },
    validate: |lease| {
        let spec = &lease["spec"];
        let mut causes = Vec::new();
        if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
            let why = "must be greater than 0";
            causes.push(Cause::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], why));
        }
        if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
            let why = "must to greater or equal than 0";
            causes.push(Cause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], why));
        }
        causes
    },
    ..super::PLAIN
};

pub const VOLUME_ATTACHMENT: Rules = Rules {
    default: |attachment| {
        sub(sub(attachment, "spec"), "source");
        fill(sub(attachment, "status"), "attached", false);
    },
    prepare: |new, old| keep_status(new, old, json!({"attached": false})),
    validate: |attachment| {
        let spec = &attachment["spec"];
        let mut causes = Vec::new();
        need("spec.attacher", &spec["attacher"], &mut causes);
        let (name, inline) = (&spec["source"]["persistentVolumeName"], &spec["source"]["inlineVolumeSpec"]);
        if name.is_null() && inline.is_null() {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            causes.push(Cause::required("spec.source", why));
        } else if !name.is_null() && !inline.is_null() {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            causes.push(Cause::forbidden("spec.source", why));
        } else if !name.is_null() && text(name).is_empty() {
            let why = "must specify non empty persistentVolumeName";
            causes.push(Cause::required("spec.source.persistentVolumeName", why));
        }
        let node = text(&spec["nodeName"]);
        causes.extend(wrong("spec.nodeName", node, &meta::dns1123_subdomain(node)));
        // It is looked at again when the node is known.
        need("spec.attacher", &spec["attacher"], &mut causes);
        let attacher = text(&spec["attacher"]);
        causes.extend(wrong("spec.attacher", attacher, &meta::dns1123_subdomain(&attacher.to_lowercase())));
        causes
    },
    validate_update: |new, old| {
        let spec = &new["spec"];
        if *spec == old["spec"] {
            return Vec::new();
        }
        let pointer = |value: &Value| if is_empty(value) { "nil" } else { "0xc000000000" };
        let go = format!(
            "storage.VolumeAttachmentSpec{{Attacher:\"{}\", Source:storage.VolumeAttachmentSource{{\
             PersistentVolumeName:(*string)({}), InlineVolumeSpec:(*core.PersistentVolumeSpec)({})}}, \
             NodeName:\"{}\"}}",
            text(&spec["attacher"]),
            pointer(&spec["source"]["persistentVolumeName"]),
            pointer(&spec["source"]["inlineVolumeSpec"]),
            text(&spec["nodeName"])
        );
        vec![invalid_go("spec", &go, "field is immutable")]
    },
    ..super::PLAIN
};

pub const CSI_DRIVER: Rules = Rules {
    default: |driver| {
        let spec = sub(driver, "spec");
        fill(spec, "attachRequired", true);
        fill(spec, "podInfoOnMount", false);
        fill(spec, "volumeLifecycleModes", json!(["Persistent"]));
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    },
    ..super::PLAIN
};
