//! The cluster under the tests: where it is, and one way to send it a request.
//!
//! Everything is `serde_json::Value` over raw requests: the harness must not share an idea of the API with the
//! program it tests. A refused connection is tried again for half a minute, because a test may restart the server.

use super::lab::Bench;
use super::locks::{Seat, Sharing, sit};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Client, Error};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

pub struct Ground {
    pub kubeconfig: PathBuf,
    client: Client,
    backing: Backing,
}

enum Backing {
    Real {
        script: PathBuf,
        state: PathBuf,
    },
    Lab(Box<Bench>),
    /// The test has ended.
    None,
}

/// Which ground a test stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Real,
    Lab,
}

/// The server's no.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: u16,
    pub reason: String,
    #[expect(dead_code, reason = "people read it, when a test fails")]
    pub message: String,
}

/// Where the API serves a kind.
pub struct Resource {
    pub prefix: String,
    pub plural: String,
    pub namespaced: bool,
}

/// Path of the cluster script, from the environment.
pub fn script() -> PathBuf {
    let var = "PVMIGRATE_TEST_CLUSTER";
    let Some(path) = std::env::var_os(var).filter(|path| !path.is_empty()) else {
        panic!("{var} is not set: it must be the path of the cluster script (and `cluster up` must have run)")
    };
    let path = PathBuf::from(path);
    assert!(path.is_file(), "{var}={}: no such file", path.display());
    path
}

impl Ground {
    /// The right to use the cluster; every test has a lab of its own.
    pub fn seat(place: Where, sharing: Sharing) -> Option<Seat> {
        if place == Where::Lab {
            return None;
        }
        script();
        Some(sit(&real_state().join("test-locks"), sharing))
    }

    pub async fn connect(place: Where, dir: &Path) -> Ground {
        let (kubeconfig, backing) = match place {
            Where::Real => (kubeconfig(), Backing::Real { script: script(), state: real_state() }),
            Where::Lab => {
                let dir = dir.to_owned();
                // It blocks until the lab is at rest.
                let bench = tokio::task::spawn_blocking(move || Bench::open(&dir)).await.expect("a lab can be made");
                (bench.kubeconfig.clone(), Backing::Lab(Box::new(bench)))
            }
        };
        let client = client(&kubeconfig).await;
        Ground { kubeconfig, client, backing }
    }

    /// How long to wait before one looks again: the lab is next door and in no hurry to be spared.
    pub fn tick(&self) -> Duration {
        if self.bench().is_some() { super::TICK / 10 } else { super::TICK }
    }

