//! What other actors, full disks, missing rights and broken nodes do to a run.

use super::shop::{asks_for_copy, copy_pod, count, freeze_at, id, is, open, part, shop, thaw};
use crate::world::{Running, World, cluster_test, opts};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);

cluster_test!(a_deleted_copy_pod_is_made_again, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", bulk).await;
    let mut run = shop.start(&[]);
    let (pod, step) = copy_pod(&mut run, "hot").await;
    let copying = async || Some(processes_of(&pod)).filter(|all| !all.is_empty());
    for process in w.until("the copy to be at work", LONG, copying).await {
        // So that it is not over before it is deleted; its node kills it when its grace is over.
        let _ = kill_process(process, Signal::STOP);
    }
    assert_eq!(count(&run.events(), |event| is(event, "beat", &step)), 0, "the copy was over already");
    w.delete("Pod", &pod).await;
    run.wait().await.succeeds().done();
    let journal = w.events();
    let second = format!("{step}.create-2");
    assert_eq!(count(&journal, |event| is(event, "done", &second)), 1, "no second pod was made");
    shop.has_moved().await;
    assert_eq!(w.digest("data").await.under("bulk").files.len(), 15_001);
});

/// Lets a pod's kubelet do this to it in the middle of its work.
async fn strike(w: &World, run: &Running, pod: &str, step: &str, how: &str) {
    let copying = async || Some(processes_of(pod)).filter(|all| !all.is_empty());
    for process in w.until("the copy to be at work", LONG, copying).await {
        let _ = kill_process(process, Signal::STOP);
    }
    assert_eq!(count(&run.events(), |event| is(event, "beat", step) && !event["out"]["report"].is_null()), 0);
    let struck = w.strike(json!({how: {"name": pod}}));
    assert!(struck.len() == 1 && struck[0].contains(pod), "{struck:?}");
}

/// The pods that were asked for in a step, by the number in their part's name.
fn asked(events: &[Value], step: &str) -> Vec<(String, Value)> {
    let parts = events.iter().filter_map(|event| {
        let part = id(event).strip_prefix(step)?.strip_prefix(".create-")?;
        (event["t"] == "start")
            .then(|| (part.to_owned(), event["write"]["body"]["spec"]["containers"][0]["args"].clone()))
    });
    parts.collect()
}

cluster_test!(lab "no node of the real cluster can be made short of memory" a_final_copy_pod_that_is_evicted_is_made_again_under_the_same_watch, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "start", ".stop")).await;
    w.in_volume("data", bulk).await;
    thaw(&run);
    let (pod, step) = copy_pod(&mut run, "final").await;
    strike(w, &run, &pod, &step, "evict_pod").await;
    let said = run.wait().await.succeeds();
    let told = "the copy pod was evicted: its node is short of something (The node was low on resource: memory.";
    assert_eq!(said.stderr.matches(told).count(), 1, "{said}");
    said.says("another one in 10 s").done();
    let events = w.events();
    assert_eq!(asked(&events, &step).len(), 2, "one more pod in the same step");
    assert_eq!(count(&events, |event| asks_for_copy(event, "final")), 2, "no other final pass");
    shop.has_moved().await;
    assert_eq!(w.digest("data").await.under("bulk").files.len(), 15_001);
});

cluster_test!(lab "it is a matter of the journal, and takes as long as the pauses" a_pass_whose_pods_all_died_is_gone_on_with_by_resume, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", bulk).await;
    for pass in ["hot", "final"] {
        let mut run = if pass == "hot" { shop.start(&[]) } else { w.start(&["resume"]) };
        if pass == "final" {
            freeze_at(&mut run, |event| is(event, "start", ".stop")).await;
            w.in_volume("data", |dir| {
                std::fs::create_dir(dir.join("more")).expect("a directory can be made");
                bulk(&dir.join("more"));
            })
            .await;
            thaw(&run);
        }
        let (mut pod, step) = copy_pod(&mut run, pass).await;
        for attempt in 1..=4 {
            let copying = async || Some(processes_of(&pod)).filter(|all| !all.is_empty());
            for process in w.until("the copy to be at work", LONG, copying).await {
                let _ = kill_process(process, Signal::KILL);
            }
            if attempt < 4 {
                let next = format!("{step}.create-{}", attempt + 1);
                let made = run.wait_for_event(|event| is(event, "done", &next)).await;
                pod = made["out"]["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
            }
        }
        let said = run.wait().await.exits(4);
        said.says("4 copy pods of").says("ended without a result: the last one was killed").says("pvmigrate resume").done();
        // Nothing was given up: the target is there, and what is stopped is gone on with.
        assert_eq!(w.list("pvc").await.len(), 2, "{pass}");
    }
    assert_eq!(w.get("Deployment", "web").await["spec"]["replicas"], 0);
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
    assert_eq!(w.digest("data").await.under("bulk").files.len(), 15_001);
});

