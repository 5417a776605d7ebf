//! Seeing a pod of ours through: made, followed, its report journaled, removed. Works on with whatever an earlier
//! process left: a pod that went on while we were dead is followed again.

use super::agent::native::SUDDENLY_EMPTY;
use super::end::{self, Lost, Next};
use super::pod::{PodPlan, Task, render};
use super::report::{CopyReport, FailKind, Line, Phase, VerifyReport};
use crate::cluster::wait::{self, All, One, Seen};
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
    /// It says nothing, but a new one may do better: why, in the word of `end`'s table, and in the cluster's own.
    Lost {
        reason: String,
        said: String,
    },
}

/// What a pod's start waits for.
pub struct Start<'a> {
    pub within: Duration,
    /// Why it can never come.
    pub hopeless: &'a (dyn Fn() -> Option<Problem> + Send + Sync),
}

impl Start<'static> {
    /// Nodes, attachments and images.
    pub const USUAL: Start<'static> = Start { within: START, hopeless: &|| None };
}

/// Runs a pod to its end and returns its report, good or bad. One that died is followed by another, as `end` has it.
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
    run_from(door, id, plan, who, voice, &Start::USUAL).await
}

/// The same for a pod whose start waits for something else, too.
///
/// # Errors
/// As `run`, and what is hopeless.
pub async fn run_from(
    door: &Door,
    id: &StepId,
    plan: &PodPlan,
    who: &str,
    voice: &Arc<dyn Voice>,
    start: &Start<'_>,
) -> Result<Ended, Problem> {
    let word = plan.task.word();
    let beat = door.journal.recorded(id).and_then(|step| step.beat).unwrap_or(Json::Null);
    // Those that an earlier process has seen the end of: they may not have been removed yet.
    let mut lost: Vec<Lost> = serde_json::from_value(beat["lost"].clone()).unwrap_or_default();
    for (n, one) in lost.iter().enumerate() {
        let plan = PodPlan { name: pod_name(plan, id, n + 1), ..plan.clone() };
        remove(door, &id.part(&format!("delete-{}", n + 1)), &plan, &one.pod, true).await?;
    }
    loop {
        let attempt = lost.len() + 1;
        let create_id = id.part(&format!("create-{attempt}"));
        if let Next::Another { pause, .. } = end::next(&lost, true)
            && door.journal.recorded(&create_id).is_none()
        {
            wait::sleep(pause, &door.cancel).await?;
        }
        let mut plan = PodPlan { name: pod_name(plan, id, attempt), ..plan.clone() };
        if end::is_on_one_thread(&lost) {
            plan.task = plan.task.on_one_thread().unwrap_or(plan.task);
        }
        let made = door.perform(&create_id, "create", create(&plan)).await?;
        let delete_id = id.part(&format!("delete-{attempt}"));
        let is_told = beat["attempt"] == attempt && beat["pod"] == uid(&made);
        let ended = if is_told {
            End::Report(beat["report"].clone(), beat["node"].as_str().unwrap_or_default().to_owned())
        } else {
            match follow(door, &plan, &made, who, voice, start).await {
                Ok(ended) => ended,
                Err(problem) => {
                    // A pod that came to nothing must not hold its claims; what is merely unknown is left for resume.
                    if problem.kind == Kind::Copy
                        && let Err(other) = remove(door, &delete_id, &plan, uid(&made), false).await
                    {
                        tracing::debug!("{other}");
                    }
                    return Err(problem);
                }
            }
        };
        let (report, node, one) = match ended {
            End::Report(report, node) => {
                let said = names::plain(decisive(&report)["meaning"].as_str().unwrap_or("it failed"));
                let passes = is_passing(&report).then(|| (end::FAILED.to_owned(), said));
                (report, node, passes)
            }
            End::Lost { reason, said } => {
                let row = end::row(&reason);
                let said_too = if said.is_empty() { String::new() } else { format!(": {said}") };
                let mut report = failed(&plan, &format!("the {word} pod {}{said_too}", row.means), 137);
                report["hint"] = row.hint.into();
                (report, String::new(), Some((reason, said)))
            }
        };
        let mut next = Next::Over;
        let is_report = one.as_ref().is_none_or(|(reason, _)| reason == end::FAILED);
        if let Some((reason, said)) = &one {
            lost.push(Lost { pod: uid(&made).to_owned(), reason: reason.clone(), said: said.clone() });
            next = end::next(&lost, plan.task.on_one_thread().is_some());
        }
        let row = end::row(one.as_ref().map_or("", |(reason, _)| reason));
        let is_result = one.is_none() || is_report || !row.hint.is_empty() || row.reasons.is_empty();
        // What it came to must outlive the pod. Of pods that came to nothing only that is kept: resume makes one more.
        let came_to = match next {
            Next::Over if is_result => json!({"attempt": attempt, "pod": uid(&made), "report": report, "node": node,
                "lost": lost[..attempt - 1]}),
            _ => json!({"lost": lost}),
        };
        door.journal.beat(id, word, came_to)?;
        // The next pod must not meet the last one on the target; after the last one whoever needs the claims waits.
        remove(door, &delete_id, &plan, uid(&made), next != Next::Over).await?;
        let (_, said) = one.unwrap_or_default();
        match next {
            Next::Another { pause, on_one_thread } => {
                let how = if on_one_thread { ", with one thread" } else { "" };
                let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
                let pause = pause.as_secs();
                voice.warn(&format!("{who}: the {word} pod {}{said}: another one in {pause} s{how}", row.means));
            }
            Next::Over if is_result => return Ok(Ended { report, node }),
            Next::Over => {
                let times = lost.len();
                let message =
                    format!("{times} {word} pods of {who} ended without a result: the last one {}", row.means);
                let problem = Problem::new(Kind::Copy, message).retryable();
                return Err(if said.is_empty() { problem } else { problem.quote(said) });
            }
        }
    }
}

