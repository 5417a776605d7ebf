//! One process at a time executes a run: the Lease, who gets it, who loses it, and what the loser does.

use super::shop::{Shop, copy_pod, freeze_at, is, shop, thaw};
use crate::world::{Running, World, cluster_test};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const SECONDS: (&str, &str) = ("PVMIGRATE_LEASE_SECONDS", "4");

/// The Lease of the world's newest run.
async fn lease(w: &World) -> Option<Value> {
    w.find("Lease", &format!("pvmigrate-{}", w.run_id())).await
}

/// The state directory as another machine would have it: the files, and not their locks.
fn elsewhere(w: &World, name: &str) -> PathBuf {
    let dir = w.dir().join(name);
    let copied = Command::new("cp").arg("-r").arg(w.state_dir()).arg(&dir).status();
    assert!(copied.unwrap().success(), "a directory can be copied");
    dir
}

fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

fn start_with(w: &World, shop: &Shop<'_>) -> Running {
    w.pvmigrate(&shop.args(&[])).env(SECONDS.0, SECONDS.1).start()
}

fn resume_in(w: &World, dir: &Path) -> Running {
    w.pvmigrate(&["resume", &w.run_id()]).state_dir(dir).env(SECONDS.0, SECONDS.1).start()
}

/// A script that makes a volume Retain, waits for a ConfigMap `go`, and makes it Delete again.
async fn waiting(w: &World) -> (Value, Vec<String>) {
    let class = w.class("slow").await;
    w.claim("data", &class, "16Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "data").await;
    let volume = w.pv_of("data").await;
    let script = w.dir().join("wait.rhai");
    let text = format!(
        r#"let pv = set_retain(get_pv("{}"));
wait_until(#{{what: "somebody says go", every_s: 0.1, timeout_s: 120}}, || find_object("ConfigMap", "{}", "go") != ());
set_reclaim_policy(pv, "Delete");"#,
        volume["metadata"]["name"].as_str().unwrap(),
        w.ns
    );
    std::fs::write(&script, text).unwrap();
    (volume, ["run", &script.display().to_string()].map(str::to_owned).to_vec())
}

async fn start_waiting(w: &World, words: &[String], seconds: &str) -> Running {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut run = w.pvmigrate(&words).env(SECONDS.0, seconds).start();
    run.wait_for_event(|event| event["t"] == "done" && event["op"] == "set_retain").await;
    run
}

async fn go(w: &World) {
    w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}})).await;
}

async fn policy_of(w: &World, volume: &Value) -> Value {
    w.get("pv", volume["metadata"]["name"].as_str().unwrap()).await["spec"]["persistentVolumeReclaimPolicy"].clone()
}

cluster_test!(a_run_has_a_lease_while_it_lives_and_none_afterwards, async |w: &World| {
    let (volume, words) = waiting(w).await;
    let run = start_waiting(w, &words, "5").await;
    let held = lease(w).await.expect("it writes: it has its Lease");
    assert_eq!(held["spec"]["leaseDurationSeconds"], 5);
    // Whoever comes from the same directory is told at once, from another one when the holder shows that it lives.
    w.pvmigrate(&["resume", &w.run_id()]).await.exits(3).says("being executed by another process").done();
    let there = elsewhere(w, "other");
    let other = w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).state_dir(&there);
    let refused = other.await.exits(5).says("to see whether it is alive").says("is being executed by");
    refused.says(holder(&held)).says("wait for it, or stop it first").done();
    go(w).await;
    run.wait().await.succeeds().done();
    assert_eq!(policy_of(w, &volume).await, "Delete");
    assert_eq!(lease(w).await, None);
});

cluster_test!(lab "the moment between a permit and its request is too short to be met on a quick server" a_process_that_was_stopped_while_another_took_over_sends_nothing_more, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut first = start_with(w, &shop);
    // It has its permit, and stands before its request.
    freeze_at(&mut first, |event| is(event, "start", ".delete-original")).await;
    let original = &shop.original["metadata"]["uid"];
    assert_eq!(&w.get("pvc", "data").await["metadata"]["uid"], original, "it was frozen too late");
    let before = holder(&lease(w).await.expect("it has its Lease")).to_owned();
    let there = elsewhere(w, "there");
    let mut second = resume_in(w, &there);
    let told = async || second.said().contains(&format!("{before} has run")).then_some(());
    w.until("the second process to say what it waits for", LONG, told).await;
    let mine = async || lease(w).await.filter(|lease| holder(lease) != before);
    let taken = w.until("the second process to take over", LONG, mine).await;
    assert_eq!(taken["spec"]["leaseTransitions"], 1);
    freeze_at(&mut second, |event| event["t"] == "start" && event["write"].is_object()).await;
    let (claims, volumes) = (w.list("pvc").await, w.list("PersistentVolume").await);
    let written = first.events().len();
    thaw(&first);
    let stopped = first.wait().await.exits(5);
    stopped.says("is being executed by").says(holder(&taken)).says("pvmigrate resume").done();
    assert_eq!((w.list("pvc").await, w.list("PersistentVolume").await), (claims, volumes));
    let more = w.events().split_off(written);
    assert!(more.iter().all(|event| event["write"].is_null()), "it went on: {more:#?}");
    thaw(&second);
    second.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_process_that_wakes_up_after_the_run_has_ended_elsewhere_stops, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut first = start_with(w, &shop);
    freeze_at(&mut first, |event| is(event, "start", ".reserve")).await;
    let second = resume_in(w, &elsewhere(w, "there"));
    second.wait().await.succeeds().done();
    shop.has_moved().await;
    let before = w.picture().await;
    thaw(&first);
    first.wait().await.exits(5).says("another one may have executed the run meanwhile").done();
    w.unchanged_since(&before).await;
});

