//! The harness itself, on the real cluster: it must be true before anything is proved with it.

use crate::world::{World, cluster_test, opts};
use serde_json::json;
use std::time::Duration;

cluster_test!(an_empty_world_comes_and_goes, async |_: &World| {});

cluster_test!(a_deployment_on_a_cloned_class_writes, async |w: &World| {
    let slow = w.class("slow").await;
    assert_eq!(slow, w.class("slow").await);
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    w.still_intact().await;
});

cluster_test!(what_is_in_a_disk_can_be_seen, async |w: &World| {
    let class = w.class("disk-b").await;
    w.exercise_statefulset("db", 1, &class, "32Mi", opts().node("node2").fs_group(2000).run_as(1000)).await;
    w.ready("StatefulSet", "db").await;
    w.still_intact().await;
    let pv = w.pv_of("data-db-0").await;
    assert_eq!(w.attached_to(&pv).as_deref(), Some("node2"));
    assert!(w.digest("data-db-0").await.files.contains_key("db-0/lines"));
    w.scale("StatefulSet", "db", 0).await;
    w.gone("Pod", "db-0").await;
    let at_rest = w.digest("data-db-0").await;
    assert!(at_rest.files["db-0/lines"].size > 0);
    assert_eq!(at_rest, w.digest("data-db-0").await);
});

cluster_test!(a_local_class_has_volumes_of_its_own, async |w: &World| {
    let local = w.class("local").await;
    w.exercise_statefulset("db", 1, &local, "1Gi", opts().node("node1")).await;
    w.ready("StatefulSet", "db").await;
    let pv = w.pv_of("data-db-0").await;
    let dir = w.volume_dir(&pv).expect("a local volume has a directory");
    assert!(dir.starts_with(w.dir()), "{}", dir.display());
    w.still_intact().await;
});

cluster_test!(a_limited_user_may_do_what_was_granted, async |w: &World| {
    let reads = json!([{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list"]}]);
    let kubeconfig = w.limited_user(reads).await;
    let kubectl = async |args: &[&str]| w.kubectl(&kubeconfig, args).await;
    assert!(kubectl(&["get", "pvc"]).await);
    assert!(!kubectl(&["get", "pods"]).await);
    w.grant(&kubeconfig, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])).await;
    assert!(kubectl(&["get", "pods"]).await);
    assert!(kubectl(&["get", "pvc"]).await);
    assert!(!kubectl(&["get", "secrets"]).await);
});

cluster_test!(a_picture_shows_only_what_changed, async |w: &World| {
    let slow = w.class_with("slow", json!({"reclaimPolicy": "Retain"})).await;
    w.claim("data", &slow, "64Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "data").await;
    let before = w.picture().await;
    w.unchanged_since(&before).await;
    assert!(w.leftovers().await.is_empty());
    let mark = json!({"metadata": {"annotations": {"pvmigrate.io/run": "x"}}});
    w.patch("pvc", "data", mark).await;
    assert_eq!(before.changes(&w.picture().await).len(), 1);
    assert_eq!(w.leftovers().await.len(), 1);
    assert_eq!(w.pv_of("data").await["spec"]["persistentVolumeReclaimPolicy"], "Retain");
});

cluster_test!(exclusive the_api_server_comes_back, async |w: &World| {
    w.restart_apiserver().await;
    w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})).await;
    let found = async || w.find("ConfigMap", "c").await;
    assert_eq!(w.until("the object", Duration::from_secs(10), found).await["data"]["a"], "b");
});

cluster_test!(what_fails_without_last_words_may_be_told_by_its_output, async |w: &World| {
    let container = |policy: &str| {
        json!({"name": policy.to_lowercase(), "image": w.image(), "imagePullPolicy": "IfNotPresent", "command": ["pvmigrate"],
            "args": ["agent", "--nonsense"], "terminationMessagePolicy": policy})
    };
    w.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "restartPolicy": "Never", "containers": [container("File"), container("FallbackToLogsOnError")]}}))
        .await;
    let ended = async || {
        let pod = w.get("Pod", "p").await;
        (pod["status"]["phase"] == "Failed").then(|| pod["status"]["containerStatuses"].clone())
    };
    let ended = w.until("both to fail", Duration::from_secs(60), ended).await;
    let said = |name: &str| {
        let one = ended.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(one["state"]["terminated"]["exitCode"], 2);
        one["state"]["terminated"]["message"].as_str().map(str::to_owned)
    };
    assert_eq!(said("file"), None);
    let tail = said("fallbacktologsonerror").unwrap();
    assert!(tail.contains("unexpected argument '--nonsense'"), "{tail}");
});
