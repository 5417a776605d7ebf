//! What a mutant is, and what several of them do.

use super::wire::{Ask, Stage};
use pvmigrate::journal::{Event, T};
use pvmigrate::lab::handle::Verb;
use pvmigrate::trial::How;
use pvmigrate::words::Json;
use serde_json::{Value, json};

/// What becomes of a write.
pub enum Way {
    Send,
    Twice,
    /// It is not sent, and this is the answer.
    Answer(Json),
    /// It is not sent, and refused.
    Refuse(u16, &'static str, &'static str),
}

pub struct Mutant {
    /// What it stands for.
    pub id: &'static str,
    pub what: &'static str,
    /// Before the run.
    pub stage: fn(&Stage),
    pub wire: fn(&mut Ask, &Stage) -> Way,
    /// An object in an answer; false hides it from lists and watches.
    pub shown: fn(&str, &mut Value) -> bool,
    /// The run is cut off here, and resumed.
    pub dies: Option<(&'static str, usize, How)>,
    pub forged: fn(Vec<Event>) -> Vec<Event>,
    /// The program notices by itself, and nothing comes of it.
    pub withstood: bool,
    /// It makes the run wait for ever.
    pub waits: bool,
    /// It acts in a rollback of a run that is over, with a copy back.
    pub back: bool,
}

pub const PLAIN: Mutant = Mutant {
    id: "",
    what: "",
    stage: |_| {},
    wire: |_, _| Way::Send,
    shown: |_, _| true,
    dies: None,
    forged: |events| events,
    withstood: false,
    waits: false,
    back: false,
};

/// The tool that came before had no journal.
pub fn forgotten(_: Vec<Event>) -> Vec<Event> {
    Vec::new()
}

pub fn without(events: Vec<Event>, fact: &str) -> Vec<Event> {
    events.into_iter().filter(|event| !is_fact(event, fact)).collect()
}

pub fn is_fact(event: &Event, fact: &str) -> bool {
    event.t == T::Fact && event.out.as_ref().is_some_and(|out| out["fact"] == fact)
}

pub const DELETE: Verb = Verb::Delete;
pub const PV: &str = "PersistentVolume";
pub const PVC: &str = "PersistentVolumeClaim";

pub fn policy(policy: &str) -> Json {
    json!({"spec": {"persistentVolumeReclaimPolicy": policy}})
}

/// A pod of somebody else that uses the claim.
pub fn intruder() -> Json {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "intruder", "namespace": "shop"}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "a", "image": "docker.io/pvmigrate/agent:1", "command": ["pvmigrate"],
            "args": ["agent", "exercise", "/data", "--name", "intruder", "--interval-ms", "50"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}})
}

/// The intruder is seen by nobody.
pub fn unseen(_: &str, object: &mut Value) -> bool {
    object["metadata"]["name"] != "intruder"
}

pub fn no_pods_of_web(path: &str, object: &mut Value) -> bool {
    !path.contains("/pods") || object["metadata"]["labels"]["app"] != "web"
}

/// One of three names of a file becomes a file of its own.
pub fn unlink(stage: &Stage) {
    let file = stage.directory_of_class("fast").join("odd/deep/er/linked");
    let content = std::fs::read(&file).expect("it was copied");
    std::fs::remove_file(&file).expect("it is there");
    std::fs::write(&file, content).expect("there is room");
}

/// A pod copies from its target to its source.
pub fn exchange(ask: &mut Ask) {
    let volumes = ask.body.pointer_mut("/spec/volumes").and_then(Json::as_array_mut).expect("it has some");
    let claims: Vec<Json> = volumes.iter().map(|volume| volume["persistentVolumeClaim"].clone()).collect();
    volumes[0]["persistentVolumeClaim"] = claims[1].clone();
    volumes[1]["persistentVolumeClaim"] = claims[0].clone();
}

pub fn lose_a_line(stage: &Stage, class: &str) {
    let file = stage.directory_of_class(class).join("web/lines");
    let lines = std::fs::read_to_string(&file).expect("the workload wrote some");
    let end = lines.trim_end().rfind('\n').expect("more than one");
    std::fs::write(&file, &lines[..=end]).expect("it is there");
}

/// The records that a last copy and its verification would have left.
pub fn verified_by_nobody(mut events: Vec<Event>) -> Vec<Event> {
    if events.is_empty() {
        return events;
    }
    let retained: Vec<Json> =
        events.iter().filter(|event| is_fact(event, "retained")).filter_map(|event| event.out.clone()).collect();
    let (source, target) = (&retained[0], &retained[1]);
    let begun = events.iter().rfind(|event| event.op == "run_copy_pod").expect("it had begun").clone();
    let fact = json!({"fact": "verified", "claim": {"namespace": "shop", "name": "data"},
        "source": source["pv"], "source_uid": source["uid"], "target": target["pv"], "target_uid": target["uid"],
        "digest": "made up", "mode": "full", "at": "2026-01-01T00:00:00Z"});
    let proof = json!({"ok": true, "files": 1, "bytes": 1, "source_digest": "made up", "summary": "all is well"});
    let report = json!({"ok": true, "summary": "all is well", "proof": proof});
    events.push(Event { t: T::Fact, out: Some(fact), ..begun.clone() });
    events.push(Event { t: T::Done, out: Some(report), ..begun });
    events
}
