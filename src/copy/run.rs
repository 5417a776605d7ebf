//! Seeing a pod of ours through: made, followed, its report journaled, removed. Works on with whatever an earlier
//! process left: a pod that went on while we were dead is followed again.

use super::pod::{PodPlan, render};
use super::report::{CopyReport, FailKind, Line, VerifyReport};
use crate::cluster::wait::{All, One, Seen};
use crate::cluster::{Door, known, text, uid};
use crate::journal::{Class, Precondition, StepId, Verb, Write};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, Progress, Voice, names};
use futures::AsyncBufReadExt;
use futures::StreamExt;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a pod that ended through no fault of the data is made anew.
const ATTEMPTS: u32 = 4;
/// From creation to running: scheduling, attaching, pulling.
const START: Duration = Duration::from_secs(300);
/// A running pod whose node says nothing of it any more.
const SILENT: Duration = Duration::from_secs(600);
/// No deadline: what ends such a wait is what it sees.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// From deletion to gone: the kubelet unmounts first.
const GONE: Duration = Duration::from_secs(300);

/// What the pod said at last, and where it ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The report as JSON; null for reservations.
    pub report: Json,
    pub node: String,
}

/// How one pod ended.
enum End {
    Report(Json, String),
    /// It says nothing, but a new one may do better.
    Lost(String),
}

/// Runs a pod to its end and returns its report, good or bad.
///
/// # Errors
/// If no pod could be brought to its end, with what the cluster says about it.
pub async fn run(
    door: &Door,
    id: &StepId,
    plan: &PodPlan,
    who: &str,
    voice: &Arc<dyn Voice>,
) -> Result<Ended, Problem> {
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        let plan = PodPlan { name: pod_name(plan, id, attempt), ..plan.clone() };
        let made = door.perform(&id.part(&format!("create-{attempt}")), "create", create(&plan)).await?;
        let remembered = door
            .journal
            .recorded(id)
            .and_then(|step| step.beat)
            .filter(|beat| beat["attempt"] == attempt && beat["pod"] == uid(&made));
        let end = match remembered {
            Some(beat) => End::Report(beat["report"].clone(), beat["node"].as_str().unwrap_or_default().to_owned()),
            None => match follow(door, &plan, &made, who, voice).await {
                Ok(end) => end,
                Err(problem) => {
                    // A pod that came to nothing must not hold its claims; what is merely unknown is left for resume.
                    let part = id.part(&format!("delete-{attempt}"));
                    if problem.kind == Kind::Copy
                        && let Err(other) = remove(door, &part, &plan, uid(&made), false).await
                    {
                        tracing::debug!("{other}");
                    }
                    return Err(problem);
                }
            },
        };
        if let End::Report(report, node) = &end {
            // The report must outlive the pod that holds it.
            let beat = json!({"attempt": attempt, "pod": uid(&made), "report": report, "node": node});
            door.journal.beat(id, plan.task.word(), beat)?;
        }
        let last_one = matches!(&end, End::Report(report, _) if !is_passing(report)) || attempt == ATTEMPTS;
        // The next pod must not meet the last one on the target; after the last one whoever needs the claims waits.
        remove(door, &id.part(&format!("delete-{attempt}")), &plan, uid(&made), !last_one).await?;
        match end {
            End::Report(report, node) if !is_passing(&report) || attempt == ATTEMPTS => {
                return Ok(Ended { report, node });
            }
            End::Report(report, _) => last = report["meaning"].as_str().unwrap_or("it failed").to_owned(),
            End::Lost(why) => last = why,
        }
        voice.warn(&format!("{who}: {} pod ended without a result ({last}): making another one", plan.task.word()));
    }
    Err(Problem::new(Kind::Copy, format!("{ATTEMPTS} {} pods of {who} ended without a result", plan.task.word()))
        .quote(last)
        .retryable())
}

/// True for a failure that the next pod may not meet.
fn is_passing(report: &Json) -> bool {
    report["ok"] == json!(false) && report["retryable"] == json!(true)
}

fn pod_name(plan: &PodPlan, id: &StepId, attempt: u32) -> String {
    let base = plan.source.as_ref().unwrap_or(&plan.target);
    names::short_name(&format!("pvmigrate-{}-{base}", plan.task.word()), &format!("{}/{id}/{attempt}", plan.run), 63)
}