cluster_test!(lab "the containers of the real cluster have no limit of memory" a_copy_pod_out_of_memory_goes_on_with_one_thread_and_then_fails, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", bulk).await;
    let mut run = shop.start(&[]);
    let (pod, step) = copy_pod(&mut run, "hot").await;
    strike(w, &run, &pod, &step, "oom_kill_pod").await;
    let second = run.wait_for_event(|event| is(event, "done", &format!("{step}.create-2"))).await;
    let pod = second["out"]["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
    strike(w, &run, &pod, &step, "oom_kill_pod").await;
    let said = run.wait().await.exits(4);
    said.says("ran out of memory: another one in 1 s, with one thread").says("--pod-patch").says("is as it was found").done();
    let args: Vec<String> = asked(&w.events(), &step).into_iter().map(|(_, args)| args.to_string()).collect();
    assert!(args.len() == 2 && !args[0].contains("--workers") && args[1].contains("\"--workers\",\"1\""), "{args:?}");
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

// Between the two a process dies: the second one knows what the first pod died of, and goes on counting.
cluster_test!(lab "the same journal" what_a_copy_pod_died_of_is_still_known_to_a_resumed_run, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", bulk).await;
    let mut run = shop.start(&[]);
    let (pod, step) = copy_pod(&mut run, "hot").await;
    strike(w, &run, &pod, &step, "oom_kill_pod").await;
    run.wait_for_event(|event| is(event, "beat", &step) && event["out"]["lost"][0]["reason"] == "OOMKilled").await;
    run.kill9();
    w.pvmigrate(&["resume"]).await.succeeds().done();
    let asked = asked(&w.events(), &step);
    assert!(asked.last().is_some_and(|(n, args)| n == "2" && args.to_string().contains("--workers")), "{asked:?}");
    shop.has_moved().await;
});

/// The processes of a pod's containers, which run on this machine.
fn processes_of(pod: &str) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let all = all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let hostname = format!("HOSTNAME={pod}");
    let is_its = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program =
            command.split(|byte| *byte == 0).next().and_then(|path| path.split(|byte| *byte == b'/').next_back());
        let is_agent = matches!(program, Some(b"pvmigrate" | b"rsync"));
        is_agent && environ.split(|byte| *byte == 0).any(|word| word == hostname.as_bytes())
    };
    all.filter(is_its).filter_map(Pid::from_raw).collect()
}

/// Enough that a copy is not over at once.
fn bulk(volume: &Path) {
    let dir = volume.join("bulk");
    std::fs::create_dir(&dir).expect("a directory can be made");
    for n in 0..15_000 {
        std::fs::write(dir.join(format!("{n}")), vec![b'x'; 1000]).expect("a file can be written");
    }
}

cluster_test!(the_second_run_on_a_claim_is_refused, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut first = shop.start(&[]);
    first.wait_for_event(|event| is(event, "done", ".retain")).await;
    let run = first.run_dir().expect("it has a journal");
    let run = run.file_name().expect("a run's directory has a name").to_string_lossy();
    let refused = w.pvmigrate(&shop.args(&[])).await.exits(3);
    refused.says(&run).says("in its hands").says("nothing was changed").done();
    first.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(of_two_runs_started_at_once_one_moves_the_claim, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let looked = |event: &Value| event["t"] == "done" && event["op"] == "preflight";
    let mut one = shop.start(&[]);
    freeze_at(&mut one, looked).await;
    let mut other = shop.start(&[]);
    freeze_at(&mut other, looked).await;
    thaw(&one);
    thaw(&other);
    let (one, other) = (one.wait().await, other.wait().await);
    let (won, lost) = if one.code == Some(0) { (one, other) } else { (other, one) };
    let run = won.succeeds().stderr.split_whitespace().nth(1).expect("it says its run").to_owned();
    lost.exits(3).says(&run).says(" hands").says("nothing was changed").done();
    shop.has_moved().await;
});

