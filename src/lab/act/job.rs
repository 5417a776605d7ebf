//! Jobs: pods that are to succeed so many times.
//!
//! Called by the loop for the Job. What must stay true: a finished Job makes no pods; a pod that failed counts as long
//! as it is there; after a second failure the next pod waits, longer each time.

use super::events::{created_pods, say};
use super::owner::{controlled_by, controllers_of, is_going, name};
use super::pod::{self, condition, count, is_active, phase, seconds, stamp, time, with_status};
use super::{Controller, Key, State, Turn, Value, Write};
use crate::lab::store::{Commit, list_of, text};
use jiff::Timestamp;
use serde_json::json;

pub static JOB: Controller = Controller { name: "job-controller", wakes, act };

fn wakes(_: &State, commit: &Commit) -> Vec<Key> {
    match commit.key.kind {
        "Job" => vec![commit.key.clone()],
        "Pod" => controllers_of(commit, "Job"),
        _ => Vec::new(),
    }
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(job) = state.at(key) else { return Turn::rest() };
    let is_finished = ["Complete", "Failed"]
        .iter()
        .any(|kind| condition(job, kind).is_some_and(|condition| condition["status"] == "True"));
    if is_finished {
        return Turn::rest();
    }
    let pods: Vec<&Value> = controlled_by(state, job, "Pod").collect();
    Look { state, job, pods }.act()
}

struct Look<'a> {
    state: &'a State,
    job: &'a Value,
    pods: Vec<&'a Value>,
}

/// Why a Job fails.
struct Failure {
    reason: &'static str,
    message: &'static str,
}

