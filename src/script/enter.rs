//! The one door from Rhai to Rust: arguments are checked, the step is found or made in the journal, the future is run,
//! failures are thrown with their place.

use super::errors;
use super::primitives::{Args, Effect, Primitive};
use super::session::{Branch, Mode, Session};
use super::view::{identity, to_dynamic, to_json};
use crate::cluster::{Fact, wait};
use crate::journal::{Replay, StepId, Write};
use crate::words::{Json, Kind, Problem};
use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use std::sync::Arc;

pub type Outcome = Result<Dynamic, Box<EvalAltResult>>;

/// A step in execution: what the code of a primitive works with.
#[derive(Clone)]
pub struct Step {
    pub session: Arc<Session>,
    pub id: StepId,
}

impl Step {
    /// Carries out one write of this step. The label names it within the step.
    ///
    /// # Errors
    /// As [`crate::cluster::Door::perform`].
    pub async fn write(&self, label: &str, write: Write) -> Result<Json, Problem> {
        self.session.door.perform(&self.id.part(label), label, write).await
    }

    /// The same on the object as it was just read to plan the write.
    ///
    /// # Errors
    /// As [`crate::cluster::Door::perform`].
    pub async fn write_on(&self, seen: &Json, label: &str, write: Write) -> Result<Json, Problem> {
        self.session.door.perform_on(&self.id.part(label), label, write, Some(seen.clone())).await
    }

    /// True if the write of this label was carried out before.
    pub fn is_done(&self, label: &str) -> bool {
        self.session
            .door
            .journal
            .recorded(&self.id.part(label))
            .is_some_and(|step| matches!(step.phase, crate::journal::Phase::Done { .. }))
    }

    /// Adds to what the guards know.
    ///
    /// # Errors
    /// If it cannot be journaled.
    pub fn fact(&self, fact: Fact) -> Result<(), Problem> {
        self.session.door.ledger.record(&self.session.door.journal, &self.id, fact)
    }
}

/// Runs a primitive for a script.
pub fn call(primitive: &'static Primitive, ctx: &NativeCallContext, args: &[Dynamic]) -> Outcome {
    let position = ctx.call_position();
    let branch = Branch::of(ctx);
    let thrown = |problem: Problem| errors::throw(&problem, position);
    let session = branch.session().map_err(thrown)?.clone();
    if session.door.cancel.is_cancelled() {
        return Err(errors::end(&wait::interrupted(), position));
    }
    let args = args.iter().map(to_json).collect::<Result<Vec<_>, _>>().map_err(thrown)?;
    let mut args = primitive.check(args).map_err(thrown)?;
    if branch.mode == Mode::Looking {
        if primitive.effect != Effect::Read {
            return Err(thrown(Problem::usage(format!(
                "`{}` changes things: it has no place inside wait_until",
                primitive.name
            ))));
        }
        let step = Step { session: session.clone(), id: StepId::new(format!("{}/look", branch.path)) };
        let out = session.runtime.block_on((primitive.run)(step, args)).map_err(thrown)?;
        return Ok(to_dynamic(&out));
    }
    let (_, id) = branch.next();
    let sig = signature(&args.0);
    session.door.journal.bring_up_to_date(&mut args.0);
    let at = place(ctx);
    if primitive.effect == Effect::Read
        && session.resumed
        && let Ok(Replay::Done(before)) = session.door.journal.replay(&id, primitive.name, &sig, &at)
    {
        look_again(&session, primitive, &before, Args(args.0.clone()));
    }
    step(&session, &id, primitive.name, &sig, &at, primitive.effect != Effect::Read, position, || {
        session.runtime.block_on((primitive.run)(Step { session: session.clone(), id: id.clone() }, args))
    })
    .map(|out| to_dynamic(&out))
}

/// Asks a question again whose answer steered the run, and tells what is different now.
fn look_again(session: &Arc<Session>, primitive: &'static Primitive, before: &Json, args: Args) {
    let step = Step { session: session.clone(), id: StepId::new("look-again") };
    let Ok(now) = session.runtime.block_on((primitive.run)(step, args)) else {
        // What is gone by our own doing cannot be read; what is gone otherwise stops the write that needs it.
        return;
    };
    for change in super::changes::changes(before, &now, |object| session.door.journal.has_touched(object)) {
        session.voice.warn(&format!("since the run was broken off: {change}"));
    }
}

/// Finds a step in the journal, or does it and records how it ended.
#[expect(clippy::too_many_arguments, reason = "everything that identifies a step")]
pub fn step(
    session: &Session,
    id: &StepId,
    op: &str,
    sig: &str,
    at: &str,
    begins: bool,
    position: rhai::Position,
    work: impl FnOnce() -> Result<Json, Problem>,
) -> Result<Json, Box<EvalAltResult>> {
    let journal = &session.door.journal;
    let fatal = |problem: Problem| errors::end(&problem, position);
    match journal.replay(id, op, sig, at).map_err(fatal)? {
        Replay::Done(out) => return Ok(out),
        Replay::Failed(problem) => return Err(errors::throw(&problem, position)),
        Replay::Fresh | Replay::Redo => {}
    }
    if begins {
        journal.begin(id, op, sig, at).map_err(fatal)?;
    }
    match work() {
        Ok(out) => {
            if begins {
                journal.done(id, op, out.clone()).map_err(fatal)?;
            } else {
                journal.observe(id, op, sig, at, out.clone()).map_err(fatal)?;
            }
            Ok(out)
        }
        // Not a result of the step: it will be taken again.
        Err(problem) if problem.kind == Kind::Interrupted => Err(fatal(problem)),
        // The local disk, ourselves, or another process that has the run: no script can do anything about it.
        Err(problem) if problem.fatal || matches!(problem.kind, Kind::Local | Kind::Bug | Kind::Diverged) => {
            Err(fatal(problem))
        }
        Err(problem) => {
            journal.fail(id, op, sig, at, &problem).map_err(fatal)?;
            Err(errors::throw(&problem, position))
        }
    }
}

/// A digest of the arguments.
pub fn signature(args: &[Json]) -> String {
    let text = identity(&Json::Array(args.to_vec())).to_string();
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// `sc-migrate:12:5`
pub fn place(ctx: &NativeCallContext) -> String {
    let position = ctx.call_position();
    format!(
        "{}:{}:{}",
        ctx.call_source().unwrap_or("script"),
        position.line().unwrap_or(0),
        position.position().unwrap_or(0)
    )
}

/// What every primitive asks of the cluster.
impl Step {
    pub fn cluster(&self) -> &crate::cluster::Cluster {
        &self.session.door.cluster
    }

    pub fn run(&self) -> &crate::words::RunId {
        self.session.door.journal.run()
    }

    /// Counts the reads of `work` as the guards'.
    pub async fn guarding<T>(&self, work: impl Future<Output = T>) -> T {
        self.cluster().requests().guarding(work).await
    }

    /// Returns an object, or `None`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn find(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Json>, Problem> {
        let resource = self.cluster().resource(kind).await?;
        let object = crate::words::ObjectRef::new(kind, namespace, name);
        self.cluster()
            .find(&resource, namespace, name)
            .await
            .map_err(|e| e.problem(&format!("read {object}"), Some(&object)))
    }

    /// Returns an object that must exist.
    ///
    /// # Errors
    /// `NotFound`, or what kept it from being read.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Json, Problem> {
        let object = crate::words::ObjectRef::new(kind, namespace, name);
        self.find(kind, namespace, name)
            .await?
            .ok_or_else(|| Problem::new(Kind::NotFound, format!("{object} does not exist")).object(&object).code(404))
    }
}
