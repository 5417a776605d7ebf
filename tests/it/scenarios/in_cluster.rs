//! `run --in-cluster`: a Job executes the run, and its next pod goes on where the last one died.

use super::shop::{Shop, shop};
use crate::world::{World, cluster_test};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// The account of a test's Job, and what makes its pod find the server on this ground.
struct Place {
    account: String,
    patch: String,
}

async fn place(w: &World) -> Place {
    let account = format!("{}-mover", w.ns);
    let words = ["rbac", "sc-migrate", "--service-account", &account, "--run-namespace", &w.ns, "--output", "json"];
    let roles = w.pvmigrate(&words).await.succeeds();
    let user = w.granted_user(&serde_json::from_str(&roles.stdout).expect("it is JSON")).await;
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let patch = if w.is_lab() {
        // Its containers are processes of this machine, without files of their own: no token is mounted into them.
        json!({"spec": {"containers": [{"env": [env("KUBECONFIG", &user.display().to_string())]}]}})
    } else {
        // The real one has no kube-proxy: the address of the service leads nowhere.
        let server = [env("KUBERNETES_SERVICE_HOST", "127.0.0.1"), env("KUBERNETES_SERVICE_PORT", "6443")];
        json!({"spec": {"hostNetwork": true, "containers": [{"env": server}]}})
    };
    let path = w.dir().join("job-patch.yaml");
    std::fs::write(&path, patch.to_string()).expect("a file can be written");
    Place { account, patch: path.display().to_string() }
}

impl Place {
    fn args<'a>(&'a self, w: &'a World, shop: &'a Shop<'_>, more: &[&'a str]) -> Vec<&'a str> {
        let own = ["--in-cluster", "--service-account", &self.account, "--job-patch", &self.patch];
        shop.args(&[&own[..], &["--run-namespace", &w.ns], more].concat())
    }
}

/// What is said about a run that is kept in the cluster, from a machine that has never seen it.
async fn runs(w: &World, elsewhere: &Path, words: &[&str]) -> crate::world::Outcome {
    let all = [&["runs"][..], words, &["--store", "cluster", "--run-namespace", &w.ns]].concat();
    w.pvmigrate(&all).state_dir(elsewhere).await
}

fn finished(job: &Value, how: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == how && one["status"] == "True")
}

async fn pods_of(w: &World, job: &str) -> Vec<Value> {
    let its = |pod: &Value| pod["metadata"]["labels"]["job-name"] == job;
    w.list("Pod").await.into_iter().filter(its).collect()
}

/// The records are gone with the Job and its pods.
async fn forgotten(w: &World, elsewhere: &Path, run: &str) {
    runs(w, elsewhere, &["forget", run]).await.succeeds().done();
    let job = format!("pvmigrate-{run}");
    w.gone("Job", &job).await;
    w.until("the Job's pods to be gone", LONG, async || pods_of(w, &job).await.is_empty().then_some(())).await;
    assert!(w.find("ConfigMap", &job).await.is_none());
}

cluster_test!(a_job_whose_pod_is_deleted_goes_on_with_another_one, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let place = place(w).await;
    let elsewhere = w.dir().join("elsewhere");
    let submitted = w.pvmigrate(&place.args(w, &shop, &[])).await.succeeds();
    let run = submitted.stdout.trim().to_owned();
    let job = format!("pvmigrate-{run}");
    submitted.says(&format!("pvmigrate runs show {run} --follow")).says("--store cluster").done();
    runs(w, &elsewhere, &["forget", &run]).await.exits(3).says(&job).done();

    // In the midst of it: the claim is being copied.
    let copies =
        async || w.list("Pod").await.into_iter().find(|pod| pod["metadata"]["labels"]["pvmigrate.io/task"] == "copy");
    w.until("a copy pod", LONG, copies).await;
    let first = pods_of(w, &job).await;
    assert_eq!(first.len(), 1, "{first:#?}");
    w.delete("Pod", first[0]["metadata"]["name"].as_str().expect("a pod has a name")).await;
    let followed = runs(w, &elsewhere, &["show", &run, "--follow"]).await.succeeds();
    followed.says("rebind").says(&format!("run {run}: done")).done();
    let complete = async || finished(&w.get("Job", &job).await, "Complete").then_some(());
    w.until("the Job to be complete", LONG, complete).await;
    let names = |pods: &[Value]| pods.iter().map(|pod| pod["metadata"]["name"].clone()).collect::<Vec<_>>();
    assert_ne!(names(&pods_of(w, &job).await), names(&first));
    forgotten(w, &elsewhere, &run).await;
    shop.has_moved().await;
});

