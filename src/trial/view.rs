//! What a cluster looks like to somebody who compares: every object under a name that is the same in every run, and
//! without what a server makes up.
//!
//! Volumes are named after claims, because their own names are random; uids become "the same object as at first" or not.

use super::files::Files;
use super::picture::Picture;
use super::watch;
use crate::lab::Lab;
use crate::lab::disk::Disks;
use crate::lab::kind::KINDS;
use crate::lab::kubelet::volume_dir;
use crate::lab::store::{Key, State, text};
use crate::words::Json;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is not compared: it comes and goes with other objects, or says what happened and not what is.
const LEFT_OUT: [&str; 8] = [
    "Event",
    "ReplicaSet",
    "ControllerRevision",
    "VolumeAttachment",
    "ServiceAccount",
    "Lease",
    "CSIDriver",
    "CSINode",
];

/// Marks that say which object something was bound to or made from.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What there was before a run, by which everything later is named.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// uid → what it was.
    known: BTreeMap<String, String>,
    /// Claim → its volume.
    pub claims: BTreeMap<String, Volume>,
    /// Workload → its replicas.
    pub workloads: BTreeMap<String, i64>,
}

/// A volume as it was at first.
#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    pub dir: PathBuf,
    /// Without what writers write.
    pub files: Files,
}

impl Volume {
    /// What there was at first and is missing in a directory, and what is other there; without the places of writers, that
    /// may just have begun when the files were read.
    pub fn missing_in(&self, dir: Option<&Path>) -> (Vec<String>, Vec<String>) {
        let busy = dir.map(watch::writers).unwrap_or_default();
        let mut first = self.files.clone();
        first.0.retain(|path, _| !busy.iter().any(|home| Path::new(path).starts_with(home)));
        first.missing_in(&dir.map(Files::of).unwrap_or_default())
    }
}

/// What is in a volume but for the places of those that write all the time. The root changes when they begin.
fn quiet(dir: &Path) -> Files {
    let busy = watch::writers(dir);
    let mut files = Files::of(dir);
    files.0.retain(|path, _| path != "." && !busy.iter().any(|home| Path::new(path).starts_with(home)));
    files
}

impl Beginning {
    pub fn of(lab: &Lab) -> Beginning {
        let disks = &lab.core().disks;
        let (known, dirs, workloads) = lab.core().look(|state| {
            let mut known = BTreeMap::new();
            let mut dirs = BTreeMap::new();
            for kind in KINDS {
                for (key, object) in state.list(kind.kind, "") {
                    known.insert(uid(object).to_owned(), key.to_string());
                }
            }
            for (key, claim) in state.list("PersistentVolumeClaim", "") {
                let volume = state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"]));
                let Some(volume) = volume else { continue };
                known.insert(uid(volume).to_owned(), format!("the first volume of {}/{}", key.namespace, key.name));
                if let Some(dir) = dir_of(volume, disks) {
                    let name = text(&volume["metadata"]["name"]).to_owned();
                    dirs.insert(format!("{}/{}", key.namespace, key.name), (name, dir));
                }
            }
            let workloads = ["Deployment", "StatefulSet"].into_iter().flat_map(|kind| state.list(kind, ""));
            let workloads =
                workloads.map(|(key, one)| (key.to_string(), one["spec"]["replicas"].as_i64().unwrap_or(1)));
            (known, dirs, workloads.collect())
        });
        let read = |(claim, (name, dir)): (String, (String, PathBuf))| {
            let files = quiet(&dir);
            (claim, Volume { name, dir, files })
        };
        Beginning { known, claims: dirs.into_iter().map(read).collect(), workloads }
    }

    fn is_first(&self, object: &Json) -> bool {
        self.known.contains_key(uid(object))
    }
}

/// The directory behind a volume, if the lab has one for it.
pub fn dir_of(volume: &Json, disks: &Disks) -> Option<PathBuf> {
    let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    volume_dir(volume, terms["values"][0].as_str().unwrap_or("node1"), disks).ok()
}

/// The directory that a claim is bound to now.
pub fn dir_of_claim(state: &State, disks: &Disks, claim: &str) -> Option<PathBuf> {
    let (namespace, name) = claim.split_once('/')?;
    let claim = state.get("PersistentVolumeClaim", namespace, name)?;
    let volume = state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"]))?;
    dir_of(volume, disks)
}

fn uid(object: &Json) -> &str {
    text(&object["metadata"]["uid"])
}

/// The cluster as it is now.
pub fn picture(lab: &Lab, beginning: &Beginning) -> Picture {
    lab.core().look(|state| {
        let mut objects = BTreeMap::new();
        for kind in KINDS.iter().filter(|kind| !LEFT_OUT.contains(&kind.kind)) {
            for (key, object) in state.list(kind.kind, "") {
                if let Some((name, view)) = view(state, beginning, key, object) {
                    objects.insert(free(&objects, name), view);
                }
            }
        }
        Picture { objects, counts: BTreeMap::new() }
    })
}

/// Two of a name are told apart.
fn free(taken: &BTreeMap<String, Json>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    (2..).map(|n| format!("{name} ({n})")).find(|name| !taken.contains_key(name)).unwrap_or(name)
}

