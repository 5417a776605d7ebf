//! Stopping and starting what uses the claims.

use super::pv::deadline;
use super::{Args, Effect, Primitive, Type, option, param};
use crate::cluster::proof::Report;
use crate::cluster::wait::{self, All, One, Seen};
use crate::cluster::workload::{self as plan, is_scalable, owns_pod, reference, replicas};
use crate::cluster::{Fact, RUN, known, text, uid};
use crate::journal::{Class, Precondition, StepId, Verb, Write};
use crate::script::enter::Step;
use crate::words::clock::{Clock, human_seconds};
use crate::words::{Json, Kind, ObjectRef, Problem, PvcRef};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "scale",
        params: &[param("workload", Type::AnyObject), param("replicas", Type::Int)],
        options: &[],
        returns: "object",
        doc: "Sets the number of replicas of a Deployment or StatefulSet; does not wait.",
        example: r#"let web = get_object("Deployment", "shop", "web");
let none = scale(web, 0);
let again = scale(none, web.replicas);
none.replicas == 0 && again.replicas == web.replicas"#,
        effect: Effect::Write,
        rights: &[("get patch", "apps", "deployments"), ("get patch", "apps", "statefulsets")],
        run: |step, args| Box::pin(scale(step, args)),
    },
    Primitive {
        name: "stop",
        params: &[param("workload", Type::AnyObject)],
        options: &[option("timeout_s", Type::Int, "until its last pod is gone: 600")],
        returns: "map",
        doc: "Stops a workload: no replicas, and waits until the last of its pods is gone. What it returns is handed to `start`. The \
              replicas from before are noted on the workload.",
        example: r#"let stopped = stop(get_object("Deployment", "shop", "web"));
let left = users_of(get_pvc("shop", "data")).pods;
start(stopped);
stopped.replicas == 1 && left.is_empty()"#,
        effect: Effect::Write,
        rights: &[
            ("get patch", "apps", "deployments"),
            ("get patch", "apps", "statefulsets"),
            ("list", "apps", "replicasets"),
            ("list watch", "", "pods"),
            ("get watch", "", "nodes"),
            ("create", "", "events"),
        ],
        run: |step, args| Box::pin(stop(step, args)),
    },
    Primitive {
        name: "start",
        params: &[param("stopped", Type::Value("stopped"))],
        options: &[option("timeout_s", Type::Int, "until every replica is Ready: 600")],
        returns: "map",
        doc: "Starts what `stop` stopped, with the replicas from before, and waits until they are Ready. Returns `downtime_s`, the \
              seconds from the stop to Ready again.",
        example: r#"let stopped = stop(get_object("Deployment", "shop", "web"));
let started = start(stopped);
started.replicas == 1 && started.downtime_s >= 0.0"#,
        effect: Effect::Write,
        rights: &[
            ("get patch watch", "apps", "deployments"),
            ("get patch watch", "apps", "statefulsets"),
            ("get list patch", "apps", "replicasets"),
        ],
        run: |step, args| Box::pin(start(step, args)),
    },
];

/// The workload as it is now; it must still be the one that the script holds.
async fn same(step: &Step, given: &Json) -> Result<Json, Problem> {
    let object = reference(given);
    if !is_scalable(&object.kind) {
        return Err(Problem::refused(format!(
            "{object} cannot be stopped or scaled: only Deployments and StatefulSets can"
        ))
        .object(&object));
    }
    let now = step.guarding(step.get(&object.kind, &object.namespace, &object.name)).await?;
    if uid(&now) != uid(given) {
        return Err(Problem::new(Kind::Conflict, format!("{object} was deleted and made anew by somebody else"))
            .object(&object));
    }
    // Without replicas there may be nothing to write, and then no guard would say it.
    if let Some(holder) = plan::other_holder(&now, step.run()) {
        return Err(plan::in_other_hands(&now, holder));
    }
    Ok(now)
}