cluster_test!(lab "what a Job does is the same there" a_run_that_fails_for_good_ends_its_job, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let place = place(w).await;
    let elsewhere = w.dir().join("elsewhere");
    // What preflight refuses, and only preflight.
    w.patch("pvc", "data", json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "backup.example/hold"]}})).await;
    let before = w.picture().await;
    let submitted = w.pvmigrate(&place.args(w, &shop, &["--output", "json"])).await.succeeds();
    let said: Value = serde_json::from_str(&submitted.stdout).expect("it is JSON");
    let (run, job) = (said["run"].as_str().expect("it is named"), said["job"].as_str().expect("it is named"));
    let failed = async || finished(&w.get("Job", job).await, "Failed").then_some(());
    w.until("the Job to fail", LONG, failed).await;
    assert_eq!(pods_of(w, job).await.len(), 1);
    runs(w, &elsewhere, &["show", run, "--follow"]).await.succeeds().says("preflight").done();
    forgotten(w, &elsewhere, run).await;
    w.unchanged_since(&before).await;
});

cluster_test!(lab "nothing reaches a node" what_would_keep_a_job_from_running_is_told_before_it_is_made, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let place = place(w).await;
    let own = ["--in-cluster", "--service-account", &place.account, "--run-namespace", &w.ns];
    let no_question: Vec<&str> = shop.args(&own).into_iter().filter(|word| *word != "--yes").collect();
    let bad = w.dir().join("bad.yaml");
    std::fs::write(&bad, "spec: {serviceAccountName: admin}").expect("a file can be written");
    let bad = bad.display().to_string();
    let records = async || w.list("ConfigMap").await.len() + w.list("Job").await.len();
    let rights = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete", "get", "list", "update"]},
        {"apiGroups": [""], "resources": ["namespaces", "serviceaccounts"], "verbs": ["get"]},
    ]);
    let user = w.limited_user(rights).await;
    let before = (w.picture().await, records().await);
    for (args, code, says) in [
        (no_question, 2, &["nobody can be asked inside a pod", "--yes"][..]),
        (shop.args(&[&own[..], &["--store", "dir"]].concat()), 2, &["a pod's files go with it"]),
        (shop.args(&[&own[..], &["--job-patch", &bad]].concat()), 2, &["must not change serviceAccountName"]),
        (shop.args(&["--service-account", "mover"]), 2, &["are for --in-cluster"]),
        (
            shop.args(&[&own[..], &["--on-failure", "rollback"]].concat()),
            2,
            &["does not take a run back by itself", "pvmigrate rollback RUN"],
        ),
        (
            shop.args(&["--in-cluster", "--service-account", "nobody", "--run-namespace", &w.ns]),
            3,
            &["there is no service account `nobody`", "pvmigrate rbac sc-migrate", "--service-account nobody"],
        ),
        (
            shop.args(&["--in-cluster", "--service-account", "default", "--run-namespace", &w.ns]),
            3,
            &["may not do what the run needs", "it may not patch persistentvolumes", "it may not update configmaps"],
        ),
    ] {
        let refused = w.pvmigrate(&args).await.exits(code);
        says.iter().fold(refused, |refused, text| refused.says(text)).done();
        assert_eq!(records().await, before.1, "{args:?}");
    }
    // Who may not make Jobs leaves no records behind.
    let refused = w.pvmigrate(&shop.args(&own)).kubeconfig(&user).await.exits(3);
    refused.says("we may not ask what the service account").says("make the Job of the run").done();
    assert_eq!(records().await, before.1);
    w.unchanged_since(&before.0).await;
});
