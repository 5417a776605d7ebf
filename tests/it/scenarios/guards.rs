//! Scripts that try to lose data, each against one rule of the host: `tests/evil/*.rhai`.

use crate::world::{World, cluster_test, opts};
use serde_json::json;
use std::path::PathBuf;

cluster_test!(no_evil_script_gets_past_the_guards, async |w: &World| {
    let (slow, keep) = (w.class("slow").await, w.class_with("slow", json!({"reclaimPolicy": "Retain"})).await);
    for (claim, class) in [("data", &slow), ("spare", &slow), ("kept", &keep), ("released", &keep)] {
        w.claim(claim, class, "32Mi", &["ReadWriteOnce"]).await;
        w.ready("pvc", claim).await;
        w.in_volume(claim, |volume| std::fs::write(volume.join("precious"), claim).unwrap()).await;
    }
    let released = w.pv_of("released").await;
    w.delete("pvc", "released").await;
    w.gone("pvc", "released").await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    w.exercise_statefulset("db", 1, &slow, "32Mi", opts()).await;
    w.ready("Deployment", "web").await;
    w.ready("StatefulSet", "db").await;

    let before = w.picture().await;
    let bytes = async || {
        let mut all = vec![w.digest_of_pv(&released)];
        for claim in ["data", "spare", "kept", "data-db-0"] {
            // What the workloads write goes on; the rest stands still.
            all.push(w.digest(claim).await.under("precious"));
        }
        all
    };
    let bytes_before = bytes().await;
    let mut failures = Vec::new();
    for script in scripts() {
        let name = script.file_stem().expect("a script has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&script).expect("it can be read");
        assert!(text.lines().count() <= 10, "{name} is longer than ten lines");
        let refused =
            text.lines().find_map(|line| line.strip_prefix("//! refused: ")).expect("it says how it is refused");
        let path = script.to_string_lossy();
        let outcome = w.pvmigrate(&["run", &path, "--namespace", &w.ns, "--yes"]).await;
        if !matches!(outcome.code, Some(2..=5)) || !outcome.stderr.contains(refused) {
            failures.push(format!("{name} was not refused with {refused:?}: {outcome}"));
        }
        let changes = before.changes(&w.picture().await);
        if !changes.is_empty() || bytes().await != bytes_before {
            failures.push(format!("{name} changed something: {changes:#?}"));
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    w.still_intact().await;
});

fn scripts() -> Vec<PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/evil");
    let files = std::fs::read_dir(dir).expect("the evil scripts are there");
    let mut scripts: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 20, "{} evil scripts", scripts.len());
    scripts
}
