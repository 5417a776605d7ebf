//! Looking at the whole: what changed since, and what of pvmigrate is still there.

use super::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything that a user could miss; no Events, which are news and not state.
const KINDS: [&str; 18] = [
    "PersistentVolumeClaim",
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "ControllerRevision",
    "Job",
    "CronJob",
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    "Lease",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "ResourceQuota",
];

/// The objects of a test at one moment, by kind and name, without what changes by itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Picture(pub BTreeMap<String, Value>);

impl World {
    /// All objects of the namespaces, and the test's volumes and classes.
    pub async fn picture(&self) -> Picture {
        let objects = self.everything().await.into_iter().map(|(key, object)| (key, cleaned(object)));
        Picture(objects.collect())
    }

    /// Fails with the objects that differ from the picture.
    pub async fn unchanged_since(&self, before: &Picture) {
        let changes = before.changes(&self.picture().await);
        assert!(changes.is_empty(), "these objects changed:\n{}", changes.join("\n"));
    }

    /// What pvmigrate left: objects whose labels or annotations speak of pvmigrate.io, or that are called pvmigrate-….
    pub async fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (key, object) in self.everything().await {
            let meta = &object["metadata"];
            // A journal in the cluster stays until it is forgotten.
            if meta["labels"]["pvmigrate.io/record"].is_string() {
                continue;
            }
            let marks = format!("{}{}{}", meta["labels"], meta["annotations"], meta["finalizers"]);
            // The lab's own words are not the migration's.
            let marks = marks.replace("lab.pvmigrate.io/", "");
            let name = meta["name"].as_str().unwrap_or_default();
            if marks.contains("pvmigrate.io/") || name.starts_with("pvmigrate-") {
                found.push(format!("{key} {} {}", meta["labels"], meta["annotations"]));
            }
        }
        found
    }

    async fn everything(&self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for kind in KINDS.iter().chain(&["PersistentVolume", "StorageClass"]) {
            for object in self.list(kind).await {
                let meta = &object["metadata"];
                let place = meta["namespace"].as_str().map(|ns| format!("{ns}/")).unwrap_or_default();
                all.push((format!("{kind} {place}{}", meta["name"].as_str().unwrap_or_default()), object));
            }
        }
        all
    }
}

impl Picture {
    /// One entry per object that came, went or differs.
    pub fn changes(&self, after: &Picture) -> Vec<String> {
        let mut changes = Vec::new();
        for (key, before) in &self.0 {
            match after.0.get(key) {
                None => changes.push(format!("{key} is gone")),
                Some(now) if now != before => changes.push(format!("{key} was {before:#}\nand is {now:#}")),
                Some(_) => {}
            }
        }
        let new = after.0.iter().filter(|(key, _)| !self.0.contains_key(*key));
        changes.extend(new.map(|(key, object)| format!("{key} is new: {object:#}")));
        changes
    }
}

/// Without versions, field managers and status; of claims and volumes the phase stays.
fn cleaned(mut object: Value) -> Value {
    let phase = object["status"]["phase"].clone();
    let is_storage = object["spec"]["storageClassName"].is_string();
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("resourceVersion");
        meta.remove("managedFields");
    }
    if is_storage {
        object["status"] = json!({"phase": phase});
    }
    object
}
