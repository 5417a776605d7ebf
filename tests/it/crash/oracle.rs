//! What must hold after every commit, and what the end is compared by.
//!
//! The names are those of the invariants: I1 no losable last copy, I2 Retain while it matters, I3 never unreserved, I4
//! policy given back safely, I5 one writer, I6 nobody comes between the last copy and the swap, I11 replicas noted where they are missed, I9 the name goes on, I10 replicas restored, I7 the source untouched, I8
//! the target equal to it, I14 nothing else touched, I19 no litter, I23 no dead owner. What the requests must be (I12, I13, I15) is checked on their way out, in `doom`.

use super::trial::{RUN, Shop};
use crate::world::Digest;
use pvmigrate::lab::Lab;
use pvmigrate::lab::disk::Disks;
use pvmigrate::lab::kind;
use pvmigrate::lab::store::{Commit, State, claims_of, list_of, text};
use pvmigrate::trial::Picture;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The one who is tested; the lab's own controllers have other names.
const WE: &str = "system:admin";
const PVC: &str = "PersistentVolumeClaim";
/// Who acts between our requests, where a test wants that; what this one makes is called `thief`.
const SOMEBODY: &str = "somebody";
const THIEF: &str = "thief";

pub struct Oracle {
    shop: &'static Shop,
    /// Name and uid.
    source: (String, String),
    claim_uid: String,
    directory: PathBuf,
    /// Of the source before anything happened.
    bytes: Value,
    disks: Disks,
    /// What the workload had written when a last copy began, by the directory that was copied.
    lines: BTreeMap<PathBuf, Vec<u8>>,
    /// The claim whose last copy was begun, whether somebody meant to use it since, and whether one came to a node for it.
    copied: String,
    used: bool,
    mounted: bool,
    counts: BTreeMap<String, u32>,
    broken: BTreeSet<String>,
    /// Somebody else changed something.
    meddled: bool,
    /// What somebody else did to the source, and we are not to blame for.
    excused: Excused,
}

#[derive(Default)]
struct Excused {
    /// Its policy was put back under our hands: our next deletion must not happen, but it is not Retain.
    retain: bool,
    /// The source was given up by somebody else when its claim was away already, or before we had protected it.
    lost: bool,
}

impl Oracle {
    pub fn new(lab: &Lab, shop: &'static Shop) -> Oracle {
        let core = lab.core();
        core.look(|state| {
            let claim = state.get("PersistentVolumeClaim", "shop", shop.claim).expect("the claim is there");
            let name = text(&claim["spec"]["volumeName"]).to_owned();
            let volume = state.get("PersistentVolume", "", &name).expect("it is bound");
            let directory = core.disks.volume(text(&volume["spec"]["csi"]["volumeHandle"]));
            Oracle {
                shop,
                source: (name, text(&volume["metadata"]["uid"]).to_owned()),
                claim_uid: text(&claim["metadata"]["uid"]).to_owned(),
                bytes: files(&directory),
                directory,
                disks: core.disks.clone(),
                lines: BTreeMap::new(),
                copied: String::new(),
                used: false,
                mounted: false,
                counts: BTreeMap::new(),
                broken: BTreeSet::new(),
                meddled: false,
                excused: Excused::default(),
            }
        })
    }

    /// Whether somebody else destroyed the source, or what it was before we had protected it.
    pub fn is_excused(&self) -> bool {
        self.excused.lost
    }

