//! The attach/detach controller and the attacher of attachable volumes: one VolumeAttachment per volume and node.
//!
//! Not the kubelet: it says in `node.status.volumesInUse` what is mounted, and mounts only what `volumesAttached` says.
//! What must stay true: a volume leaves a node only when its pods there have ended and it is not in use; one that only
//! one node may have is given to the next only afterwards. Nothing is detached by force: the real controller does so
//! after six minutes, when a node does not answer.

#[cfg(test)]
mod tests;

use super::{Controller, Turn, Write, binder, drivers};
use crate::lab::store::{Commit, Key, State, claims_of, list_of, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

pub static ATTACH: Controller = Controller { name: "attachdetach-controller", wakes, act };

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    let both = || [&commit.before, &commit.after].into_iter().flatten();
    let names: BTreeSet<String> = match commit.key.kind {
        "PersistentVolume" => [commit.key.name.clone()].into(),
        "PersistentVolumeClaim" => both().map(|one| text(&one["spec"]["volumeName"]).to_owned()).collect(),
        "VolumeAttachment" => {
            both().map(|one| text(&one["spec"]["source"]["persistentVolumeName"]).to_owned()).collect()
        }
        "Pod" => {
            let claims = both().flat_map(|pod| claims_of(&pod["spec"]));
            let claims = claims.filter_map(|one| state.get("PersistentVolumeClaim", &commit.key.namespace, one));
            claims.map(|one| text(&one["spec"]["volumeName"]).to_owned()).collect()
        }
        "Node" => {
            let changed = changed(commit.before.as_deref(), commit.after.as_deref());
            if changed.as_ref().is_some_and(BTreeSet::is_empty) {
                return Vec::new();
            }
            // The handle of a volume need not be its name: the volumes of the node are asked for theirs.
            let on_node = |one: &Value| one["spec"]["nodeName"] == commit.key.name.as_str();
            let attachments = state.list("VolumeAttachment", "").filter(|(_, one)| on_node(one));
            let volumes = attachments.map(|(_, one)| text(&one["spec"]["source"]["persistentVolumeName"]));
            let is_meant = |name: &&str| match (&changed, state.get("PersistentVolume", "", name)) {
                (Some(changed), Some(volume)) => changed.contains(&drivers::name_on_node(volume)),
                _ => true,
            };
            volumes.filter(is_meant).map(str::to_owned).collect()
        }
        _ => BTreeSet::new(),
    };
    names.into_iter().filter(|one| !one.is_empty()).map(|one| Key::new("PersistentVolume", "", one)).collect()
}

/// What a node says otherwise of which volumes, by their names there; `None` of a node that has come or gone: all.
fn changed(before: Option<&Value>, after: Option<&Value>) -> Option<BTreeSet<String>> {
    let (before, after) = (&before?["status"], &after?["status"]);
    let mut changed = BTreeSet::new();
    for list in ["volumesInUse", "volumesAttached"] {
        if before[list] == after[list] {
            continue;
        }
        let name = |one: &Value| one.as_str().or(one["name"].as_str()).unwrap_or_default().to_owned();
        let names = |status: &Value| list_of(&status[list]).iter().map(name).collect::<BTreeSet<_>>();
        changed.extend(names(before).symmetric_difference(&names(after)).cloned());
    }
    Some(changed)
}

/// `csi-` and a hash of volume, driver and node.
pub fn attachment_name(volume: &Value, driver: &str, node: &str) -> String {
    let handle = text(&volume["spec"]["csi"]["volumeHandle"]);
    format!("csi-{}", blake3::hash(format!("{handle}{driver}{node}").as_bytes()).to_hex())
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(volume) = state.at(key).filter(|_| key.kind == "PersistentVolume") else { return Turn::rest() };
    let Some(driver) = drivers::of_volume(volume).filter(|one| one.attachable) else { return Turn::rest() };
    let attachments: Vec<&Arc<Value>> = state.attachments_of(&key.name).collect();
    let pods = users(state, volume);
    let wanted: BTreeSet<&str> = pods.iter().map(|pod| text(&pod["spec"]["nodeName"])).collect();
    let mut turn = Turn::rest();
    for attachment in &attachments {
        detach(state, volume, driver, attachment, &wanted, &mut turn);
    }
    if !turn.writes.is_empty() {
        return turn;
    }
    for node in &wanted {
        let here: Vec<&Arc<Value>> =
            pods.iter().filter(|pod| text(&pod["spec"]["nodeName"]) == *node).copied().collect();
        let mut elsewhere = attachments.iter().filter(|one| text(&one["spec"]["nodeName"]) != *node);
        if is_exclusive(volume)
            && elsewhere.next().is_some()
            && !attachments.iter().any(|one| text(&one["spec"]["nodeName"]) == *node)
        {
            refuse(volume, node, &here, &pods, &mut turn);
        } else if is_bound(state, volume) && state.get("Node", "", node).is_some() {
            attach(state, volume, driver, node, &here, &mut turn);
            // What is attached here counts for the next node.
            if is_exclusive(volume) && !turn.writes.is_empty() {
                return turn;
            }
        }
    }
    if attachments.is_empty() && turn.writes.iter().all(|write| matches!(write, Write::Event { .. })) {
        turn.update(volume, without_finalizer(volume, &driver.finalizer()));
    }
    turn
}

