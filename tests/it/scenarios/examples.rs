//! Every example of the reference is carried out, so that whoever pastes one sees what is written there.

use crate::world::{World, cluster_test, opts};
use serde_json::json;

/// Name and example of each function, as the reference has them.
fn examples() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/primitives.md");
    let text = std::fs::read_to_string(path).unwrap();
    let parts = text.split("\n### ").skip(1);
    parts
        .map(|part| {
            let name = part.lines().next().unwrap_or_default().to_owned();
            let code = part.split("```rhai\n").nth(1).and_then(|rest| rest.split("\n```").next());
            (name.clone(), code.unwrap_or_else(|| panic!("{name} has no example")).to_owned())
        })
        .collect()
}

cluster_test!(exclusive every_example_of_the_reference_is_true, async |w: &World| {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for claim in ["data", "logs"] {
        w.claim(claim, &slow, "64Mi", &["ReadWriteOnce"]).await;
    }
    w.exercise_deployment("web", 1, &[("data", "data"), ("logs", "logs")], opts()).await;
    w.ready("Deployment", "web").await;
    let volume = w.pv_of("data").await["metadata"]["name"].as_str().unwrap().to_owned();
    let option = format!(", t, #{{ image: \"{}\" }})", w.image());
    let all = examples();
    assert!(all.len() > 30, "{} examples", all.len());
    for (name, example) in all {
        let mine = example.replace("\"shop\"", &format!("\"{}\"", w.ns)).replace("\"shop/", &format!("\"{}/", w.ns));
        let mine = mine.replace("\"slow\"", &format!("\"{slow}\"")).replace("\"fast\"", &format!("\"{fast}\""));
        let mine = mine.replace("_pod(s, t)", &format!("_pod(s{option}")).replace("_copy(s, t)", &format!("_copy(s{option}"));
        let said = w.pvmigrate(&["eval", "--yes", &mine]).await;
        assert!(said.code == Some(0) && said.stdout.trim().ends_with("true"), "{name}: {said}");
        // The next example is another run's.
        let hand = ["run", "step", "policy"].map(|word| (format!("pvmigrate.io/{word}"), json!(null)));
        let hand: serde_json::Map<_, _> = hand.into_iter().collect();
        w.patch("pv", &volume, json!({"metadata": {"annotations": hand}})).await;
    }
    w.ready("Deployment", "web").await;
    w.still_intact().await;
});
