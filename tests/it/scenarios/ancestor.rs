//! The fifteen known bugs of the ancestor (replicatedhq/pvmigrate), each under its name. A5, A8 and A10 have a part that
//! a unit test proves better: `guard::tests::thief_then_policy_reset`, `copy::run::tests::copy_pod_failed_before_logs`.

use super::shop::{Shop, copy_pod, count, freeze_at, id, is, open, part, shop, thaw};
use crate::world::{World, cluster_test, opts};
use serde_json::{Value, json};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);

/// Kills at an event, before another one came, and resumes.
async fn crash(w: &World, shop: &Shop<'_>, at: impl Fn(&Value) -> bool, not_yet: impl Fn(&Value, &Value) -> bool) {
    let mut run = shop.start(&[]);
    let at = run.wait_for_event(at).await;
    run.kill9();
    assert_eq!(count(&w.events(), |event| not_yet(&at, event)), 0, "the kill came too late");
    w.pvmigrate(&["resume"]).await.succeeds().done();
}

// A1. The second protection would read Retain as the policy from before.
cluster_test!(crash_between_retain_writes, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    assert_eq!(shop.source["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let retained = |event: &Value| is(event, "done", ".retain");
    crash(w, &shop, retained, |at, event| retained(event) && id(event) != id(at)).await;
    shop.has_moved().await;
    assert_eq!(w.pv_of("data").await["spec"]["persistentVolumeReclaimPolicy"], "Delete");
});

// A2. Nothing at all could be migrated any more once one claim was gone.
cluster_test!(crash_after_src_claim_delete, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "logs"] {
        w.claim(claim, &from, "64Mi", &["ReadWriteOnce"]).await;
    }
    w.ready("pvc", "logs").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, from, to).await;
    let deleted = |event: &Value| is(event, "done", ".delete-original") && id(event).contains("/data/");
    crash(w, &shop, deleted, |at, event| is(event, "done", &part(at, "create"))).await;
    shop.has_moved().await;
    assert_eq!(w.get("pvc", "logs").await["spec"]["storageClassName"], shop.to.as_str());
});

// A3. A volume whose claimRef had been touched was not recognised any more.
cluster_test!(crash_after_claimref_clear, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let reserved = |event: &Value| is(event, "done", ".reserve");
    crash(w, &shop, reserved, |at, event| is(event, "done", &part(at, "delete-original"))).await;
    shop.has_moved().await;
});

// A4. While the process is dead, in the midst of the swap, others have all the time in the world.
cluster_test!(thief_claim, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let deleted = run.wait_for_event(|event| is(event, "done", ".delete-original")).await;
    run.kill9();
    assert_eq!(count(&w.events(), |event| is(event, "done", &part(&deleted, "create"))), 0, "the kill came too late");
    w.gone("pvc", "data").await;
    let reserved = w.events().into_iter().find(|event| is(event, "done", ".reserve")).expect("it was reserved");
    let target = reserved["out"]["metadata"]["name"].as_str().expect("a volume has a name").to_owned();
    let source = shop.source["metadata"]["name"].as_str().expect("a volume has a name");
    let thieves = [("thief-a", source, &shop.from), ("thief-b", &target, &shop.to)];
    for (name, volume, class) in thieves {
        let resources = json!({"requests": {"storage": "64Mi"}});
        let spec = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": resources, "volumeName": volume});
        let meta = json!({"name": name});
        w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})).await;
    }
    let tries = async || {
        for (name, ..) in thieves {
            w.patch("pvc", name, json!({"metadata": {"annotations": {"tried": "again"}}})).await;
            let events = w.list("Event").await;
            // Kubernetes has looked at the volume, and said no.
            if !events.iter().any(|event| event["involvedObject"]["name"] == name) {
                return None;
            }
        }
        Some(())
    };
    w.until("Kubernetes to answer the thieves", LONG, tries).await;
    w.pvmigrate(&["resume", "--yes"]).await.succeeds().done();
    for (name, ..) in thieves {
        assert_eq!(w.get("pvc", name).await["status"]["phase"], "Pending");
    }
    shop.has_moved().await;
});

