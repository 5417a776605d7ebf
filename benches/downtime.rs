//! How long workloads are away on a real cluster: this program, the same without hot passes, and the sequence of the
//! program that it replaces (replicatedhq/pvmigrate), replayed request by request.
//!
//! ```text
//! PVMIGRATE_TEST_CLUSTER=.../cluster cargo bench --bench downtime -- [--only volume|claims] [--claims N] [-- OPTION...]
//! ```
//!
//! `volume`: one volume of 1 GiB in 20,000 files, written to all the time, moved with hot passes and without. `claims`: N claims
//! (20) with a workload each, moved by this program and by the sequence of the other, in one go; neither copies much. OPTIONs
//! are those of `sc-migrate`, and this program's runs get them: `--parallel 10`, or `--bandwidth-limit 8Mi` as on slow storage.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    unused_macros,
    reason = "a bench measures and prints, and uses a part of the tests' world"
)]

#[path = "../tests/it/world/mod.rs"]
mod world;

use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use world::{Outcome, Sharing, World, opts};

const FILES: usize = 20_000;
const FILE_BYTES: usize = (1 << 30) / FILES;
const IN_VAIN: Duration = Duration::from_secs(600);

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let only = after("--only").cloned().unwrap_or_default();
    let claims = after("--claims").and_then(|n| n.parse().ok()).unwrap_or(20);
    let more = words.iter().position(|word| word == "--").map_or(&[][..], |at| &words[at + 1..]);
    if std::env::var_os("PVMIGRATE_TEST_CLUSTER").is_none() {
        println!("PVMIGRATE_TEST_CLUSTER names no cluster: nothing is moved");
        return;
    }
    if only.is_empty() || only == "volume" {
        world::run("downtime-volume", world::Where::Real, Sharing::Exclusive, async |w: &World| volume(w, more).await);
    }
    for part in [Part::Ours(more), Part::Theirs] {
        if only.is_empty() || only == "claims" {
            world::run("downtime-claims", world::Where::Real, Sharing::Exclusive, async |w: &World| {
                many(w, claims, part).await;
            });
        }
    }
}

#[derive(Clone, Copy)]
enum Part<'a> {
    /// With options of the script.
    Ours(&'a [String]),
    Theirs,
}

/// The same volume, with hot passes and with none.
async fn volume(w: &World, more: &[String]) {
    let mut downtimes = Vec::new();
    for (name, passes) in [("hot", "2"), ("cold", "0")] {
        let (slow, fast) =
            (w.class_with("slow", json!({"metadata": {"annotations": {"bench": name}}})).await, w.class("fast").await);
        w.claim(name, &slow, "2Gi", &["ReadWriteOnce"]).await;
        w.ready("pvc", name).await;
        w.in_volume(name, fill).await;
        w.exercise_deployment(&format!("web-{name}"), 1, &[("data", name)], opts()).await;
        w.ready("Deployment", &format!("web-{name}")).await;
        let begun = Instant::now();
        let moved = move_all(w, &slow, &fast, &[&["--hot-passes".to_owned(), passes.to_owned()], more].concat()).await;
        let took = begun.elapsed();
        let rows: Value = serde_json::from_str(&moved.stdout).expect("one table as JSON");
        let downtime = rows[0]["downtime_s"].as_f64().expect("it says its downtime");
        let last = moved.stderr.lines().find(|line| line.contains("final pass")).unwrap_or_default();
        let proof = moved.stderr.lines().find(|line| line.contains("verified")).unwrap_or_default();
        println!("{name}: away {downtime:.1} s, all of it {took:.1?}; {}; {}", last.trim(), proof.trim());
        downtimes.push(downtime);
        w.still_intact().await;
    }
    println!("with hot passes the workload is away {:.0} % as long", 100.0 * downtimes[0] / downtimes[1]);
}

async fn move_all(w: &World, slow: &str, fast: &str, options: &[String]) -> Outcome {
    let image = w.image();
    let words =
        ["run", "sc-migrate", "--source-sc", slow, "--dest-sc", fast, "--image", &image, "--yes", "--output", "json"];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    w.pvmigrate(&[&words[..], &options].concat()).limit(IN_VAIN).await.succeeds()
}

