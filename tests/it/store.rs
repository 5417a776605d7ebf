//! The journal in ConfigMaps, on the lab's API: whole after whatever happens to its requests, small, and never another
//! process's.

use pvmigrate::cluster::keep::{Bookkeeping, Kept};
use pvmigrate::cluster::store::{ClusterStore, Shelf, runs};
use pvmigrate::cluster::{self, Cluster};
use pvmigrate::journal::{Event, Journal, Replay, RunFile, RunStatus, Source, StepId, Store as _};
use pvmigrate::lab::faults::{Fault, Faults};
use pvmigrate::lab::kubelet::Images;
use pvmigrate::lab::{Lab, Options};
use pvmigrate::words::{Kind, RunId};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::runtime::Runtime;

const NS: &str = "default";
const RUN: &str = "0123abcd";

struct Place {
    lab: Lab,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

fn run() -> RunId {
    RunId::parse(RUN).unwrap()
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let images = Images { by_name: Default::default() };
        let options = Options { dir: dir.path().join("lab"), images, shared: Vec::new(), seed: 7, keep: false };
        let lab = Lab::open(options).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Place { lab, runtime, _dir: dir }
    }

    fn shelf_over(&self, faults: &Faults) -> Shelf {
        let cluster: Cluster = self.runtime.block_on(async { cluster::over(faults.transport(), "lab") });
        Shelf { cluster, namespace: NS.into() }
    }

    fn shelf(&self) -> Shelf {
        self.shelf_over(&Faults::new(&self.lab, Vec::new()))
    }

    fn file(&self) -> RunFile {
        let mut file = RunFile::new(run(), "sc-migrate");
        file.namespace = NS.into();
        file.sources = vec![Source { name: "sc-migrate".into(), text: "// script".into() }];
        file
    }

    fn create(&self, shelf: Shelf) -> ClusterStore {
        ClusterStore::create(shelf, self.runtime.handle().clone(), &self.file()).unwrap()
    }

    fn open(&self) -> ClusterStore {
        ClusterStore::open(self.shelf(), self.runtime.handle().clone(), &run()).unwrap().1
    }

    fn begin(&self) -> Journal {
        Journal::open(run(), Box::new(self.create(self.shelf()))).unwrap()
    }

    fn resume(&self) -> Journal {
        Journal::open(run(), Box::new(self.open())).unwrap()
    }

    /// The names of the run's ConfigMaps that begin so, after what all of them begin with.
    fn names(&self, what: &str) -> Vec<String> {
        let prefix = format!("pvmigrate-{RUN}{what}");
        let all = self
            .lab
            .core()
            .look(|state| state.list("ConfigMap", NS).map(|(key, _)| key.name.clone()).collect::<Vec<_>>());
        all.into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    fn map(&self, name: &str) -> Value {
        self.lab.core().look(|state| state.get("ConfigMap", NS, name).map(|map| (**map).clone())).unwrap()
    }

    /// Somebody puts labels and notes on a ConfigMap.
    fn mark(&self, name: &str) {
        let mut map = self.map(name);
        map["metadata"]["labels"] = json!({"mine": "yes"});
        map["metadata"]["annotations"] = json!({"note": "looked at"});
        let cluster = self.shelf().cluster;
        let marking = async { cluster.keep_anew(&Bookkeeping::default(), Kept::ConfigMap, &map).await };
        self.runtime.block_on(marking).unwrap();
    }

    /// Somebody makes another ConfigMap of it: those that are sealed can only be replaced.
    fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut map = self.map(name);
        self.delete(name);
        edit(&mut map);
        let map = json!({"metadata": {"name": name, "labels": map["metadata"]["labels"]}, "data": map["data"]});
        let cluster = self.shelf().cluster;
        let making = async { cluster.keep(&Bookkeeping::default(), Kept::ConfigMap, NS, &map).await };
        self.runtime.block_on(making).unwrap();
    }

