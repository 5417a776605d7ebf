//! Taking back a part of a run, overriding what others did, taking a failed run back at once, freeing what was replaced.

use super::shop::{asks_for_copy, copy_pod, freeze_at, id, is, shop, thaw};
use crate::world::{World, cluster_test};
use serde_json::{Value, json};

/// A script of the test's own; returns its path.
fn script(w: &World, name: &str, text: &str) -> String {
    let path = w.dir().join(format!("{name}.rhai"));
    std::fs::write(&path, text).expect("the world's directory is writable");
    path.display().to_string()
}

/// A ConfigMap with a label to change.
async fn site(w: &World) -> String {
    w.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site", "namespace": w.ns}})).await;
    format!("ConfigMap:{}/site", w.ns)
}

async fn label(w: &World) -> Value {
    w.get("ConfigMap", "site").await["metadata"]["labels"]["tier"].clone()
}

cluster_test!(a_part_is_taken_back_and_the_run_goes_on_from_there, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let (_, hot) = copy_pod(&mut run, "hot").await;
    copy_pod(&mut run, "final").await;
    run.kill9();
    let run = w.run_id();
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 0);
    w.pvmigrate(&["rollback", &run, "--to", "root/4711", "--yes"]).await.exits(2).says("no step `root/4711`").done();
    let plan = w.pvmigrate(&["rollback", &run, "--to", &hot, "--plan"]).await.succeeds();
    assert!(plan.stdout.contains("start Deployment:") && !plan.stdout.contains("goes back whole"), "{plan}");
    let told = w.pvmigrate(&["rollback", &run, "--to", &hot, "--yes"]).await.succeeds();
    told.says(&format!("after step {hot} is taken back")).says(&format!("resume {run}")).done();
    shop.is_on_the_source().await;
    // What was made before the step is there, and is used again.
    let temporary = |claims: Vec<Value>| claims.iter().filter(|one| one["metadata"]["name"] != "data").count();
    assert_eq!(temporary(w.list("pvc").await), 1);
    w.pvmigrate(&["resume", &run]).await.succeeds().done();
    shop.has_moved().await;
    let made =
        |event: &Value| event["write"]["gvk"]["kind"] == "PersistentVolumeClaim" && is(event, "start", ".create");
    assert_eq!(w.events().iter().filter(|event| made(event)).count(), 2, "the target once, and the claim on it");
});

