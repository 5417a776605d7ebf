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

cluster_test!(a_user_without_the_rights_and_a_wrong_class_change_nothing, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &slow, "16Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let reads = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
    let user = w.limited_user(reads).await;
    let before = w.picture().await;
    let image = w.image();
    let words = |from: &str, to: &str| {
        ["run", "sc-migrate", "--source-sc", from, "--dest-sc", to, "--image", &image, "--yes"].map(str::to_owned)
    };
    let run = async |words: &[String]| w.pvmigrate(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let limited = words(&slow, &fast);
    let limited: Vec<&str> = limited.iter().map(String::as_str).collect();
    let refused = w.pvmigrate(&limited).kubeconfig(&user).await.exits(3);
    let refused = refused.says("we may not patch persistentvolumes in the cluster").says("we may not create pods");
    let refused = refused.says("we may not delete persistentvolumeclaims").says("we may not patch deployments.apps");
    refused.says("kubectl auth can-i").says("nothing was changed").done();
    run(&words(&slow, &slow)).await.exits(2).says("the same class").says("--dest-sc").done();
    let unknown = fast.replace("fast", "fats");
    run(&words(&slow, &unknown)).await.exits(3).says(&format!("did you mean `{fast}`?")).done();
    run(&words("no-such", &fast)).await.exits(3).says("there is no StorageClass `no-such`").done();
    w.unchanged_since(&before).await;
});

cluster_test!(only_the_claims_that_were_asked_for_are_planned, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let other = w.extra_namespace().await;
    for claim in ["a", "b", "c", &format!("{other}/d")] {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
    }
    for claim in ["a", "b", "c", &format!("{other}/d")] {
        w.ready("pvc", claim).await;
    }
    w.patch("pvc", "b", json!({"metadata": {"labels": {"tier": "gold"}}})).await;
    w.patch("pvc", &format!("{other}/d"), json!({"metadata": {"labels": {"tier": "gold"}}})).await;
    let before = w.picture().await;
    let (image, ns) = (w.image(), &w.ns);
    let full: Vec<String> =
        ["a", "b", "c"].map(|name| format!("{ns}/{name}")).into_iter().chain([format!("{other}/d")]).collect();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image];
    for (options, planned) in [
        (vec![], "abcd"),
        (vec!["--namespace", ns], "abc"),
        (vec!["--exclude-namespace", ns], "d"),
        (vec!["--selector", "tier=gold"], "bd"),
        (vec!["--selector", "tier=gold", "--namespace", &other], "d"),
        (vec!["--pvc", &full[0], "--pvc", &full[3]], "ad"),
        (vec!["--exclude", &full[0], "--exclude", &full[3]], "bc"),
    ] {
        // Nobody is there to be asked: the plan is shown, and that is all.
        let mut outcome = w.pvmigrate(&[&words[..], &options].concat()).await.exits(3).says("--yes");
        outcome = outcome.says(&format!("move {} claims", planned.len()));
        for (claim, letter) in full.iter().zip(["a", "b", "c", "d"]) {
            let line = format!("  {claim}  ");
            outcome = if planned.contains(letter) { outcome.says(&line) } else { outcome.does_not_say(&line) };
        }
    }
    w.pvmigrate(&[&words[..], &["--pvc", &format!("{ns}/nothing")]].concat()).await.exits(3).says("nothing").done();
    w.unchanged_since(&before).await;
});
