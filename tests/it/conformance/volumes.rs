//! The knowledge of the volume controller as rows: which volumes and claims lead to which end. Each row that the API
//! can stage is a story too. The rows are `tests/conformance/volume_controller.yaml`.

use super::root;
use super::story::{Step, Story, Topic};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    pub about: String,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    #[serde(default)]
    pub volumes: BTreeMap<String, Volume>,
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
    /// Made in this order; volumes, then claims, if not said.
    pub order: Option<Vec<String>>,
    /// Steps between the making and the end.
    #[serde(default)]
    pub then: Vec<Step>,
    /// What it comes to: name → what holds of it.
    pub end: BTreeMap<String, End>,
    /// `name: reason` of the events there must be.
    #[serde(default)]
    pub events: BTreeMap<String, String>,
    /// Why the API cannot stage this: the row is for a unit test of the binder only.
    pub pure: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    #[serde(default = "one_gi")]
    pub size: String,
    #[serde(default = "class_a")]
    pub class: String,
    #[serde(default = "rwo")]
    pub modes: Vec<String>,
    pub mode: Option<String>,
    #[serde(default = "retain")]
    pub policy: String,
    /// `claim`, `claim uid`, `namespace/claim`; uid `own` is that of the claim of this name.
    pub reserved: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub deleting: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    #[serde(default = "one_gi")]
    pub size: String,
    #[serde(default = "class_a")]
    pub class: String,
    #[serde(default = "rwo")]
    pub modes: Vec<String>,
    pub mode: Option<String>,
    pub selector: Option<Value>,
    pub volume: Option<String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// `gone`, or a phase with what the object points at: `claim`, with or without uid, or `volume`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    #[serde(default)]
    pub gone: bool,
    pub phase: Option<String>,
    /// Of a volume: the claim's name, or `none`.
    pub claim: Option<String>,
    /// Of a volume's reservation: `own`, `none`, or the uid itself.
    pub uid: Option<String>,
    /// Of a claim: the volume's name, or `none`.
    pub volume: Option<String>,
    /// Annotations of `pv.kubernetes.io/` that are there, without the prefix; others are not.
    pub marks: Option<Vec<String>>,
    /// Of a claim: what it has got.
    pub capacity: Option<String>,
}

fn one_gi() -> String {
    "1Gi".into()
}
fn class_a() -> String {
    "a".into()
}
fn rwo() -> Vec<String> {
    vec!["ReadWriteOnce".into()]
}
fn retain() -> String {
    "Retain".into()
}

pub fn rows() -> Rows {
    let path = root().join("tests/conformance/volume_controller.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("volume_controller.yaml: {e}"))
}

/// The rows that can be staged, as stories.
pub fn topic() -> Topic {
    let rows = rows();
    let stories = rows.rows.iter().filter(|row| row.pure.is_none()).map(story).collect();
    Topic { name: "volume_controller".into(), about: rows.about, given: BTreeMap::new(), stories }
}

/// The class of a row's `a` or `b` is no object; of `""` it is no class; of `<word>` the server's.
fn class(name: &str) -> String {
    if name.is_empty() || name.starts_with('<') { name.to_owned() } else { format!("<ns>-{name}") }
}

fn story(row: &Row) -> Story {
    let all = || row.volumes.keys().chain(row.claims.keys()).cloned().collect::<Vec<_>>();
    let mut steps = Vec::new();
    let mut ready: Vec<Step> = Vec::new();
    for name in row.order.clone().unwrap_or_else(all) {
        if row.claims.contains_key(&name) {
            steps.append(&mut ready);
        }
        match (row.volumes.get(&name), row.claims.get(&name)) {
            (Some(volume), _) => {
                steps.extend(make_volume(&name, volume));
                ready.extend(seen_by_the_controller(&name, volume));
            }
            (_, Some(claim)) => steps.push(make_claim(&name, claim)),
            (None, None) => panic!("{}: there is no {name}", row.name),
        }
    }
    steps.extend(row.then.iter().cloned());
    let at = vec!["@pv".to_owned(), "@pvc".to_owned()];
    // What is said to stay as it is must have had the time to change.
    steps.push(Step { settle: Some(at), brief: true, ..Step::default() });
    for (name, end) in &row.end {
        steps.push(wait(row, name, end));
    }
    for (name, reason) in &row.events {
        let about = if row.volumes.contains_key(name) { format!("<ns>-{name}") } else { name.clone() };
        let path = if row.volumes.contains_key(name) { "@pvevent" } else { "@event" };
        let any = [("/reason", reason.clone()), ("/involvedObject/name", about.clone())];
        let any = any.into_iter().map(|(pointer, want)| (pointer.to_owned(), json!(want))).collect();
        steps.push(Step { wait: Some(path.to_owned()), any, ..Step::default() });
        let (names, reasons) = (Some(vec![about]), Some(vec![reason.clone()]));
        steps.push(Step { events: names, reasons, ..Step::default() });
    }
    Story { name: row.name.clone(), steps }
}

fn make_volume(name: &str, volume: &Volume) -> Vec<Step> {
    let mut spec = json!({
        "capacity": {"storage": volume.size}, "accessModes": volume.modes, "hostPath": {"path": format!("<dir>/{name}")},
        "persistentVolumeReclaimPolicy": volume.policy,
    });
    if !volume.class.is_empty() {
        spec["storageClassName"] = json!(class(&volume.class));
    }
    if let Some(mode) = &volume.mode {
        spec["volumeMode"] = json!(mode);
    }
    if let Some(reserved) = &volume.reserved {
        let (claim, uid) = reserved.split_once(' ').unwrap_or((reserved, ""));
        let (namespace, claim) = claim.split_once('/').unwrap_or(("<ns>", claim));
        spec["claimRef"] =
            json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace, "name": claim});
        match uid {
            "" => {}
            "own" => spec["claimRef"]["uid"] = json!(format!("<uid-{claim}>")),
            uid => spec["claimRef"]["uid"] = json!(uid),
        }
    }
    let mut meta = json!({"name": format!("<ns>-{name}"), "labels": volume.labels, "annotations": volume.annotations});
    if volume.deleting {
        meta["finalizers"] = json!(["x.io/held"]);
    }
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec});
    let mut steps = vec![Step { ask: Some("POST @pv".into()), body: Some(body), quiet: true, ..Step::default() }];
    if volume.deleting {
        steps.push(Step { ask: Some(format!("DELETE @pv/<ns>-{name}")), quiet: true, ..Step::default() });
    }
    steps
}

