//! What becomes of a pod of ours that ends without a result: one table, pure.
//!
//! Not the loop that makes pods: that is `run`, which asks here. What must stay true: what a pod is made
//! anew for, how often and after which pause depends only on what the journal has, so that a resumed run goes on counting;
//! a reason that nobody knows is a pod that was killed.

use crate::cluster::text;
use crate::words::Json;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is done about one way to end.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// As Kubernetes calls it, in a pod's status, a container's state or the condition `DisruptionTarget`; ours are
    /// `Deleted`, `Killed` and `Failed`.
    pub reasons: &'static [&'static str],
    /// What it means, after "it": `was evicted`.
    pub means: &'static str,
    /// How many more pods are made for it.
    pub again: u32,
    /// Before the first of them; before each further one twice as long.
    pub pause_s: u64,
    /// The next one has one thread only, which needs less memory.
    pub on_one_thread: bool,
    /// What to type if it was the last one and another run would meet the same; empty: resume may do better.
    pub hint: &'static str,
}

const NONE: Row = Row { reasons: &[], means: "", again: 0, pause_s: 0, on_one_thread: false, hint: "" };

/// No end of pods for reasons that take turns.
pub const MOST: usize = 12;
/// No pause is longer.
const LONGEST_S: u64 = 120;

pub const DELETED: &str = "Deleted";
pub const KILLED: &str = "Killed";
/// It reported a failure that may pass.
pub const FAILED: &str = "Failed";
const OOM_KILLED: &str = "OOMKilled";

pub const TABLE: &[Row] = &[
    Row { reasons: &["Evicted"], means: "was evicted: its node is short of something", again: 3, pause_s: 10, ..NONE },
    Row {
        reasons: &["Preempting", "Preempted", "PreemptionByScheduler", "PreemptionByKubeScheduler"],
        means: "had to make room for pods of a higher priority",
        again: 5,
        pause_s: 10,
        ..NONE
    },
    Row {
        reasons: &["NodeShutdown", "Terminated", "Shutdown", "TerminationByKubelet"],
        means: "ended with its node, which shuts down",
        again: 3,
        pause_s: 10,
        ..NONE
    },
    Row {
        reasons: &["NodeLost", "DeletionByTaintManager", "DeletionByPodGC"],
        means: "was taken off a node that is away",
        again: 3,
        pause_s: 10,
        ..NONE
    },
    Row { reasons: &["EvictionByEvictionAPI"], means: "was drained off its node", again: 5, pause_s: 10, ..NONE },
    Row { reasons: &[DELETED], means: "was deleted by somebody else", again: 3, pause_s: 1, ..NONE },
    Row { reasons: &["NodeAffinity"], means: "no longer fits its node", again: 3, pause_s: 5, ..NONE },
    Row {
        reasons: &[
            "UnexpectedAdmissionError",
            "OutOfcpu",
            "OutOfmemory",
            "OutOfpods",
            "OutOfephemeral-storage",
            "TopologyAffinityError",
        ],
        means: "was not admitted by its node",
        again: 5,
        pause_s: 5,
        ..NONE
    },
    Row {
        reasons: &[OOM_KILLED],
        means: "ran out of memory",
        again: 1,
        pause_s: 1,
        on_one_thread: true,
        hint: "give it more, with a file for --pod-patch: {spec: {containers: [{resources: {limits: {memory: 4Gi}}}]}}",
    },
    Row {
        reasons: &["DeadlineExceeded"],
        means: "ran for longer than its activeDeadlineSeconds",
        hint: "give it more with --pod-patch, or find out who sets it",
        ..NONE
    },
    Row {
        reasons: &["ContainerStatusUnknown"],
        means: "is no longer known to its node, which was restarted",
        again: 3,
        pause_s: 5,
        ..NONE
    },
    Row {
        reasons: &["StartError", "ContainerCannotRun", "RunContainerError"],
        means: "cannot run its program",
        hint: "name an image with this version of pvmigrate in it: --image",
        ..NONE
    },
    Row { reasons: &[KILLED], means: "was killed", again: 3, pause_s: 2, ..NONE },
    Row { reasons: &[FAILED], means: "met a fault that may pass", again: 3, pause_s: 2, ..NONE },
];

/// The states of a container that does not start, and for how many seconds they are looked at before it is given up: a
/// registry that is away for a moment is asked again by the kubelet.
pub const STUCK: &[(&str, u64)] = &[
    ("ErrImagePull", 60),
    ("ImagePullBackOff", 60),
    ("RegistryUnavailable", 60),
    ("InvalidImageName", 0),
    ("ErrImageNeverPull", 0),
    ("CreateContainerConfigError", 0),
];

