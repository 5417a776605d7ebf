//! Claims, and who uses them.

use super::pv::deadline;
use super::{Args, Effect, Param, Primitive, Right, Type, option, param, target};
use crate::cluster::clone;
use crate::cluster::pv::Pv;
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::units;
use crate::cluster::wait::{One, Seen, sleep};
use crate::cluster::{known, text, uid};
use crate::copy::run;
use crate::journal::{Class, Write};
use crate::script::enter::Step;
use crate::words::clock::Deadline;
use crate::words::{Json, Kind, Problem};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

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
        run: |step, args| Box::pin(target::create_pvc(step, args)),
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

pub(super) fn is_full(problem: &Problem) -> bool {
    problem.code == Some(403) && problem.source.iter().any(|said| said.contains("exceeded quota"))
}

async fn delete_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let given = Pvc(args.json(0));
    let name = given.reference();
    step.guarding(run::our_pods_are_gone(&step.session.door, &name)).await?;
    step.write("delete", pvc::plan_delete(given, Class::Reversible)).await?;
    wait_gone(&step, given, deadline(&args, 300)).await?;
    Ok(Json::Null)
}

pub(super) async fn wait_gone(step: &Step, given: Pvc<'_>, limit: Deadline) -> Result<(), Problem> {
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
