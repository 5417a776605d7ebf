use super::*;
use serde_json::json;
use std::io::Write as _;

fn journal_in(dir: &std::path::Path) -> Result<Journal, Problem> {
    Journal::open(RunId::parse("0123abcd").unwrap(), Box::new(FileStore::open(dir)?))
}

/// Other tests of this process start programs: between fork and exec a child holds our lock for a moment.
fn reopened(dir: &std::path::Path) -> Journal {
    loop {
        match journal_in(dir) {
            Err(problem) if problem.kind == Kind::Conflict => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

fn why_damaged(dir: &std::path::Path) -> Kind {
    loop {
        match journal_in(dir).err().map(|problem| problem.kind) {
            Some(Kind::Conflict) => std::thread::yield_now(),
            kind => return kind.unwrap(),
        }
    }
}

fn retain() -> Write {
    Write {
        verb: Verb::Patch,
        gvk: Gvk { group: String::new(), version: "v1".into(), kind: "PersistentVolume".into() },
        namespace: String::new(),
        name: "pv-1".into(),
        body: json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
        precondition: Precondition::Uid("u1".into()),
        inverse: vec![],
        class: Class::Reversible,
    }
}

fn id(text: &str) -> StepId {
    StepId::new(text)
}

#[tokio::test]
async fn a_step_is_fresh_then_in_flight_then_done() {
    let dir = tempfile::tempdir().unwrap();
    {
        let journal = journal_in(dir.path()).unwrap();
        assert_eq!(journal.replay(&id("root/1"), "set_retain", "s", "a:1:1"), Ok(Replay::Fresh));
        journal.begin(&id("root/1"), "set_retain", "s", "a:1:1").unwrap();
        let permit = journal.permit(&id("root/1.retain"), "retain", &retain()).await.unwrap();
        assert!(permit.covers(&retain()));
        let other = Write { name: "pv-2".into(), ..retain() };
        assert!(!permit.covers(&other));
    }
    let journal = reopened(dir.path());
    assert_eq!(journal.replay(&id("root/1"), "set_retain", "s", "a:1:1"), Ok(Replay::Redo));
    assert_eq!(journal.recorded(&id("root/1.retain")).unwrap().write, Some(retain()));
    assert!(journal.has_written());
    journal.done(&id("root/1"), "set_retain", json!("pv-1")).unwrap();
    assert_eq!(journal.replay(&id("root/1"), "set_retain", "s", "a:1:1"), Ok(Replay::Done(json!("pv-1"))));
}

#[test]
fn a_failure_is_replayed_only_if_the_script_went_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    let problem = Problem::new(Kind::Voided, "somebody wrote");
    journal.fail(&id("root/4"), "rebind", "s", "a:1:1", &problem).unwrap();
    assert_eq!(journal.replay(&id("root/4"), "rebind", "s", "a:1:1"), Ok(Replay::Redo));
    journal.observe(&id("root/5"), "get_pv", "s", "a:2:1", json!(1)).unwrap();
    assert_eq!(journal.replay(&id("root/4"), "rebind", "s", "a:1:1"), Ok(Replay::Failed(problem)));
    // A step of another branch proves nothing about this one.
    journal.fail(&id("root/6~a/1"), "rebind", "s", "a:1:1", &Problem::refused("no")).unwrap();
    journal.observe(&id("root/6~b/9"), "get_pv", "s", "a:2:1", json!(1)).unwrap();
    assert_eq!(journal.replay(&id("root/6~a/1"), "rebind", "s", "a:1:1"), Ok(Replay::Redo));
}

#[test]
fn another_operation_or_other_arguments_at_an_id_diverge() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    journal.observe(&id("root/1"), "get_pv", "s", "a:1:1", json!(1)).unwrap();
    for (op, sig) in [("get_pvc", "s"), ("get_pv", "t")] {
        let problem = journal.replay(&id("root/1"), op, sig, "a:9:9").unwrap_err();
        assert_eq!(problem.kind, Kind::Diverged);
        assert!(problem.message.contains("a:1:1") && problem.message.contains("a:9:9"), "{problem}");
    }
}

#[test]
fn a_torn_last_line_is_cut_and_any_other_damage_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let journal = journal_in(dir.path()).unwrap();
        journal.observe(&id("root/1"), "get_pv", "s", "", json!("é")).unwrap();
    }
    let path = dir.path().join("journal.jsonl");
    let whole = std::fs::read(&path).unwrap();
    let next = String::from_utf8(whole.clone()).unwrap().replace("\"n\":0", "\"n\":1").replace("root/1", "root/2");
    // Whatever prefix of the second record reached the disk, the first one stands and the journal goes on.
    for cut in 0..next.len() {
        std::fs::write(&path, [&whole, &next.as_bytes()[..cut]].concat()).unwrap();
        let journal = reopened(dir.path());
        assert_eq!(journal.len(), 1, "cut at {cut}");
        journal.observe(&id("root/2"), "get_pv", "s", "", json!(2)).unwrap();
        drop(journal);
        assert_eq!(reopened(dir.path()).len(), 2, "cut at {cut}");
    }
    for damage in ["{\"v\":1\n", "garbage\n", &String::from_utf8(whole.clone()).unwrap().replace("\"v\":1", "\"v\":2")]
    {
        std::fs::write(&path, [damage.as_bytes(), &whole[..]].concat()).unwrap();
        assert_eq!(why_damaged(dir.path()), Kind::Diverged, "{damage}");
    }
    // A missing record in the middle.
    std::fs::write(&path, next.as_bytes()).unwrap();
    assert_eq!(why_damaged(dir.path()), Kind::Diverged);
}