async fn scale(step: Step, args: Args) -> Result<Json, Problem> {
    let count = args.int(1);
    if !(0..=100_000).contains(&count) {
        return Err(Problem::usage(format!("{count} is not a number of replicas")));
    }
    let now = same(&step, args.json(0)).await?;
    if replicas(&now) == count {
        return Ok(now);
    }
    step.write_on(&now, "scale", plan::plan_scale(&now, count)).await
}

async fn stop(step: Step, args: Args) -> Result<Json, Problem> {
    let door = step.session.door.clone();
    let now = same(&step, args.json(0)).await?;
    let object = reference(&now);
    // A second stop of one outage: what there was before the first one counts.
    let before = door
        .ledger
        .books()
        .stopped
        .get(&object)
        .filter(|stopped| stopped.uid == uid(&now))
        .map(|stopped| stopped.replicas);
    // A crash after the sending: the object may show 0 already, and only the journaled write knows what there was.
    let noted = noted(&step, &now);
    let was = before.or(noted).unwrap_or_else(|| replicas(&now));
    let before_it = remember_nodes(&step, &now).await?;
    let mut stopped = now.clone();
    if replicas(&now) != 0 || noted.is_some() {
        let mut write = plan::plan_stop(&now);
        write.body["metadata"]["annotations"][crate::cluster::REPLICAS] = json!(was.to_string());
        stopped = door.perform_on(&part_of_stop(&step, &now), "stop", write, Some(now.clone())).await?;
    }
    let generation = stopped["metadata"]["generation"].as_i64().unwrap_or_default();
    let at_ms = Clock.unix_ms();
    let claims = claims_of(&step, &now);
    let (workload, uid_now) = (object.clone(), uid(&now).to_owned());
    step.fact(Fact::Stopped { workload, uid: uid_now, replicas: was, at_ms, claims, generation })?;
    let at_ms = door.ledger.books().stopped.get(&object).map_or(at_ms, |stopped| stopped.at_ms);
    tell(&step, &now).await;
    let running = last_pod_gone(&step, &args, &now, before_it).await?;
    let vanished: BTreeSet<String> = running.into_values().flatten().collect();
    if !vanished.is_empty() {
        let grace = now.pointer("/spec/template/spec/terminationGracePeriodSeconds").and_then(Json::as_u64);
        let hold = NODE_GRACE + Duration::from_secs(grace.unwrap_or(30));
        let nodes = vanished.iter().cloned().collect::<Vec<_>>().join(", ");
        step.session.voice.warn(&format!(
            "a pod of {object} was deleted by force while it ran on {nodes}: waiting {} s for its node to have stopped it",
            hold.as_secs()
        ));
        for node in vanished {
            has_stopped_it(&step, &args, &node, hold).await?;
        }
    }
    Ok(json!({"key": object.to_string(), "workload": now, "replicas": was, "stopped_ms": at_ms}))
}

/// Waits until a stopped workload has no pods left, and gives the nodes where their containers ran, as last seen.
///
/// # Errors
/// `Conflict` if somebody else scales it up meanwhile: then its pods never go.
async fn last_pod_gone(
    step: &Step,
    args: &Args,
    stopped: &Json,
    before: (Vec<Json>, String),
) -> Result<BTreeMap<String, Option<String>>, Problem> {
    let object = reference(stopped);
    let selector = plan::selector(stopped);
    let sets = replica_sets(step, stopped).await?;
    let what = format!("the pods of {object} are gone");
    let timeout = deadline(args, 600);
    let query = [("labelSelector", selector.as_str())];
    let mut running = BTreeMap::new();
    let mut left = |pods: &[Json]| {
        let theirs = pods.iter().filter(|pod| owns_pod(stopped, pod, &sets)).inspect(|pod| note(&mut running, pod));
        match theirs.last() {
            None => Seen::Done(()),
            Some(pod) => Seen::NotYet(format!(
                "pod `{}` on {} is still there",
                text(pod, "/metadata/name"),
                match text(pod, "/spec/nodeName") {
                    "" => "no node",
                    node => node,
                }
            )),
        }
    };
    let all = All { resource: known("Pod"), namespace: &object.namespace, query: &query, seen: Some(before) };
    // Once as a watch from before the write, which misses no pod that goes; once as a list from after it, which misses none
    // that came.
    for all in [all.clone(), All { seen: None, ..all }] {
        tokio::select! {
            gone = step.cluster().wait_for_all(all, timeout, &step.session.door.cancel, &what, &mut left) => {
                gone.map_err(|problem| {
                    problem.object(&object).hint("a node that is down keeps its pods: bring it back, then resume")
                })?;
            }
            problem = scaled_up(step, stopped) => return Err(problem),
        }
    }
    Ok(running)
}

