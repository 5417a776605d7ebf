//! A volume that is handed over to a claim of another name or namespace.

use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/hand-over.rhai");

cluster_test!(a_volume_is_handed_over_to_another_name_and_back, async |w: &World| {
    let slow = w.class("slow").await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.patch(
        "pvc",
        "data",
        json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"a.example/note": "kept"}}}),
    )
    .await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let volume = w.pv_of("data").await;
    let words =
        ["run", SCRIPT, "--namespace", &w.ns, "--claim", "data", "--to", "data-2", "--workload", "web", "--yes"];
    w.pvmigrate(&words).await.succeeds().says("is called data-2 now").done();
    w.gone("pvc", "data").await;
    let claim = w.get("pvc", "data-2").await;
    assert_eq!(
        (&claim["metadata"]["labels"]["team"], &claim["metadata"]["annotations"]["a.example/note"]),
        (&json!("shop"), &json!("kept"))
    );
    assert_eq!(w.pv_of("data-2").await["metadata"]["uid"], volume["metadata"]["uid"]);
    assert_eq!(w.pv_of("data-2").await["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    w.ready("Deployment", "web").await;
    let run = w.run_id();
    let plan = w.pvmigrate(&["rollback", &run, "--plan"]).await.succeeds();
    assert!(plan.stdout.contains("data instead of"), "{plan}");
    w.pvmigrate(&["rollback", &run, "--yes"]).await.succeeds().done();
    w.gone("pvc", "data-2").await;
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], volume["metadata"]["uid"]);
    assert_eq!(w.get("pvc", "data").await["metadata"]["labels"]["team"], "shop");
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

/// A script of the test's own; returns its path.
fn script(w: &World, name: &str, text: &str) -> String {
    let path = w.dir().join(format!("{name}.rhai"));
    std::fs::write(&path, text).expect("the world's directory is writable");
    path.display().to_string()
}

cluster_test!(a_volume_is_handed_over_to_another_namespace_and_back, async |w: &World| {
    let slow = w.class("slow").await;
    let other = w.extra_namespace().await;
    let owner = w
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": w.ns}}))
        .await;
    w.claim("data", &slow, "16Mi", &["ReadWriteOnce"]).await;
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    w.patch("pvc", "data", json!({"metadata": {"ownerReferences": owners, "labels": {"team": "shop"}}})).await;
    w.ready("pvc", "data").await;
    let volume = w.pv_of("data").await;
    w.in_volume("data", |dir| std::fs::write(dir.join("precious"), "x").unwrap()).await;
    let ns = &w.ns;
    let path = script(
        w,
        "over",
        &format!(
            "//! Elsewhere.\nlet data = get_pvc(\"{ns}\", \"data\");\nset_retain(get_pv(data.volume));\n\
             let now = hand_over(data, \"{other}\", \"data\");\nset_reclaim_policy(get_pv(now.volume), \"Delete\");\n"
        ),
    );
    w.pvmigrate(&["run", &path, "--yes"]).await.succeeds().done();
    w.gone("pvc", "data").await;
    let there = format!("{other}/data");
    let claim = w.get("pvc", &there).await;
    assert_eq!(
        (&claim["metadata"]["labels"]["team"], &claim["metadata"]["ownerReferences"]),
        (&json!("shop"), &Value::Null)
    );
    assert_eq!(w.pv_of(&there).await["metadata"]["uid"], volume["metadata"]["uid"]);
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    w.gone("pvc", &there).await;
    let back = w.get("pvc", "data").await;
    assert_eq!(back["metadata"]["ownerReferences"][0]["name"], "owner");
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], volume["metadata"]["uid"]);
    // An owner that died meanwhile would take the claim along.
    w.pvmigrate(&["run", &path, "--yes"]).await.succeeds().done();
    w.delete("ConfigMap", "owner").await;
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    assert_eq!(w.get("pvc", "data").await["metadata"]["ownerReferences"], Value::Null);
    w.in_volume("data", |dir| assert_eq!(std::fs::read_to_string(dir.join("precious")).unwrap(), "x")).await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(what_cannot_be_handed_over_stays_as_it_is, async |w: &World| {
    let slow = w.class("slow").await;
    for claim in ["data", "taken"] {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
        w.ready("pvc", claim).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let before = w.picture().await;
    let ns = &w.ns;
    let hand = async |name: &str, first: &str, namespace: &str, to: &str| {
        let text = format!(
            "//! Elsewhere.\nlet data = get_pvc(\"{ns}\", \"data\");\n{first}\nhand_over(data, \"{namespace}\", \"{to}\");\n"
        );
        w.pvmigrate(&["run", &script(w, name, &text), "--yes"]).await
    };
    hand("policy", "", ns, "data-2").await.exits(3).says("has the policy Delete").says("set_retain").done();
    w.unchanged_since(&before).await;
    let retain = "set_retain(get_pv(data.volume));";
    for (name, namespace, to, why) in [
        ("taken", &ns[..], "taken", "exists"),
        ("nowhere", "no-such-namespace", "data", "would be refused"),
        ("used", ns, "data-2", "pod `web-"),
    ] {
        hand(name, retain, namespace, to).await.exits(4).says(why).done();
        let claim = w.get("pvc", "data").await;
        assert_eq!(
            (&claim["status"]["phase"], &claim["metadata"]["deletionTimestamp"]),
            (&json!("Bound"), &Value::Null),
            "{name}"
        );
        w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
        w.unchanged_since(&before).await;
    }
    w.still_intact().await;
});

cluster_test!(one_run_hands_a_volume_over_once_and_back, async |w: &World| {
    let slow = w.class("slow").await;
    w.claim("data", &slow, "16Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "data").await;
    let volume = w.pv_of("data").await;
    let ns = &w.ns;
    let text = format!(
        "//! There, back, there, and no further.\nlet data = get_pvc(\"{ns}\", \"data\");\nset_retain(get_pv(data.volume));\n\
         let there = hand_over(data, \"{ns}\", \"data-2\");\nlet back = hand_over(there, \"{ns}\", \"data\");\n\
         patch_object(\"PersistentVolumeClaim\", \"{ns}\", \"data\", #{{ metadata: #{{ labels: #{{ team: \"x\" }} }} }});\n\
         let again = hand_over(get_pvc(\"{ns}\", \"data\"), \"{ns}\", \"data-2\");\nhand_over(again, \"{ns}\", \"data-3\");\n"
    );
    let told = w.pvmigrate(&["run", &script(w, "chain", &text), "--yes"]).await.exits(4);
    told.says("was handed over by this run").says("a run of its own").done();
    assert_eq!(w.pv_of("data-2").await["metadata"]["uid"], volume["metadata"]["uid"]);
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    w.gone("pvc", "data-2").await;
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], volume["metadata"]["uid"]);
    assert_eq!(w.get("pvc", "data").await["metadata"]["labels"]["team"], Value::Null);
    assert_eq!(w.pv_of("data").await["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