#[test]
fn the_fold_is_total_and_refuses_what_cannot_be() {
    // For every phase: which records may follow.
    let event = |t: T| Event { err: Some(Problem::refused("no")), ..Event::new(t, &id("root/1"), "x") };
    let fresh = || State::default();
    let started = || {
        let mut state = State::default();
        state.next(&event(T::Start)).unwrap();
        state
    };
    let ended = |t: T| {
        let mut state = started();
        state.next(&event(t)).unwrap();
        state
    };
    let all = [T::Start, T::Done, T::Fail, T::Beat, T::End, T::Fact, T::Undone];
    for (name, make, allowed) in [
        ("fresh", &fresh as &dyn Fn() -> State, [true, true, true, false, true, true, false]),
        ("started", &started, [true, true, true, true, true, true, true]),
        ("done", &(|| ended(T::Done)), [false, false, false, false, true, true, true]),
        ("failed", &(|| ended(T::Fail)), [true, true, true, false, true, true, true]),
    ] {
        for (t, ok) in all.into_iter().zip(allowed) {
            assert_eq!(make().next(&event(t)).is_ok(), ok, "{t:?} after {name}");
        }
    }
}

#[test]
fn large_results_are_blobs_and_damage_to_them_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    let big = json!("x".repeat(100_000));
    journal.observe(&id("root/1"), "list_pvs", "s", "", big.clone()).unwrap();
    assert!(std::fs::metadata(dir.path().join("journal.jsonl")).unwrap().len() < 1000);
    assert_eq!(journal.replay(&id("root/1"), "list_pvs", "s", ""), Ok(Replay::Done(big)));
    let blob = std::fs::read_dir(dir.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    std::fs::OpenOptions::new().append(true).open(blob).unwrap().write_all(b"!").unwrap();
    let problem = journal.replay(&id("root/1"), "list_pvs", "s", "").unwrap_err();
    assert_eq!(problem.kind, Kind::Diverged);
}

#[test]
fn branches_that_read_the_same_large_object_at_once_all_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    let big = |number: usize| json!(format!("{number} {}", "x".repeat(100_000)));
    std::thread::scope(|scope| {
        for branch in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..20 {
                    let step = id(&format!("root/1~{branch}/{number}"));
                    journal.observe(&step, "list_pvs", "s", "", big(number)).unwrap();
                }
            });
        }
    });
    assert_eq!(journal.replay(&id("root/1~7/19"), "list_pvs", "s", ""), Ok(Replay::Done(big(19))));
    assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 20, "nothing is left half");
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = journal_in(dir.path()).unwrap();
    assert_eq!(journal_in(dir.path()).err().map(|p| p.kind), Some(Kind::Conflict));
}

