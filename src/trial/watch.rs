//! What is looked at after every commit while runs go on, and what writers had written when they ended.
//!
//! The rules hold for every script. What must stay true: nothing is asked of a run or its journal; only the cluster and
//! the bytes count.

use super::view::{Beginning, dir_of, dir_of_claim};
use crate::cluster::REPLICAS;
use crate::lab::Lab;
use crate::lab::disk::Disks;
use crate::lab::store::{Commit, State, claims_of, text};
use crate::words::Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The one whose runs are watched; the lab's own controllers and whoever else there is have other names.
pub const WE: &str = "system:admin";

/// The eyes on one lab.
pub struct Watch {
    beginning: Beginning,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    broken: BTreeSet<String>,
    /// Pods that write: uid → claim and directory.
    writing: BTreeMap<String, Vec<(String, PathBuf)>>,
    /// Claim and writer → lines that were on disk when the writer ended.
    written: BTreeMap<(String, String), u64>,
}

impl Watch {
    /// Begins to look.
    pub fn on(lab: &Lab, beginning: Beginning) -> Arc<Watch> {
        let watch = Arc::new(Watch { beginning, seen: Mutex::default() });
        let disks = lab.core().disks.clone();
        lab.core().look(|state| {
            for (_, pod) in state.list("Pod", "") {
                watch.writer(state, &disks, pod);
            }
        });
        let hook = watch.clone();
        lab.core().hook(Box::new(move |state, commit| hook.commit(state, commit, &disks)));
        watch
    }

    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// What should never have been, each once.
    pub fn broken(&self) -> Vec<String> {
        self.lock().broken.iter().cloned().collect()
    }

    /// Lines that a writer had written and synced, and that are not in its claim's volume now.
    pub fn lost_lines(&self, lab: &Lab) -> Vec<String> {
        let written = self.lock().written.clone();
        let mut lost = Vec::new();
        for ((claim, writer), lines) in written {
            let dir = lab.core().look(|state| dir_of_claim(state, &lab.core().disks, &claim));
            let there = dir.map_or(0, |dir| lines_of(&dir.join(&writer)).unwrap_or(0));
            if there < lines {
                lost.push(format!("claim {claim} has {there} of the {lines} lines that `{writer}` had written"));
            }
        }
        lost
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaks(&self, what: String) {
        self.lock().broken.insert(what);
    }

    fn commit(&self, state: &State, commit: &Commit, disks: &Disks) {
        match (commit.key.kind, &commit.before, &commit.after) {
            ("Pod", _, Some(pod)) => {
                self.writer(state, disks, pod);
                self.alone(state, pod);
            }
            ("Pod", Some(pod), None) => self.ended(pod),
            ("PersistentVolume", Some(before), None) => self.last_copy(state, disks, before),
            ("PersistentVolume", Some(before), Some(after))
                if !before["spec"]["claimRef"].is_null() && after["spec"]["claimRef"].is_null() =>
            {
                let name = &commit.key.name;
                self.breaks(format!("volume {name} was given free: anybody's claim could have taken it"));
            }
            ("Deployment" | "StatefulSet", Some(before), Some(after)) if commit.by == WE => {
                let replicas = |one: &Json| one["spec"]["replicas"].as_i64().unwrap_or(1);
                let noted = after["metadata"]["annotations"][REPLICAS].is_string();
                if replicas(before) > 0 && replicas(after) == 0 && !noted {
                    self.breaks(format!(
                        "{} was set to 0 replicas with no note of how many it had: use stop(workload)",
                        commit.key
                    ));
                }
            }
            _ => {}
        }
    }

    /// A pod that is no copy pod of ours and runs: what it writes to.
    fn writer(&self, state: &State, disks: &Disks, pod: &Json) {
        let uid = text(&pod["metadata"]["uid"]);
        match text(&pod["status"]["phase"]) {
            "Running" if !is_ours(pod) && !self.lock().writing.contains_key(uid) => {
                let namespace = text(&pod["metadata"]["namespace"]);
                let claims = claims_of(&pod["spec"]).map(|name| format!("{namespace}/{name}"));
                let dirs = claims.filter_map(|claim| Some((claim.clone(), dir_of_claim(state, disks, &claim)?)));
                let dirs = dirs.collect();
                self.lock().writing.insert(uid.to_owned(), dirs);
            }
            "Succeeded" | "Failed" => self.ended(pod),
            _ => {}
        }
    }

    /// Its processes are over: what is on disk now must be there for ever.
    fn ended(&self, pod: &Json) {
        let mut seen = self.lock();
        let dirs = seen.writing.remove(text(&pod["metadata"]["uid"]));
        for (claim, dir) in dirs.into_iter().flatten() {
            for writer in writers(&dir) {
                let lines = lines_of(&dir.join(&writer)).unwrap_or(0);
                let written = seen.written.entry((claim.clone(), writer)).or_default();
                *written = lines.max(*written);
            }
        }
    }

    /// While the last copy is made nobody else may use the claim.
    fn alone(&self, state: &State, pod: &Json) {
        let namespace = text(&pod["metadata"]["namespace"]);
        for claim in claims_of(&pod["spec"]) {
            let runs = |pod: &&Arc<Json>| pod["status"]["phase"] == "Running";
            let pods: Vec<&Arc<Json>> = state.pods_of_claim(namespace, claim).filter(runs).collect();
            let copies = pods.iter().any(|pod| pod["metadata"]["labels"]["pvmigrate.io/pass"] == "final");
            if let Some(other) = pods.iter().find(|pod| copies && !is_ours(pod)) {
                let name = text(&other["metadata"]["name"]);
                self.breaks(format!("pod {namespace}/{name} used claim {claim} while the last copy of it was made"));
            }
        }
    }

    /// A first volume goes: its bytes must be where the claim is now.
    fn last_copy(&self, state: &State, disks: &Disks, volume: &Json) {
        let name = text(&volume["metadata"]["name"]);
        let Some((claim, first)) = self.beginning.claims.iter().find(|(_, first)| first.name == name) else { return };
        let (namespace, claim_name) = claim.split_once('/').unwrap_or_default();
        let now = state
            .get("PersistentVolumeClaim", namespace, claim_name)
            .and_then(|claim| state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"])))
            .filter(|volume| text(&volume["metadata"]["name"]) != name)
            .and_then(|volume| dir_of(volume, disks));
        let (gone, _) = first.missing_in(now.as_deref());
        if !gone.is_empty() {
            self.breaks(format!("the last copy of claim {claim} was deleted: {} files are nowhere else", gone.len()));
        }
    }
}

fn is_ours(pod: &Json) -> bool {
    pod["metadata"]["labels"]["pvmigrate.io/task"].is_string()
}

/// Directories of `agent exercise` in a volume.
pub fn writers(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let homes = entries.filter(|entry| entry.path().join("lines").is_file() && entry.path().join("map").is_file());
    homes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whole lines of a writer.
fn lines_of(home: &Path) -> Option<u64> {
    let bytes = std::fs::read(home.join("lines")).ok()?;
    Some(bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
}
