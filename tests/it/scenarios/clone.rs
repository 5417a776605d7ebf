//! A volume that its driver clones: `--engine clone`, and `auto`, which tries it where it is possible.

use super::shop::{is, open};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};

const CLONE: [&str; 4] = ["--engine", "clone", "--output", "json"];

/// Reports of the passes of the newest run, in their order.
fn passes(w: &World) -> Vec<Value> {
    let done = |event: &&Value| is(event, "done", "") && event["op"] == "run_copy_pod";
    w.events().iter().filter(done).map(|event| event["out"].clone()).collect()
}

cluster_test!(lab "no driver of the real cluster is a CSI driver" a_volume_is_cloned_and_only_what_changes_is_copied, async |w: &World| {
    let (slow, fast) = (w.class("disk-a").await, w.class_with("disk-b", json!({"parameters": {"delaySeconds": "0"}})).await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.in_volume("data", |dir| (0..40).for_each(|n| std::fs::write(dir.join(format!("f{n}")), "x").unwrap())).await;
    let shop = open(w, slow, fast).await;
    let told = shop.start(&CLONE).wait().await.succeeds();
    let told = told.says("cloned, and what changes is copied: both classes are of its driver");
    let rows: Value = serde_json::from_str(&told.stdout).expect("stdout is one JSON value");
    assert_eq!((&rows[0]["engine"], &rows[0]["verified"]), (&json!("clone"), &json!("full")), "{rows}");
    let made = |event: &&Value| event["write"]["body"]["spec"]["dataSource"]["name"] == "data";
    assert_eq!(w.events().iter().filter(made).count(), 1, "one claim is a clone of another");
    let first = &passes(w)[0];
    let number = |field: &str| first[field].as_u64().unwrap_or_default();
    assert!(number("files_total") > 20 && number("files_copied") < number("files_total") / 2, "{first}");
    shop.has_moved().await;
    // The claim of the old name is of no other claim.
    assert_eq!(w.get("pvc", "data").await["spec"]["dataSource"], Value::Null);
    w.pvmigrate(&["rollback", &w.run_id(), "--yes", "--reverse-sync"]).await.succeeds().done();
    shop.runs(1).await;
    w.still_intact().await;
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], shop.source["metadata"]["uid"]);
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(lab "no driver of the real cluster is a CSI driver" what_a_driver_does_not_clone_is_as_it_was_or_copied_whole, async |w: &World| {
    let slow = w.class("slow").await;
    let fast = w.class_with("fast", json!({"parameters": {"delaySeconds": "0"}})).await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, slow, fast).await;
    let told = shop.start(&["--engine", "clone"]).wait().await.exits(4);
    told.says("makes no clones").says("--engine native").says("is as it was found").done();
    shop.runs(1).await;
    assert_eq!(w.list("pvc").await.len(), 1);
    assert_eq!(w.pv_of("data").await["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert!(!w.events().iter().any(|event| event["op"] == "stop"), "the workload was not stopped");
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    let told = shop.start(&["--engine", "auto", "--output", "json"]).wait().await.succeeds();
    let told = told.says("(all, if the driver makes no clone)").says("it is copied whole");
    let rows: Value = serde_json::from_str(&told.stdout).expect("stdout is one JSON value");
    assert_eq!(rows[0]["engine"], "native");
    assert!(passes(w)[0]["files_copied"].as_u64() > Some(0), "{:?}", passes(w));
    shop.has_moved().await;
});

cluster_test!(what_cannot_be_cloned_is_told_before_anything_changes, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let by_hand = w.local_volume(&slow, "node1", "64Mi").await;
    w.claim("hand", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "hand")], opts()).await;
    w.ready("Deployment", "web").await;
    let before = w.picture().await;
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--engine", "clone"];
    let told = w.pvmigrate(&[&words[..], &["--hot-passes", "0"]].concat()).await.exits(3);
    let told = told.says("2 reasons").says("nothing was changed").says("--engine native");
    for reason in [&format!("volume `{by_hand}` is of no CSI driver")[..], "without hot passes nothing is"] {
        assert!(told.stdout.contains(reason), "{reason}: {told}");
    }
    w.unchanged_since(&before).await;
});
