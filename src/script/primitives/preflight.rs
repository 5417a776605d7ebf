//! Everything that speaks against a move, at once and before the first change.

use super::{Args, Effect, Primitive, Type, option, param};
use crate::cluster::kinds::is_namespaced;
use crate::cluster::preflight::{Refusal, Wanted};
use crate::cluster::pvc::{Pvc, Shape};
use crate::cluster::quota::shortages;
use crate::cluster::rbac::Need;
use crate::cluster::units::Unit;
use crate::cluster::{known, text};
use crate::copy::hot::obstacles;
use crate::copy::pod::{PodPlan, Task, check_patch, render};
use crate::script::enter::Step;
use crate::script::rights;
use crate::words::{Json, Problem};
use serde_json::json;
use std::collections::BTreeSet;

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "preflight",
        params: &[param("units", Type::List)],
        options: &[
            option("class", Type::Text, "the target StorageClass"),
            option("size", Type::Size, "the size of every target"),
            option("access_modes", Type::List, "the access modes of every target"),
            option("finished_pods", Type::Text, "keep or delete"),
            option("image", Type::Text, "the agent's image"),
            option("pod_patch", Type::Map, "merged over every copy pod"),
            option("run_as", Type::Int, "the user that copies"),
            option(
                "engine",
                Type::Text,
                "relabel: the claims are made anew on the volumes that they have, and nothing is copied",
            ),
            option("free", Type::Bool, "sources will be given up"),
            option("set_defaults", Type::Bool, "the default StorageClass will be changed"),
        ],
        returns: "array",
        doc: "Judges units and returns every refusal: `unit`, `object`, `reason`, `hint`. Rights, quotas and admission are asked too, \
          without changing anything.",
        example: "preflight(units([get_pvc(\"shop\", \"data\")]), #{ class: \"fast\" }).len() == 0",
        effect: Effect::Read,
        rights: &[
            ("create list", "", "persistentvolumeclaims"),
            ("list", "", "persistentvolumes"),
            ("get", "", "namespaces"),
            ("create list", "", "pods"),
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
            ("list", "", "resourcequotas"),
        ],
        run: |step, args| Box::pin(preflight(step, args)),
    },
    Primitive {
        name: "find_obstacles",
        params: &[param("units", Type::List)],
        options: &[
            option("class", Type::Text, "the target StorageClass"),
            option("pod_patch", Type::Map, "merged over every copy pod"),
        ],
        returns: "array",
        doc: "What keeps units from being copied while their pods run: `unit`, `object`, `reason`, `hint`, and whether it `stays` when \
          nobody uses the claim. Such units can be copied with their workloads stopped, unless it stays.",
        example: "find_obstacles(units([get_pvc(\"shop\", \"data\")])).len() == 0",
        effect: Effect::Read,
        rights: &[
            ("list", "", "persistentvolumes"),
            ("list", "", "nodes"),
            ("get", "storage.k8s.io", "storageclasses"),
        ],
        run: |step, args| Box::pin(find_obstacles(step, args)),
    },
];

async fn find_obstacles(step: Step, args: Args) -> Result<Json, Problem> {
    let units = units_of(&args, "find_obstacles")?;
    let patch = args.option("pod_patch").cloned().unwrap_or(Json::Null);
    // Who may not see them is told by `preflight`, with all that is missing.
    let seen = async |kind: &str| match step.cluster().list_all(&known(kind), "").await {
        Err(e) if e.is_definite() => Ok(Vec::new()),
        seen => seen.map_err(|e| e.problem("see where claims can be copied", None)),
    };
    let (volumes, nodes) = (seen("PersistentVolume").await?, seen("Node").await?);
    let class = match args.option_text("class") {
        Some(name) => step.get("StorageClass", "", name).await?,
        None => Json::Null,
    };
    let found = units.iter().flat_map(|unit| obstacles(unit, &volumes, &nodes, &class, &patch));
    Ok(json!(found.collect::<Vec<_>>()))
}

