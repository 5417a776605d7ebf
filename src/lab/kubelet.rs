//! The kubelets: they mount directories, run the containers of pods as processes, and say what became of them.
//!
//! One for all nodes of the lab; a node that is cut off is left alone, and its processes go on. The decision for a pod is
//! `decide`, pure; this file carries it out. Processes are `process`'s. What must stay true: no container starts before
//! its claims are bound, not going, and attached where they must be; the object of a pod goes only after its processes
//! ended; an image that nobody registered never runs.

mod decide;
mod mounts;

pub use mounts::of_volume as volume_dir;

use super::act::{Turn, Write};
use super::disk::Disks;
use super::process::{Container, Fate, Outcome, Process};
use super::store::{Commit, Key, State, claims_of, list_of, text};
use decide::{Decision, decide};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What an image name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// What a container's command may call, and the program on this machine: `pvmigrate`. The first is run by containers
    /// that name no command.
    pub programs: Vec<(String, PathBuf)>,
}

/// Which images there are: by exact name, or by a prefix that ends with `*`.
#[derive(Clone, Debug, Default)]
pub struct Images {
    pub by_name: BTreeMap<String, Image>,
}

impl Images {
    pub fn find(&self, name: &str) -> Option<&Image> {
        let fits = |known: &str| known.strip_suffix('*').map_or(known == name, |prefix| name.starts_with(prefix));
        self.by_name.iter().find(|(known, _)| fits(known)).map(|(_, image)| image)
    }
}

/// Called from the thread of a process that ended, with the pod's key.
pub type Ended = Arc<dyn Fn(Key) + Send + Sync>;

pub struct Kubelets {
    images: Images,
    /// uid of a pod → its containers that were started, by name.
    pods: BTreeMap<String, Pod>,
    /// Nodes that cannot reach the API.
    cut_off: BTreeSet<String>,
    woken: BTreeSet<Key>,
    ended: Ended,
}

struct Pod {
    key: Key,
    node: String,
    containers: BTreeMap<String, Container>,
}

/// How long a container waits before it is started again: 1 s, then twice as long each time, to five minutes.
const RESTART_S: i64 = 1;
const RESTART_MAX_S: i64 = 300;

impl Kubelets {
    pub fn new(images: Images, ended: Ended) -> Kubelets {
        Kubelets { images, pods: BTreeMap::new(), cut_off: BTreeSet::new(), woken: BTreeSet::new(), ended }
    }