fn create(plan: &PodPlan) -> Write {
    Write {
        verb: Verb::Create,
        gvk: known("Pod").gvk,
        namespace: plan.namespace.clone(),
        name: plan.name.clone(),
        body: render(plan),
        precondition: Precondition::Absent,
        inverse: Vec::new(),
        class: Class::Own,
    }
}

/// Deletes this very pod and, if asked, waits until its node let the volumes go.
async fn remove(door: &Door, id: &StepId, plan: &PodPlan, pod_uid: &str, wait: bool) -> Result<(), Problem> {
    let write = Write {
        verb: Verb::Delete,
        body: Json::Null,
        precondition: Precondition::Uid(pod_uid.to_owned()),
        ..create(plan)
    };
    if let Err(problem) = door.perform(id, "delete", write).await {
        let now = door.cluster.find(&known("Pod"), &plan.namespace, &plan.name).await;
        // Somebody else's pod has the name by now: ours is gone, and theirs is left alone.
        let is_gone = matches!(&now, Ok(now) if now.as_ref().is_none_or(|pod| uid(pod) != pod_uid));
        if problem.kind != Kind::Conflict || !is_gone {
            return Err(problem);
        }
    }
    if !wait {
        return Ok(());
    }
    let one = One { resource: known("Pod"), namespace: &plan.namespace, name: &plan.name, seen: None };
    let what = format!("pod `{}/{}` is gone", plan.namespace, plan.name);
    door.cluster
        .wait_for(&one, Clock.deadline(GONE), &door.cancel, &what, |pod| match pod {
            None => Seen::Done(()),
            Some(pod) if uid(pod) != pod_uid => Seen::Done(()),
            Some(pod) => Seen::NotYet(format!("its node {} still has it", text(pod, "/spec/nodeName"))),
        })
        .await
        .map_err(|problem| problem.hint("a node that is down keeps its pods: bring it back, then resume"))
}

/// Waits until no pod of this run names the claim.
///
/// # Errors
/// `Timeout` if one stays, which is so when its node is away.
pub async fn our_pods_are_gone(door: &Door, claim: &crate::words::PvcRef) -> Result<(), Problem> {
    let selector = format!("{}={}", crate::cluster::RUN, door.journal.run());
    let what = format!("our own pods have let claim `{claim}` go");
    let query = [("labelSelector", selector.as_str())];
    let all = All { resource: known("Pod"), namespace: &claim.namespace, query: &query, seen: None };
    let holds = |pod: &&Json| crate::cluster::workload::claims_of_spec(&pod["spec"]).contains(&claim.name.as_str());
    door.cluster
        .wait_for_all(all, Clock.deadline(GONE), &door.cancel, &what, |pods| match pods.iter().find(holds) {
            None => Seen::Done(()),
            Some(pod) => Seen::NotYet(format!(
                "pod `{}` on {} is still there",
                text(pod, "/metadata/name"),
                text(pod, "/spec/nodeName")
            )),
        })
        .await
        .map_err(|problem| problem.hint("a node that is down keeps its pods: bring it back, then resume"))
}

/// Waits for the end of a pod, passing on what it says meanwhile.
async fn follow(door: &Door, plan: &PodPlan, made: &Json, who: &str, voice: &Arc<dyn Voice>) -> Result<End, Problem> {
    let (pod_uid, pod_name) = (uid(made), format!("`{}/{}`", plan.namespace, plan.name));
    let one = One { resource: known("Pod"), namespace: &plan.namespace, name: &plan.name, seen: Some(made) };
    let start_by = Clock.deadline(START);
    let (mut listener, mut silent) = (None, None);
    // A copy may take days: while its node reports the pod alive there is no deadline. A silent node is one.
    let ended = door
        .cluster
        .wait_for(&one, Clock.deadline(FOREVER), &door.cancel, &format!("pod {pod_name} ends"), |pod| {
            let Some(pod) = pod.filter(|pod| uid(pod) == pod_uid) else {
                return Seen::Done(End::Lost("the pod was deleted by somebody else".into()));
            };
            match text(pod, "/status/phase") {
                "Succeeded" | "Failed" => return Seen::Done(verdict(pod, plan)),
                "Running" | "Unknown" => {
                    let listen = || tokio::spawn(listen(door.clone(), plan.clone(), who.to_owned(), voice.clone()));
                    listener.get_or_insert_with(listen);
                    if !is_silent(pod) {
                        silent = None;
                    } else if silent.get_or_insert_with(|| Clock.deadline(SILENT)).passed() {
                        return Seen::Hopeless(away(&pod_name));
                    }
                }
                _ => match stuck(pod) {
                    Some(why) => return Seen::Hopeless(cannot_start(&pod_name, &why)),
                    None if start_by.passed() => return Seen::Hopeless(not_started(&pod_name, &pending(pod))),
                    None => {}
                },
            }
            Seen::NotYet(pending(pod))
        })
        .await;
    let was_running = listener.is_some();
    if let Some(listener) = listener {
        listener.abort();
    }
    voice.progress(&Progress { claim: who.to_owned(), phase: phase(plan), over: true, ..Progress::default() });
    match ended {
        Err(problem) if !was_running => Err(with_events(door, plan, problem).await),
        ended => ended,
    }
}

