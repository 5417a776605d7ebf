//! Runs that are kept in the cluster: any machine goes on with them, and nobody needs a file of the one that began.

use super::shop::{Shop, shop};
use crate::world::{Outcome, Pvmigrate, Running, World, cluster_test};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// A state directory that knows nothing, as on another machine.
fn machine(w: &World, name: &str) -> PathBuf {
    w.dir().join(name)
}

/// Begins a move that will be killed, with its journal in the cluster, and returns its id too.
async fn begin(w: &World, shop: &Shop<'_>) -> (Running, String) {
    // Whoever goes on after the kill waits as long as this process has said.
    begun(w, here(w, shop, &[]).env("PVMIGRATE_LEASE_SECONDS", "4").start()).await
}

/// The move with its journal in the cluster.
fn here<'w>(w: &'w World, shop: &Shop<'_>, more: &[&str]) -> Pvmigrate<'w> {
    w.pvmigrate(&shop.args(&[&["--store", "cluster", "--run-namespace", &w.ns], more].concat()))
}

async fn begun(w: &World, run: Running) -> (Running, String) {
    let said = async || id_of(&run.said());
    let id = w.until("the run to say its id", Duration::from_secs(60), said).await;
    (run, id)
}

fn id_of(said: &str) -> Option<String> {
    let id = said.lines().find_map(|line| line.strip_prefix("run ")?.split_once(" of sc-migrate on "))?.0;
    Some(id.to_owned())
}

/// All records of a run, as anybody may read them.
async fn records(w: &World, run: &str) -> String {
    let maps = w.list("ConfigMap").await;
    let is_segment = |map: &&Value| {
        map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&format!("pvmigrate-{run}-0")))
    };
    maps.iter().filter(is_segment).filter_map(|map| map["data"]["records"].as_str()).collect()
}

async fn until_recorded(w: &World, run: &str, text: &str) {
    let recorded = async || records(w, run).await.contains(text).then_some(());
    w.until(&format!("{text} in the journal"), Duration::from_secs(120), recorded).await;
}

fn nothing_here(w: &World, name: &str) {
    let runs = machine(w, name).join("runs");
    assert!(!runs.exists(), "{} was made", runs.display());
}

cluster_test!(a_run_kept_in_the_cluster_goes_on_on_another_machine, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let (run, id) = begin(w, &shop).await;
    until_recorded(w, &id, "delete-original").await;
    run.kill9();
    let here = ["--run-namespace", &w.ns];
    let resumed =
        w.pvmigrate(&[&["resume", &id][..], &here].concat()).state_dir(&machine(w, "second")).await.succeeds();
    resumed.says(&format!("kept in the cluster, in namespace {}", w.ns)).done();
    shop.has_moved().await;

    let listed = w.pvmigrate(&[&["runs", "list", "--store", "cluster", "-o", "json"][..], &here].concat());
    let listed: Value =
        serde_json::from_str(&listed.state_dir(&machine(w, "third")).await.succeeds().stdout).expect("JSON");
    assert_eq!(
        (&listed[0]["run"], &listed[0]["status"], &listed[0]["namespace"]),
        (&json!(id), &json!("done"), &json!(w.ns))
    );
    let shown = w.pvmigrate(&[&["runs", "show", &id, "--follow"][..], &here].concat()).state_dir(&machine(w, "third"));
    shown.await.succeeds().says("delete-original").says("done,").done();
    let source = shop.source["metadata"]["name"].as_str().expect("it has a name");
    let freed = w.pvmigrate(&[&["cleanup", &id, "--yes"][..], &here].concat()).state_dir(&machine(w, "third")).await;
    freed.succeeds().says(source).done();
    assert_eq!(w.find("pv", source).await, None);
    let all: usize =
        w.list("ConfigMap").await.iter().filter(|map| is_ours(map)).map(|map| map["data"].to_string().len()).sum();
    eprintln!("kept: {all} bytes of data for one claim and its cleanup");
    let forgotten = w.pvmigrate(&[&["runs", "forget", &id][..], &here].concat()).state_dir(&machine(w, "third")).await;
    forgotten.succeeds().done();
    let left: Vec<Value> = w.list("ConfigMap").await.into_iter().filter(is_ours).collect();
    assert_eq!(left, Vec::<Value>::new());
    for name in ["state", "second", "third"] {
        nothing_here(w, name);
    }
});

cluster_test!(lab "who looks on does not touch anything" somebody_looks_on_while_another_process_executes_the_run, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    // Its pod does not go before the others have looked.
    let pod = held_pod(w).await;
    let (run, id) = begun(w, here(w, &shop, &[]).start()).await;
    let away = &machine(w, "second");
    let look = ["runs", "show", &id, "--follow", "--run-namespace", &w.ns];
    let (looking, leaving) = (w.pvmigrate(&look).state_dir(away).start(), w.pvmigrate(&look).state_dir(away).start());
    let refused = w.pvmigrate(&["resume", &id]).state_dir(away).await;
    assert!(matches!(refused.code, Some(3 | 5)), "{refused}");
    refused.says("is being executed by").done();
    let forget = w.pvmigrate(&["runs", "forget", &id, "--force"]).state_dir(away).await.exits(3);
    forget.says("is being executed by").done();
    // Whoever looks on may leave at any time.
    let told = async || leaving.said().contains(".stop").then_some(());
    w.until("the stop to be told", Duration::from_secs(120), told).await;
    leaving.signal(Signal::INT);
    leaving.wait().await.exits(130).done();
    let_go(w, &pod).await;
    run.wait().await.succeeds().done();
    looking.wait().await.succeeds().says("delete-original").says("done,").says("nobody executes it").done();
    shop.has_moved().await;
    nothing_here(w, "second");
});