    pub fn take_woken(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.woken)
    }

    /// A process of this pod ended, or its time has come.
    pub fn wake(&mut self, key: Key) {
        self.woken.insert(key);
    }

    /// Cuts a node off from the API, or lets it back. Its processes go on.
    pub fn cut_off(&mut self, state: &State, node: &str, is_cut_off: bool) {
        if is_cut_off {
            self.cut_off.insert(node.to_owned());
        } else if self.cut_off.remove(node) {
            let of_node = |pod: &Value| text(&pod["spec"]["nodeName"]) == node;
            self.woken.extend(state.list("Pod", "").filter(|(_, pod)| of_node(pod)).map(|(key, _)| key.clone()));
            self.woken.extend(self.pods.values().map(|pod| pod.key.clone()));
        }
        self.woken.insert(Key::new("Node", "", node));
    }

    /// Kills every process on a node, as a power cut does.
    pub fn kill_node(&mut self, node: &str) {
        for pod in self.pods.values_mut().filter(|pod| pod.node == node) {
            pod.containers.values_mut().for_each(|container| container.stop(0));
        }
    }

    /// Kills the processes of a pod, and returns how many there were. Without a fate nobody says who it was.
    pub fn kill_pod(&mut self, key: &Key, fate: Option<Fate>) -> usize {
        let of_pod = self.pods.values().filter(|pod| pod.key == *key).flat_map(|pod| pod.containers.values());
        let running = of_pod.filter(|container| container.outcome().is_running());
        running.map(|container| fate.map_or_else(|| container.kill(), |fate| container.kill_for(fate))).count()
    }

    /// Whoever is to be looked at because of a commit.
    pub fn wakes(&self, state: &State, commit: &Commit) -> Vec<Key> {
        let key = &commit.key;
        let object = commit.after.as_ref().or(commit.before.as_ref());
        match key.kind {
            "Pod" => {
                let node = object.map(|pod| text(&pod["spec"]["nodeName"]).to_owned()).unwrap_or_default();
                let mut keys = vec![key.clone()];
                // A node says which volumes its pods use.
                let has_claims = object.is_some_and(|pod| claims_of(&pod["spec"]).next().is_some());
                if !node.is_empty() && has_claims {
                    keys.push(Key::new("Node", "", node));
                }
                keys
            }
            "PersistentVolumeClaim" => state.pods_of_claim(&key.namespace, &key.name).map(|pod| pod_key(pod)).collect(),
            "PersistentVolume" => {
                let claim = object.map(|volume| volume["spec"]["claimRef"].clone()).unwrap_or_default();
                state.pods_of_claim(text(&claim["namespace"]), text(&claim["name"])).map(|pod| pod_key(pod)).collect()
            }
            "VolumeAttachment" => {
                let volume = object.map(|one| text(&one["spec"]["source"]["persistentVolumeName"]).to_owned());
                let claim = volume
                    .and_then(|name| state.get("PersistentVolume", "", &name))
                    .map(|volume| volume["spec"]["claimRef"].clone())
                    .unwrap_or_default();
                state.pods_of_claim(text(&claim["namespace"]), text(&claim["name"])).map(|pod| pod_key(pod)).collect()
            }
            "Node" => vec![key.clone()],
            _ => Vec::new(),
        }
    }

    /// What is due for a pod or a node. Processes are started and stopped here; what is to be said is returned.
    pub fn act(&mut self, state: &State, key: &Key, disks: &Disks) -> Turn {
        if key.kind == "Node" {
            return self.act_for_node(state, key);
        }
        let pod = state.at(key);
        let uid = pod.map(|pod| text(&pod["metadata"]["uid"]).to_owned()).unwrap_or_default();
        // What runs under this name and is not this pod has nothing to run for; a node that is cut off does not hear of it.
        let is_stale = |of: &String, pod: &Pod| pod.key == *key && *of != uid && !self.cut_off.contains(&pod.node);
        let stale: Vec<String> =
            self.pods.iter().filter(|(of, pod)| is_stale(of, pod)).map(|(of, _)| of.clone()).collect();
        for of in stale {
            self.forget(&of, disks);
        }
        let Some(pod) = pod else { return Turn::rest() };
        let node = text(&pod["spec"]["nodeName"]).to_owned();
        if node.is_empty() || self.cut_off.contains(&node) || state.get("Node", "", &node).is_none() {
            return Turn::rest();
        }
        if super::handle::is_inert(pod) {
            return Turn::rest();
        }
        let outcomes: BTreeMap<String, Outcome> = self
            .pods
            .get(&uid)
            .map(|pod| pod.containers.iter().map(|(name, one)| (name.clone(), one.outcome())).collect())
            .unwrap_or_default();
        match decide(state, pod, &outcomes, &self.images) {
            Decision::Rest => Turn::rest(),
            Decision::Wait(at) => Turn::wait_until(at),
            Decision::Say(writes) => Turn::of(writes),
            Decision::Start(name) => self.start(state, pod, &name, disks),
            Decision::Stop { grace_s } => {
                if let Some(running) = self.pods.get_mut(&uid) {
                    for container in running.containers.values_mut() {
                        container.stop(grace_s);
                    }
                }
                Turn::rest()
            }
            Decision::Gone(writes) => {
                self.forget(&uid, disks);
                Turn::of(writes)
            }
        }
    }

    fn start(&mut self, state: &State, pod: &Arc<Value>, name: &str, disks: &Disks) -> Turn {
        let meta = &pod["metadata"];
        let (uid, key) = (text(&meta["uid"]).to_owned(), pod_key(pod));
        let Some(spec) = list_of(&pod["spec"]["containers"]).iter().find(|one| one["name"] == name) else {
            return Turn::rest();
        };
        let image = self.images.find(text(&spec["image"])).cloned();
        let last_words = disks.last_words(&uid, name);
        let plan = mounts::mounts(state, pod, disks)
            .and_then(|mounts| mounts::command(spec, image.as_ref(), &mounts, pod))
            .map(|mut command| {
                // A path that cannot be mounted is told.
                command.env.insert("TERMINATION_LOG".to_owned(), last_words.display().to_string());
                let falls_back_to_log = spec["terminationMessagePolicy"] == "FallbackToLogsOnError";
                Process { command, log: disks.log(&uid, name), last_words, falls_back_to_log }
            });
        let ended = self.ended.clone();
        let woken = key.clone();
        let started = state.now();
        let container = match plan {
            Ok(process) => Container::start(process, started, Box::new(move || ended(woken.clone()))),
            Err(why) => Container::failed(why, started),
        };
        let running = self.pods.entry(uid).or_insert_with(|| Pod {
            key: key.clone(),
            node: text(&pod["spec"]["nodeName"]).to_owned(),
            containers: BTreeMap::new(),
        });
        let said = list_of(&pod["status"]["containerStatuses"]).iter().find(|one| one["name"] == name);
        // After the lab was started again only the pod itself knows how often.
        let ran = said.filter(|one| one["state"]["running"].is_object() || one["state"]["terminated"].is_object());
        let counted = ran.and_then(|one| one["restartCount"].as_u64()).map_or(0, |count| count as u32 + 1);
        let restarts = running.containers.get(name).map_or(counted, |before| before.restarts() + 1);
        running.containers.insert(name.to_owned(), container.restarted(restarts));
        // What it became is looked at in a turn of its own.
        Turn::wait_until(started)
    }

    fn forget(&mut self, uid: &str, disks: &Disks) {
        if let Some(pod) = self.pods.remove(uid) {
            for container in pod.containers.into_values() {
                container.kill();
            }
        }
        let dir = disks.root().join("pods").join(uid);
        if dir.is_dir()
            && let Err(error) = std::fs::remove_dir_all(&dir)
        {
            tracing::warn!("{}: {error}", dir.display());
        }
    }

    /// A node says that it is well, and which volumes it uses.
    fn act_for_node(&self, state: &State, key: &Key) -> Turn {
        let Some(node) = state.at(key) else { return Turn::rest() };
        if super::handle::is_inert(node) {
            return Turn::rest();
        }
        let is_cut_off = self.cut_off.contains(&key.name);
        let mut new = (**node).clone();
        let now = super::handle::stamp(state.now());
        let ready = list_of(&node["status"]["conditions"]).iter().find(|one| one["type"] == "Ready");
        let wanted = if is_cut_off { "Unknown" } else { "True" };
        if ready.is_none_or(|ready| ready["status"] != wanted) {
            let (reason, message) = if is_cut_off {
                ("NodeStatusUnknown", "Kubelet stopped posting node status.")
            } else {
                ("KubeletReady", "kubelet is posting ready status")
            };
            let condition = json!({
                "type": "Ready", "status": wanted, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            });
            super::handle::set_condition(&mut new["status"], condition);
        }
        if !is_cut_off {
            let used = mounts::in_use(state, &key.name, |uid| {
                self.pods.get(uid).is_some_and(|pod| pod.containers.values().any(|one| one.outcome().is_running()))
            });
            match &mut new["status"] {
                Value::Object(status) if used.is_empty() => {
                    status.remove("volumesInUse");
                }
                status => status["volumesInUse"] = used.into(),
            }
        }
        if new == **node { Turn::rest() } else { Turn::of(vec![Write::Status(new)]) }
    }

    /// The output of a container, if it was ever started.
    pub fn container(&self, uid: &str, name: &str) -> Option<&Container> {
        self.pods.get(uid)?.containers.get(name)
    }

    /// Ends every process: the lab ends.
    pub fn end_all(&mut self) {
        let pods = std::mem::take(&mut self.pods);
        let all = || pods.values().flat_map(|pod| pod.containers.values());
        for container in all() {
            container.kill();
        }
        // Whoever comes next finds nobody writing. Killed processes are gone in no time, but for a disk that hangs.
        let deadline = crate::words::clock::Clock.deadline(GONE_WITHIN);
        while all().any(|container| container.outcome().is_running()) && !deadline.passed() {
            std::thread::yield_now();
        }
    }

    /// How many processes run.
    pub fn running(&self) -> usize {
        self.pods.values().flat_map(|pod| pod.containers.values()).filter(|one| one.outcome().is_running()).count()
    }
}

/// How long the end of the lab waits for processes that it killed.
const GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// When a container that ended may be started again.
fn restart_at(finished: Timestamp, restarts: u32) -> Timestamp {
    let pause = RESTART_S.checked_shl(restarts.min(20)).unwrap_or(RESTART_MAX_S).min(RESTART_MAX_S);
    finished + jiff::SignedDuration::from_secs(pause)
}

/// The key of a pod.
pub fn pod_key(pod: &Value) -> Key {
    Key::new("Pod", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]))
}
