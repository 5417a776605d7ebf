//! The cluster's objects, as a test speaks about them. A name is in the test's own namespace unless it is `ns/name`.
//! Kinds are Kubernetes' own words; `pvc`, `pv`, `sc` and `pod` do too.

use super::World;
use super::ground::{Refusal, resource};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

impl World {
    /// Must exist.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        self.find(kind, name).await.unwrap_or_else(|| panic!("{kind} {name} does not exist"))
    }

    pub async fn find(&self, kind: &str, name: &str) -> Option<Value> {
        match self.ground.get(&self.path(kind, name)).await {
            Ok(object) => Some(object),
            Err(refusal) if refusal.code == 404 => None,
            Err(refusal) => panic!("get {kind} {name}: {refusal:?}"),
        }
    }

    /// Of all namespaces of this test; volumes and classes only if they are this test's, other cluster-wide kinds all.
    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let resource = resource(kind);
        if !resource.namespaced {
            let mut all = self.list_path(&resource.path("", None)).await;
            if matches!(kind, "PersistentVolume" | "pv" | "StorageClass" | "sc") {
                all.retain(|object| self.is_ours(object));
            }
            return all;
        }
        let mut all = Vec::new();
        for ns in self.namespaces() {
            all.extend(self.list_path(&resource.path(&ns, None)).await);
        }
        all
    }

    async fn list_path(&self, path: &str) -> Vec<Value> {
        match self.ground.get(path).await {
            Ok(mut list) => items(&mut list),
            Err(refusal) if refusal.code == 404 => Vec::new(),
            Err(refusal) => panic!("list {path}: {refusal:?}"),
        }
    }

    /// Created; merge-patched if it exists. The namespace defaults to the test's.
    pub async fn apply(&self, object: Value) -> Value {
        self.try_apply(object.clone()).await.unwrap_or_else(|refusal| panic!("apply {object:#}: {refusal:?}"))
    }

    pub async fn try_apply(&self, mut object: Value) -> Result<Value, Refusal> {
        let kind = kind_of(&object);
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        // The lab only stores these, and wants to hear that this is known.
        if self.ground.bench().is_some() && is_beyond_lab(&kind, &object) {
            object["metadata"]["labels"][super::INERT] = json!("true");
        }
        let resource = resource(&kind);
        let mut full_name = name.clone();
        if resource.namespaced {
            let ns = object["metadata"]["namespace"].as_str().unwrap_or(&self.ns).to_owned();
            full_name = format!("{ns}/{name}");
            object["metadata"]["namespace"] = json!(ns);
        } else {
            object["metadata"]["labels"][super::LABEL] = json!(self.id);
        }
        let ns = object["metadata"]["namespace"].as_str().unwrap_or_default();
        match self.ground.send("POST", &resource.path(ns, None), object.clone()).await {
            Err(refusal) if refusal.reason == "AlreadyExists" => self.try_patch(&kind, &full_name, object).await,
            answer => answer,
        }
    }

    /// A JSON merge patch.
    pub async fn patch(&self, kind: &str, name: &str, merge: Value) -> Value {
        self.try_patch(kind, name, merge).await.unwrap_or_else(|refusal| panic!("patch {kind} {name}: {refusal:?}"))
    }

    pub async fn try_patch(&self, kind: &str, name: &str, merge: Value) -> Result<Value, Refusal> {
        self.ground.send("PATCH", &self.path(kind, name), merge).await
    }

    /// Asks for the deletion of an object that must exist; `gone` waits for it.
    pub async fn delete(&self, kind: &str, name: &str) {
        self.delete_with(kind, name, json!({"propagationPolicy": "Background"})).await;
    }

    pub async fn delete_with(&self, kind: &str, name: &str, options: Value) {
        let answer = self.ground.send("DELETE", &self.path(kind, name), options).await;
        answer.unwrap_or_else(|refusal| panic!("delete {kind} {name}: {refusal:?}"));
    }

    pub async fn scale(&self, kind: &str, name: &str, replicas: u32) {
        let path = format!("{}/scale", self.path(kind, name));
        let answer = self.ground.send("PATCH", &path, json!({"spec": {"replicas": replicas}})).await;
        answer.unwrap_or_else(|refusal| panic!("scale {kind} {name}: {refusal:?}"));
    }

    /// Any request: for what the others cannot say.
    pub async fn request(&self, method: &str, path: &str, body: Value) -> Result<Value, Refusal> {
        self.ground.send(method, path, body).await
    }

    /// Log of a container; none if the container or its earlier self never was.
    pub async fn log(&self, pod: &str, container: &str, previous: bool) -> Option<String> {
        let path = format!("{}/log?container={container}&previous={previous}", self.path("Pod", pod));
        self.ground.send_text("GET", &path, Value::Null).await.ok()
    }

    pub async fn gone(&self, kind: &str, name: &str) {
        let absent = async || self.find(kind, name).await.is_none().then_some(());
        self.until(&format!("{kind} {name} to be gone"), Duration::from_secs(90), absent).await;
    }

    /// Waits until a workload has all its replicas Ready (and no others), a pod is Ready, a claim Bound, a job complete.
    pub async fn ready(&self, kind: &str, name: &str) -> Value {
        let started = Instant::now();
        loop {
            let object = self.find(kind, name).await;
            if let Some(object) = &object
                && is_ready(kind, object)
            {
                return object.clone();
            }
            if started.elapsed() > Duration::from_secs(120) {
                let status = object.map(|object| object["status"].clone());
                panic!("{kind} {name} is not ready after 120 s: {status:#?}");
            }
            tokio::time::sleep(self.ground.tick()).await;
        }
    }

    /// Asks again and again until there is an answer; panics after the timeout. The only wait of a test.
    pub async fn until<T>(&self, what: &str, timeout: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(started.elapsed() < timeout, "waited {timeout:?} in vain for {what}");
            tokio::time::sleep(self.ground.tick()).await;
        }
    }

    pub(super) fn path(&self, kind: &str, name: &str) -> String {
        let (ns, name) = self.split(name);
        resource(kind).path(ns, Some(name))
    }

    /// Namespace and name of `name` or `ns/name`.
    pub(super) fn split<'a>(&'a self, name: &'a str) -> (&'a str, &'a str) {
        name.split_once('/').unwrap_or((&self.ns, name))
    }
}

