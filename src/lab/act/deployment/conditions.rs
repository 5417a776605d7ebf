//! What is said of a Deployment: counts, `Available`, `Progressing`, and the revision.
//!
//! Pure. Called by `deployment`. What must stay true: times change only with what they are about, so that saying the
//! same twice is no change.

use super::rollout::replicas;
use super::{Look, REVISION, Value};
use crate::lab::act::events::is_new;
use crate::lab::act::owner::name;
use crate::lab::act::pod::{born, condition, count, seconds, stamp, time};
use crate::lab::store::{list_of, text};
use jiff::Timestamp;
use serde_json::json;

impl Look<'_> {
    /// The status as it shall be; with `is_rolling` also how the rollout goes.
    pub fn status(&self, is_rolling: bool) -> Value {
        let deployment = self.deployment;
        let sum =
            |field: &str| -> i64 { self.all().map(|set| set["status"][field].as_i64().unwrap_or_default()).sum() };
        let available = sum("availableReplicas");
        let wanted: i64 = self.all().map(replicas).sum();
        let updated = self.new.map_or(0, |set| set["status"]["replicas"].as_i64().unwrap_or_default());
        let mut status = json!({});
        count(&mut status, "observedGeneration", deployment["metadata"]["generation"].as_i64().unwrap_or_default());
        count(&mut status, "replicas", sum("replicas"));
        count(&mut status, "updatedReplicas", updated);
        count(&mut status, "readyReplicas", sum("readyReplicas"));
        count(&mut status, "availableReplicas", available);
        count(&mut status, "unavailableReplicas", (wanted - available).max(0));
        let mut conditions = list_of(&deployment["status"]["conditions"]).to_vec();
        let (is_available, reason, message) = if available >= self.limits.replicas - self.limits.unavailable {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        self.set(&mut conditions, "Available", is_available, reason, message.to_owned());
        if is_rolling {
            self.progress(&mut conditions, &status);
        }
        if !conditions.is_empty() {
            status["conditions"] = conditions.into();
        }
        if !deployment["status"]["collisionCount"].is_null() {
            status["collisionCount"] = deployment["status"]["collisionCount"].clone();
        }
        status
    }

    /// A condition of a type takes the place of the one before; nothing changes if it says the same.
    fn set(&self, conditions: &mut Vec<Value>, kind: &str, is: &str, reason: &str, message: String) {
        let before = conditions.iter().position(|one| one["type"] == kind);
        let now = stamp(self.state.now());
        let mut since = now.clone();
        if let Some(at) = before {
            if conditions[at]["status"] == is && conditions[at]["reason"] == reason {
                return;
            }
            let before = conditions.remove(at);
            if before["status"] == is {
                since = before["lastTransitionTime"].clone();
            }
        }
        conditions.push(json!({
            "type": kind, "status": is, "lastUpdateTime": now, "lastTransitionTime": since,
            "reason": reason, "message": message,
        }));
    }

    fn progress(&self, conditions: &mut Vec<Value>, status: &Value) {
        let Some(new) = self.new else { return };
        if self.deployment["spec"]["progressDeadlineSeconds"].is_null() {
            conditions.retain(|one| one["type"] != "Progressing");
            return;
        }
        let old = &self.deployment["status"];
        let of = |status: &Value, field: &str| status[field].as_i64().unwrap_or_default();
        let before = condition(self.deployment, "Progressing");
        let was_complete = before.is_some_and(|one| one["reason"] == "NewReplicaSetAvailable");
        if was_complete && of(status, "replicas") == of(status, "updatedReplicas") {
            return;
        }
        let outdated = |status: &Value| of(status, "replicas") - of(status, "updatedReplicas");
        let grows = |field: &str| of(status, field) > of(old, field);
        if self.is_complete(status) {
            let message = format!("ReplicaSet {:?} has successfully progressed.", name(new));
            self.set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message);
        } else if grows("updatedReplicas")
            || grows("readyReplicas")
            || grows("availableReplicas")
            || outdated(status) < outdated(old)
        {
            // Said anew, so that the deadline starts again.
            let since = before.filter(|one| one["status"] == "True").map(|one| one["lastTransitionTime"].clone());
            conditions.retain(|one| one["type"] != "Progressing");
            let message = format!("ReplicaSet {:?} is progressing.", name(new));
            self.set(conditions, "Progressing", "True", "ReplicaSetUpdated", message);
            if let (Some(since), Some(last)) = (since, conditions.last_mut()) {
                last["lastTransitionTime"] = since;
            }
        } else if self.deadline_of(before).is_some_and(|at| at <= self.state.now()) {
            let message = format!("ReplicaSet {:?} has timed out progressing.", name(new));
            self.set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message);
        }
    }

    /// All replicas are new and available, and nobody has said otherwise since.
    pub fn is_complete(&self, status: &Value) -> bool {
        let all = |field: &str| status[field].as_i64().unwrap_or_default() == self.limits.replicas;
        all("replicas") && all("updatedReplicas") && all("availableReplicas")
    }

    /// When a rollout that stands still will have taken too long.
    pub fn deadline(&self, status: &Value) -> Option<Timestamp> {
        let progressing = list_of(&status["conditions"]).iter().find(|one| one["type"] == "Progressing");
        self.deadline_of(progressing).filter(|at| *at > self.state.now())
    }

    fn deadline_of(&self, progressing: Option<&Value>) -> Option<Timestamp> {
        let progressing = progressing.filter(|one| {
            !matches!(text(&one["reason"]), "NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused")
        })?;
        let limit = self.deployment["spec"]["progressDeadlineSeconds"].as_i64()?;
        time(&progressing["lastUpdateTime"])?.checked_add(seconds(limit)).ok()
    }

    /// The Deployment with what is to be said of a pause that began or ended.
    pub fn pause_changed(&self) -> Option<Value> {
        if self.deployment["spec"]["progressDeadlineSeconds"].is_null() {
            return None;
        }
        let before = condition(self.deployment, "Progressing").map(|one| text(&one["reason"]));
        if before == Some("ProgressDeadlineExceeded") {
            return None;
        }
        let is_paused = self.deployment["spec"]["paused"] == true;
        let (reason, message) = match (is_paused, before == Some("DeploymentPaused")) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return None,
        };
        let mut changed = self.deployment.clone();
        let mut conditions = list_of(&changed["status"]["conditions"]).to_vec();
        self.set(&mut conditions, "Progressing", "Unknown", reason, message.to_owned());
        changed["status"]["conditions"] = conditions.into();
        Some(changed)
    }

    /// The Deployment with the revision of its new ReplicaSet, and that there is one.
    pub fn revision_said(&self) -> Option<Value> {
        let new = self.new?;
        let revision = &new["metadata"]["annotations"][REVISION];
        let is_said = self.deployment["metadata"]["annotations"][REVISION] == *revision;
        let is_known = condition(self.deployment, "Progressing").is_some();
        let has_deadline = !self.deployment["spec"]["progressDeadlineSeconds"].is_null();
        if is_said && (is_known || !has_deadline) {
            return None;
        }
        let mut changed = self.deployment.clone();
        changed["metadata"]["annotations"][REVISION] = revision.clone();
        let is_new = born(new) >= born(self.deployment) && is_new(self.state, new);
        if has_deadline && (is_new || !is_known) {
            let mut conditions = list_of(&changed["status"]["conditions"]).to_vec();
            let (reason, what) =
                if is_new { ("NewReplicaSetCreated", "Created") } else { ("FoundNewReplicaSet", "Found") };
            let message = format!("{what} new replica set {:?}", name(new));
            self.set(&mut conditions, "Progressing", "True", reason, message);
            changed["status"]["conditions"] = conditions.into();
        }
        Some(changed)
    }
}
