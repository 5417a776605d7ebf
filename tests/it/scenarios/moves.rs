//! Whole moves from one class to another.

use crate::world::{World, cluster_test, opts};
use serde_json::json;

cluster_test!(a_statefulset_and_a_deployment_move_from_slow_to_fast, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.exercise_statefulset("db", 2, &slow, "32Mi", opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("StatefulSet", "db").await;
    let image = w.image();
    let moved = w
        .pvmigrate(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--yes", "--image", &image])
        .await
        .succeeds();
    println!("{}{}", moved.stdout, moved.stderr);
    for claim in ["data", "data-db-0", "data-db-1"] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], fast.as_str());
        assert!(moved.stdout.contains(claim));
    }
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(a_pod_and_its_two_local_volumes_end_on_one_node, async |w: &World| {
    let (slow, local) = (w.class("slow").await, w.class("local").await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.claim("logs", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data"), ("logs", "logs")], opts()).await;
    w.ready("Deployment", "web").await;
    let image = w.image();
    w.pvmigrate(&["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &local, "--yes", "--image", &image])
        .await
        .succeeds()
        .says("in 1 units")
        .done();
    let mut nodes = Vec::new();
    for claim in ["data", "logs"] {
        let volume = w.pv_of(claim).await;
        let rule = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
        nodes.push(volume.pointer(rule).and_then(|node| node.as_str()).unwrap().to_owned());
    }
    assert_eq!(nodes[0], nodes[1]);
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(exclusive a_disk_is_copied_where_it_is_attached, async |w: &World| {
    let (a, b) = (w.class("disk-a").await, w.class("disk-b").await);
    w.exercise_statefulset("db", 1, &a, "32Mi", opts().node("node2")).await;
    w.ready("StatefulSet", "db").await;
    w.attach_delay(8);
    let image = w.image();
    let odd = "quotes \" ' $(x)\nnew line é";
    w.patch("pvc", "data-db-0", json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"odd/note": odd}}})).await;
    w.pvmigrate(&["run", "sc-migrate", "--source-sc", &a, "--dest-sc", &b, "--yes", "--image", &image]).await.succeeds().done();
    let nodes: Vec<String> = w
        .events()
        .iter()
        .filter(|event| event["op"] == "run_copy_pod" && event["t"] == "done")
        .map(|event| event["out"]["node"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(nodes, ["node2", "node2", "node2"], "two hot passes and the final one");
    for event in w.list("Event").await {
        let text = event["message"].as_str().unwrap_or_default();
        assert!(!text.contains("Multi-Attach"), "{text}");
    }
    let claim = w.get("pvc", "data-db-0").await;
    assert_eq!(claim["metadata"]["annotations"]["odd/note"], odd);
    assert_eq!(claim["metadata"]["labels"]["team"], "shop");
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(a_site_script_has_options_of_its_own, async |w: &World| {
    let slow = w.class("slow").await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let file = w.dir().join("site.rhai");
    let text = r#"//! Label what uses the claims of a namespace.
let place = arg("in", #{ kind: "Namespace", required: true, help: "Namespace to look at" });
let label = arg("label", #{ fallback: "moved", help: "Label to set" });
let rows = parallel_map(list_pvcs(#{ namespace: place }), 2, |pvc| {
    for workload in users_of(pvc).workloads {
        patch_object(workload.kind, place, workload.name, #{ metadata: #{ labels: #{ site: label } } });
    }
    #{ claim: pvc.name, bytes: pvc.size_bytes }
});
table(rows, #{ columns: ["claim", "bytes"] });
"#;
    std::fs::write(&file, text).unwrap();
    let script = file.display().to_string();
    w.pvmigrate(&["run", &script, "--help"]).await.succeeds().says("--in <NAMESPACE>").says("[default: moved]").done();
    w.pvmigrate(&["run", &script, "--inn", &w.ns]).await.exits(2).says("--in").done();
    w.pvmigrate(&["run", &script, "--in", &w.ns, "--label", "x1"]).await.succeeds().says("67108864").done();
    assert_eq!(w.get("Deployment", "web").await["metadata"]["labels"]["site"], "x1");
    w.still_intact().await;
});
