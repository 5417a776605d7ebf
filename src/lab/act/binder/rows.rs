//! The rows of `tests/conformance/volume_controller.yaml` told to the binder alone: those that need no more than their
//! volumes and claims, and those that no API can stage, where a controller stopped between its writes.

use super::super::rehearsal::Stage;
use super::*;

const ROWS: &str = include_str!("../../../../tests/conformance/volume_controller.yaml");

fn or(value: &Value, default: Value) -> Value {
    if value.is_null() { default } else { value.clone() }
}

fn volume(name: &str, said: &Value) -> Value {
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": or(&said["annotations"], json!({})), "labels": said["labels"]},
        "spec": {
            "capacity": {"storage": or(&said["size"], json!("1Gi"))}, "hostPath": {"path": "/data"},
            "accessModes": or(&said["modes"], json!(["ReadWriteOnce"])),
            "persistentVolumeReclaimPolicy": or(&said["policy"], json!("Retain")),
            "storageClassName": or(&said["class"], json!("a")), "volumeMode": or(&said["mode"], json!("Filesystem")),
        },
        "status": {"phase": "Pending"},
    });
    if let Some(reserved) = said["reserved"].as_str() {
        let (claim, uid) = reserved.split_once(' ').unwrap_or((reserved, ""));
        let (namespace, claim) = claim.split_once('/').unwrap_or(("shop", claim));
        volume["spec"]["claimRef"] = json!({"namespace": namespace, "name": claim});
        match uid {
            "" => {}
            "own" => volume["spec"]["claimRef"]["uid"] = format!("uid-{claim}").into(),
            uid => volume["spec"]["claimRef"]["uid"] = uid.into(),
        }
    }
    if said["deleting"] == true {
        volume["metadata"]["finalizers"] = json!(["x.io/held"]);
        volume["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    }
    volume
}

fn claim(name: &str, said: &Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "shop", "annotations": or(&said["annotations"], json!({}))},
        "spec": {
            "resources": {"requests": {"storage": or(&said["size"], json!("1Gi"))}},
            "accessModes": or(&said["modes"], json!(["ReadWriteOnce"])), "selector": said["selector"],
            "storageClassName": or(&said["class"], json!("a")), "volumeMode": or(&said["mode"], json!("Filesystem")),
        },
        "status": {"phase": "Pending"},
    });
    if !said["volume"].is_null() {
        claim["spec"]["volumeName"] = said["volume"].clone();
    }
    claim
}

/// What of an end does not hold.
fn unmet(stage: &Stage, row: &Value, name: &str, end: &Value) -> Vec<String> {
    let is_volume = row["volumes"][name].is_object();
    let object = match is_volume {
        true => stage.get("PersistentVolume", "", name),
        false => stage.get("PersistentVolumeClaim", "shop", name),
    };
    let mut unmet = Vec::new();
    let mut want = |pointer: &str, wanted: &Value| {
        let found = object.pointer(pointer).and_then(Value::as_str).unwrap_or("none");
        if wanted.as_str().is_some_and(|wanted| wanted != found) {
            unmet.push(format!("{name}{pointer} is {found}, not {wanted}"));
        }
    };
    want("/status/phase", &end["phase"]);
    want("/spec/claimRef/name", &end["claim"]);
    let own = json!(format!("uid-{}", text(&end["claim"])));
    want("/spec/claimRef/uid", if end["uid"] == "own" { &own } else { &end["uid"] });
    want("/spec/volumeName", &end["volume"]);
    want("/status/capacity/storage", &end["capacity"]);
    for mark in ["bind-completed", "bound-by-controller"].iter().filter(|_| end["marks"].is_array()) {
        let wanted = if list_of(&end["marks"]).iter().any(|one| one == mark) { "yes" } else { "none" };
        want(&format!("/metadata/annotations/pv.kubernetes.io~1{mark}"), &json!(wanted));
    }
    unmet
}

/// The row with its volumes in this phase at first; what does not hold at its end.
fn played(row: &Value, phase: &str) -> Vec<String> {
    let mut stage = Stage::new(&[&BINDER]);
    let all = |what: &str| row[what].as_object().into_iter().flatten().map(|(name, _)| json!(name)).collect::<Vec<_>>();
    let usual = [all("volumes"), all("claims")].concat();
    let order = row["order"].as_array().unwrap_or(&usual);
    let mut were_volumes = false;
    for name in order.iter().map(text) {
        let is_volume = row["volumes"][name].is_object();
        // Only a controller that stopped finds both at once.
        if were_volumes && !is_volume && row["pure"].is_null() {
            stage.settle();
        }
        were_volumes = is_volume;
        if is_volume {
            let mut made = volume(name, &row["volumes"][name]);
            made["status"]["phase"] = phase.into();
            stage.put(made);
        } else {
            stage.put(claim(name, &row["claims"][name]));
        }
    }
    stage.settle();
    let ends = row["end"].as_object().into_iter().flatten();
    let mut unmet: Vec<String> = ends.flat_map(|(name, end)| unmet(&stage, row, name, end)).collect();
    for (name, reason) in row["events"].as_object().into_iter().flatten() {
        let said =
            |event: &String| event.starts_with(&format!("{name} ")) && event.split(' ').nth(2) == reason.as_str();
        if !stage.events.iter().any(said) {
            unmet.push(format!("{name} has no event {reason}: {:?}", stage.events));
        }
    }
    unmet
}

#[test]
fn the_rows_end_as_they_say_with_the_binder_alone() {
    let rows: Value = serde_yaml_ng::from_str(ROWS).unwrap();
    let is_alone = |row: &&Value| row["then"].is_null() && !row.to_string().contains("\"<");
    let (pure, staged): (Vec<&Value>, Vec<&Value>) =
        list_of(&rows["rows"]).iter().filter(is_alone).partition(|row| row["pure"].is_string());
    assert!(pure.len() == 2 && staged.len() > 30, "{} pure, {} staged", pure.len(), staged.len());
    let mut wrong = Vec::new();
    for row in staged {
        wrong.extend(played(row, "Pending").into_iter().map(|why| format!("{}: {why}", row["name"])));
    }
    for row in pure {
        for phase in ["Pending", "Available", "Bound"] {
            wrong.extend(played(row, phase).into_iter().map(|why| format!("{} from {phase}: {why}", row["name"])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
