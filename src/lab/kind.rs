//! The kinds that the lab serves: one table, and the words about a kind.
//!
//! Not their behaviour: what a kind's fields may say is in `rules`, what happens because of them in `act`. A kind that
//! is not in the table is answered as by a server that has never heard of it.

use super::rules::{self, Rules};
use serde_json::{Value, json};

/// One served kind, in its one served version.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// `PersistentVolumeClaim`: unique in the table.
    pub kind: &'static str,
    pub plural: &'static str,
    /// `persistentvolumeclaim`.
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [&'static str],
    pub generation: Generation,
    /// DELETE answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// PUT without a resourceVersion is taken.
    pub unconditional_update: bool,
    /// PUT makes what is not there.
    pub create_on_update: bool,
    pub rules: &'static Rules,
}

/// What makes `metadata.generation` grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Generation {
    None,
    Spec,
    /// Of Deployments.
    SpecAndAnnotations,
}

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `statefulsets.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `details` of a Status about one object; the `kind` in it is the plural.
    pub fn details(&self, name: &str) -> Value {
        let mut details = json!({});
        for (key, value) in [("name", name), ("group", self.group), ("kind", self.plural)] {
            if !value.is_empty() {
                details[key] = value.into();
            }
        }
        details
    }
}

/// The kind of this name; it is in the table.
pub fn kind(name: &str) -> &'static Kind {
    find(name).expect("only kinds of the table are asked for by name")
}

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|one| one.kind == name)
}

/// The kind that is served at this place of the URL.
pub fn served(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|one| one.group == group && one.version == version && one.plural == plural)
}

/// What most kinds have in common.
pub const CORE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    generation: Generation::None,
    returns_deleted: false,
    unconditional_update: true,
    create_on_update: false,
    rules: &rules::PLAIN,
};

const APPS: Kind = Kind {
    group: "apps",
    categories: &["all"],
    subresources: &["scale", "status"],
    generation: Generation::Spec,
    ..CORE
};

const RBAC: Kind = Kind { group: "rbac.authorization.k8s.io", create_on_update: true, ..CORE };

/// Every kind.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        namespaced: false,
        subresources: &["finalize", "status"],
        returns_deleted: true,
        rules: &rules::NAMESPACE,
        ..CORE
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        namespaced: false,
        subresources: &["status"],
        rules: &rules::NODE,
        ..CORE
    },
    Kind {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short_names: &["pv"],
        namespaced: false,
        subresources: &["status"],
        returns_deleted: true,
        rules: &rules::PERSISTENT_VOLUME,
        ..CORE
    },
    Kind {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        subresources: &["status"],
        returns_deleted: true,
        rules: &rules::PERSISTENT_VOLUME_CLAIM,
        ..CORE
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &["binding", "log", "status"],
        returns_deleted: true,
        rules: &rules::POD,
        ..CORE
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        rules: &rules::CONFIG_MAP,
        ..CORE
    },
    Kind { kind: "Secret", plural: "secrets", singular: "secret", rules: &rules::SECRET, ..CORE },
    Kind {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        returns_deleted: true,
        rules: &rules::SERVICE_ACCOUNT,
        ..CORE
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        create_on_update: true,
        rules: &rules::EVENT,
        ..CORE
    },
    Kind {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        subresources: &["status"],
        returns_deleted: true,
        rules: &rules::RESOURCE_QUOTA,
        ..CORE
    },
    Kind {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        create_on_update: true,
        rules: &rules::LIMIT_RANGE,
        ..CORE
    },
    Kind {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        subresources: &["scale", "status"],
        generation: Generation::Spec,
        rules: &rules::REPLICATION_CONTROLLER,
        ..CORE
    },
    Kind {
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        generation: Generation::SpecAndAnnotations,
        rules: &rules::DEPLOYMENT,
        ..APPS
    },
    Kind {
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        rules: &rules::REPLICA_SET,
        ..APPS
    },
    Kind {
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        rules: &rules::STATEFUL_SET,
        ..APPS
    },
    Kind {
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        subresources: &["status"],
        rules: &rules::DAEMON_SET,
        ..APPS
    },
    Kind {
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        categories: &[],
        subresources: &[],
        generation: Generation::None,
        rules: &rules::PLAIN,
        ..APPS
    },
    Kind {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &["status"],
        generation: Generation::None,
        rules: &rules::JOB,
        ..CORE
    },
    Kind {
        group: "batch",
        version: "v1beta1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &["status"],
        rules: &rules::CRON_JOB,
        ..CORE
    },
    Kind {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &["status"],
        rules: &rules::HORIZONTAL_POD_AUTOSCALER,
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        namespaced: false,
        returns_deleted: true,
        rules: &rules::STORAGE_CLASS,
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        namespaced: false,
        subresources: &["status"],
        returns_deleted: true,
        unconditional_update: false,
        rules: &rules::VOLUME_ATTACHMENT,
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        namespaced: false,
        returns_deleted: true,
        unconditional_update: false,
        rules: &rules::CSI_DRIVER,
        ..CORE
    },
    Kind {
        group: "storage.k8s.io",
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        namespaced: false,
        returns_deleted: true,
        unconditional_update: false,
        ..CORE
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        unconditional_update: false,
        create_on_update: true,
        rules: &rules::LEASE,
        ..CORE
    },
    Kind { kind: "Role", plural: "roles", singular: "role", rules: &rules::ROLE, ..RBAC },
    Kind { kind: "RoleBinding", plural: "rolebindings", singular: "rolebinding", rules: &rules::ROLE_BINDING, ..RBAC },
    Kind {
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        namespaced: false,
        rules: &rules::CLUSTER_ROLE,
        ..RBAC
    },
    Kind {
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        namespaced: false,
        rules: &rules::CLUSTER_ROLE_BINDING,
        ..RBAC
    },
];
