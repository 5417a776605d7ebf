//! Breaking the cluster, in exclusive tests only, and its repair at the end whatever happened.

use super::ground::{Ground, resource};
use super::locks::locked;
use super::objects::items;
use super::{Sharing, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const NODES: [&str; 2] = ["node1", "node2"];
/// File that holds the API server's command line, a word a line.
const APISERVER: &str = "apiserver.command";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// What has to be put back.
#[derive(Default)]
pub struct Broken {
    nodes: BTreeSet<String>,
    attach_delay: bool,
    /// The API server is down now.
    apiserver: bool,
    /// It was down once: the controllers find back in their own time.
    interrupted: bool,
    /// Annotation of the classes that were there before, of an exclusive test.
    defaults: Vec<(String, Value)>,
}

impl Broken {
    pub async fn nothing(ground: &Ground, sharing: Sharing) -> Broken {
        let mut defaults = Vec::new();
        if sharing == Sharing::Exclusive {
            let mut classes =
                ground.get(&resource("StorageClass").path("", None)).await.expect("classes can be listed");
            for class in items(&mut classes) {
                let name = class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                defaults.push((name, class["metadata"]["annotations"][DEFAULT].clone()));
            }
        }
        Broken { defaults, ..Broken::default() }
    }
}

impl World {
    /// Kills a node's kubelet and containers. Kubernetes notices after 16 s: `node_ready(node, false)` waits for it.
    pub fn node_down(&self, node: &str) {
        self.break_node("node-down", node);
    }

    /// On a lab: lets something go wrong at once, as a fault's `then` says it, and returns to what it happened.
    pub fn strike(&self, then: Value) -> Vec<String> {
        self.ground.bench().expect("it is a lab").strike(then)
    }

    /// Kills only the kubelet: the node's containers go on writing.
    pub fn node_partition(&self, node: &str) {
        self.break_node("node-partition", node);
    }

    fn break_node(&self, how: &str, node: &str) {
        self.must_be_alone();
        self.broken.lock().unwrap().nodes.insert(node.to_owned());
        match self.ground.bench() {
            Some(bench) => bench.break_node(node, how == "node-down"),
            None => drop(self.ground.cluster(&[how, node])),
        }
    }

    /// Ends either, and waits until pods can be scheduled there again.
    pub async fn node_up(&self, node: &str) {
        self.must_be_alone();
        match self.ground.bench() {
            Some(bench) => bench.mend_node(node),
            None => drop(self.ground.cluster(&["node-up", node])),
        }
        self.node_ready(node, true).await;
        self.broken.lock().unwrap().nodes.remove(node);
    }

    /// Waits until the API shows the node Ready and free of taints, or not Ready.
    pub async fn node_ready(&self, node: &str, ready: bool) {
        let is_so = async || {
            let object = self.get("Node", node).await;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let tainted = object["spec"]["taints"].is_array();
            (is_ready == ready && tainted != ready).then_some(())
        };
        let what = format!("{node} to be {}", if ready { "ready" } else { "not ready" });
        self.until(&what, Duration::from_secs(120), is_so).await;
    }

    /// Disks take this long to attach from now on; in the lab they are always attached at once.
    pub fn attach_delay(&self, seconds: u32) {
        self.must_be_alone();
        if self.ground.bench().is_some() {
            return;
        }
        self.broken.lock().unwrap().attach_delay = true;
        self.ground.cluster(&["attach-delay", &seconds.to_string()]);
    }

    /// Kills the API server and starts it again.
    pub async fn restart_apiserver(&self) {
        self.apiserver_down();
        self.apiserver_up().await;
    }

    /// Kills the API server; connections are refused until `apiserver_up`.
    pub fn apiserver_down(&self) {
        self.must_be_alone();
        if let Some(bench) = self.ground.bench() {
            tokio::task::block_in_place(|| bench.close());
            self.broken.lock().unwrap().apiserver = true;
            return;
        }
        let pid = self.ground.pid("apiserver");
        let words = command_line(pid);
        assert!(words.first().is_some_and(|word| word.ends_with("kube-apiserver")), "pid {pid} runs {words:?}");
        // In a file, so that the next test run can start it if this one is killed meanwhile.
        std::fs::write(self.ground.locks().join(APISERVER), words.join("\n")).expect("a file can be written");
        let mut broken = self.broken.lock().unwrap();
        (broken.apiserver, broken.interrupted) = (true, true);
        let pid = Pid::from_raw(pid).expect("a pid is not zero");
        kill_process(pid, Signal::KILL).expect("the API server can be killed");
    }

    /// Starts it again and waits until it is ready; nothing if it is not down.
    pub async fn apiserver_up(&self) {
        if !std::mem::take(&mut self.broken.lock().unwrap().apiserver) {
            return;
        }
        if let Some(bench) = self.ground.bench() {
            tokio::task::block_in_place(|| bench.reopen());
            return;
        }
        self.ground.start_apiserver();
        let ready = async || self.ground.get("/readyz").await.is_ok().then_some(());
        self.until("the API server to be ready", Duration::from_secs(60), ready).await;
        // The cluster's provisioner of disks does not survive a refused connection, sooner or later.
        self.ground.restart_provisioner();
    }

    /// Waits until scheduler and kubelets are at work again: their watches back off for up to a minute.
    async fn settled(&self) {
        for node in NODES {
            let name = format!("world-canary-{node}");
            let container = json!({"name": "c", "image": super::image::TOOLS, "command": ["true"]});
            self.apply(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node}, "restartPolicy": "Never",
                    "automountServiceAccountToken": false, "containers": [container],
                },
            }))
            .await;
            let ran = async || (self.get("Pod", &name).await["status"]["phase"] == "Succeeded").then_some(());
            self.until("a pod to run after the API server's restart", Duration::from_secs(150), ran).await;
        }
    }

    /// Makes a class the default one, and no other.
    pub async fn set_default_class(&self, class: &str) {
        self.must_be_alone();
        let mut classes =
            self.ground.get(&resource("StorageClass").path("", None)).await.expect("classes can be listed");
        for one in items(&mut classes) {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            let value = if name == class { json!("true") } else { Value::Null };
            self.patch("StorageClass", name, json!({"metadata": {"annotations": {DEFAULT: value}}})).await;
        }
    }

    /// Puts back what the test broke.
    pub(super) async fn repair(&self) {
        let nodes = self.broken.lock().unwrap().nodes.clone();
        for node in nodes {
            self.node_up(&node).await;
        }
        let Broken { attach_delay, defaults, interrupted, .. } = std::mem::take(&mut *self.broken.lock().unwrap());
        if attach_delay {
            let _ = std::fs::remove_file(self.ground.attach_delay_file());
        }
        if interrupted {
            self.settled().await;
        }
        for (class, default) in defaults {
            let now = self.find("StorageClass", &class).await;
            if now.is_some_and(|now| now["metadata"]["annotations"][DEFAULT] != default) {
                self.patch("StorageClass", &class, json!({"metadata": {"annotations": {DEFAULT: default}}})).await;
            }
        }
    }

    fn must_be_alone(&self) {
        let is_alone = self.sharing == Sharing::Exclusive || self.ground.bench().is_some();
        assert!(is_alone, "only an exclusive test may break the cluster");
    }
}

