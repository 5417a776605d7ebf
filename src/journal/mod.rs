//! The journal: a door, not a diary. Whatever changes a cluster is written here first.
//!
//! What it is not: it knows neither Kubernetes nor Rhai, and never decides what to do. Callers: `cluster::send`
//! (which takes a [`Permit`]), the script host (which replays). What must stay true:
//!
//! * A write is durable in the journal, whole, before its first byte goes to a server: [`Journal::permit`] is the only
//!   maker of permits and syncs before it returns one.
//! * A permit is good for one sending of the one write that it was made for. It can be neither copied nor forged:
//!
//! ```
//! fn one_sending(permit: pvmigrate::journal::Permit) -> String {
//!     permit.step().to_string()
//! }
//! async fn twice(journal: &pvmigrate::journal::Journal, id: &pvmigrate::journal::StepId, write: &pvmigrate::journal::Write) {
//!     let permit = journal.permit(id, "set_retain", write).await.expect("the state directory is writable");
//!     one_sending(permit);
//! }
//! ```
//! ```compile_fail,E0382
//! fn one_sending(permit: pvmigrate::journal::Permit) -> String {
//!     permit.step().to_string()
//! }
//! async fn twice(journal: &pvmigrate::journal::Journal, id: &pvmigrate::journal::StepId, write: &pvmigrate::journal::Write) {
//!     let permit = journal.permit(id, "set_retain", write).await.expect("the state directory is writable");
//!     one_sending(permit);
//!     one_sending(permit);
//! }
//! ```
//! ```compile_fail,E0451
//! fn forged(
//!     run: pvmigrate::words::RunId,
//!     step: pvmigrate::journal::StepId,
//!     digest: String,
//! ) -> pvmigrate::journal::Permit {
//!     pvmigrate::journal::Permit { run, step, digest }
//! }
//! ```

mod event;
mod fence;
mod part;
mod run;
mod state;
mod store;
mod write;

pub use event::{Event, StepId, T, VERSION};
pub use fence::{Answer, Fence};
pub use part::{Back, ROLLBACK, Standing, ends, is_of_rollback, standing, whole_step};
pub use run::{RunFile, RunListing, RunStatus, Runs, Source, safe};
pub use state::{Illegal, Packed, Phase, State, Step};
pub use store::{FileStore, Store};
pub use write::{Class, Gvk, Precondition, Verb, Write};

use crate::words::{Json, Kind, Problem, RunId, clock::Clock};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Results above this many bytes go to a blob file of their own; the record then holds its hash.
const BLOB_BYTES: usize = 16 << 10;

/// Proof that one write stands durably in the journal. By value, not `Clone`, not `Copy`: one sending.
#[derive(Debug)]
#[must_use = "a permit that is not used leaves a step in flight"]
pub struct Permit {
    run: RunId,
    step: StepId,
    digest: String,
}

impl Permit {
    pub fn run(&self) -> &RunId {
        &self.run
    }

    pub fn step(&self) -> &StepId {
        &self.step
    }

    /// True if this permit was made for exactly this write.
    pub fn covers(&self, write: &Write) -> bool {
        self.digest == write.digest()
    }
}

/// What the journal knows about a step that the script is about to take.
#[derive(Debug, PartialEq)]
pub enum Replay {
    /// Nobody was here before.
    Fresh,
    /// It was begun, and how it ended is not known: converge.
    Redo,
    /// It ended like this.
    Done(Json),
    /// It failed, the script caught that and went on.
    Failed(Problem),
}

/// The journal of one run, shared by its branches.
pub struct Journal {
    run: RunId,
    store: Box<dyn Store>,
    fence: Option<Arc<dyn Fence>>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    next_n: u64,
    /// Another process may still have the run: nothing must be durable yet.
    is_waiting: bool,
}