    fn delete(&self, name: &str) {
        let (cluster, map) = (self.shelf().cluster, self.map(name));
        let removing = async { cluster.keep_no_more(&Bookkeeping::default(), Kept::ConfigMap, &map).await };
        self.runtime.block_on(removing).unwrap();
    }

    fn bytes(&self) -> usize {
        self.names("-").iter().map(|name| self.map(name)["data"].to_string().len()).sum()
    }
}

fn id(text: &str) -> StepId {
    StepId::new(text)
}

/// Steps as a unit takes them: reads with long answers, and now and then something durable.
fn unit(journal: &Journal, branch: &str, steps: u64) {
    for number in 1..=steps {
        let step = StepId::in_branch(branch, number);
        let out = json!({"step": number, "answer": "x".repeat(1500)});
        journal.observe(&step, "get_pv", "s", "a:1:1", out).unwrap();
        if number % 5 == 0 {
            // A branch of its own that ends at once: its end is durable.
            journal.end(&format!("{branch}/{number}~x"), json!(number)).unwrap();
        }
    }
}

fn answer(journal: &Journal, step: &str) -> Replay {
    journal.replay(&id(step), "get_pv", "s", "a:1:1").unwrap()
}

#[test]
fn another_process_reads_what_was_recorded() {
    let place = Place::new();
    let journal = place.begin();
    unit(&journal, "root/1~shop/data", 60);
    unit(&journal, "root/1~shop/logs", 10);
    let long = json!("y".repeat(40_000));
    journal.observe(&id("root/2"), "list_pvs", "s", "a:1:1", long.clone()).unwrap();
    let huge = json!({"text": "z".repeat(2 << 20)});
    journal.observe(&id("root/3"), "list_pvs", "s", "a:1:1", huge.clone()).unwrap();
    journal.fact(&id("root/3"), json!({"fact": "long", "text": "f".repeat(30_000)})).unwrap();
    (0..10).for_each(|_| journal.fact(&id("root/3"), json!({"fact": "f".repeat(10_000)})).unwrap());
    journal.end("root/1~shop/logs", json!("moved")).unwrap();
    let before = journal.facts();
    drop(journal);

    let journal = place.resume();
    assert_eq!(journal.facts(), before);
    assert_eq!(answer(&journal, "root/1~shop/data/60"), Replay::Done(json!({"step": 60, "answer": "x".repeat(1500)})));
    assert_eq!(journal.replay(&id("root/2"), "list_pvs", "s", "a"), Ok(Replay::Done(long)));
    assert_eq!(journal.replay(&id("root/3"), "list_pvs", "s", "a"), Ok(Replay::Done(huge)));
    assert_eq!(journal.ended("root/1~shop/logs"), Some(json!("moved")));
    unit(&journal, "root/4~shop/more", 10);
    assert_eq!(answer(&place.resume(), "root/4~shop/more/10"), answer(&journal, "root/4~shop/more/10"));

    let segments = place.names("-0");
    assert!(segments.len() > 1, "{segments:?}");
    for (number, name) in segments.iter().enumerate() {
        let map = place.map(name);
        assert!(map["data"]["records"].as_str().unwrap().len() <= 32 << 10, "{name}");
        assert_eq!(map["immutable"] == true, number + 1 < segments.len(), "{name}: all but the last are sealed");
    }
    for name in place.names("") {
        assert!(place.map(&name).to_string().len() < 1 << 20, "{name} fits into etcd");
    }
}

#[test]
fn what_is_not_durable_waits_for_what_is_and_for_the_end() {
    let place = Place::new();
    let journal = place.begin();
    journal.observe(&id("root/1"), "get_pv", "s", "a:1:1", json!("one")).unwrap();
    assert_eq!(answer(&place.resume(), "root/1"), Replay::Fresh);
    journal.end("root/2~a", json!(1)).unwrap();
    assert_eq!(answer(&place.resume(), "root/1"), Replay::Done(json!("one")));
    journal.observe(&id("root/3"), "get_pv", "s", "a:1:1", json!("three")).unwrap();
    journal.close().unwrap();
    assert_eq!(answer(&place.resume(), "root/3"), Replay::Done(json!("three")));
}

