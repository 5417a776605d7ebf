//! What a resumed run may believe: nothing that was copied or compared before the tool died, if anybody can have written since.

use super::shop::{asks_for_copy, copy_pod, count, id, is, shop};
use crate::world::{World, cluster_test};
use serde_json::Value;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// Somebody starts the workload that the dead tool has stopped, lets it write, and stops it again.
async fn used_meanwhile(w: &World) {
    let before: u64 = w.acknowledged().values().sum();
    w.scale("Deployment", "web", 1).await;
    w.ready("Deployment", "web").await;
    let writes = async || (w.acknowledged().values().sum::<u64>() > before + 200).then_some(());
    w.until("the workload to write", LONG, writes).await;
    w.stop_workload("Deployment", "web").await;
}

cluster_test!(what_was_written_after_the_final_pass_while_the_tool_was_dead_is_in_the_result, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let (_, step) = copy_pod(&mut run, "final").await;
    run.wait_for_event(|event| is(event, "done", &step)).await;
    run.kill9();
    assert_eq!(count(&w.events(), |event| id(event).ends_with(".delete-original")), 0, "the kill came too late");
    used_meanwhile(w).await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
});

cluster_test!(lab "the same as after the final pass" what_was_written_after_the_verification_while_the_tool_was_dead_is_in_the_result, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    let verified = |event: &Value| event["t"] == "fact" && event["out"]["fact"] == "verified";
    let old = run.wait_for_event(verified).await;
    run.kill9();
    assert_eq!(count(&w.events(), |event| id(event).ends_with(".delete-original")), 0, "the kill came too late");
    used_meanwhile(w).await;
    // What stands on the source now is what the new volume must have been made equal to before it was used.
    w.pvmigrate(&["resume"]).await.succeeds().done();
    let events = w.events();
    let new = events.iter().rfind(|event| verified(event)).expect("it was verified");
    assert_ne!(new["out"]["digest"], old["out"]["digest"], "the verification from before the death was believed");
    assert!(count(&events, |event| asks_for_copy(event, "final")) >= 2, "the final pass was not made again");
    shop.has_moved().await;
});

// Held up by a server that is away, the first signal waits for the step in hand; the second one does not.
cluster_test!(lab "the server must be away" a_second_signal_ends_the_process_at_once_and_the_run_goes_on_from_there, async |w: &World| {
    use rustix::process::Signal;
    let shop = shop(w, "slow", "fast").await;
    w.in_volume("data", |volume| {
        std::fs::create_dir(volume.join("bulk")).unwrap();
        (0..5_000).for_each(|n| std::fs::write(volume.join(format!("bulk/{n}")), [b'x'; 1000]).unwrap());
    })
    .await;
    let mut run = shop.start(&[]);
    copy_pod(&mut run, "hot").await;
    w.apiserver_down();
    // By now it reads again and again, which it does not give up for a signal.
    let since = Instant::now();
    w.until("it to ask in vain", LONG, async || (since.elapsed() > Duration::from_secs(2)).then_some(())).await;
    run.signal(Signal::INT);
    w.until("it to say so", LONG, async || run.said().contains("stopping after the step in hand").then_some(())).await;
    assert!(!run.has_ended(), "{}", run.said());
    let since = Instant::now();
    run.signal(Signal::TERM);
    run.wait().await.exits(130).done();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    w.apiserver_up().await;
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
    assert_eq!(w.digest("data").await.under("bulk").files.len(), 5_001);
});

// Also after a death in between, as it all comes from the journal.
cluster_test!(a_run_says_of_each_claim_what_it_has_proven_and_whether_that_was_changed, async |w: &World| {
    let shop = shop(w, "slow", "fast").await;
    let mut run = shop.start(&[]);
    run.wait_for_event(|event| is(event, "done", ".delete-original")).await;
    let dir = run.run_dir().expect("it has a journal");
    run.kill9();
    w.pvmigrate(&["resume"]).await.succeeds().done();
    shop.has_moved().await;
    let id = w.run_id();
    let show = async || -> Value {
        let shown = w.pvmigrate(&["runs", "show", &id, "--output", "json"]).await.succeeds();
        serde_json::from_str(&shown.stdout).expect("stdout is one JSON value")
    };
    let shown = show().await;
    let claims = shown["claims"].as_array().expect("it is a list");
    assert_eq!(claims.len(), 1, "{claims:#?}");
    let (claim, report) = (&claims[0], &claims[0]["report"]);
    assert_eq!((&claim["fits"], &claim["swapped"], &claim["voided"]), (&true.into(), &true.into(), &Value::Null));
    assert_eq!(report["claim"], format!("{}/data", w.ns));
    assert_eq!(report["source"]["digest"], report["target"]["digest"]);
    for (side, volume) in [("source", &shop.source), ("target", &w.pv_of("data").await)] {
        assert_eq!(report[side]["uid"], volume["metadata"]["uid"], "{side}");
        let texts = ["digest", "read_at", "handle"].map(|field| report[side][field].as_str().unwrap_or_default());
        assert!(texts.iter().all(|text| !text.is_empty()), "{side}: {texts:?}");
    }
    let web = w.get("Deployment", "web").await;
    let stopped = &report["workloads"][0];
    assert_eq!((&stopped["uid"], &stopped["replicas"]), (&web["metadata"]["uid"], &1.into()));
    // It was stopped with one generation and started with the next.
    let generations = [&stopped["generation"], &web["metadata"]["generation"]].map(Value::as_i64);
    assert!(generations[0].is_some_and(|then| then > 1) && generations[0] < generations[1], "{generations:?}");
    assert!(report["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1), "{report}");
    assert!(report["watched_from"].as_str().is_some_and(|version| version.parse::<u64>().is_ok()), "{report}");
    assert!(report["downtime_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    assert!(report["files"].as_u64().is_some_and(|files| files > 0) && report["waived"] == serde_json::json!({}));
    let digest = claim["digest"].as_str().expect("it has one");
    let text = w.pvmigrate(&["runs", "show", &id]).await.succeeds();
    text.says(&format!("claim {}/data: the claim is on the target", w.ns)).says(&format!("{digest}: it fits")).done();
    // Somebody makes the books look better.
    let journal = dir.join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).expect("the journal can be read");
    let (from, to) =
        (format!("\"verified_at\":{}", report["verified_at"]), "\"verified_at\":\"2020-01-01T00:00:00.000Z\"");
    assert!(text.contains(&from), "{from}");
    std::fs::write(&journal, text.replace(&from, to)).expect("the journal can be written");
    assert_eq!(show().await["claims"][0]["fits"], false);
    w.pvmigrate(&["runs", "show", &id]).await.succeeds().says("IT DOES NOT FIT").done();
});