impl Journal {
    /// Opens the journal in `store` and folds what it holds.
    ///
    /// # Errors
    /// If it is corrupt, of an unknown version or cannot be read.
    pub fn open(run: RunId, store: Box<dyn Store>) -> Result<Self, Problem> {
        let told = |illegal: Illegal| match illegal {
            Illegal::Version { n, v } => store::another_version(n, v.into()),
            other => corrupt(&other.to_string()),
        };
        let (mut state, mut next_n, mut is_in_parts) = (State::default(), 0, false);
        store.each(&mut |event| {
            if event.n != next_n {
                return Err(corrupt(&format!("record {} where {next_n} belongs", event.n)));
            }
            next_n += 1;
            is_in_parts |=
                event.t == T::Fact && event.out.as_ref().and_then(Back::of).is_some_and(|back| back.to.is_some());
            // What stands of it is known only when all of it is.
            if is_in_parts { Ok(()) } else { state.take(event).map_err(told) }
        })?;
        if is_in_parts {
            state = State::fold(store.load()?).map_err(told)?;
        }
        Ok(Journal { run, store, fence: None, inner: Mutex::new(Inner { state, next_n, is_waiting: false }) })
    }

    /// From now on no write is permitted but inside of this fence.
    #[must_use]
    pub fn fenced(mut self, fence: Arc<dyn Fence>) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Another process may have the run: until the fence holds, what is recorded only waits.
    #[must_use]
    pub fn waiting_for_its_fence(self) -> Self {
        self.lock().is_waiting = self.store.is_shared();
        self
    }

    pub fn fence(&self) -> Option<&Arc<dyn Fence>> {
        self.fence.as_ref()
    }

    /// Makes sure that nobody else executes the run, and returns the fence's epoch: what was read in another one may be
    /// old.
    ///
    /// # Errors
    /// Why nothing may be sent. It ends the run, which can be resumed.
    pub async fn hold(&self) -> Result<u64, Problem> {
        let epoch = match &self.fence {
            Some(fence) => fence.hold().await.map_err(Problem::fatal)?,
            None => 0,
        };
        self.lock().is_waiting = false;
        Ok(epoch)
    }

    /// Whether another process went on with the run between the reading of this journal and the fence: then nothing of
    /// what was read counts.
    ///
    /// # Errors
    /// If it cannot be found out.
    pub fn is_behind(&self) -> Result<bool, Problem> {
        self.store.has_more()
    }

    /// The epoch without asking anybody.
    pub fn epoch(&self) -> u64 {
        self.fence.as_ref().map_or(0, |fence| fence.epoch())
    }

    /// What tells the place of this journal apart from any other, if only one process at a time can have it.
    pub fn lock_name(&self) -> Option<String> {
        self.store.lock_name()
    }

    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Every record so far, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn events(&self) -> Result<Vec<Event>, Problem> {
        self.store.load()
    }

