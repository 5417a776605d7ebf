//! What the options of sc-migrate promise.

use super::shop::{asks_for, asks_for_copy, copy_pod, count, freeze_at, id, open, shop, thaw};
use crate::world::{World, cluster_test, opts};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

fn policy(volume: &Value) -> &str {
    volume["spec"]["persistentVolumeReclaimPolicy"].as_str().unwrap_or_default()
}

cluster_test!(two_deployments_on_one_claim_are_stopped_and_started_together, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.claim("shared", &slow, "32Mi", &["ReadWriteMany"]).await;
    for name in ["one", "two"] {
        w.exercise_deployment(name, 1, &[("data", "shared")], opts()).await;
        w.ready("Deployment", name).await;
    }
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    let moved = w.pvmigrate(&[&words[..], &["--output", "json"]].concat()).await.succeeds();
    let moved = moved.says("in 1 units").says("stops Deployment one, Deployment two");
    let rows: Value = serde_json::from_str(&moved.stdout).expect("stdout is one JSON value");
    let row = &rows[0];
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert_eq!(row["claim"], format!("{}/shared", w.ns));
    assert!(row["files"].as_u64().is_some_and(|files| files > 0), "{row}");
    assert!(row["downtime_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row}");
    assert_eq!((&row["verified"], &row["source_kept"]), (&json!("full"), &json!(true)));
    // Neither runs while the other's last delta is copied: both stops come before the final pass, both starts after it.
    let events = w.events();
    let at = |label: &str| events.iter().position(|event| event["t"] == "start" && id(event).ends_with(label));
    let last = |label: &str| events.iter().rposition(|event| event["t"] == "start" && id(event).ends_with(label));
    let pass = events.iter().position(|event| asks_for_copy(event, "final"));
    assert!(last(".stop") < pass && pass < at(".start"), "{:?} {pass:?} {:?}", last(".stop"), at(".start"));
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(the_new_volume_is_of_the_size_mode_and_policy_that_were_asked_for, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class_with("fast", json!({"reclaimPolicy": "Retain"})).await);
    w.claim("data", &slow, "16Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.ready("Deployment", "web").await;
    let image = w.image();
    let patch = w.dir().join("patch.yaml");
    let patch_file = patch.display().to_string();
    let words = |from: &str, to: &str| {
        ["run", "sc-migrate", "--image", &image, "--yes", "--source-sc", from, "--dest-sc", to].map(str::to_owned)
    };
    let go = async |from: &str, to: &str, more: &[&str]| {
        let words = words(from, to);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        w.pvmigrate(&words).await
    };
    // A patch that reaches for the volumes is refused before anything happens.
    fs::write(&patch, "spec:\n  volumes: []\n").unwrap();
    let before = w.picture().await;
    go(&slow, &fast, &["--pod-patch", &patch_file])
        .await
        .exits(2)
        .says("the pod patch must not change the volumes")
        .done();
    w.unchanged_since(&before).await;

    let text = "metadata: {labels: {team: storage}}\nspec:\n  containers: [{resources: {limits: {memory: 2Gi}}}]\n";
    fs::write(&patch, text).unwrap();
    let options = ["--dest-reclaim", "original", "--dest-size", "48Mi", "--dest-access-mode", "ReadWriteMany"];
    let options = [&options[..], &["--pod-patch", &patch_file, "--verify", "changed", "--hot-passes", "1"]].concat();
    let moved = go(&slow, &fast, &options).await.succeeds();
    // What was different while it was in use makes the last comparison a full one: the row says what it was.
    let events = w.events();
    assert_eq!(count(&events, |event| asks_for(event, "verify", "hot")), 1);
    let last = events.iter().rfind(|event| asks_for_copy(event, "final"));
    let args = last.expect("it was copied")["write"]["body"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let mode = args.iter().position(|word| word == "--verify").and_then(|at| args[at + 1].as_str()).unwrap();
    let row = moved.stdout.lines().nth(1).expect("a row of the table");
    assert!(row.split_whitespace().any(|word| word == mode) && ["changed", "full"].contains(&mode), "{mode}: {row}");
    let (claim, volume) = (w.get("pvc", "data").await, w.pv_of("data").await);
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "48Mi");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    assert_eq!(policy(&volume), "Delete", "as the original's, though the class says Retain");
    let events = w.events();
    let copies: Vec<&Value> = events.iter().filter(|e| asks_for_copy(e, "hot") || asks_for_copy(e, "final")).collect();
    assert_eq!(copies.len(), 2);
    for event in copies {
        let pod = &event["write"]["body"];
        assert_eq!(pod["metadata"]["labels"]["team"], "storage");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["memory"], "2Gi");
    }

    // And back: the class says Delete, the volume Retain.
    let name = volume["metadata"]["name"].as_str().unwrap();
    w.patch("pv", name, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
    go(&fast, &slow, &["--dest-reclaim", "class", "--verify", "metadata", "--hot-passes", "0"]).await.succeeds().done();
    assert_eq!(policy(&w.pv_of("data").await), "Delete");
    assert_eq!(w.get("pvc", "data").await["spec"]["accessModes"], json!(["ReadWriteMany"]));
    let events = w.events();
    assert_eq!(count(&events, |event| asks_for_copy(event, "hot")), 0);
    assert_eq!(count(&events, |event| asks_for_copy(event, "final")), 1);
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(exclusive the_default_class_follows_and_old_templates_are_named, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    w.exercise_statefulset("db", 1, &slow, "16Mi", opts()).await;
    w.ready("StatefulSet", "db").await;
    w.set_default_class(&slow).await;
    let image = w.image();
    let words = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes"];
    w.pvmigrate(&[&words[..], &["--set-defaults", "--templates", "print"]].concat())
        .await
        .succeeds()
        .says(&format!("{fast} is the default class now"))
        .says(&format!("the claim template data of StatefulSet {}/db still names {slow}", w.ns))
        .says("--cascade=orphan")
        .done();
    let defaults: Vec<Value> = w.list("StorageClass").await;
    let is_default = |class: &&Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    let defaults: Vec<&Value> = defaults.iter().filter(is_default).map(|class| &class["metadata"]["name"]).collect();
    assert_eq!(defaults, [&json!(fast)]);
    w.still_intact().await;
});

cluster_test!(a_last_copy_that_takes_too_long_gives_the_source_back, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&["--max-downtime", "3"]);
    freeze_at(&mut run, |event| asks_for_copy(event, "final")).await;
    let since = Instant::now();
    let late = async || (since.elapsed() > Duration::from_millis(4200)).then_some(());
    w.until("the last copy to be late", Duration::from_secs(10), late).await;
    thaw(&run);
    let late = run.wait().await.exits(4);
    late.says("took longer than 3 s").says("started again on the source").says("--max-downtime").done();
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    w.pvmigrate(&shop.args(&["--max-downtime", "300"])).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_unit_whose_last_copy_would_take_too_long_is_not_stopped, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", |volume| fs::write(volume.join("much"), vec![b'x'; 12 << 20]).expect("there is room")).await;
    let before = w.get("Deployment", "web").await["metadata"]["generation"].clone();
    // Six seconds for all that is there, which the second pass reads again: it was written just now.
    let slowly = ["--max-downtime", "3", "--hot-passes", "2", "--bandwidth-limit", "2Mi", "--workers", "2"];
    let refused = w.pvmigrate(&shop.args(&slowly)).await.exits(4);
    refused.says("the last hot pass of").says("was not stopped").says("raise --max-downtime").done();
    assert_eq!(w.get("Deployment", "web").await["metadata"]["generation"], before);
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    let wrong = w.pvmigrate(&shop.args(&["--workers", "65"])).await.exits(2);
    wrong.says("--workers 65 is no number of threads").done();
    let fast = ["--max-downtime", "60", "--hot-passes", "2", "--bandwidth-limit", "8Mi"];
    w.pvmigrate(&shop.args(&fast)).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(an_interrupted_run_ends_after_its_step_and_goes_on_from_there, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "hot").await;
    run.signal(Signal::INT);
    run.wait().await.exits(130).says("stopping after the step in hand").says("pvmigrate resume").done();
    shop.is_on_the_source().await;
    // Again in the last delta, by the signal that a pod's end sends.
    let mut run = w.start(&["resume"]);
    copy_pod(&mut run, "final").await;
    run.signal(Signal::TERM);
    run.wait().await.exits(130).says("pvmigrate resume").done();
    assert_eq!(w.get("pvc", "data").await["metadata"]["uid"], shop.original["metadata"]["uid"]);
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_user_that_may_not_read_the_files_is_told_how_to_copy, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, from, to).await;
    w.in_volume("data", |volume| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(volume, fs::Permissions::from_mode(0o700)).unwrap();
    })
    .await;
    let refused = w.pvmigrate(&shop.args(&["--run-as", "1000"])).await.exits(4);
    refused.says("may not be read").says("copy as root, or as the owner of the files: --run-as UID").done();
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    w.pvmigrate(&shop.args(&[])).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(lab "the volumes of the real cluster let only root in" metadata_that_is_waived_may_be_lost_and_no_other, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().run_as(1000)).await;
    let shop = open(w, from, to).await;
    // Whoever copies as this user may give files to nobody else.
    w.in_volume("data", |volume| {
        for name in ["theirs", "theirs-too"] {
            fs::write(volume.join(name), "x").unwrap();
            std::os::unix::fs::chown(volume.join(name), Some(2000), Some(2000)).unwrap();
        }
    })
    .await;
    let go = async |more: &[&str]| {
        let mut run = shop.start(more);
        let made = freeze_at(&mut run, |event| event["t"] == "done" && event["op"] == "create_pvc").await;
        // Nor set the time of a directory of somebody else's.
        let target = made["out"]["metadata"]["name"].as_str().expect("a claim has a name").to_owned();
        w.in_volume(&target, |volume| std::os::unix::fs::chown(volume, Some(1000), Some(1000)).unwrap()).await;
        thaw(&run);
        run.wait().await
    };
    let before = w.get("Deployment", "web").await["metadata"]["generation"].clone();
    let refused = go(&["--run-as", "1000"]).await.exits(4);
    refused.says("giving owner 2000:2000").says("--waive owner").says("is as it was found").done();
    assert_eq!(w.get("Deployment", "web").await["metadata"]["generation"], before, "it was stopped");
    // Another word is no help.
    go(&["--run-as", "1000", "--waive", "acl,xattr"]).await.exits(4).done();
    shop.is_on_the_source().await;
    let moved = go(&["--run-as", "1000", "--waive", "owner,xattr", "--output", "json"]).await.succeeds();
    let moved = moved.says("these are LOST: owner, xattr").says("without owner of");
    let rows: Value = serde_json::from_str(&moved.stdout).expect("stdout is one JSON value");
    let lost = rows[0]["waived"]["owner"].as_u64().expect("owners were lost");
    assert!(lost >= 2 && rows[0]["waived"]["xattr"].is_null(), "{rows}");
    let events = w.events();
    let fact = events.iter().rfind(|event| event["out"]["fact"] == "verified").expect("it was verified");
    assert_eq!(fact["out"]["waived"], rows[0]["waived"]);
    shop.has_moved().await;
});