fn away(pod: &str) -> Problem {
    Problem::new(Kind::Timeout, format!("nothing is known of pod {pod}: its node is away"))
        .hint("bring the node back, then resume")
        .retryable()
}

fn cannot_start(pod: &str, why: &str) -> Problem {
    Problem::new(Kind::Copy, format!("pod {pod} cannot start: {why}"))
        .hint("name an image that the nodes can pull: --image")
}

fn not_started(pod: &str, why: &str) -> Problem {
    Problem::new(Kind::Timeout, format!("gave up waiting until pod {pod} runs after {} s: {why}", START.as_secs()))
        .retryable()
}

/// A running pod that its node no longer vouches for.
fn is_silent(pod: &Json) -> bool {
    let going = !text(pod, "/metadata/deletionTimestamp").is_empty();
    going || condition(pod, "Ready").is_some_and(|ready| ready["status"] != "True")
}

fn condition<'a>(pod: &'a Json, name: &str) -> Option<&'a Json> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name)
}

/// A reason for which waiting is no use.
fn stuck(pod: &Json) -> Option<String> {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    match text(waiting, "/reason") {
        reason @ ("ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "CreateContainerConfigError") => Some(format!("{reason}: {}", names::plain(text(waiting, "/message")))),
        _ => None,
    }
}

fn pending(pod: &Json) -> String {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    match condition(pod, "PodScheduled") {
        Some(scheduled) if scheduled["status"] == "False" => names::plain(text(scheduled, "/message")),
        _ if waiting.is_object() => format!("{} on {}", text(waiting, "/reason"), text(pod, "/spec/nodeName")),
        _ => format!("it is {}", text(pod, "/status/phase")),
    }
}

/// What a finished pod came to.
fn verdict(pod: &Json, plan: &PodPlan) -> End {
    let node = text(pod, "/spec/nodeName").to_owned();
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let exit = ended["exitCode"].as_i64();
    if plan.source.is_none() && exit == Some(0) {
        return End::Report(Json::Null, node);
    }
    let report = Line::parse(text(ended, "/message").lines().last().unwrap_or_default());
    match (report, text(ended, "/reason")) {
        (Some(Line::CopyReport(report)), _) => End::Report(json!(report), node),
        (Some(Line::VerifyReport(report)), _) => End::Report(json!(report), node),
        (_, "OOMKilled") => {
            End::Report(failed(plan, "the pod ran out of memory: give it more with --pod-patch", 137), node)
        }
        // Evicted, preempted, or its node went away: nothing is wrong with the data.
        _ if exit.is_none() || matches!(exit, Some(137 | 143)) => {
            let reason = [text(pod, "/status/reason"), text(pod, "/status/message"), text(ended, "/reason")];
            End::Lost(reason.into_iter().find(|text| !text.is_empty()).unwrap_or("killed").to_owned())
        }
        _ => {
            let said = names::plain(text(ended, "/message"));
            End::Report(failed(plan, &format!("exit code {}: {said}", exit.unwrap_or(-1)), exit.unwrap_or(-1)), node)
        }
    }
}

fn failed(plan: &PodPlan, meaning: &str, exit: i64) -> Json {
    json!({"ok": false, "retryable": false, "kind": "other", "exit": exit, "meaning": meaning, "task": plan.task.word()})
}

/// Adds the cluster's own words about a pod.
async fn with_events(door: &Door, plan: &PodPlan, problem: Problem) -> Problem {
    if problem.kind == Kind::Interrupted {
        return problem;
    }
    let selector = format!("involvedObject.name={}", plan.name);
    let Ok((events, _)) = door.cluster.list(&known("Event"), &plan.namespace, &[("fieldSelector", &selector)]).await
    else {
        return problem;
    };
    let mut problem = problem;
    for event in events.iter().filter(|event| event["type"] != "Normal").rev().take(3) {
        problem = problem.quote(format!("{}: {}", text(event, "/reason"), names::plain(text(event, "/message"))));
    }
    problem
}

fn phase(plan: &PodPlan) -> String {
    match &plan.task {
        super::pod::Task::Reserve => "reserve".into(),
        super::pod::Task::Copy { last: true, .. } => "final pass".into(),
        super::pod::Task::Copy { .. } => "hot pass".into(),
        super::pod::Task::Verify { .. } => "verify".into(),
    }
}

/// Passes progress on from the log. Whatever goes wrong here costs nothing but the bar.
async fn listen(door: Door, plan: PodPlan, who: String, voice: Arc<dyn Voice>) {
    let Ok(stream) = door.cluster.log_stream(&plan.namespace, &plan.name).await else {
        return;
    };
    let mut lines = stream.lines();
    while let Some(Ok(line)) = lines.next().await {
        if let Some(Line::Progress(p)) = Line::parse(&line) {
            voice.progress(&Progress {
                claim: who.clone(),
                phase: phase(&plan),
                files: p.files,
                files_total: p.files_total,
                bytes: p.bytes,
                bytes_total: p.bytes_total,
                rate_bytes_s: p.rate_bytes_s as f64,
                eta_s: p.eta_s.map(|s| s as f64),
                over: false,
            });
        }
    }
}

/// A failed pass as a person reads it.
pub fn copy_problem(report: &Json, who: &str) -> Problem {
    let parsed: Option<CopyReport> = serde_json::from_value(report.clone()).ok();
    let meaning = report["meaning"].as_str().unwrap_or("no reason given");
    let mut problem = Problem::new(Kind::Copy, format!("copying {who} failed: {}", names::plain(meaning)));
    if let Some(exit) = report["exit"].as_i64() {
        problem = problem.code(exit);
    }
    for line in report["messages"].as_array().into_iter().flatten().filter_map(Json::as_str).take(5) {
        problem = problem.quote(names::plain(line));
    }
    match parsed.and_then(|report| report.kind) {
        Some(FailKind::TargetTooSmall | FailKind::NoSpace | FailKind::Quota) => {
            problem.hint("give the target more room: --dest-size SIZE")
        }
        Some(FailKind::Permission) => problem.hint("copy as root, or as the owner of the files: --run-as UID"),
        Some(FailKind::MetadataUnsupported) => {
            problem.hint("the target's file system cannot hold this metadata: choose another class")
        }
        Some(FailKind::Vanished) => problem.hint("somebody writes to the source: stop them first"),
        _ => problem,
    }
}

/// A verification that found differences, or could not be made.
pub fn verify_problem(report: &Json, who: &str) -> Problem {
    let parsed: Option<VerifyReport> = serde_json::from_value(report.clone()).ok();
    let Some(report) = parsed else {
        let meaning = report["meaning"].as_str().unwrap_or("no report");
        return Problem::new(Kind::Copy, format!("verifying {who} failed: {}", names::plain(meaning)));
    };
    let mut problem = match report.kind {
        Some(_) => Problem::new(Kind::Copy, format!("{who} could not be verified")),
        None => Problem::new(
            Kind::Mismatch,
            format!("{who}: source and target differ in {} places", report.differences_total),
        ),
    };
    for d in report.differences.iter().take(10) {
        problem =
            problem.quote(format!("{}: {} is {} in the source, {} in the target", d.path, d.what, d.source, d.target));
    }
    for line in report.messages.iter().take(5) {
        problem = problem.quote(names::plain(line));
    }
    problem
}

/// Waits until every node that ran a user of the claim is Ready and has let the volume go; returns those nodes.
///
/// # Errors
/// `Timeout` if a node stays away: its containers may still be writing.
pub async fn nodes_are_clean(
    door: &Door,
    claim: &crate::words::PvcRef,
    volume: &Json,
    timeout: Duration,
) -> Result<BTreeSet<String>, Problem> {
    let mut ready = BTreeSet::new();
    let nodes = door.ledger.books().nodes.get(claim).cloned().unwrap_or_default();
    let pv = crate::cluster::pv::Pv(volume);
    let handle = match pv.backend() {
        Some(crate::cluster::pv::Backend::Handle(_, handle)) => handle,
        _ => pv.name().to_owned(),
    };
    for node in nodes {
        let one = One { resource: known("Node"), namespace: "", name: &node, seen: None };
        let what = format!("node {node} is Ready and has let the volume of `{claim}` go");
        let is_there = door
            .cluster
            .wait_for(&one, Clock.deadline(timeout), &door.cancel, &what, |seen| {
                // A node object that is gone was taken out by somebody who says that it is dead.
                let Some(seen) = seen else { return Seen::Done(false) };
                if condition(seen, "Ready").is_none_or(|ready| ready["status"] != "True") {
                    return Seen::NotYet("the node is not Ready: its containers may still be writing".into());
                }
                let in_use = seen["status"]["volumesInUse"].as_array().into_iter().flatten().filter_map(Json::as_str);
                match in_use.into_iter().find(|name| name.ends_with(&handle) || name.ends_with(pv.name())) {
                    Some(name) => Seen::NotYet(format!("the node still uses {name}")),
                    None => Seen::Done(true),
                }
            })
            .await
            .map_err(|problem| problem.hint("bring the node back, then resume"))?;
        if is_there {
            ready.insert(node);
        }
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::pod::{How, Task};

    fn plan() -> PodPlan {
        PodPlan {
            name: "p".into(),
            namespace: "shop".into(),
            run: "0123abcd".into(),
            task: Task::Copy { last: false, since: None, since_end: None, allow_empty: false, how: How::default() },
            image: "i".into(),
            source: Some("data".into()),
            target: "t".into(),
            is_block: false,
            node: None,
            like: Json::Null,
            run_as: None,
            patch: Json::Null,
        }
    }

    fn ended(exit: i64, reason: &str, message: &str) -> Json {
        json!({"spec": {"nodeName": "node1"}, "status": {"phase": "Failed", "containerStatuses": [
            {"state": {"terminated": {"exitCode": exit, "reason": reason, "message": message}}}]}})
    }

    #[test]
    fn how_a_pod_ended_decides_whether_another_is_made() {
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}});
        for (name, pod, lost) in [
            ("evicted", evicted, true),
            ("killed", ended(137, "Error", ""), true),
            ("out of memory", ended(137, "OOMKilled", ""), false),
            ("no such program", ended(127, "StartError", "no such file"), false),
        ] {
            assert_eq!(matches!(verdict(&pod, &plan()), End::Lost(_)), lost, "{name}");
        }
        let reserve = PodPlan { source: None, ..plan() };
        assert!(matches!(verdict(&ended(0, "Completed", ""), &reserve), End::Report(Json::Null, _)));
    }

    /// A8 of the ancestor: it waited for the log of a pod that had failed without one, for ever.
    #[test]
    fn copy_pod_failed_before_logs() {
        let never_ran = json!({"status": {"phase": "Failed", "reason": "NodeAffinity", "message": "no such node"}});
        let End::Lost(why) = verdict(&never_ran, &plan()) else { panic!("it has no report") };
        assert_eq!(why, "NodeAffinity");
        let End::Report(report, _) = verdict(&ended(128, "StartError", "no such file"), &plan()) else {
            panic!("it has an end")
        };
        assert_eq!(report["ok"], false);
        assert!(!is_passing(&report));
    }

    #[test]
    fn names_of_pods_are_stable_and_their_own() {
        let (one, two) = (StepId::new("root/1"), StepId::new("root/2"));
        assert_eq!(pod_name(&plan(), &one, 1), pod_name(&plan(), &one, 1));
        assert_ne!(pod_name(&plan(), &one, 1), pod_name(&plan(), &one, 2));
        assert_ne!(pod_name(&plan(), &one, 1), pod_name(&plan(), &two, 1));
    }
}