fn fill(dir: &Path) {
    let mut content = vec![0u8; FILE_BYTES];
    for n in 0..FILES {
        content.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + n) as u8);
        let dir = dir.join(format!("d{}", n / 200));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("f{n}")), &content).unwrap();
    }
}

async fn many(w: &World, count: usize, part: Part<'_>) {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for n in 0..count {
        w.claim(&format!("data-{n}"), &slow, "64Mi", &["ReadWriteOnce"]).await;
        w.exercise_deployment(&format!("web-{n}"), 1, &[("data", &format!("data-{n}"))], opts()).await;
    }
    for n in 0..count {
        w.ready("Deployment", &format!("web-{n}")).await;
    }
    let begun = Instant::now();
    let (who, mut downtimes) = match part {
        Part::Ours(more) => ("this program", ours(w, &slow, &fast, more).await),
        Part::Theirs => ("the other's sequence", theirs(w, count, &slow, &fast).await),
    };
    let took = begun.elapsed().as_secs_f64();
    downtimes.sort_by(f64::total_cmp);
    let (median, longest) = (downtimes[downtimes.len() / 2], downtimes[downtimes.len() - 1]);
    println!("{who}: {count} claims in {took:.0} s; away {median:.1} s (median), {longest:.1} s (longest)");
    for n in 0..count {
        let claim = w.get("pvc", &format!("data-{n}")).await;
        assert_eq!(claim["spec"]["storageClassName"], fast.as_str(), "{who}: data-{n} was moved");
    }
}

async fn ours(w: &World, slow: &str, fast: &str, more: &[String]) -> Vec<f64> {
    let moved = move_all(w, slow, fast, more).await;
    let rows: Value = serde_json::from_str(&moved.stdout).expect("one table as JSON");
    w.still_intact().await;
    rows.as_array().into_iter().flatten().filter_map(|row| row["downtime_s"].as_f64()).collect()
}

/// Its requests, pauses and order, without faults of its own: preflight, create, all down, copies one after the other, swaps
/// one after the other, all up.
async fn theirs(w: &World, count: usize, slow: &str, fast: &str) -> Vec<f64> {
    let names: Vec<String> = (0..count).map(|n| format!("data-{n}")).collect();
    for name in &names {
        preflight(w, name, fast).await;
    }
    for name in &names {
        w.get("pvc", name).await;
        w.claim(&dest(name), fast, "64Mi", &["ReadWriteOnce"]).await;
    }
    // Everything goes down together.
    let down = Instant::now();
    for n in 0..count {
        w.get("Deployment", &format!("web-{n}")).await;
        w.scale("Deployment", &format!("web-{n}"), 0).await;
    }
    pause(Duration::from_micros(312_500)).await;
    while w.list("Pod").await.iter().any(|pod| pod["metadata"]["labels"]["world.test/exercise"].is_string()) {
        pause(Duration::from_secs(5)).await;
    }
    for name in &names {
        copy(w, name).await;
    }
    for name in &names {
        swap(w, name, slow, fast).await;
    }
    for n in 0..count {
        w.scale("Deployment", &format!("web-{n}"), 1).await;
    }
    let mut downtimes = Vec::new();
    for n in 0..count {
        w.ready("Deployment", &format!("web-{n}")).await;
        downtimes.push(down.elapsed().as_secs_f64());
    }
    downtimes
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn dest(name: &str) -> String {
    format!("{name}-pvcmigrate")
}

fn pod(w: &World, name: &str, claims: &[(&str, &str)], command: Value) -> Value {
    let volumes: Vec<Value> =
        claims.iter().map(|(at, claim)| json!({"name": at, "persistentVolumeClaim": {"claimName": claim}})).collect();
    let mounts: Vec<Value> = claims.iter().map(|(at, _)| json!({"name": at, "mountPath": format!("/{at}")})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": w.namespaces()[0]},
        "spec": {"restartPolicy": "Never", "volumes": volumes, "containers": [{
            "name": "c", "image": "docker.io/e2e/tools:1", "imagePullPolicy": "IfNotPresent",
            "command": command, "volumeMounts": mounts}]},
    })
}

