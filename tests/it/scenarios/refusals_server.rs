//! What is refused because the server would: rights, quotas, limits. It is asked before anything is changed.

use super::refused::tells_exactly;
use super::shop::{freeze_at, is, shop, thaw};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

cluster_test!(all_missing_rights_are_named_at_once_and_those_suffice, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    // Just enough to see what there is, and to change nothing.
    let lists = |group: &str, resources: &[&str]| rule(group, resources, &["list"]);
    let rules = json!([
        lists("", &["persistentvolumes", "persistentvolumeclaims", "pods", "replicationcontrollers"]),
        lists("apps", &["deployments", "statefulsets", "daemonsets", "replicasets"]),
        lists("batch", &["jobs", "cronjobs"]),
        lists("autoscaling", &["horizontalpodautoscalers"]),
        rule("storage.k8s.io", &["storageclasses"], &["get"]),
        rule("", &["namespaces"], &["get"]),
    ]);
    let user = w.limited_user(rules).await;
    let before = w.picture().await;
    let refused = w.pvmigrate(&shop.args(&["--set-defaults", "--output", "json"])).kubeconfig(&user).await.exits(3);
    let rows: Value = serde_json::from_str(&refused.stdout).expect("it is JSON");
    let mut granted = Vec::new();
    for row in rows.as_array().expect("it is a list") {
        let (verb, resource) =
            row["object"].as_str().and_then(|object| object.split_once(' ')).expect("a verb and a kind");
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        assert!(
            row["reason"].as_str().is_some_and(|reason| reason.contains(&format!("we may not {verb} {resource}"))),
            "{row}"
        );
        let ask =
            row["hint"].as_str().and_then(|hint| hint.strip_suffix(" must say yes")).expect("it says what to type");
        let typed: Vec<&str> = ask.split_whitespace().skip(1).collect();
        assert!(!w.kubectl(&user, &typed).await, "{ask}");
        granted.push(rule(group, &[plural], &[verb]));
    }
    for right in [
        "patch persistentvolumes",
        "create pods",
        "get pods/log",
        "delete persistentvolumeclaims",
        "patch storageclasses.storage.k8s.io",
        "patch deployments.apps",
    ] {
        assert!(rows.as_array().expect("it is a list").iter().any(|row| row["object"] == right), "{right}: {rows:#}");
    }
    refused.says("nothing was changed").done();
    w.unchanged_since(&before).await;

    // The rights that were named, and not one more.
    w.grant(&user, json!(granted)).await;
    w.pvmigrate(&shop.args(&["--set-defaults"])).kubeconfig(&user).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(quotas_and_limits_are_met_before_anything_is_changed, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let rooms = [w.extra_namespace().await, w.extra_namespace().await, w.extra_namespace().await];
    let [classes, both, limits] = &rooms;
    let mut claims = Vec::new();
    for (ns, claim) in [(classes, "data"), (both, "data"), (both, "logs"), (limits, "data"), (&w.ns, "data")] {
        claims.push(format!("{ns}/{claim}"));
        w.claim(&format!("{ns}/{claim}"), &slow, "32Mi", &["ReadWriteOnce"]).await;
    }
    for claim in &claims {
        w.ready("pvc", claim).await;
    }
    w.exercise_deployment(&format!("{both}/web"), 1, &[("data", "data"), ("logs", "logs")], opts()).await;
    w.ready("Deployment", &format!("{both}/web")).await;
    let quota = async |ns: &str, hard: Value| {
        let meta = json!({"name": "room", "namespace": ns});
        w.apply(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})).await;
        let name = format!("{ns}/room");
        let counted = async || w.get("ResourceQuota", &name).await["status"]["used"].is_object().then_some(());
        w.until("the quota to be counted", LONG, counted).await;
    };
    let none_of_fast = format!("{fast}.storageclass.storage.k8s.io/persistentvolumeclaims");
    quota(classes, json!({none_of_fast.as_str(): "0"})).await;
    // Room for either target, not for both.
    quota(both, json!({"persistentvolumeclaims": "3", "requests.storage": "1Gi"})).await;
    let limit = json!([{"type": "PersistentVolumeClaim", "max": {"storage": "40Mi"}}, {"type": "Container", "max": {"memory": "1Mi"}}]);
    let meta = json!({"name": "small", "namespace": limits});
    w.apply(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limit}})).await;

    let before = w.picture().await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    let refused = w.pvmigrate(&[&words[..], &["--dest-size", "64Mi", "--output", "json"]].concat()).await.exits(3);
    tells_exactly(
        &refused,
        &[
            (format!("PersistentVolumeClaim:{classes}/data"), "exceeded quota: room"),
            (
                format!("ResourceQuota:{both}/room"),
                "the 2 target claims need 2 of persistentvolumeclaims at once, and 1 is left",
            ),
            (format!("PersistentVolumeClaim:{limits}/data"), "maximum storage usage per PersistentVolumeClaim is 40Mi"),
            (format!("Namespace:{limits}"), "maximum memory usage per Container is 1Mi"),
        ],
    );
    refused
        .says("raise the quota")
        .says("--exclude NS/NAME")
        .says("--pod-patch FILE")
        .says("nothing was changed")
        .done();
    w.unchanged_since(&before).await;

    // With room for both, and the others left out by name, these are moved.
    w.patch("ResourceQuota", &format!("{both}/room"), json!({"spec": {"hard": {"persistentvolumeclaims": "4"}}})).await;
    let roomy = async || {
        (w.get("ResourceQuota", &format!("{both}/room")).await["status"]["hard"]["persistentvolumeclaims"] == "4")
            .then_some(())
    };
    w.until("the quota to be raised", LONG, roomy).await;
    let out = ["--exclude-namespace", classes, "--exclude", &format!("{limits}/data")];
    w.pvmigrate(&[&words[..], &out].concat()).await.succeeds().done();
    for claim in &claims {
        let stays = claim.starts_with(classes.as_str()) || claim.starts_with(limits.as_str());
        let want = if stays { &slow } else { &fast };
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], want.as_str(), "{claim}");
    }
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(a_namespace_that_goes_and_names_that_are_not_there_are_told, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let going = w.extra_namespace().await;
    let (data, logs) = (format!("{going}/data"), "logs");
    for claim in [&data, logs] {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
        w.ready("pvc", claim).await;
    }
    let held = json!(["kubernetes.io/pvc-protection", "backup.example/hold"]);
    w.patch("pvc", &data, json!({"metadata": {"finalizers": held}})).await;
    w.delete("Namespace", &going).await;
    let asked = async || w.get("pvc", &data).await["metadata"]["deletionTimestamp"].is_string().then_some(());
    w.until("the claim to be asked to go", LONG, asked).await;
    // What else is in that namespace goes meanwhile.
    let before = (w.get("pvc", &data).await, w.pv_of(&data).await, w.get("pvc", logs).await, w.pv_of(logs).await);
    let unchanged = async || {
        let now = (w.get("pvc", &data).await, w.pv_of(&data).await, w.get("pvc", logs).await, w.pv_of(logs).await);
        assert_eq!(now, before);
    };
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    let refused = w.pvmigrate(&[&words[..], &["--output", "json"]].concat()).await.exits(3);
    let claim = format!("PersistentVolumeClaim:{data}");
    tells_exactly(
        &refused,
        &[
            (format!("Namespace:{going}"), "the namespace is being deleted"),
            (format!("Namespace:{going}"), "the copy pod would be refused"),
            (claim.clone(), "the target claim would be refused"),
            (claim.clone(), "it is being deleted"),
            (claim, "it has the finalizer `backup.example/hold`"),
        ],
    );
    refused.says("--exclude-namespace").says("nothing was changed").done();
    unchanged().await;
    // A slip of the pen in what is to be left alone must not move it.
    for (options, text) in [
        (["--exclude", &format!("{}/log", w.ns)], format!("there is no claim {}/log to leave out", w.ns)),
        (["--exclude-namespace", "no-such-place"], "there is no namespace no-such-place".to_owned()),
        (["--namespace", "no-such-place"], "there is no namespace no-such-place".to_owned()),
        (["--pvc", &format!("{}/log", w.ns)], format!("claim {}/log is not a bound claim of the class", w.ns)),
    ] {
        w.pvmigrate(&[&words[..], &options].concat()).await.exits(3).says(&text).says("hint: see: ").done();
        unchanged().await;
    }
});

