//! Which lists of which kinds merge in a strategic merge patch, and by which key: the facts of the OpenAPI of 1.20.
//!
//! A list that is not named here is replaced as a whole. Kinds that are not named have no strategic merge patch at all.

/// How a list merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListRule {
    /// The patch's list takes the place of the old one.
    Replace,
    /// Scalars: the union.
    Scalars,
    /// Maps, matched by this key.
    Maps(&'static str),
}

const WITHOUT_OWN_RULES: [&str; 14] = [
    "CronJob",
    "PersistentVolume",
    "ConfigMap",
    "Secret",
    "Event",
    "StorageClass",
    "Lease",
    "VolumeAttachment",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "CSIDriver",
    "HorizontalPodAutoscaler",
    "ControllerRevision",
];

const RBAC: [&str; 4] = ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];

/// Lists that merge, as (kind, path from the root, key); an empty key means scalars.
const LISTS: [(&str, &str, &str); 18] = [
    ("Namespace", "status.conditions", "type"),
    ("Node", "spec.podCIDRs", ""),
    ("Node", "status.addresses", "type"),
    ("Node", "status.conditions", "type"),
    ("PersistentVolumeClaim", "status.conditions", "type"),
    ("Pod", "status.conditions", "type"),
    ("Pod", "status.podIPs", "ip"),
    ("ServiceAccount", "secrets", "name"),
    ("Service", "spec.ports", "port"),
    ("Service", "status.conditions", "type"),
    ("Deployment", "status.conditions", "type"),
    ("ReplicaSet", "status.conditions", "type"),
    ("ReplicationController", "status.conditions", "type"),
    ("StatefulSet", "status.conditions", "type"),
    ("DaemonSet", "status.conditions", "type"),
    ("Job", "status.conditions", "type"),
    ("CSINode", "spec.drivers", "name"),
    ("ValidatingWebhookConfiguration", "webhooks", "name"),
];

/// The same for what stands in a pod's spec.
const POD_SPEC: [(&str, &str); 18] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumes", "name"),
    ("containers.env", "name"),
    ("containers.ports", "containerPort"),
    ("containers.volumeDevices", "devicePath"),
    ("containers.volumeMounts", "mountPath"),
    ("initContainers.env", "name"),
    ("initContainers.ports", "containerPort"),
    ("initContainers.volumeDevices", "devicePath"),
    ("initContainers.volumeMounts", "mountPath"),
    ("ephemeralContainers.env", "name"),
    ("ephemeralContainers.volumeDevices", "devicePath"),
    ("ephemeralContainers.volumeMounts", "mountPath"),
];

/// Whether objects of the kind take strategic merge patches.
pub fn known(kind: &str) -> bool {
    WITHOUT_OWN_RULES.contains(&kind) || RBAC.contains(&kind) || LISTS.iter().any(|(of, ..)| *of == kind)
}

fn pod_spec_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some("spec."),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            Some("spec.template.spec.")
        }
        "CronJob" => Some("spec.jobTemplate.spec.template.spec."),
        _ => None,
    }
}

/// The rule of the list at `path`, the names of the fields from the root; items of lists add nothing to it.
pub fn list_rule(kind: &str, path: &[String]) -> ListRule {
    match path {
        [.., parent, last] if parent == "metadata" && last == "finalizers" => return ListRule::Scalars,
        [.., parent, last] if parent == "metadata" && last == "ownerReferences" => return ListRule::Maps("uid"),
        _ => {}
    }
    let path = path.join(".");
    if let Some(key) = LISTS.iter().find_map(|(of, at, key)| (*of == kind && *at == path).then_some(*key)) {
        return if key.is_empty() { ListRule::Scalars } else { ListRule::Maps(key) };
    }
    pod_spec_of(kind)
        .and_then(|prefix| path.strip_prefix(prefix))
        .and_then(|inside| POD_SPEC.iter().find_map(|(at, key)| (*at == inside).then_some(*key)))
        .map_or(ListRule::Replace, ListRule::Maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_by_kind_and_path() {
        for (kind, path, want) in [
            ("Pod", "metadata.finalizers", ListRule::Scalars),
            ("ConfigMap", "metadata.ownerReferences", ListRule::Maps("uid")),
            ("Pod", "spec.containers", ListRule::Maps("name")),
            ("Pod", "spec.containers.ports", ListRule::Maps("containerPort")),
            ("Pod", "spec.tolerations", ListRule::Replace),
            ("Deployment", "spec.containers", ListRule::Replace),
            ("Deployment", "spec.template.spec.volumes", ListRule::Maps("name")),
            ("Deployment", "spec.template.metadata.finalizers", ListRule::Scalars),
            ("CronJob", "spec.jobTemplate.spec.template.spec.containers", ListRule::Maps("name")),
            ("Node", "spec.podCIDRs", ListRule::Scalars),
            ("Node", "spec.taints", ListRule::Replace),
            ("PersistentVolumeClaim", "spec.accessModes", ListRule::Replace),
            ("PersistentVolumeClaim", "status.conditions", ListRule::Maps("type")),
            ("ServiceAccount", "imagePullSecrets", ListRule::Replace),
        ] {
            let fields: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(list_rule(kind, &fields), want, "{kind} {path}");
        }
        assert!(known("CronJob") && known("Lease") && !known("Widget"));
    }
}