/// What the lab cannot act upon: kinds without a controller there, recycling, and pods on a file server.
fn is_beyond_lab(kind: &str, object: &Value) -> bool {
    let is_data = matches!(kind, "CronJob" | "HorizontalPodAutoscaler" | "ReplicationController");
    let spec = &object["spec"];
    let volumes = [&spec["volumes"], &spec["template"]["spec"]["volumes"]].into_iter().filter_map(Value::as_array);
    let on_server = volumes.flatten().any(|volume| volume["nfs"].is_object());
    is_data || on_server || spec["persistentVolumeReclaimPolicy"] == "Recycle"
}

fn is_ready(kind: &str, object: &Value) -> bool {
    let status = &object["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let condition = |name: &str| {
        let conditions = status["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|c| c["type"] == name && c["status"] == "True"))
    };
    let observed = count("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap_or(0);
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    match kind {
        "Deployment" => {
            observed && ["replicas", "readyReplicas", "updatedReplicas"].iter().all(|field| count(field) == wanted)
        }
        "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
            observed && ["replicas", "readyReplicas"].iter().all(|field| count(field) == wanted)
        }
        "DaemonSet" => observed && count("numberReady") == count("desiredNumberScheduled") && count("numberReady") > 0,
        "Pod" | "pod" | "Node" => condition("Ready") && object["metadata"]["deletionTimestamp"].is_null(),
        "Job" => condition("Complete"),
        "PersistentVolumeClaim" | "pvc" => status["phase"] == "Bound",
        other => panic!("ready() does not know {other}"),
    }
}

/// The items of a list, each with the kind that lists leave out.
pub fn items(list: &mut Value) -> Vec<Value> {
    let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
    let version = list["apiVersion"].clone();
    let Value::Array(mut items) = list["items"].take() else {
        return Vec::new();
    };
    for item in &mut items {
        item["kind"] = json!(kind);
        item["apiVersion"] = version.clone();
    }
    items
}

/// The kind as `resource` wants it: bare if the table has it.
fn kind_of(object: &Value) -> String {
    let kind = object["kind"].as_str().expect("an object has a kind");
    let version = object["apiVersion"].as_str().expect("an object has an apiVersion");
    let builtin = !version.contains('.') || version.split('/').next().is_some_and(|group| group.ends_with(".k8s.io"));
    if builtin { kind.to_owned() } else { format!("{version}/{kind}") }
}