impl Ground {
    /// Repairs what a killed test run left broken. Only with a seat: no exclusive test is at work then.
    pub fn heal(&self) {
        let _one_at_a_time = locked(&self.locks(), "heal");
        if self.locks().join(APISERVER).exists() && !self.runs("apiserver") {
            self.start_apiserver();
        }
        if !self.runs("provisioner") {
            self.restart_provisioner();
        }
        for node in NODES {
            if !self.runs(&format!("kubelet-{node}")) {
                self.cluster(&["node-up", node]);
            }
        }
        let _ = std::fs::remove_file(self.attach_delay_file());
    }

    fn attach_delay_file(&self) -> PathBuf {
        self.state().join("disks/attach-delay")
    }

    /// Whether the process that a pid file names is still that part of the cluster.
    fn runs(&self, part: &str) -> bool {
        let file = std::fs::read_to_string(self.state().join(format!("{part}.pid")));
        let pid = file.ok().and_then(|text| text.trim().parse().ok());
        let program = part.split('-').next().unwrap_or(part);
        pid.is_some_and(|pid| command_line(pid).iter().any(|word| word.contains(program)))
    }

    fn start_apiserver(&self) {
        let words = std::fs::read_to_string(self.locks().join(APISERVER)).expect("apiserver_down has noted it");
        self.start("apiserver", &words.lines().map(str::to_owned).collect::<Vec<_>>());
    }

    fn restart_provisioner(&self) {
        if self.runs("provisioner") {
            let pid = Pid::from_raw(self.pid("provisioner")).expect("a pid is not zero");
            let _ = kill_process(pid, Signal::TERM);
        }
        let script = self.script().canonicalize().expect("the script exists");
        self.start("provisioner", &[script.to_string_lossy().into_owned(), "provisioner".to_owned()]);
    }

    /// As the cluster script does: in a session of its own, so that it outlives this test run, pid and log kept.
    fn start(&self, part: &str, words: &[String]) {
        let script = format!("setsid nohup \"$@\" >>log/{part}.log 2>&1 </dev/null & echo $! >{part}.pid");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script, "bash"]).args(words).current_dir(self.state()).stdin(Stdio::null());
        assert!(shell.status().expect("bash is there").success(), "{part} could not be started");
    }
}

fn command_line(pid: i32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    words.filter(|word| !word.is_empty()).collect()
}
