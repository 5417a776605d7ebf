//! A claim of another class or another name on the volume that it stands on. No byte is copied, and none can be lost: the
//! volume is Retain and has one claimRef all the while.

use super::back::was_deleted;
use super::pv::{adopt, check, deadline, wait_bound};
use super::pvc::{create_with_room, is_full};
use super::{Args, Effect, Primitive, Type, option, param};
use crate::cluster::pv::{self, Pv};
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::relabel::{is_other, judge, mount_options};
use crate::cluster::wait::{self, One, Seen};
use crate::cluster::{Fact, known, text, uid, vigil};
use crate::copy::run;
use crate::journal::{Class, Phase, Write, is_of_rollback};
use crate::script::enter::Step;
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, PvcRef, names};
use serde_json::json;
use std::time::Duration;

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "check_relabel",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim")), param("class", Type::Text)],
        options: &[
            option("size", Type::Size, "the size that is wanted"),
            option("access_modes", Type::List, "the access modes that are wanted"),
        ],
        returns: "map",
        doc: "Says whether the claim could be of another class on the volume that it has: `obstacles` are the reasons why not, none \
              if it could; `doubts` are differences between the classes of which only a person can say that they are nothing \
              to the driver.",
        example: "check_relabel(get_pvc(\"shop\", \"data\"), \"fast\") == #{ obstacles: [], doubts: [] }",
        effect: Effect::Read,
        rights: &[("get", "", "persistentvolumes"), ("get", "storage.k8s.io", "storageclasses")],
        run: |step, args| Box::pin(check_relabel(step, args)),
    },
    Primitive {
        name: "relabel",
        params: &[param("pvc", Type::Object("PersistentVolumeClaim")), param("class", Type::Text)],
        options: &[
            option("mount_options", Type::List, "the volume's mount options, on the way back"),
            option("timeout_s", Type::Int, "for each wait: 300"),
        ],
        returns: "PersistentVolumeClaim",
        doc: "Makes a claim anew under its name, with another class, on the volume that it stands on, which is called after that class \
              too: calls and reserves the volume, deletes the claim, makes it anew, waits until it is Bound and checks that it is. \
              Refused unless `check_relabel` has no obstacles, nobody uses the claim and its volume is Retain.\nThrows \
              `Voided` if somebody uses it again: stop that, and once more. `Conflict` if a pod came so late that it holds the \
              claim that is being deleted: stop that, then resume.",
        example: r#"let data = get_pvc("shop", "data");
let pv = get_pv(data.volume);
set_retain(pv);
let stopped = stop(get_object("Deployment", "shop", "web"));
let now = relabel(data, "fast");
start(stopped);
set_reclaim_policy(get_pv(pv.name), pv.policy);
now.class == "fast" && now.volume == pv.name && get_pv(pv.name).class == "fast""#,
        effect: Effect::Write,
        rights: &[
            ("get patch", "", "persistentvolumes"),
            ("create delete get patch watch", "", "persistentvolumeclaims"),
            ("get", "storage.k8s.io", "storageclasses"),
            ("get list watch", "", "pods"),
            ("get watch", "", "nodes"),
        ],
        run: |step, args| Box::pin(relabel(step, args)),
    },
    Primitive {
        name: "hand_over",
        params: &[
            param("pvc", Type::Object("PersistentVolumeClaim")),
            param("namespace", Type::Text),
            param("name", Type::Text),
        ],
        options: &[
            option(
                "like",
                Type::Object("PersistentVolumeClaim"),
                "what the new claim is made after, on the way back; the old one if absent",
            ),
            option("timeout_s", Type::Int, "for each wait: 300"),
        ],
        returns: "PersistentVolumeClaim",
        doc: "Gives the volume of a claim to one of another namespace or name, which is made of the old one: reserves the volume for \
              it, deletes the old claim, makes the new one, waits until it is Bound and checks that it is. In another namespace it has \
              neither owners nor a data source, which are not there. Refused unless the new name is free, the server would take the \
              new claim, nobody uses the old one and its volume is Retain; and if this run has copied or relabelled it: a run hands \
              a volume over, and back the same way. What names the claim is for the script to change.\nThrows \
              `Voided` and `Conflict` as `relabel` does.",
        example: r#"let data = get_pvc("shop", "data");
let pv = get_pv(data.volume);
set_retain(pv);
let stopped = stop(get_object("Deployment", "shop", "web"));
let moved = hand_over(data, "shop", "data-2");
let back = hand_over(moved, "shop", "data");
start(stopped);
set_reclaim_policy(get_pv(pv.name), pv.policy);
moved.name == "data-2" && back.name == "data" && back.volume == pv.name && find_pvc("shop", "data-2") == ()"#,
        effect: Effect::Write,
        rights: &[
            ("get patch", "", "persistentvolumes"),
            ("create delete get patch watch", "", "persistentvolumeclaims"),
            ("get list watch", "", "pods"),
            ("get watch", "", "nodes"),
        ],
        run: |step, args| Box::pin(hand_over(step, args)),
    },
];

