//! Claims, and who uses them.

use super::pv::deadline;
use super::{Args, Effect, Param, Primitive, Right, Type, option, param};
use crate::cluster::clone;
use crate::cluster::pv::Pv;
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::units;
use crate::cluster::wait::{One, Seen, sleep};
use crate::cluster::{Fact, known, text, uid};
use crate::copy::pod::{PodPlan, Task};
use crate::copy::run;
use crate::journal::{Class, Write};
use crate::script::enter::Step;
use crate::words::clock::{Clock, Deadline};
use crate::words::{Json, Kind, Problem, PvcRef};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

const LIST_OPTIONS: &[Param] = &[
    option("namespace", Type::Text, "only claims of this namespace"),
    option("class", Type::Text, "only claims of this StorageClass"),
    option("selector", Type::Text, "only claims with these labels"),
];

/// What it takes to see who uses a claim.
const POPULATION: &[Right] = &[
    ("list", "", "pods"),
    ("list", "apps", "deployments"),
    ("list", "apps", "statefulsets"),
    ("list", "apps", "daemonsets"),
    ("list", "apps", "replicasets"),
    ("list", "", "replicationcontrollers"),
    ("list", "batch", "jobs"),
    ("list", "batch", "cronjobs"),
    ("list", "autoscaling", "horizontalpodautoscalers"),
    ("list", "keda.sh", "scaledobjects"),
    ("list", "argoproj.io", "applications"),
];

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "list_pvcs",
        params: &[],
        options: LIST_OPTIONS,
        returns: "array",
        doc: "Returns claims, sorted by namespace and name.",
        example: "list_pvcs(#{ namespace: \"shop\" }).map(|c| c.name).contains(\"data\")",
        effect: Effect::Read,
        rights: &[("list", "", "persistentvolumeclaims")],
        run: |step, args| Box::pin(list_pvcs(step, args)),
    },
    Primitive {
        name: "get_pvc",
        params: &[param("namespace", Type::Text), param("name", Type::Text)],
        options: &[],
        returns: "PersistentVolumeClaim",
        doc: "Returns the claim, which must exist.",
        example: "get_pvc(\"shop\", \"data\").phase == \"Bound\"",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumeclaims")],
        run: |step, args| Box::pin(get_pvc(step, args)),
    },
    Primitive {
        name: "find_pvc",
        params: &[param("namespace", Type::Text), param("name", Type::Text)],
        options: &[],
        returns: "PersistentVolumeClaim or ()",
        doc: "Returns the claim, or () if there is none.",
        example: "find_pvc(\"shop\", \"no-such-claim\") == ()",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumeclaims")],
        run: |step, args| Box::pin(find_pvc(step, args)),
    },
    Primitive {
        name: "users_of",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim"))],
        options: &[],
        returns: "map",
        doc: "Returns who uses a claim: `pods`, `workloads` (by their templates too, running or not), `bare` pods without a \
              controller, and `foreign` owners of unknown kinds.",
        example: "users_of(get_pvc(\"shop\", \"data\")).workloads[0].name == \"web\"",
        effect: Effect::Read,
        rights: POPULATION,
        run: |step, args| Box::pin(users_of(step, args)),
    },
    Primitive {
        name: "units",
        params: &[param("pvcs", Type::List)],
        options: &[],
        returns: "array",
        doc: "Groups claims into what is cut over together: each unit has `key`, `namespace`, `claims`, `workloads`, `pods`.",
        example: "units([get_pvc(\"shop\", \"data\"), get_pvc(\"shop\", \"logs\")]).len() == 1",
        effect: Effect::Read,
        rights: POPULATION,
        run: |step, args| Box::pin(group(step, args)),
    },
    Primitive {
        name: "check_clone",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim")), param("class", Type::Text)],
        options: &[option("size", Type::Size, "the size that is wanted")],
        returns: "array",
        doc: "Returns what speaks against a volume of the class that is made as a clone of the claim's; nothing if its driver might make \
              one. Whether it can is seen only when it is asked to.",
        example: "check_clone(get_pvc(\"shop\", \"data\"), \"fast\").all(|why| why != \"\")",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumes"), ("get", "storage.k8s.io", "storageclasses")],
        run: |step, args| Box::pin(check_clone(step, args)),
    },
    Primitive {
        name: "create_pvc",
        params: &[param("like", Type::Object("PersistentVolumeClaim"))],
        options: &[
            option("class", Type::Text, "the StorageClass; the original's if absent"),
            option("size", Type::Size, "the request; the largest of volume, request and status if absent"),
            option("access_modes", Type::List, "the access modes; the original's if absent"),
            option(
                "node",
                Type::Text,
                "where a volume that waits for its first consumer is to be; its workload's if absent",
            ),
            option("workload", Type::AnyObject, "whose pods say where they may run"),
            option("image", Type::Text, "the agent's image, for a reservation"),
            option("pod_patch", Type::Map, "merged over the reservation pod"),
            option("clone", Type::Bool, "its driver makes the volume as a clone of the original's"),
            option("timeout_s", Type::Int, "until it is Bound: 300, of a clone 3600"),
        ],
        returns: "PersistentVolumeClaim",
        doc: "Makes the temporary claim of a move and waits until its volume is provisioned, with a reservation pod where the class \
              waits for a first consumer. It carries no selector, no volume name, and no data source but the original as that of a \
              `clone`.\nThrows `Refused` if no clone was made, and leaves nothing behind then.",
        example: r#"let target = create_pvc(get_pvc("shop", "data"), #{ class: "fast", image: "registry.example/pvmigrate/agent:0.1.0" });
delete_pvc(target);
target.phase == "Bound" && target.class == "fast""#,
        effect: Effect::Write,
        rights: &[
            ("create delete get watch", "", "persistentvolumeclaims"),
            ("get", "", "persistentvolumes"),
            ("get", "storage.k8s.io", "storageclasses"),
            ("create delete get list watch", "", "pods"),
            ("get", "", "pods/log"),
            ("get", "", "nodes"),
            ("list", "", "events"),
        ],
        run: |step, args| Box::pin(create_pvc(step, args)),
    },
    Primitive {
        name: "delete_pvc",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim"))],
        options: &[option("timeout_s", Type::Int, "until it is gone: 300")],
        returns: "()",
        doc: "Deletes this very claim and waits until it is gone. Refused while a pod names it, or while its volume would go with it.",
        example: r#"let target = create_pvc(get_pvc("shop", "data"), #{ class: "fast", image: "registry.example/pvmigrate/agent:0.1.0" });
delete_pvc(target);
find_pvc("shop", target.name) == ()"#,
        effect: Effect::Write,
        rights: &[
            ("delete get watch", "", "persistentvolumeclaims"),
            ("get", "", "persistentvolumes"),
            ("list watch", "", "pods"),
        ],
        run: |step, args| Box::pin(delete_pvc(step, args)),
    },
];

