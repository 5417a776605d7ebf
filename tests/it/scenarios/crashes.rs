//! kill -9 at chosen instants, and what `resume` does with what is left.

use super::shop::{Shop, asks_for_copy, copy_pod, id, is, part, shop};
use crate::world::{Running, World, cluster_test};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Kills the run as soon as an event fits, checks by the journal that the kill came in time, resumes, and wants the end
/// state of an undisturbed run. `not_yet`, given that event and another, tells what must not have happened by then.
async fn killed_and_resumed(
    w: &World,
    shop: &Shop<'_>,
    at: impl Fn(&Value) -> bool,
    not_yet: impl Fn(&Value, &Value) -> bool,
) {
    let mut run = shop.start(&[]);
    let at = run.wait_for_event(at).await;
    killed_in_time(w, run, |event| not_yet(&at, event));
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
}

fn killed_in_time(w: &World, run: Running, not_yet: impl Fn(&Value) -> bool) {
    run.kill9();
    let events = w.events();
    let late = events.iter().find(|event| not_yet(event));
    assert!(late.is_none(), "the kill came too late: {late:#?}");
}

cluster_test!(a_run_killed_during_a_hot_copy_is_resumed, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let (_, step) = copy_pod(&mut run, "hot").await;
    killed_in_time(w, run, |event| is(event, "done", &step));
    let done = w.pvmigrate(&["resume"]).await.succeeds();
    assert!(done.stdout.contains("data"), "{done}");
    shop.has_moved().await;
    let id = w.run_id();
    w.pvmigrate(&["resume", &id]).await.succeeds().says("nothing to resume").done();
    w.pvmigrate(&["resume"]).await.exits(2).says("there is no stopped run").done();
});

cluster_test!(a_run_killed_during_the_final_pass_is_resumed, async |w: &World| {
    let shop = shop(w, "disk-a", "disk-b").await;
    let mut run = shop.start(&[]);
    let (_, step) = copy_pod(&mut run, "final").await;
    killed_in_time(w, run, |event| is(event, "done", &step));
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_run_killed_between_its_verification_and_the_swap_copies_again, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let verified = |event: &Value| event["t"] == "fact" && event["out"]["fact"] == "verified";
    killed_and_resumed(w, &shop, verified, |_, event| id(event).ends_with(".delete-original")).await;
    let passes = w.events().iter().filter(|event| asks_for_copy(event, "final")).count();
    assert!(passes >= 2, "the final pass from before the crash was trusted");
});

cluster_test!(a_run_killed_between_deletion_and_creation_is_resumed, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let deleted = |event: &Value| is(event, "done", ".delete-original");
    killed_and_resumed(w, &shop, deleted, |at, event| is(event, "done", &part(at, "create"))).await;
});

cluster_test!(a_run_killed_before_the_start_is_resumed, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let swapped = |event: &Value| event["t"] == "fact" && event["out"]["fact"] == "swapped";
    killed_and_resumed(w, &shop, swapped, |_, event| id(event).ends_with(".start")).await;
});

cluster_test!(a_run_is_resumed_only_once_only_here_and_only_if_known, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    run.wait_for_event(|event| is(event, "done", ".stop")).await;
    let file = run.run_dir().expect("it has a journal").join("run.json");
    killed_in_time(w, run, |event| id(event).ends_with(".delete-original"));
    let id = w.run_id();

    w.pvmigrate(&["resume", "00000000"]).await.exits(2).says("00000000 is not known").done();

    let here = std::fs::read_to_string(&file).expect("the run file can be read");
    let mut there: Value = serde_json::from_str(&here).expect("it is JSON");
    there["cluster_uid"] = "11111111-2222-3333-4444-555555555555".into();
    std::fs::write(&file, there.to_string()).expect("it can be written");
    let at_rest = async || w.list("Pod").await.is_empty().then_some(());
    w.until("all pods to be gone", Duration::from_secs(60), at_rest).await;
    let before = w.picture().await;
    w.pvmigrate(&["resume", &id]).await.exits(5).says("belongs to another cluster").done();
    w.unchanged_since(&before).await;
    std::fs::write(&file, here).expect("it can be written");

    let mut first = w.start(&["resume", &id]);
    first.wait_for_event(|_| true).await;
    w.pvmigrate(&["resume", &id]).await.exits(3).says("being executed by another process").done();
    first.wait().await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(a_state_directory_that_fills_up_stops_the_run_and_loses_nothing, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let Small(dir) = &Small::new(w.dir().join("small"));
    let mut run = w.pvmigrate(&shop.args(&[])).state_dir(dir).start();
    copy_pod(&mut run, "hot").await;
    // To the last byte: the next record is written by half or not at all.
    let filler = dir.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 64]).is_ok() {}
    drop(file);
    let stopped = run.wait().await.exits(4);
    stopped.says("the journal cannot be written").says("No space left").says("pvmigrate resume").done();
    fs::remove_file(&filler).unwrap();
    w.pvmigrate(&["resume"]).state_dir(dir).await.succeeds().done();
    shop.has_moved().await;
});

/// A file system of one MiB, as long as it lives.
struct Small(PathBuf);

impl Small {
    fn new(dir: PathBuf) -> Small {
        fs::create_dir(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&dir).status();
        assert!(mounted.unwrap().success(), "a small file system can be mounted");
        Small(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
