//! The real cluster: what it says is recorded, and asked for again, so that what is recorded is known to be stable.

use super::golden;
use super::random::{differential, seeds, sequences};
use super::replay::{replay, tell_all, unstable};
use super::server::Server;
use super::story::topics;
use crate::world::{World, cluster_test};
use serde_json::Value;
use std::time::Duration;

/// The real cluster as the stories see it. `late` is the class of disks; they are slower than directories.
pub async fn real_server(w: &World) -> Server {
    let dir = w.dir().to_string_lossy().into_owned();
    let image = w.image();
    let words = [
        ("class", "fast"),
        ("late", "disk-b"),
        ("provisioner", "kubernetes.io/host-path"),
        ("agent", image.as_str()),
        ("dir", dir.as_str()),
    ];
    let mut server = Server::of(w.kubeconfig(), &words, w.labels()).await;
    server.patience = Duration::from_secs(90);
    server
}

#[test]
#[ignore = "writes tests/golden/api: PVMIGRATE_RECORD=1 PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored record"]
fn record() {
    if std::env::var_os("PVMIGRATE_RECORD").is_none() {
        return;
    }
    crate::world::run("record", crate::world::Where::Real, crate::world::Sharing::Shared, async |w: &World| {
        let server = real_server(w).await;
        let (_, version) = server.json("GET", "/version", &Value::Null).await;
        let version = version["gitVersion"].as_str().expect("a server says its version").to_owned();
        let topics = topics();
        let said = tell_all(&server, &topics).await;
        let vain: Vec<String> = said
            .iter()
            .flat_map(|(topic, stories)| stories.iter().map(move |(story, answers)| (topic, story, answers)))
            .filter_map(|(topic, story, answers)| {
                let last = answers.last().filter(|answer| answer.code == 0)?;
                Some(format!("{topic}/{story}: {} in vain: {}", last.step, last.body))
            })
            .collect();
        for (topic, stories) in &said {
            let mut whole = golden::read(topic).unwrap_or_default();
            let known = topics.iter().find(|one| one.name == *topic).expect("it was told");
            if std::env::var_os("PVMIGRATE_STORIES").is_none() {
                whole.retain(|story, _| known.stories.iter().any(|one| one.name == *story));
            }
            let before = [(topic.clone(), whole.clone())].into();
            let now = [(topic.clone(), stories.clone())].into();
            unstable(&before, &now).iter().for_each(|line| eprintln!("new: {:.300}", line));
            whole.extend(stories.clone());
            golden::write(topic, &version, &whole);
        }
        assert!(vain.is_empty(), "{}", vain.join("\n"));
    });
}

cluster_test!(real "the lab is told the same stories by its own test" the_real_cluster_says_what_was_recorded, async |w: &World| {
    let server = real_server(w).await;
    let report = replay(&server).await;
    report.assert_nothing_is_wrong();
});

cluster_test!(real "it shows which sequences are no good, before the lab is compared" two_runs_of_a_random_sequence_end_alike_on_the_real_cluster, async |w: &World| {
    // The same server twice: what differs here is a race of the sequence itself, and would be blamed on another server.
    let server = real_server(w).await;
    differential(&server, &server, &seeds(), sequences()).await;
});