/// What is decided before the run is ours must not get in the way of the process that has it.
#[test]
fn nothing_is_written_before_the_fence_holds() {
    let place = Place::new();
    let first = place.begin();
    first.end("root/1~a", json!(1)).unwrap();
    let second = place.resume().waiting_for_its_fence();
    second.end("root/2~b", json!(2)).unwrap();
    assert_eq!(place.resume().ended("root/2~b"), None);
    first.end("root/3~c", json!(3)).unwrap();
    drop(first);
    let third = place.resume().waiting_for_its_fence();
    third.end("root/4~d", json!(4)).unwrap();
    place.runtime.block_on(third.hold()).unwrap();
    third.end("root/5~e", json!(5)).unwrap();
    let last = place.resume();
    assert_eq!((last.ended("root/4~d"), last.ended("root/5~e")), (Some(json!(4)), Some(json!(5))));
}

#[test]
fn a_branch_that_ended_keeps_no_answers() {
    let place = Place::new();
    let journal = place.begin();
    unit(&journal, "root/1~shop/data", 100);
    journal.observe(&id("root/1~shop/data/200"), "list_pvs", "s", "a", json!("y".repeat(20_000))).unwrap();
    journal.end("root/9~x", json!(1)).unwrap();
    let full = place.bytes();
    assert!(full > 170_000, "{full}");
    journal.end("root/1~shop/data", json!("moved")).unwrap();
    assert_eq!(place.names("-p"), Vec::<String>::new());
    assert_eq!(place.names("-t").len(), 1, "the scripts stay");
    assert!(place.bytes() < full / 4, "{} of {full} bytes are left", place.bytes());
    drop(journal);
    let journal = place.resume();
    assert_eq!(journal.ended("root/1~shop/data"), Some(json!("moved")));
    // What is needed still goes on to be kept.
    unit(&journal, "root/2~shop/logs", 10);
    assert_eq!(answer(&place.resume(), "root/2~shop/logs/9"), answer(&journal, "root/2~shop/logs/9"));
}

#[test]
fn two_processes_cannot_write_one_journal() {
    let place = Place::new();
    let first = place.begin();
    first.end("root/1~a", json!(1)).unwrap();
    let second = place.resume();
    second.end("root/2~b", json!(2)).unwrap();
    let problem = first.end("root/3~c", json!(3)).unwrap_err();
    assert_eq!(problem.kind, Kind::Conflict);
    assert!(problem.message.contains("another process writes the journal"), "{problem}");
    let problem = first.end("root/4~d", json!(4)).unwrap_err();
    assert!(problem.message.contains("nothing more is recorded"), "{problem}");
    second.end("root/3~e", json!(5)).unwrap();
    let third = place.resume();
    assert_eq!((third.ended("root/3~c"), third.ended("root/3~e")), (None, Some(json!(5))));
}

/// The old process has sealed a segment and dies, or not, before it begins the next one.
#[test]
fn two_processes_cannot_begin_one_segment() {
    let place = Place::new();
    let first = place.begin();
    let fill = |journal: &Journal, from: u64| {
        (from..).find(|n| {
            journal.fact(&id("root/1"), json!({"fact": "x".repeat(8_000)})).unwrap();
            journal.end(&format!("root/{n}~a"), json!(1)).unwrap();
            place.names("-0").len() > 1
        })
    };
    let second = place.resume();
    fill(&first, 1);
    let problem = second.end("root/1~z", json!(1)).unwrap_err();
    assert_eq!(problem.kind, Kind::Conflict, "{problem}");
}

