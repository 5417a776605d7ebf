//! The world of a test: a namespace of its own on a real Kubernetes, words to arrange and look, and the cleaning up.
//!
//! It knows the API and the cluster script, and pvmigrate only as a program: its exit code, its output, its journal
//! and its agent's image. Tests are declared with `cluster_test!` and wait with `until` and `ready`, never by sleeping.

mod acks;
mod clean;
mod digest;
mod ground;
mod image;
mod journal;
mod lab;
mod locks;
mod look;
mod macros;
mod nodes;
mod objects;
mod outcome;
mod process;
mod rbac;
mod report;
mod volume;
mod workload;

pub use locks::Sharing;
pub(crate) use macros::cluster_test;
pub use outcome::Outcome;
pub use process::{Pvmigrate, Running};
pub use workload::opts;

pub use digest::Digest;
pub use ground::Where;

pub use lab::Bench;

use ground::Ground;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything of a test carries it, with the test's id.
const LABEL: &str = "world.test/id";
/// `world.test/owner`: process id and its start time, so that what a killed test run left can be told from the living.
const OWNER: &str = "world.test/owner";
/// Annotation of a namespace: the test's directory on this machine.
const DIR: &str = "world.test/dir";
/// What the lab only stores.
pub const INERT: &str = "lab.pvmigrate.io/inert";
const TICK: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub struct World {
    /// The test's namespace.
    pub ns: String,
    id: String,
    sharing: Sharing,
    ground: Ground,
    dir: tempfile::TempDir,
    namespaces: Mutex<Vec<String>>,
    classes: Mutex<BTreeMap<String, String>>,
    loops: Mutex<Vec<std::path::PathBuf>>,
    processes: Mutex<Vec<Arc<outcome::Talk>>>,
    broken: Mutex<nodes::Broken>,
}

/// Runs one test: takes its seat, makes the world, runs the body, reports a failure, repairs and cleans.
pub fn run(name: &str, place: Where, sharing: Sharing, body: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _seat = Ground::seat(place, sharing);
    let started = Instant::now();
    let mut world = runtime.block_on(World::new(name, place, sharing));
    let made = started.elapsed();
    let limited = async { tokio::time::timeout(LIMIT, body(&world)).await.expect("a test ends within ten minutes") };
    let mut outcome = attempt(|| runtime.block_on(limited));
    let (failed, ended) = (outcome.is_err(), started.elapsed());
    let mut also = |work: &mut dyn FnMut()| {
        if let Err(panic) = attempt(work)
            && outcome.is_ok()
        {
            outcome = Err(panic);
        }
    };
    also(&mut || world.kill_all());
    also(&mut || runtime.block_on(world.apiserver_up()));
    if failed {
        also(&mut || runtime.block_on(world.report(name)));
    }
    also(&mut || runtime.block_on(world.repair()));
    let keep = std::env::var_os("PVMIGRATE_TEST_KEEP").is_some_and(|keep| !keep.is_empty());
    if !keep {
        if place == Where::Real {
            also(&mut || runtime.block_on(clean::clean(&world.ground, &world.id)));
            also(&mut || world.drop_loops());
        }
    } else {
        eprintln!("world: kept {} and {}", world.ns, world.dir().display());
        eprintln!("world: the next test run removes it after: kubectl label ns {} {OWNER}=0", world.ns);
        also(&mut || runtime.block_on(world.disown()));
    }
    world.dir.disable_cleanup(keep);
    drop(world.ground.take_bench());
    let (body, cleaning) = (ended - made, started.elapsed() - ended);
    eprintln!("world: {name}: made in {made:.1?}, test {body:.1?}, cleaned in {cleaning:.1?}");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn attempt<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
}

impl World {
    async fn new(name: &str, place: Where, sharing: Sharing) -> World {
        let cut: String = name.chars().take(30).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let ns = format!("t-{}-{}", cut.trim_matches('-').to_lowercase(), random());
        let dir = tempfile::Builder::new().prefix("pvmigrate-world-").tempdir().expect("a directory can be made");
        // Pods of any user write below it.
        open_to_all(dir.path());
        let ground = Ground::connect(place, dir.path()).await;
        if place == Where::Real {
            ground.heal();
            clean::sweep(&ground).await;
        }
        let broken = Mutex::new(nodes::Broken::nothing(&ground, sharing).await);
        let (namespaces, classes, loops) = (Mutex::default(), Mutex::default(), Mutex::default());
        let processes = Mutex::default();
        let id = ns.clone();
        let world = World { ns, id, sharing, ground, dir, namespaces, classes, loops, processes, broken };
        world.make_namespace(&world.ns).await;
        world
    }

    /// One more namespace, gone at the end too.
    pub async fn extra_namespace(&self) -> String {
        let ns = format!("{}-{}", self.ns, random());
        self.make_namespace(&ns).await;
        ns
    }

    async fn make_namespace(&self, ns: &str) {
        let labels = json!({LABEL: self.id, OWNER: clean::me()});
        let meta = json!({"name": ns, "labels": labels, "annotations": {DIR: self.dir()}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta});
        self.ground.send("POST", "/api/v1/namespaces", namespace).await.expect("a namespace can be made");
        self.namespaces.lock().unwrap().push(ns.to_owned());
        // Pods are refused before the namespace has its account.
        let account = format!("{ns}/default");
        let exists = async || self.find("ServiceAccount", &account).await;
        self.until("the default service account", Duration::from_secs(30), exists).await;
    }

    /// All namespaces of this test.
    pub fn namespaces(&self) -> Vec<String> {
        self.namespaces.lock().unwrap().clone()
    }

    /// A directory of this test that all nodes see (they share this machine), gone at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The labels by which the sweep knows what is of this test: for what a test makes without the world's words.
    pub fn labels(&self) -> Value {
        json!({LABEL: self.id, OWNER: clean::me()})
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.ground.kubeconfig
    }

    /// Lets the sweep of later runs pass by.
    async fn disown(&self) {
        for ns in self.namespaces() {
            self.patch("Namespace", &ns, json!({"metadata": {"labels": {OWNER: null}}})).await;
        }
    }

    /// Whether a volume or class belongs to this test: by label, by claim, or by class.
    fn is_ours(&self, object: &Value) -> bool {
        let classes: Vec<String> = self.classes.lock().unwrap().values().cloned().collect();
        clean::belongs(object, &self.id, &self.namespaces(), &classes)
    }
}

/// Five characters that make a name unique.
fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..5].to_owned()
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).expect("our directory's mode can be set");
}
