//! Which fields there are, as far as the lab knows: what the real server drops because it knows no such field.
//!
//! The first level of each kind and of metadata is listed here; deeper ones are known where the rules of the kind prune
//! (the specs of the main kinds, pod templates, containers). What is nowhere pruned is taken as it comes. Used by
//! `handle`: to drop, and for `fieldValidation` to say what is dropped.

use super::field::is_empty;
use crate::lab::kind::Kind;
use serde_json::Value;

const METADATA: [&str; 16] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "clusterName",
    "managedFields",
];

/// What may stand beside kind, apiVersion and metadata; nothing is said of kinds that are not listed.
fn beside_metadata(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "Namespace"
        | "Node"
        | "PersistentVolume"
        | "PersistentVolumeClaim"
        | "Pod"
        | "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "CronJob"
        | "ReplicationController"
        | "ResourceQuota"
        | "HorizontalPodAutoscaler"
        | "VolumeAttachment" => &["spec", "status"],
        "LimitRange" | "Lease" | "CSIDriver" | "CSINode" => &["spec"],
        "ConfigMap" => &["data", "binaryData", "immutable"],
        "Secret" => &["data", "stringData", "type", "immutable"],
        "ServiceAccount" => &["secrets", "imagePullSecrets", "automountServiceAccountToken"],
        "StorageClass" => &[
            "provisioner",
            "parameters",
            "reclaimPolicy",
            "mountOptions",
            "allowVolumeExpansion",
            "volumeBindingMode",
            "allowedTopologies",
        ],
        "ControllerRevision" => &["data", "revision"],
        "Role" => &["rules"],
        "ClusterRole" => &["rules", "aggregationRule"],
        "RoleBinding" | "ClusterRoleBinding" => &["subjects", "roleRef"],
        _ => return None,
    })
}

/// Drops what is not known on the first level and in metadata.
pub fn prune(kind: &Kind, object: &mut Value) {
    if let (Some(known), Some(map)) = (beside_metadata(kind.kind), object.as_object_mut()) {
        map.retain(|field, _| matches!(&field[..], "kind" | "apiVersion" | "metadata") || known.contains(&&field[..]));
    }
    if let Some(map) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        map.retain(|field, _| METADATA.contains(&&field[..]));
    }
}

/// The fields of what was sent that are dropped because they are not known, as paths.
pub fn unknown(kind: &Kind, sent: &Value) -> Vec<String> {
    let mut kept = sent.clone();
    prune(kind, &mut kept);
    let mut out = Vec::new();
    lost("", sent, &kept, 2, |_| false, &mut out);
    (kind.rules.default)(&mut kept);
    // What says nothing is left out of known fields too.
    lost("spec", &sent["spec"], &kept["spec"], usize::MAX, |value| is_empty(value) || *value == false, &mut out);
    out
}

/// What is in `sent` and not in `kept`, but for what need not be.
fn lost(path: &str, sent: &Value, kept: &Value, depth: usize, may_go: fn(&Value) -> bool, out: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (field, value) in sent {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                match kept.get(field) {
                    None if may_go(value) => {}
                    None => out.push(path),
                    Some(kept) => lost(&path, value, kept, depth - 1, may_go, out),
                }
            }
        }
        (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
            for (at, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                lost(&format!("{path}[{at}]"), sent, kept, depth - 1, may_go, out);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::kind;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let container = json!({"name": "c", "image": "i", "comand": ["x"], "env": [], "args": []});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container], "node": "n"}});
        let deployment = json!({
            "metadata": {"name": "web", "lables": {"a": "b"}, "labels": {"any": "thing"}},
            "spec": {"replica": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
            "stauts": {"replicas": 1},
        });
        assert_eq!(
            unknown(kind::kind("Deployment"), &deployment),
            [
                "metadata.lables",
                "stauts",
                "spec.replica",
                "spec.template.spec.containers[0].comand",
                "spec.template.spec.node",
            ]
        );
    }

    #[test]
    fn what_is_known_or_of_a_kind_without_a_list_is_not_named() {
        for (word, object) in [
            ("Secret", json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "type": "Opaque"})),
            ("Event", json!({"metadata": {"name": "e"}, "involvedObject": {}, "any": "thing"})),
            (
                "PersistentVolumeClaim",
                json!({
                    "metadata": {"name": "data"},
                    "spec": {"resources": {"requests": {"storage": "0.5Gi"}}, "storageClassName": "slow", "volumeName": ""},
                }),
            ),
            (
                "PersistentVolume",
                json!({"spec": {"capacity": {"storage": "1Gi"}, "storageClassName": "", "nfs": {
                    "server": "s", "path": "/", "readOnly": false,
                }}}),
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ]}], "hostNetwork": false}}),
            ),
        ] {
            assert_eq!(unknown(kind::kind(word), &object), Vec::<String>::new(), "{word}");
        }
    }
}