async fn check_relabel(step: Step, args: Args) -> Result<Json, Problem> {
    let claim = Pvc(args.json(0));
    let shape = Shape {
        size: args.option_size("size"),
        modes: args.option_list("access_modes"),
        class: names::object_name(args.text(1))?.to_owned(),
    };
    let volume = step.get("PersistentVolume", "", claim.volume()).await?;
    let (from, to) = classes(&step, claim.class(), &shape.class).await?;
    Ok(json!(judge(claim, Pv(&volume), &from, &to, &shape)))
}

/// The class of before, if it is there, and the new one, which must be.
async fn classes(step: &Step, from: &str, to: &str) -> Result<(Json, Json), Problem> {
    let before = step.find("StorageClass", "", from).await?.unwrap_or_default();
    Ok((before, step.get("StorageClass", "", to).await?))
}

/// What a relabelling or a hand-over is about, the same after every crash.
struct Relabel<'a> {
    step: &'a Step,
    args: &'a Args,
    name: PvcRef,
    /// The claim that stands on the volume in the end: of the same name, if only the class is another.
    to: PvcRef,
    volume: String,
    class: String,
    /// The claim as it was in the beginning.
    original: Json,
    /// Of the volume: what it is to have, and what it had.
    mount_options: Json,
    before: (String, Json),
}

async fn relabel(step: Step, args: Args) -> Result<Json, Problem> {
    let (to, class) = (Pvc(args.json(0)).reference(), args.text(1).to_owned());
    remake(&step, &args, to, class).await
}

async fn hand_over(step: Step, args: Args) -> Result<Json, Problem> {
    let (to, class) = (args.claim(1)?, Pvc(args.json(0)).class().to_owned());
    if let Some(like) = args.option("like").filter(|like| Pvc(like).reference() != to) {
        return Err(Problem::usage(format!(
            "claim `{to}` is not made like `{}`: that is of another name",
            Pvc(like).reference()
        )));
    }
    remake(&step, &args, to, class).await
}