impl Look<'_> {
    fn act(&self) -> Turn {
        let job = self.job;
        let now = self.state.now();
        if job["status"]["startTime"].is_null() {
            let mut status = job["status"].clone();
            status["startTime"] = stamp(now);
            return Turn::of(with_status(job, self.status(&status)).map(Write::Status).into_iter().collect());
        }
        let mut writes = created_pods(self.state, job, &self.pods);
        let started = time(&job["status"]["startTime"]).unwrap_or(now);
        let deadline =
            job["spec"]["activeDeadlineSeconds"].as_i64().and_then(|limit| started.checked_add(seconds(limit)).ok());
        let mut again_at = deadline;
        if let Some(failure) = self.failure(deadline.is_some_and(|at| at <= now)) {
            writes.extend(self.active().into_iter().flat_map(|pod| self.delete(pod)));
            writes.extend(say(self.state, job, true, failure.reason, failure.message.to_owned()));
            let mut status = job["status"].clone();
            let mut failed = self.condition("Failed");
            failed["reason"] = failure.reason.into();
            failed["message"] = failure.message.into();
            push(&mut status["conditions"], failed);
            writes.extend(with_status(job, self.status(&status)).map(Write::Status));
            return Turn::of(writes);
        }
        if !is_going(job) {
            let (pods, later) = self.pods_due();
            writes.extend(pods);
            again_at = again_at.into_iter().chain(later).min();
        }
        let mut status = job["status"].clone();
        if self.is_complete() {
            writes.extend(say(self.state, job, false, "Completed", "Job completed".to_owned()));
            push(&mut status["conditions"], self.condition("Complete"));
            status["completionTime"] = stamp(now);
            again_at = None;
        }
        writes.extend(with_status(job, self.status(&status)).map(Write::Status));
        Turn { writes, again_at }
    }

    fn condition(&self, kind: &str) -> Value {
        let now = stamp(self.state.now());
        json!({"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now})
    }

    fn active(&self) -> Vec<&Value> {
        self.pods.iter().copied().filter(|pod| is_active(pod)).collect()
    }

    fn of_phase(&self, wanted: &str) -> i64 {
        self.pods.iter().filter(|pod| phase(pod) == wanted).count() as i64
    }

    fn failure(&self, is_late: bool) -> Option<Failure> {
        let spec = &self.job["spec"];
        let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
        let restarts: i64 = self
            .active()
            .into_iter()
            .flat_map(|pod| list_of(&pod["status"]["containerStatuses"]))
            .filter_map(|status| status["restartCount"].as_i64())
            .sum();
        let restarts_in_place = spec["template"]["spec"]["restartPolicy"] == "OnFailure";
        let is_worn = restarts_in_place && restarts > 0 && restarts >= limit;
        if self.of_phase("Failed") > limit || is_worn {
            let message = "Job has reached the specified backoff limit";
            return Some(Failure { reason: "BackoffLimitExceeded", message });
        }
        let message = "Job was active longer than specified deadline";
        is_late.then_some(Failure { reason: "DeadlineExceeded", message })
    }

    fn is_complete(&self) -> bool {
        match self.job["spec"]["completions"].as_i64() {
            Some(completions) => self.of_phase("Succeeded") >= completions,
            None => self.of_phase("Succeeded") > 0 && self.active().is_empty(),
        }
    }

    /// The pods to make or to delete, or when to look again.
    fn pods_due(&self) -> (Vec<Write>, Option<Timestamp>) {
        let spec = &self.job["spec"];
        let parallelism = spec["parallelism"].as_i64().unwrap_or(1);
        let active = self.active();
        let running = active.len() as i64;
        let wanted = match spec["completions"].as_i64() {
            Some(completions) => (completions - self.of_phase("Succeeded")).clamp(0, parallelism),
            None if self.of_phase("Succeeded") > 0 => running.min(parallelism),
            None => parallelism,
        };
        if running > wanted {
            let surplus = usize::try_from(running - wanted).unwrap_or_default();
            let going = pod::first_to_go(active, |_| 0).into_iter().take(surplus);
            return (going.flat_map(|pod| self.delete(pod)).collect(), None);
        }
        let missing = usize::try_from(wanted - running).unwrap_or_default();
        if missing == 0 {
            return (Vec::new(), None);
        }
        match self.next_try().filter(|at| *at > self.state.now()) {
            Some(at) => (Vec::new(), Some(at)),
            None => (vec![Write::Create(pod::from_template(self.job, &spec["template"])); missing], None),
        }
    }

    /// The first failure is answered at once, then 10 s, 20 s, 40 s, … at most six minutes pass.
    fn next_try(&self) -> Option<Timestamp> {
        let failed: Vec<&&Value> = self.pods.iter().filter(|pod| phase(pod) == "Failed").collect();
        let doublings = u32::try_from(failed.len().checked_sub(2)?).unwrap_or(u32::MAX).min(6);
        let last = failed.iter().map(|pod| ended(pod)).max()?;
        last.checked_add(seconds((10 << doublings).min(360))).ok()
    }

    fn delete(&self, pod: &Value) -> Vec<Write> {
        let message = format!("Deleted pod: {}", name(pod));
        let mut writes: Vec<Write> = say(self.state, self.job, false, "SuccessfulDelete", message).collect();
        writes.push(pod::delete(pod));
        writes
    }

    /// The counts with what else a status says.
    fn status(&self, said: &Value) -> Value {
        let mut status = json!({});
        for field in ["conditions", "startTime", "completionTime"] {
            if !said[field].is_null() {
                status[field] = said[field].clone();
            }
        }
        count(&mut status, "active", self.active().len() as i64);
        count(&mut status, "succeeded", self.of_phase("Succeeded"));
        count(&mut status, "failed", self.of_phase("Failed"));
        status
    }
}

fn push(list: &mut Value, one: Value) {
    let mut all = list_of(list).to_vec();
    all.push(one);
    *list = all.into();
}

/// When a pod's last container ended, as far as it is known.
fn ended(pod: &Value) -> Timestamp {
    let containers = list_of(&pod["status"]["containerStatuses"]).iter();
    let ends = containers.filter_map(|status| time(&status["state"]["terminated"]["finishedAt"]));
    let changes = list_of(&pod["status"]["conditions"]).iter().filter(|one| text(&one["type"]) == "Ready");
    let changes = changes.filter_map(|one| time(&one["lastTransitionTime"]));
    ends.chain(changes).max().unwrap_or_else(|| pod::born(pod))
}
