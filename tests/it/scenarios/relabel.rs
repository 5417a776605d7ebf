//! Another class on the same volume: `--engine relabel`, and `auto`, which chooses it where it is certain.

use super::shop::{Shop, freeze_at, is, open, shop, thaw};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};

const RELABEL: [&str; 2] = ["--engine", "relabel"];

/// The claim is of this class, on the very volume that it had, and the workload goes on.
async fn stands_where_it_stood(w: &World, shop: &Shop<'_>, class: &str, policy: &str) {
    let (claim, volume) = (w.get("pvc", "data").await, w.pv_of("data").await);
    assert_eq!((&claim["spec"]["storageClassName"], &claim["status"]["phase"]), (&json!(class), &json!("Bound")));
    assert_eq!(volume["metadata"]["uid"], shop.source["metadata"]["uid"]);
    assert_eq!(volume["spec"]["storageClassName"], class);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], policy);
    assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(volume["spec"]["mountOptions"], Value::Null);
    assert_eq!(w.list("pvc").await.len(), 1);
    shop.runs(1).await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
}

fn made_pods(w: &World) -> usize {
    w.events().iter().filter(|event| event["write"]["gvk"]["kind"] == "Pod").count()
}

cluster_test!(a_claim_gets_another_class_on_its_volume_and_the_way_back_loses_nothing, async |w: &World| {
    let slow = w.class("slow").await;
    let more =
        json!({"reclaimPolicy": "Retain", "allowVolumeExpansion": true, "volumeBindingMode": "WaitForFirstConsumer"});
    let fast = w.class_with("fast", more).await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let odd = "quotes \" ' $(x)\nnew line é";
    w.patch("pvc", "data", json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"odd/note": odd}}})).await;
    let shop = open(w, slow.clone(), fast.clone()).await;
    let told =
        shop.start(&[&RELABEL[..], &["--originals", "delete", "--output", "json"]].concat()).wait().await.succeeds();
    let told = told.says("stays on its volumes").says("no byte is copied, and no volume is left over");
    let rows: Value = serde_json::from_str(&told.stdout).expect("stdout is one JSON value");
    let row = &rows[0];
    assert_eq!(
        (&row["engine"], &row["verified"], &row["files"]),
        (&json!("relabel"), &json!("same volume"), &json!(0))
    );
    assert_eq!((&row["source"], &row["target"]), (&shop.source["metadata"]["name"], &shop.source["metadata"]["name"]));
    assert!(row["downtime_s"].is_number(), "{row}");
    assert_eq!(made_pods(w), 0, "nothing was copied");
    stands_where_it_stood(w, &shop, &fast, "Retain").await;
    let claim = w.get("pvc", "data").await;
    assert_ne!(claim["metadata"]["uid"], shop.original["metadata"]["uid"]);
    assert_eq!(
        (&claim["metadata"]["labels"]["team"], &claim["metadata"]["annotations"]["odd/note"]),
        (&json!("shop"), &json!(odd))
    );
    // Nothing was replaced, and what the workload has written since is on the same volume: no option is asked for.
    let run = w.run_id();
    w.pvmigrate(&["cleanup", &run, "--yes"]).await.succeeds().done();
    let plan = w.pvmigrate(&["rollback", &run, "--plan"]).await.succeeds();
    assert!(plan.stdout.contains(&format!("of class {slow} again, on the volume that it has")), "{plan}");
    w.pvmigrate(&["rollback", &run, "--yes"]).await.succeeds().done();
    stands_where_it_stood(w, &shop, &slow, "Delete").await;
    assert_eq!(w.get("pvc", "data").await["metadata"]["labels"]["team"], "shop");
});

cluster_test!(lab "directories of the real cluster are mounted without options" mount_options_are_those_of_the_new_class, async |w: &World| {
    let slow = w.class_with("slow", json!({"mountOptions": ["noatime"]})).await;
    let fast = w.class_with("fast", json!({"mountOptions": ["nodev", "noatime"]})).await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, slow, fast).await;
    let options = async || w.pv_of("data").await["spec"]["mountOptions"].clone();
    assert_eq!(options().await, json!(["noatime"]));
    shop.start(&RELABEL).wait().await.succeeds().done();
    assert_eq!(options().await, json!(["nodev", "noatime"]));
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    assert_eq!(options().await, json!(["noatime"]));
    shop.runs(1).await;
});

