//! What a kubelet does next about one pod: pure.

use super::mounts::misused;
use super::{Images, restart_at};
use crate::lab::act::{Propagation, Write, drivers};
use crate::lab::handle::stamp;
use crate::lab::process::{Fate, Outcome};
use crate::lab::store::{State, claims_of, list_of, text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Rest,
    /// Nothing before this time.
    Wait(Timestamp),
    Say(Vec<Write>),
    /// The container of this name.
    Start(String),
    /// All that run, with this grace.
    Stop {
        grace_s: u64,
    },
    /// Nothing runs any more: clean up, then say.
    Gone(Vec<Write>),
}

/// Why a container does not run yet.
struct Waiting {
    reason: &'static str,
    message: String,
    /// An Event with this reason, if one is due.
    event: Option<&'static str>,
}

pub fn decide(state: &State, pod: &Value, outcomes: &BTreeMap<String, Outcome>, images: &Images) -> Decision {
    let meta = &pod["metadata"];
    let is_running = outcomes.values().any(Outcome::is_running);
    let is_over = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    if !meta["deletionTimestamp"].is_null() {
        if is_running {
            return Decision::Stop { grace_s: meta["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) };
        }
        // How its containers ended is said before the object goes: others tell a clean end from a deletion by force so.
        if !outcomes.is_empty() && !is_over {
            let status = status(state, pod, outcomes, None);
            if status != pod["status"] {
                let mut new = pod.clone();
                new["status"] = status;
                return Decision::Say(vec![Write::Status(new)]);
            }
        }
        let uid = text(&meta["uid"]).to_owned();
        let key = super::pod_key(pod);
        let write = Write::Delete { key, uid, grace_s: Some(0), propagation: Propagation::Background };
        return Decision::Gone(vec![write]);
    }
    if is_over {
        return if is_running { Decision::Stop { grace_s: 0 } } else { Decision::Rest };
    }
    let containers = list_of(&pod["spec"]["containers"]);
    let waiting = waiting(state, pod, images);
    let status = status(state, pod, outcomes, waiting.as_ref());
    if status != pod["status"] {
        let mut new = pod.clone();
        new["status"] = status;
        let mut writes = vec![Write::Status(new)];
        if let Some((reason, message)) = waiting.and_then(|waiting| Some((waiting.event?, waiting.message))) {
            writes.push(Write::event(pod, true, reason, message));
        }
        return Decision::Say(writes);
    }
    if let Some(waiting) = waiting {
        return match waiting.event {
            Some(reason) => Decision::Say(vec![Write::event(pod, true, reason, waiting.message)]),
            None => Decision::Rest,
        };
    }
    let policy = text(&pod["spec"]["restartPolicy"]);
    let mut next: Option<Timestamp> = None;
    for container in containers {
        let name = text(&container["name"]);
        match outcomes.get(name) {
            None if !was_lost(pod, name) || policy != "Never" => return Decision::Start(name.to_owned()),
            Some(Outcome::Ended { at, code, restarts, .. })
                if policy == "Always" || (policy == "OnFailure" && *code != 0) =>
            {
                let due = restart_at(*at, *restarts);
                if due <= state.now() {
                    return Decision::Start(name.to_owned());
                }
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            _ => {}
        }
    }
    next.map_or(Decision::Rest, Decision::Wait)
}

/// Whether the pod says that the container ran, and nobody knows of it: the machine was restarted.
fn was_lost(pod: &Value, container: &str) -> bool {
    list_of(&pod["status"]["containerStatuses"]).iter().any(|one| {
        one["name"] == container && (one["state"]["running"].is_object() || one["state"]["terminated"].is_object())
    })
}

/// What the pod waits for before anything of it may run; nothing once it has been started.
fn waiting(state: &State, pod: &Value, images: &Images) -> Option<Waiting> {
    let namespace = text(&pod["metadata"]["namespace"]);
    let creating = |message: String| Waiting { reason: "ContainerCreating", message, event: None };
    let has_started = list_of(&pod["status"]["containerStatuses"])
        .iter()
        .any(|one| one["state"]["running"].is_object() || one["state"]["terminated"].is_object());
    if has_started {
        return None;
    }
    for name in claims_of(&pod["spec"]) {
        let Some(claim) = state.get("PersistentVolumeClaim", namespace, name) else {
            return Some(creating(format!("persistentvolumeclaim \"{name}\" not found")));
        };
        if !claim["metadata"]["deletionTimestamp"].is_null() {
            let message = format!("can't start pod because PVC {namespace}/{name} is being deleted");
            return Some(Waiting { event: Some("FailedMount"), ..creating(message) });
        }
        if claim["status"]["phase"] != "Bound" {
            return Some(creating(format!("PVC {namespace}/{name} is not bound")));
        }
        let Some(volume) = state.get("PersistentVolume", "", text(&claim["spec"]["volumeName"])) else {
            return Some(creating(format!("the volume of PVC {namespace}/{name} does not exist")));
        };
        if !is_attached(state, volume, text(&pod["spec"]["nodeName"])) {
            return Some(creating(format!("the volume of PVC {namespace}/{name} is not attached")));
        }
        if let Some(message) = misused(pod, name, volume) {
            return Some(Waiting { event: Some("FailedMount"), ..creating(message) });
        }
    }
    for container in list_of(&pod["spec"]["containers"]) {
        let image = text(&container["image"]);
        if images.find(image).is_none() {
            let message = format!("Failed to pull image \"{image}\": it is not registered with the lab");
            return Some(Waiting { reason: "ErrImagePull", message, event: Some("Failed") });
        }
    }
    None
}

/// Whether a volume is where the pod is; what needs no attaching is everywhere.
fn is_attached(state: &State, volume: &Value, node: &str) -> bool {
    let Some(driver) = drivers::of_volume(volume).filter(|driver| driver.attachable) else { return true };
    let name = crate::lab::act::attach::attachment_name(volume, driver.name, node);
    let attachment = state.get("VolumeAttachment", "", &name);
    attachment.is_some_and(|one| one["status"]["attached"] == true && one["metadata"]["deletionTimestamp"].is_null())
}

/// The pod's status as it is now.
fn status(state: &State, pod: &Value, outcomes: &BTreeMap<String, Outcome>, waiting: Option<&Waiting>) -> Value {
    let now = stamp(state.now());
    let policy = text(&pod["spec"]["restartPolicy"]);
    let mut status = pod["status"].clone();
    let node = text(&pod["spec"]["nodeName"]);
    let address = state
        .get("Node", "", node)
        .and_then(|node| list_of(&node["status"]["addresses"]).iter().find(|one| one["type"] == "InternalIP").cloned())
        .map_or_else(|| "127.0.0.1".to_owned(), |one| text(&one["address"]).to_owned());
    status["hostIP"] = address.into();
    if status["startTime"].is_null() {
        status["startTime"] = now.clone();
    }
    let mut statuses = Vec::new();
    let (mut running, mut ended, mut failed, mut all) = (0, 0, 0, 0);
    for container in list_of(&pod["spec"]["containers"]) {
        let name = text(&container["name"]);
        let before = list_of(&pod["status"]["containerStatuses"]).iter().find(|one| one["name"] == name);
        let outcome = outcomes.get(name);
        let (condition, restarts, is_ready) = match outcome {
            Some(outcome) => told(outcome),
            None if was_lost(pod, name) && waiting.is_none() => lost(before, &now, policy),
            None => {
                let (reason, message) =
                    waiting.map_or(("ContainerCreating", ""), |waiting| (waiting.reason, &waiting.message[..]));
                // The real one says nothing but the reason while it creates.
                let mut one = json!({"waiting": {"reason": reason}});
                if reason != "ContainerCreating" {
                    one["waiting"]["message"] = message.into();
                }
                (one, 0, false)
            }
        };
        all += 1;
        running += usize::from(is_ready);
        let code = condition["terminated"]["exitCode"].as_i64();
        let goes_on = policy == "Always" || (policy == "OnFailure" && code != Some(0));
        if code.is_some() && !goes_on {
            ended += 1;
            failed += usize::from(code != Some(0));
        }
        let mut one = json!({
            "name": name, "state": condition, "lastState": {}, "ready": is_ready, "restartCount": restarts,
            "image": container["image"], "imageID": "", "started": is_ready,
        });
        if let Some(before) = before
            && restarts > before["restartCount"].as_u64().unwrap_or(0)
            && before["state"]["terminated"].is_object()
        {
            one["lastState"] = before["state"].clone();
        } else if let Some(before) = before {
            one["lastState"] = before["lastState"].clone();
        }
        if waiting.is_none() {
            one["containerID"] = format!("lab://{}/{name}/{restarts}", text(&pod["metadata"]["uid"])).into();
            if outcome.is_some() && one["state"]["terminated"].is_object() {
                one["state"]["terminated"]["containerID"] = one["containerID"].clone();
            }
        }
        statuses.push(one);
    }
    let has_started = waiting.is_none() && statuses.iter().all(|one| one["state"]["waiting"].is_null());
    let phase = match (has_started, ended == all && all > 0) {
        (true, true) if failed > 0 => "Failed",
        (true, true) => "Succeeded",
        (true, false) => "Running",
        (false, _) => "Pending",
    };
    let is_evicted = |outcome: &Outcome| matches!(outcome, Outcome::Ended { fate: Some(Fate::Evicted), .. });
    // Whatever its policy, such a pod is over.
    let phase = if outcomes.values().any(is_evicted) && running == 0 {
        status["reason"] = "Evicted".into();
        status["message"] = "The node was low on resource: memory. ".into();
        "Failed"
    } else {
        phase
    };
    let is_ready = running == all && all > 0;
    status["phase"] = phase.into();
    status["containerStatuses"] = statuses.into();
    if has_started && status["podIP"].is_null() {
        let ip = address_of(text(&pod["metadata"]["uid"]));
        status["podIPs"] = json!([{"ip": ip}]);
        status["podIP"] = ip.into();
    }
    let unready: Vec<&str> = list_of(&status["containerStatuses"])
        .iter()
        .filter(|one| one["ready"] != true)
        .map(|one| text(&one["name"]))
        .collect();
    let unready = format!("containers with unready status: [{}]", unready.join(" "));
    status["conditions"] = conditions(&status, phase, is_ready, &unready, &now);
    status
}

/// The conditions in the order of a real kubelet: those of others, then its own.
fn conditions(status: &Value, phase: &str, is_ready: bool, unready: &str, now: &Value) -> Value {
    const OWN: [&str; 4] = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let is_done = phase == "Succeeded";
    let before = list_of(&status["conditions"]);
    let mut all: Vec<Value> = before.iter().filter(|one| !OWN.contains(&text(&one["type"]))).cloned().collect();
    for kind in OWN {
        let of_containers = matches!(kind, "Ready" | "ContainersReady");
        let wanted = if is_ready || !of_containers { "True" } else { "False" };
        let old = before.iter().find(|one| one["type"] == kind && one["status"] == wanted);
        let since = old.map_or(now, |old| &old["lastTransitionTime"]);
        let mut one = json!({"type": kind, "status": wanted, "lastProbeTime": null, "lastTransitionTime": since});
        if is_done && kind != "PodScheduled" {
            one["reason"] = "PodCompleted".into();
        } else if of_containers && !is_ready {
            one["reason"] = "ContainersNotReady".into();
            one["message"] = unready.into();
        }
        all.push(one);
    }
    all.into()
}

/// State, restarts, and whether it is ready.
fn told(outcome: &Outcome) -> (Value, u64, bool) {
    match outcome {
        Outcome::Running { since, restarts } => {
            (json!({"running": {"startedAt": stamp(*since)}}), u64::from(*restarts), true)
        }
        Outcome::Ended { since, at, code, signal, fate, message, restarts } => {
            let reason = match fate {
                Some(Fate::OutOfMemory) => "OOMKilled",
                _ if *code == 0 => "Completed",
                _ => "Error",
            };
            let mut one = json!({
                "exitCode": code, "reason": reason,
                "startedAt": stamp(*since), "finishedAt": stamp(*at),
            });
            if !message.is_empty() {
                one["message"] = message[..].into();
            }
            if let Some(signal) = signal {
                one["signal"] = (*signal).into();
            }
            (json!({"terminated": one}), u64::from(*restarts), false)
        }
        Outcome::Failed { why, at, restarts } => {
            let reason = if why.starts_with("LabUnsupportedCommand") { "LabUnsupportedCommand" } else { "StartError" };
            let one = json!({
                "exitCode": 128, "reason": reason, "message": why, "startedAt": stamp(*at), "finishedAt": stamp(*at),
            });
            (json!({"terminated": one}), u64::from(*restarts), false)
        }
    }
}

/// A container that ran when the lab ended.
fn lost(before: Option<&Value>, now: &Value, policy: &str) -> (Value, u64, bool) {
    let Some(before) = before else { return (json!({"waiting": {"reason": "ContainerCreating"}}), 0, false) };
    let restarts = before["restartCount"].as_u64().unwrap_or(0);
    if before["state"]["terminated"].is_object() || policy != "Never" {
        return (before["state"].clone(), restarts, before["ready"] == true);
    }
    let one = json!({
        "exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": now,
        "message": "The container could not be located when the lab was started again",
    });
    (json!({"terminated": one}), restarts, false)
}

/// An address that looks like a pod's; there is no network behind it.
fn address_of(uid: &str) -> String {
    let sum = uid.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("10.244.{}.{}", (sum >> 8) % 256, sum % 254 + 1)
}