/// Puts the claim `to` of this class on the volume of the claim that was given, in place of that one.
async fn remake(step: &Step, args: &Args, to: PvcRef, class: String) -> Result<Json, Problem> {
    let given = Pvc(args.json(0));
    let (name, volume_name) = (given.reference(), given.volume().to_owned());
    if volume_name.is_empty() {
        return Err(Problem::refused(format!("claim `{name}` has no volume")));
    }
    let door = &step.session.door;
    let claim = step.find("PersistentVolumeClaim", &name.namespace, &name.name).await?;
    let volume = step.guarding(step.get("PersistentVolume", "", &volume_name)).await?;
    if door.ledger.books().retained.get(&volume_name).is_some_and(|(known, _)| known != uid(&volume)) {
        return Err(Problem::new(Kind::Conflict, format!("volume `{volume_name}` was deleted and made anew")));
    }
    let holder = Pv(&volume).claim();
    let is_known = holder.as_ref().is_some_and(|holder| *holder == name || *holder == to);
    let is_back = is_of_rollback(step.id.as_str());
    let is_ours = is_known || (is_back && is_left(step, Pv(&volume)).await?);
    if !is_ours {
        return Err(Problem::new(Kind::Conflict, format!("volume `{volume_name}` is of another claim than `{name}`"))
            .object(format!("PersistentVolume:{volume_name}")));
    }
    // What must outlive the claim is kept in the journal before the claim goes.
    let remembered = door.journal.recorded(&step.id).and_then(|s| s.beat).filter(|beat| beat["original"].is_object());
    // Nobody else's claim of that name is touched, and none that is gone by somebody else's hand is made anew. One that came
    // after ours went is in nobody's way if its name is given up.
    let on_it = claim.as_ref().is_some_and(|claim| Pvc(claim).volume() == volume_name);
    let needs_name = to == name || remembered.is_none();
    if needs_name && !on_it && claim.as_ref().is_some_and(|claim| !Pvc(claim).is_going()) {
        return Err(Problem::new(Kind::Conflict, format!("claim `{name}` does not stand on `{volume_name}` any more"))
            .hint(format!(
                "nothing was deleted: its bytes are on `{volume_name}`; remove the wrong claim, then resume"
            )));
    }
    let beat = match remembered {
        Some(beat) => beat,
        None => {
            let is_going = claim.as_ref().is_none_or(|claim| Pvc(claim).is_going());
            if is_going && !was_deleted(step, &name) {
                return Err(Problem::new(Kind::Conflict, format!("claim `{name}` was deleted by somebody else"))
                    .hint(format!("its bytes are on volume `{volume_name}`")));
            }
            if !is_back {
                once(step, &volume_name, &name, &to)?;
            }
            let original = claim.clone().filter(|_| on_it).unwrap_or_else(|| given.0.clone());
            let options = allowed(step, args, Pvc(&original), Pv(&volume), &class).await?;
            if to != name && !(is_going && stands(step, &to, &volume_name).await?) {
                has_room(step, args, Pvc(&original), &volume_name, &to).await?;
            }
            let had = &volume["spec"]["mountOptions"];
            let mut beat = json!({"original": original, "class": Pv(&volume).class(), "had": had, "options": options});
            if to != name {
                beat["to"] = json!(to);
            }
            door.journal.beat(&step.id, "relabel", beat.clone())?;
            beat
        }
    };
    let relabel = Relabel {
        step,
        args,
        name,
        to,
        volume: volume_name,
        class,
        original: beat["original"].clone(),
        mount_options: beat["options"].clone(),
        before: (text(&beat, "/class").to_owned(), beat["had"].clone()),
    };
    let is_original =
        claim.as_ref().is_some_and(|claim| uid(claim) == uid(&relabel.original) && !Pvc(claim).is_going());
    if is_original && relabel.to == relabel.name && Pvc(&relabel.original).class() == relabel.class {
        return relabel.stay(&volume).await;
    }
    if is_original {
        relabel.let_go(&volume).await?;
    }
    // From here on there is no way but forward: whatever stops it is tried again by resume.
    relabel.make_anew().await.map_err(Problem::retryable)
}

/// What a run did to a volume must be plain to whoever takes it back: it copies it, or hands it over and back the same way.
fn once(step: &Step, volume: &str, name: &PvcRef, to: &PvcRef) -> Result<(), Problem> {
    let books = step.session.door.ledger.books();
    let before = books.relabels.get(volume);
    let handed = before.filter(|one| one.claim != one.from);
    let other = match to == name {
        true => handed.map(|_| "handed over"),
        false if before.is_some_and(|one| one.claim == one.from) => Some("given another class"),
        false if handed.is_some_and(|one| one.from != *to) => Some("handed over"),
        false if books.swapped.contains_key(volume) || books.swap_onto(volume).is_some() => Some("moved"),
        false => books.temporary.values().any(|(_, like, _)| like == name).then_some("copied"),
    };
    let Some(other) = other else { return Ok(()) };
    Err(Problem::refused(format!("volume `{volume}` of claim `{name}` was {other} by this run"))
        .object(format!("PersistentVolume:{volume}"))
        .hint("leave the rest to a run of its own"))
}

/// True if this run has the volume on its way to a claim that is not there.
async fn is_left(step: &Step, volume: Pv<'_>) -> Result<bool, Problem> {
    let books = step.session.door.ledger.books();
    let Some(handed) = books.relabels.get(volume.name()).filter(|one| Some(&one.claim) == volume.claim().as_ref())
    else {
        return Ok(false);
    };
    let there = step.find("PersistentVolumeClaim", &handed.claim.namespace, &handed.claim.name).await?;
    Ok(there.is_none_or(|claim| uid(&claim) != volume.claim_uid() && Pvc(&claim).volume() != volume.name()))
}

/// True if the claim is there and is to stand on that volume.
async fn stands(step: &Step, claim: &PvcRef, volume: &str) -> Result<bool, Problem> {
    let there = step.find("PersistentVolumeClaim", &claim.namespace, &claim.name).await?;
    Ok(there.is_some_and(|claim| Pvc(&claim).volume() == volume))
}