cluster_test!(lab "a node that is cordoned is everybody's" what_cannot_be_copied_while_it_runs_is_copied_when_it_is_stopped, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let node = w.list("Pod").await[0]["spec"]["nodeName"].as_str().expect("it runs").to_owned();
    w.patch("Node", &node, json!({"spec": {"unschedulable": true}})).await;
    let moved = w.pvmigrate(&shop.args(&[])).await.succeeds();
    let why = format!("it is used on node {node}, where no copy pod may start: it is cordoned");
    moved.says("is copied while they are stopped only").says("is not copied while it runs").says(&why).done();
    let events = w.events();
    assert_eq!(count(&events, |event| asks_for_copy(event, "hot")), 0, "it was copied hot");
    assert_eq!(count(&events, |event| asks_for_copy(event, "final")), 1);
    shop.has_moved().await;
});

cluster_test!(lab "a node that is cordoned is everybody's" a_volume_of_a_node_without_copy_pods_is_refused_before_the_stop, async |w: &World| {
    let (from, to) = (w.class("local").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, from, to).await;
    let node = w.list("Pod").await[0]["spec"]["nodeName"].as_str().expect("it runs").to_owned();
    w.patch("Node", &node, json!({"spec": {"unschedulable": true}})).await;
    let before = w.picture().await;
    let refused = w.pvmigrate(&shop.args(&[])).await.exits(3);
    refused.says(&format!("kubectl uncordon {node}")).says("nothing was changed").done();
    w.unchanged_since(&before).await;
    // Who may start there may copy there.
    let patch = w.dir().join("patch.yaml");
    fs::write(&patch, "spec:\n  tolerations: [{operator: Exists}]\n").unwrap();
    let patch = patch.display().to_string();
    let mut run = shop.start(&["--pod-patch", &patch]);
    copy_pod(&mut run, "hot").await;
    w.patch("Node", &node, json!({"spec": {"unschedulable": null}})).await;
    run.wait().await.succeeds().done();
    shop.has_moved().await;
});