cluster_test!(the_lease_of_a_killed_process_is_taken_at_once_where_its_lock_is, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = w.pvmigrate(&shop.args(&[])).env(SECONDS.0, "300").start();
    copy_pod(&mut run, "hot").await;
    run.kill9();
    let left = lease(w).await.expect("a killed process leaves its Lease");
    let since = Instant::now();
    w.pvmigrate(&["resume"]).await.succeeds().does_not_say("to see whether it is alive").done();
    assert!(since.elapsed() < Duration::from_secs(300), "{left}");
    shop.has_moved().await;
});

cluster_test!(lab "nothing here needs a node" a_dead_run_that_is_forgotten_or_taken_back_leaves_no_lease, async |w: &World| {
    let (volume, words) = waiting(w).await;
    start_waiting(w, &words, "300").await.kill9();
    assert!(lease(w).await.is_some());
    w.pvmigrate(&["runs", "forget", &w.run_id()]).await.exits(3).says("is not over").done();
    assert!(lease(w).await.is_some());
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    assert_eq!(lease(w).await, None);
    assert_eq!(policy_of(w, &volume).await, "Delete");
    start_waiting(w, &words, "300").await.kill9();
    let name = format!("pvmigrate-{}", w.run_id());
    w.pvmigrate(&["runs", "forget", &w.run_id(), "--force"]).await.succeeds().done();
    assert_eq!(w.find("Lease", &name).await, None);
});

cluster_test!(a_lease_that_is_deleted_or_edited_by_a_stranger_is_noticed, async |w: &World| {
    let (volume, words) = waiting(w).await;
    let run = start_waiting(w, &words, "4").await;
    let name = format!("pvmigrate-{}", w.run_id());
    // A label is nobody's claim, and what is deleted is made anew.
    w.patch("Lease", &name, json!({"metadata": {"labels": {"team": "storage"}}})).await;
    let before = lease(w).await.expect("it lives");
    let renewed = async || lease(w).await.filter(|now| now["spec"]["renewTime"] != before["spec"]["renewTime"]);
    let after = w.until("the Lease to be renewed", LONG, renewed).await;
    assert_eq!(after["metadata"]["labels"]["team"], "storage");
    w.delete("Lease", &name).await;
    let anew = async || lease(w).await.filter(|now| now["metadata"]["uid"] != before["metadata"]["uid"]);
    let anew = w.until("the Lease to be made anew", LONG, anew).await;
    assert_eq!(holder(&anew), holder(&before));
    // Another holder is another process.
    w.patch("Lease", &name, json!({"spec": {"holderIdentity": "somebody-else"}})).await;
    let told = async || run.said().contains("by somebody-else").then_some(());
    w.until("it to be told", LONG, told).await;
    go(w).await;
    run.wait().await.exits(5).says("is being executed by somebody-else").says("pvmigrate resume").done();
    assert_eq!(policy_of(w, &volume).await, "Retain");
    // Nobody renews it.
    w.pvmigrate(&["resume"]).env(SECONDS.0, "3").await.succeeds().done();
    assert_eq!(policy_of(w, &volume).await, "Delete");
    assert_eq!(lease(w).await, None);
});

cluster_test!(without_rights_on_leases_nothing_is_changed, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let all = ["get", "list", "watch", "create", "patch", "update", "delete"];
    let core =
        json!({"apiGroups": ["", "apps", "batch", "autoscaling", "storage.k8s.io"], "resources": ["*"], "verbs": all});
    let user = w.limited_user(json!([core])).await;
    let before = w.picture().await;
    let refused = w.pvmigrate(&shop.args(&[])).kubeconfig(&user).await.exits(3);
    refused.says("we may not create leases.coordination.k8s.io in namespace").says("nothing was changed").done();
    // A script that asks nobody beforehand meets it at its first change.
    let typed = format!("set_retain(get_pv({:?}))", shop.source["metadata"]["name"].as_str().unwrap());
    let refused = w.pvmigrate(&["eval", &typed]).kubeconfig(&user).await.exits(3);
    refused
        .says("we may not get leases.coordination.k8s.io")
        .says("--run-namespace")
        .says("nothing was changed")
        .done();
    w.unchanged_since(&before).await;
});
