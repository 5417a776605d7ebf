//! Words in which the tests of refusals speak about what a run told.

use crate::world::{INERT, Outcome, World};
use serde_json::Value;
use std::time::Duration;

/// Judges the refusals of a run with `--output json`: each of these, as object and part of the reason, with a hint, and
/// no others.
#[track_caller]
pub fn tells_exactly(outcome: &Outcome, wanted: &[(String, &str)]) {
    let rows: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome}"));
    let told: Vec<(&str, &str)> = rows
        .as_array()
        .expect("refusals are a list")
        .iter()
        .map(|row| {
            assert!(row["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "no hint: {row}");
            (row["object"].as_str().expect("it has an object"), row["reason"].as_str().expect("it has a reason"))
        })
        .collect();
    let fits = |told: &(&str, &str), wanted: &(String, &str)| told.0 == wanted.0 && told.1.contains(wanted.1);
    let missing: Vec<_> = wanted.iter().filter(|wanted| !told.iter().any(|told| fits(told, wanted))).collect();
    let beyond: Vec<_> = told.iter().filter(|told| !wanted.iter().any(|wanted| fits(told, wanted))).collect();
    assert!(missing.is_empty() && beyond.is_empty(), "not told: {missing:#?}\nnot expected: {beyond:#?}\n{outcome}");
}

/// Waits until the controller of a workload without pods has looked at it: a picture taken before would change by itself.
pub async fn is_seen(w: &World, kind: &str, name: &str) {
    if w.get(kind, name).await["metadata"]["labels"][INERT] == "true" {
        return;
    }
    let seen = async || (w.get(kind, name).await["status"]["observedGeneration"].as_i64() >= Some(1)).then_some(());
    w.until(&format!("the controller of {name} to see it"), Duration::from_secs(60), seen).await;
}
