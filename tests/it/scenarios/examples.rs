//! The documents run: each example of the reference and the commands and scripts of the README, as they are written.
//!
//! Only names are replaced: the namespace, the classes and the image are this test's own. The list comes from the
//! program, so that a primitive cannot be added without an example that works.

use crate::docs::{blocks, read};
use crate::world::{World, cluster_test, opts};
use serde_json::Value;
use std::path::PathBuf;

/// The world in which the examples are told.
struct Tale<'w> {
    w: &'w World,
    slow: String,
    fast: String,
}

/// Deployment `web` on the claims `data` and `logs`, StatefulSet `db` on its own, all of the class `slow`.
async fn tale(w: &World) -> Tale<'_> {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "logs"] {
        w.claim(claim, &slow, "32Mi", &["ReadWriteOnce"]).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data"), ("logs", "logs")], opts()).await;
    w.exercise_statefulset("db", 1, &slow, "32Mi", opts()).await;
    let tale = Tale { w, slow, fast };
    tale.all_run().await;
    tale
}

impl Tale<'_> {
    async fn all_run(&self) {
        self.w.ready("Deployment", "web").await;
        self.w.ready("StatefulSet", "db").await;
    }

    /// What a reader does who has a namespace and classes of other names.
    fn with_our_names(&self, text: &str) -> String {
        let replaced = [
            ("\"shop\"", format!("\"{}\"", self.w.ns)),
            ("shop/", format!("{}/", self.w.ns)),
            ("--namespace shop", format!("--namespace {}", self.w.ns)),
            ("\"slow\"", format!("\"{}\"", self.slow)),
            ("--source-sc slow", format!("--source-sc {}", self.slow)),
            ("\"fast\"", format!("\"{}\"", self.fast)),
            ("--dest-sc fast", format!("--dest-sc {}", self.fast)),
            ("registry.example/pvmigrate/agent:0.1.0", self.w.image()),
        ];
        replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// None if the example is right; otherwise what is wrong, in full.
    async fn fault_of(&self, example: &Value) -> Option<String> {
        let name = example["name"].as_str().expect("it has a name");
        let text = self.with_our_names(example["example"].as_str().unwrap_or_default());
        if !text.contains(&format!("{name}(")) {
            return Some(format!("the example of {name} does not call it"));
        }
        let mut eval = self.w.pvmigrate(&["eval", "--yes", &text]);
        // In the lab as somebody who has the rights that its primitives declare, and no others.
        // One judges all rights of a move, and one writes what another step wrote.
        if self.w.is_lab() && !["preflight", "undo_write"].contains(&name) {
            eval = eval.kubeconfig(&self.user_for(name, &text).await);
        }
        let ended = eval.await;
        let is_true = ended.code == Some(0) && ended.stdout.lines().last() == Some("true");
        let shows = format!("{}{}", ended.stdout, ended.stderr).contains(shown_by(name));
        (!is_true || !shows).then(|| format!("the example of {name}: {ended}"))
    }

    async fn user_for(&self, name: &str, text: &str) -> PathBuf {
        let script = self.w.dir().join(format!("{name}.rhai"));
        std::fs::write(&script, text).expect("a file can be written");
        let (script, account) = (script.display().to_string(), name.replace('_', "-"));
        let words = ["rbac", &script, "--service-account", &account, "--output", "json"];
        let roles = self.w.pvmigrate(&words).await.succeeds();
        assert!(!roles.stderr.contains("to be completed"), "{roles}");
        self.w.granted_user(&serde_json::from_str(&roles.stdout).expect("it is JSON")).await
    }

    /// Those of one kind, each on the cluster as the ones before it left it.
    async fn hold(&self, examples: &[&Value]) {
        assert!(!examples.is_empty());
        let mut faults = Vec::new();
        for example in examples {
            faults.extend(self.fault_of(example).await);
            self.all_run().await;
            let left = self.w.leftovers().await;
            if !left.is_empty() {
                faults.push(format!("the example of {} leaves {left:?}", example["name"]));
                break;
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    }
}

/// What a person sees of those whose effect is nothing else.
fn shown_by(name: &str) -> &'static str {
    match name {
        "confirm" => "move 2 claims",
        "log" => "hello",
        "table" => "CLAIM",
        _ => "",
    }
}

/// All that the reference has, in its order.
async fn examples(w: &World) -> Vec<Value> {
    let said = w.pvmigrate(&["doc", "--output", "json"]).await.succeeds();
    let all: Vec<Value> = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert!(all.len() >= 35, "{} examples", all.len());
    all
}

fn only_looks(example: &Value) -> bool {
    matches!(example["effect"].as_str(), Some("reads" | "controls"))
}

/// The default class is everybody's.
fn changes_the_default(example: &Value) -> bool {
    example["example"].as_str().is_some_and(|text| text.contains("set_default_sc("))
}

cluster_test!(the_examples_that_look_are_true_and_change_nothing, async |w: &World| {
    let tale = tale(w).await;
    let before = w.picture().await;
    let all = examples(w).await;
    tale.hold(&all.iter().filter(|one| only_looks(one)).collect::<Vec<_>>()).await;
    // In the lab each example has an account of its own.
    let mut now = w.picture().await;
    now.0.retain(|key, _| {
        before.0.contains_key(key) || !key.starts_with("ServiceAccount ") && !key.starts_with("Secret ")
    });
    assert_eq!(before.changes(&now), Vec::<String>::new());
});

cluster_test!(the_examples_that_change_do_what_they_say_and_clean_up, async |w: &World| {
    let tale = tale(w).await;
    let (of_data, of_db) = (w.pv_of("data").await, w.pv_of("data-db-0").await);
    let all = examples(w).await;
    tale.hold(&all.iter().filter(|one| !only_looks(one) && !changes_the_default(one)).collect::<Vec<_>>()).await;
    // The one of rebind keeps its source, the one of free_pv does not.
    for (claim, source, is_kept) in [("data", &of_data, true), ("data-db-0", &of_db, false)] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], tale.fast.as_str(), "{claim}");
        let name = source["metadata"]["name"].as_str().expect("a volume has a name");
        assert_eq!(w.find("pv", name).await.is_some(), is_kept, "{claim}");
        assert_eq!(w.volume_dir(source).expect("it has a directory").exists(), is_kept, "{claim}");
    }
    // Each run that stopped something told so, although all have done it in the same steps.
    let stops = |one: &&Value| one["example"].as_str().is_some_and(|text| text.contains("stop("));
    let events = w.list("Event").await;
    let told = events.iter().filter(|event| event["reason"] == "StoppedForMigration").count();
    assert_eq!(told, all.iter().filter(stops).count());
    w.still_intact().await;
});