#[test]
fn what_people_do_to_labels_stops_nothing() {
    let place = Place::new();
    let journal = place.begin();
    unit(&journal, "root/1~shop/data", 40);
    for name in place.names("") {
        place.mark(&name);
    }
    unit(&journal, "root/1~shop/logs", 40);
    drop(journal);
    let journal = place.resume();
    assert_eq!(answer(&journal, "root/1~shop/logs/40"), Replay::Done(json!({"step": 40, "answer": "x".repeat(1500)})));
    let last = place.names("-0").pop().unwrap();
    assert_eq!(place.map(&last)["metadata"]["labels"]["pvmigrate.io/run"], RUN);
    place.runtime.block_on(runs::forget(&place.shelf(), &run())).unwrap();
    let left = place.names("");
    assert!(left.iter().all(|name| name.contains("-p") || name.contains("-t")), "{left:?}");
}

/// Every request of the journal's own, disturbed in each way: the run goes on, and nothing is missing or there twice.
#[test]
fn no_lost_request_or_answer_of_its_own_loses_a_record() {
    let reference = {
        let place = Place::new();
        let faults = Faults::new(&place.lab, Vec::new());
        let journal = Journal::open(run(), Box::new(place.create(place.shelf_over(&faults)))).unwrap();
        story(&journal);
        let writes =
            faults.seen().iter().filter(|seen| seen.kind == "ConfigMap" && is_write(&json!(seen.verb))).count();
        (writes, journal.events().unwrap().len())
    };
    let (writes, records) = reference;
    assert!(writes > 10, "{writes}");
    for nth in 1..=writes {
        let others = [json!("twice"), json!({"status": 500}), json!({"status": 429}), json!({"status": 409})];
        for then in [json!("lost"), json!("answer_lost"), others[nth % others.len()].clone()] {
            let fault = json!({"on": {"verb": "write", "kind": "ConfigMap", "nth": nth}, "then": then});
            let fault: Fault = serde_json::from_value(fault).unwrap();
            let place = Place::new();
            let faults = Faults::new(&place.lab, vec![fault]);
            let journal = Journal::open(run(), Box::new(place.create(place.shelf_over(&faults)))).unwrap();
            story(&journal);
            assert_eq!(faults.unfired(), [], "{nth} {then}");
            drop(journal);
            let journal = place.resume();
            assert_eq!(journal.events().unwrap().len(), records, "{nth} {then}");
            assert_eq!(answer(&journal, "root/2~b/5"), Replay::Done(json!({"step": 5, "answer": "x".repeat(1500)})));
        }
    }
}

fn is_write(verb: &Value) -> bool {
    ["create", "update", "delete"].iter().any(|write| verb == write)
}

fn story(journal: &Journal) {
    unit(journal, "root/1~a", 20);
    journal.observe(&id("root/1~a/30"), "list_pvs", "s", "a", json!("y".repeat(20_000))).unwrap();
    journal.fact(&id("root/1~a/30"), json!({"fact": "x".repeat(20_000)})).unwrap();
    journal.end("root/1~a", json!("moved")).unwrap();
    journal.fact(&id("root/1~a/30"), json!({"fact": "y".repeat(20_000)})).unwrap();
    unit(journal, "root/2~b", 5);
    journal.close().unwrap();
}

/// Dead before or after each of the journal's own requests: what was acknowledged is there, and the next process goes on.
#[test]
fn a_death_at_any_request_of_its_own_loses_nothing_that_was_acknowledged() {
    for when in ["before", "after"] {
        for nth in 1.. {
            let fault =
                json!({"on": {"verb": "write", "kind": "ConfigMap", "nth": nth}, "when": when, "then": "crash"});
            let place = Place::new();
            let faults = Faults::new(&place.lab, vec![serde_json::from_value(fault).unwrap()]);
            let shelf = place.shelf_over(&faults);
            let died = dies(&place, shelf, &faults);
            let Some(acknowledged) = died else {
                assert!(nth > 10, "it dies at each request: {nth}");
                break;
            };
            if acknowledged.is_empty() && place.names("").iter().all(|name| name.contains("-t")) {
                continue;
            }
            let journal = place.resume();
            for branch in &acknowledged {
                assert_eq!(journal.ended(branch), Some(json!(1)), "{when} {nth} {branch}");
            }
            journal.end("root/99~after", json!(2)).unwrap();
            assert_eq!(place.resume().ended("root/99~after"), Some(json!(2)), "{when} {nth}");
        }
    }
}

