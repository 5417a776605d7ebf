//! Taking a run back, over or broken off: the claim stands on its old volume again, and no line is lost.

use super::shop::{Shop, asks_for_copy, copy_pod, count, freeze_at, id, is, open, part, shop, thaw};
use crate::world::{World, cluster_test};
use serde_json::{Value, json};

/// The same shop with a workload that does not mind to find less than it has written.
async fn careless(w: &World) -> Shop<'_> {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    let container = json!({"name": "web", "image": w.image(), "imagePullPolicy": "IfNotPresent", "command": ["pvmigrate"],
        "args": ["agent", "exercise", "/data", "--name", "web"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    w.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 5,
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}}}}))
        .await;
    open(w, from, to).await
}

/// The claim, made anew or not, stands on the source as it did; nothing else is left of the run.
async fn is_taken_back(w: &World, shop: &Shop<'_>) {
    let (claim, volume) = (w.get("pvc", "data").await, w.pv_of("data").await);
    for field in ["/metadata/labels", "/spec/storageClassName", "/spec/accessModes", "/spec/resources"] {
        assert_eq!(claim.pointer(field), shop.original.pointer(field), "{field}");
    }
    assert_eq!(volume["metadata"]["uid"], shop.source["metadata"]["uid"]);
    let policy = "/spec/persistentVolumeReclaimPolicy";
    assert_eq!(volume.pointer(policy), shop.source.pointer(policy));
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 1);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    let claims: Vec<Value> = w.list("pvc").await.iter().map(|one| one["metadata"]["name"].clone()).collect();
    assert_eq!(claims, ["data"]);
    assert_eq!(w.leftovers().await, Vec::<String>::new());
}

cluster_test!(a_run_that_is_over_is_taken_back_with_what_was_written_since, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    shop.start(&[]).wait().await.succeeds().done();
    shop.has_moved().await;
    let target = w.pv_of("data").await["metadata"]["name"].as_str().expect("it has a name").to_owned();
    let run = w.run_id();

    // What was written on the new volume is not lost by accident.
    let refused = w.pvmigrate(&["rollback", &run, "--yes"]).await.exits(3);
    refused.says("Deployment:").says("was started on the new volume").says("--reverse-sync").done();
    let plan = w.pvmigrate(&["rollback", &run, "--reverse-sync", "--plan"]).await.succeeds();
    assert!(plan.stdout.contains("stop Deployment:") && plan.stdout.contains("data back on pvc-"), "{plan}");
    w.pvmigrate(&["rollback", &run, "--reverse-sync"]).await.exits(3).says("add --yes").done();
    shop.has_moved().await;

    // Broken off while it copies back what the workload goes on to write.
    let mut first = w.start(&["rollback", &run, "--reverse-sync", "--yes"]);
    copy_pod(&mut first, "hot").await;
    first.kill9();
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 1, "nothing is stopped yet");
    w.still_intact().await;
    w.pvmigrate(&["rollback", &run, "--yes"]).await.exits(3).says("only that can be finished").done();
    w.pvmigrate(&["rollback", &run, "--reverse-sync", "--yes"]).await.succeeds().says("is taken back").done();
    let back: Vec<Value> = w.events().into_iter().filter(|event| id(event).starts_with("rollback/")).collect();
    let stop = back.iter().position(|event| is(event, "start", ".stop")).expect("it is stopped");
    // Another only if there was something to do.
    assert!((1..=2).contains(&count(&back[..stop], |event| asks_for_copy(event, "hot"))), "passes while it runs");
    assert_eq!(count(&back[stop..], |event| asks_for_copy(event, "hot")), 0);
    is_taken_back(w, &shop).await;
    assert!(w.find("pv", &target).await.is_none(), "the copy is given up: its bytes are on the source");
    let runs = w.pvmigrate(&["runs"]).await.succeeds();
    assert!(runs.stdout.contains("rolled-back"), "{runs}");
    w.pvmigrate(&["rollback", &run]).await.succeeds().says("taken back already").done();
    w.pvmigrate(&["resume", &run]).await.exits(3).says("was taken back").done();
});

cluster_test!(a_run_that_is_over_is_taken_back_without_what_was_written_since, async |w: &World| {
    let shop = careless(w).await;
    shop.start(&[]).wait().await.succeeds().done();
    let target = w.pv_of("data").await["metadata"]["name"].as_str().expect("it has a name").to_owned();
    let done = w.pvmigrate(&["rollback", &w.run_id(), "--discard-new-data", "--yes"]).await.succeeds();
    done.says(&format!("{target} is kept")).done();
    let (volume, kept) = (w.pv_of("data").await, w.get("pv", &target).await);
    assert_eq!(volume["metadata"]["uid"], shop.source["metadata"]["uid"]);
    assert_eq!(kept["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    w.ready("Deployment", "web").await;
});

cluster_test!(a_run_killed_during_the_final_pass_is_taken_back, async |w: &World| {
    let shop = shop(w, "disk-a", "disk-b").await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "final").await;
    run.kill9();
    assert!(!w.events().iter().any(|event| id(event).ends_with(".delete-original")), "the kill came too late");
    w.pvmigrate(&["rollback", "--yes"]).await.succeeds().says("is taken back").done();
    shop.is_on_the_source().await;
    is_taken_back(w, &shop).await;
});

cluster_test!(a_run_killed_between_deletion_and_creation_is_taken_back, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let deleted = run.wait_for_event(|event| is(event, "done", ".delete-original")).await;
    run.kill9();
    assert!(!w.events().iter().any(|event| is(event, "done", &part(&deleted, "create"))), "the kill came too late");
    let told = w.pvmigrate(&["rollback", "--yes"]).await;
    told.succeeds().says("is taken back").done();
    is_taken_back(w, &shop).await;
});

cluster_test!(a_unit_that_was_begun_anew_is_taken_back_as_one, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let finalizers = async |more: &[&str]| {
        let all = [&["kubernetes.io/pvc-protection"], more].concat();
        w.patch("pvc", "data", json!({"metadata": {"finalizers": all}})).await;
    };
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "start", ".stop")).await;
    finalizers(&["example.org/held"]).await;
    thaw(&run);
    run.wait().await.exits(4).says("started again on the source").says("pvmigrate rollback").done();
    shop.is_on_the_source().await;
    finalizers(&[]).await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
    // The first attempt gave its copy up and put the policy of the source back: neither happens to what stands now.
    w.pvmigrate(&["rollback", &w.run_id(), "--reverse-sync", "--yes"]).await.succeeds().done();
    is_taken_back(w, &shop).await;
});

cluster_test!(what_somebody_else_has_changed_since_stops_a_rollback_before_it_begins, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    shop.start(&[]).wait().await.succeeds().done();
    let first = w.run_id();
    // Another run has moved it on.
    let other = w.class("slow").await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &shop.to, "--dest-sc", &other, "--yes", "--image", &image];
    w.pvmigrate(&words).await.succeeds().done();
    let second = w.run_id();
    let generation = w.get("Deployment", "web").await["metadata"]["generation"].clone();
    let back = async |run: &str| w.pvmigrate(&["rollback", run, "--reverse-sync", "--yes"]).await;
    back(&first).await.exits(5).says("which this run did not make").done();
    assert_eq!(w.get("Deployment", "web").await["metadata"]["generation"], generation, "nothing was stopped");
    w.still_intact().await;
    // The later one first, and nothing stands in the way any more.
    back(&second).await.succeeds().done();
    back(&first).await.succeeds().done();
    is_taken_back(w, &shop).await;
});