async fn list_pvcs(step: Step, args: Args) -> Result<Json, Problem> {
    let namespace = args.option_text("namespace").unwrap_or_default().to_owned();
    if !namespace.is_empty() {
        crate::words::names::label_name(&namespace)?;
    }
    let selector = args.option_text("selector").unwrap_or_default().to_owned();
    let query: Vec<(&str, &str)> = if selector.is_empty() { vec![] } else { vec![("labelSelector", &selector)] };
    let kind = known("PersistentVolumeClaim");
    let (mut claims, _) =
        step.cluster().list(&kind, &namespace, &query).await.map_err(|e| e.problem("list the claims", None))?;
    if let Some(class) = args.option_text("class") {
        claims.retain(|claim| Pvc(claim).class() == class);
    }
    Ok(Json::Array(claims))
}

async fn get_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let name = args.claim(0)?;
    step.get("PersistentVolumeClaim", &name.namespace, &name.name).await
}

async fn find_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let name = args.claim(0)?;
    Ok(step.find("PersistentVolumeClaim", &name.namespace, &name.name).await?.unwrap_or(Json::Null))
}

async fn users_of(step: Step, args: Args) -> Result<Json, Problem> {
    let claim = Pvc(args.json(0)).reference();
    let all = step.cluster().population(&BTreeSet::from([claim.namespace.clone()])).await?;
    Ok(json!(units::users_of(&claim, &all)))
}

async fn group(step: Step, args: Args) -> Result<Json, Problem> {
    let claims = args.json(0).as_array().cloned().unwrap_or_default();
    if let Some(other) = claims.iter().find(|claim| claim["kind"] != "PersistentVolumeClaim") {
        return Err(Problem::usage(format!("units wants claims, not {}", text(other, "/kind"))));
    }
    let namespaces = claims.iter().map(|claim| Pvc(claim).namespace().to_owned()).collect();
    let all = step.cluster().population(&namespaces).await?;
    Ok(json!(units::units(&claims, &all)))
}

