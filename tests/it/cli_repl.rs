//! `pvmigrate repl` without a terminal: what it prints, where it stops, what it leaves behind.

use crate::world::{World, cluster_test};
use pvmigrate::journal::{RunFile, Runs};
use pvmigrate::words::RunId;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn pvmigrate(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pvmigrate"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .args(args)
        .env("NO_COLOR", "1")
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_server_that_is_away_is_said_at_once_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: shop\nclusters: [{name: shop, cluster: {server: \"http://127.0.0.1:1\"}}]\n\
                users: [{name: me, user: {}}]\ncontexts: [{name: shop, context: {cluster: shop, user: me}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let out = pvmigrate(dir.path(), &["repl", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot reach the cluster at http://127.0.0.1:1"), "{said}");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn a_session_cannot_be_resumed_and_it_is_said_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunId::random();
    let mut file = RunFile::new(run.clone(), "repl");
    file.cluster_uid = "u".into();
    drop(Runs::new(&dir.path().join("state")).create(&file).unwrap());
    let out = pvmigrate(dir.path(), &["resume", run.as_str()]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    for line in ["was typed line by line: there is no script to go on with", &format!("pvmigrate runs show {run}")] {
        assert!(said.contains(line), "{said}");
    }
}

cluster_test!(a_look_leaves_nothing_behind, async |w: &World| {
    let look = format!("list_pvcs(#{{ namespace: \"{}\" }})", w.ns);
    let typed = format!("fn twice(x) {{\n  x * 2\n}}\n{look}\ntwice(_.len() + 1)\n");
    let out = w.pvmigrate(&["repl"]).typing(&typed).await.succeeds();
    assert_eq!(out.stdout, "[]\n2\n");
    w.pvmigrate(&["runs"]).await.succeeds().says("no runs yet").done();
});

cluster_test!(the_first_failure_ends_a_session_and_what_was_changed_is_journaled, async |w: &World| {
    let note = format!(
        "apply_object(#{{ apiVersion: \"v1\", kind: \"ConfigMap\", metadata: #{{ name: \"note\", namespace: \"{}\" }} }});\n",
        w.ns
    );
    w.pvmigrate(&["repl"]).typing(&note).await.succeeds().says("what was changed: pvmigrate runs show").done();
    w.get("ConfigMap", "note").await;
    w.pvmigrate(&["runs", "show", &w.run_id()]).await.succeeds().says("apply_object(").says("create ConfigMap").done();
    let typed = format!("get_object(\"ConfigMap\", \"{}\", \"none\")\n{note}", w.ns);
    w.delete("ConfigMap", "note").await;
    w.pvmigrate(&["repl"]).typing(&typed).await.exits(3).says("does not exist").says("nothing was changed").done();
    assert!(w.find("ConfigMap", "note").await.is_none());
    w.pvmigrate(&["runs"]).await.succeeds().says("done").does_not_say("refused").done();
});