// A6. The source, object and bytes, is there after the move.
cluster_test!(no_source_delete_by_default, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", |volume| std::fs::write(volume.join("precious"), "x").unwrap()).await;
    let done = w.pvmigrate(&shop.args(&[])).await.succeeds();
    done.says(&w.handle_of(&shop.source)).done();
    shop.has_moved().await;
    assert!(w.digest_of_pv(&shop.source).paths().contains(&"precious"));
    assert_eq!(
        count(&w.events(), |event| event["write"]["verb"] == "delete"
            && event["write"]["gvk"]["kind"] == "PersistentVolume"),
        0
    );
});

// A7. A volume that was made by hand and bound by name has no annotations at all.
cluster_test!(pv_without_annotations, async |w: &World| {
    let from = format!("{}-from", w.ns);
    w.apply(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": from},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate",
    }))
    .await;
    let volume = w.local_volume(&from, "node1", "64Mi").await;
    w.patch("pv", &volume, json!({"spec": {"claimRef": {"namespace": w.ns, "name": "data"}}})).await;
    let resources = json!({"requests": {"storage": "64Mi"}});
    let spec = json!({"storageClassName": from, "accessModes": ["ReadWriteOnce"], "resources": resources, "volumeName": volume});
    w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}))
        .await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().node("node1")).await;
    let to = w.class("fast").await;
    let shop = open(w, from, to).await;
    assert!(shop.source["metadata"]["annotations"].is_null(), "{}", shop.source);
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    shop.has_moved().await;
});

// A8. A copy pod that never says anything ends the run; it does not loop, and nothing was stopped for it.
cluster_test!(copy_pod_failed_before_logs, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let (from, to) = (shop.from.as_str(), shop.to.as_str());
    let args = ["run", "sc-migrate", "--source-sc", from, "--dest-sc", to, "--yes", "--image", "docker.io/e2e/tools:1"];
    w.pvmigrate(&args).limit(Duration::from_secs(100)).await.exits(4).says("pvmigrate").done();
    assert_eq!(count(&w.events(), |event| id(event).ends_with(".stop")), 0);
    shop.is_on_the_source().await;
});

// A9. A claim that could not go is found before it is deleted: a deletion cannot be taken back.
cluster_test!(pvc_stuck_terminating, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "done", ".stop")).await;
    let held = json!(["kubernetes.io/pvc-protection", "backup.example/hold"]);
    w.patch("pvc", "data", json!({"metadata": {"finalizers": held}})).await;
    thaw(&run);
    run.wait().await.exits(4).says("backup.example/hold").done();
    let claim = w.get("pvc", "data").await;
    assert!(claim["metadata"]["deletionTimestamp"].is_null());
    shop.is_on_the_source().await;
    w.patch("pvc", "data", json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}})).await;
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    shop.has_moved().await;
});

// A10. Clocks of servers are shown, never compared: what the server dates is not read at all.
#[test]
fn clock_skew_of_an_hour() {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut read = 0;
    while let Some(path) = open.pop() {
        // The lab is a server: it dates things.
        if path.ends_with("src/lab") {
            continue;
        }
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        read += 1;
        // A renewal is told from the one before it by its text; when a run began is shown to people.
        let fine = [("cluster/lease.rs", "renewTime"), ("store/runs.rs", "creationTimestamp")];
        for word in ["creationTimestamp", "startTime", "lastTransitionTime", "renewTime"] {
            let is_fine = fine.iter().any(|(file, of)| path.ends_with(file) && *of == word);
            let reads = !is_fine && text.contains(&format!("/{word}"));
            assert!(!reads, "{} reads {word}, a time of another clock", path.display());
        }
    }
    assert!(read > 30, "{read} files");
}

// A11. A workload that somebody made anew under the old name is not ours to stop.
cluster_test!(owner_recreated, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "hot").await;
    run.signal(rustix::process::Signal::STOP);
    w.delete("Deployment", "web").await;
    w.gone("Deployment", "web").await;
    w.gone_pods("web").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let anew = w.ready("Deployment", "web").await;
    thaw(&run);
    run.wait().await.exits(5).says("made anew").done();
    let now = w.get("Deployment", "web").await;
    assert_eq!(now["metadata"]["uid"], anew["metadata"]["uid"]);
    assert_eq!(now["metadata"]["generation"], anew["metadata"]["generation"]);
    shop.is_on_the_source().await;
});