cluster_test!(lab "the journal is the same, and it would take minutes" a_part_after_the_switch_goes_back_whole, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    shop.start(&[]).wait().await.succeeds().done();
    let run = w.run_id();
    let started = w.events().into_iter().find(|event| is(event, "done", ".start")).expect("it was started");
    let step = id(&started).trim_end_matches(".start").to_owned();
    let plan = w.pvmigrate(&["rollback", &run, "--to", &step, "--reverse-sync", "--plan", "--output", "json"]).await.succeeds();
    let plan: Value = serde_json::from_str(&plan.stdout).expect("it is JSON");
    assert_eq!((&plan["to"], &plan["how"]), (&json!(step), &json!("reverse")));
    assert_eq!(plan["units"][0]["does"].as_array().map(Vec::is_empty), Some(false), "{plan}");
    // Before the switch there is no way to the midst of the unit.
    let hot = w.events().into_iter().find(|event| asks_for_copy(event, "hot")).expect("it was copied");
    let hot = id(&hot).rsplit_once('.').expect("a write is a part of a step").0.to_owned();
    let back = ["rollback", &run, "--to", &hot, "--reverse-sync"];
    let told = w.pvmigrate(&[&back[..], &["--plan"]].concat()).await.succeeds();
    told.says("goes back whole: its claims were switched since").says("while it is used").done();
    let mut first = w.start(&[&back[..], &["--yes"]].concat());
    copy_pod(&mut first, "hot").await;
    first.kill9();
    w.still_intact().await;
    w.pvmigrate(&["resume", &run]).await.exits(3).says("is being taken back").says(&format!("--to {hot}")).done();
    w.pvmigrate(&["cleanup", &run, "--yes"]).await.exits(3).says("is being taken back").done();
    w.pvmigrate(&["rollback", &run, "--yes"]).await.exits(3).says("that is finished first").says("--to").done();
    w.pvmigrate(&[&back[..3], &[&hot, "--yes"]].concat()).await.exits(3).says("only that can be finished").done();
    w.pvmigrate(&back).await.succeeds().says("the run can be continued").done();
    w.still_intact().await;
    let listed = w.pvmigrate(&["runs"]).await.succeeds();
    assert!(listed.stdout.contains("stopped"), "{listed}");
    w.pvmigrate(&["resume", &run]).await.succeeds().done();
    assert_eq!(w.get("pvc", "data").await["spec"]["storageClassName"], shop.to.as_str());
    assert_ne!(w.pv_of("data").await["metadata"]["uid"], shop.source["metadata"]["uid"]);
    assert_eq!(w.list("pvc").await.len(), 1);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(what_somebody_else_has_changed_is_overridden_when_told, async |w: &World| {
    let site = site(w).await;
    w.patch("ConfigMap", "site", json!({"metadata": {"labels": {"tier": "before"}}})).await;
    let text = format!(
        "let made = apply_object(#{{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{{ name: \"note\", namespace: \"{ns}\" }}, data: #{{ a: \"1\" }} }});\n\
         patch_object(\"ConfigMap\", \"{ns}\", \"site\", #{{ metadata: #{{ labels: #{{ tier: \"ours\" }} }} }});\n",
        ns = w.ns
    );
    w.pvmigrate(&["run", &script(w, "tier", &text), "--yes"]).await.succeeds().done();
    let run = w.run_id();
    w.patch("ConfigMap", "site", json!({"metadata": {"labels": {"tier": "theirs"}}})).await;
    let difference = r#"metadata.labels.tier: this run wrote "ours", before it was "before", now it is "theirs""#;
    let stopped = w.pvmigrate(&["rollback", &run, "--yes"]).await.exits(5);
    stopped.says(difference).says(&format!("rollback {run} --force {site}")).says("nothing was changed").done();
    assert!(w.find("ConfigMap", "note").await.is_some(), "everything else is untouched");
    let plan = w.pvmigrate(&["rollback", &run, "--plan", "--force", &site]).await.succeeds();
    assert!(plan.stdout.contains("--force overrides") && plan.stdout.contains(difference), "{plan}");
    w.pvmigrate(&["rollback", &run, "--yes", "--force", "Deployment:shop/other"])
        .await
        .exits(2)
        .says("does not touch")
        .done();
    assert_eq!(label(w).await, "theirs");
    w.pvmigrate(&["rollback", &run, "--yes", "--force", &site]).await.succeeds().says("is taken back").done();
    assert_eq!(label(w).await, "before");
    assert!(w.find("ConfigMap", "note").await.is_none());
    let forced: Vec<Value> = w
        .events()
        .into_iter()
        .filter(|event| event["out"]["fact"] == "forced")
        .map(|event| event["out"].clone())
        .collect();
    assert_eq!(forced, [json!({"fact": "forced", "object": site, "overridden": [difference]})]);
});

cluster_test!(a_run_that_fails_is_taken_back_at_once_when_told, async |w: &World| {
    site(w).await;
    let text = format!(
        "patch_object(\"ConfigMap\", \"{}\", \"site\", #{{ metadata: #{{ labels: #{{ tier: \"ours\" }} }} }});\nthrow \"no luck\";\n",
        w.ns
    );
    let path = script(w, "fails", &text);
    let stays = w.pvmigrate(&["run", &path, "--yes"]).await.exits(4);
    stays.says("no luck").says("pvmigrate resume").says("pvmigrate rollback").done();
    assert_eq!(label(w).await, "ours");
    w.pvmigrate(&["rollback", "--yes"]).await.succeeds().done();
    for words in [&["run", &path, "--on-failure", "rollback"][..], &["run", "--on-failure", "rollback", &path]] {
        let told = w.pvmigrate(&[words, &["--yes"]].concat()).await.exits(6);
        told.says("no luck").says("was taken back: everything is as it was before").done();
        assert_eq!(label(w).await, Value::Null);
    }
    // A run that stopped, and fails again when it is gone on with.
    w.pvmigrate(&["run", &path, "--yes"]).await.exits(4).done();
    w.pvmigrate(&["resume", "--on-failure", "rollback"]).await.exits(6).says("no luck").done();
    assert_eq!(label(w).await, Value::Null);
    w.pvmigrate(&["run", &path, "--yes", "--on-failure", "explode"]).await.exits(2).done();
});

/// Moves a claim to the first class, then to the second.
fn moves(w: &World, more: &str) -> String {
    format!(
        "let classes = [arg(\"first\"), arg(\"second\")];\nlet image = arg(\"image\");\n\
         let web = get_object(\"Deployment\", \"{ns}\", \"web\");\nlet stopped = ();\n\
         for class in classes {{\n\
             if class == () {{ continue; }}\n\
             let data = get_pvc(\"{ns}\", \"data\");\nlet source = set_retain(get_pv(data.volume));\n\
             let target = create_pvc(data, #{{ class: class, workload: web, image: image }});\n\
             let copy = set_retain(get_pv(target.volume));\n\
             if stopped == () {{ stopped = stop(web); }}\n\
             run_copy_pod(data, target, #{{ pass: \"final\", image: image }});\n\
             verify_copy(data, target, #{{ pass: \"final\", image: image }});\n\
             rebind(copy, \"{ns}\", \"data\", #{{ class: class }});\n\
         }}\n\
         start(stopped);\n{more}\n",
        ns = w.ns
    )
}

cluster_test!(lab "only the order of the same steps" a_claim_that_was_moved_twice_goes_back_to_its_first_volume, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let third = w.class("slow").await;
    let path = script(w, "twice", &moves(w, ""));
    let image = w.image();
    let words = ["run", &path, "--first", &shop.to, "--second", &third, "--image", &image, "--yes"];
    w.pvmigrate(&words).await.succeeds().done();
    assert_eq!(w.get("pvc", "data").await["spec"]["storageClassName"], third.as_str());
    let run = w.run_id();
    w.pvmigrate(&["rollback", &run, "--reverse-sync", "--yes", "--image", &image]).await.succeeds().done();
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], shop.source["metadata"]["uid"]);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    assert_eq!(w.list("pvc").await.len(), 1);
    let of = |class: &str, volumes: &[Value]| volumes.iter().filter(|pv| pv["spec"]["storageClassName"] == class).count();
    let volumes = w.list("pv").await;
    assert_eq!((of(&shop.to, &volumes), of(&third, &volumes)), (0, 1), "both new volumes are given up");
});