/// That a claim can be made under the new name: the name is free, and the server would take it.
async fn has_room(step: &Step, args: &Args, was: Pvc<'_>, volume: &str, to: &PvcRef) -> Result<(), Problem> {
    let object = format!("PersistentVolumeClaim:{to}");
    is_free(step, &was.reference(), to).await?;
    let successor = plan_handed(args, was.0, volume, was.class(), to);
    let tried = step.cluster().dry_create(&known("PersistentVolumeClaim"), &to.namespace, &successor.body).await;
    let Err(why) = tried else { return Ok(()) };
    let problem = why.problem("make the claim of the new name", None);
    if why.is_passing() {
        return Err(problem);
    }
    // What the old claim takes of a quota is free for the new one.
    if is_full(&problem) && was.namespace() == to.namespace {
        return Ok(());
    }
    let why = problem.source.last().unwrap_or(&problem.message);
    Err(Problem::refused(format!("claim `{to}` would be refused: {why}"))
        .object(object)
        .hint(format!("change that, or choose another namespace: claim `{}` stays as it is", was.reference())))
}

async fn is_free(step: &Step, name: &PvcRef, to: &PvcRef) -> Result<(), Problem> {
    match step.find("PersistentVolumeClaim", &to.namespace, &to.name).await? {
        None => Ok(()),
        Some(_) => Err(Problem::refused(format!("claim `{to}` exists: `{name}` is not handed over to it"))
            .object(format!("PersistentVolumeClaim:{to}"))
            .hint("choose a name that is free, or delete that claim if nobody needs it")),
    }
}

/// The claim that is made in the place of another, which is made after it or after what was given.
fn plan_handed(args: &Args, was: &Json, volume: &str, class: &str, to: &PvcRef) -> Write {
    let size = text(was, "/spec/resources/requests/storage").to_owned();
    let shape = Shape { class: class.to_owned(), size: Some(size), modes: None };
    let like = match args.option("like") {
        Some(like) => like.clone(),
        None => pvc::named(Pvc(was), to),
    };
    pvc::plan_successor(Pvc(&like), &Json::Null, volume, &shape)
}

/// The mount options that the volume is to have, if it may be called after that class at all.
async fn allowed(step: &Step, args: &Args, claim: Pvc<'_>, volume: Pv<'_>, class: &str) -> Result<Json, Problem> {
    if volume.policy() != "Retain" {
        return Err(Problem::refused(format!("volume `{}` has the policy {}", volume.name(), volume.policy()))
            .hint("set_retain(pv) first"));
    }
    if volume.capacity_bytes() < claim.request_bytes() {
        let claim = claim.reference();
        return Err(Problem::refused(format!("`{claim}` asks for more than its volume has: it is being expanded"))
            .hint("wait for that, or ask for what the volume has"));
    }
    // The way back: it was of that class, whether there is one of that name now or not.
    let was = step.session.door.ledger.books().relabels.get(volume.name()).is_some_and(|one| one.was == class);
    if was && let Some(options) = args.option_list("mount_options") {
        return Ok(if options.is_empty() { Json::Null } else { json!(options) });
    }
    if claim.class() == class {
        return Ok(volume.0["spec"]["mountOptions"].clone());
    }
    let (from, to) = classes(step, claim.class(), class).await?;
    let found = judge(claim, volume, &from, &to, &Shape::default());
    if found.obstacles.is_empty() {
        return Ok(mount_options(volume, &from, &to));
    }
    let object = format!("PersistentVolumeClaim:{}", claim.reference());
    Err(Problem::refused(format!(
        "`{}` is not made one of `{class}` on its volume: {}",
        claim.reference(),
        found.obstacles.join("; ")
    ))
    .object(object)
    .hint("copy it: create_pvc, run_copy_pod, verify_copy, rebind"))
}