cluster_test!(exclusive the_example_of_the_default_class_leaves_one, async |w: &World| {
    let tale = tale(w).await;
    let all = examples(w).await;
    tale.hold(&all.iter().filter(|one| changes_the_default(one)).collect::<Vec<_>>()).await;
    let classes = w.request("GET", "/apis/storage.k8s.io/v1/storageclasses", Value::Null).await.expect("they are listed");
    let is_default = |class: &&Value| class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
    let defaults: Vec<&Value> = classes["items"].as_array().into_iter().flatten().filter(is_default).collect();
    assert_eq!(defaults.len(), 1, "{defaults:#?}");
    assert_eq!(defaults[0]["metadata"]["name"], tale.fast.as_str());
});

cluster_test!(the_readme_does_what_it_says, async |w: &World| {
    let tale = tale(w).await;
    let readme = read("README.md");

    // Its script: the larger claims of a namespace.
    let script = w.dir().join("larger.rhai");
    std::fs::write(&script, &blocks(&readme, "rhai")[0]).unwrap();
    let script = script.display().to_string();
    w.pvmigrate(&["run", &script, "--in", &w.ns, "--least", "0"])
        .await
        .succeeds()
        .says("CLAIM")
        .says("data-db-0")
        .says("33554432")
        .done();
    w.pvmigrate(&["run", &script, "--in", &w.ns]).await.succeeds().does_not_say("33554432").done();

    // Its move, and the table that it promises.
    let commands = blocks(&readme, "sh").concat().replace("\\\n", " ");
    let command = commands.lines().find_map(|line| line.strip_prefix("pvmigrate run sc-migrate")).expect("it is there");
    let command = tale.with_our_names(command);
    let words = [&["run", "sc-migrate"][..], &command.split_whitespace().collect::<Vec<_>>(), &["--yes"]].concat();
    let moved = w.pvmigrate(&words).await.succeeds();
    let promised = blocks(&readme, "text").concat();
    let columns = |text: &str| -> Vec<String> {
        let header = text.lines().find(|line| line.starts_with("CLAIM")).expect("a table has a head");
        header.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(columns(&moved.stdout), columns(&promised));
    for claim in ["data", "logs", "data-db-0"] {
        assert_eq!(w.get("pvc", claim).await["spec"]["storageClassName"], tale.fast.as_str());
    }
    // What its next sections say about the run.
    w.pvmigrate(&["runs"]).await.succeeds().says(&w.run_id()).done();
    w.pvmigrate(&["cleanup", &w.run_id(), "--yes"]).await.succeeds().done();
    tale.all_run().await;
    w.still_intact().await;
    assert_eq!(w.leftovers().await, Vec::<String>::new());
});