async fn check_clone(step: Step, args: Args) -> Result<Json, Problem> {
    let claim = Pvc(args.json(0));
    let shape = Shape { size: args.option_size("size"), ..Shape::default() };
    let volume = step.get("PersistentVolume", "", claim.volume()).await?;
    let class = step.get("StorageClass", "", crate::words::names::object_name(args.text(1))?).await?;
    Ok(json!(clone::obstacles(claim, Pv(&volume), &class, &shape)))
}

async fn create_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let like = args.json(0);
    let name = Pvc(like).reference();
    let volume = match Pvc(like).volume() {
        "" => Json::Null,
        volume => step.get("PersistentVolume", "", volume).await?,
    };
    let shape = Shape {
        class: args.option_text("class").unwrap_or(Pvc(like).class()).to_owned(),
        size: args.option_size("size"),
        modes: args.option_list("access_modes"),
    };
    let is_clone = args.option_bool("clone");
    let class = step.get("StorageClass", "", &shape.class).await?;
    let plan = if is_clone { pvc::plan_clone } else { pvc::plan_temporary };
    let plan = plan(step.run(), Pvc(like), text(&volume, "/spec/capacity/storage"), &shape);
    let temporary = PvcRef::new(&plan.namespace, &plan.name);
    // An earlier process had seen that there will be no clone.
    let beat = step.session.door.journal.recorded(&step.id).and_then(|step| step.beat).unwrap_or(Json::Null);
    if let Some(why) = beat[NO_CLONE].as_str() {
        return Err(no_clone(&step, &args, &temporary, why).await);
    }
    // The one that an earlier attempt of this run left. A clone is of another time, and no use.
    let left = match step.is_done("create") {
        true => None,
        false => ours(&step, &temporary).await?.filter(|claim| !Pvc(claim).is_going()),
    };
    let left = match left {
        Some(claim) if is_clone || !claim["spec"]["dataSource"].is_null() => {
            put_away(&step, &args, &temporary, "put-away-left").await?;
            None
        }
        left => left,
    };
    let made = match left {
        Some(left) => left,
        None => create_with_room(&step, &args, &plan).await?,
    };
    step.fact(Fact::Temporary {
        claim: temporary.clone(),
        uid: uid(&made).to_owned(),
        like: name.clone(),
        like_uid: uid(like).to_owned(),
    })?;
    let limit = deadline(&args, if is_clone { 3600 } else { 300 });
    let refused = Refused::default();
    let ear = is_clone.then(|| refused.listen(&step, &temporary, uid(&made)));
    // Why no clone is waited for any longer.
    let in_vain = || {
        let too_long = || limit.passed().then(|| format!("nothing was made within {} s", limit.timeout.as_secs()));
        refused.why().or_else(too_long).filter(|_| is_clone)
    };
    let hopeless = || in_vain().map(|why| Problem::new(Kind::Copy, why));
    let is_made = async || Ok(ours(&step, &temporary).await?.is_some_and(|claim| Pvc(&claim).is_bound()));
    if text(&class, "/volumeBindingMode") == "WaitForFirstConsumer" {
        let now = step.get("PersistentVolumeClaim", &temporary.namespace, &temporary.name).await?;
        let start =
            if is_clone { run::Start { within: limit.timeout * 2, hopeless: &hopeless } } else { run::Start::USUAL };
        if !Pvc(&now).is_bound()
            && let Err(problem) = reserve(&step, &args, like, &temporary, &name, &start).await
        {
            match in_vain() {
                // It came after all, or its pod is what does not start.
                Some(_) if is_made().await? => {}
                Some(why) if problem.kind == Kind::Copy => {
                    return Err(no_clone(&step, &args, &temporary, &why).await);
                }
                _ => {
                    // It is empty and of no use: nothing of ours is left behind.
                    if problem.kind == Kind::Copy
                        && let Err(other) = put_away(&step, &args, &temporary, "put-away").await
                    {
                        tracing::debug!("{other}");
                    }
                    return Err(problem);
                }
            }
        }
    }
    let one = One {
        resource: known("PersistentVolumeClaim"),
        namespace: &temporary.namespace,
        name: &temporary.name,
        seen: Some(&made),
    };
    let what = format!("the target claim `{temporary}` is bound");
    let bound = step
        .cluster()
        .wait_for(&one, limit, &step.session.door.cancel, &what, |claim| match claim {
            Some(claim) if Pvc(claim).is_bound() => Seen::Done(claim.clone()),
            Some(claim) => match hopeless() {
                Some(problem) => Seen::Hopeless(problem),
                None => Seen::NotYet(format!("it is {}", Pvc(claim).phase())),
            },
            None => Seen::Hopeless(Problem::new(
                Kind::Conflict,
                format!("the target claim `{temporary}` was deleted by somebody else"),
            )),
        })
        .await;
    drop(ear);
    match bound {
        Ok(bound) => Ok(bound),
        Err(problem)
            if matches!(problem.kind, Kind::Copy | Kind::Timeout)
                && let Some(why) = in_vain() =>
        {
            Err(no_clone(&step, &args, &temporary, &why).await)
        }
        Err(problem) if problem.kind == Kind::Timeout => Err(why_unbound(&step, &temporary, problem).await),
        Err(problem) => Err(problem),
    }
}