    /// The directory of the source volume.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn broken(&self) -> Vec<String> {
        self.broken.iter().cloned().collect()
    }

    fn must(&mut self, holds: bool, commit: &Commit, what: &str) {
        if !holds {
            self.broken.insert(format!("{what}, after revision {} ({} by {})", commit.revision, commit.key, commit.by));
        }
    }

    /// Called after every commit, before anybody else sees it.
    pub fn commit(&mut self, state: &State, commit: &Commit) {
        self.count(commit);
        let source = state.get("PersistentVolume", "", &self.source.0).cloned();
        let is_there = source.as_ref().is_some_and(|pv| pv["metadata"]["uid"] == self.source.1[..]);
        let safe = source.as_ref().is_some_and(|pv| !losable(state, pv));
        let retained = source.as_ref().is_some_and(|pv| pv["spec"]["persistentVolumeReclaimPolicy"] == "Retain");
        if commit.by == SOMEBODY {
            self.meddled = true;
            let after = commit.after.as_ref();
            self.excused.retain |= after.is_some_and(|pv| pv["spec"]["persistentVolumeReclaimPolicy"] == "Delete");
            self.excused.lost |= !safe || (!retained && commit.key.kind == "Namespace");
        }
        let is_safe = is_there && safe && self.directory.is_dir();
        self.must(is_safe || self.excused.lost, commit, "I1 the source can be lost");
        let workload = state.get(self.shop.kind, "shop", self.shop.workload);
        let is_stopped = workload.is_some_and(|workload| workload["spec"]["replicas"] == 0);
        let may_be_other = self.excused.retain || self.excused.lost;
        let what = "I2 the workload is stopped and the source is not retained";
        self.must(!is_stopped || retained || may_be_other, commit, what);
        let held = |pv: &Value| pv["metadata"]["annotations"]["pvmigrate.io/run"].is_string();
        let mut volumes = state.list("PersistentVolume", "").map(|(_, pv)| pv).filter(|pv| held(pv));
        let retained = volumes.all(|pv| pv["spec"]["persistentVolumeReclaimPolicy"] == "Retain");
        let what = "I2 the workload is stopped and a volume in our hand is not retained";
        self.must(!is_stopped || retained || may_be_other, commit, what);
        let noted =
            workload.is_some_and(|workload| workload["metadata"]["annotations"]["pvmigrate.io/replicas"] == "1");
        self.must(!is_stopped || noted, commit, "I11 nobody can tell how many replicas there were");
        match commit.key.kind {
            "PersistentVolume" => self.volume(state, commit),
            "Pod" => self.pod(state, commit),
            _ => {}
        }
        self.window(state, commit);
        if commit.by == WE {
            self.owners(state, commit);
            let run =
                commit.after.as_ref().and_then(|object| object["metadata"]["annotations"]["pvmigrate.io/run"].as_str());
            self.must(run.is_none_or(|run| run == RUN), commit, "I16 another run has its hand on it");
            let (name, workload) = (&commit.key.name, self.shop.workload);
            let ours = match commit.key.kind {
                // The shop with two of them calls the second one like the first.
                "PersistentVolumeClaim" => name.starts_with(self.shop.claim) || name.contains("pvmigrate"),
                "Pod" => name.contains("pvmigrate"),
                // What the Deployment's controller copied from our notes is taken back.
                "Deployment" | "ReplicaSet" | "StatefulSet" => {
                    name == workload || name.starts_with(&format!("{workload}-"))
                }
                "Event" | "PersistentVolume" => true,
                // The run's own records, where they are in the cluster.
                "ConfigMap" => name.starts_with("pvmigrate-"),
                _ => false,
            };
            self.must(ours, commit, "I14 something else was touched");
        }
    }

    fn volume(&mut self, state: &State, commit: &Commit) {
        let (Some(before), Some(after)) = (&commit.before, &commit.after) else { return };
        let (was, is) = (&before["spec"], &after["spec"]);
        let freed = !was["claimRef"].is_null() && is["claimRef"].is_null();
        self.must(!freed, commit, "I3 a volume was given free");
        if commit.by == SOMEBODY {
            return;
        }
        let policy = |spec: &Value| text(&spec["persistentVolumeReclaimPolicy"]).to_owned();
        if policy(was) == "Retain" && policy(is) == "Delete" {
            let reference = &is["claimRef"];
            let claim = state
                .get("PersistentVolumeClaim", text(&reference["namespace"]), text(&reference["name"]))
                .filter(|claim| claim["metadata"]["uid"] == reference["uid"]);
            let bound = claim.is_some_and(|claim| {
                claim["spec"]["volumeName"] == after["metadata"]["name"]
                    && claim["metadata"]["deletionTimestamp"].is_null()
            });
            // Or it is given up, and the name stands on another volume.
            let name = state.get("PersistentVolumeClaim", "shop", self.shop.claim);
            let replaced = name.is_some_and(|claim| {
                claim["status"]["phase"] == "Bound"
                    && claim["spec"]["volumeName"] != after["metadata"]["name"]
                    && text(&reference["name"]) == self.shop.claim
                    // What is only reserved for the name is not given up.
                    && reference["uid"].is_string()
            });
            let is_bound = bound && after["status"]["phase"] == "Bound";
            self.must(is_bound || replaced, commit, "I4 the policy came back too early");
        }
    }

    fn pod(&mut self, state: &State, commit: &Commit) {
        let runs = |pod: &Value| !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
        let label = |pod: &Value, name: &str| text(&pod["metadata"]["labels"][name]).to_owned();
        let is_final = |pod: &Value| label(pod, "pvmigrate.io/pass") == "final" && pod["status"]["phase"] == "Running";
        let copies = state.list("Pod", "shop").any(|(_, pod)| is_final(pod));
        let mut users = state.pods_of_claim("shop", self.shop.claim);
        let others = users.any(|pod| runs(pod) && label(pod, "pvmigrate.io/task").is_empty());
        // Whoever is started by somebody else just when it begins makes it worth nothing: then it is I6 that decides.
        let what = "I5 somebody writes while the last copy is made";
        self.must(!(copies && others) || self.meddled, commit, what);
        let after = commit.after.as_ref().map(|pod| pod["status"]["containerStatuses"].clone()).unwrap_or_default();
        let lost = list_of(&after)
            .iter()
            .flat_map(|status| [&status["state"], &status["lastState"]])
            .find(|state| state["terminated"]["exitCode"] == 3)
            .map(|state| text(&state["terminated"]["message"]).to_owned());
        let what = format!("I8 a line that was acknowledged is lost: {}", lost.as_deref().unwrap_or_default());
        self.must(lost.is_none(), commit, &what);
    }

    /// From a last copy to the deletion of the claim that was copied.
    fn window(&mut self, state: &State, commit: &Commit) {
        let label = |pod: &Value, name: &str| text(&pod["metadata"]["labels"][name]).to_owned();
        if let (None, Some(pod), "Pod") = (&commit.before, &commit.after, commit.key.kind) {
            let is_last = label(pod, "pvmigrate.io/pass") == "final" && label(pod, "pvmigrate.io/task") == "copy";
            if is_last {
                (self.used, self.mounted) = (false, false);
                self.copied =
                    state.get(PVC, "shop", self.shop.claim).map_or("", |claim| text(&claim["metadata"]["uid"])).into();
                if let Some(dir) = self.directory_of_claim(state) {
                    let lines = std::fs::read(dir.join("web/lines")).unwrap_or_default();
                    self.lines.insert(dir, lines);
                }
            } else if label(pod, "pvmigrate.io/task").is_empty()
                && claims_of(&pod["spec"]).any(|claim| claim == self.shop.claim)
            {
                self.used = true;
            }
        }
        if commit.after.as_ref().is_some_and(|pod| label(pod, "pvmigrate.io/task").is_empty())
            && came_to_a_node(commit, self.shop.claim)
        {
            let claim = state.get(PVC, "shop", self.shop.claim);
            self.mounted |= claim.is_some_and(|claim| claim["metadata"]["uid"] == self.copied[..]);
        }
        if (commit.key.kind, &commit.key.name[..]) != (PVC, self.shop.claim) {
            return;
        }
        if let (WE, None, Some(after)) = (&commit.by[..], &commit.before, &commit.after) {
            let is_target = after["spec"]["volumeName"] != self.source.0[..];
            self.must(
                !(is_target && self.mounted),
                commit,
                "I6 swapped, though somebody used the claim after its last copy",
            );
        }
        let Some(before) = &commit.before else { return };
        let is_going = |claim: &Value| claim["metadata"]["deletionTimestamp"].is_string();
        if commit.by != WE || is_going(before) || commit.after.as_ref().is_some_and(|after| !is_going(after)) {
            return;
        }
        let is_copied = before["metadata"]["uid"] == self.copied[..];
        // Between our last look and the deletion somebody may always come: then it is the swap that must not be.
        self.must(
            !(self.used && is_copied) || self.meddled,
            commit,
            "I6 somebody used the claim after its last copy began",
        );
        let is_reserved = |pv: &Value| {
            let reference = &pv["spec"]["claimRef"];
            let name = text(&reference["name"]);
            text(&reference["namespace"]) == "shop" && (name == self.shop.claim || Some(name) == self.shop.becomes)
                // Its own volume is reserved for the next of that name if it is this one's no more.
                && (pv["metadata"]["name"] != before["spec"]["volumeName"] || reference["uid"].is_null())
        };
        let is_reserved = state.list("PersistentVolume", "").any(|(_, pv)| is_reserved(pv));
        self.must(is_reserved, commit, "I3 the claim goes and no volume is reserved for its name");
    }

    /// The directory behind the claim, whatever a copy pod takes for it.
    fn directory_of_claim(&self, state: &State) -> Option<PathBuf> {
        let claim = state.get(PVC, "shop", self.shop.claim)?;
        let volume = state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"]))?;
        Some(self.disks.volume(text(&volume["spec"]["csi"]["volumeHandle"])))
    }

    fn owners(&mut self, state: &State, commit: &Commit) {
        let object = commit.after.as_ref();
        let owners = object.and_then(|object| object["metadata"]["ownerReferences"].as_array());
        let lives = |owner: &Value| {
            let kind = kind::find(text(&owner["kind"]))?;
            let namespace = if kind.namespaced { &commit.key.namespace[..] } else { "" };
            state.get(kind.kind, namespace, text(&owner["name"])).filter(|live| live["metadata"]["uid"] == owner["uid"])
        };
        let all_live = owners.is_none_or(|owners| owners.iter().all(|owner| lives(owner).is_some()));
        self.must(all_live, commit, "I23 an owner that does not live");
    }

    fn count(&mut self, commit: &Commit) {
        let object = commit.after.as_ref().or(commit.before.as_ref());
        if object.is_some_and(|object| is_thiefs(object)) {
            return;
        }
        let key = match commit.key.kind {
            kind @ ("PersistentVolumeClaim" | "Deployment" | "StatefulSet") => format!("{kind} {}", commit.key.name),
            kind @ "PersistentVolume" => {
                let class = object.map(|pv| text(&pv["spec"]["storageClassName"]).to_owned());
                format!("{kind} of class {}", class.unwrap_or_default())
            }
            _ => return,
        };
        let word = match (&commit.before, &commit.after) {
            (None, Some(_)) => "made",
            (Some(_), None) => "deleted",
            _ => return,
        };
        *self.counts.entry(format!("{key} {word}")).or_default() += 1;
    }

    /// Objects that carry a note of ours, but for events and the old volume.
    pub fn litter(&self, lab: &Lab) -> Vec<String> {
        const KINDS: [&str; 7] = [
            "Pod",
            "PersistentVolumeClaim",
            "PersistentVolume",
            "Deployment",
            "StatefulSet",
            "ReplicaSet",
            "ConfigMap",
        ];
        let is_ours = |object: &Value| {
            let maps = ["labels", "annotations"].map(|field| object["metadata"][field].as_object());
            maps.into_iter().flatten().any(|map| map.keys().any(|key| key.starts_with("pvmigrate.io/")))
        };
        lab.core().look(|state| {
            let all = KINDS.iter().flat_map(|kind| state.list(kind, ""));
            let left = all.filter(|(key, object)| is_ours(object) && key.name != self.source.0);
            left.map(|(key, _)| key.to_string()).collect()
        })
    }

    /// The end as it is now.
    pub fn picture(&self, lab: &Lab) -> Picture {
        let core = lab.core();
        let mut objects = BTreeMap::new();
        core.look(|state| {
            for (key, claim) in state.list("PersistentVolumeClaim", "").filter(|(_, claim)| !is_thiefs(claim)) {
                let volume = state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"]));
                let mut spec = claim["spec"].clone();
                spec.as_object_mut().map(|spec| spec.remove("volumeName"));
                objects.insert(
                    key.to_string(),
                    json!({
                        "labels": claim["metadata"]["labels"], "annotations": claim["metadata"]["annotations"],
                        "finalizers": lasting(&claim["metadata"]["finalizers"]), "spec": spec, "phase": claim["status"]["phase"],
                        "original": claim["metadata"]["uid"] == self.claim_uid[..],
                        "volume": volume.map(|pv| pv["spec"]["storageClassName"].clone()),
                    }),
                );
            }
            for (_, pv) in state.list("PersistentVolume", "").filter(|(_, pv)| !is_thiefs(pv)) {
                let spec = &pv["spec"];
                let mut key = format!("PersistentVolume of class {}", text(&spec["storageClassName"]));
                if text(&spec["claimRef"]["name"]) == format!("{}-too", self.shop.claim) {
                    key += ", the second one";
                }
                objects.insert(
                    key,
                    json!({
                        "labels": pv["metadata"]["labels"], "annotations": pv["metadata"]["annotations"],
                        "finalizers": pv["metadata"]["finalizers"],
                        "policy": spec["persistentVolumeReclaimPolicy"], "claim": spec["claimRef"]["name"],
                        "phase": pv["status"]["phase"], "is_source": pv["metadata"]["name"] == self.source.0[..],
                        "of_original": spec["claimRef"]["uid"] == self.claim_uid[..],
                    }),
                );
            }
            for (key, one) in state.list("Deployment", "").chain(state.list("StatefulSet", "")) {
                let mut annotations = one["metadata"]["annotations"].clone();
                annotations.as_object_mut().map(|map| map.remove("deployment.kubernetes.io/revision"));
                objects.insert(
                    key.to_string(),
                    json!({
                        "labels": one["metadata"]["labels"], "annotations": annotations, "spec": one["spec"],
                    }),
                );
            }
            for (key, pod) in state.list("Pod", "") {
                let owner = text(&pod["metadata"]["ownerReferences"][0]["kind"]).to_owned();
                let name = if owner.is_empty() { key.to_string() } else { format!("Pod of a {owner}") };
                objects.insert(name, json!({"labels": pod["metadata"]["labels"]["app"]}));
            }
        });
        let target = lab.volume_of("shop", self.shop.called(lab), std::time::Duration::from_secs(10));
        let has = |dir: &PathBuf| std::fs::read(dir.join("web/lines")).unwrap_or_default();
        let are_there = |dir: &PathBuf| self.lines.values().all(|lines| has(dir).starts_with(lines));
        let are_left =
            |(dir, lines): (&PathBuf, &Vec<u8>)| target.as_ref() == Some(dir) || !dir.is_dir() || has(dir) == *lines;
        objects.insert("lines of I7 the source".into(), self.lines.iter().all(are_left).into());
        objects.insert("lines of I8 the target".into(), target.as_ref().is_some_and(are_there).into());
        for (whose, dir) in [("I7 the source", Some(&self.directory)), ("I8 the target", target.as_ref())] {
            let now = dir.map_or(Value::Null, |dir| files(dir));
            let same = if now == self.bytes {
                "as it was".into()
            } else {
                json!({"was": missing(&self.bytes, &now), "is": missing(&now, &self.bytes)})
            };
            objects.insert(format!("bytes of {whose}"), same);
        }
        Picture { objects, counts: self.counts.clone() }
    }
}