/// Looks at a stopped workload every few seconds until it is not stopped any more.
async fn scaled_up(step: &Step, stopped: &Json) -> Problem {
    loop {
        wait::pause(wait::LOOK_AGAIN).await;
        let now = match same(step, stopped).await {
            Ok(now) => now,
            Err(problem) if matches!(problem.kind, Kind::Conflict | Kind::NotFound) => return problem,
            // The wait itself ends when the server stays away.
            Err(_) => continue,
        };
        if replicas(&now) != 0 {
            let object = reference(&now);
            let why = format!("{object} was scaled to {} by somebody else while its pods were to go", replicas(&now));
            return Problem::new(Kind::Conflict, why)
                .object(&object)
                .hint("find out who did it (an autoscaler, a person), then resume: it is stopped again");
        }
    }
}

/// How many there were before this very step stopped them and the process died, before that was noted anywhere else.
fn noted(step: &Step, now: &Json) -> Option<i64> {
    let before = step.session.door.journal.recorded(&step.id.part("stop"))?;
    let arrived =
        matches!(before.phase, crate::journal::Phase::Done { .. }) || (replicas(now) == 0 && plan::is_marked(now));
    let write = before.write.filter(|_| arrived)?;
    write.body["metadata"]["annotations"][crate::cluster::REPLICAS].as_str()?.parse().ok()
}

/// The write that stops it: another one for each time that somebody else started it again behind this very step.
fn part_of_stop(step: &Step, now: &Json) -> StepId {
    let is_over = |part: &StepId| {
        let before = step.session.door.journal.recorded(part);
        before.is_some_and(|before| matches!(before.phase, crate::journal::Phase::Done { .. }))
    };
    let (first, mut again) = (step.id.part("stop"), (2..).map(|again| step.id.part(&format!("stop-{again}"))));
    if replicas(now) == 0 || !is_over(&first) {
        return first;
    }
    again.find(|part| !is_over(part)).expect("there is always another one")
}

/// How long a node may be away before Kubernetes shows it as not Ready.
const NODE_GRACE: Duration = Duration::from_secs(40);

/// Remembers on which node a pod's containers run, as last seen: a pod that then is gone was deleted by force.
fn note(running: &mut BTreeMap<String, Option<String>>, pod: &Json) {
    let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let runs = containers.into_iter().any(|container| container["state"]["running"].is_object());
    let node = runs.then(|| text(pod, "/spec/nodeName").to_owned());
    running.insert(uid(pod).to_owned(), node);
}

/// Waits until a node has been Ready for so long that it must have seen that the pod is gone, and stopped it.
async fn has_stopped_it(step: &Step, args: &Args, node: &str, hold: Duration) -> Result<(), Problem> {
    let one = One { resource: known("Node"), namespace: "", name: node, seen: None };
    let mut ready = None;
    let what = format!("node {node} has surely stopped a pod that was deleted by force");
    let waited = step.cluster().wait_for(&one, deadline(args, 600), &step.session.door.cancel, &what, |seen| {
        // A node object that is gone was taken out by somebody who says that it is dead.
        let Some(seen) = seen else { return Seen::Done(()) };
        let conditions = seen["status"]["conditions"].as_array().into_iter().flatten();
        if !conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            ready = None;
            return Seen::NotYet("the node is not Ready: its containers may still be writing".into());
        }
        match ready.get_or_insert_with(|| Clock.deadline(hold)).passed() {
            true => Seen::Done(()),
            false => Seen::NotYet("it has not been Ready for long enough".into()),
        }
    });
    waited.await.map_err(|problem| problem.hint("bring the node back, then resume"))
}

