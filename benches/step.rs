//! What the journal costs a step: the record of a write made durable, and the record of its end.
//!
//! `cargo bench --bench step` prints medians. Target: at most 1 ms over the step's own requests.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures and prints")]

use pvmigrate::journal::{Class, FileStore, Gvk, Journal, Precondition, StepId, Verb, Write};
use pvmigrate::words::RunId;
use serde_json::json;
use std::time::Instant;

const STEPS: usize = 2000;

fn main() {
    let dir = tempfile::tempdir().expect("a directory for the journal");
    let store = FileStore::open(dir.path()).expect("a new journal");
    let journal = Journal::open(RunId::random(), Box::new(store)).expect("a new journal");
    let write = Write {
        verb: Verb::Patch,
        gvk: Gvk { group: String::new(), version: "v1".into(), kind: "PersistentVolume".into() },
        namespace: String::new(),
        name: "pv-1".into(),
        body: json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
        precondition: Precondition::Uid("u1".into()),
        inverse: Vec::new(),
        class: Class::Reversible,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a thread of its own");
    let mut micros: Vec<u128> = (0..STEPS)
        .map(|number| {
            let id = StepId::in_branch("root", number as u64 + 1);
            let begun = Instant::now();
            let permit = runtime.block_on(journal.permit(&id, "retain", &write)).expect("the disk has room");
            drop(permit);
            journal.done(&id, "retain", json!({"kind": "PersistentVolume"})).expect("the disk has room");
            begun.elapsed().as_micros()
        })
        .collect();
    micros.sort_unstable();
    println!("a journaled step: median {} µs, 99 % {} µs, of {STEPS}", micros[STEPS / 2], micros[STEPS * 99 / 100]);
}