fn units_of(args: &Args, name: &str) -> Result<Vec<Unit>, Problem> {
    let units = args.json(0).as_array().into_iter().flatten().map(|unit| serde_json::from_value(unit.clone()));
    let units: Result<Vec<_>, _> = units.collect();
    units.map_err(|e| Problem::usage(format!("{name} wants what `units` returned")).because(&e))
}

async fn preflight(step: Step, args: Args) -> Result<Json, Problem> {
    let units = units_of(&args, "preflight")?;
    let patch = args.option("pod_patch").cloned().unwrap_or(Json::Null);
    check_patch(&patch)?;
    let wanted = Wanted { finished_pods: args.option_text("finished_pods") == Some("delete"), stays: stays(&args) };
    let mut refusals = step.cluster().preflight(step.run(), &units, &wanted).await?;
    let missing = missing_rights(&step, &args, &units).await?;
    // What is refused anyway is tried too: who has removed one obstacle shall not run into the next. Without the rights
    // the server's answer would say nothing new.
    for unit in units.iter().filter(|unit| !missing.iter().any(|r| r.unit == unit.key)) {
        refusals.extend(match wanted.stays {
            true => try_anew(&step, &args, unit).await?,
            false => try_dry(&step, &args, unit, &patch).await?,
        });
    }
    refusals.extend(missing);
    refusals.sort_by(|a, b| (&a.unit, &a.object, &a.reason).cmp(&(&b.unit, &b.object, &b.reason)));
    refusals.dedup();
    Ok(json!(refusals))
}

fn stays(args: &Args) -> bool {
    args.option_text("engine") == Some("relabel")
}

/// Lets the server say what admission, limits, and quotas of the class would say to claims that are made anew. Other quotas
/// have room for them: they hold the claims of before.
async fn try_anew(step: &Step, args: &Args, unit: &Unit) -> Result<Vec<Refusal>, Problem> {
    let mut refusals = Vec::new();
    let class = args.option_text("class").unwrap_or_default().to_owned();
    let of_class = format!("{class}.storageclass.storage.k8s.io/");
    let shape = Shape { class, ..Shape::default() };
    for claim in &unit.claims {
        let like = Pvc(claim);
        let mut body = crate::cluster::pvc::plan_temporary(step.run(), like, "", &shape).body;
        body["spec"]["volumeName"] = json!(like.volume());
        body["spec"]["resources"] = claim["spec"]["resources"].clone();
        let tried = step.cluster().dry_create(&known("PersistentVolumeClaim"), like.namespace(), &body).await;
        let Err(e) = tried.as_ref().map(|_| ()).map_err(|e| e.problem("make the claim anew", None)) else { continue };
        let said = e.source.last().unwrap_or(&e.message);
        let is_passing = tried.as_ref().is_err_and(|e| e.is_passing());
        if is_passing {
            return Err(e);
        }
        let is_conflict = tried.is_err_and(|e| e.is_conflict());
        if is_conflict || (said.contains("exceeded quota") && !said.contains(&of_class)) {
            continue;
        }
        refusals.push(Refusal {
            unit: unit.key.clone(),
            object: format!("PersistentVolumeClaim:{}", like.reference()),
            reason: format!("the claim of the new class would be refused: {said}"),
            hint: "change the quota, the limit or the policy, or leave the claim out: --exclude NS/NAME".into(),
        });
    }
    Ok(refusals)
}

