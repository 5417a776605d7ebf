//! Volumes.

use super::pvc::create_with_room;
use super::{Args, Effect, Param, Primitive, Type, option, param};
use crate::cluster::pv::{self, Pv};
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::wait::{One, Seen};
use crate::cluster::{Fact, known, text, uid, vigil};
use crate::journal::{Class, Phase};
use crate::script::enter::Step;
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, PvcRef, names};
use serde_json::json;
use std::time::Duration;

const LIST_OPTIONS: &[Param] = &[
    option("class", Type::Text, "only volumes of this StorageClass"),
    option("selector", Type::Text, "only volumes with these labels"),
];

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "list_pvs",
        params: &[],
        options: LIST_OPTIONS,
        returns: "array",
        doc: "Returns the volumes of the cluster, sorted by name.",
        example: "list_pvs(#{ class: \"slow\" }).len() >= 2",
        effect: Effect::Read,
        rights: &[("list", "", "persistentvolumes")],
        run: |step, args| Box::pin(list_pvs(step, args)),
    },
    Primitive {
        name: "get_pv",
        params: &[param("name", Type::Text)],
        options: &[],
        returns: "PersistentVolume",
        doc: "Returns the volume, which must exist.",
        example: "get_pv(get_pvc(\"shop\", \"data\").volume).claim == \"shop/data\"",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumes")],
        run: |step, args| Box::pin(get_pv(step, args)),
    },
    Primitive {
        name: "find_pv",
        params: &[param("name", Type::Text)],
        options: &[],
        returns: "PersistentVolume or ()",
        doc: "Returns the volume, or () if there is none.",
        example: "find_pv(\"no-such-volume\") == ()",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumes")],
        run: |step, args| Box::pin(find_pv(step, args)),
    },
    Primitive {
        name: "set_retain",
        params: &[param("pv", Type::Object("PersistentVolume"))],
        options: &[],
        returns: "PersistentVolume",
        doc: "Protects a volume: its policy becomes Retain, and other runs keep their hands off it. The policy from before is \
              noted on the volume.",
        example: r#"let pv = get_pv(get_pvc("shop", "data").volume);
let kept = set_retain(pv);
set_reclaim_policy(kept, pv.policy);
kept.policy == "Retain""#,
        effect: Effect::Write,
        rights: &[("get patch", "", "persistentvolumes")],
        run: |step, args| Box::pin(set_retain(step, args)),
    },
    Primitive {
        name: "set_reclaim_policy",
        params: &[param("pv", Type::Object("PersistentVolume")), param("policy", Type::Text)],
        options: &[],
        returns: "PersistentVolume",
        doc: "Sets the reclaim policy and takes our hand off the volume. `Delete` is refused wherever it could destroy bytes that \
              are needed.",
        example: r#"let pv = get_pv(get_pvc("shop", "data").volume);
let kept = set_reclaim_policy(pv, "Retain");
let back = set_reclaim_policy(kept, "Delete");
kept.policy == "Retain" && back.policy == "Delete""#,
        effect: Effect::Write,
        rights: &[
            ("get list patch", "", "persistentvolumes"),
            ("get", "", "persistentvolumeclaims"),
            ("list", "snapshot.storage.k8s.io", "volumesnapshotcontents"),
        ],
        run: |step, args| Box::pin(set_reclaim_policy(step, args)),
    },
    Primitive {
        name: "rebind",
        params: &[
            param("pv", Type::Object("PersistentVolume")),
            param("namespace", Type::Text),
            param("name", Type::Text),
        ],
        options: &[
            option("class", Type::Text, "the new claim's StorageClass; the volume's own if absent"),
            option("access_modes", Type::List, "the new claim's access modes; the original's if absent"),
            option("size", Type::Size, "the new claim's request; the original's if absent"),
            option("timeout_s", Type::Int, "for each wait: 300"),
            option(
                "discard_new_data",
                Type::Bool,
                "on the way back to a replaced volume: what was written since is given up",
            ),
        ],
        returns: "PersistentVolumeClaim",
        doc: "Gives a verified target volume the original claim's name: reserves the volume, deletes the original claim, makes it \
              anew on the volume, waits until it is Bound and checks that it is.\nThrows `Voided` if somebody may have \
              written since the final pass: make that pass and its verification again.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
let data = get_pvc("shop", "data");
let source = set_retain(get_pv(data.volume));
let target = create_pvc(data, #{ class: "fast", image: image });
let copy = set_retain(get_pv(target.volume));
let stopped = stop(get_object("Deployment", "shop", "web"));
run_copy_pod(data, target, #{ pass: "final", image: image });
verify_copy(data, target, #{ pass: "final", image: image });
let moved = rebind(copy, "shop", "data");
start(stopped);
for pv in [source, copy] {
    set_reclaim_policy(get_pv(pv.name), "Retain");
}
moved.class == "fast" && moved.volume == copy.name"#,
        effect: Effect::Write,
        rights: &[
            ("get patch", "", "persistentvolumes"),
            ("create delete get patch watch", "", "persistentvolumeclaims"),
            ("get list watch", "", "pods"),
            ("get watch", "", "nodes"),
        ],
        run: |step, args| Box::pin(rebind(step, args)),
    },
    Primitive {
        name: "free_pv",
        params: &[param("pv", Type::Object("PersistentVolume"))],
        options: &[option("timeout_s", Type::Int, "until the volume is gone: 300")],
        returns: "map",
        doc: "Gives a replaced source volume up: its policy becomes Delete, so that its provisioner frees the backend too. Refused \
              unless the original name stands on the verified target and nothing else needs the bytes.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
let data = get_pvc("shop", "data-db-0");
let source = set_retain(get_pv(data.volume));
let target = create_pvc(data, #{ class: "fast", image: image });
let copy = set_retain(get_pv(target.volume));
let stopped = stop(get_object("StatefulSet", "shop", "db"));
run_copy_pod(data, target, #{ pass: "final", image: image });
verify_copy(data, target, #{ pass: "final", image: image });
rebind(copy, "shop", "data-db-0");
start(stopped);
set_reclaim_policy(get_pv(copy.name), "Delete");
free_pv(get_pv(source.name)).freed && find_pv(source.name) == ()"#,
        effect: Effect::Free,
        rights: &[
            ("get list patch watch", "", "persistentvolumes"),
            ("get list", "", "persistentvolumeclaims"),
            ("list", "snapshot.storage.k8s.io", "volumesnapshotcontents"),
        ],
        run: |step, args| Box::pin(free_pv(step, args)),
    },
];

async fn list_pvs(step: Step, args: Args) -> Result<Json, Problem> {
    let selector = args.option_text("selector").unwrap_or_default().to_owned();
    let query: Vec<(&str, &str)> = if selector.is_empty() { vec![] } else { vec![("labelSelector", &selector)] };
    let (mut volumes, _) = step
        .cluster()
        .list(&known("PersistentVolume"), "", &query)
        .await
        .map_err(|e| e.problem("list the volumes", None))?;
    if let Some(class) = args.option_text("class") {
        volumes.retain(|volume| Pv(volume).class() == class);
    }
    Ok(Json::Array(volumes))
}

async fn find_pv(step: Step, args: Args) -> Result<Json, Problem> {
    Ok(step.find("PersistentVolume", "", names::object_name(args.text(0))?).await?.unwrap_or(Json::Null))
}

async fn get_pv(step: Step, args: Args) -> Result<Json, Problem> {
    step.get("PersistentVolume", "", names::object_name(args.text(0))?).await
}

/// The volume as it is now; it must still be the one that the script holds.
pub(super) async fn same_volume(step: &Step, given: &Json) -> Result<Json, Problem> {
    let volume = step.guarding(step.get("PersistentVolume", "", Pv(given).name())).await?;
    if uid(&volume) != uid(given) {
        return Err(Problem::new(Kind::Conflict, format!("volume `{}` was deleted and made anew", Pv(given).name())));
    }
    Ok(volume)
}

async fn set_retain(step: Step, args: Args) -> Result<Json, Problem> {
    let volume = same_volume(&step, args.json(0)).await?;
    let pv = Pv(&volume);
    // After a crash the policy is Retain by our own doing: the note says what it was.
    let noted = text(&volume, "/metadata/annotations/pvmigrate.io~1policy");
    let ours = pv.held_by() == step.run().as_str();
    let was = if ours && !noted.is_empty() { noted } else { pv.policy() }.to_owned();
    let done = if ours && pv.policy() == "Retain" {
        volume.clone()
    } else {
        step.write_on(&volume, "retain", pv::plan_retain(pv)).await?
    };
    step.fact(Fact::Retained { pv: pv.name().to_owned(), uid: pv.uid().to_owned(), was })?;
    Ok(done)
}

async fn set_reclaim_policy(step: Step, args: Args) -> Result<Json, Problem> {
    let policy = args.text(1);
    if !matches!(policy, "Retain" | "Delete") {
        return Err(
            Problem::usage(format!("`{}` is not a policy to set", names::plain(policy))).hint("Retain or Delete")
        );
    }
    let volume = same_volume(&step, args.json(0)).await?;
    step.write_on(&volume, "policy", pv::plan_policy(Pv(&volume), policy, Class::Reversible)).await
}

async fn free_pv(step: Step, args: Args) -> Result<Json, Problem> {
    let given = args.json(0);
    let name = Pv(given).name().to_owned();
    let handle = Pv(given).handle();
    let freed = json!({"pv": name, "handle": handle, "freed": true});
    // On the way after a crash it may be gone already.
    let Some(volume) = step.find("PersistentVolume", "", &name).await? else {
        // Asked for, and gone: the answer was lost with the process.
        if step.session.door.journal.recorded(&step.id.part("free")).is_some_and(|part| part.sent > 0) {
            step.fact(Fact::Freed { pv: name })?;
            return Ok(freed);
        }
        return Err(Problem::new(Kind::NotFound, format!("volume `{name}` does not exist")));
    };
    if uid(&volume) != uid(given) {
        return Err(Problem::new(Kind::Conflict, format!("volume `{name}` was deleted and made anew")));
    }
    if !step.session.door.ledger.books().swapped.contains_key(&name) {
        return Err(Problem::refused(format!("volume `{name}` was not replaced by this run: it is not given up"))
            .hint("only the source of a swap of the same run can be freed"));
    }
    step.write("free", pv::plan_policy(Pv(&volume), "Delete", Class::Free)).await?;
    let one = One { resource: known("PersistentVolume"), namespace: "", name: &name, seen: None };
    let what = format!("volume `{name}` is freed");
    step.cluster()
        .wait_for(&one, deadline(&args, 300), &step.session.door.cancel, &what, |now| match now {
            None => Seen::Done(()),
            Some(now) if uid(now) != uid(&volume) => Seen::Done(()),
            Some(now) => Seen::NotYet(format!("it is {}", Pv(now).phase())),
        })
        .await?;
    step.fact(Fact::Freed { pv: name })?;
    Ok(freed)
}

pub(super) fn deadline(args: &Args, otherwise_s: u64) -> crate::words::clock::Deadline {
    let seconds = args.option_int("timeout_s").and_then(|s| u64::try_from(s).ok()).unwrap_or(otherwise_s);
    Clock.deadline(Duration::from_secs(seconds))
}

/// The compound: its order is a safety rule. Reserve, delete the original, create, see that it is right, clean up.
async fn rebind(step: Step, args: Args) -> Result<Json, Problem> {
    let given = args.json(0);
    let name = args.claim(1)?;
    let door = step.session.door.clone();
    let pv_name = Pv(given).name().to_owned();
    // What must outlive the original claim is kept in the journal before the claim goes.
    let remembered = door.journal.recorded(&step.id).and_then(|s| s.beat).filter(|beat| beat["original"].is_object());
    let is_new = remembered.is_none();
    if let Some(user) = remembered.as_ref().and_then(|beat| beat["used"].as_str()) {
        return Err(used(
            &step,
            &name,
            user,
            remembered.as_ref().map_or("", |beat| text(beat, "/original/spec/volumeName")),
        ));
    }
    let original = match remembered {
        Some(beat) => beat["original"].clone(),
        None => step.get("PersistentVolumeClaim", &name.namespace, &name.name).await?,
    };
    let books = door.ledger.books();
    let made: Vec<_> = books.temporary.iter().filter(|(_, (_, like, _))| *like == name).collect();
    if made.is_empty() {
        return Err(Problem::refused(format!("`{pv_name}` was not made for claim `{name}` by this run"))
            .hint("create_pvc, run_copy_pod and verify_copy come first"));
    }
    let Some((temporary, (temporary_uid, ..))) = made.into_iter().find(|(_, (.., like))| like == uid(&original)) else {
        return Err(Problem::new(Kind::Conflict, format!("claim `{name}` was deleted and made anew by somebody else")));
    };
    let (temporary, temporary_uid) = (temporary.clone(), temporary_uid.clone());
    if is_new && books.relabels.get(Pvc(&original).volume()).is_some_and(|one| one.claim != one.from) {
        return Err(Problem::refused(format!("the volume of claim `{name}` was handed over by this run"))
            .hint("leave the copy to a run of its own"));
    }
    if is_new {
        door.journal.beat(&step.id, "rebind", json!({"original": original}))?;
    }
    let source = Pvc(&original).volume().to_owned();
    let target = step.get("PersistentVolume", "", &pv_name).await?;
    let shape = Shape {
        class: args.option_text("class").map_or_else(|| Pv(&target).class().to_owned(), str::to_owned),
        size: args.option_size("size"),
        modes: args.option_list("access_modes"),
    };

    let mut deleted = Json::Null;
    if !step.is_done("delete-original") {
        let now = match is_new {
            true => Some(original.clone()),
            false => step.find("PersistentVolumeClaim", &name.namespace, &name.name).await?,
        };
        let is_there = now.as_ref().is_some_and(|claim| uid(claim) == uid(&original));
        let is_going = now.as_ref().is_some_and(|claim| Pvc(claim).is_going());
        let asked = door.journal.recorded(&step.id.part("delete-original")).is_some_and(|part| part.sent > 0);
        if !is_there && !asked {
            return Err(Problem::new(Kind::Conflict, format!("claim `{name}` was deleted by somebody else"))
                .hint(format!("its bytes are on volume `{source}`, which is Retain")));
        }
        if is_there && !is_going {
            step.guarding(crate::copy::run::our_pods_are_gone(&door, &name)).await?;
            if args.option("discard_new_data") == Some(&json!(true)) {
                discard(&step, &name, &source, &pv_name).await?;
            }
            if let Err(problem) = trusted(&step, &name, &source, &pv_name) {
                give_back(&step, &target, &temporary, &temporary_uid).await?;
                return Err(problem);
            }
            if Pv(&target).claim() != Some(name.clone()) {
                step.write("reserve", pv::plan_reserve(Pv(&target), &name)).await?;
            }
        }
        match step.write("delete-original", pvc::plan_delete(Pvc(&original), Class::Swap)).await {
            Ok(going) => deleted = going,
            Err(problem) => {
                // Not deleted: the copy must stay reachable, or the final pass could not be made again. If it is not
                // certain that it was not deleted, the volume stays reserved for the name.
                let now = step.find("PersistentVolumeClaim", &name.namespace, &name.name).await?;
                let stays = now.is_some_and(|claim| uid(&claim) == uid(&original) && !Pvc(&claim).is_going());
                if !stays || problem.kind == Kind::Unreachable {
                    return Err(problem.retryable());
                }
                let target = step.get("PersistentVolume", "", &pv_name).await?;
                give_back(&step, &target, &temporary, &temporary_uid).await?;
                return Err(problem);
            }
        }
    }
    // The claim as it was in the end; an earlier attempt has it in the journal.
    let mut last = deleted.clone();
    if last.is_null()
        && let Some(part) = door.journal.recorded(&step.id.part("delete-original"))
        && let Phase::Done { out, blob } = part.phase
    {
        last = door.journal.output(&out, blob.as_deref())?;
    }
    // From here on there is no way but forward: whatever stops it is tried again by resume.
    let swap = Swap { step: &step, args: &args, name, original, source, temporary, temporary_uid, pv_name, shape };
    swap.finish(&deleted, &last).await.map_err(Problem::retryable)
}

/// The second half of a rebind: the original claim is going.
struct Swap<'a> {
    step: &'a Step,
    args: &'a Args,
    name: PvcRef,
    original: Json,
    source: String,
    temporary: PvcRef,
    temporary_uid: String,
    pv_name: String,
    shape: Shape,
}

impl Swap<'_> {
    async fn finish(self, deleted: &Json, last: &Json) -> Result<Json, Problem> {
        let Swap { step, args, name, original, source, temporary, temporary_uid, pv_name, shape } = self;
        let door = step.session.door.clone();
        let claims = known("PersistentVolumeClaim");
        let seen = Some(deleted).filter(|deleted| uid(deleted) == uid(&original));
        let one = One { resource: claims.clone(), namespace: &name.namespace, name: &name.name, seen };
        let is_there = async || {
            let claim = step.find("PersistentVolumeClaim", &name.namespace, &name.name).await?;
            Ok::<_, Problem>(claim.is_some_and(|claim| uid(&claim) == uid(&original)))
        };
        // Whoever is on a node while the original is still there has it mounted, and does not go by itself.
        let mut user = None;
        if deleted.is_null()
            && let Some(pod) = step.guarding(vigil::user_now(step.cluster(), step.run(), &name)).await?
            && is_there().await?
        {
            // Nobody watched since the process died, but it is still there.
            user = Some(text(&pod, "/metadata/name").to_owned());
        }
        let what = format!("the original claim `{name}` is gone");
        let gone = step.cluster().wait_for(&one, deadline(args, 300), &door.cancel, &what, |claim| match claim {
            Some(claim) if uid(claim) == uid(&original) => Seen::NotYet("a pod holds it".into()),
            _ => Seen::Done(()),
        });
        let is_held = user.is_some()
            || tokio::select! {
                () = door.vigils.user_comes(&name) => is_there().await?,
                gone = gone => gone.map(|()| false)?,
            };
        if let Some((pod, pod_uid)) = door.vigils.user(&name)
            && (is_held || !came_later(step, &original, &pod, &pod_uid).await?)
        {
            user = Some(pod);
        }
        if let Some(user) = user {
            door.journal.beat(&step.id, "rebind", json!({"original": original, "used": user}))?;
            return Err(used(step, &name, &user, &source));
        }
        door.vigils.end(&name);

        // An answer that was lost on the way may have let the reservation go.
        let target = step.guarding(step.get("PersistentVolume", "", &pv_name)).await?;
        if Pv(&target).claim() != Some(name.clone()) {
            step.write_on(&target, "reserve-again", pv::plan_reserve(Pv(&target), &name)).await?;
        }
        let temporary_claim =
            step.find("PersistentVolumeClaim", &temporary.namespace, &temporary.name).await?.unwrap_or_default();
        // What somebody wrote on the original until it was deleted goes on too.
        let mut latest = original.clone();
        if uid(last) == uid(&original) {
            for field in ["labels", "annotations"] {
                latest["metadata"][field] = last["metadata"][field].clone();
            }
        }
        let successor = pvc::plan_successor(Pvc(&latest), &temporary_claim, &pv_name, &shape);
        let made = match create_with_room(step, args, &successor).await {
            Ok(made) => made,
            // A StatefulSet that was scaled up made the claim of its own accord. The volume is reserved for the name, so
            // it binds to no other; if it did, nobody's claim is deleted here.
            Err(problem) if problem.kind == Kind::Conflict => {
                adopt(step, args, &name, &pv_name, &successor.body, problem).await?
            }
            Err(problem) => return Err(problem),
        };
        let bound = wait_bound(step, args, &name, &made, &pv_name).await?;
        check(&bound, &target, &name, &shape)?;
        step.fact(Fact::Swapped {
            claim: name.clone(),
            was_uid: uid(&original).to_owned(),
            uid: uid(&bound).to_owned(),
            source,
            target: pv_name,
        })?;

        if !step.is_done("delete-temporary") && uid(&temporary_claim) == temporary_uid {
            step.write("delete-temporary", pvc::plan_delete(Pvc(&temporary_claim), Class::Own)).await?;
        }
        step.write("clean", pvc::plan_clean(Pvc(&bound))).await
    }
}

/// Whether a pod came to its node after the original claim was gone, and so uses another claim of the same name: Kubernetes
/// keeps a claim that a pod on a node names until that pod has ended.
async fn came_later(step: &Step, original: &Json, user: &str, user_uid: &str) -> Result<bool, Problem> {
    let finalizers = original["metadata"]["finalizers"].as_array();
    if !finalizers.is_some_and(|all| all.iter().any(|one| one == "kubernetes.io/pvc-protection")) {
        return Ok(false);
    }
    let pod = step.find("Pod", text(original, "/metadata/namespace"), user).await?;
    let has_ended = |pod: &Json| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    Ok(pod.is_some_and(|pod| uid(&pod) == user_uid && !has_ended(&pod)))
}

/// Somebody wrote to the source after its last copy, when its claim could not be kept any more.
fn used(step: &Step, name: &PvcRef, user: &str, source: &str) -> Problem {
    Problem::new(
        Kind::Conflict,
        format!(
            "pod `{user}` used claim `{name}` while it was being deleted: what it wrote is on volume `{source}` alone"
        ),
    )
    .hint(if crate::script::undo::is_of_rollback(step.id.as_str()) {
        format!(
            "nothing more is done by itself, both volumes are kept; to go back: kubectl patch pv {source} --type merge \
             -p '{{\"spec\":{{\"claimRef\":null}}}}', then make the claim anew with volumeName: {source}"
        )
    } else {
        format!(
            "nothing more is done by itself, both volumes are kept; stop what uses the claim, then `pvmigrate rollback {}` \
             makes it anew on `{source}`",
            step.run()
        )
    })
}

/// The person gives up what was written since the swap: only on the way back to the volume that this run replaced. Whatever
/// becomes of it, the volume with the new data stays Retain.
async fn discard(step: &Step, name: &PvcRef, source: &str, target: &str) -> Result<(), Problem> {
    let door = &step.session.door;
    if !door
        .ledger
        .books()
        .swapped
        .get(target)
        .is_some_and(|swapped| swapped.target == source && swapped.claim == *name)
    {
        return Err(Problem::refused(format!("`{target}` was not replaced by `{source}` in this run"))
            .hint("discard_new_data is for going back to the volume from before"));
    }
    let (from, to) = (step.get("PersistentVolume", "", source).await?, step.get("PersistentVolume", "", target).await?);
    step.guarding(door.watch_over(name)).await?;
    step.guarding(crate::copy::run::nodes_are_clean(door, name, &from, Duration::from_secs(300))).await?;
    step.fact(Fact::Verified {
        claim: name.clone(),
        source: source.to_owned(),
        source_uid: uid(&from).to_owned(),
        target: target.to_owned(),
        target_uid: uid(&to).to_owned(),
        digest: String::new(),
        mode: crate::cluster::guard::DISCARDED.into(),
        at: Clock.stamp(),
        waived: std::collections::BTreeMap::new(),
    })
}

/// The evidence that a deletion rests on, before anything is reserved.
fn trusted(step: &Step, name: &PvcRef, source: &str, target: &str) -> Result<(), Problem> {
    let door = &step.session.door;
    let voided = |why: &str| {
        Err(Problem::new(Kind::Voided, format!("the copy of `{name}` cannot be trusted any more: {why}"))
            .retryable()
            .hint("make the final pass and its verification again"))
    };
    match door.ledger.books().verified.get(source) {
        None => return voided("it was not verified"),
        Some(verified) if verified.target != target => return voided("another target was verified"),
        Some(_) => {}
    }
    match door.vigil(name) {
        Some(Ok(())) => Ok(()),
        Some(Err(why)) => voided(&why),
        None => voided("nobody has watched since the final pass"),
    }
}

/// Takes a reservation back: the target belongs to the temporary claim again.
pub(super) async fn give_back(
    step: &Step,
    target: &Json,
    temporary: &PvcRef,
    temporary_uid: &str,
) -> Result<(), Problem> {
    if Pv(target).claim().as_ref() == Some(temporary) {
        return Ok(());
    }
    step.write("return", pv::plan_return(Pv(target), temporary, temporary_uid)).await?;
    let one = One {
        resource: known("PersistentVolumeClaim"),
        namespace: &temporary.namespace,
        name: &temporary.name,
        seen: None,
    };
    let cancel = &step.session.door.cancel;
    let deadline = Clock.deadline(Duration::from_secs(120));
    step.cluster()
        .wait_for(&one, deadline, cancel, &format!("the temporary claim `{temporary}` has its volume back"), |claim| {
            match claim {
                Some(claim) if Pvc(claim).phase() == "Bound" => Seen::Done(()),
                Some(claim) => Seen::NotYet(format!("it is {}", Pvc(claim).phase())),
                None => {
                    Seen::Hopeless(Problem::new(Kind::NotFound, format!("the temporary claim `{temporary}` is gone")))
                }
            }
        })
        .await
}

/// Takes a claim of the right name that somebody else made, if it stands on our volume.
pub(super) async fn adopt(
    step: &Step,
    args: &Args,
    name: &PvcRef,
    pv: &str,
    wanted: &Json,
    problem: Problem,
) -> Result<Json, Problem> {
    let Some(claim) = step.find("PersistentVolumeClaim", &name.namespace, &name.name).await? else {
        return Err(problem);
    };
    let bound = wait_bound(step, args, name, &claim, pv).await?;
    let (is, should) = (Pvc(&bound).class(), text(wanted, "/spec/storageClassName"));
    let class =
        if is == should { String::new() } else { format!(" (it still names class {is}, as whoever made it does)") };
    step.session.voice.warn(&format!(
        "claim `{name}` was made by somebody else meanwhile: it stands on the target and is kept{class}"
    ));
    let labels = json!({"labels": wanted["metadata"]["labels"], "annotations": wanted["metadata"]["annotations"]});
    let mut write = pvc::plan_clean(Pvc(&bound));
    json_patch::merge(&mut write.body["metadata"], &labels);
    step.write("adopt", write).await
}

pub(super) async fn wait_bound(
    step: &Step,
    args: &Args,
    name: &PvcRef,
    seen: &Json,
    pv: &str,
) -> Result<Json, Problem> {
    let claim_uid = uid(seen);
    let one = One {
        resource: known("PersistentVolumeClaim"),
        namespace: &name.namespace,
        name: &name.name,
        seen: Some(seen),
    };
    let what = format!("claim `{name}` is bound to `{pv}`");
    step.cluster()
        .wait_for(&one, deadline(args, 300), &step.session.door.cancel, &what, |claim| match claim {
            Some(claim) if uid(claim) != claim_uid => Seen::Hopeless(Problem::new(
                Kind::Conflict,
                format!("claim `{name}` was deleted and made anew by somebody else"),
            )),
            Some(claim) if !Pvc(claim).volume().is_empty() && Pvc(claim).volume() != pv => Seen::Hopeless(
                Problem::new(
                    Kind::Conflict,
                    format!("claim `{name}` stands on `{}`, not on `{pv}`", Pvc(claim).volume()),
                )
                .hint(format!("nothing was deleted: the copy is on `{pv}`; remove the wrong claim, then resume")),
            ),
            Some(claim) if Pvc(claim).phase() == "Bound" => Seen::Done(claim.clone()),
            Some(claim) => Seen::NotYet(format!("it is {}", Pvc(claim).phase())),
            None => {
                Seen::Hopeless(Problem::new(Kind::NotFound, format!("claim `{name}` was deleted by somebody else")))
            }
        })
        .await
}

/// Bound is not enough: the volume, its size and the class must be right.
pub(super) fn check(bound: &Json, target: &Json, name: &PvcRef, shape: &Shape) -> Result<(), Problem> {
    let claim = Pvc(bound);
    if claim.volume() != Pv(target).name() || claim.capacity_bytes() < Pv(target).capacity_bytes() {
        return Err(Problem::new(Kind::Conflict, format!("claim `{name}` is Bound, but not as it should be"))
            .object(format!("PersistentVolumeClaim:{name}")));
    }
    if claim.class() != shape.class {
        tracing::warn!("claim {name} keeps the class {} that its StatefulSet gave it", claim.class());
    }
    Ok(())
}
