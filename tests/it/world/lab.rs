//! The lab as a ground: one for each test, served on a port of its own, so that pvmigrate meets it as it meets any server.

use pvmigrate::lab::faults::{Fault, Faults};
use pvmigrate::lab::kubelet::{Image, Images};
use pvmigrate::lab::scenario::Scenario;
use pvmigrate::lab::serve::{Identity, Port};
use pvmigrate::lab::{Lab, Options};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Classes as the real cluster has them.
const GROUND: &str = include_str!("../../scenarios/ground.yaml");

/// A lab with its port.
pub struct Bench {
    pub lab: Arc<Lab>,
    identity: Identity,
    port: u16,
    runtime: tokio::runtime::Runtime,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub kubeconfig: PathBuf,
}

impl Bench {
    /// In this directory of the test; host paths below it mean themselves on every node.
    pub fn open(dir: &Path) -> Bench {
        let image = |programs: &[(&str, &str)]| {
            let programs = programs.iter().map(|(name, path)| ((*name).to_owned(), PathBuf::from(path)));
            Image { programs: programs.collect() }
        };
        let by_name = [
            ("docker.io/pvmigrate/agent:*".to_owned(), image(&[("pvmigrate", env!("CARGO_BIN_EXE_pvmigrate"))])),
            (
                super::image::TOOLS.to_owned(),
                image(&[("sh", "/bin/sh"), ("sleep", "/bin/sleep"), ("true", "/bin/true"), ("false", "/bin/false")]),
            ),
        ];
        let seed = std::env::var("PVMIGRATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        eprintln!("world: the lab's seed is {seed} (PVMIGRATE_TEST_SEED)");
        let images = Images { by_name: by_name.into() };
        let options = Options { dir: dir.join("lab"), images, shared: vec![dir.to_owned()], seed, keep: false };
        let lab = Arc::new(Lab::open(options).expect("a lab can be opened in an empty directory"));
        let scenario = Scenario::parse("ground.yaml", GROUND).expect("the ground is right");
        scenario.apply(&lab).expect("the lab takes the ground");
        assert!(lab.settle(Duration::from_secs(30)), "the lab comes to rest");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let port = runtime.block_on(Port::open(0)).expect("a port is free");
        let kubeconfig = dir.join("kubeconfig");
        port.write_kubeconfig(&kubeconfig).expect("the test's directory can be written");
        let (identity, number) = (port.identity(), port.address().port());
        let bench = Bench { lab, identity, port: number, runtime, server: Mutex::default(), kubeconfig };
        bench.serve(port);
        bench
    }

    fn serve(&self, port: Port) {
        let lab = self.lab.clone();
        let server = self.runtime.spawn(async move {
            let ended = port.serve(&lab).await;
            panic!("the lab's port: {ended:?}");
        });
        *self.server.lock().unwrap() = Some(server);
    }

    /// Connections are refused, and those that there are end.
    pub fn close(&self) {
        let server = self.server.lock().unwrap().take().expect("the port is open");
        server.abort();
        let ended = self.runtime.block_on(server);
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the server was at work");
    }

    pub fn reopen(&self) {
        let started = Instant::now();
        loop {
            match self.runtime.block_on(Port::open_as(self.port, self.identity.clone())) {
                Ok(port) => return self.serve(port),
                // A process that is just being started holds what its parent had open for a moment longer.
                Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("the port that was just closed: {error}"),
            }
        }
    }

    /// Cuts a node off from the API, with or without killing what runs there.
    pub fn break_node(&self, node: &str, kill: bool) {
        self.lab.core().with_kubelets(|kubelets, state| {
            kubelets.cut_off(state, node, true);
            if kill {
                kubelets.kill_node(node);
            }
        });
    }

    /// Lets something go wrong at once, as a fault's `then` says it. Panics if there is nothing that it could happen to.
    pub fn strike(&self, then: Value) -> Vec<String> {
        let fault = Fault::read(json!({"then": then})).expect("it is a fault");
        let struck = Faults::new(&self.lab, vec![fault]).strike();
        assert_ne!(struck, Vec::<String>::new(), "{then} happened to nothing");
        struck
    }

    pub fn mend_node(&self, node: &str) {
        self.lab.core().with_kubelets(|kubelets, state| kubelets.cut_off(state, node, false));
    }

    /// The directory behind a volume.
    pub fn dir_of(&self, pv: &Value) -> Option<PathBuf> {
        let terms = &pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0];
        let node = terms.as_str().unwrap_or("node1");
        match pv["spec"]["csi"]["volumeHandle"].as_str() {
            Some(handle) => Some(self.lab.core().disks.volume(handle)),
            None => pvmigrate::lab::kubelet::volume_dir(pv, node, &self.lab.core().disks).ok(),
        }
    }

    /// The node that a volume is attached to.
    pub fn attached_to(&self, pv: &Value) -> Option<String> {
        self.lab.core().look(|state| {
            let of = |one: &Value| one["spec"]["source"]["persistentVolumeName"] == pv["metadata"]["name"];
            let mut all = state.list("VolumeAttachment", "");
            let found = all.find(|(_, one)| of(one) && one["status"]["attached"] == true);
            found.and_then(|(_, one)| one["spec"]["nodeName"].as_str().map(str::to_owned))
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}
