//! The temporary claim of a move: how it is made, how long its volume is waited for, and when a clone is not any more.

use super::Args;
use super::pv::deadline;
use super::pvc::{create_with_room, wait_gone};
use crate::cluster::clone;
use crate::cluster::pvc::{self, Pvc, Shape};
use crate::cluster::wait::{One, Seen, sleep};
use crate::cluster::{Fact, known, text, uid};
use crate::copy::pod::{PodPlan, Task};
use crate::copy::run;
use crate::journal::Class;
use crate::script::enter::Step;
use crate::words::clock::{Clock, Deadline};
use crate::words::{Json, Kind, Problem, PvcRef};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

pub(super) async fn create_pvc(step: Step, args: Args) -> Result<Json, Problem> {
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
    let target = Target {
        step: &step,
        args: &args,
        like,
        temporary: &temporary,
        limit: deadline(&args, if is_clone { 3600 } else { 300 }),
        refused: is_clone.then(Refused::default),
    };
    let waits = text(&class, "/volumeBindingMode") == "WaitForFirstConsumer";
    target.until_bound(&made, waits).await
}

/// A temporary claim that was made, and is waited for.
struct Target<'a> {
    step: &'a Step,
    args: &'a Args,
    like: &'a Json,
    temporary: &'a PvcRef,
    limit: Deadline,
    /// What its driver says, if it is a clone.
    refused: Option<Refused>,
}

impl Target<'_> {
    /// Why no clone is waited for any longer.
    fn in_vain(&self) -> Option<String> {
        let too_long = || format!("nothing was made within {} s", self.limit.timeout.as_secs());
        self.refused.as_ref()?.why().or_else(|| self.limit.passed().then(too_long))
    }

    fn hopeless(&self) -> Option<Problem> {
        self.in_vain().map(|why| Problem::new(Kind::Copy, why))
    }

    /// Waits until its volume is there; `waits` is for the first pod that uses it.
    async fn until_bound(&self, made: &Json, waits: bool) -> Result<Json, Problem> {
        let (step, args, temporary) = (self.step, self.args, self.temporary);
        let _ear = self.refused.as_ref().map(|refused| refused.listen(step, temporary, uid(made)));
        if waits {
            self.reserve().await?;
        }
        let claims = known("PersistentVolumeClaim");
        let one = One { resource: claims, namespace: &temporary.namespace, name: &temporary.name, seen: Some(made) };
        let what = format!("the target claim `{temporary}` is bound");
        let bound = step.cluster().wait_for(&one, self.limit, &step.session.door.cancel, &what, |claim| match claim {
            Some(claim) if Pvc(claim).is_bound() => Seen::Done(claim.clone()),
            Some(claim) => match self.hopeless() {
                Some(problem) => Seen::Hopeless(problem),
                None => Seen::NotYet(format!("it is {}", Pvc(claim).phase())),
            },
            None => Seen::Hopeless(Problem::new(
                Kind::Conflict,
                format!("the target claim `{temporary}` was deleted by somebody else"),
            )),
        });
        match bound.await {
            Err(problem)
                if matches!(problem.kind, Kind::Copy | Kind::Timeout)
                    && let Some(why) = self.in_vain() =>
            {
                Err(no_clone(step, args, temporary, &why).await)
            }
            Err(problem) if problem.kind == Kind::Timeout => Err(why_unbound(step, temporary, problem).await),
            ended => ended,
        }
    }

    /// A pod uses it where the workload runs, so that it is provisioned there.
    async fn reserve(&self) -> Result<(), Problem> {
        let (step, args, temporary) = (self.step, self.args, self.temporary);
        let now = step.get("PersistentVolumeClaim", &temporary.namespace, &temporary.name).await?;
        if Pvc(&now).is_bound() {
            return Ok(());
        }
        let hopeless = || self.hopeless();
        let start = match &self.refused {
            Some(_) => run::Start { within: self.limit.timeout * 2, hopeless: &hopeless },
            None => run::Start::USUAL,
        };
        let Err(problem) = reserve(step, args, self.like, temporary, &start).await else { return Ok(()) };
        match self.in_vain() {
            // It came after all, or its pod is what does not start.
            Some(_) if ours(step, temporary).await?.is_some_and(|claim| Pvc(&claim).is_bound()) => Ok(()),
            Some(why) if problem.kind == Kind::Copy => Err(no_clone(step, args, temporary, &why).await),
            _ => {
                // It is empty and of no use: nothing of ours is left behind.
                if problem.kind == Kind::Copy
                    && let Err(other) = put_away(step, args, temporary, "put-away").await
                {
                    tracing::debug!("{other}");
                }
                Err(problem)
            }
        }
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

/// A pod that mounts the target where its workload runs, so that the class provisions it there.
async fn reserve(
    step: &Step,
    args: &Args,
    like: &Json,
    temporary: &PvcRef,
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
    let ended = run::run_from(door, &step.id, &plan, &source.to_string(), &step.session.voice, start).await?;
    if ended.report["ok"] == json!(false) {
        return Err(run::copy_problem(&ended.report, &format!("`{source}`")));
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
