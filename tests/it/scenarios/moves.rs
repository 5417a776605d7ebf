//! Whole moves from one class to another.

use super::shop::copy_pod;
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;

cluster_test!(a_statefulset_and_a_deployment_move_from_slow_to_fast, async |w: &World| {
    all_of_a_class(w, "slow", "fast").await;
});

cluster_test!(a_statefulset_and_a_deployment_move_from_disk_to_disk, async |w: &World| {
    all_of_a_class(w, "disk-a", "disk-b").await;
});

/// A StatefulSet of two and a Deployment: everything that people put on the claims is kept, and nothing of ours is left.
async fn all_of_a_class(w: &World, from: &str, to: &str) {
    let (from, to) = (w.class(from).await, w.class(to).await);
    let odd = "quotes \" ' $(x)\nnew line é";
    let marked = || opts().label("team", "shop").annotation("odd/note", odd);
    w.claim("data", &from, "32Mi", &["ReadWriteOnce"]).await;
    let marks = json!({"metadata": {"labels": {"team": "shop"}, "annotations": {"odd/note": odd}}});
    w.patch("pvc", "data", marks).await;
    w.exercise_deployment("web", 1, &[("data", "data")], marked()).await;
    w.exercise_statefulset("db", 2, &from, "32Mi", marked()).await;
    w.ready("Deployment", "web").await;
    w.ready("StatefulSet", "db").await;
    let claims = ["data", "data-db-0", "data-db-1"];
    let mut sources = Vec::new();
    for claim in claims {
        sources.push(w.pv_of(claim).await);
    }
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &from, "--dest-sc", &to, "--yes", "--image", &image];
    let moved = w.pvmigrate(&words).await.succeeds();
    for (claim, source) in claims.into_iter().zip(&sources) {
        let (now, volume) = (w.get("pvc", claim).await, w.pv_of(claim).await);
        assert_eq!(now["spec"]["storageClassName"], to.as_str());
        assert_eq!(now["metadata"]["labels"]["team"], "shop", "{claim}");
        assert_eq!(now["metadata"]["annotations"]["odd/note"], odd, "{claim}");
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        let name = source["metadata"]["name"].as_str().unwrap();
        assert!(moved.stdout.contains(claim) && moved.stdout.contains(name), "{}", moved.stdout);
        let kept = w.get("pv", name).await;
        assert_eq!(kept["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(kept["status"]["phase"], "Released");
    }
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 1);
    assert_eq!(w.get("StatefulSet", "db").await["spec"]["replicas"], 2);
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
}

cluster_test!(a_device_moves_from_block_to_block, async |w: &World| {
    let (a, b) = (w.class("block-a").await, w.class("block-b").await);
    w.device_claim("data", &a, "64Mi").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().on_devices()).await;
    w.ready("Deployment", "web").await;
    let source = w.pv_of("data").await;
    // What was on the target's disks before: it must be gone where the source has zeros.
    for volume in w.list("pv").await.iter().filter(|volume| volume["spec"]["storageClassName"] == b) {
        let device = w.volume_dir(volume).expect("a device is a path");
        let file = std::fs::File::options().write(true).open(device).expect("it can be opened");
        file.write_all_at(&[7; 300_000], 40 << 20).and_then(|()| file.sync_all()).expect("it can be written");
    }
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &a, "--dest-sc", &b, "--yes", "--image", &image];
    let moved = w.pvmigrate(&words).await.succeeds();
    assert!(moved.stderr.contains("of 64 MiB in"), "{}", moved.stderr);
    let (claim, target) = (w.get("pvc", "data").await, w.pv_of("data").await);
    assert_eq!((&claim["spec"]["storageClassName"], &claim["spec"]["volumeMode"]), (&json!(b), &json!("Block")));
    assert_ne!(target["metadata"]["name"], source["metadata"]["name"]);
    w.still_intact().await;
    w.stop_workload("Deployment", "web").await;
    w.check_writer("data", "web", "data", "web").await;
    // It went on after the move, so the two differ by now; but beyond what it writes they do not.
    let [was, is] = [&source, &target].map(|volume| std::fs::read(w.volume_dir(volume).unwrap()).unwrap());
    assert_eq!(was.len(), is.len());
    assert!(is[40 << 20..][..300_000].iter().filter(|byte| **byte == 7).count() < 50_000, "the old bytes are there");
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(lab "the real one's provisioner makes no devices" a_device_is_killed_resumed_and_taken_back, async |w: &World| {
    let (a, b) = (w.class("disk-a").await, w.class("disk-b").await);
    w.device_claim("data", &a, "64Mi").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().on_devices()).await;
    w.ready("Deployment", "web").await;
    let source = w.pv_of("data").await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &a, "--dest-sc", &b, "--yes", "--image", &image];
    for verify in ["full", "changed"] {
        let mut run = w.start(&[&words[..], &["--verify", verify]].concat());
        copy_pod(&mut run, "final").await;
        run.kill9();
        w.pvmigrate(&["resume"]).await.succeeds().done();
        assert_eq!(w.get("pvc", "data").await["spec"]["storageClassName"], b.as_str());
        w.still_intact().await;
        let back = ["rollback", &w.run_id(), "--reverse-sync", "--yes"];
        w.pvmigrate(&back).await.succeeds().says("is taken back").done();
        let claim = w.get("pvc", "data").await;
        assert_eq!((&claim["spec"]["volumeName"], &claim["spec"]["volumeMode"]), (&source["metadata"]["name"], &json!("Block")));
        w.still_intact().await;
    }
    w.stop_workload("Deployment", "web").await;
    w.check_writer("data", "web", "data", "web").await;
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
    let run = ["run", "sc-migrate", "--source-sc", &a, "--dest-sc", &b, "--yes", "--image", &image, "--hot-passes", "1"];
    w.pvmigrate(&run).await.succeeds().done();
    let nodes: Vec<String> = w
        .events()
        .iter()
        .filter(|event| event["op"] == "run_copy_pod" && event["t"] == "done")
        .map(|event| event["out"]["node"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(nodes, ["node2", "node2"], "the hot pass and the final one");
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

cluster_test!(an_empty_volume_is_moved_like_any_other, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "16Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "data").await;
    let image = w.image();
    let words =
        ["run", "sc-migrate", "--source-sc", &from, "--dest-sc", &to, "--image", &image, "--yes", "--output", "json"];
    let moved = w.pvmigrate(&words).await.succeeds();
    let rows: Value = serde_json::from_str(&moved.stdout).expect("stdout is one JSON value");
    assert_eq!((&rows[0]["files"], &rows[0]["verified"]), (&0.into(), &"full".into()), "{rows}");
    assert_eq!(w.pv_of("data").await["spec"]["storageClassName"], to.as_str());
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
