//! The move that the tests of faults disturb: claim `data`, Deployment `web` on it, from one class to another.
//!
//! Also the words in which these tests speak about a journal's events. A disturbance is placed by such an event, never
//! by time.

use crate::world::{Running, World, opts};
use rustix::process::Signal;
use serde_json::Value;

pub struct Shop<'w> {
    w: &'w World,
    pub from: String,
    pub to: String,
    image: String,
    /// The volume and the claim from before.
    pub source: Value,
    pub original: Value,
}

/// A claim of the class `from` with a workload of one pod that writes to it.
pub async fn shop<'w>(w: &'w World, from: &str, to: &str) -> Shop<'w> {
    let (from, to) = (w.class(from).await, w.class(to).await);
    w.claim("data", &from, "64Mi", &["ReadWriteOnce"]).await;
    w.exercise_deployment("web", 1, &[("data", "data")], opts()).await;
    open(w, from, to).await
}

/// The same on what the test has made itself.
pub async fn open(w: &World, from: String, to: String) -> Shop<'_> {
    w.ready("Deployment", "web").await;
    let (source, original) = (w.pv_of("data").await, w.get("pvc", "data").await);
    let image = w.image();
    Shop { w, from, to, image, source, original }
}

impl Shop<'_> {
    pub fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["run", "sc-migrate", "--source-sc", &self.from, "--dest-sc", &self.to, "--yes"];
        args.extend(["--image", &self.image]);
        args.extend(more);
        args
    }

    pub fn start(&self, more: &[&str]) -> Running {
        self.w.start(&self.args(more))
    }

    /// The end state of an undisturbed run: the name stands on the target, the workload writes to it and has missed
    /// nothing, the source is kept, and nothing of ours is left.
    pub async fn has_moved(&self) {
        let (w, claim, target) = (self.w, self.w.get("pvc", "data").await, self.w.pv_of("data").await);
        assert_ne!(claim["metadata"]["uid"], self.original["metadata"]["uid"]);
        assert_eq!(claim["spec"]["storageClassName"], self.to.as_str());
        assert_eq!(claim["status"]["phase"], "Bound");
        assert_ne!(target["metadata"]["name"], self.source["metadata"]["name"]);
        assert_eq!(target["spec"]["storageClassName"], self.to.as_str());
        assert_eq!(target["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
        assert_eq!(
            target["spec"]["persistentVolumeReclaimPolicy"],
            self.source["spec"]["persistentVolumeReclaimPolicy"]
        );
        let source = self.source_now().await;
        assert_eq!(source["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(source["spec"]["claimRef"]["uid"], self.original["metadata"]["uid"]);
        assert_eq!(source["status"]["phase"], "Released");
        let claims: Vec<Value> = w.list("pvc").await.iter().map(|one| one["metadata"]["name"].clone()).collect();
        assert!(!claims.iter().any(|name| name.as_str().unwrap_or_default().contains("pvmigrate")), "{claims:?}");
        self.runs(1).await;
        assert_eq!(w.leftovers().await, Vec::<String>::new());
    }

    /// The claim was never touched, and the workload runs on it as before.
    pub async fn is_on_the_source(&self) {
        let claim = self.w.get("pvc", "data").await;
        assert_eq!(claim["metadata"]["uid"], self.original["metadata"]["uid"]);
        assert_eq!(claim["spec"], self.original["spec"]);
        assert_eq!(self.source_now().await["status"]["phase"], "Bound");
        self.runs(1).await;
    }

    pub async fn runs(&self, replicas: u32) {
        assert_eq!(self.w.get("Deployment", "web").await["spec"]["replicas"], replicas);
        self.w.ready("Deployment", "web").await;
        self.w.still_intact().await;
    }

    async fn source_now(&self) -> Value {
        let name = self.source["metadata"]["name"].as_str().expect("a volume has a name");
        self.w.get("pv", name).await
    }
}

pub fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap_or_default()
}

pub fn is(event: &Value, t: &str, label: &str) -> bool {
    event["t"] == t && id(event).ends_with(label)
}

/// The id of another write of the same step: `part(&deleted, "create")`.
pub fn part(event: &Value, label: &str) -> String {
    let step = id(event).rsplit_once('.').expect("a write is a part of a step").0;
    format!("{step}.{label}")
}

/// The record before a copy pod is asked for; `pass` is hot or final.
pub fn asks_for_copy(event: &Value, pass: &str) -> bool {
    asks_for(event, "copy", pass)
}

/// The same for any pod of ours; `task` is copy or verify.
pub fn asks_for(event: &Value, task: &str, pass: &str) -> bool {
    let labels = &event["write"]["body"]["metadata"]["labels"];
    let wanted = labels["pvmigrate.io/task"] == task && labels["pvmigrate.io/pass"] == pass;
    event["t"] == "start" && event["write"]["verb"] == "create" && wanted
}

pub fn count(events: &[Value], fits: impl Fn(&Value) -> bool) -> usize {
    events.iter().filter(|event| fits(event)).count()
}

/// Waits until a copy pod was made; returns its name and the id of its step.
pub async fn copy_pod(run: &mut Running, pass: &str) -> (String, String) {
    let asked = run.wait_for_event(|event| asks_for_copy(event, pass)).await;
    run.wait_for_event(|event| is(event, "done", id(&asked))).await;
    let name = asked["write"]["name"].as_str().expect("a write has a name").to_owned();
    let step = id(&asked).rsplit_once('.').expect("a write is a part of a step").0.to_owned();
    (name, step)
}

/// Holds the process still from the event on, so that the window after it can be used at leisure.
pub async fn freeze_at(run: &mut Running, fits: impl Fn(&Value) -> bool) -> Value {
    let event = run.wait_for_event(fits).await;
    run.signal(Signal::STOP);
    event
}

pub fn thaw(run: &Running) {
    run.signal(Signal::CONT);
}