/// A claim and a pod of the new class, and until its volume is gone again, looked at every five seconds.
async fn preflight(w: &World, name: &str, fast: &str) {
    let (claim, try_pod) = (format!("pf-pvc-{name}"), format!("pvmigrate-pf-pod-{name}"));
    w.claim(&claim, fast, "1Mi", &["ReadWriteOnce"]).await;
    w.apply(pod(w, &try_pod, &[("data", &claim)], json!(["sh", "-c", "sleep 3600"]))).await;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    while !ready(&w.get("Pod", &try_pod).await) {
        pause(Duration::from_secs(1)).await;
    }
    w.delete_with("Pod", &try_pod, json!({"gracePeriodSeconds": 0})).await;
    let volume = w.pv_of(&claim).await["metadata"]["name"].as_str().unwrap().to_owned();
    w.delete("pvc", &claim).await;
    while w.find("pv", &volume).await.is_some() {
        pause(Duration::from_secs(5)).await;
    }
}

async fn copy(w: &World, name: &str) {
    let (claim, to) = (w.get("pvc", name).await, dest(name));
    w.get("pv", claim["spec"]["volumeName"].as_str().unwrap()).await;
    let mover = format!("migrate-{name}");
    // Its own flags are -a -v -P --delete, which lose hard links and attributes: the workload would not start again.
    let command = json!(["rsync", "-a", "-H", "-X", "-v", "-P", "--delete", "/source/", "/dest"]);
    w.apply(pod(w, &mover, &[("source", name), ("dest", &to)], command)).await;
    let phase = async || w.get("Pod", &mover).await["status"]["phase"].as_str().unwrap_or_default().to_owned();
    pause(Duration::from_secs(1)).await;
    while phase().await == "Pending" {
        pause(Duration::from_secs(1)).await;
    }
    loop {
        match phase().await.as_str() {
            "Succeeded" => break,
            "Failed" => panic!("{mover} failed: {:?}", w.log(&mover, "c", false).await),
            _ => pause(Duration::from_secs(1)).await,
        }
    }
    w.delete_with("Pod", &mover, json!({})).await;
}

/// A volume read, changed and read again, as often as the other does.
async fn changed(w: &World, volume: &str, merge: Value) {
    w.get("pv", volume).await;
    w.patch("pv", volume, merge).await;
    w.get("pv", volume).await;
}

async fn swap(w: &World, name: &str, slow: &str, fast: &str) {
    let (old, new) = (w.pv_of(name).await, w.pv_of(&dest(name)).await);
    let [old, new] = [&old, &new].map(|volume| volume["metadata"]["name"].as_str().unwrap().to_owned());
    assert_ne!(slow, fast);
    changed(w, &old, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
    changed(w, &new, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
    w.delete_with("pvc", name, json!({})).await;
    w.delete_with("pvc", &dest(name), json!({})).await;
    for claim in [name.to_owned(), dest(name)] {
        while w.find("pvc", &claim).await.is_some() {
            pause(Duration::from_millis(50)).await;
        }
    }
    changed(w, &old, json!({"spec": {"claimRef": null}})).await;
    changed(w, &new, json!({"spec": {"claimRef": null}})).await;
    let ns = w.namespaces()[0].clone();
    let spec = json!({
        "storageClassName": fast, "volumeName": new, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "64Mi"}},
    });
    let meta = json!({"name": name, "namespace": ns});
    w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})).await;
    while w.get("pv", &new).await["spec"]["claimRef"].is_null() {
        pause(Duration::from_secs(5)).await;
    }
    changed(w, &new, json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})).await;
    // It removes the old volume's object here; that the bytes stay is the bench's wish, not its.
    w.delete_with("pv", &old, json!({})).await;
}