cluster_test!(a_quota_of_the_new_class_is_told_before_and_one_of_all_classes_has_room, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let of_class = format!("{}.storageclass.storage.k8s.io/requests.storage", shop.to);
    let quota = |hard: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"}, "spec": {"hard": hard}});
    let counted = async |resource: &str| {
        let used = async || {
            let now = w.get("ResourceQuota", "room").await;
            now["status"]["used"].get(resource).map(|_| ())
        };
        w.until("the quota is counted", std::time::Duration::from_secs(60), used).await;
    };
    w.apply(quota(json!({&of_class: "1Mi"}))).await;
    counted(&of_class).await;
    let before = w.picture().await;
    shop.start(&RELABEL)
        .wait()
        .await
        .exits(3)
        .says("would be refused")
        .says("exceeded quota")
        .says("nothing was changed")
        .done();
    w.unchanged_since(&before).await;
    w.delete("ResourceQuota", "room").await;
    // It is full with the very claim that is made anew.
    w.apply(quota(json!({"requests.storage": "64Mi", "persistentvolumeclaims": "1"}))).await;
    counted("requests.storage").await;
    shop.start(&RELABEL).wait().await.succeeds().done();
    stands_where_it_stood(w, &shop, &shop.to, "Delete").await;
});

cluster_test!(the_disks_of_a_set_get_another_class_where_they_are, async |w: &World| {
    let (a, b) = (w.class("disk-a").await, w.class("disk-b").await);
    w.exercise_statefulset("db", 2, &a, "32Mi", opts()).await;
    w.ready("StatefulSet", "db").await;
    let claims = ["data-db-0", "data-db-1"];
    let before = [w.pv_of(claims[0]).await, w.pv_of(claims[1]).await];
    let words = ["run", "sc-migrate", "--source-sc", &a, "--dest-sc", &b, "--yes", "--engine", "auto"];
    w.pvmigrate(&words).await.succeeds().says("stays on its volumes").says("in 1 units").done();
    for (claim, was) in claims.into_iter().zip(&before) {
        let (now, volume) = (w.get("pvc", claim).await, w.pv_of(claim).await);
        assert_eq!(volume["metadata"]["uid"], was["metadata"]["uid"], "{claim}");
        assert_eq!((&now["spec"]["storageClassName"], &volume["spec"]["storageClassName"]), (&json!(b), &json!(b)));
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    }
    w.ready("StatefulSet", "db").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(what_speaks_against_staying_is_told_all_at_once, async |w: &World| {
    let slow = w.class("slow").await;
    let other = w.class_with("fast", json!({"parameters": {"delaySeconds": "0"}})).await;
    let shop = {
        w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
        w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
        open(w, slow, other).await
    };
    let before = w.picture().await;
    let told = shop
        .start(&[&RELABEL[..], &["--dest-size", "1Gi", "--dest-access-mode", "ReadWriteMany"]].concat())
        .wait()
        .await
        .exits(3);
    let told = told.says("3 reasons").says("nothing was changed").says("--engine native");
    for reason in ["keeps its size", "keeps its access modes", "differ in parameters: delaySeconds"] {
        assert!(told.stdout.contains(reason), "{reason}: {told}");
    }
    w.unchanged_since(&before).await;
    // The same, when each unit is done as it can be: it is copied, and the plan says why.
    shop.start(&["--engine", "auto"]).wait().await.succeeds().says("the classes differ in parameters").done();
    shop.has_moved().await;
});

cluster_test!(each_unit_is_done_as_it_can_be, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    // Made by hand, so that nobody can tell what the driver would make of it.
    let by_hand = w.local_volume(&slow, "node1", "64Mi").await;
    w.claim("hand", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "hand").await;
    assert_eq!(w.pv_of("hand").await["metadata"]["name"], by_hand.as_str());
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    for (workload, claim) in [("one", "hand"), ("two", "data")] {
        w.exercise_deployment(workload, 1, &[("data", claim)], opts()).await;
        w.ready("Deployment", workload).await;
    }
    let stays = w.pv_of("data").await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--image", &image];
    let told = w.pvmigrate(&[&words[..], &["--engine", "auto", "--output", "json"]].concat()).await.succeeds();
    let told = told.says("in 2 units").says(&format!("copied (native): volume `{by_hand}` was not made by"));
    let rows: Vec<Value> = serde_json::from_str(&told.stdout).expect("stdout is one JSON value");
    let engine = |claim: &str| {
        let row = rows.iter().find(|row| row["claim"] == format!("{}/{claim}", w.ns).as_str());
        row.map(|row| row["engine"].clone())
    };
    assert_eq!((engine("hand"), engine("data")), (Some(json!("native")), Some(json!("relabel"))));
    assert_ne!(w.pv_of("hand").await["metadata"]["name"], by_hand.as_str());
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], stays["metadata"]["uid"]);
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(a_claim_that_is_used_again_gets_its_volume_back_and_is_let_go_later, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&RELABEL);
    freeze_at(&mut run, |event| is(event, "done", ".reserve")).await;
    // Its claim has no volume for the moment, so that nobody can write.
    w.patch("Deployment", "web", json!({"spec": {"replicas": 1}})).await;
    let pods = async || {
        let pods = w.list("Pod").await;
        (!pods.is_empty()).then_some(())
    };
    w.until("a pod of web", std::time::Duration::from_secs(30), pods).await;
    thaw(&run);
    run.wait().await.succeeds().says("stopping again").done();
    let events = w.events();
    assert!(events.iter().any(|event| is(event, "done", ".return")), "it had its volume back");
    assert_eq!(events.iter().filter(|event| is(event, "done", ".delete-original")).count(), 1);
    stands_where_it_stood(w, &shop, &shop.to, "Delete").await;
});