// A12. What an annotation says about replicas is hearsay.
cluster_test!(foreign_scale_annotation, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let hearsay = json!({"metadata": {"annotations": {"pvmigrate.io/replicas": "7"}}});
    w.claim("logs", &shop.to, "32Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("bystander", 1, &[("logs", "logs")], opts()).await;
    w.patch("Deployment", "bystander", hearsay.clone()).await;
    w.patch("Deployment", "web", hearsay).await;
    let before = w.ready("Deployment", "bystander").await;
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    let after = w.get("Deployment", "bystander").await;
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(after["spec"], before["spec"]);
    w.delete("Deployment", "bystander").await;
    w.gone_pods("bystander").await;
    shop.has_moved().await;
});

// A13. Hard links, extended attributes, holes, owners by number, odd names.
cluster_test!(metadata_fidelity, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", odd).await;
    let before = w.digest("data").await.under("odd");
    assert!(before.files["odd/a"].links > 0 && !before.files["odd/a"].xattrs.is_empty());
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    assert_eq!(w.digest("data").await.under("odd"), before);
    let blocks = w.in_volume("data", |volume| volume.join("odd/sparse").metadata().unwrap().blocks()).await;
    assert!(blocks * 512 < 1 << 20, "the hole was filled: {blocks} blocks");
    shop.has_moved().await;
});

fn odd(volume: &Path) {
    let dir = volume.join("odd");
    std::fs::create_dir(&dir).unwrap();
    let a = dir.join("a");
    std::fs::write(&a, "one").unwrap();
    std::fs::hard_link(&a, dir.join("b")).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", dir.join("link")).unwrap();
    std::fs::write(dir.join("-rf $(x)\n'\u{fc}"), "").unwrap();
    xattr::set(&a, "user.note", b"\0x").unwrap();
    std::os::unix::fs::chown(&a, Some(4_294_967_000), Some(12_345)).unwrap();
    let sparse = std::fs::File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 30 << 20).unwrap();
}

// A14. What people put on a claim stays on it.
cluster_test!(claim_metadata_preserved, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let owner = w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}})).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]});
    let notes = json!({"a.example/note": "it's \"$(x)\"\n\u{fc}", "b": ""});
    let labels = json!({"app": "web", "tier": ""});
    w.patch("pvc", "data", json!({"metadata": {"labels": labels, "annotations": notes, "ownerReferences": [owner]}}))
        .await;
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    let meta = w.get("pvc", "data").await["metadata"].clone();
    assert_eq!(meta["labels"], labels);
    for (key, value) in notes.as_object().expect("it is a map") {
        assert_eq!(meta["annotations"][key], *value, "{key}");
    }
    let kept = &meta["ownerReferences"][0];
    assert_eq!((&kept["name"], &kept["uid"]), (&owner["name"], &owner["uid"]));
    shop.has_moved().await;
});

// A15. A pod of the same name that is somebody else's is left alone.
cluster_test!(pod_name_reuse, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let (pod, _) = copy_pod(&mut run, "hot").await;
    run.signal(rustix::process::Signal::STOP);
    w.delete("Pod", &pod).await;
    w.gone("Pod", &pod).await;
    let container = json!({
        "name": "c", "image": "docker.io/e2e/tools:1", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
    });
    let spec =
        json!({"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false, "containers": [container]});
    let theirs = w.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec})).await;
    thaw(&run);
    let outcome = run.wait().await;
    let now = w.get("Pod", &pod).await;
    assert_eq!(now["metadata"]["uid"], theirs["metadata"]["uid"]);
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "somebody else's pod was deleted: {outcome}");
    outcome.succeeds().done();
    w.delete("Pod", &pod).await;
    w.gone("Pod", &pod).await;
    shop.has_moved().await;
});
