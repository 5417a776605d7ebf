//! Classes, claims, and the bytes behind them.

use super::digest::Digest;
use super::objects::items;
use super::{LABEL, World, open_to_all, random};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

impl World {
    /// A clone of a class of the cluster under a name of its own; the same one each time. A clone of `local` comes
    /// with two empty volumes of 1 Gi a node, one of `block-a` or `block-b` with two devices of 64 Mi.
    pub async fn class(&self, base: &str) -> String {
        self.class_with(base, json!({})).await
    }

    /// The same, merged with a patch: `json!({"reclaimPolicy": "Retain"})`.
    pub async fn class_with(&self, base: &str, patch: Value) -> String {
        let key = format!("{base} {patch}");
        if let Some(name) = self.classes.lock().unwrap().get(&key) {
            return name.clone();
        }
        let mut class = self.get("StorageClass", base).await;
        let name = format!("{base}-{}", random());
        class["metadata"] = json!({"name": name});
        json_patch::merge(&mut class, &patch);
        let is_local = class["provisioner"] == "kubernetes.io/no-provisioner";
        self.apply(class).await;
        if is_local {
            for n in 0..4 {
                let node = if n % 2 == 0 { "node1" } else { "node2" };
                match base.starts_with("block") {
                    true => self.local_device(&name, node, 64 << 20).await,
                    false => self.local_volume(&name, node, "1Gi").await,
                };
            }
        }
        self.classes.lock().unwrap().insert(key, name.clone());
        name
    }

    /// An empty local volume of a class on a node; its name.
    pub async fn local_volume(&self, class: &str, node: &str, size: &str) -> String {
        let name = format!("{class}-{node}-{}", random());
        let dir = self.dir().join("local").join(&name);
        std::fs::create_dir_all(&dir).expect("a directory can be made");
        open_to_all(&dir);
        self.local(&name, class, node, json!(size), "Filesystem", &dir).await;
        name
    }

    /// A local device of zeros; its volume's name. In the lab it is a file.
    pub async fn local_device(&self, class: &str, node: &str, bytes: u64) -> String {
        let name = format!("{class}-{node}-{}", random());
        let file = self.dir().join(format!("{name}.img"));
        std::fs::File::create(&file).and_then(|file| file.set_len(bytes)).expect("a file can be made");
        let path = if self.ground.bench().is_some() { file } else { self.loop_device(&file) };
        self.local(&name, class, node, json!(bytes.to_string()), "Block", &path).await;
        name
    }

