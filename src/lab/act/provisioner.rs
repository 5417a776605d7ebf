//! The external provisioner of the lab's drivers: makes volumes for claims and deletes those that were given back.
//!
//! Not the binder, which hands claims over by an annotation and binds what is made here; no snapshots, no topology but
//! a node's own volumes, and those are not cloned. A claim that was ever cloned is held by a finalizer while it is. Class parameters: `delaySeconds` (counted from the claim, or from its first pod
//! if the class waits for one), `fail: provision`, `node: local` (the volume can be used on the chosen node only).

#[cfg(test)]
mod tests;

use super::binder::{self, matching};
use super::{Controller, Turn, Write, annotations, drivers};
use crate::lab::store::{Commit, Key, State, list_of, text};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

pub static PROVISIONER: Controller = Controller { name: "provisioner", wakes, act };

fn wakes(state: &State, commit: &Commit) -> Vec<Key> {
    match commit.key.kind {
        "PersistentVolumeClaim" => {
            let object = commit.after.as_ref().or(commit.before.as_ref());
            let original = object.and_then(|one| original_of(one));
            // Only who is held was ever cloned.
            let is_held =
                object.is_some_and(|one| list_of(&one["metadata"]["finalizers"]).iter().any(|f| f == CLONING));
            let clones = if is_held { clones_of(state, &commit.key.namespace, &commit.key.name) } else { Vec::new() };
            [commit.key.clone()].into_iter().chain(original).chain(clones).collect()
        }
        "PersistentVolume" => vec![commit.key.clone()],
        "StorageClass" => binder::pending_of_class(state, &commit.key.name),
        "VolumeAttachment" => {
            let object = commit.after.as_ref().or(commit.before.as_ref());
            let volume = object.map(|one| text(&one["spec"]["source"]["persistentVolumeName"]).to_owned());
            volume.map(|name| Key::new("PersistentVolume", "", name)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    match (state.at(key), key.kind) {
        (Some(claim), "PersistentVolumeClaim") if claim["metadata"]["deletionTimestamp"].is_string() => {
            let_go(state, claim)
        }
        (Some(claim), "PersistentVolumeClaim") => provision(state, claim),
        (Some(volume), "PersistentVolume") => delete(state, volume),
        _ => Turn::rest(),
    }
}

/// Holds a claim while clones of it are made.
const CLONING: &str = "provisioner.storage.kubernetes.io/cloning-protection";

/// The claim that this one is to be a clone of.
fn original_of(claim: &Value) -> Option<Key> {
    let source = &claim["spec"]["dataSource"];
    let is_claim = source["kind"] == "PersistentVolumeClaim";
    is_claim.then(|| Key::new("PersistentVolumeClaim", text(&claim["metadata"]["namespace"]), text(&source["name"])))
}

/// The claims that wait to be a clone of this one.
fn clones_of(state: &State, namespace: &str, name: &str) -> Vec<Key> {
    let waits = |one: &Value| {
        let is_of_it = original_of(one).is_some_and(|original| original.name == name);
        is_of_it && text(&one["spec"]["volumeName"]).is_empty()
    };
    let claims = state.list("PersistentVolumeClaim", namespace).filter(|(_, one)| waits(one));
    claims.map(|(key, _)| key.clone()).collect()
}

/// A claim that is to go is no longer held when nobody waits for a clone of it.
fn let_go(state: &State, claim: &Value) -> Turn {
    let kept = |one: &&Value| **one != CLONING;
    let finalizers = list_of(&claim["metadata"]["finalizers"]);
    let (namespace, name) = (text(&claim["metadata"]["namespace"]), text(&claim["metadata"]["name"]));
    let mut turn = Turn::rest();
    if clones_of(state, namespace, name).is_empty() {
        let mut after = claim.clone();
        after["metadata"]["finalizers"] = finalizers.iter().filter(kept).cloned().collect::<Vec<_>>().into();
        if finalizers.len() != list_of(&after["metadata"]["finalizers"]).len() {
            turn.update(claim, after);
        }
    }
    turn
}

/// The volume that is to be cloned, or why it cannot be.
fn original(state: &State, driver: &drivers::Driver, claim: &Value) -> Result<Option<Arc<Value>>, String> {
    if claim["spec"]["dataSource"].is_null() {
        return Ok(None);
    }
    let invalid = |why: String| Err(format!("rpc error: code = InvalidArgument desc = {why}"));
    let Some(key) = original_of(claim).filter(|_| driver.clones) else {
        return invalid(format!("{} makes no clones", driver.name));
    };
    let Some(source) = state.at(&key) else { return Err(format!("the claim {key} that is to be cloned is not there")) };
    if !source["metadata"]["deletionTimestamp"].is_null() || source["status"]["phase"] != "Bound" {
        return Err(format!("the claim {key} that is to be cloned is going or not bound"));
    }
    let volume = state.get("PersistentVolume", "", text(&source["spec"]["volumeName"]));
    let Some(volume) = volume.filter(|one| drivers::of_volume(one).is_some_and(|of| of.name == driver.name)) else {
        return Err(format!("the claim {key} that is to be cloned has no volume of {}", driver.name));
    };
    if !volume["spec"]["nodeAffinity"].is_null() {
        return invalid("volumes of one node are not cloned".into());
    }
    if volume["spec"]["volumeMode"] != claim["spec"]["volumeMode"] {
        return invalid("a clone is of its original's mode".into());
    }
    if matching::requested(claim) < matching::capacity(volume) {
        return invalid("a clone is not smaller than its original".into());
    }
    Ok(Some(volume.clone()))
}

/// What a class says to its driver.
#[derive(Debug, Default, PartialEq)]
struct Parameters {
    delay_s: i64,
    fails: bool,
    is_local: bool,
}

impl Parameters {
    fn read(class: &Value) -> Result<Parameters, String> {
        let mut read = Parameters::default();
        for (name, value) in class["parameters"].as_object().into_iter().flatten() {
            match (&name[..], text(value)) {
                ("delaySeconds", seconds) => match seconds.parse() {
                    Ok(seconds) if (0..=86_400).contains(&seconds) => read.delay_s = seconds,
                    _ => return Err(format!("delaySeconds \"{seconds}\" is no number of seconds")),
                },
                ("fail", "provision") => read.fails = true,
                ("node", "local") => read.is_local = true,
                ("fail" | "node", value) => return Err(format!("unknown value \"{value}\" of parameter \"{name}\"")),
                _ => return Err(format!("unknown parameter \"{name}\"")),
            }
        }
        Ok(read)
    }
}

fn provision(state: &State, claim: &Value) -> Turn {
    let asked = annotations::get(claim, annotations::STORAGE_PROVISIONER).unwrap_or_default();
    let class = state.get("StorageClass", "", matching::class_of(claim));
    let (Some(driver), Some(class)) = (drivers::find(asked), class) else { return Turn::rest() };
    let is_open = text(&claim["spec"]["volumeName"]).is_empty() && claim["metadata"]["deletionTimestamp"].is_null();
    if !is_open || class["provisioner"] != asked {
        return Turn::rest();
    }
    let node = annotations::get(claim, annotations::SELECTED_NODE);
    if binder::waits_for_consumer(state, claim) && node.is_none() {
        return Turn::rest();
    }
    let mut turn = Turn::rest();
    let (namespace, claim_name) = (text(&claim["metadata"]["namespace"]), text(&claim["metadata"]["name"]));
    let name = format!("pvc-{}", text(&claim["metadata"]["uid"]));
    if state.get("PersistentVolume", "", &name).is_some() {
        turn.event(claim, false, "ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
        return turn;
    }
    let begun = format!("External provisioner is provisioning volume for claim \"{namespace}/{claim_name}\"");
    turn.event(claim, false, "Provisioning", begun);
    let volume = Parameters::read(class).and_then(|parameters| {
        let volume = plan(driver, &parameters, class, claim, &name, state)?;
        Ok((parameters, volume))
    });
    let cloned = volume.and_then(|both| Ok((both, original(state, driver, claim)?)));
    let ((parameters, volume), original) = match cloned {
        Ok(all) => all,
        Err(why) => {
            let class = text(&class["metadata"]["name"]);
            let message = format!("failed to provision volume with StorageClass \"{class}\": {why}");
            turn.event(claim, true, "ProvisioningFailed", message);
            return turn;
        }
    };
    if let Some(source) = original_of(claim).and_then(|key| state.at(&key)) {
        let mut held = (**source).clone();
        let mut finalizers = list_of(&source["metadata"]["finalizers"]).to_vec();
        if !finalizers.iter().any(|one| one == CLONING) {
            finalizers.push(CLONING.into());
            held["metadata"]["finalizers"] = finalizers.into();
            turn.update(source, held);
        }
    }
    let due = asked_at(state, claim) + SignedDuration::from_secs(parameters.delay_s);
    if due > state.now() {
        turn.again_at = Some(due);
        return turn;
    }
    let is_block = claim["spec"]["volumeMode"] == "Block";
    let from = original.map(|volume| text(&volume["spec"]["csi"]["volumeHandle"]).to_owned());
    turn.writes.push(Write::MakeDisk { handle: name, bytes: matching::requested(claim), is_block, from });
    turn.writes.push(Write::Create(volume));
    turn
}

/// When the claim could first have had its volume: when it was made, or when its first pod was.
fn asked_at(state: &State, claim: &Value) -> Timestamp {
    let made = |object: &Value| text(&object["metadata"]["creationTimestamp"]).parse::<Timestamp>().ok();
    let of_claim = made(claim).unwrap_or(state.now());
    if !annotations::has(claim, annotations::SELECTED_NODE) {
        return of_claim;
    }
    let (namespace, name) = (text(&claim["metadata"]["namespace"]), text(&claim["metadata"]["name"]));
    let of_pods = state.pods_of_claim(namespace, name).filter_map(|pod| made(pod)).min();
    of_claim.max(of_pods.unwrap_or(of_claim))
}

/// The volume for a claim, or why there can be none.
fn plan(
    driver: &drivers::Driver,
    parameters: &Parameters,
    class: &Value,
    claim: &Value,
    name: &str,
    state: &State,
) -> Result<Value, String> {
    let spec = &claim["spec"];
    let foreign = |mode: &&Value| !driver.access_modes.contains(&text(mode));
    if let Some(mode) = list_of(&spec["accessModes"]).iter().find(foreign) {
        return Err(format!(
            "rpc error: code = InvalidArgument desc = {} has no access mode {}",
            driver.name,
            text(mode)
        ));
    }
    if spec["volumeMode"] == "Block" && !driver.has_devices {
        return Err(format!("rpc error: code = InvalidArgument desc = {} has no block volumes", driver.name));
    }
    if !spec["selector"].is_null() {
        return Err("claim Selector is not supported".into());
    }
    if !list_of(&class["allowedTopologies"]).is_empty() {
        return Err("rpc error: code = InvalidArgument desc = allowedTopologies are not simulated".into());
    }
    if parameters.fails {
        return Err("rpc error: code = Internal desc = the class says fail: provision".into());
    }
    let mut volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "csi": {"driver": driver.name, "volumeHandle": name},
            "accessModes": spec["accessModes"],
            "claimRef": binder::reference(claim),
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"].as_str().unwrap_or("Delete"),
            "storageClassName": class["metadata"]["name"],
            "volumeMode": spec["volumeMode"].as_str().unwrap_or("Filesystem"),
        },
    });
    annotations::set(&mut volume, annotations::PROVISIONED_BY, driver.name);
    annotations::set(&mut volume, annotations::BOUND_BY_CONTROLLER, "yes");
    if let Some(parameters) = class["parameters"].as_object().filter(|all| !all.is_empty()) {
        volume["spec"]["csi"]["volumeAttributes"] = Value::Object(parameters.clone());
    }
    if !list_of(&class["mountOptions"]).is_empty() {
        volume["spec"]["mountOptions"] = class["mountOptions"].clone();
    }
    if parameters.is_local {
        let node = annotations::get(claim, annotations::SELECTED_NODE).and_then(|name| state.get("Node", "", name));
        let host = node.map(|node| &node["metadata"]["labels"]["kubernetes.io/hostname"]).filter(|one| one.is_string());
        let Some(host) = host else {
            return Err("rpc error: code = InvalidArgument desc = node: local needs a selected node with a \
                        kubernetes.io/hostname, so a class with WaitForFirstConsumer"
                .into());
        };
        let requirement = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [host]});
        volume["spec"]["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}});
    }
    Ok(volume)
}

/// A released volume of ours with policy Delete goes, its data first.
fn delete(state: &State, volume: &Value) -> Turn {
    let provisioner = annotations::get(volume, annotations::PROVISIONED_BY).unwrap_or_default();
    let Some(driver) = drivers::of_volume(volume).filter(|one| one.name == provisioner) else { return Turn::rest() };
    let is_due = volume["status"]["phase"] == "Released"
        && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        && volume["metadata"]["deletionTimestamp"].is_null();
    if !is_due {
        return Turn::rest();
    }
    let name = text(&volume["metadata"]["name"]);
    if driver.attachable
        && let Some(attachment) = state.attachments_of(name).next()
    {
        let node = text(&attachment["spec"]["nodeName"]);
        let mut turn = Turn::rest();
        let message = format!("persistentvolume {name} is still attached to node {node}");
        turn.event(volume, true, "VolumeFailedDelete", message);
        return turn;
    }
    let handle = text(&volume["spec"]["csi"]["volumeHandle"]).to_owned();
    let gone = Write::delete(Key::new("PersistentVolume", "", name), volume);
    Turn::of(vec![Write::RemoveDisk { handle }, gone])
}
