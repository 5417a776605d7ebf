//! What a move costs on a real cluster: requests for each claim, and downtime of each workload.
//!
//! `PVMIGRATE_TEST_CLUSTER=.../cluster cargo bench --bench move`. Targets: at most 40 requests for each claim besides the
//! guards' reads and watches; a downtime of at most the pods' termination, the last delta and 10 s; `--version` in 20 ms.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    unused_macros,
    reason = "a bench measures and prints, and uses a part of the tests' world"
)]

#[path = "../tests/it/world/mod.rs"]
mod world;

use std::process::Command;
use std::time::{Duration, Instant};
use world::{Sharing, World, opts};

const CLAIMS: usize = 4;

fn main() {
    start();
    if std::env::var_os("PVMIGRATE_TEST_CLUSTER").is_none() {
        println!("PVMIGRATE_TEST_CLUSTER names no cluster: nothing is moved");
        return;
    }
    world::run("bench", world::Where::Real, Sharing::Exclusive, async |w: &World| {
        for at_once in [1, CLAIMS] {
            moved(w, at_once).await;
        }
    });
}

/// Until the first word of the program.
fn start() {
    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let begun = Instant::now();
            let said = Command::new(env!("CARGO_BIN_EXE_pvmigrate")).arg("--version").output().expect("it runs");
            assert!(said.status.success());
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("--version: median {:.1?}, slowest {:.1?}", times[times.len() / 2], times[times.len() - 1]);
}

async fn moved(w: &World, at_once: usize) {
    let (slow, fast) = (w.class("slow").await, w.class("fast").await);
    for n in 0..CLAIMS {
        let claim = format!("data-{at_once}-{n}");
        w.claim(&claim, &slow, "32Mi", &["ReadWriteOnce"]).await;
        w.exercise_deployment(&format!("web-{at_once}-{n}"), 1, &[("data", &claim)], opts()).await;
    }
    for n in 0..CLAIMS {
        w.ready("Deployment", &format!("web-{at_once}-{n}")).await;
    }
    let (image, parallel) = (w.image(), at_once.to_string());
    let args = ["run", "sc-migrate", "--source-sc", &slow, "--dest-sc", &fast, "--image", &image, "--yes", "--verbose"];
    let begun = Instant::now();
    let outcome =
        w.pvmigrate(&[&args[..], &["--namespace", &w.ns, "--parallel", &parallel, "--output", "json"]].concat());
    let outcome = outcome.await.succeeds();
    let took = begun.elapsed();
    let counts = outcome.stderr.lines().rev().find(|line| line.contains("requests: ")).expect("it counts its requests");
    let numbers = counts.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<f64>().ok());
    let each: Vec<String> = numbers.map(|number| format!("{:.1}", number / CLAIMS as f64)).collect();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("one table as JSON");
    let mut downtimes: Vec<f64> =
        rows.as_array().into_iter().flatten().filter_map(|row| row["downtime_s"].as_f64()).collect();
    downtimes.sort_by(f64::total_cmp);
    println!("{CLAIMS} claims, {at_once} at once, in {took:.1?}");
    println!("  each: {} reads, {} more of guards, {} writes, {} watches", each[0], each[1], each[2], each[3]);
    println!("  downtimes: {downtimes:?} s");
    w.still_intact().await;
}