/// The pods on nodes that use the volume and have not ended.
fn users<'a>(state: &'a State, volume: &Value) -> Vec<&'a Arc<Value>> {
    let Some(claim) = binder::claim_key(volume) else { return Vec::new() };
    let runs = |pod: &Value| {
        !text(&pod["spec"]["nodeName"]).is_empty() && !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
    };
    let pods: Vec<_> = state.pods_of_claim(&claim.namespace, &claim.name).filter(|pod| runs(pod)).collect();
    pods
}

fn is_bound(state: &State, volume: &Value) -> bool {
    let claim = binder::claim_key(volume).and_then(|key| state.at(&key));
    claim.is_some_and(|one| {
        one["spec"]["volumeName"] == volume["metadata"]["name"]
            && one["metadata"]["uid"] == volume["spec"]["claimRef"]["uid"]
            && one["status"]["phase"] == "Bound"
    })
}

fn is_exclusive(volume: &Value) -> bool {
    let modes = list_of(&volume["spec"]["accessModes"]);
    !modes.is_empty() && modes.iter().all(|mode| mode == "ReadWriteOnce")
}

fn detach(
    state: &State,
    volume: &Value,
    driver: &drivers::Driver,
    attachment: &Value,
    wanted: &BTreeSet<&str>,
    turn: &mut Turn,
) {
    let node_name = text(&attachment["spec"]["nodeName"]);
    if !attachment["metadata"]["deletionTimestamp"].is_null() {
        turn.update(attachment, without_finalizer(attachment, &driver.finalizer()));
        return;
    }
    if wanted.contains(node_name) {
        return;
    }
    let on_node = drivers::name_on_node(volume);
    if let Some(node) = state.get("Node", "", node_name) {
        if list_of(&node["status"]["volumesInUse"]).iter().any(|one| *one == on_node) {
            return;
        }
        let attached = list_of(&node["status"]["volumesAttached"]);
        if attached.iter().any(|one| one["name"] == on_node) {
            let mut after = (**node).clone();
            let rest: Vec<&Value> = attached.iter().filter(|one| one["name"] != on_node).collect();
            after["status"]["volumesAttached"] = json!(rest);
            turn.status(node, after);
        }
    }
    let key = Key::new("VolumeAttachment", "", text(&attachment["metadata"]["name"]));
    turn.writes.push(Write::delete(key, attachment));
}

fn attach(
    state: &State,
    volume: &Value,
    driver: &drivers::Driver,
    node_name: &str,
    pods: &[&Arc<Value>],
    turn: &mut Turn,
) {
    let name = attachment_name(volume, driver.name, node_name);
    let volume_name = text(&volume["metadata"]["name"]);
    let Some(attachment) = state.get("VolumeAttachment", "", &name) else {
        turn.writes.push(Write::Create(json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttachment",
            "metadata": {"name": name},
            "spec": {"attacher": driver.name, "nodeName": node_name, "source": {"persistentVolumeName": volume_name}},
        })));
        return;
    };
    if !attachment["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let finalizer = driver.finalizer();
    let marked = with_finalizer(attachment, &finalizer);
    turn.update(attachment, marked.clone());
    if volume["metadata"]["deletionTimestamp"].is_null() {
        turn.update(volume, with_finalizer(volume, &finalizer));
    }
    let mut attached = marked;
    attached["status"]["attached"] = true.into();
    turn.status(attachment, attached);
    let on_node = drivers::name_on_node(volume);
    let Some(node) = state.get("Node", "", node_name) else { return };
    let listed = list_of(&node["status"]["volumesAttached"]);
    if !listed.iter().any(|one| one["name"] == on_node) {
        for pod in pods {
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume_name}\" ");
            turn.event(pod, false, "SuccessfulAttachVolume", message);
        }
        let mut after = (**node).clone();
        let all: Vec<Value> = listed.iter().cloned().chain([json!({"name": on_node, "devicePath": ""})]).collect();
        after["status"]["volumesAttached"] = all.into();
        turn.status(node, after);
    }
}

/// Another node has it: says so to the pods here, with the names of those there as far as they may know them.
fn refuse(volume: &Value, node: &str, here: &[&Arc<Value>], pods: &[&Arc<Value>], turn: &mut Turn) {
    let there: Vec<&&Arc<Value>> = pods.iter().filter(|pod| text(&pod["spec"]["nodeName"]) != node).collect();
    let names: Vec<&str> = there.iter().map(|pod| text(&pod["metadata"]["name"])).collect();
    let why = if names.is_empty() {
        "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
    } else {
        format!("Volume is already used by pod(s) {}", names.join(", "))
    };
    let message = format!("Multi-Attach error for volume \"{}\" {why}", text(&volume["metadata"]["name"]));
    for pod in here {
        turn.event(pod, true, "FailedAttachVolume", message.clone());
    }
}

fn with_finalizer(object: &Value, finalizer: &str) -> Value {
    let mut after = object.clone();
    let old = list_of(&object["metadata"]["finalizers"]);
    if !old.iter().any(|one| one == finalizer) {
        let all: Vec<Value> = old.iter().cloned().chain([finalizer.into()]).collect();
        after["metadata"]["finalizers"] = all.into();
    }
    after
}

fn without_finalizer(object: &Value, finalizer: &str) -> Value {
    let mut after = object.clone();
    let old = list_of(&object["metadata"]["finalizers"]);
    if old.iter().any(|one| one == finalizer) {
        let rest: Vec<&Value> = old.iter().filter(|one| *one != finalizer).collect();
        after["metadata"]["finalizers"] = json!(rest);
    }
    after
}