    /// One request as the user of another kubeconfig; nothing if the server says no.
    pub async fn send_as(&self, kubeconfig: &Path, method: &str, path: &str, body: &Value) -> Option<Value> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
        client(kubeconfig).await.request(request.body(bytes).expect("a request can be made")).await.ok()
    }

    /// The lab, if this is one.
    pub fn bench(&self) -> Option<&Bench> {
        match &self.backing {
            Backing::Lab(bench) => Some(bench),
            _ => None,
        }
    }

    /// Ends the lab, if this is one.
    pub fn take_bench(&mut self) -> Option<Box<Bench>> {
        match std::mem::replace(&mut self.backing, Backing::None) {
            Backing::Lab(bench) => Some(bench),
            other => {
                self.backing = other;
                None
            }
        }
    }

    /// The real cluster's script.
    pub fn script(&self) -> &Path {
        match &self.backing {
            Backing::Real { script, .. } => script,
            _ => panic!("only the real cluster has a script: this test cannot run on the lab"),
        }
    }

    /// The real cluster's own directory.
    pub fn state(&self) -> &Path {
        match &self.backing {
            Backing::Real { state, .. } => state,
            _ => panic!("only the real cluster has a directory: this test cannot run on the lab"),
        }
    }

    pub fn locks(&self) -> PathBuf {
        self.state().join("test-locks")
    }

    pub async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.send("GET", path, Value::Null).await
    }

    /// Null as body sends none. PATCH is a JSON merge patch.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, Refusal> {
        let text = self.send_text(method, path, body).await?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn send_text(&self, method: &str, path: &str, body: Value) -> Result<String, Refusal> {
        let started = Instant::now();
        loop {
            let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
            let request = http::Request::builder().method(method).uri(path).header("Content-Type", content).body(bytes);
            let request = request.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            let answer = tokio::time::timeout(Duration::from_secs(30), self.client.request_text(request)).await;
            let error = match answer {
                Ok(Ok(text)) => return Ok(text),
                Ok(Err(Error::Api(status))) => {
                    let (code, reason, message) = (status.code, status.reason.clone(), status.message.clone());
                    return Err(Refusal { code, reason, message });
                }
                Ok(Err(error)) => format!("{error:?}"),
                Err(_) => "no answer in 30 s".to_owned(),
            };
            // A write that may have arrived is not sent again.
            let never_arrived = error.contains("ConnectionRefused") || error.contains("Connect");
            let again = (method == "GET" || never_arrived) && started.elapsed() < PATIENCE;
            assert!(again, "{method} {path}: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs the cluster script; its output is shown if it fails.
    pub fn cluster(&self, args: &[&str]) -> String {
        run_script(self.script(), args)
    }

    /// Process id of a part of the cluster, as the script keeps it.
    pub fn pid(&self, part: &str) -> i32 {
        let path = self.state().join(format!("{part}.pid"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().parse().expect("a pid file holds a number")
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).expect("the cluster is up: its kubeconfig can be read");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(read, &options).await.expect("the cluster's kubeconfig is right");
    Client::try_from(config).expect("a client can be made")
}

fn real_state() -> PathBuf {
    kubeconfig().parent().expect("a kubeconfig is in a directory").to_owned()
}

fn kubeconfig() -> PathBuf {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let ask = || PathBuf::from(run_script(&script(), &["kubeconfig"]).trim());
    let path = PATH.get_or_init(ask).clone();
    assert!(path.is_file(), "{} is missing: run `cluster up`", path.display());
    path
}

fn run_script(script: &Path, args: &[&str]) -> String {
    let output = Command::new(script).args(args).stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "cluster {}: {}\n{out}{err}", args.join(" "), output.status);
    out.into_owned()
}

/// Knows the kinds that the tests meet; `group/version/Kind` names any other (namespaced, plural with an s).
pub fn resource(kind: &str) -> Resource {
    let (api, plural, namespaced) = match kind {
        "Namespace" => ("v1", "namespaces", false),
        "Node" => ("v1", "nodes", false),
        "PersistentVolume" | "pv" => ("v1", "persistentvolumes", false),
        "StorageClass" | "sc" => ("storage.k8s.io/v1", "storageclasses", false),
        "VolumeAttachment" => ("storage.k8s.io/v1", "volumeattachments", false),
        "ClusterRole" => ("rbac.authorization.k8s.io/v1", "clusterroles", false),
        "ClusterRoleBinding" => ("rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
        "CustomResourceDefinition" => ("apiextensions.k8s.io/v1", "customresourcedefinitions", false),
        "PersistentVolumeClaim" | "pvc" => ("v1", "persistentvolumeclaims", true),
        "Pod" | "pod" => ("v1", "pods", true),
        "ConfigMap" => ("v1", "configmaps", true),
        "Secret" => ("v1", "secrets", true),
        "Service" => ("v1", "services", true),
        "ServiceAccount" => ("v1", "serviceaccounts", true),
        "Event" => ("v1", "events", true),
        "ReplicationController" => ("v1", "replicationcontrollers", true),
        "ResourceQuota" => ("v1", "resourcequotas", true),
        "LimitRange" => ("v1", "limitranges", true),
        "Deployment" => ("apps/v1", "deployments", true),
        "StatefulSet" => ("apps/v1", "statefulsets", true),
        "DaemonSet" => ("apps/v1", "daemonsets", true),
        "ReplicaSet" => ("apps/v1", "replicasets", true),
        "ControllerRevision" => ("apps/v1", "controllerrevisions", true),
        "Job" => ("batch/v1", "jobs", true),
        "CronJob" => ("batch/v1beta1", "cronjobs", true),
        "PodDisruptionBudget" => ("policy/v1beta1", "poddisruptionbudgets", true),
        "HorizontalPodAutoscaler" => ("autoscaling/v1", "horizontalpodautoscalers", true),
        "Lease" => ("coordination.k8s.io/v1", "leases", true),
        "Role" => ("rbac.authorization.k8s.io/v1", "roles", true),
        "RoleBinding" => ("rbac.authorization.k8s.io/v1", "rolebindings", true),
        other => {
            let (api, kind) = other.rsplit_once('/').unwrap_or_else(|| panic!("kind {other} is not in the table"));
            return Resource { prefix: prefix(api), plural: format!("{}s", kind.to_lowercase()), namespaced: true };
        }
    };
    Resource { prefix: prefix(api), plural: plural.to_owned(), namespaced }
}

fn prefix(api: &str) -> String {
    if api == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api}") }
}

impl Resource {
    pub fn path(&self, ns: &str, name: Option<&str>) -> String {
        let namespace = if self.namespaced { format!("/namespaces/{ns}") } else { String::new() };
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{}{namespace}/{}{name}", self.prefix, self.plural)
    }
}
