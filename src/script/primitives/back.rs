//! The way back: a write is undone, a claim is made as it was, a replaced volume is mounted again.

use super::pv::{deadline, give_back, same_volume, wait_bound};
use super::{Args, Effect, Primitive, Type, option, param};
use crate::cluster::pv::{self, Pv};
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::wait::{One, Seen};
use crate::cluster::{Fact, RUN, known, text, uid};
use crate::journal::{Class, Phase, Precondition, StepId, Verb, Write};
use crate::script::enter::Step;
use crate::script::undo::{self, Now};
use crate::words::{Json, Kind, ObjectRef, Problem, PvcRef};
use serde_json::json;

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "undo_write",
        params: &[param("step", Type::Text)],
        options: &[option(
            "force",
            Type::Bool,
            "what somebody else changed since is overridden, and the journal says what that was",
        )],
        returns: "text",
        doc: "Takes one recorded write of this run back: a change by its inverse, a creation by deleting what was made. Returns \
              `undone`, or `nothing` if it is as it was already.\nThrows `Conflict` with the difference if somebody else \
              changed the same fields since.",
        example: r#"patch_object("Deployment", "shop", "web", #{ metadata: #{ labels: #{ moving: "yes" } } });
let told = undo_write("root/1.patch");
told == "undone" && get_object("Deployment", "shop", "web").labels.moving == ()"#,
        effect: Effect::Write,
        rights: &[("delete get patch watch", "*", "*")],
        run: |step, args| Box::pin(undo_write(step, args)),
    },
    Primitive {
        name: "adopt_pv",
        params: &[param("pv", Type::Object("PersistentVolume")), param("like", Type::Object("PersistentVolumeClaim"))],
        options: &[option("timeout_s", Type::Int, "until it is bound: 300")],
        returns: "PersistentVolumeClaim",
        doc: "Makes a temporary claim on the volume that this run has replaced for the claim `like`, so that it can be copied to, \
              compared, and given its name back with rebind.",
        example: r#"let image = "registry.example/pvmigrate/agent:0.1.0";
let data = get_pvc("shop", "data");
let source = set_retain(get_pv(data.volume));
let target = create_pvc(data, #{ class: "fast", image: image });
let copy = set_retain(get_pv(target.volume));
let stopped = stop(get_object("Deployment", "shop", "web"));
run_copy_pod(data, target, #{ pass: "final", image: image });
verify_copy(data, target, #{ pass: "final", image: image });
let moved = rebind(copy, "shop", "data");
let again = adopt_pv(get_pv(source.name), moved);
verify_copy(moved, again, #{ pass: "final", watch: true, image: image });
let back = rebind(get_pv(source.name), "shop", "data", #{ class: data.class });
start(stopped);
for pv in [source, copy] {
    set_reclaim_policy(get_pv(pv.name), "Retain");
}
again.volume == source.name && back.volume == source.name"#,
        effect: Effect::Write,
        rights: &[("create get watch", "", "persistentvolumeclaims"), ("get patch", "", "persistentvolumes")],
        run: |step, args| Box::pin(adopt_pv(step, args)),
    },
    Primitive {
        name: "return_pv",
        params: &[
            param("pv", Type::Object("PersistentVolume")),
            param("temporary", Type::Object("PersistentVolumeClaim")),
        ],
        options: &[],
        returns: "PersistentVolume",
        doc: "Gives a copy that was reserved for another name back to the temporary claim that this run made for it, and waits \
              until that is bound.",
        example: r#"let target = create_pvc(get_pvc("shop", "data"), #{ class: "fast", image: "registry.example/pvmigrate/agent:0.1.0" });
let copy = return_pv(get_pv(target.volume), target);
delete_pvc(target);
copy.claim == "shop/" + target.name"#,
        effect: Effect::Write,
        rights: &[("get watch", "", "persistentvolumeclaims"), ("get patch", "", "persistentvolumes")],
        run: |step, args| Box::pin(return_pv(step, args)),
    },
    Primitive {
        name: "restore_pvc",
        params: &[param("was", Type::Object("PersistentVolumeClaim")), param("pv", Type::Object("PersistentVolume"))],
        options: &[option("timeout_s", Type::Int, "for each wait: 300")],
        returns: "PersistentVolumeClaim",
        doc: "Makes a claim that is gone anew, as it was and on the volume that it had. The volume must be Retain.",
        example: r#"let data = get_pvc("shop", "data");
let pv = get_pv(data.volume);
set_retain(pv);
let stopped = stop(get_object("Deployment", "shop", "web"));
delete_pvc(data);
let back = restore_pvc(data, get_pv(pv.name));
start(stopped);
set_reclaim_policy(get_pv(pv.name), pv.policy);
back.volume == pv.name && back.metadata.labels == data.metadata.labels"#,
        effect: Effect::Write,
        rights: &[("create get patch watch", "", "persistentvolumeclaims"), ("get patch", "", "persistentvolumes")],
        run: |step, args| Box::pin(restore_pvc(step, args)),
    },
];

async fn return_pv(step: Step, args: Args) -> Result<Json, Problem> {
    let volume = same_volume(&step, args.json(0)).await?;
    let temporary = Pvc(args.json(1));
    let books = step.session.door.ledger.books();
    if books.temporary.get(&temporary.reference()).is_none_or(|(uid, ..)| uid != temporary.uid()) {
        return Err(Problem::refused(format!("claim `{}` was not made by this run", temporary.reference())));
    }
    if temporary.volume() != Pv(&volume).name() {
        return Err(Problem::usage(format!(
            "claim `{}` stood on `{}`, not on `{}`",
            temporary.reference(),
            temporary.volume(),
            Pv(&volume).name()
        )));
    }
    give_back(&step, &volume, &temporary.reference(), temporary.uid()).await?;
    step.get("PersistentVolume", "", Pv(&volume).name()).await
}

async fn undo_write(step: Step, args: Args) -> Result<Json, Problem> {
    let id = StepId::new(args.text(0));
    let journal = &step.session.door.journal;
    let recorded = journal.recorded(&id).filter(|recorded| !matches!(recorded.phase, Phase::Failed(_)));
    let Some(write) = recorded.and_then(|recorded| recorded.write) else {
        return Err(Problem::usage(format!("this run has no write `{id}`")).hint("pvmigrate runs show RUN lists them"));
    };
    let force = args.option_bool("force");
    let undone = match write.verb {
        Verb::Create => unmake(&step, &id, &write, force).await?,
        Verb::Patch => revert(&step, &write, force).await?,
        Verb::Delete => {
            return Err(Problem::refused(format!("{} was deleted: that cannot be taken back", write.object())));
        }
    };
    journal.undone(&id)?;
    Ok(json!(if undone { "undone" } else { "nothing" }))
}

/// Deletes what the write made, if it is still there and still that.
async fn unmake(step: &Step, id: &StepId, write: &Write, force: bool) -> Result<bool, Problem> {
    let object = write.object();
    let resource = step.cluster().resource(&format!("{}/{}", write.gvk.api_version(), write.gvk.kind)).await?;
    let find = || async {
        let found = step.cluster().find(&resource, &write.namespace, &write.name).await;
        found.map_err(|e| e.problem(&format!("read {object}"), Some(&object)))
    };
    let Some(there) = find().await? else { return Ok(false) };
    let made = step.session.door.journal.recorded(id).and_then(|recorded| recorded.made);
    if let Some(why) = undo::stranger(step.run(), id, made.as_deref(), &there) {
        if !force || !undo::may_be_forced(&object.to_string()) {
            return Err(Problem::new(Kind::Conflict, format!("{object} is not what this run made"))
                .object(&object)
                .quote(why)
                .hint("somebody made it anew: look at it, and delete it if it is not needed"));
        }
        step.fact(Fact::Forced { object: object.to_string(), overridden: vec![why] })?;
    }
    if object.kind == "PersistentVolumeClaim" {
        give_up_copy(step, write, Pvc(&there))?;
        step.guarding(crate::copy::run::our_pods_are_gone(&step.session.door, &Pvc(&there).reference())).await?;
    }
    let delete = Write {
        verb: Verb::Delete,
        body: json!({"propagationPolicy": "Background"}),
        precondition: Precondition::Uid(uid(&there).to_owned()),
        inverse: Vec::new(),
        class: Class::Own,
        ..write.clone()
    };
    step.write("delete", delete).await?;
    let made = uid(&there).to_owned();
    let one = One { resource: resource.clone(), namespace: &write.namespace, name: &write.name, seen: None };
    let timeout = crate::words::clock::Clock.deadline(std::time::Duration::from_secs(300));
    let what = format!("{object} is gone");
    let gone = step.cluster().wait_for(&one, timeout, &step.session.door.cancel, &what, |now| match now {
        Some(now) if uid(now) == made => Seen::NotYet("somebody holds it".into()),
        _ => Seen::Done(()),
    });
    gone.await.map(|()| true)
}

/// A copy whose claim goes was verified for nothing. A claim that was made in the moment of a death is no less a copy.
fn give_up_copy(step: &Step, write: &Write, temporary: Pvc<'_>) -> Result<(), Problem> {
    let books = step.session.door.ledger.books();
    let claim = temporary.reference();
    if !books.temporary.contains_key(&claim) {
        if write.class != Class::Own {
            return Ok(());
        }
        let (uid, like) = (temporary.uid().to_owned(), claim.clone());
        return step.fact(Fact::Temporary { claim, uid, like, like_uid: String::new() });
    }
    let sources: Vec<String> = books
        .verified
        .iter()
        .filter(|(source, verified)| verified.target == temporary.volume() && !books.swapped.contains_key(*source))
        .map(|(source, _)| source.clone())
        .collect();
    sources.into_iter().try_for_each(|source| step.fact(Fact::Voided { source, why: "it is taken back".into() }))
}

/// Sends the inverse, if the object is as the write left it.
async fn revert(step: &Step, write: &Write, force: bool) -> Result<bool, Problem> {
    let object = write.object();
    let resource = step.cluster().resource(&format!("{}/{}", write.gvk.api_version(), write.gvk.kind)).await?;
    let mut changed = false;
    for (number, inverse) in write.inverse.iter().enumerate() {
        let found = step.cluster().find(&resource, &write.namespace, &write.name).await;
        let found = found.map_err(|e| e.problem(&format!("read {object}"), Some(&object)))?;
        let books = step.session.door.ledger.books();
        let mut inverse = inverse.clone();
        match undo::state_of(write, &inverse, found.as_ref(), &books) {
            Now::Old => continue,
            Now::Ours => {}
            Now::Foreign { message, differences } => {
                if !force || !undo::may_be_forced(&object.to_string()) {
                    let mut problem = Problem::new(Kind::Conflict, message).object(&object);
                    for line in differences {
                        problem = problem.quote(line);
                    }
                    return Err(problem
                        .hint("put it right by hand, then go on with the same command")
                        .hint(format!("or override it: the same command with --force {object}")));
                }
                let overridden = if differences.is_empty() { vec![message] } else { differences };
                step.fact(Fact::Forced { object: object.to_string(), overridden })?;
            }
        }
        // What is gone is not made again, forced or not.
        let Some(now) = found else { continue };
        if inverse.precondition.uid().is_some_and(|meant| meant != uid(&now)) {
            inverse.precondition = Precondition::Uid(uid(&now).to_owned());
        }
        step.write_on(&now, &format!("undo-{number}"), inverse).await?;
        changed = true;
    }
    Ok(changed)
}

async fn adopt_pv(step: Step, args: Args) -> Result<Json, Problem> {
    let volume = same_volume(&step, args.json(0)).await?;
    let volume_name = Pv(&volume).name().to_owned();
    let given = Pvc(args.json(1));
    let there = step.get("PersistentVolumeClaim", given.namespace(), given.name()).await?;
    if uid(&there) != given.uid() {
        return Err(Problem::new(
            Kind::Conflict,
            format!("claim `{}` was deleted and made anew by somebody else", given.reference()),
        ));
    }
    let like = Pvc(&there);
    let books = step.session.door.ledger.books();
    let name = like.reference();
    let stands =
        |swapped: &crate::cluster::ledger::Swapped| swapped.uid == like.uid() && swapped.target == like.volume();
    if !books.swapped.get(&volume_name).is_some_and(stands) {
        // A swap that was broken off when its claim was made, and not yet seen to be bound.
        let ours = like.0["metadata"]["annotations"][RUN] == step.run().as_str();
        let copied = books.verified.get(&volume_name);
        // Its StatefulSet may have made it in that instant: the volume was reserved for the name, and bound no other.
        let broken_off = (ours || was_deleted(&step, &name))
            && copied.is_some_and(|copied| copied.claim == name && copied.target == like.volume());
        // Or a claim that was made anew on the volume that this run gave it: by another run, and its rollback.
        let same_place = books
            .swapped
            .get(&volume_name)
            .is_some_and(|swapped| swapped.claim == name && swapped.target == like.volume());
        if !broken_off && !same_place {
            return Err(Problem::refused(format!(
                "volume `{volume_name}` was not replaced by this run for the claim `{name}` that stands there now"
            ))
            .object(format!("PersistentVolume:{volume_name}")));
        }
        let bound = wait_bound(&step, &args, &name, like.0, like.volume()).await?;
        step.fact(Fact::Swapped {
            claim: name.clone(),
            was_uid: String::new(),
            uid: uid(&bound).to_owned(),
            source: volume_name.clone(),
            target: like.volume().to_owned(),
        })?;
    }
    let plan = pvc::plan_standing(step.run(), like, Pv(&volume));
    let temporary = PvcRef::new(&plan.namespace, &plan.name);
    // The one that an earlier attempt of this run left.
    let known_uid = books.temporary.get(&temporary).map(|(uid, ..)| uid.clone());
    let left = match known_uid {
        Some(known_uid) if !step.is_done("create") => {
            let found = step.find("PersistentVolumeClaim", &temporary.namespace, &temporary.name).await?;
            found.filter(|claim| uid(claim) == known_uid && !Pvc(claim).is_going())
        }
        _ => None,
    };
    let made = match left {
        Some(left) => left,
        None => super::pvc::create_with_room(&step, &args, &plan).await?,
    };
    step.fact(Fact::Temporary {
        claim: temporary.clone(),
        uid: uid(&made).to_owned(),
        like: like.reference(),
        like_uid: like.uid().to_owned(),
    })?;
    let now = step.guarding(step.get("PersistentVolume", "", &volume_name)).await?;
    if Pv(&now).claim_uid() != uid(&made) {
        step.write_on(&now, "give", pv::plan_return(Pv(&now), &temporary, uid(&made))).await?;
    }
    wait_bound(&step, &args, &temporary, &made, &volume_name).await
}

/// True if this run has asked for the deletion of the claim of that name.
pub(super) fn was_deleted(step: &Step, name: &PvcRef) -> bool {
    let object = ObjectRef::new("PersistentVolumeClaim", &name.namespace, &name.name).to_string();
    step.session.door.journal.has_deleted(&object)
}

async fn restore_pvc(step: Step, args: Args) -> Result<Json, Problem> {
    let was = Pvc(args.json(0));
    let (name, volume_name) = (was.reference(), Pv(args.json(1)).name().to_owned());
    if was.volume() != volume_name {
        return Err(Problem::usage(format!("claim `{name}` stood on `{}`, not on `{volume_name}`", was.volume())));
    }
    let claims = known("PersistentVolumeClaim");
    let one = One { resource: claims, namespace: &name.namespace, name: &name.name, seen: None };
    let what = format!("the claim `{name}` of before is gone");
    let left = step
        .cluster()
        .wait_for(&one, deadline(&args, 300), &step.session.door.cancel, &what, |claim| match claim {
            Some(claim) if uid(claim) == was.uid() && Pvc(claim).is_going() => Seen::NotYet("a pod holds it".into()),
            Some(claim) => Seen::Done(Some(claim.clone())),
            None => Seen::Done(None),
        })
        .await?;
    if let Some(there) = &left
        && uid(there) == was.uid()
    {
        return Ok(there.clone());
    }
    let volume = same_volume(&step, args.json(1)).await?;
    if left.is_none() && (Pv(&volume).claim() != Some(name.clone()) || !Pv(&volume).claim_uid().is_empty()) {
        step.write_on(&volume, "reserve", pv::plan_reserve(Pv(&volume), &name)).await?;
    }
    let made = match left {
        // A StatefulSet may have made it of its own accord; it stands on the right volume, or nothing is done.
        Some(there) => there,
        None => {
            let shape = Shape {
                class: was.class().to_owned(),
                size: Some(text(was.0, "/spec/resources/requests/storage").to_owned()),
                modes: None,
            };
            let successor = pvc::plan_successor(was, &Json::Null, &volume_name, &shape);
            super::pvc::create_with_room(&step, &args, &successor).await?
        }
    };
    let bound = wait_bound(&step, &args, &name, &made, &volume_name).await?;
    step.fact(Fact::Remade { was_uid: was.uid().to_owned(), uid: uid(&bound).to_owned() })?;
    goes_without(&step, &name, &volume_name, &bound).await?;
    step.write("clean", pvc::plan_clean(Pvc(&bound))).await
}

/// If the run had replaced the volume: the name is back on it, and what was written on the other since is on that alone.
async fn goes_without(step: &Step, name: &PvcRef, volume: &str, bound: &Json) -> Result<(), Problem> {
    let books = step.session.door.ledger.books();
    let Some(replaced) = books.swapped.get(volume).filter(|swapped| swapped.claim == *name) else { return Ok(()) };
    let there =
        (step.find("PersistentVolume", "", &replaced.target).await?, step.find("PersistentVolume", "", volume).await?);
    if let (Some(new), Some(old)) = there {
        step.fact(Fact::Verified {
            claim: name.clone(),
            source: replaced.target.clone(),
            source_uid: uid(&new).to_owned(),
            target: volume.to_owned(),
            target_uid: uid(&old).to_owned(),
            digest: String::new(),
            mode: crate::cluster::guard::DISCARDED.into(),
            at: crate::words::clock::Clock.stamp(),
            waived: std::collections::BTreeMap::new(),
        })?;
    }
    step.fact(Fact::Swapped {
        claim: name.clone(),
        was_uid: replaced.uid.clone(),
        uid: uid(bound).to_owned(),
        source: replaced.target.clone(),
        target: volume.to_owned(),
    })
}