/// One pod that ended without a result, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// The pod's uid.
    pub pod: String,
    pub reason: String,
    /// In the cluster's words.
    #[serde(default)]
    pub said: String,
}

/// What is done now.
#[derive(Debug, PartialEq)]
pub enum Next {
    Another { pause: Duration, on_one_thread: bool },
    Over,
}

/// The row of a reason.
pub fn row(reason: &str) -> &'static Row {
    // Whatever it is that a node has no more of.
    let reason = if reason.starts_with("OutOf") { "OutOfcpu" } else { reason };
    known(reason).or_else(|| known(KILLED)).expect("the table has this row")
}

fn known(reason: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.reasons.contains(&reason))
}

/// Decides by all that was lost so far. `has_threads`: there are several, so that one is fewer.
pub fn next(lost: &[Lost], has_threads: bool) -> Next {
    let Some(last) = lost.last() else { return Next::Another { pause: Duration::ZERO, on_one_thread: false } };
    let row = row(&last.reason);
    let times = lost.iter().filter(|one| std::ptr::eq(self::row(&one.reason), row)).count();
    if times > row.again as usize || lost.len() >= MOST || (row.on_one_thread && !has_threads) {
        return Next::Over;
    }
    let doubled = row.pause_s.saturating_mul(1 << (times - 1).min(10)).min(LONGEST_S);
    Next::Another { pause: Duration::from_secs(doubled), on_one_thread: is_on_one_thread(lost) }
}

/// True if one of them says that fewer threads are wanted from then on.
pub fn is_on_one_thread(lost: &[Lost]) -> bool {
    lost.iter().any(|one| row(&one.reason).on_one_thread)
}

/// Why a pod ended or goes, if its status says so: the pod's own reason, what its container came to, who took it away.
pub fn reason(pod: &Json) -> Option<&str> {
    let of_pod = text(pod, "/status/reason");
    if !of_pod.is_empty() {
        return Some(of_pod);
    }
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let of_container = text(ended, "/reason");
    if known(of_container).is_some() && ![FAILED, DELETED, KILLED].contains(&of_container) {
        return Some(of_container);
    }
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut targets = conditions.filter(|one| one["type"] == "DisruptionTarget" && one["status"] == "True");
    if let Some(target) = targets.next() {
        return Some(text(target, "/reason"));
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        return Some(DELETED);
    }
    matches!(ended["exitCode"].as_i64(), Some(137 | 143)).then_some(KILLED)
}