/// A claim that comes before the controller has looked at all volumes takes what it has looked at.
fn seen_by_the_controller(name: &str, volume: &Volume) -> Option<Step> {
    let stale = volume.reserved.as_ref().is_some_and(|reserved| reserved.contains(' '));
    let phase = if stale { "Released" } else { "Available" };
    let until = BTreeMap::from([("/status/phase".to_owned(), json!(phase))]);
    let wait = Some(format!("@pv/<ns>-{name}"));
    (!volume.deleting).then(|| Step { wait, until, quiet: true, ..Step::default() })
}

fn make_claim(name: &str, claim: &Claim) -> Step {
    let mut spec = json!({
        "accessModes": claim.modes, "resources": {"requests": {"storage": claim.size}},
        "storageClassName": class(&claim.class),
    });
    let volume = claim.volume.as_ref().map(|volume| json!(format!("<ns>-{volume}")));
    let more = [("volumeMode", claim.mode.as_ref().map(|mode| json!(mode))), ("selector", claim.selector.clone())];
    for (field, value) in more.into_iter().chain([("volumeName", volume)]) {
        if let Some(value) = value {
            spec[field] = value;
        }
    }
    let meta = json!({"name": name, "annotations": claim.annotations});
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec});
    let take = BTreeMap::from([(format!("uid-{name}"), "/metadata/uid".to_owned())]);
    Step { ask: Some("POST @pvc".into()), body: Some(body), quiet: true, take, ..Step::default() }
}

/// Waits for an end and shows what a client can see of it.
fn wait(row: &Row, name: &str, end: &End) -> Step {
    let is_volume = row.volumes.contains_key(name) || end.claim.is_some();
    let path = if is_volume { format!("@pv/<ns>-{name}") } else { format!("@pvc/{name}") };
    let mut until = Map::new();
    let mut want = |pointer: &str, value: Option<String>| {
        if let Some(value) = value {
            until.insert(pointer.to_owned(), json!(if value == "none" { "<absent>".to_owned() } else { value }));
        }
    };
    want("/status/phase", end.phase.clone());
    want("/spec/claimRef/name", end.claim.clone());
    want(
        "/spec/claimRef/uid",
        end.uid.as_ref().map(|uid| match (uid.as_str(), &end.claim) {
            ("own", Some(claim)) => format!("<uid-{claim}>"),
            _ => uid.clone(),
        }),
    );
    want(
        "/spec/volumeName",
        end.volume.as_ref().map(|volume| match volume.as_str() {
            "none" => "none".to_owned(),
            volume => format!("<ns>-{volume}"),
        }),
    );
    want("/status/capacity/storage", end.capacity.clone());
    for mark in ["bind-completed", "bound-by-controller"] {
        if let Some(marks) = &end.marks {
            let there = if marks.iter().any(|one| one == mark) { "<exists>" } else { "<absent>" };
            want(&format!("/metadata/annotations/pv.kubernetes.io~1{mark}"), Some(there.into()));
        }
    }
    if end.gone {
        return Step { wait: Some(path), gone: true, ..Step::default() };
    }
    let see = ["/metadata/annotations", "/metadata/finalizers", "/spec/claimRef", "/spec/volumeName", "/status"];
    let until = until.into_iter().collect();
    Step { wait: Some(path), until, see: Some(see.map(str::to_owned).to_vec()), ..Step::default() }
}

#[test]
fn the_rows_name_what_they_have_and_are_enough() {
    let rows = rows();
    assert!(rows.rows.len() >= 60, "{} rows", rows.rows.len());
    for row in &rows.rows {
        let has = |name: &String| row.volumes.contains_key(name) || row.claims.contains_key(name);
        assert!(row.end.keys().chain(row.events.keys()).all(has), "{}: it ends with what it has not", row.name);
        assert!(!row.end.is_empty(), "{}: has no end", row.name);
        let both = row.volumes.keys().find(|name| row.claims.contains_key(*name));
        assert!(both.is_none(), "{}: {both:?} is a volume and a claim", row.name);
    }
}