cluster_test!(of_two_runs_on_one_workload_the_second_does_not_take_it_for_a_stopped_one, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "more"] {
        w.claim(claim, &from, "64Mi", &["ReadWriteOnce"]).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data"), ("more", "more")], opts()).await;
    let shop = open(w, from, to).await;
    let claim = |name: &str| format!("{}/{name}", w.ns);
    // The other one has looked, and sees nothing of what comes then.
    let mut other = shop.start(&["--pvc", &claim("more")]);
    freeze_at(&mut other, |event| event["t"] == "done" && event["op"] == "preflight").await;
    let waits = w.run_id();
    let mut one = shop.start(&["--pvc", &claim("data")]);
    freeze_at(&mut one, |event| is(event, "done", ".stop")).await;
    let run = w.run_id();
    let refused = w.pvmigrate(&shop.args(&["--pvc", &claim("more")])).await.exits(3);
    refused.says(&run).says("in its hands").says("nothing was changed").done();
    thaw(&other);
    let stopped = other.wait().await.exits(5);
    stopped.says("Deployment").says(&format!("in the hands of run {run}")).says("pvmigrate resume").done();
    thaw(&one);
    one.wait().await.succeeds().done();
    w.pvmigrate(&["resume", &waits]).await.succeeds().done();
    for claim in ["data", "more"] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], shop.to.as_str());
    }
    shop.runs(1).await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(a_thief_never_gets_a_volume_of_the_swap, async |w: &World| {
    // Classes without a provisioner, bound at once: a claim that finds no volume waits for the first that comes free.
    let (from, to) = (format!("{}-from", w.ns), format!("{}-to", w.ns));
    for class in [&from, &to] {
        w.apply(json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
            "provisioner": "kubernetes.io/no-provisioner", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate",
        }))
        .await;
        w.local_volume(class, "node1", "64Mi").await;
    }
    let thief = async |name: &str, class: &str, volume: Option<&Value>| {
        let mut claim = w.claim(name, class, "64Mi", &["ReadWriteOnce"]).await;
        if let Some(volume) = volume {
            w.delete("pvc", name).await;
            w.gone("pvc", name).await;
            let spec = &mut claim["spec"];
            spec["volumeName"] = volume["metadata"]["name"].clone();
            let meta = json!({"name": name});
            w.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})).await;
        }
    };
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.ready("pvc", "data").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    let shop = open(w, from, to).await;
    thief("thief-of-source", &shop.from, None).await;
    thief("thief-by-name", &shop.from, Some(&shop.source)).await;
    let mut run = shop.start(&["--pvc", &format!("{}/data", w.ns)]);
    run.wait_for_event(|event| event["t"] == "done" && event["op"] == "create_pvc").await;
    thief("thief-of-target", &shop.to, None).await;

    // Each change of a claim makes Kubernetes look for a volume again.
    let thieves = ["thief-of-source", "thief-by-name", "thief-of-target"];
    let mut n = 0;
    let over = async || {
        n += 1;
        for thief in thieves {
            let now = w.patch("pvc", thief, json!({"metadata": {"annotations": {"tried": n.to_string()}}})).await;
            assert_eq!(now["status"]["phase"], "Pending", "{thief} got a volume: {now:#}");
        }
        run.has_ended().then_some(())
    };
    w.until("the run to end", LONG, over).await;
    run.wait().await.succeeds().done();
    for thief in thieves {
        assert_eq!(w.get("pvc", thief).await["status"]["phase"], "Pending");
    }
    shop.has_moved().await;
});

cluster_test!(a_workload_scaled_up_during_the_final_pass_is_stopped_again, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "final").await;
    run.signal(Signal::STOP);
    w.scale("Deployment", "web", 1).await;
    w.ready("Deployment", "web").await;
    w.still_intact().await;
    thaw(&run);
    run.wait().await.succeeds().done();
    assert!(count(&w.events(), |event| asks_for_copy(event, "final")) >= 2, "no other pass was made");
    shop.has_moved().await;
});