/// What nobody wrote to meanwhile: names, metadata, content.
fn files(dir: &std::path::Path) -> Value {
    let all = Digest::of(dir);
    let quiet = |path: &&String| path.starts_with("odd") || path.starts_with("d0");
    let lines: Vec<String> =
        all.files.keys().filter(quiet).map(|path| format!("{path} {:?}", all.files[path])).collect();
    assert!(lines.len() > 20, "{}: {} files", dir.display(), lines.len());
    lines.into()
}

/// The lines of one that the other does not have.
fn missing(of: &Value, from: &Value) -> Vec<Value> {
    list_of(of).iter().filter(|line| !list_of(from).contains(line)).cloned().collect()
}

/// Whether somebody else made it, and it is none of what is compared.
fn is_thiefs(object: &Value) -> bool {
    text(&object["metadata"]["name"]) == THIEF || text(&object["spec"]["claimRef"]["name"]) == THIEF
}

fn losable(state: &State, pv: &Value) -> bool {
    let (spec, meta) = (&pv["spec"], &pv["metadata"]);
    let reference = &spec["claimRef"];
    let named = state.get("PersistentVolumeClaim", text(&reference["namespace"]), text(&reference["name"]));
    let claim = named.filter(|claim| claim["metadata"]["uid"] == reference["uid"]);
    let is_going = !meta["deletionTimestamp"].is_null();
    let has_uid = !text(&reference["uid"]).is_empty();
    let elsewhere = claim.is_some_and(|claim| {
        let volume = text(&claim["spec"]["volumeName"]);
        !volume.is_empty() && volume != text(&meta["name"])
    });
    let claim_goes = claim.is_some_and(|claim| !claim["metadata"]["deletionTimestamp"].is_null());
    let destroyable = spec["persistentVolumeReclaimPolicy"] == "Delete"
        && (is_going || (has_uid && claim.is_none()) || elsewhere || claim_goes);
    destroyable || is_going || reference.is_null()
}

/// Whether a pod that names a claim was given its node just now.
fn came_to_a_node(commit: &Commit, claim: &str) -> bool {
    let has_node = |pod: &Value| pod["spec"]["nodeName"].is_string();
    commit.key.kind == "Pod"
        && !commit.before.as_ref().is_some_and(|pod| has_node(pod))
        && commit.after.as_ref().is_some_and(|pod| has_node(pod) && claims_of(&pod["spec"]).any(|named| named == claim))
}

/// The finalizers of a claim but for that of whom its driver has cloned, which goes when the claim does.
fn lasting(finalizers: &Value) -> Vec<&Value> {
    let stays = |one: &&Value| **one != "provisioner.storage.kubernetes.io/cloning-protection";
    finalizers.as_array().into_iter().flatten().filter(stays).collect()
}