cluster_test!(lab "the same Lease on both" who_waited_for_another_process_reads_what_it_did, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let pod = held_pod(w).await;
    // It is not renewed before the run is over: whoever comes cannot tell it from a dead one's, and waits.
    let run = here(w, &shop, &[]).env("PVMIGRATE_LEASE_SECONDS", "300").start();
    let (run, id) = begun(w, run).await;
    until_recorded(w, &id, ".stop").await;
    let late = w.pvmigrate(&["resume", &id, "--run-namespace", &w.ns]).state_dir(&machine(w, "second")).start();
    let waits = async || late.said().contains("to see whether it is alive").then_some(());
    w.until("the other process to wait", Duration::from_secs(60), waits).await;
    let_go(w, &pod).await;
    run.wait().await.succeeds().done();
    let late = late.wait().await.succeeds();
    late.says("went on with run").says("it is read anew").says("is done: there is nothing to resume").done();
    shop.has_moved().await;
});

/// The workload's pod, which does not go before [`let_go`].
async fn held_pod(w: &World) -> String {
    let pods = w.list("Pod").await;
    let pod = pods[0]["metadata"]["name"].as_str().expect("it has a name").to_owned();
    w.patch("Pod", &pod, json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    pod
}

async fn let_go(w: &World, pod: &str) {
    w.patch("Pod", pod, json!({"metadata": {"finalizers": null}})).await;
}

cluster_test!(lab "the journal is a file" somebody_looks_on_in_the_same_directory, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    run.wait_for_event(|_| true).await;
    let looking = w.start(&["runs", "show", &w.run_id(), "-f"]);
    run.wait().await.succeeds().done();
    looking.wait().await.succeeds().says("delete-original").says("done,").done();
});

fn is_ours(map: &Value) -> bool {
    map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("pvmigrate-"))
}

cluster_test!(lab "what another machine reads is the same on both" a_run_kept_in_the_cluster_is_taken_back_on_another_machine, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let (run, id) = begin(w, &shop).await;
    until_recorded(w, &id, ".stop").await;
    run.kill9();
    let away = machine(w, "second");
    w.pvmigrate(&["rollback", &id, "--yes"]).state_dir(&away).await.succeeds().says("is taken back").done();
    shop.is_on_the_source().await;
    let again = w.pvmigrate(&["resume", &id]).state_dir(&machine(w, "third")).await;
    again.exits(3).says("was taken back").done();
});

cluster_test!(lab "the same refusals on both" a_run_kept_in_the_cluster_is_refused_where_it_must_be, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let away = &machine(w, "second");
    let asked = async |args: &[&str]| -> Outcome { w.pvmigrate(args).state_dir(away).await };
    // Unknown anywhere.
    let unknown = asked(&["resume", "00000000"]).await.exits(2);
    unknown.says("00000000 is not known").says("not kept in the cluster either").done();
    asked(&["resume", "00000000", "--store", "cluster"]).await.exits(2).done();
    asked(&["resume", "--store", "cluster"]).await.exits(2).says("no stopped run to resume in the cluster").done();
    // No rights: nothing was changed, and exactly what is missing is said.
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete"]}]);
    let user = w.limited_user(rules).await;
    let before = w.picture().await;
    let args = shop.args(&["--store", "cluster", "--run-namespace", &w.ns]);
    let refused = w.pvmigrate(&args).kubeconfig(&user).state_dir(away).await.exits(3);
    refused.says("missing rights on configmaps: update").says("--run-namespace").done();
    w.unchanged_since(&before).await;
    // A namespace that is not there.
    let args = shop.args(&["--store", "cluster", "--run-namespace", "nowhere"]);
    w.pvmigrate(&args).state_dir(away).await.exits(3).says("nowhere").done();
    // Somebody else's ConfigMap.
    w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pvmigrate-0123abcd"}, "data": {"a": "b"}})).await;
    let foreign = asked(&["resume", "0123abcd", "--run-namespace", &w.ns]).await.exits(5);
    foreign.says("is no run of pvmigrate").done();
    w.delete("ConfigMap", "pvmigrate-0123abcd").await;
    // A segment that was edited.
    let (run, id) = begin(w, &shop).await;
    until_recorded(w, &id, ".stop").await;
    run.kill9();
    let maps = w.list("ConfigMap").await;
    let is_open = |map: &&Value| map["data"]["segment.json"].is_string() && map["immutable"] != true;
    let segment = maps.iter().find(is_open).expect("the last segment is open");
    let name = segment["metadata"]["name"].as_str().expect("it has a name").to_owned();
    let records = segment["data"]["records"].as_str().expect("it has records").to_owned();
    let damage = json!({"data": {"records": records.replacen("op", "po", 1)}});
    w.patch("ConfigMap", &name, damage).await;
    for word in ["resume", "rollback"] {
        asked(&[word, &id, "--yes", "--run-namespace", &w.ns]).await.exits(5).says("was changed by somebody else").done();
    }
    w.patch("ConfigMap", &name, json!({"data": {"records": records}})).await;
    asked(&["resume", &id, "--run-namespace", &w.ns]).await.succeeds().done();
    shop.has_moved().await;
});
