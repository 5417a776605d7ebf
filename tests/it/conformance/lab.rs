//! The lab is told the stories, and what it says is held against what the real cluster said.

use super::random::{differential, seeds, sequences};
use super::real::real_server;
use super::replay::replay;
use super::report;
use super::server::Server;
use crate::world::{Bench, Sharing, Where, World, run};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The lab as the stories see it.
async fn lab_server(kubeconfig: &Path, dir: &Path, labels: Value) -> Server {
    let dir = dir.to_string_lossy().into_owned();
    let words = [
        ("class", "fast"),
        ("late", "disk-b"),
        ("provisioner", "shared.lab.pvmigrate.io"),
        ("agent", "docker.io/pvmigrate/agent:lab"),
        ("dir", dir.as_str()),
    ];
    let mut server = Server::of(kubeconfig, &words, labels).await;
    server.patience = Duration::from_secs(20);
    server.rest = Duration::from_millis(300);
    server
}

#[test]
fn the_lab_says_what_was_recorded_of_kubernetes() {
    run("conformance", Where::Lab, Sharing::Shared, async |w: &World| {
        let server = lab_server(w.kubeconfig(), w.dir(), json!({})).await;
        let told = replay(&server).await;
        told.assert_nothing_is_wrong();
        report::hold(&told);
    });
}

#[test]
#[ignore = "needs the real cluster: PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored real"]
fn a_random_sequence_ends_alike_in_the_lab_and_on_the_real_cluster() {
    run("differential", Where::Real, Sharing::Shared, async |w: &World| {
        let real = real_server(w).await;
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().to_owned();
        let bench = tokio::task::spawn_blocking(move || Bench::open(&path)).await.expect("a lab can be made");
        let lab = lab_server(&bench.kubeconfig, dir.path(), w.labels()).await;
        differential(&real, &lab, &seeds(), sequences()).await;
        tokio::task::spawn_blocking(move || drop(bench)).await.expect("a lab can be ended");
    });
}