cluster_test!(lab "what is asked is the same everywhere" what_ran_on_the_new_volume_is_not_taken_back_by_itself, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let path = script(w, "late", &moves(w, "throw \"too late\";"));
    let image = w.image();
    let words = ["run", &path, "--first", &shop.to, "--image", &image, "--yes", "--on-failure", "rollback"];
    let told = w.pvmigrate(&words).await.exits(4);
    told.says("too late").says("--reverse-sync copies it back first").says("pvmigrate resume").says("pvmigrate rollback").done();
    w.still_intact().await;
    let run = w.run_id();
    // Broken off while it copies, and gone on with other options: what was not finished is begun anew.
    let back = ["rollback", &run, "--reverse-sync", "--yes"];
    let mut first = w.start(&back);
    copy_pod(&mut first, "hot").await;
    first.kill9();
    w.pvmigrate(&["rollback", &run, "--discard-new-data", "--yes"]).await.exits(3).says("--reverse-sync").done();
    let patch = w.dir().join("patch.yaml");
    std::fs::write(&patch, "metadata: {labels: {site: example}}").expect("the world's directory is writable");
    let patch = patch.display().to_string();
    w.pvmigrate(&[&back[..], &["--pod-patch", &patch]].concat()).await.succeeds().done();
    let patched = |event: &Value| event["write"]["body"]["metadata"]["labels"]["site"] == "example";
    assert!(w.events().iter().any(patched), "the copy pods are patched");
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], shop.source["metadata"]["uid"]);
    w.still_intact().await;
});