impl Relabel<'_> {
    /// The claim never went: the volume is called after its class and belongs to it, if that is not so.
    async fn stay(&self, volume: &Json) -> Result<Json, Problem> {
        let (step, pv) = (self.step, Pv(volume));
        let is_right = pv.class() == self.class
            && pv.claim_uid() == uid(&self.original)
            && !is_other(&pv.0["spec"]["mountOptions"], &self.mount_options);
        if !is_right {
            let back = pv::plan_relabel(pv, &self.name, Some(uid(&self.original)), &self.class, &self.mount_options);
            step.write_on(volume, "stay", back).await?;
        }
        self.is_bound_again().await
    }

    /// Nobody uses the claim: its volume is called after the new class and reserved for the name, then the claim goes.
    async fn let_go(&self, volume: &Json) -> Result<(), Problem> {
        let (step, door) = (self.step, &self.step.session.door);
        let journal = &door.journal;
        if journal.recorded(&step.id.part("return")).is_some() {
            // An attempt that ended with that is over: the next one is another step.
            self.give_back().await?;
            return Err(self.given_back());
        }
        let is_quiet = async {
            step.guarding(run::our_pods_are_gone(door, &self.name)).await?;
            step.guarding(door.watch_over(&self.name)).await?;
            let timeout = Duration::from_secs(300);
            step.guarding(run::nodes_are_clean(door, &self.name, volume, timeout)).await?;
            // Reserved for a name, a volume goes to whoever has it.
            if self.to != self.name && Pv(volume).claim().as_ref() != Some(&self.to) {
                is_free(step, &self.name, &self.to).await?;
            }
            Ok(())
        };
        if let Err(problem) = is_quiet.await {
            return self.not_yet(problem).await;
        }
        step.fact(Fact::Relabels {
            claim: self.to.clone(),
            from: Some(self.name.clone()).filter(|from| *from != self.to),
            uid: uid(&self.original).to_owned(),
            pv: self.volume.clone(),
            was: self.before.0.clone(),
        })?;
        let reserve = pv::plan_relabel(Pv(volume), &self.to, None, &self.class, &self.mount_options);
        if let Err(problem) = step.write("reserve", reserve).await {
            return self.not_yet(problem).await;
        }
        self.is_let_go().await?;
        match step.write("delete-original", pvc::plan_delete(Pvc(&self.original), Class::Swap)).await {
            Ok(_) => Ok(()),
            Err(problem) => self.not_yet(problem).await,
        }
    }

    /// Waits a moment until the cluster has noticed that the claim has lost its volume: from then on no pod can mount it, and
    /// the claim does not change any more.
    async fn is_let_go(&self) -> Result<(), Problem> {
        let (step, name) = (self.step, &self.name);
        let claims = known("PersistentVolumeClaim");
        let one = One { resource: claims, namespace: &name.namespace, name: &name.name, seen: None };
        let what = format!("claim `{name}` has let its volume go");
        let moment = Clock.deadline(Duration::from_secs(10));
        let noticed = step.cluster().wait_for(&one, moment, &step.session.door.cancel, &what, |claim| match claim {
            Some(claim) if Pvc(claim).phase() != "Lost" => Seen::NotYet("it is Bound".into()),
            _ => Seen::Done(()),
        });
        match noticed.await {
            Err(problem) if problem.kind != Kind::Timeout => Err(problem),
            _ => Ok(()),
        }
    }

    /// It cannot be let go now. If that is certain, and its volume is reserved, it gets its volume back.
    async fn not_yet(&self, problem: Problem) -> Result<(), Problem> {
        if matches!(problem.kind, Kind::Unreachable | Kind::Interrupted) || problem.fatal {
            return Err(problem);
        }
        if problem.kind != Kind::Voided {
            // What was refused may be what is asked for now.
            wait::sleep(wait::BREATH, &self.step.session.door.cancel).await?;
        }
        let now = self.step.find("PersistentVolumeClaim", &self.name.namespace, &self.name.name).await?;
        let stays = now.is_some_and(|claim| uid(&claim) == uid(&self.original) && !Pvc(&claim).is_going());
        if !stays {
            return Err(problem.retryable());
        }
        self.give_back().await?;
        Err(problem)
    }

    async fn give_back(&self) -> Result<(), Problem> {
        let (step, class) = (self.step, &self.before);
        step.session.door.vigils.end(&self.name);
        let volume = step.guarding(step.get("PersistentVolume", "", &self.volume)).await?;
        if Pv(&volume).claim_uid() == uid(&self.original) {
            return Ok(());
        }
        let back = pv::plan_relabel(Pv(&volume), &self.name, Some(uid(&self.original)), &class.0, &class.1);
        step.write_on(&volume, "return", back).await?;
        self.is_bound_again().await.map(|_| ())
    }

    async fn is_bound_again(&self) -> Result<Json, Problem> {
        let now = self.step.get("PersistentVolumeClaim", &self.name.namespace, &self.name.name).await?;
        wait_bound(self.step, self.args, &self.name, &now, &self.volume).await
    }

    fn given_back(&self) -> Problem {
        Problem::new(Kind::Voided, format!("claim `{}` stays on its volume: it was given back", self.name))
            .retryable()
            .hint("stop what uses it, and once more")
    }

    /// The claim is going, or gone.
    async fn make_anew(&self) -> Result<Json, Problem> {
        let (step, args, name, to) = (self.step, self.args, &self.name, &self.to);
        let door = &step.session.door;
        let claims = known("PersistentVolumeClaim");
        let one = One { resource: claims, namespace: &name.namespace, name: &name.name, seen: None };
        let what = format!("the original claim `{name}` is gone");
        let gone = step.cluster().wait_for(&one, deadline(args, 300), &door.cancel, &what, |claim| match claim {
            Some(claim) if Pvc(claim).is_going() => Seen::NotYet("a pod holds it".into()),
            Some(claim) => Seen::Done(Some(claim.clone())),
            None => Seen::Done(None),
        });
        let left = tokio::select! {
            held = self.held() => return Err(held),
            gone = gone => gone?,
        };
        door.vigils.end(name);
        // Of the name that it gets: one that an earlier process made, or somebody meanwhile.
        let there = match to == name {
            true => left,
            false => step.find("PersistentVolumeClaim", &to.namespace, &to.name).await?,
        };
        let volume = step.guarding(step.get("PersistentVolume", "", &self.volume)).await?;
        let stands = there.as_ref().is_some_and(|claim| uid(claim) == Pv(&volume).claim_uid());
        let pv = Pv(&volume);
        let is_right = pv.claim().as_ref() == Some(to)
            && (pv.claim_uid().is_empty() || stands)
            && pv.class() == self.class
            && !is_other(&pv.0["spec"]["mountOptions"], &self.mount_options);
        if !is_right {
            let owner = there.as_ref().filter(|_| stands).map(|claim| uid(claim).to_owned());
            let again = pv::plan_relabel(pv, to, owner.as_deref(), &self.class, &self.mount_options);
            step.write_on(&volume, "reserve-again", again).await?;
        }
        let mut successor = plan_handed(args, &self.latest()?, &self.volume, &self.class, to);
        // Whoever owned it may be gone by now: with a dead owner it would be collected as garbage.
        let dead = door.dead_owners(&successor, None).await?;
        if let Some(owners) = successor.body.pointer_mut("/metadata/ownerReferences").and_then(Json::as_array_mut) {
            owners.retain(|owner| !dead.contains(owner));
        }
        let made = match create_with_room(step, args, &successor).await {
            Ok(made) => made,
            // A StatefulSet that was scaled up made the claim of its own accord: the volume is reserved for the name.
            Err(problem) if problem.kind == Kind::Conflict => {
                adopt(step, args, to, &self.volume, &successor.body, problem).await?
            }
            Err(problem) => return Err(problem),
        };
        let bound = wait_bound(step, args, to, &made, &self.volume).await?;
        let shape = Shape { class: self.class.clone(), ..Shape::default() };
        check(&bound, &volume, to, &shape)?;
        step.fact(Fact::Remade { was_uid: uid(&self.original).to_owned(), uid: uid(&bound).to_owned() })?;
        step.write("clean", pvc::plan_clean(Pvc(&bound))).await
    }

    /// Ends when the claim is held for longer than a moment by a pod that nobody has stopped. No byte is at risk: whatever it
    /// writes is on the volume that stays.
    async fn held(&self) -> Problem {
        let (step, name) = (self.step, &self.name);
        loop {
            wait::pause(wait::LOOK_AGAIN).await;
            // What cannot be read is left to whoever waits for the claim.
            let claim = step.find("PersistentVolumeClaim", &name.namespace, &name.name).await;
            if !matches!(&claim, Ok(Some(claim)) if uid(claim) == uid(&self.original)) {
                continue;
            }
            let user = step.guarding(vigil::user_now(step.cluster(), step.run(), name)).await;
            if let Ok(Some(pod)) = user
                && text(&pod, "/metadata/deletionTimestamp").is_empty()
            {
                let user = text(&pod, "/metadata/name");
                let going = format!("claim `{name}` is being deleted, and pod `{user}` holds it");
                return Problem::new(Kind::Conflict, going)
                    .object(format!("Pod:{}/{user}", name.namespace))
                    .hint("stop what uses it, then resume");
            }
        }
    }

    /// The claim with what somebody wrote on it until it was deleted.
    fn latest(&self) -> Result<Json, Problem> {
        let journal = &self.step.session.door.journal;
        let mut latest = self.original.clone();
        if let Some(part) = journal.recorded(&self.step.id.part("delete-original"))
            && let Phase::Done { out, blob } = part.phase
        {
            let last = journal.output(&out, blob.as_deref())?;
            if uid(&last) == uid(&self.original) {
                for field in ["labels", "annotations"] {
                    latest["metadata"][field] = last["metadata"][field].clone();
                }
            }
        }
        Ok(latest)
    }
}