/// Lets the server say what admission, quotas and limits would say.
async fn try_dry(step: &Step, args: &Args, unit: &Unit, patch: &Json) -> Result<Vec<Refusal>, Problem> {
    let mut refusals = Vec::new();
    let mut targets = Vec::new();
    let refuse = |object: String, what: &str, problem: &Problem| Refusal {
        unit: unit.key.clone(),
        object,
        reason: format!("{what}: {}", problem.source.last().unwrap_or(&problem.message)),
        hint: "change the quota, the limit or the policy, or leave the claim out: --exclude NS/NAME".into(),
    };
    for claim in &unit.claims {
        let like = Pvc(claim);
        let shape = Shape {
            class: args.option_text("class").unwrap_or(like.class()).to_owned(),
            size: args.option_size("size"),
            modes: args.option_list("access_modes"),
        };
        let temporary =
            crate::cluster::pvc::plan_temporary(step.run(), like, text(claim, "/status/capacity/storage"), &shape);
        let tried = step.cluster().dry_create(&known("PersistentVolumeClaim"), like.namespace(), &temporary.body).await;
        if let Err(e) = tried
            && !e.is_conflict()
        {
            let problem = e.problem("make the target claim", None);
            if e.is_passing() {
                return Err(problem);
            }
            refusals.push(refuse(
                format!("PersistentVolumeClaim:{}", like.reference()),
                "the target claim would be refused",
                &problem,
            ));
        }
        targets.push(temporary.body.clone());
        let plan = PodPlan {
            name: format!("{}-try", temporary.name),
            namespace: like.namespace().to_owned(),
            run: step.run().to_string(),
            task: Task::plain_copy(),
            image: super::copy::image(args),
            source: Some(like.name().to_owned()),
            target: Some(temporary.name.clone()),
            is_block: like.is_block(),
            node: None,
            like: Json::Null,
            run_as: args.option_int("run_as"),
            patch: patch.clone(),
        };
        if let Err(e) = step.cluster().dry_create(&known("Pod"), like.namespace(), &render(&plan)).await {
            let problem = e.problem("make the copy pod", None);
            if e.is_passing() {
                return Err(problem);
            }
            let mut refusal =
                refuse(format!("Namespace:{}", like.namespace()), "the copy pod would be refused", &problem);
            refusal.hint = "fit it with --run-as UID or --pod-patch FILE, or allow it in this namespace".into();
            refusals.push(refusal);
        }
    }
    if refusals.is_empty() && targets.len() > 1 {
        refusals = too_little(step, unit, &targets).await?;
    }
    Ok(refusals)
}

/// Quotas that hold each target alone and not all of the unit.
async fn too_little(step: &Step, unit: &Unit, targets: &[Json]) -> Result<Vec<Refusal>, Problem> {
    let quotas = match step.cluster().list_all(&known("ResourceQuota"), &unit.namespace).await {
        Ok(quotas) => quotas,
        // Who may not see quotas meets them one claim at a time, before anything is stopped.
        Err(e) if e.is_definite() => return Ok(Vec::new()),
        Err(e) => return Err(e.problem("see the quotas of a namespace", None)),
    };
    let refusals = shortages(&quotas, targets).into_iter().map(|short| Refusal {
        unit: unit.key.clone(),
        object: format!("ResourceQuota:{}/{}", unit.namespace, short.quota),
        reason: format!(
            "the {} target claims need {} of {} at once, and {} is left",
            targets.len(),
            short.needed,
            short.resource,
            short.left
        ),
        hint: "raise the quota while they move, or leave the claims out: --exclude NS/NAME".into(),
    });
    Ok(refusals.collect())
}

/// What a move is made of.
const OF_A_MOVE: [&str; 10] = [
    "find_obstacles",
    "set_retain",
    "create_pvc",
    "run_copy_pod",
    "verify_copy",
    "stop",
    "rebind",
    "start",
    "set_reclaim_policy",
    "delete_pvc",
];

/// What it is made of when the volumes stay.
const OF_A_RELABELLING: [&str; 5] = ["set_retain", "stop", "relabel", "start", "set_reclaim_policy"];