/// The claims of this run that a workload uses.
fn claims_of(step: &Step, object: &Json) -> Vec<PvcRef> {
    let namespace = text(object, "/metadata/namespace");
    let books = step.session.door.ledger.books();
    let stay = books.relabels.values().flat_map(|one| [&one.claim, &one.from]);
    let originals: BTreeSet<&PvcRef> = books.temporary.values().map(|(_, like, _)| like).chain(stay).collect();
    let originals = originals.into_iter();
    originals.filter(|claim| claim.namespace == namespace && plan::names_claim(object, &claim.name)).cloned().collect()
}

async fn replica_sets(step: &Step, object: &Json) -> Result<Vec<Json>, Problem> {
    if text(object, "/kind") != "Deployment" {
        return Ok(Vec::new());
    }
    let all = step.cluster().list_all(&known("ReplicaSet"), text(object, "/metadata/namespace")).await;
    let all = all.map_err(|e| e.problem("list the ReplicaSets of a Deployment", Some(&reference(object))))?;
    Ok(all
        .into_iter()
        .filter(|set| plan::controller(set).is_some_and(|owner| text(owner, "/uid") == uid(object)))
        .collect())
}

/// Notes where pods of the workload use which claims: those nodes must let them go before anything is trusted. Gives the
/// pods and the version of their list.
async fn remember_nodes(step: &Step, object: &Json) -> Result<(Vec<Json>, String), Problem> {
    let namespace = text(object, "/metadata/namespace");
    let selector = plan::selector(object);
    let (pods, version) = step
        .cluster()
        .list(&known("Pod"), namespace, &[("labelSelector", &selector)])
        .await
        .map_err(|e| e.problem("see where the pods of a workload run", Some(&reference(object))))?;
    let books = step.session.door.ledger.books();
    for pod in &pods {
        let node = text(pod, "/spec/nodeName");
        for claim in plan::claims_of_spec(&pod["spec"]) {
            let claim = PvcRef::new(namespace, claim);
            if !node.is_empty() && !books.nodes.get(&claim).is_some_and(|nodes| nodes.contains(node)) {
                step.fact(Fact::Used { claim, node: node.to_owned() })?;
            }
        }
    }
    Ok((pods, version))
}

/// An Event on the workload, so that whoever wonders why it is down learns how to go on. Nice to have: no right to make
/// Events stops nothing.
async fn tell(step: &Step, object: &Json) {
    let run = step.run();
    let namespace = text(object, "/metadata/namespace");
    let name = crate::words::names::short_name(
        &format!("pvmigrate-{}", text(object, "/metadata/name")),
        // The same step of another run stops it again, and has something to say too.
        &format!("{run}/{}", step.id),
        200,
    );
    let time = Clock.stamp();
    let next = if crate::script::undo::is_of_rollback(step.id.as_str()) { "rollback" } else { "resume" };
    let write = Write {
        verb: Verb::Create,
        gvk: known("Event").gvk,
        namespace: namespace.to_owned(),
        name: name.clone(),
        body: json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace, "labels": {RUN: run.as_str()}},
            "involvedObject": {"apiVersion": object["apiVersion"], "kind": object["kind"], "namespace": namespace,
                "name": text(object, "/metadata/name"), "uid": uid(object)},
            "reason": "StoppedForMigration", "type": "Normal", "count": 1, "firstTimestamp": time, "lastTimestamp": time,
            "source": {"component": "pvmigrate"},
            "message": format!("stopped by pvmigrate run {run} while its volumes are moved; if that was broken off: pvmigrate {next} {run}"),
        }),
        precondition: Precondition::Absent,
        inverse: Vec::new(),
        class: Class::Own,
    };
    if let Err(problem) = step.write("event", write).await {
        tracing::debug!("no Event on {}: {problem}", reference(object));
    }
}