#[test]
fn a_journal_of_the_first_version_is_read_for_ever() {
    let fixture = include_bytes!("../../tests/golden/journal-v1.jsonl");
    let mut state = State::default();
    for event in store::parse(fixture, std::path::Path::new("run")).unwrap() {
        state.next(&event).unwrap();
    }
    assert_eq!(state.writes, 2);
    assert_eq!(state.ended.get("root"), Some(&json!({"ok": true})));
    assert_eq!(state.facts.len(), 1);
    let step = &state.steps[&id("root/3~PersistentVolumeClaim:shop/data/1.retain")];
    assert_eq!(step.write.as_ref().map(|write| write.object().to_string()), Some("PersistentVolume:pv-1".into()));
    assert_eq!(step.sent, 2);
}

/// Counted, not measured: a run that is ten times as long costs ten times as much.
#[test]
fn closing_branches_looks_at_each_step_a_few_times_at_most() {
    for (branches, steps) in [(10, 60), (100, 60), (1000, 6), (1, 6000)] {
        let mut state = State::default();
        let mut done = |id: String| state.take(Event::new(T::Done, &StepId::new(id), "get_pv")).unwrap();
        for branch in 0..branches {
            for step in 0..steps {
                done(format!("root/1~all/1~shop/data-{branch}/{step}"));
            }
        }
        for branch in 0..branches {
            state.take(Event::new(T::End, &id(&format!("root/1~all/1~shop/data-{branch}")), "end")).unwrap();
        }
        state.take(Event::new(T::End, &id("root/1~all"), "end")).unwrap();
        // Once for its own branch, once for the one around it.
        assert_eq!(state.looked, 2 * branches * steps, "{branches} branches of {steps} steps");
    }
}

#[test]
fn a_branch_that_was_given_up_is_begun_anew_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    journal.give_up("root/3~shop/data", &Problem::refused("no room")).unwrap();
    journal.end("root/3~shop/logs", json!(1)).unwrap();
    drop(journal);
    let journal = reopened(dir.path());
    assert_eq!((journal.given_up("root/3~shop/data"), journal.given_up("root/3~shop/logs")), (1, 0));
    assert_eq!((journal.ended("root/3~shop/data"), journal.ended("root/3~shop/logs")), (None, Some(json!(1))));
}

#[test]
fn results_in_a_closed_branch_are_kept_on_disk_only() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path()).unwrap();
    let (inside, beside) = ("root/3~a/1", "root/3~a/1.x/1");
    for step in [inside, beside, "root/3~b/1"] {
        journal.observe(&id(step), "get_pv", "s", "here", json!({"of": step})).unwrap();
    }
    journal.end("root/3~a/2~in", json!("nested")).unwrap();
    journal.end("root/3~a/2/x", json!("beside")).unwrap();
    journal.end("root/3~a", json!("all of a")).unwrap();
    let check = |journal: &Journal| {
        let out = |step| match journal.recorded(&id(step)).unwrap().phase {
            Phase::Done { out, .. } => out.json(),
            other => panic!("{other:?}"),
        };
        assert_eq!(out(inside), json!(null));
        assert_eq!(out(beside), json!({"of": beside}), "an item called `a/1.x` is not inside of `a`");
        assert_eq!(out("root/3~b/1"), json!({"of": "root/3~b/1"}));
        let ended = |branch| journal.ended(branch);
        assert_eq!(
            [ended("root/3~a"), ended("root/3~a/2~in"), ended("root/3~a/2/x")],
            [Some(json!("all of a")), None, Some(json!("beside"))]
        );
    };
    check(&journal);
    drop(journal);
    check(&reopened(dir.path()));
    let text = std::fs::read_to_string(dir.path().join("journal.jsonl")).unwrap();
    assert!(text.contains(&json!({"of": inside}).to_string()), "the journal keeps it: {text}");
}