    /// True if a process elsewhere can write to it.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// This process has come to its end: nothing waits any more to be written.
    ///
    /// # Errors
    /// If it cannot be written. What is lost then is found by reads when the run is resumed.
    pub fn close(&self) -> Result<(), Problem> {
        self.store.close()
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.lock().next_n
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if any write was ever permitted.
    pub fn has_written(&self) -> bool {
        self.lock().state.writes > 0
    }

    /// How many permits were given so far.
    pub fn writes(&self) -> u64 {
        self.lock().state.writes
    }

    /// True if some write was carried out, or may have been: from then on a stop is resumable.
    pub fn has_changed(&self) -> bool {
        self.lock().state.has_changed()
    }

    /// The facts so far, oldest first.
    pub fn facts(&self) -> Vec<Json> {
        self.lock().state.facts.clone()
    }

    /// Looks a step up.
    ///
    /// # Errors
    /// `Diverged` if another operation or other arguments stand at this id.
    pub fn replay(&self, id: &StepId, op: &str, sig: &str, at: &str) -> Result<Replay, Problem> {
        let inner = self.lock();
        let Some(step) = inner.state.steps.get(id) else {
            return Ok(Replay::Fresh);
        };
        if step.op != op || step.sig != sig {
            return Err(Problem::new(
                Kind::Diverged,
                format!(
                    "step {id}: the journal has `{}` ({}), the script now asks for `{op}` ({at})",
                    step.op, step.at
                ),
            )
            .quote(format!("arguments then {}, now {sig}", step.sig))
            .hint(if id.as_str().starts_with("rollback/") {
                "a rollback is finished by the version of pvmigrate that began it"
            } else {
                "a run continues with the script it began with: `pvmigrate resume` uses the stored copy"
            }));
        }
        match &step.phase {
            Phase::Started => Ok(Replay::Redo),
            Phase::Done { out, blob } => self.output(out, blob.as_deref()).map(Replay::Done),
            Phase::Failed(problem) if inner.state.was_caught(id) => Ok(Replay::Failed(problem.clone())),
            Phase::Failed(_) => Ok(Replay::Redo),
        }
    }

    /// The result of a step: large ones are kept beside the journal.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn output(&self, out: &Packed, blob: Option<&str>) -> Result<Json, Problem> {
        blob.map_or_else(|| Ok(out.json()), |hash| self.store.get_blob(hash))
    }

    /// The result of a branch that ended before, if it did.
    pub fn ended(&self, branch: &str) -> Option<Json> {
        self.lock().state.ended.get(branch).cloned()
    }

    /// True if something is recorded in `branch` at or after step `counter`: the script is being replayed there.
    pub fn is_past(&self, branch: &str, counter: u64) -> bool {
        self.lock().state.last.get(branch).is_some_and(|last| *last >= counter)
    }

    /// The write that stands at this id, if one does.
    pub fn recorded(&self, id: &StepId) -> Option<Step> {
        self.lock().state.steps.get(id).cloned()
    }

    /// The rollback that was begun and is not over.
    pub fn taking_back(&self) -> Option<Back> {
        self.lock().state.back.clone()
    }

    /// How many parts of the run were taken back.
    pub fn parts(&self) -> u32 {
        self.lock().state.parts
    }

    /// Names claims that a rollback made anew by the uids that they have now.
    pub fn bring_up_to_date(&self, values: &mut [Json]) {
        let inner = self.lock();
        if !inner.state.remade.is_empty() {
            values.iter_mut().for_each(|value| part::renamed(value, &inner.state.remade));
        }
    }

    /// The steps whose ids begin so.
    pub fn steps_in(&self, begins: &str) -> Vec<(StepId, Step)> {
        let inner = self.lock();
        let from = inner.state.steps.range(StepId::new(begins)..);
        from.take_while(|(id, _)| id.as_str().starts_with(begins))
            .map(|(id, step)| (id.clone(), step.clone()))
            .collect()
    }

    /// True if the deletion of this object was permitted, and not refused for certain.
    pub fn has_deleted(&self, object: &str) -> bool {
        let inner = self.lock();
        let mut deletions = inner.state.steps.values().filter(|step| !matches!(step.phase, Phase::Failed(_)));
        deletions
            .any(|step| step.write.as_ref().is_some_and(|w| w.verb == Verb::Delete && w.object().to_string() == object))
    }

    /// True if a write on this object was ever permitted.
    pub fn has_touched(&self, object: &str) -> bool {
        self.lock().state.touched.contains(object)
    }

    /// Records the beginning of a step that is more than one write, or none.
    pub fn begin(&self, id: &StepId, op: &str, sig: &str, at: &str) -> Result<(), Problem> {
        self.append(Event { sig: sig.into(), at: at.into(), ..Event::new(T::Start, id, op) }, false)
    }