async fn start(step: Step, args: Args) -> Result<Json, Problem> {
    let given = args.json(0);
    let workload = &given["workload"];
    let Some(was) = given["replicas"].as_i64().filter(|_| crate::script::view::is_object(workload)) else {
        return Err(Problem::usage("start wants what stop returned"));
    };
    let now = same(&step, workload).await?;
    let object = reference(&now);
    // From here on somebody writes: whatever was verified and not yet swapped is worth nothing.
    let books = step.session.door.ledger.books();
    let claims = claims_of(&step, &now);
    for (source, _) in
        books.verified.iter().filter(|(source, v)| claims.contains(&v.claim) && !books.swapped.contains_key(*source))
    {
        step.fact(Fact::Voided { source: source.clone(), why: format!("{object} was started") })?;
    }
    let mut changed = None;
    if replicas(&now) == 0 {
        changed = Some(step.write_on(&now, "start", plan::plan_start(&now, was)).await?);
    } else if plan::is_marked(&now) {
        if replicas(&now) != was {
            step.session
                .voice
                .warn(&format!("{object} was scaled to {} by somebody else meanwhile: left so", replicas(&now)));
        }
        changed = Some(step.write_on(&now, "clean", plan::plan_clean(&now)).await?);
    }
    let ready = wait_ready(&step, &args, &object, was, changed.as_ref()).await?;
    // The Deployment's controller copies annotations to its ReplicaSets and never takes them back.
    for set in replica_sets(&step, &now).await?.iter().filter(|set| plan::is_marked(set)) {
        step.write_on(set, &format!("clean-{}", text(set, "/metadata/name")), plan::plan_clean(set)).await?;
    }
    let downtime_s = given["stopped_ms"].as_i64().map(|ms| (ready - ms).max(0) as f64 / 1000.0).unwrap_or_default();
    let stopped_ms = given["stopped_ms"].as_i64().unwrap_or_default();
    for report in books.signed.values() {
        let report = serde_json::from_value::<Report>(report.clone()).ok();
        if let Some(report) = report.and_then(|report| report.with_ready(&object, stopped_ms, ready)) {
            step.fact(report.sign())?;
        }
    }
    step.fact(Fact::Started { workload: object.clone(), ready_ms: ready })?;
    let rounded = (downtime_s * 10.0).round() / 10.0;
    Ok(
        json!({"key": object.to_string(), "replicas": was, "downtime_s": rounded, "downtime": human_seconds(downtime_s)}),
    )
}

async fn wait_ready(
    step: &Step,
    args: &Args,
    object: &ObjectRef,
    was: i64,
    seen: Option<&Json>,
) -> Result<i64, Problem> {
    let resource = step.cluster().resource(&object.kind).await?;
    let one = One { resource, namespace: &object.namespace, name: &object.name, seen };
    let what = format!("{object} is Ready again");
    step.cluster()
        .wait_for(&one, deadline(args, 600), &step.session.door.cancel, &what, |now| match now {
            // None of none is no proof that it runs on its volume.
            Some(now) if was > 0 && replicas(now) == 0 => Seen::Hopeless(
                Problem::new(Kind::Conflict, format!("{object} was scaled to 0 by somebody else while it started"))
                    .hint(format!(
                        "kubectl -n {} scale {} {} --replicas {was}, then resume",
                        object.namespace,
                        object.kind.to_lowercase(),
                        object.name
                    )),
            ),
            Some(now) => match plan::is_ready(now) {
                Ok(()) => Seen::Done(()),
                Err(missing) => Seen::NotYet(missing),
            },
            None => Seen::Hopeless(Problem::new(Kind::NotFound, format!("{object} was deleted by somebody else"))),
        })
        .await
        .map_err(|problem| problem.object(object).hint(format!("kubectl -n {} describe pods", object.namespace)))?;
    Ok(Clock.unix_ms())
}
