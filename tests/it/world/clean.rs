//! Leaving nothing behind: everything that carries a test's id is removed, volumes with their directories and disks.
//!
//! Works from labels alone, so that it also sweeps what a killed test run left. Called at the end of each test.

use super::ground::{Ground, resource};
use super::objects::items;
use super::{DIR, LABEL, OWNER, TICK};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(120);
/// Those that make pods come first, or they would make them again.
const EMPTIED: [&str; 10] = [
    "CronJob",
    "Job",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "Pod",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
];

/// Removes all that belongs to the world `id` and waits until its pods, claims and volumes are gone. What needs no
/// waiting goes on by itself: empty namespaces (Kubernetes takes five seconds to look at one) and deleted disks (their
/// provisioner frees them when they are detached).
pub async fn clean(ground: &Ground, id: &str) {
    let namespaces = labelled(ground, "Namespace", id).await;
    let classes = labelled(ground, "StorageClass", id).await;
    for ns in &namespaces {
        for kind in EMPTIED {
            // Null options: the pods' own grace, which is one second for ours.
            let path = format!("{}?propagationPolicy=Background", resource(kind).path(ns, None));
            let _ = ground.send("DELETE", &path, Value::Null).await;
        }
    }
    let mut namespaces_asked = false;
    let started = Instant::now();
    loop {
        let mut waiting = BTreeSet::new();
        for ns in &namespaces {
            for kind in ["Pod", "PersistentVolumeClaim"] {
                for object in list(ground, kind, ns).await {
                    waiting.insert(format!("{kind} {ns}/{}", name(&object)));
                    drop_foreign_finalizers(ground, kind, ns, &object).await;
                    if kind == "Pod" {
                        let_go_if_dead(ground, ns, &object).await;
                    }
                }
            }
        }
        if waiting.is_empty() {
            if !namespaces_asked {
                for ns in &namespaces {
                    let _ = ground.send("DELETE", &resource("Namespace").path("", Some(ns)), Value::Null).await;
                }
                namespaces_asked = true;
            }
            for pv in list(ground, "PersistentVolume", "").await {
                if belongs(&pv, id, &namespaces, &classes) && !free(ground, &pv).await {
                    waiting.insert(format!("PersistentVolume {}", name(&pv)));
                }
            }
        }
        if namespaces_asked && waiting.is_empty() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "the world {id} cannot be cleaned, these stay: {waiting:?}");
        tokio::time::sleep(TICK).await;
    }
    for kind in ["StorageClass", "ClusterRoleBinding", "ClusterRole", "CustomResourceDefinition"] {
        for name in labelled(ground, kind, id).await {
            let _ = ground.send("DELETE", &resource(kind).path("", Some(&name)), Value::Null).await;
        }
    }
}

/// Removes the object of a pod that is being deleted and has no process any more: a kubelet may take ten seconds more.
pub async fn let_go_if_dead(ground: &Ground, ns: &str, pod: &Value) {
    let states = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let runs = states.iter().any(|status| status["state"]["running"].is_object());
    if !pod["metadata"]["deletionTimestamp"].is_null() && !runs {
        let path = format!("{}?gracePeriodSeconds=0", resource("Pod").path(ns, Some(name(pod))));
        let _ = ground.send("DELETE", &path, Value::Null).await;
    }
}

/// Once per process: cleans the worlds whose test run is no more.
pub async fn sweep(ground: &Ground) {
    static SWEPT: AtomicBool = AtomicBool::new(false);
    if SWEPT.swap(true, Ordering::SeqCst) {
        return;
    }
    let path = format!("/api/v1/namespaces?labelSelector={OWNER}");
    let mut namespaces = ground.get(&path).await.expect("namespaces can be listed");
    let mut dead = BTreeMap::new();
    for ns in items(&mut namespaces) {
        let label = |key: &str| ns["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
        let owner = label(OWNER);
        let pid = owner.split('.').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        if started(pid).is_none_or(|at| format!("{pid}.{at}") != owner) {
            dead.insert(label(LABEL), ns["metadata"]["annotations"][DIR].as_str().map(PathBuf::from));
        }
    }
    for (id, dir) in dead {
        clean(ground, &id).await;
        if let Some(dir) = dir.filter(|dir| is_disposable(dir)) {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// This process, unmistakably: its id and when it started.
pub fn me() -> String {
    let pid = std::process::id();
    format!("{pid}.{}", started(pid).expect("we run"))
}

fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22; the program's name, in parentheses, may hold blanks.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether a volume or class belongs to a world: by label, by its claim's namespace, or by class.
pub fn belongs(object: &Value, id: &str, namespaces: &[String], classes: &[String]) -> bool {
    let is_in =
        |list: &[String], value: &Value| value.as_str().is_some_and(|value| list.iter().any(|one| one == value));
    let spec = &object["spec"];
    object["metadata"]["labels"][LABEL] == id
        || is_in(namespaces, &spec["claimRef"]["namespace"])
        || is_in(classes, &spec["storageClassName"])
}

/// One round of giving up a volume whose claim is gone; true when nothing is left to do here.
async fn free(ground: &Ground, pv: &Value) -> bool {
    let path = resource("PersistentVolume").path("", Some(name(pv)));
    drop_foreign_finalizers(ground, "PersistentVolume", "", pv).await;
    if pv["spec"]["flexVolume"]["driver"] == "e2e/disk" {
        // The provisioner frees the disk with the object, as soon as no node has it attached.
        if pv["spec"]["persistentVolumeReclaimPolicy"] != "Delete" {
            let delete = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
            let _ = ground.send("PATCH", &path, delete).await;
        }
        let _ = ground.send("DELETE", &path, Value::Null).await;
        return !pv["metadata"]["deletionTimestamp"].is_null();
    }
    let _ = ground.send("DELETE", &path, Value::Null).await;
    if let Some(dir) = super::volume::dir_of(pv)
        && is_disposable(&dir)
    {
        let _ = std::fs::remove_dir_all(&dir);
    }
    false
}

fn is_disposable(dir: &Path) -> bool {
    dir.starts_with("/tmp/hostpath_pv") || dir.to_string_lossy().starts_with("/tmp/pvmigrate-world-")
}

async fn drop_foreign_finalizers(ground: &Ground, kind: &str, ns: &str, object: &Value) {
    let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let known = |finalizer: &Value| {
        let text = finalizer.as_str().unwrap_or_default();
        text.starts_with("kubernetes.io/") || text.starts_with("external-provisioner.volume.kubernetes.io/")
    };
    if finalizers.iter().all(known) {
        return;
    }
    let kept: Vec<&Value> = finalizers.iter().filter(|finalizer| known(finalizer)).collect();
    let patch = json!({"metadata": {"finalizers": kept}});
    let _ = ground.send("PATCH", &resource(kind).path(ns, Some(name(object))), patch).await;
}

async fn labelled(ground: &Ground, kind: &str, id: &str) -> Vec<String> {
    let path = format!("{}?labelSelector={LABEL}%3D{id}", resource(kind).path("", None));
    let mut list = ground.get(&path).await.unwrap_or_else(|refusal| panic!("list {kind}: {refusal:?}"));
    items(&mut list).iter().map(|object| name(object).to_owned()).collect()
}

async fn list(ground: &Ground, kind: &str, ns: &str) -> Vec<Value> {
    let list = ground.get(&resource(kind).path(ns, None)).await;
    list.map(|mut list| items(&mut list)).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
