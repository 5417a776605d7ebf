//! The lab: a Kubernetes in this process, with real directories as volumes and real processes as pods.
//!
//! Not a mock of our own code: it knows nothing of the packages that use it, only the API's rules. The command line
//! serves it on loopback or gives it to the client as a transport; tests run the same suite on it and on a real
//! cluster. What must stay true: what it does not simulate it refuses with a Status that says so; every write, also
//! those of its own controllers, goes through `handle`; nothing outside of its directory is touched, but for what the
//! caller shares.

pub mod access;
pub mod act;
pub mod admit;
pub mod core;
#[cfg(test)]
mod crowd;
pub mod discovery;
pub mod disk;
pub mod faults;
pub mod handle;
pub mod http;
pub mod keep;
pub mod kind;
pub mod kubelet;
pub mod meta;
pub mod names;
pub mod negotiate;
pub mod openapi;
pub mod patch;
pub mod process;
pub mod quantity;
pub mod rules;
pub mod scenario;
pub mod selector;
pub mod serve;
pub mod status;
pub mod store;
pub mod table;
pub mod transport;
mod types;
pub mod watch;

use core::Core;
use disk::Disks;
use keep::{Home, Unusable};
use kubelet::{Images, Kubelets};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use store::{Key, State, text};

/// The version that it says to be; its rules and messages are those of 1.20.2.
pub const VERSION: &str = "v1.20.2+lab";

/// How to open a lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything of it is.
    pub dir: PathBuf,
    pub images: Images,
    /// Directories outside that host paths may reach, on every node.
    pub shared: Vec<PathBuf>,
    /// Decides uids, names and the order in which controllers act.
    pub seed: u64,
    /// Whether the state is kept for the next time.
    pub keep: bool,
}

/// A lab at work. It ends, with all its processes, when this is dropped.
pub struct Lab {
    core: Arc<Core>,
    thread: Option<std::thread::JoinHandle<()>>,
    home: Home,
    is_new: bool,
}

impl Lab {
    /// Opens the directory and lets the controllers begin. A new lab has the namespaces that every cluster has.
    ///
    /// # Errors
    /// If the directory is somebody else's, in use, or damaged. It is left as it was.
    pub fn open(mut options: Options) -> Result<Lab, Unusable> {
        // The programs of pods are told of it, and each runs in a directory of its own.
        options.dir =
            std::path::absolute(&options.dir).map_err(|error| Unusable::Io { path: options.dir.clone(), error })?;
        let home = Home::open(&options.dir)?;
        let now = crate::words::clock::Clock.now();
        let mut state = State::new(options.seed, now);
        let is_new = !home.has_state();
        home.load(&mut state)?;
        if is_new {
            found(&mut state);
            // Nobody can watch from before the beginning.
            state.begin_at(state.revision());
        }
        let keeper = if options.keep { Some(home.keep(&state)?) } else { None };
        let disks = Disks::new(&options.dir, options.shared);
        // A process that ends wakes the kubelets of the core that started it.
        let place: Arc<OnceLock<Weak<Core>>> = Arc::default();
        let told = place.clone();
        let ended = Arc::new(move |key: Key| {
            if let Some(core) = told.get().and_then(Weak::upgrade) {
                core.with_kubelets(|kubelets, _| kubelets.wake(key));
            }
        });
        let core = Core::new(state, disks, Kubelets::new(options.images, ended), keeper);
        place.set(Arc::downgrade(&core)).expect("it is set once");
        let worker = core.clone();
        let thread = std::thread::Builder::new()
            .name("lab".into())
            .spawn(move || worker.work())
            .map_err(|error| Unusable::Io { path: options.dir.clone(), error })?;
        Ok(Lab { core, thread: Some(thread), home, is_new })
    }

    /// Whether nothing was kept of an earlier time.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The directory, which is this lab's alone.
    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// A client's way in without a port.
    pub fn transport(&self) -> transport::Transport {
        transport::Transport { core: self.core.clone() }
    }

    /// Waits until controllers and kubelets have nothing left to do; processes go on.
    pub fn settle(&self, within: Duration) -> bool {
        self.core.wait_for_rest(within)
    }

    /// Waits until the state shows what is looked for.
    pub fn wait<T>(&self, within: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let deadline = crate::words::clock::Clock.deadline(within);
        loop {
            let (found, revision) = self.core.look(|state| (look(state), state.revision()));
            if found.is_some() || deadline.passed() || !self.core.wait_past(revision, deadline.left()) {
                return found;
            }
        }
    }

    /// Waits for the reason why it had to stop, such as a full disk.
    pub async fn broke(&self) -> String {
        let mut revisions = self.core.revisions.subscribe();
        loop {
            if let Some(why) = self.core.broken() {
                return why;
            }
            // The sender lives as long as the core.
            if revisions.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Ends the controllers and every process, and waits for that.
    pub fn end(&mut self) {
        self.core.end();
        if let Some(thread) = self.thread.take() {
            // A panic of the lab was told when it happened.
            drop(thread.join());
        }
    }

    /// The directory of a bound claim, waited for.
    pub fn volume_of(&self, namespace: &str, claim: &str, within: Duration) -> Option<PathBuf> {
        let volume = self.wait(within, |state| {
            let claim = state.get("PersistentVolumeClaim", namespace, claim)?;
            if claim["status"]["phase"] != "Bound" {
                return None;
            }
            state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"])).cloned()
        })?;
        let nodes = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        let node = nodes["values"][0].as_str().unwrap_or("node1");
        kubelet::volume_dir(&volume, node, &self.core.disks).ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end();
    }
}

/// What every cluster has from its first moment.
fn found(state: &mut State) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let mut object = json!({
            "kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        object["metadata"]["uid"] = state.uid().into();
        object["metadata"]["creationTimestamp"] = handle::stamp(state.now());
        state.put(Key::new("Namespace", "", name), object, "system:lab");
    }
}
