//! What a failed test shows: pods, claims, volumes, events, logs, journals, and what pvmigrate said.

use super::World;
use super::journal::journals;
use super::objects::items;
use serde_json::Value;
use std::fmt::Write as _;

impl World {
    /// On stderr, from the test's own thread, so that libtest shows it with the failure.
    pub(super) async fn report(&self, test: &str) {
        let mut out = format!("\n===== {test}, namespace {}\n", self.ns);
        for talk in self.processes.lock().unwrap().iter() {
            let outcome = talk.outcome();
            let (stdout, stderr) = (tail(&outcome.stdout, 20), tail(&outcome.stderr, 40));
            let _ = writeln!(out, "--- {}: code {:?} signal {:?}", talk.command, outcome.code, outcome.signal);
            let _ = writeln!(out, "{stdout}\n{stderr}");
        }
        for journal in journals(&self.state_dir()) {
            let text = std::fs::read_to_string(&journal).unwrap_or_default();
            let lines = tail(&text, 15).lines().map(|line| cut(line, 400)).collect::<Vec<_>>().join("\n");
            let _ = writeln!(out, "--- {}\n{lines}", journal.display());
        }
        out.push_str("--- claims and volumes\n");
        for kind in ["PersistentVolumeClaim", "PersistentVolume"] {
            for object in self.list(kind).await {
                let _ = writeln!(out, "{kind} {}", storage_line(&object));
            }
        }
        out.push_str("--- workloads and pods\n");
        for kind in ["Deployment", "StatefulSet", "Job", "DaemonSet"] {
            for object in self.list(kind).await {
                let status = cut(&object["status"].to_string(), 300);
                let _ = writeln!(out, "{kind} {} {} {status}", name(&object), object["spec"]["replicas"]);
            }
        }
        let pods = self.list("Pod").await;
        for pod in &pods {
            self.pod(pod, &mut out).await;
        }
        out.push_str("--- events\n");
        out.push_str(&self.news().await);
        eprintln!("{out}=====\n");
    }

    async fn pod(&self, pod: &Value, out: &mut String) {
        let meta = &pod["metadata"];
        let leaving = if meta["deletionTimestamp"].is_null() { "" } else { " (being deleted)" };
        let (phase, node) = (&pod["status"]["phase"], &pod["spec"]["nodeName"]);
        let _ = writeln!(out, "Pod {} {phase} on {node}{leaving}", name(pod));
        for condition in pod["status"]["conditions"].as_array().into_iter().flatten() {
            if condition["status"] != "True" {
                let _ = writeln!(out, "  {} {} {}", condition["type"], condition["reason"], condition["message"]);
            }
        }
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let container = status["name"].as_str().unwrap_or_default();
            let (state, last) = (&status["state"], &status["lastState"]);
            let _ = writeln!(out, "  {container} restarts {} {state} before {last}", status["restartCount"]);
            let restarted = status["restartCount"].as_u64().unwrap_or(0) > 0;
            for previous in [true, false].into_iter().filter(|previous| !previous || restarted) {
                let log = self.log(&name(pod), container, previous).await.unwrap_or_default();
                for line in tail(&log, 12).lines() {
                    let _ = writeln!(out, "  {} {}", if previous { "|<" } else { "|" }, cut(line, 300));
                }
            }
        }
    }

    async fn news(&self) -> String {
        let mut events = Vec::new();
        for ns in self.namespaces() {
            let list = self.ground.get(&format!("/api/v1/namespaces/{ns}/events")).await;
            events.extend(list.map(|mut list| items(&mut list)).unwrap_or_default());
        }
        let time = |event: &Value| {
            let time = event["lastTimestamp"].as_str().or(event["eventTime"].as_str());
            time.unwrap_or_default().to_owned()
        };
        // This cluster has no DNS, and says so for every pod.
        events.retain(|event| event["reason"] != "MissingClusterDNS");
        events.sort_by_key(time);
        let line = |event: &Value| {
            let (object, reason) = (&event["involvedObject"], &event["reason"]);
            let (time, message) = (time(event), cut(event["message"].as_str().unwrap_or_default(), 300));
            format!("{time} {} {} {reason} {message}\n", object["kind"], object["name"])
        };
        events[events.len().saturating_sub(30)..].iter().map(line).collect()
    }
}

fn storage_line(object: &Value) -> String {
    let (meta, spec) = (&object["metadata"], &object["spec"]);
    let leaving = if meta["deletionTimestamp"].is_null() { "" } else { " (being deleted)" };
    let claim = &spec["claimRef"];
    format!(
        "{} {} class {} volume {} claim {}/{} uid {} policy {} finalizers {}{leaving}",
        name(object),
        object["status"]["phase"],
        spec["storageClassName"],
        spec["volumeName"],
        claim["namespace"],
        claim["name"],
        claim["uid"],
        spec["persistentVolumeReclaimPolicy"],
        meta["finalizers"],
    )
}

fn name(object: &Value) -> String {
    let meta = &object["metadata"];
    let place = meta["namespace"].as_str().map(|ns| format!("{ns}/")).unwrap_or_default();
    format!("{place}{}", meta["name"].as_str().unwrap_or_default())
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(most).collect::<String>())
    }
}