    /// Records a write durably and permits one sending of it, if the run is ours.
    ///
    /// # Errors
    /// If the fence does not hold, or the record cannot be made durable: then nothing may be sent.
    pub async fn permit(&self, id: &StepId, op: &str, write: &Write) -> Result<Permit, Problem> {
        self.hold().await?;
        let event = Event { sig: write.digest(), write: Some(write.clone()), ..Event::new(T::Start, id, op) };
        self.append(event, true)?;
        Ok(Permit { run: self.run.clone(), step: id.clone(), digest: write.digest() })
    }

    /// Records how a step ended. Not synced by itself: the next permit is, and a lost `done` is found by a read.
    pub fn done(&self, id: &StepId, op: &str, out: Json) -> Result<(), Problem> {
        let mut event = Event::new(T::Done, id, op);
        self.put_out(&mut event, out)?;
        self.append(event, false)
    }

    /// Records a read that steers the script, whole, in one record.
    pub fn observe(&self, id: &StepId, op: &str, sig: &str, at: &str, out: Json) -> Result<(), Problem> {
        let mut event = Event { sig: sig.into(), at: at.into(), ..Event::new(T::Done, id, op) };
        self.put_out(&mut event, out)?;
        self.append(event, false)
    }

    /// Records that a step failed. With `observe`-like steps (no start) the operation and arguments are kept too.
    pub fn fail(&self, id: &StepId, op: &str, sig: &str, at: &str, problem: &Problem) -> Result<(), Problem> {
        let err = Some(problem.clone());
        self.append(Event { sig: sig.into(), at: at.into(), err, ..Event::new(T::Fail, id, op) }, false)
    }

    /// Closes a branch with its result: it is not entered again.
    pub fn end(&self, branch: &str, out: Json) -> Result<(), Problem> {
        let mut event = Event::new(T::End, &StepId::new(branch), "end");
        event.out = Some(out);
        self.append(event, true)
    }

    /// Records that a branch came to nothing and left everything as it was found: it is begun anew, under other ids.
    pub fn give_up(&self, branch: &str, problem: &Problem) -> Result<(), Problem> {
        let err = Some(problem.clone());
        self.append(Event { err, ..Event::new(T::End, &StepId::new(branch), "end") }, true)
    }

    /// How often the branch was given up.
    pub fn given_up(&self, branch: &str) -> u32 {
        self.lock().state.given_up.get(branch).copied().unwrap_or(0)
    }

    /// Records a sign of life of a step in flight, or what it must not forget; the last one counts.
    pub fn beat(&self, id: &StepId, op: &str, out: Json) -> Result<(), Problem> {
        let mut event = Event::new(T::Beat, id, op);
        event.out = Some(out);
        self.append(event, false)
    }

    /// Records that a write was taken back.
    pub fn undone(&self, id: &StepId) -> Result<(), Problem> {
        self.append(Event::new(T::Undone, id, "undone"), false)
    }

    /// Adds a fact to what later guards rely on.
    pub fn fact(&self, id: &StepId, fact: Json) -> Result<(), Problem> {
        let mut event = Event::new(T::Fact, id, "fact");
        event.out = Some(fact);
        self.append(event, false)
    }

    fn put_out(&self, event: &mut Event, out: Json) -> Result<(), Problem> {
        let text = out.to_string();
        if text.len() > BLOB_BYTES {
            event.blob = Some(self.store.put_blob(&text)?);
        } else {
            event.out = Some(out);
        }
        Ok(())
    }

    fn append(&self, mut event: Event, durable: bool) -> Result<(), Problem> {
        let mut inner = self.lock();
        event.n = inner.next_n;
        event.time = Clock.stamp();
        // The fold is asked first: a record that could not be read back is never written.
        inner.state.next(&event).map_err(|illegal| Problem::bug(illegal.to_string()))?;
        self.store.append(&event, durable && !inner.is_waiting)?;
        inner.next_n += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding the lock cannot leave half a record: the fold is total and the append is one write.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn corrupt(why: &str) -> Problem {
    Problem::new(Kind::Diverged, format!("the journal is damaged: {why}")).hint(store::KEEP)
}

#[cfg(test)]
mod tests;