/// What the journal calls it.
const NO_CLONE: &str = "no_clone";

/// The temporary claim, if it is the one that this run made last.
async fn ours(step: &Step, temporary: &PvcRef) -> Result<Option<Json>, Problem> {
    let known_uid = step.session.door.ledger.books().temporary.get(temporary).map(|(uid, ..)| uid.clone());
    let Some(known_uid) = known_uid else { return Ok(None) };
    let found = step.find("PersistentVolumeClaim", &temporary.namespace, &temporary.name).await?;
    Ok(found.filter(|claim| uid(claim) == known_uid))
}

/// Takes our temporary claim away, and waits for the pods that have it, so that another can have its name.
async fn put_away(step: &Step, args: &Args, temporary: &PvcRef, label: &str) -> Result<(), Problem> {
    let Some(claim) = ours(step, temporary).await? else { return Ok(()) };
    step.guarding(run::our_pods_are_gone(&step.session.door, temporary)).await?;
    step.write(label, pvc::plan_delete(Pvc(&claim), Class::Own)).await?;
    wait_gone(step, Pvc(&claim), deadline(args, 300)).await
}

/// Ends the wait for a clone that will not be made; returns what to tell of it.
async fn no_clone(step: &Step, args: &Args, temporary: &PvcRef, why: &str) -> Problem {
    let end = async {
        step.session.door.journal.beat(&step.id, "create_pvc", json!({NO_CLONE: why}))?;
        put_away(step, args, temporary, "put-away").await
    };
    match end.await {
        Ok(()) => Problem::refused(format!("no clone of `{}` was made: {why}", Pvc(args.json(0)).reference()))
            .hint("copy it whole: --engine native"),
        Err(problem) => problem,
    }
}

/// What a provisioner refuses while somebody waits for it.
#[derive(Clone, Default)]
struct Refused(Arc<Mutex<Option<String>>>);

impl Refused {
    fn why(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears it from the claim's events, until the result is dropped. It may be wrong once: what it says for a while counts.
    fn listen(&self, step: &Step, claim: &PvcRef, uid: &str) -> AbortOnDropHandle<()> {
        let (door, said) = (step.session.door.clone(), self.clone());
        let (claim, uid) = (claim.clone(), uid.to_owned());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let selector = format!("involvedObject.name={}", claim.name);
            let mut since = None;
            while sleep(LISTENED, &door.cancel).await.is_ok() {
                let query = [("fieldSelector", selector.as_str())];
                let Ok((events, _)) = door.cluster.list(&known("Event"), &claim.namespace, &query).await else {
                    continue;
                };
                let why = clone::refusal(&events, &uid);
                if why.is_none() {
                    since = None;
                }
                let insists = why.is_some() && since.get_or_insert_with(|| Clock.deadline(INSISTED)).passed();
                *said.0.lock().unwrap_or_else(PoisonError::into_inner) = why.filter(|_| insists);
            }
        }))
    }
}

/// How often a provisioner's events are read, and for how long it must refuse.
const LISTENED: Duration = Duration::from_secs(1);
const INSISTED: Duration = Duration::from_secs(5);

