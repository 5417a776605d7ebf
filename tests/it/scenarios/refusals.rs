//! What is refused before the first change, all at once, with nothing changed.

use crate::world::{World, cluster_test, opts};
use serde_json::json;

cluster_test!(every_obstacle_is_named_at_once_and_nothing_is_changed, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let pod = |claim: &str| {
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "docker.io/e2e/tools:1", "command": ["sleep", "1000"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}], "terminationGracePeriodSeconds": 0})
    };
    let template = |claim: &str| json!({"metadata": {"labels": {"app": claim}}, "spec": pod(claim)});
    for claim in ["alone", "daemons", "job", "flux", "good"] {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
    }
    let object = |kind: &str, api: &str, spec: serde_json::Value, name: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": w.ns}, "spec": spec});
    w.apply(object("Pod", "v1", pod("alone"), "lone")).await;
    let mut daemons = template("daemons");
    daemons["spec"]["restartPolicy"] = json!("Always");
    let selector = json!({"matchLabels": {"app": "daemons"}});
    w.apply(object("DaemonSet", "apps/v1", json!({"selector": selector, "template": daemons}), "daemons")).await;
    w.apply(object("Job", "batch/v1", json!({"template": template("job")}), "job")).await;
    w.patch("pvc", "flux", json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}})).await;
    w.exercise_deployment("web", 1, &[("data", "good")], opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("Pod", "lone").await;
    w.ready("DaemonSet", "daemons").await;
    let pods = w.list("Pod").await;
    let of_job = pods.iter().find(|pod| pod["metadata"]["labels"]["job-name"] == "job").expect("the Job has a pod");
    w.ready("Pod", of_job["metadata"]["name"].as_str().expect("a pod has a name")).await;
    let before = w.picture().await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    w.pvmigrate(&words)
        .await
        .exits(3)
        .says("a pod without a controller")
        .says("DaemonSets cannot be stopped yet")
        .says("Jobs cannot be stopped yet")
        .says("Flux reconciles it (Kustomization `apps`)")
        .says("--exclude NS/NAME")
        .says("--on-refusal skip")
        .says("nothing was changed")
        .done();
    w.unchanged_since(&before).await;
    // Nobody is there to be asked, and nobody said yes.
    w.pvmigrate(&[&words[..8], &["--on-refusal", "skip"]].concat()).await.exits(3).says("--yes").done();
    w.unchanged_since(&before).await;
    w.pvmigrate(&[&words[..], &["--on-refusal", "skip"]].concat())
        .await
        .succeeds()
        .says("4 of 5 units are skipped")
        .done();
    assert_eq!(w.get("pvc", "good").await["spec"]["storageClassName"], fast.as_str());
    assert_eq!(w.get("pvc", "alone").await["spec"]["storageClassName"], slow.as_str());
    w.still_intact().await;
});