/// For how long a state of a container that does not start is looked at. `None`: it is on its way.
pub fn patience(reason: &str, message: &str) -> Option<Duration> {
    let (_, seconds) = STUCK.iter().find(|(stuck, _)| *stuck == reason)?;
    // A registry that answered has said so for good.
    let answers = ["not found", "NotFound", "manifest unknown", "denied", "unauthorized"];
    let is_answer = answers.iter().any(|answer| message.contains(answer));
    Some(Duration::from_secs(if is_answer { 0 } else { *seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lost(reasons: &[&str]) -> Vec<Lost> {
        reasons.iter().map(|reason| Lost { pod: "u".into(), reason: (*reason).into(), said: String::new() }).collect()
    }

    #[test]
    fn what_is_done_about_a_pod_that_died_is_this() {
        for (reasons, has_threads, wanted) in [
            (&["Evicted"][..], true, "10"),
            (&["Evicted", "Evicted"], true, "20"),
            (&["Evicted", "Evicted", "Evicted"], true, "40"),
            (&["Evicted"; 4], true, "over"),
            (&["Preempting"], true, "10"),
            (&["PreemptionByScheduler", "Preempting"], true, "20"),
            (&["Preempting"; 6], true, "over"),
            (&["Terminated"], true, "10"),
            (&["NodeShutdown"; 4], true, "over"),
            (&["NodeLost"], true, "10"),
            (&["DeletionByTaintManager"], true, "10"),
            (&["EvictionByEvictionAPI"], true, "10"),
            (&["Deleted"], true, "1"),
            (&["Deleted"; 3], true, "4"),
            (&["Deleted"; 4], true, "over"),
            (&["NodeAffinity"], true, "5"),
            (&["UnexpectedAdmissionError"], true, "5"),
            (&["OutOfcpu", "OutOfmemory"], true, "10"),
            (&["OutOfpods"; 5], true, "80"),
            (&["OutOfpods"; 6], true, "over"),
            (&["OOMKilled"], true, "1 on one thread"),
            (&["OOMKilled"], false, "over"),
            (&["OOMKilled", "OOMKilled"], true, "over"),
            // What was learnt from the first is not forgotten at the second.
            (&["OOMKilled", "Evicted"], true, "10 on one thread"),
            (&["DeadlineExceeded"], true, "over"),
            (&["ContainerStatusUnknown"], true, "5"),
            (&["StartError"], true, "over"),
            (&["Killed"], true, "2"),
            (&["Killed"; 4], true, "over"),
            (&["Failed"; 2], true, "4"),
            (&["Bewitched"], true, "2"),
            (&["Bewitched", "Killed", "Killed", "Bewitched"], true, "over"),
            (&["OutOfexample.com/gpu"], true, "5"),
            (&["Evicted", "Deleted", "Killed"], true, "2"),
            (
                &[
                    "Evicted", "Evicted", "Evicted", "Deleted", "Deleted", "Deleted", "Killed", "Killed", "Killed",
                    "Failed", "Failed", "Failed",
                ],
                true,
                "over",
            ),
        ] {
            let said = match next(&lost(reasons), has_threads) {
                Next::Over => "over".to_owned(),
                Next::Another { pause, on_one_thread } => {
                    format!("{}{}", pause.as_secs(), if on_one_thread { " on one thread" } else { "" })
                }
            };
            assert_eq!(said, wanted, "{reasons:?}");
        }
    }

    #[test]
    fn what_ended_a_pod_is_read_from_its_status() {
        let container = |reason: &str, exit: i64| {
            json!({"status": {"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"reason": reason, "exitCode": exit}}}]}})
        };
        let with = |mut pod: Json, field: &str, value: Json| {
            pod["status"][field] = value;
            pod
        };
        let target = |reason: &str| json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
        let going = json!({"metadata": {"deletionTimestamp": "2026-11-21T04:00:00Z"}});
        for (pod, wanted) in [
            (with(json!({}), "reason", json!("Evicted")), Some("Evicted")),
            (with(container("Error", 137), "reason", json!("Terminated")), Some("Terminated")),
            (container("OOMKilled", 137), Some("OOMKilled")),
            // Evicted for want of memory: the node's reason says more than the container's.
            (with(container("OOMKilled", 137), "reason", json!("Evicted")), Some("Evicted")),
            (container("Error", 137), Some("Killed")),
            (container("Error", 143), Some("Killed")),
            (container("Error", 1), None),
            (container("ContainerStatusUnknown", 137), Some("ContainerStatusUnknown")),
            (container("StartError", 128), Some("StartError")),
            (
                with(container("Error", 143), "conditions", target("PreemptionByScheduler")),
                Some("PreemptionByScheduler"),
            ),
            (going, Some("Deleted")),
            (json!({}), None),
        ] {
            assert_eq!(reason(&pod), wanted, "{pod}");
        }
    }

    #[test]
    fn a_registry_that_is_away_is_asked_again_and_one_that_says_no_is_not() {
        for (reason, message, wanted) in [
            ("ErrImagePull", "dial tcp: i/o timeout", Some(60)),
            ("ErrImagePull", "rpc error: code = NotFound desc = …", Some(0)),
            ("ErrImagePull", "pull access denied", Some(0)),
            ("ImagePullBackOff", "Back-off pulling image \"x\"", Some(60)),
            ("InvalidImageName", "", Some(0)),
            ("ErrImageNeverPull", "", Some(0)),
            ("CreateContainerConfigError", "", Some(0)),
            ("ContainerCreating", "", None),
        ] {
            assert_eq!(patience(reason, message).map(|patience| patience.as_secs()), wanted, "{reason} {message}");
        }
    }

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let mut lines =
            vec!["| reason | the pod | new ones | pause | |".to_owned(), "|---|---|---|---|---|".to_owned()];
        for row in TABLE {
            let reasons: Vec<String> = row.reasons.iter().map(|reason| format!("`{reason}`")).collect();
            let pause = if row.again == 0 { String::new() } else { format!("{} s", row.pause_s) };
            let then = if row.on_one_thread { "with one thread" } else { "" };
            lines.push(format!("| {} | {} | {} | {pause} | {then} |", reasons.join(", "), row.means, row.again));
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/copying.md");
        let docs = std::fs::read_to_string(path).unwrap();
        assert!(docs.contains(&lines.join("\n")), "{}", lines.join("\n"));
    }
}