    /// A device of the kernel's over a file; given back at the end of the test.
    fn loop_device(&self, file: &Path) -> PathBuf {
        let made = Command::new("losetup").args(["-f", "--show"]).arg(file).output().expect("losetup is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let device = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        self.loops.lock().unwrap().push(device.clone());
        device
    }

    /// Gives the devices back, when nobody uses them any more.
    pub(super) fn drop_loops(&self) {
        for device in self.loops.lock().unwrap().drain(..) {
            let status = Command::new("losetup").arg("-d").arg(&device).status().expect("losetup is there");
            assert!(status.success(), "{} stays", device.display());
        }
    }

    async fn local(&self, name: &str, class: &str, node: &str, size: Value, mode: &str, path: &Path) {
        let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
        self.apply(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "persistentVolumeReclaimPolicy": "Retain", "volumeMode": mode, "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
            },
        }))
        .await;
    }

    /// A claim of a device.
    pub async fn device_claim(&self, name: &str, class: &str, size: &str) -> Value {
        let (ns, name) = self.split(name);
        let resources = json!({"requests": {"storage": size}});
        let modes = json!(["ReadWriteOnce"]);
        let spec =
            json!({"storageClassName": class, "accessModes": modes, "volumeMode": "Block", "resources": resources});
        let meta = json!({"name": name, "namespace": ns});
        self.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})).await
    }

    /// A claim; with a class that binds at once, `ready("pvc", name)` waits for its volume.
    pub async fn claim(&self, name: &str, class: &str, size: &str, modes: &[&str]) -> Value {
        let (ns, name) = self.split(name);
        let resources = json!({"requests": {"storage": size}});
        let spec = json!({"storageClassName": class, "accessModes": modes, "resources": resources});
        let meta = json!({"name": name, "namespace": ns});
        self.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})).await
    }

    /// The volume that the claim is bound to.
    pub async fn pv_of(&self, claim: &str) -> Value {
        let pvc = self.get("PersistentVolumeClaim", claim).await;
        let volume = pvc["spec"]["volumeName"].as_str().unwrap_or_else(|| panic!("{claim} is not bound: {pvc:#}"));
        self.get("PersistentVolume", volume).await
    }

    /// The directory on this machine behind a host-path or local volume; none for disks.
    pub fn volume_dir(&self, pv: &Value) -> Option<PathBuf> {
        self.dir_of(pv)
    }

    /// What names the bytes of a volume to a person: what its driver calls it, or the directory.
    pub fn handle_of(&self, pv: &Value) -> String {
        let handle = pv["spec"]["csi"]["volumeHandle"].as_str().map(str::to_owned);
        handle.unwrap_or_else(|| dir_of(pv).expect("it is a directory").display().to_string())
    }

    /// The directory on this machine behind a volume: of the lab every one, else a host-path or local one.
    fn dir_of(&self, pv: &Value) -> Option<PathBuf> {
        self.ground.bench().map_or_else(|| dir_of(pv), |bench| bench.dir_of(pv))
    }

    /// The image file of a disk, whether it exists or not; none for other volumes. In the lab a directory.
    pub fn disk_file(&self, pv: &Value) -> Option<PathBuf> {
        if let Some(bench) = self.ground.bench() {
            return (pv["spec"]["csi"]["driver"] == "disk.lab.pvmigrate.io").then(|| bench.dir_of(pv)).flatten();
        }
        let name = pv["metadata"]["name"].as_str()?;
        let file = self.ground.state().join("disks").join(format!("{name}.img"));
        (pv["spec"]["flexVolume"]["driver"] == "e2e/disk").then_some(file)
    }

    /// All files of the claim's volume, content and metadata; the same for every class.
    pub async fn digest(&self, claim: &str) -> Digest {
        self.in_volume(claim, Digest::of).await
    }

    /// The same of a host-path or local volume without a claim, as after a migration.
    pub fn digest_of_pv(&self, pv: &Value) -> Digest {
        Digest::of(&self.dir_of(pv).expect("a disk is looked at through its claim"))
    }

    /// Runs a function on the root of the claim's volume, as this machine sees it: to look, and to write what `std::fs`
    /// can. A disk that no pod has mounted is mounted by a short-lived pod, gone when this returns.
    pub async fn in_volume<T>(&self, claim: &str, look: impl FnOnce(&Path) -> T) -> T {
        let bound = self.get("PersistentVolumeClaim", claim).await["spec"]["volumeName"].is_string();
        if bound && let Some(dir) = self.dir_of(&self.pv_of(claim).await) {
            return look(&dir);
        }
        let user = if bound { self.running_user(claim).await } else { None };
        let (pod, ours) = match user {
            Some(pod) => (pod, None),
            None => {
                let name = self.mount(claim).await;
                (self.get("Pod", &name).await, Some(name))
            }
        };
        let pv = self.pv_of(claim).await;
        let dir = self.dir_of(&pv).unwrap_or_else(|| self.mounted_at(&pod, pv["metadata"]["name"].as_str().unwrap()));
        let found = look(&dir);
        if let Some(name) = ours {
            self.delete("Pod", &name).await;
            let gone = async || {
                let pod = self.find("Pod", &name).await;
                if let Some(pod) = &pod {
                    super::clean::let_go_if_dead(&self.ground, self.split(&name).0, pod).await;
                }
                pod.is_none().then_some(())
            };
            self.until("the mounting pod to be gone", Duration::from_secs(60), gone).await;
        }
        found
    }

    async fn running_user(&self, claim: &str) -> Option<Value> {
        let (ns, claim) = self.split(claim);
        let mut pods = self.ground.get(&format!("/api/v1/namespaces/{ns}/pods")).await.expect("pods can be listed");
        items(&mut pods).into_iter().find(|pod| {
            let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            let mounts = volumes.iter().any(|volume| volume["persistentVolumeClaim"]["claimName"] == claim);
            mounts && pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        })
    }

    /// A pod that does nothing but mount the claim, where its disk is attached; returns its name when it runs.
    async fn mount(&self, claim: &str) -> String {
        let (ns, claim) = self.split(claim);
        let name = format!("world-mount-{}", random());
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns, "labels": {LABEL: self.id}},
            "spec": {
                "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
                "containers": [{
                    "name": "mount", "image": super::image::TOOLS, "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
            },
        });
        let full = format!("{ns}/{claim}");
        if self.get("PersistentVolumeClaim", &full).await["spec"]["volumeName"].is_string()
            && let Some(node) = self.attached_to(&self.pv_of(&full).await)
        {
            pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        self.apply(pod).await;
        let full = format!("{ns}/{name}");
        self.ready("Pod", &full).await;
        full
    }

    /// The node that a disk is attached to now.
    pub fn attached_to(&self, pv: &Value) -> Option<String> {
        if let Some(bench) = self.ground.bench() {
            return bench.attached_to(pv);
        }
        let file = self.disk_file(pv)?.with_extension("node");
        std::fs::read_to_string(file).ok().map(|node| node.trim().to_owned())
    }

    /// Where a node has mounted a volume for a pod, seen through the node's own mount namespace.
    fn mounted_at(&self, pod: &Value, volume: &str) -> PathBuf {
        let node = pod["spec"]["nodeName"].as_str().expect("a running pod has a node");
        let uid = pod["metadata"]["uid"].as_str().expect("a pod has a uid");
        let root = PathBuf::from(format!("/proc/{}/root", self.ground.pid(&format!("containerd-{node}"))));
        let state = self.ground.state().strip_prefix("/").expect("the state is an absolute path");
        let volumes = root.join(state).join(node).join("kubelet/pods").join(uid).join("volumes");
        let plugins = std::fs::read_dir(&volumes).unwrap_or_else(|error| panic!("{}: {error}", volumes.display()));
        let mut places = plugins.map(|plugin| plugin.expect("it can be listed").path().join(volume));
        places.find(|place| place.is_dir()).unwrap_or_else(|| panic!("{volume} is not below {}", volumes.display()))
    }
}

/// The directory on this machine behind a volume.
pub fn dir_of(pv: &Value) -> Option<PathBuf> {
    let spec = &pv["spec"];
    spec["hostPath"]["path"].as_str().or(spec["local"]["path"].as_str()).map(PathBuf::from)
}