cluster_test!(lab "it is about one field" a_workload_that_somebody_holds_at_0_is_not_called_ready, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "done", ".stop")).await;
    // On no node: what is started does not become Ready before it is scaled down.
    let on = |node: Value| json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": node}}}}});
    w.patch("Deployment", "web", on("yes".into())).await;
    thaw(&run);
    let started = async || (w.get("Deployment", "web").await["spec"]["replicas"] == 1).then_some(());
    w.until("it to be started", LONG, started).await;
    w.scale("Deployment", "web", 0).await;
    run.wait().await.exits(5).says("scaled to 0 by somebody else").says("scale deployment web --replicas 1").done();
    w.patch("Deployment", "web", on(Value::Null)).await;
    w.scale("Deployment", "web", 1).await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_workload_scaled_up_while_its_claim_is_missing_starts_on_the_target, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let deleted = freeze_at(&mut run, |event| is(event, "done", ".delete-original")).await;
    let created = |event: &Value| id(event) == part(&deleted, "create");
    assert_eq!(count(&run.events(), created), 0, "it was frozen too late");
    w.gone("pvc", "data").await;
    w.scale("Deployment", "web", 1).await;
    thaw(&run);
    run.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_claim_that_its_statefulset_made_meanwhile_is_adopted, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.exercise_statefulset("db", 1, &from, "32Mi", opts()).await;
    w.ready("StatefulSet", "db").await;
    let (source, original) = (w.pv_of("data-db-0").await, w.get("pvc", "data-db-0").await);
    let image = w.image();
    let mut run = w.start(&["run", "sc-migrate", "--source-sc", &from, "--dest-sc", &to, "--yes", "--image", &image]);
    let deleted = freeze_at(&mut run, |event| is(event, "done", ".delete-original")).await;
    let created = |event: &Value| id(event) == part(&deleted, "create");
    assert_eq!(count(&run.events(), created), 0, "it was frozen too late");
    w.gone("pvc", "data-db-0").await;
    w.scale("StatefulSet", "db", 1).await;
    let theirs = w.ready("pvc", "data-db-0").await;
    thaw(&run);
    run.wait().await.succeeds().says("made by somebody else").done();

    let claim = w.get("pvc", "data-db-0").await;
    assert_eq!(claim["metadata"]["uid"], theirs["metadata"]["uid"], "the set's claim was not kept");
    assert_ne!(claim["metadata"]["uid"], original["metadata"]["uid"]);
    let target = w.pv_of("data-db-0").await;
    assert_ne!(target["metadata"]["name"], source["metadata"]["name"]);
    assert_eq!(target["spec"]["storageClassName"], to.as_str());
    w.ready("StatefulSet", "db").await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});

cluster_test!(real "a volume of the lab is a directory: it is never full" a_target_that_is_too_small_stops_nothing, async |w: &World| {
    let shop = shop(w, "slow", "disk-a").await;
    w.in_volume("data", |volume| std::fs::write(volume.join("big"), vec![1; 40 << 20]).unwrap()).await;
    let before = w.get("Deployment", "web").await["metadata"]["generation"].clone();
    let failed = w.pvmigrate(&shop.args(&["--dest-size", "24Mi"])).await;
    assert!(matches!(failed.code, Some(3 | 4)), "{failed}");
    failed.says("--dest-size").done();
    assert_eq!(count(&w.events(), |event| id(event).ends_with(".stop")), 0);
    assert_eq!(w.get("Deployment", "web").await["metadata"]["generation"], before);
    shop.is_on_the_source().await;
});

