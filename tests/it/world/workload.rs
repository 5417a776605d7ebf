//! Workloads whose pods run `pvmigrate agent exercise` on each mounted claim, so that a lost write is seen.
//!
//! Each container works on one mount, `/data/<mount>`, and acknowledges what it has synced in a directory of this machine
//! outside the volumes. It notices itself when it finds less than it had acknowledged: see `acks`.

use super::{World, open_to_all};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// The label of exercise pods; its value is the workload's name.
pub const EXERCISE: &str = "world.test/exercise";

/// What a workload has beyond the plain; `opts()` starts one.
#[derive(Clone, Debug, Default)]
pub struct Opts {
    node: Option<String>,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    fs_group: Option<u32>,
    run_as: Option<u32>,
    patch: Option<Value>,
    devices: bool,
}

pub fn opts() -> Opts {
    Opts::default()
}

impl Opts {
    /// Pods on this node only.
    #[must_use]
    pub fn node(mut self, node: &str) -> Opts {
        self.node = Some(node.to_owned());
        self
    }

    /// On the workload and its pods.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Opts {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// On the workload and its pods; of a StatefulSet on its claims too.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Opts {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn fs_group(mut self, gid: u32) -> Opts {
        self.fs_group = Some(gid);
        self
    }

    /// Runs the exercise as this user and group.
    #[must_use]
    pub fn run_as(mut self, uid: u32) -> Opts {
        self.run_as = Some(uid);
        self
    }

    /// The claims are devices (volumeMode Block).
    #[must_use]
    pub fn on_devices(mut self) -> Opts {
        self.devices = true;
        self
    }

    /// A merge patch over the finished object, for all that is not above.
    #[must_use]
    pub fn patch(mut self, merge: Value) -> Opts {
        self.patch = Some(merge);
        self
    }
}

impl World {
    /// A Deployment (Recreate) on existing claims, given as (mount, claim). With one replica it writes under its own
    /// name, so that each pod checks its predecessor's lines; with more, under the pods' names.
    pub async fn exercise_deployment(&self, name: &str, replicas: u32, mounts: &[(&str, &str)], opts: Opts) -> Value {
        let writer = (replicas == 1).then(|| self.split(name).1.to_owned());
        let volumes =
            mounts.iter().map(|(mount, claim)| json!({"name": mount, "persistentVolumeClaim": {"claimName": claim}}));
        let volumes: Vec<Value> = volumes.collect();
        let mounts: Vec<&str> = mounts.iter().map(|(mount, _)| *mount).collect();
        let mut object = self.workload("Deployment", name, replicas, &mounts, writer, &opts);
        object["spec"]["strategy"] = json!({"type": "Recreate"});
        let all = object["spec"]["template"]["spec"]["volumes"].as_array_mut().expect("the template has volumes");
        all.extend(volumes);
        self.finish(object, &opts).await
    }

    /// A StatefulSet with one claim template, `data`.
    pub async fn exercise_statefulset(&self, name: &str, replicas: u32, class: &str, size: &str, opts: Opts) -> Value {
        let mut object = self.workload("StatefulSet", name, replicas, &["data"], None, &opts);
        let resources = json!({"requests": {"storage": size}});
        let spec = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": resources});
        let annotations: serde_json::Map<String, Value> = pairs(&opts.annotations);
        let meta = json!({"name": "data", "labels": pairs(&opts.labels), "annotations": annotations});
        object["spec"]["volumeClaimTemplates"] = json!([{"metadata": meta, "spec": spec}]);
        object["spec"]["serviceName"] = object["metadata"]["name"].clone();
        self.finish(object, &opts).await
    }

    /// Scales an exercise workload to zero and waits until no pod of it is left.
    pub async fn stop_workload(&self, kind: &str, name: &str) {
        self.scale(kind, name, 0).await;
        self.gone_pods(name).await;
    }

    /// Waits until an exercise workload has no pod.
    pub async fn gone_pods(&self, name: &str) {
        let (ns, short) = self.split(name);
        let none = async || {
            let pods = self.list("Pod").await;
            let is_its =
                |pod: &Value| pod["metadata"]["labels"][EXERCISE] == *short && pod["metadata"]["namespace"] == *ns;
            (!pods.iter().any(is_its)).then_some(())
        };
        self.until(&format!("the pods of {name} to be gone"), Duration::from_secs(60), none).await;
    }

    /// Where the exercise containers of a workload acknowledge.
    pub(super) fn ack_dir(&self, ns: &str, workload: &str) -> PathBuf {
        self.dir().join("acks").join(ns).join(workload)
    }

    fn workload(
        &self,
        kind: &str,
        name: &str,
        replicas: u32,
        mounts: &[&str],
        writer: Option<String>,
        opts: &Opts,
    ) -> Value {
        let (ns, name) = self.split(name);
        let acks = self.ack_dir(ns, name);
        let mut containers = Vec::new();
        for mount in mounts {
            let dir = acks.join(mount);
            std::fs::create_dir_all(&dir).expect("a directory can be made");
            open_to_all(&dir);
            containers.push(self.container(mount, writer.as_deref(), opts.devices));
        }
        let selector = json!({EXERCISE: name});
        let mut labels = pairs(&opts.labels);
        labels.insert(EXERCISE.to_owned(), json!(name));
        let mut pod = json!({
            "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": containers, "volumes": [{"name": "ack", "hostPath": {"path": acks}}],
        });
        if let Some(node) = &opts.node {
            pod["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        if let Some(gid) = opts.fs_group {
            pod["securityContext"]["fsGroup"] = json!(gid);
        }
        if let Some(uid) = opts.run_as {
            pod["securityContext"]["runAsUser"] = json!(uid);
            pod["securityContext"]["runAsGroup"] = json!(uid);
        }
        let annotations = pairs(&opts.annotations);
        json!({
            "apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": ns, "labels": labels, "annotations": annotations},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
            },
        })
    }

    fn container(&self, mount: &str, writer: Option<&str>, is_device: bool) -> Value {
        let at = format!("/data/{mount}");
        let mut command = vec!["pvmigrate".into(), "agent".into(), "exercise".into(), at.clone()];
        command.extend(["--ack".to_owned(), format!("/ack/{mount}")]);
        if let Some(writer) = writer {
            command.extend(["--name".to_owned(), writer.to_owned()]);
        }
        let pod_name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        let mut container = json!({
            "name": format!("exercise-{mount}"), "image": self.image(), "imagePullPolicy": "IfNotPresent",
            "command": command, "env": [pod_name], "volumeMounts": [{"name": "ack", "mountPath": "/ack"}],
        });
        if is_device {
            container["volumeDevices"] = json!([{"name": mount, "devicePath": at}]);
        } else {
            let mounts = container["volumeMounts"].as_array_mut().expect("it is a list");
            mounts.insert(0, json!({"name": mount, "mountPath": at}));
        }
        container
    }

    async fn finish(&self, mut object: Value, opts: &Opts) -> Value {
        if let Some(patch) = &opts.patch {
            json_patch::merge(&mut object, patch);
        }
        self.apply(object).await
    }
}

fn pairs(pairs: &[(String, String)]) -> serde_json::Map<String, Value> {
    pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}
