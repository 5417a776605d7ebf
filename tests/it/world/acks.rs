//! Whether writes were lost: what the exercise pods say about themselves, and what they acknowledged.

use super::World;
use super::workload::EXERCISE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One exercise container of a pod.
struct Exercise {
    pod: String,
    container: String,
    acks: PathBuf,
    writer: String,
}

impl World {
    /// No exercise pod ever found a line missing, all run but those that are being deleted, and each goes on writing.
    pub async fn still_intact(&self) {
        self.nothing_lost().await;
        let exercises = self.exercises().await;
        assert!(!exercises.is_empty(), "there is no exercise pod to ask");
        for pod in self.list("Pod").await.iter().filter(|pod| is_exercise(pod) && stays(pod)) {
            assert_eq!(pod["status"]["phase"], "Running", "{}: {:#}", pod["metadata"]["name"], pod["status"]);
        }
        let before = self.acknowledged();
        for Exercise { pod, container, acks, writer } in exercises {
            let key = acks.join(format!("ack-{writer}"));
            let then = before.get(&key).copied().unwrap_or(0);
            let grows = async || self.acknowledged().get(&key).is_some_and(|now| *now > then).then_some(());
            let what = format!("{pod}/{container} to acknowledge more than {then} lines in {}", key.display());
            self.until(&what, Duration::from_secs(30), grows).await;
        }
        self.nothing_lost().await;
        self.former_writers_lost_nothing().await;
    }

    /// Checks what a writer that has stopped left in a claim against its acknowledgements: `writer` is the pod's name,
    /// or the Deployment's if that has one replica.
    pub async fn check_writer(&self, claim: &str, workload: &str, mount: &str, writer: &str) {
        let (ns, workload) = self.split(workload);
        let acks = self.ack_dir(ns, workload).join(mount);
        let check = |dir: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pvmigrate"));
            command.args(["agent", "exercise"]).arg(dir).arg("--ack").arg(&acks).args(["--name", writer, "--check"]);
            command.output().expect("the agent can be started")
        };
        let output = self.in_volume(claim, check).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{workload}/{mount}: {writer} in {claim}: {}\n{out}{err}", output.status);
    }

    /// Pods of a Deployment with more replicas than one write under names that nobody continues.
    async fn former_writers_lost_nothing(&self) {
        let pods = self.list("Pod").await;
        let live: Vec<&str> = pods.iter().map(|pod| text(&pod["metadata"]["name"])).collect();
        for deployment in self.list("Deployment").await.iter().filter(|one| is_exercise(one)) {
            let (ns, name) = (text(&deployment["metadata"]["namespace"]), text(&deployment["metadata"]["name"]));
            let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            for volume in volumes.iter().filter(|volume| volume["persistentVolumeClaim"].is_object()) {
                let mount = text(&volume["name"]);
                let claim = format!("{ns}/{}", text(&volume["persistentVolumeClaim"]["claimName"]));
                let dir = self.ack_dir(ns, name).join(mount);
                for path in self.acknowledged().into_keys().filter(|path| path.parent() == Some(&dir)) {
                    let writer = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
                    let writer = writer.trim_start_matches("ack-");
                    if writer != name && !live.contains(&writer) {
                        self.check_writer(&claim, &format!("{ns}/{name}"), mount, writer).await;
                    }
                }
            }
        }
    }

    /// No exercise container, now or before its last restart, printed LOST or exited with 3.
    pub async fn nothing_lost(&self) {
        for pod in self.list("Pod").await.iter().filter(|pod| is_exercise(pod)) {
            let name = format!("{}/{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            for status in pod["status"]["containerStatuses"].as_array().unwrap_or(&Vec::new()) {
                let container = text(&status["name"]);
                for state in [&status["state"], &status["lastState"]] {
                    assert_ne!(state["terminated"]["exitCode"], 3, "{name}/{container} lost a write: {status:#}");
                }
                let restarted = status["restartCount"].as_u64().unwrap_or(0) > 0;
                for previous in [false, true].into_iter().filter(|previous| !previous || restarted) {
                    let log = self.log(&name, container, previous).await.unwrap_or_default();
                    let lost = log.lines().find(|line| line.starts_with("LOST"));
                    assert!(lost.is_none(), "{name}/{container}: {}", lost.unwrap_or_default());
                }
            }
        }
    }

    /// Acknowledged lines by ack file, of every exercise there ever was in this test.
    pub fn acknowledged(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.dir().join("acks")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_none_or(|extension| extension != "new") {
                    let ack = std::fs::read(&path).unwrap_or_default();
                    let ack: Value = serde_json::from_slice(&ack).unwrap_or_default();
                    found.insert(path, ack["lines"].as_u64().unwrap_or(0));
                }
            }
        }
        found
    }

    async fn exercises(&self) -> Vec<Exercise> {
        let mut all = Vec::new();
        for pod in self.list("Pod").await.iter().filter(|pod| is_exercise(pod) && stays(pod)) {
            let (ns, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            let workload = text(&pod["metadata"]["labels"][EXERCISE]);
            for container in pod["spec"]["containers"].as_array().expect("a pod has containers") {
                let Some(mount) = text(&container["name"]).strip_prefix("exercise-") else {
                    continue;
                };
                let command: Vec<&str> = container["command"].as_array().into_iter().flatten().map(text).collect();
                let named = command.iter().position(|word| *word == "--name").map(|at| command[at + 1]);
                if command.first() != Some(&"pvmigrate") {
                    continue;
                }
                all.push(Exercise {
                    pod: format!("{ns}/{name}"),
                    container: text(&container["name"]).to_owned(),
                    acks: self.ack_dir(ns, workload).join(mount),
                    writer: named.unwrap_or(name).to_owned(),
                });
            }
        }
        all
    }
}

fn is_exercise(pod: &Value) -> bool {
    pod["metadata"]["labels"][EXERCISE].is_string()
}

fn stays(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