cluster_test!(real "a volume of the lab is a directory: it is never full" a_target_that_is_full_in_the_final_pass_gives_the_source_back, async |w: &World| {
    let shop = shop(w, "slow", "disk-a").await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "start", ".stop")).await;
    w.in_volume("data", |volume| std::fs::write(volume.join("big"), vec![1; 90 << 20]).unwrap()).await;
    thaw(&run);
    run.wait().await.exits(4).says("started again on the source").says("pvmigrate resume").done();
    let events = w.events();
    assert!(count(&events, |event| asks_for_copy(event, "final")) >= 1);
    assert_eq!(count(&events, |event| id(event).ends_with(".delete-original")), 0);
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    // Resumed it meets the same end, not because it remembers it: the volume is still too full.
    w.pvmigrate(&["resume"]).await.exits(4).says("resume begins it anew").done();
    shop.is_on_the_source().await;
    w.in_volume("data", |volume| std::fs::remove_file(volume.join("big")).unwrap()).await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(every_other_pod_on_the_claim_is_found_before_the_first_change, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let reads = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]);
    let pod = |command: &str| {
        let container = json!({
            "name": "c", "image": "docker.io/e2e/tools:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", command], "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
        });
        json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "volumes": reads, "containers": [container],
        })
    };
    for (name, command) in [("reader", "trap 'exit 0' TERM; sleep 100000 & wait"), ("finished", "true")] {
        w.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod(command)})).await;
    }
    let template = json!({"spec": {"template": {"spec": pod("true")}}});
    w.apply(json!({
        "apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": template},
    }))
    .await;
    w.ready("Pod", "reader").await;
    let over = async || (w.get("Pod", "finished").await["status"]["phase"] == "Succeeded").then_some(());
    w.until("the pod to finish", LONG, over).await;

    let before = w.picture().await;
    let refused = w.pvmigrate(&shop.args(&[])).await.exits(3);
    let refused = refused.says("Pod:").says("/reader").says("/finished").says("CronJob:").says("/nightly");
    refused.says("nothing was changed").done();
    w.unchanged_since(&before).await;

    w.delete("CronJob", "nightly").await;
    w.delete("Pod", "reader").await;
    w.gone("Pod", "reader").await;
    w.pvmigrate(&shop.args(&["--finished-pods", "delete"])).await.succeeds().done();
    assert!(w.find("Pod", "finished").await.is_none());
    shop.has_moved().await;
});

cluster_test!(a_right_taken_away_meanwhile_is_named_and_the_run_resumed_with_it, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let deletes = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["delete"]});
    let most =
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch", "create", "patch", "update"]});
    let leases = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["delete"]});
    let rules = json!([most, leases, deletes("pods"), deletes("persistentvolumeclaims")]);
    let user = w.limited_user(rules).await;
    let role = user.file_stem().expect("it is a file").to_string_lossy().into_owned();
    let mut run = w.pvmigrate(&shop.args(&[])).kubeconfig(&user).start();
    freeze_at(&mut run, |event| is(event, "done", ".stop")).await;
    w.patch("ClusterRole", &role, json!({"rules": [most, leases, deletes("pods")]})).await;
    let may = async || w.kubectl(&user, &["auth", "can-i", "delete", "persistentvolumeclaims"]).await;
    w.until("the right to be gone", LONG, async || (!may().await).then_some(())).await;
    thaw(&run);
    run.wait().await.exits(4).says("delete").says("persistentvolumeclaims").says("pvmigrate resume").done();
    assert_eq!(w.get("pvc", "data").await["metadata"]["uid"], shop.original["metadata"]["uid"]);

    w.grant(&user, json!([deletes("persistentvolumeclaims")])).await;
    w.pvmigrate(&["resume"]).kubeconfig(&user).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(exclusive an_api_server_that_restarts_costs_only_time, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "hot").await;
    w.restart_apiserver().await;
    run.wait_for_event(|event| is(event, "done", ".stop")).await;
    w.restart_apiserver().await;
    run.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(exclusive a_node_that_dies_under_the_copy_and_comes_back_costs_only_time, async |w: &World| {
    let (from, to) = (w.class("disk-a").await, w.class("disk-b").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().node("node2")).await;
    let shop = open(w, from, to).await;
    w.in_volume("data", |volume| std::fs::write(volume.join("big"), vec![1; 20 << 20]).unwrap()).await;
    let mut run = shop.start(&[]);
    let (pod, step) = copy_pod(&mut run, "hot").await;
    let there = async || (w.get("Pod", &pod).await["spec"]["nodeName"] == "node2").then_some(());
    w.until("the copy to be on node2", LONG, there).await;
    w.node_down("node2");
    assert_eq!(count(&run.events(), |event| is(event, "done", &step)), 0, "the copy was over already");
    w.node_ready("node2", false).await;
    w.node_up("node2").await;
    let outcome = run.wait().await;
    if outcome.code != Some(0) {
        outcome.exits(4).says("pvmigrate resume").done();
        w.pvmigrate(&["resume"]).await.succeeds().done();
    }
    shop.has_moved().await;
});