fn view(state: &State, beginning: &Beginning, key: &Key, object: &Json) -> Option<(String, Json)> {
    let meta = &object["metadata"];
    let controlled = meta["ownerReferences"].as_array().into_iter().flatten().any(|one| one["controller"] == true);
    let ours = key.name.starts_with("pvmigrate") && key.kind == "ConfigMap";
    let token = object["type"] == "kubernetes.io/service-account-token";
    if ours || token || (key.kind == "Pod" && controlled) {
        return None;
    }
    let mut view = Map::new();
    for (field, value) in object.as_object()? {
        if !matches!(&field[..], "metadata" | "status" | "apiVersion" | "kind") {
            view.insert(field.clone(), value.clone());
        }
    }
    let mut annotations = meta["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove(REVISION);
        if map.is_empty() {
            annotations = Json::Null;
        }
    }
    view.insert("labels".into(), meta["labels"].clone());
    view.insert("annotations".into(), annotations);
    // Who was cloned once is held for the moment when it is deleted: it is as it was.
    let kept = |one: &&Json| **one != "provisioner.storage.kubernetes.io/cloning-protection";
    let finalizers = meta["finalizers"].as_array();
    view.insert("finalizers".into(), finalizers.map(|all| all.iter().filter(kept).cloned().collect::<Vec<_>>()).into());
    view.insert("owners".into(), owners(state, object));
    view.insert("original".into(), beginning.is_first(object).into());
    if !meta["deletionTimestamp"].is_null() {
        view.insert("going".into(), true.into());
    }
    let mut name = key.to_string();
    let mut view = Json::Object(view);
    match key.kind {
        "PersistentVolumeClaim" => {
            name = format!("claim {}/{}", key.namespace, key.name);
            let volume = text(&object["spec"]["volumeName"]);
            drop_field(&mut view["spec"], "volumeName");
            view["phase"] = object["status"]["phase"].clone();
            view["volume"] = match state.get("PersistentVolume", "", volume) {
                Some(volume) => volume_name(beginning, volume).into(),
                None if volume.is_empty() => Json::Null,
                None => "one that is not there".into(),
            };
        }
        "PersistentVolume" => {
            name = volume_name(beginning, object);
            let spec = &object["spec"];
            let reference = &spec["claimRef"];
            let claim = state
                .get("PersistentVolumeClaim", text(&reference["namespace"]), text(&reference["name"]))
                .filter(|claim| claim["metadata"]["uid"] == reference["uid"]);
            view["spec"] = json!({
                "class": spec["storageClassName"], "policy": spec["persistentVolumeReclaimPolicy"],
                "capacity": spec["capacity"], "accessModes": spec["accessModes"],
                "mountOptions": spec["mountOptions"],
            });
            view["phase"] = object["status"]["phase"].clone();
            view["claim"] = match text(&reference["name"]) {
                "" => Json::Null,
                name => format!("{}/{name}", text(&reference["namespace"])).into(),
            };
            view["of_original"] = claim.is_some_and(|claim| beginning.is_first(claim)).into();
        }
        "Deployment" | "StatefulSet" | "DaemonSet" => {
            view["ready"] = match key.kind {
                "DaemonSet" => object["status"]["numberReady"].as_i64().unwrap_or(0),
                _ => object["status"]["readyReplicas"].as_i64().unwrap_or(0),
            }
            .into();
        }
        "Pod" => {
            view["spec"] = json!({"containers": names(&object["spec"]["containers"])});
            view["phase"] = object["status"]["phase"].clone();
        }
        "Namespace" | "Node" => view["spec"] = json!({"unschedulable": object["spec"]["unschedulable"]}),
        _ => {}
    }
    Some((name, view))
}

fn names(list: &Json) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|one| text(&one["name"])).collect()
}

fn drop_field(object: &mut Json, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Owners by name, and whether they live.
fn owners(state: &State, object: &Json) -> Json {
    let list = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let namespace = text(&object["metadata"]["namespace"]);
    let list: Vec<Json> = list
        .map(|one| {
            let lives = state.owned_by(text(&one["uid"])).next().is_some()
                && KINDS
                    .iter()
                    .filter(|kind| kind.kind == text(&one["kind"]))
                    .filter_map(|kind| state.get(kind.kind, namespace, text(&one["name"])))
                    .any(|owner| owner["metadata"]["uid"] == one["uid"]);
            let dead = if lives { "" } else { " (dead)" };
            format!("{} {}{dead}", text(&one["kind"]), text(&one["name"])).into()
        })
        .collect();
    if list.is_empty() { Json::Null } else { list.into() }
}

fn volume_name(beginning: &Beginning, volume: &Json) -> String {
    if let Some(name) = beginning.known.get(uid(volume)) {
        return name.clone();
    }
    let reference = &volume["spec"]["claimRef"];
    match text(&reference["name"]) {
        "" => "a new volume of nobody".to_owned(),
        name => format!("the new volume of {}/{name}", text(&reference["namespace"])),
    }
}

/// What of the data of the first claims is not in their volumes now: claim → a few words.
pub fn lost(lab: &Lab, beginning: &Beginning) -> BTreeMap<String, String> {
    let mut lost = BTreeMap::new();
    for (claim, first) in &beginning.claims {
        let now = lab.core().look(|state| dir_of_claim(state, &lab.core().disks, claim));
        let (gone, other) = first.missing_in(now.filter(|dir| dir.is_dir()).as_deref());
        if let Some(what) = told(&gone, &other) {
            lost.insert(claim.clone(), what);
        }
    }
    lost
}

fn told(gone: &[String], other: &[String]) -> Option<String> {
    let some = |list: &[String]| {
        let shown: Vec<&str> = list.iter().filter(|path| *path != ".").take(3).map(String::as_str).collect();
        let more = list.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", shown.join(", "))
    };
    match (gone.len(), other.len()) {
        (0, 0) => None,
        (0, n) => Some(format!("{n} files are not as they were: {}", some(other))),
        (n, 0) => Some(format!("{n} files are gone: {}", some(gone))),
        (n, m) => Some(format!("{n} files are gone and {m} not as they were: {}", some(gone))),
    }
}