cluster_test!(lab "nothing is copied" an_object_that_was_stopped_and_started_since_is_still_ours, async |w: &World| {
    let container = json!({"name": "web", "image": w.image(), "imagePullPolicy": "IfNotPresent", "command": ["pvmigrate"],
        "args": ["agent", "exercise", "/data", "--name", "web"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    w.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]}}}}))
        .await;
    w.ready("Deployment", "web").await;
    let text = format!(
        "let like = get_object(\"Deployment\", \"{ns}\", \"web\");\n\
         let made = apply_object(#{{ apiVersion: \"apps/v1\", kind: \"Deployment\", metadata: #{{ name: \"twin\", namespace: \"{ns}\" }},\n\
             spec: #{{ replicas: 1, selector: #{{ matchLabels: #{{ app: \"twin\" }} }}, template: #{{ metadata: #{{ labels: #{{ app: \"twin\" }} }}, spec: like.spec.template.spec }} }} }});\n\
         start(stop(made));\n",
        ns = w.ns
    );
    w.pvmigrate(&["run", &script(w, "twin", &text), "--yes"]).await.succeeds().done();
    w.pvmigrate(&["rollback", &w.run_id(), "--yes"]).await.succeeds().done();
    assert!(w.find("Deployment", "twin").await.is_none());
});

cluster_test!(lab "what it reads is the same" a_cleanup_says_what_becomes_of_each_volume, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    shop.start(&[]).wait().await.succeeds().done();
    let (run, name) = (w.run_id(), shop.source["metadata"]["name"].as_str().expect("it has a name").to_owned());
    let handle = w.handle_of(&shop.source);
    for bad in ["yesterday", "3", "1.5h", "-2h"] {
        w.pvmigrate(&["cleanup", &run, "--older-than", bad]).await.exits(2).done();
    }
    w.pvmigrate(&["cleanup", &run, "--pv", "other"]).await.exits(2).says("has not replaced").says(&name).done();
    let young = w.pvmigrate(&["cleanup", &run, "--older-than", "72h", "--yes"]).await.succeeds();
    young.says(&handle).says("it was replaced").done();
    let plan = w.pvmigrate(&["cleanup", &run, "--plan", "--output", "json"]).await.succeeds();
    let plan: Value = serde_json::from_str(&plan.stdout).expect("it is JSON");
    assert_eq!((&plan[0]["pv"], &plan[0]["why"], &plan[0]["freed"]), (&json!(name), &json!(""), &json!(false)));
    assert!(w.find("pv", &name).await.is_some(), "nothing was changed");
    // A second volume on the same backend needs it.
    let mut twin = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{}-twin", w.ns), "labels": w.labels()},
        "spec": shop.source["spec"].clone()});
    twin["spec"]["persistentVolumeReclaimPolicy"] = "Retain".into();
    twin["spec"]["claimRef"] = json!({"namespace": w.ns, "name": "nobody"});
    w.apply(twin).await;
    let kept = w.pvmigrate(&["cleanup", &run, "--yes"]).await.exits(3);
    kept.says("stands on the same backend").says(&handle).done();
    w.delete("pv", &format!("{}-twin", w.ns)).await;
    let freed = w.pvmigrate(&["cleanup", &run, "--pv", &name, "--older-than", "0s", "--yes"]).await.succeeds();
    freed.says(&name).says("true").done();
    assert!(w.find("pv", &name).await.is_none());
    w.still_intact().await;
});

cluster_test!(lab "the same steps in another order" a_way_back_that_fails_before_the_switch_leaves_all_as_it_ran, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    shop.start(&[]).wait().await.succeeds().done();
    let run = w.run_id();
    let finalizers = async |more: &[&str]| {
        let all = [&["kubernetes.io/pvc-protection"], more].concat();
        w.patch("pvc", "data", json!({"metadata": {"finalizers": all}})).await;
    };
    let mut back = w.start(&["rollback", &run, "--reverse-sync", "--yes"]);
    freeze_at(&mut back, |event| is(event, "start", ".stop")).await;
    finalizers(&["example.org/held"]).await;
    thaw(&back);
    let told = back.wait().await.exits(4);
    told.says("example.org/held").says("started again where it ran").says("to go on: pvmigrate rollback").done();
    assert_eq!(w.get("pvc", "data").await["spec"]["storageClassName"], shop.to.as_str());
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 1);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    finalizers(&[]).await;
    w.pvmigrate(&["rollback", &run, "--reverse-sync", "--yes"]).await.succeeds().done();
    assert_eq!(w.pv_of("data").await["metadata"]["uid"], shop.source["metadata"]["uid"]);
    w.ready("Deployment", "web").await;
    w.still_intact().await;
});