cluster_test!(a_claim_that_cannot_go_keeps_its_volume_and_resume_finishes_the_unit, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "logs"] {
        w.claim(claim, &slow, "64Mi", &["ReadWriteOnce"]).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data"), ("logs", "logs")], opts()).await;
    w.ready("Deployment", "web").await;
    let before = [w.pv_of("data").await, w.pv_of("logs").await];
    let finalizers = async |more: &[&str]| {
        let all = [&["kubernetes.io/pvc-protection"], more].concat();
        w.patch("pvc", "logs", json!({"metadata": {"finalizers": all}})).await;
    };
    let mut run =
        w.start(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--engine", "relabel"]);
    freeze_at(&mut run, |event| is(event, "start", ".stop")).await;
    finalizers(&["example.org/held"]).await;
    thaw(&run);
    run.wait().await.exits(4).says("example.org/held").says("pvmigrate resume").done();
    // The first is done, and the second is as it was; nobody has lost a volume.
    let classes = async || {
        [w.get("pvc", "data").await, w.get("pvc", "logs").await].map(|one| one["spec"]["storageClassName"].clone())
    };
    assert_eq!(classes().await, [json!(fast), json!(slow)]);
    assert_eq!(w.get("pvc", "logs").await["status"]["phase"], "Bound");
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    finalizers(&[]).await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    assert_eq!(classes().await, [json!(fast), json!(fast)]);
    for (claim, was) in ["data", "logs"].into_iter().zip(&before) {
        assert_eq!(w.pv_of(claim).await["metadata"]["uid"], was["metadata"]["uid"], "{claim}");
    }
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    assert_eq!(classes().await, [json!(slow), json!(slow)]);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
});

cluster_test!(what_a_set_makes_of_its_own_accord_stands_on_the_reserved_volume, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.exercise_statefulset("db", 1, &slow, "32Mi", opts()).await;
    w.ready("StatefulSet", "db").await;
    let before = w.pv_of("data-db-0").await;
    let mut run =
        w.start(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--engine", "relabel"]);
    run.wait_for_event(|event| is(event, "start", ".delete-original")).await;
    run.kill9();
    w.delete("pvc", "data-db-0").await;
    // Nobody runs pvmigrate now: the set makes its claim anew by its template.
    w.patch("StatefulSet", "db", json!({"spec": {"replicas": 1}})).await;
    w.ready("StatefulSet", "db").await;
    assert_eq!(w.pv_of("data-db-0").await["metadata"]["uid"], before["metadata"]["uid"]);
    w.still_intact().await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    assert_eq!(w.pv_of("data-db-0").await["metadata"]["uid"], before["metadata"]["uid"]);
    w.ready("StatefulSet", "db").await;
    w.still_intact().await;
});