/// Records until the death, and returns the ends that were acknowledged before it; `None` if it lived.
fn dies(place: &Place, shelf: Shelf, faults: &Faults) -> Option<Vec<String>> {
    let (runtime, file) = (place.runtime.handle().clone(), place.file());
    let (told, heard) = std::sync::mpsc::channel();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_done = done.clone();
    // The dead hang: nothing answers them any more.
    std::thread::spawn(move || {
        let Ok(store) = ClusterStore::create(shelf, runtime, &file) else { return };
        let journal = Journal::open(file.run.clone(), Box::new(store)).unwrap();
        for number in 1..=6_u64 {
            let branch = format!("root/{number}~x");
            journal.observe(&id(&format!("{branch}/1")), "get_pv", "s", "a", json!("x".repeat(12_000))).unwrap();
            journal.fact(&id("root/1"), json!({"fact": "y".repeat(12_000)})).unwrap();
            if journal.end(&branch, json!(1)).is_err() || told.send(branch).is_err() {
                return;
            }
        }
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let mut acknowledged = Vec::new();
    loop {
        match heard.recv_timeout(std::time::Duration::from_millis(20)) {
            Ok(branch) => acknowledged.push(branch),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if faults.is_dead() => return Some(acknowledged),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                return (!done.load(std::sync::atomic::Ordering::SeqCst)).then_some(acknowledged);
            }
        }
    }
}

#[test]
fn a_damaged_journal_is_refused_and_left_as_it_is() {
    let long = || {
        let place = Place::new();
        let journal = place.begin();
        unit(&journal, "root/1~shop/data", 400);
        journal.close().unwrap();
        assert!(place.names("-0").len() >= 3);
        place
    };
    let head = format!("pvmigrate-{RUN}");
    let segment = |number: u32| format!("pvmigrate-{RUN}-{number:06}");
    let records = |place: &Place, name: &str, edit: &dyn Fn(&str) -> String| {
        place.edit(name, |map| map["data"]["records"] = edit(map["data"]["records"].as_str().unwrap()).into());
    };
    type Damage<'a> = Box<dyn Fn(&Place) + 'a>;
    let damages: Vec<(&str, Damage<'_>)> = vec![
        (
            "was changed by somebody else",
            Box::new(|p| records(p, &segment(2), &|text| text.replace("get_pv", "get_pw"))),
        ),
        (
            "was changed by somebody else",
            Box::new(|p| records(p, &segment(1), &|text| text[..text.len() / 2].to_owned())),
        ),
        ("-000001` is missing", Box::new(|p| p.delete(&segment(1)))),
        ("-000002` is missing", Box::new(|p| p.delete(&segment(2)))),
        ("is missing", Box::new(|p| p.delete(&p.names("-0").pop().unwrap()))),
        ("is missing", Box::new(|p| p.delete(&p.names("-p").pop().unwrap()))),
        (
            "holds segment 1",
            Box::new(|p| {
                let one = p.map(&segment(1));
                p.edit(&segment(2), |map| map["data"] = one["data"].clone());
            }),
        ),
        (
            "another version of pvmigrate",
            Box::new(|p| {
                p.edit(&head, |map| {
                    map["data"]["journal.json"] =
                        map["data"]["journal.json"].as_str().unwrap().replace("\"v\":1", "\"v\":9").into();
                })
            }),
        ),
        ("is no run of pvmigrate", Box::new(|p| p.edit(&head, |map| map["data"] = json!({"mine": "yes"})))),
        ("scripts", Box::new(|p| p.edit(&p.names("-t")[0], |map| map["data"]["text"] = "[]".into()))),
    ];
    for (why, damage) in damages {
        let place = long();
        damage(&place);
        let before: Vec<Value> = place.names("").iter().map(|name| place.map(name)).collect();
        let opened = ClusterStore::open(place.shelf(), place.runtime.handle().clone(), &run())
            .and_then(|(_, store)| Journal::open(run(), Box::new(store)));
        let Err(problem) = opened else { panic!("{why}: it was opened") };
        assert_eq!(problem.kind, Kind::Diverged, "{problem}");
        let said = format!("{problem}");
        assert!(said.contains(why) || why == "scripts", "{why}: {said}");
        let after: Vec<Value> = place.names("").iter().map(|name| place.map(name)).collect();
        assert_eq!(before, after, "{why}");
    }
}

#[test]
fn a_run_that_is_not_there_is_unknown() {
    let place = Place::new();
    let problem = ClusterStore::open(place.shelf(), place.runtime.handle().clone(), &run()).err().unwrap();
    assert_eq!(problem.kind, Kind::Usage);
    place.begin();
    let cluster = place.shelf().cluster;
    let find = |namespace| place.runtime.block_on(runs::find(&cluster, &run(), namespace)).unwrap();
    assert!(matches!(find(None), runs::Found::In(ns) if ns == NS));
    assert!(matches!(find(Some("kube-system")), runs::Found::Nowhere(_)));
}

#[test]
fn lists_say_how_runs_stand() {
    let place = Place::new();
    let listed = || {
        let all = place.runtime.block_on(runs::list(&place.shelf().cluster, None)).unwrap();
        let one = &all[0];
        assert_eq!((all.len(), one.run.as_str(), one.namespace.as_str()), (1, RUN, NS));
        (one.status, one.steps)
    };
    let store = place.create(place.shelf());
    assert_eq!(listed(), (RunStatus::Refused, 0));
    assert_eq!(store.load().unwrap(), []);
    let write = json!({"verb": "patch", "gvk": {"version": "v1", "kind": "PersistentVolume"}, "name": "pv-1",
        "precondition": {"uid": "u"}, "class": "reversible"});
    let event = |n: u64, t: &str, more: Value| -> Event {
        let mut event = json!({"v": 1, "n": n, "t": t, "id": "root/1.retain", "op": "retain"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    };
    store.append(&event(0, "start", json!({"write": write})), true).unwrap();
    assert_eq!(listed(), (RunStatus::Stopped, 1));
    let refused = place.runtime.block_on(runs::may_forget(&place.shelf(), &run(), false)).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    store.append(&event(1, "done", json!({"out": 1})), false).unwrap();
    store.append(&event(2, "end", json!({"id": "root", "op": "end"})), true).unwrap();
    assert_eq!(listed(), (RunStatus::Done, 1));
    place.runtime.block_on(runs::forget(&place.shelf(), &run())).unwrap();
    assert_eq!(place.names(""), Vec::<String>::new());
}

/// Reading 5,000 steps takes a request a segment at most, and each record is looked at once.
#[test]
fn a_journal_of_thousands_of_steps_is_read_in_one_go() {
    let place = Place::new();
    let journal = place.begin();
    for unit in 0..50 {
        let branch = format!("root/1~shop/data-{unit}");
        for number in 1..=100 {
            let out = json!({"answer": "x".repeat(400)});
            journal.observe(&StepId::in_branch(&branch, number), "get_pv", "s", "a:1:1", out).unwrap();
        }
        journal.end(&branch, json!("moved")).unwrap();
    }
    drop(journal);
    let faults = Faults::new(&place.lab, Vec::new());
    let shelf = place.shelf_over(&faults);
    let (_, store) = ClusterStore::open(shelf, place.runtime.handle().clone(), &run()).unwrap();
    let journal = Journal::open(run(), Box::new(store)).unwrap();
    assert_eq!(journal.len(), 5050);
    assert_eq!(journal.ended("root/1~shop/data-49"), Some(json!("moved")));
    let reads = faults.seen().iter().filter(|seen| seen.kind == "ConfigMap").count();
    assert!(reads < 10, "{reads} requests");
}