cluster_test!(exclusive nothing_is_swapped_while_the_node_of_the_last_writer_is_away, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().node("node2")).await;
    let shop = open(w, from, to).await;
    let mut run = shop.start(&["--hot-passes", "1"]);
    // The run is held while its last pod before the stop still starts, so that the stop meets the partition for sure.
    let (pod, _) = copy_pod(&mut run, "hot").await;
    run.signal(Signal::STOP);
    has_ended(w, &pod).await;
    w.node_partition("node2");
    assert_eq!(count(&run.events(), |event| is(event, "start", ".stop")), 0, "the stop went out before the partition");
    thaw(&run);
    run.wait_for_event(|event| is(event, "done", ".stop")).await;
    w.node_ready("node2", false).await;
    // The container still writes, unseen by Kubernetes, after the stop.
    let then: u64 = w.acknowledged().values().sum();
    let writes = async || (w.acknowledged().values().sum::<u64>() > then).then_some(());
    w.until("the container to go on writing", LONG, writes).await;
    let irreversible = |event: &Value| asks_for_copy(event, "final") || id(event).ends_with(".delete-original");
    assert_eq!(count(&run.events(), irreversible), 0);
    assert!(!run.has_ended(), "{}", run.said());
    w.node_up("node2").await;
    let outcome = run.wait().await;
    if outcome.code != Some(0) {
        outcome.exits(4).says("pvmigrate resume").done();
        w.pvmigrate(&["resume"]).await.succeeds().done();
    }
    shop.has_moved().await;
});

cluster_test!(exclusive real "in the lab the pod is gone before pvmigrate has looked at it, and a node that is away is seen at once" a_pod_deleted_by_force_is_waited_for_on_its_node, async |w: &World| {
    let (from, to) = (w.class("slow").await, w.class("fast").await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts().node("node2")).await;
    let shop = open(w, from, to).await;
    let mut run = shop.start(&["--hot-passes", "1"]);
    let (last, _) = copy_pod(&mut run, "hot").await;
    run.signal(Signal::STOP);
    has_ended(w, &last).await;
    // The node is away and still looks Ready: its container writes on, and its pod is gone from the API by force.
    w.node_partition("node2");
    thaw(&run);
    run.wait_for_event(|event| is(event, "done", ".stop")).await;
    for one in w.list("Pod").await.iter().filter(|one| one["spec"]["volumes"][1]["name"] == "data") {
        let name = one["metadata"]["name"].as_str().unwrap_or_default();
        w.delete_with("Pod", name, json!({"gracePeriodSeconds": 0})).await;
    }
    w.node_ready("node2", false).await;
    let then: u64 = w.acknowledged().values().sum();
    let writes = async || (w.acknowledged().values().sum::<u64>() > then).then_some(());
    w.until("the container to go on writing", LONG, writes).await;
    assert_eq!(count(&run.events(), |event| asks_for_copy(event, "final")), 0, "{}", run.said());
    w.node_up("node2").await;
    run.wait().await.succeeds().says("was deleted by force while it ran on node2").done();
    shop.has_moved().await;
});

/// A verification of what is being written may end either way.
async fn has_ended(w: &World, pod: &str) {
    let over = async || {
        let phase = w.get("Pod", pod).await["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(())
    };
    w.until("the pod to end", LONG, over).await;
}

// As if it were not mounted, or were another node's directory.
cluster_test!(lab "its workload must not see it" a_source_that_is_suddenly_empty_empties_nothing_and_goes_back, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", |volume| std::fs::write(volume.join("precious"), "x").unwrap()).await;
    let mut run = shop.start(&[]);
    freeze_at(&mut run, |event| is(event, "done", ".stop")).await;
    w.gone_pods("web").await;
    let aside = w.dir().join("aside");
    let put = |from: &Path, to: &Path| {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    std::fs::create_dir(&aside).unwrap();
    w.in_volume("data", |volume| put(volume, &aside)).await;
    thaw(&run);
    // Before anything is started on it again.
    let (_, step) = copy_pod(&mut run, "final").await;
    run.wait_for_event(|event| is(event, "beat", &step)).await;
    run.signal(Signal::STOP);
    w.in_volume("data", |volume| put(&aside, volume)).await;
    thaw(&run);
    let failed = run.wait().await.exits(4);
    failed.says("the source is empty and the target is not").says("started again on the source").says("is as it was found").done();
    shop.is_on_the_source().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
    assert!(w.digest("data").await.files.contains_key("precious"));
});