// The server counts a claim that is gone for a moment longer, and other claims want the same room.
cluster_test!(a_full_quota_is_waited_for_in_the_midst_of_a_swap, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let hard = |claims: &str| json!({"spec": {"hard": {"persistentvolumeclaims": claims}}});
    let mut quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"}});
    json_patch::merge(&mut quota, &hard("2"));
    w.apply(quota).await;
    let used = async |claims: &str| {
        let used = async || {
            (w.get("ResourceQuota", "room").await["status"]["used"]["persistentvolumeclaims"] == claims).then_some(())
        };
        w.until(&format!("{claims} claims to be counted"), LONG, used).await;
    };
    used("1").await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "done", ".delete-original")).await;
    w.gone("pvc", "data").await;
    used("1").await;
    w.claim("other", &shop.to, "16Mi", &["ReadWriteOnce"]).await;
    used("2").await;
    assert!(w.find("pvc", "data").await.is_none(), "it was frozen too late");
    thaw(&run);
    let told = async || run.said().contains("exceeded quota: room").then_some(());
    w.until("the quota to be told of", LONG, told).await;
    assert!(!run.has_ended(), "{}", run.said());
    assert!(w.find("pvc", "data").await.is_none());
    w.delete("pvc", "other").await;
    run.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(units_wait_for_room_in_their_quota, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    let claims = ["a", "b", "c"];
    for claim in claims {
        w.claim(claim, &slow, "16Mi", &["ReadWriteOnce"]).await;
        w.ready("pvc", claim).await;
    }
    let hard = json!({"persistentvolumeclaims": "4"});
    w.apply(
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"}, "spec": {"hard": &hard}}),
    )
    .await;
    let counted = async |part: &str, claims: &str| {
        let is_so = async || {
            (w.get("ResourceQuota", "room").await["status"][part]["persistentvolumeclaims"] == claims).then_some(())
        };
        w.until("the quota to be counted", LONG, is_so).await;
    };
    counted("used", "3").await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    // Three at once, with room for one target: until it is told that they wait not even for the second step of that one.
    let mut run = w.start(&words);
    freeze_at(&mut run, |event| event["t"] == "done" && event["op"] == "create_pvc").await;
    w.patch("ResourceQuota", "room", json!({"spec": {"hard": {"persistentvolumeclaims": "3"}}})).await;
    counted("hard", "3").await;
    thaw(&run);
    let told = async || run.said().contains("exceeded quota: room").then_some(());
    w.until("the quota to be told of", LONG, told).await;
    w.patch("ResourceQuota", "room", json!({"spec": {"hard": hard}})).await;
    run.wait().await.succeeds().done();
    for claim in claims {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], fast.as_str(), "{claim}");
    }
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