/// Creates a claim, and waits for room if a quota is full: the server counts a claim that is gone for a moment longer, and
/// the targets of other units go sooner or later.
pub(super) async fn create_with_room(step: &Step, args: &Args, plan: &Write) -> Result<Json, Problem> {
    let limit = deadline(args, 300);
    let mut told = false;
    let mut pause = Duration::from_millis(250);
    loop {
        match step.write("create", plan.clone()).await {
            Err(problem) if is_full(&problem) && !limit.passed() => {
                // It counts again at once as a rule: that is not worth a word.
                let waited = limit.timeout.saturating_sub(limit.left());
                if !told && waited >= TOLERATED {
                    let why = problem.source.last().unwrap_or(&problem.message);
                    step.session.voice.warn(&format!("waiting for room for claim `{}`: {why}", plan.name));
                    told = true;
                }
                sleep(pause, &step.session.door.cancel).await?;
                pause = (pause * 2).min(AT_MOST);
            }
            ended => return ended,
        }
    }
}

/// How long between two questions to a full quota at most, and how long without a word.
const AT_MOST: Duration = Duration::from_secs(4);
const TOLERATED: Duration = Duration::from_secs(1);

fn is_full(problem: &Problem) -> bool {
    problem.code == Some(403) && problem.source.iter().any(|said| said.contains("exceeded quota"))
}

/// A pod that mounts the target where its workload runs, so that the class provisions it there.
async fn reserve(
    step: &Step,
    args: &Args,
    like: &Json,
    temporary: &PvcRef,
    name: &PvcRef,
    start: &run::Start<'_>,
) -> Result<(), Problem> {
    let workload = args.option("workload").cloned().unwrap_or(Json::Null);
    let source = Pvc(like).reference();
    let node = super::copy::place(step, &source, Pvc(like), args.option_text("node")).await?;
    let plan = PodPlan {
        name: String::new(),
        namespace: temporary.namespace.clone(),
        run: step.run().to_string(),
        task: Task::Reserve,
        image: super::copy::image(args),
        source: None,
        target: Some(temporary.name.clone()),
        is_block: Pvc(like).is_block(),
        node,
        like: super::copy::template_spec(&workload),
        run_as: None,
        patch: args.option("pod_patch").cloned().unwrap_or(Json::Null),
    };
    crate::copy::pod::check_patch(&plan.patch)?;
    let door = &step.session.door;
    let ended = run::run_from(door, &step.id, &plan, &name.to_string(), &step.session.voice, start).await?;
    if ended.report["ok"] == json!(false) {
        return Err(run::copy_problem(&ended.report, &format!("`{name}`")));
    }
    Ok(())
}

/// Adds what the provisioner said.
async fn why_unbound(step: &Step, claim: &PvcRef, mut problem: Problem) -> Problem {
    let selector = format!("involvedObject.name={}", claim.name);
    if let Ok((events, _)) =
        step.cluster().list(&known("Event"), &claim.namespace, &[("fieldSelector", &selector)]).await
    {
        for event in events.iter().rev().take(3) {
            problem = problem.quote(format!(
                "{}: {}",
                text(event, "/reason"),
                crate::words::names::plain(text(event, "/message"))
            ));
        }
    }
    problem
}

async fn delete_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let given = Pvc(args.json(0));
    let name = given.reference();
    step.guarding(run::our_pods_are_gone(&step.session.door, &name)).await?;
    step.write("delete", pvc::plan_delete(given, Class::Reversible)).await?;
    wait_gone(&step, given, deadline(&args, 300)).await?;
    Ok(Json::Null)
}

async fn wait_gone(step: &Step, given: Pvc<'_>, limit: Deadline) -> Result<(), Problem> {
    let name = given.reference();
    let one =
        One { resource: known("PersistentVolumeClaim"), namespace: &name.namespace, name: &name.name, seen: None };
    step.cluster()
        .wait_for(&one, limit, &step.session.door.cancel, &format!("claim `{name}` is gone"), |claim| match claim {
            Some(claim) if uid(claim) == given.uid() => Seen::NotYet("a pod holds it".into()),
            _ => Seen::Done(()),
        })
        .await
}

/// The volume that a claim stands on.
pub(super) async fn volume_of(step: &Step, claim: &Json) -> Result<Json, Problem> {
    match Pvc(claim).volume() {
        "" => Err(Problem::refused(format!("claim `{}` has no volume", Pvc(claim).reference()))),
        volume => {
            let found = step.get("PersistentVolume", "", volume).await?;
            if Pv(&found).claim_uid() != Pvc(claim).uid() {
                return Err(Problem::new(
                    Kind::Conflict,
                    format!("volume `{volume}` is not bound to claim `{}`", Pvc(claim).reference()),
                ));
            }
            Ok(found)
        }
    }
}