/// What decides: of a pass and its verification the one that came to be made last.
fn decisive(report: &Json) -> &Json {
    if report["proof"].is_object() { &report["proof"] } else { report }
}

/// True for a failure that the next pod may not meet.
fn is_passing(report: &Json) -> bool {
    let report = decisive(report);
    // A verification that was told to stop says nothing but that.
    report["ok"] == json!(false) && (report["retryable"] == json!(true) || report["kind"] == "interrupted")
}

fn pod_name(plan: &PodPlan, id: &StepId, attempt: usize) -> String {
    let base = plan.source.as_ref().or(plan.target.as_ref()).map_or("", String::as_str);
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
        if problem.kind != Kind::Conflict {
            return Err(problem);
        }
        let now = door.cluster.find(&known("Pod"), &plan.namespace, &plan.name).await;
        // Somebody else's pod has the name by now: ours is gone, and theirs is left alone.
        let is_gone = matches!(&now, Ok(now) if now.as_ref().is_none_or(|pod| uid(pod) != pod_uid));
        if !is_gone {
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
async fn follow(
    door: &Door,
    plan: &PodPlan,
    made: &Json,
    who: &str,
    voice: &Arc<dyn Voice>,
    start: &Start<'_>,
) -> Result<End, Problem> {
    let (pod_uid, pod_name) = (uid(made), format!("`{}/{}`", plan.namespace, plan.name));
    let one = One { resource: known("Pod"), namespace: &plan.namespace, name: &plan.name, seen: Some(made) };
    let start_by = Clock.deadline(start.within);
    let (mut listener, mut silent, mut stuck_by) = (None, None, None);
    // What was told of it before it went: who took it away.
    let mut told = Json::Null;
    // A copy may take days: while its node reports the pod alive there is no deadline. A silent node is one.
    let ended = door
        .cluster
        .wait_for(&one, Clock.deadline(FOREVER), &door.cancel, &format!("pod {pod_name} ends"), |pod| {
            let Some(pod) = pod.filter(|pod| uid(pod) == pod_uid) else {
                let reason = end::reason(&told).unwrap_or(end::DELETED).to_owned();
                return Seen::Done(End::Lost { reason, said: why(&told) });
            };
            pod.clone_into(&mut told);
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
                    Some((why, patience))
                        if patience.is_zero() || stuck_by.get_or_insert_with(|| Clock.deadline(patience)).passed() =>
                    {
                        return Seen::Hopeless(cannot_start(&pod_name, &why));
                    }
                    None if start_by.passed() => {
                        return Seen::Hopeless(not_started(&pod_name, start.within, &pending(pod)));
                    }
                    _ => {
                        if let Some(problem) = (start.hopeless)() {
                            return Seen::Hopeless(problem);
                        }
                    }
                },
            }
            Seen::NotYet(pending(pod))
        })
        .await;
    let was_running = listener.is_some();
    if let Some(listener) = listener {
        listener.abort();
    }
    for phase in phases(plan) {
        voice.progress(&Progress { claim: who.to_owned(), phase: phase.into(), over: true, ..Progress::default() });
    }
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

fn not_started(pod: &str, after: Duration, why: &str) -> Problem {
    Problem::new(Kind::Timeout, format!("gave up waiting until pod {pod} runs after {} s: {why}", after.as_secs()))
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

/// Why a pod does not start, and for how long that may last.
fn stuck(pod: &Json) -> Option<(String, Duration)> {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let (reason, message) = (text(waiting, "/reason"), text(waiting, "/message"));
    end::patience(reason, message).map(|patience| (format!("{reason}: {}", names::plain(message)), patience))
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
    if plan.task == Task::Reserve && exit == Some(0) {
        return End::Report(Json::Null, node);
    }
    let report = match (Line::parse(text(ended, "/message").lines().last().unwrap_or_default()), &plan.task) {
        (Some(Line::CopyReport(report)), Task::Copy { .. }) => Some(json!(report)),
        (Some(Line::VerifyReport(report)), Task::Verify { .. }) => Some(json!(report)),
        (Some(Line::SyncReport(report)), Task::Sync) => Some(json!(report)),
        _ => None,
    };
    match (report, end::reason(pod)) {
        // One that was asked to end says that it was; who asked says why.
        (Some(report), Some(reason)) if is_passing(&report) && exit != Some(1) => {
            End::Lost { reason: reason.to_owned(), said: why(pod) }
        }
        (Some(report), _) => End::Report(report, node),
        (None, Some(reason)) => End::Lost { reason: reason.to_owned(), said: why(pod) },
        (None, None) if exit.is_none() => End::Lost { reason: end::KILLED.to_owned(), said: why(pod) },
        (None, None) => {
            let message = text(ended, "/message");
            let said = if is_report(message) { "it told of something else".to_owned() } else { names::plain(message) };
            let exit = exit.unwrap_or(-1);
            let mut report = failed(plan, &format!("exit code {exit}: {said}"), exit);
            if exit == USAGE {
                report["hint"] =
                    "its program may be of another version: name the image of this one with --image".into();
            }
            End::Report(report, node)
        }
    }
}

fn is_report(message: &str) -> bool {
    Line::parse(message.lines().last().unwrap_or_default()).is_some()
}

/// The cluster's own words about the end of a pod.
fn why(pod: &Json) -> String {
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let message = text(ended, "/message");
    // A report is none.
    let message = if is_report(message) { "" } else { message };
    let said = [text(pod, "/status/message"), message, text(pod, "/status/reason")];
    names::plain(said.into_iter().find(|text| !text.is_empty()).unwrap_or_default())
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

const VERIFY: &str = "verify";
/// What the agent ends with if it does not understand its arguments.
const USAGE: i64 = 2;

/// What a pod does, one after the other.
fn phases(plan: &PodPlan) -> Vec<&'static str> {
    let (first, proof) = match &plan.task {
        Task::Reserve => ("reserve", &None),
        Task::Sync => ("sync", &None),
        Task::Copy { last: true, proof, .. } => ("final pass", proof),
        Task::Copy { proof, .. } => ("hot pass", proof),
        Task::Verify { .. } => (VERIFY, &None),
    };
    [first].into_iter().chain(proof.as_ref().map(|_| VERIFY)).collect()
}

/// Passes progress on from the log. Whatever goes wrong here costs nothing but the bar.
async fn listen(door: Door, plan: PodPlan, who: String, voice: Arc<dyn Voice>) {
    let Ok(stream) = door.cluster.log_stream(&plan.namespace, &plan.name).await else {
        return;
    };
    let mut lines = stream.lines();
    while let Some(Ok(line)) = lines.next().await {
        if let Some(Line::Progress(p)) = Line::parse(&line) {
            let phase = if p.phase == Phase::Verify { VERIFY } else { phases(&plan)[0] };
            voice.progress(&Progress {
                claim: who.clone(),
                phase: phase.into(),
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

const WAIVE: &str = "or do without what it cannot keep: --waive owner, --waive acl or --waive xattr";

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
    if let Some(hint) = report["hint"].as_str().filter(|hint| !hint.is_empty()) {
        problem = problem.hint(hint);
    }
    match parsed.and_then(|report| report.kind) {
        Some(FailKind::TargetTooSmall | FailKind::NoSpace | FailKind::Quota) => {
            problem.hint("give the target more room: --dest-size SIZE")
        }
        Some(FailKind::Permission) => {
            problem.hint("copy as root, or as the owner of the files: --run-as UID").hint(WAIVE)
        }
        Some(FailKind::MetadataUnsupported) => {
            problem.hint("the target's file system cannot hold this metadata: choose another class").hint(WAIVE)
        }
        Some(FailKind::Vanished) => problem.hint("somebody writes to the source: stop them first"),
        _ if meaning == SUDDENLY_EMPTY => problem
            .hint("see whether the volume is what it should be: one that is not mounted looks empty")
            .hint("if it is meant to be empty, begin with an empty target: a unit that is begun anew does"),
        _ => problem,
    }
}

/// A flush that failed.
pub fn sync_problem(report: &Json, who: &str) -> Problem {
    let meaning = names::plain(report["meaning"].as_str().unwrap_or("no reason given"));
    let problem = Problem::new(Kind::Copy, format!("writing {who} to its disk failed: {meaning}"));
    match report["hint"].as_str().filter(|hint| !hint.is_empty()) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// A verification that found differences, or could not be made.
pub fn verify_problem(report: &Json, who: &str) -> Problem {
    let parsed: Option<VerifyReport> = serde_json::from_value(report.clone()).ok();
    let Some(report) = parsed else {
        let meaning = report["meaning"].as_str().unwrap_or("no report");
        let problem = Problem::new(Kind::Copy, format!("verifying {who} failed: {}", names::plain(meaning)));
        return match report["hint"].as_str().filter(|hint| !hint.is_empty()) {
            Some(hint) => problem.hint(hint),
            None => problem,
        };
    };
    let mut problem = match report.kind {
        Some(_) => Problem::new(Kind::Copy, format!("{who} could not be verified")),
        None => Problem::new(
            Kind::Mismatch,
            format!("{who}: source and target differ in {} places", report.differences_total),
        ),
    };
    let kinds: Vec<&str> = report.differences_by_kind.keys().map(|kind| kind.word()).collect();
    let waivable: u128 = report.differences_by_kind.values().copied().map(u128::from).sum();
    if !kinds.is_empty() && waivable == report.differences_total.into() {
        let words = kinds.join(",");
        problem =
            problem.hint(format!("the target does not keep this metadata: choose another class, or --waive {words}"));
    }
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

    fn plan() -> PodPlan {
        PodPlan {
            name: "p".into(),
            namespace: "shop".into(),
            run: "0123abcd".into(),
            task: Task::plain_copy(),
            image: "i".into(),
            source: Some("data".into()),
            target: Some("t".into()),
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

    fn said(pod: &Json) -> String {
        match verdict(pod, &plan()) {
            End::Lost { reason, .. } => reason,
            End::Report(report, _) => format!("report: {}", report["meaning"].as_str().unwrap_or("none")),
        }
    }

    #[test]
    fn how_a_pod_ended_is_told_from_its_status() {
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}});
        let asked = json!({"t": "copy_report", "ok": false, "pass": "final", "engine": "native", "exit": 143,
            "meaning": "interrupted", "kind": "interrupted", "retryable": true, "started_at": "", "seconds": 1.0});
        let mut drained = ended(143, "Error", &asked.to_string());
        drained["status"]["conditions"] =
            json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
        let mut done = asked.clone();
        (done["ok"], done["retryable"], done["kind"], done["exit"]) = (json!(true), json!(false), Json::Null, json!(0));
        done["meaning"] = json!("complete");
        let mut late = ended(0, "Completed", &done.to_string());
        late["status"]["reason"] = json!("Evicted");
        let mut compared = json!({"t": "verify_report", "ok": false, "mode": "full", "source_digest": "", "target_digest": "",
            "source_read_at": "", "target_read_at": "", "seconds": 0.0});
        let other = ended(1, "Error", &compared.to_string());
        compared["kind"] = "interrupted".into();
        let mut in_between = done.clone();
        in_between["proof"] = compared;
        let in_between = ended(143, "Error", &in_between.to_string());
        for (name, pod, wanted) in [
            ("of another task", other, "report: exit code 1: it told of something else"),
            ("asked to end while it compared", in_between, "Killed"),
            ("evicted", evicted, "Evicted"),
            ("killed", ended(137, "Error", ""), "Killed"),
            ("out of memory", ended(137, "OOMKilled", ""), "OOMKilled"),
            ("no such program", ended(127, "StartError", "no such file"), "StartError"),
            ("another failure", ended(2, "Error", "usage"), "report: exit code 2: usage"),
            ("drained in order", drained, "EvictionByEvictionAPI"),
            ("asked to end by nobody known", ended(143, "Error", &asked.to_string()), "Killed"),
            // Whatever became of the pod: the pass is complete.
            ("evicted when it was done", late, "report: complete"),
        ] {
            assert_eq!(said(&pod), wanted, "{name}");
        }
        let reserve = PodPlan { source: None, task: Task::Reserve, ..plan() };
        assert!(matches!(verdict(&ended(0, "Completed", ""), &reserve), End::Report(Json::Null, _)));
    }

    /// A8 of the ancestor: it waited for the log of a pod that had failed without one, for ever.
    #[test]
    fn copy_pod_failed_before_logs() {
        let never_ran = json!({"status": {"phase": "Failed", "reason": "NodeAffinity", "message": "no such node"}});
        let End::Lost { reason, said } = verdict(&never_ran, &plan()) else { panic!("it has no report") };
        assert_eq!((&reason[..], &said[..]), ("NodeAffinity", "no such node"));
        let End::Lost { reason, said } = verdict(&ended(128, "StartError", "no such file"), &plan()) else {
            panic!("it has no report")
        };
        assert_eq!((&reason[..], &said[..]), ("StartError", "no such file"));
    }

    #[test]
    fn names_of_pods_are_stable_and_their_own() {
        let (one, two) = (StepId::new("root/1"), StepId::new("root/2"));
        assert_eq!(pod_name(&plan(), &one, 1), pod_name(&plan(), &one, 1));
        assert_ne!(pod_name(&plan(), &one, 1), pod_name(&plan(), &one, 2));
        assert_ne!(pod_name(&plan(), &one, 1), pod_name(&plan(), &two, 1));
    }
}