/// Asks for every right that the move will need, so that none is missing in the middle.
async fn missing_rights(step: &Step, args: &Args, units: &[Unit]) -> Result<Vec<Refusal>, Problem> {
    let mut namespaces: Vec<&str> = units.iter().map(|unit| unit.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let kinds: Vec<&str> = units.iter().flat_map(|unit| &unit.workloads).map(|object| text(object, "/kind")).collect();
    let frees = args.option_bool("free") && !stays(args);
    let parts = if stays(args) { &OF_A_RELABELLING[..] } else { &OF_A_MOVE[..] };
    let mut missing = Vec::new();
    for need in needed(parts, frees, args.option_bool("set_defaults")) {
        let unneeded = match need.resource {
            // All kinds are listed: that was done before.
            "deployments" | "replicasets" if need.verb != "list" => !kinds.contains(&"Deployment"),
            "statefulsets" if need.verb != "list" => !kinds.contains(&"StatefulSet"),
            // Only what is given up must not be needed by a snapshot.
            "volumesnapshotcontents" => {
                !frees || step.cluster().find_resource("VolumeSnapshotContent.snapshot.storage.k8s.io").await?.is_none()
            }
            _ => false,
        };
        if !unneeded {
            let places =
                if is_namespaced(need.group, plural(need.resource)) == Some(true) { &namespaces[..] } else { &[] };
            ask(step, (need.verb, need.group, need.resource), places, units, &mut missing).await?;
        }
    }
    for unit in units {
        for owner in owners(unit) {
            // The claim is made anew with its owner, which must be seen to live.
            if let Some(kind) = step.cluster().find_resource(&owner).await? {
                let places = if kind.namespaced { &[unit.namespace.as_str()][..] } else { &[] };
                let right = ("get", kind.gvk.group.as_str(), kind.plural.as_str());
                ask(step, right, places, std::slice::from_ref(unit), &mut missing).await?;
            }
        }
    }
    // What keeps other processes off the run is kept in a namespace of its own, and concerns every unit.
    if let Some(fence) = step.session.door.journal.fence() {
        for verb in ["get", "create", "update", "delete"] {
            let right = (verb, "coordination.k8s.io", "leases");
            ask(step, right, &[fence.namespace()], units, &mut missing).await?;
        }
    }
    Ok(missing)
}

/// The rights of a move, as the table of primitives has them.
fn needed(parts: &[&str], frees: bool, sets_defaults: bool) -> BTreeSet<Need> {
    let more = [(frees, "free_pv"), (sets_defaults, "set_default_sc")];
    let more = more.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name);
    let parts = parts.iter().copied().chain(more).filter_map(super::find);
    parts.flat_map(|part| part.rights).flat_map(rights::all_of).filter(|need| !rights::is_optional(need)).collect()
}

/// The kinds of what owns the claims of a unit, as `apps/v1/StatefulSet`.
fn owners(unit: &Unit) -> BTreeSet<String> {
    let owners = unit.claims.iter().filter_map(|claim| claim["metadata"]["ownerReferences"].as_array()).flatten();
    owners.map(|owner| format!("{}/{}", text(owner, "/apiVersion"), text(owner, "/kind"))).collect()
}

fn plural(resource: &str) -> &str {
    resource.split('/').next().unwrap_or(resource)
}

/// For the whole cluster first: who may do it everywhere is not asked namespace by namespace.
async fn ask(
    step: &Step,
    (verb, group, resource): (&str, &str, &str),
    places: &[&str],
    units: &[Unit],
    missing: &mut Vec<Refusal>,
) -> Result<(), Problem> {
    let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let may = async |place: &str| {
        let asked = step.cluster().may(verb, (group, plural, sub), place).await;
        asked.map_err(|e| e.problem("ask for our rights", None))
    };
    if may("").await? {
        return Ok(());
    }
    let mut without: Vec<&str> = Vec::new();
    for place in places {
        if !may(place).await? {
            without.push(place);
        }
    }
    if places.is_empty() {
        without.push("");
    }
    let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    for namespace in without {
        let place = if namespace.is_empty() { "the cluster".to_owned() } else { format!("namespace {namespace}") };
        // To kubectl, what follows a slash is a name.
        let mut asked = full.replace(&format!("/{sub}"), &format!(" --subresource={sub}"));
        if !namespace.is_empty() {
            asked += &format!(" -n {namespace}");
        }
        // Leases are in a namespace of their own.
        let concerns = |unit: &&Unit| resource == "leases" || namespace.is_empty() || unit.namespace == namespace;
        for unit in units.iter().filter(concerns) {
            missing.push(Refusal {
                unit: unit.key.clone(),
                object: format!("{verb} {full}"),
                reason: format!("we may not {verb} {full} in {place}"),
                hint: format!("kubectl auth can-i {verb} {asked} must say yes"),
            });
        }
    }
    Ok(())
}
