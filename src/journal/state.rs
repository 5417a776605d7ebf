//! What a journal means: the fold of its records, one total match.

use super::part::{self, Back};
use super::{Event, RunStatus, StepId, T, VERSION, Verb, Write};
use crate::words::{Json, Problem};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use thiserror::Error;

/// A record that cannot follow the ones before it.
#[derive(Debug, Error, PartialEq)]
pub enum Illegal {
    #[error("record {n}: version {v} is not {VERSION}: this journal belongs to another version of pvmigrate")]
    Version { n: u64, v: u32 },
    #[error("record {n}: `{t:?}` of step {id} cannot follow {phase}")]
    Order { n: u64, t: T, id: StepId, phase: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    Started,
    Done { out: Packed, blob: Option<String> },
    Failed(Problem),
}

/// A result as it is kept in memory: its text takes a tenth of the room of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Box<str>);

impl Packed {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.0).expect("it was made of a value")
    }
}

impl From<Json> for Packed {
    fn from(value: Json) -> Self {
        Packed(value.to_string().into())
    }
}

/// One step as the journal knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub op: String,
    pub sig: String,
    pub at: String,
    pub phase: Phase,
    /// The write of the last permit.
    pub write: Option<Write>,
    /// How many permits there were.
    pub sent: u32,
    pub beat: Option<Json>,
    pub undone: bool,
    /// The uid of what a creation made: kept when the branch closes.
    pub made: Option<String>,
    /// The number of the first record.
    pub first: u64,
    pub started: String,
    pub ended: String,
}

#[derive(Debug, Default)]
pub struct State {
    pub steps: BTreeMap<StepId, Step>,
    /// Branches that closed, with their results. Those inside of a closed one are no longer here: nobody enters them.
    pub ended: BTreeMap<String, Json>,
    /// How often a branch was given up with everything as it was found.
    pub given_up: HashMap<String, u32>,
    /// The highest counter seen in each branch.
    pub last: HashMap<String, u64>,
    pub facts: Vec<Json>,
    /// The objects that writes were permitted on.
    pub touched: BTreeSet<String>,
    /// How many permits were given in all.
    pub writes: u64,
    /// A rollback that was begun and is not over.
    pub back: Option<Back>,
    /// How many parts of the run were taken back.
    pub parts: u32,
    /// Claims that were made anew on the way back: the uid of before, and the one since.
    pub remade: BTreeMap<String, String>,
    /// How many steps were looked at to forget what they returned: more than a few for each would be too many.
    #[cfg(test)]
    pub looked: usize,
}

impl State {
    /// Takes in a whole journal, without what was taken back of it.
    ///
    /// # Errors
    /// As [`State::next`].
    pub fn fold(events: Vec<Event>) -> Result<State, Illegal> {
        let part::Standing { events, parts, remade, touched } = part::standing(events);
        let mut state = State { parts, remade, touched, ..State::default() };
        events.into_iter().try_for_each(|event| state.take(event))?;
        Ok(state)
    }

    /// Takes in one record.
    ///
    /// # Errors
    /// If it cannot follow what was there: the state is then unchanged.
    pub fn next(&mut self, event: &Event) -> Result<(), Illegal> {
        self.take(event.clone())
    }

    /// The same with a record that nobody else needs: what it holds is moved.
    ///
    /// # Errors
    /// As [`State::next`].
    pub fn take(&mut self, mut event: Event) -> Result<(), Illegal> {
        if event.v != VERSION {
            return Err(Illegal::Version { n: event.n, v: event.v });
        }
        let before = self.steps.get(&event.id).map(|step| &step.phase);
        let order = |event: &Event, phase: &str| {
            Err(Illegal::Order { n: event.n, t: event.t, id: event.id.clone(), phase: phase.to_owned() })
        };
        match (event.t, before) {
            (T::Fact, _) => {
                let fact = event.out.unwrap_or_default();
                self.back = Back::of(&fact).or(self.back.take());
                self.facts.push(fact);
            }
            (T::End, _) if event.err.is_some() => {
                *self.given_up.entry(event.id.to_string()).or_default() += 1;
            }
            (T::End, _) => {
                self.back.take_if(|back| back.branch == event.id.as_str());
                self.forget_results_in(event.id.as_str());
                self.ended.insert(event.id.to_string(), event.out.unwrap_or_default());
            }
            // A second start is a new permit, or the redoing of a step that a crash or a failure left.
            (T::Start, None | Some(Phase::Started | Phase::Failed(_))) => self.start(event),
            (T::Start, Some(Phase::Done { .. })) => return order(&event, "its end"),
            // Reads that steer have no start of their own.
            (T::Done, None | Some(Phase::Started | Phase::Failed(_))) => {
                let (out, blob) = (event.out.take().unwrap_or_default(), event.blob.take());
                let made = out.pointer("/metadata/uid").and_then(Json::as_str).map(str::to_owned);
                let step = self.finish(&event, Phase::Done { out: out.into(), blob });
                if step.write.as_ref().is_some_and(|write| write.verb == Verb::Create) {
                    step.made = made;
                }
            }
            (T::Done, Some(Phase::Done { .. })) => return order(&event, "its end"),
            (T::Fail, None | Some(Phase::Started | Phase::Failed(_))) => {
                let problem = event.err.take().unwrap_or_else(|| Problem::bug("a failure without a reason"));
                self.finish(&event, Phase::Failed(problem));
            }
            (T::Fail, Some(Phase::Done { .. })) => return order(&event, "its end"),
            (T::Beat, Some(Phase::Started)) => {
                if let Some(step) = self.steps.get_mut(&event.id) {
                    step.beat = event.out;
                }
            }
            (T::Beat, _) => return order(&event, "anything but its start"),
            (T::Undone, Some(_)) => {
                if let Some(step) = self.steps.get_mut(&event.id) {
                    step.undone = true;
                }
            }
            (T::Undone, None) => return order(&event, "nothing"),
        }
        Ok(())
    }

    /// How the run stands, if nobody executes it.
    pub fn status(&self) -> RunStatus {
        if self.ended.contains_key("rollback") {
            RunStatus::RolledBack
        } else if self.last.contains_key("rollback") || self.back.is_some() {
            RunStatus::Stopped
        } else if self.ended.contains_key("root") {
            RunStatus::Done
        } else if !self.has_changed() && self.parts == 0 {
            RunStatus::Refused
        } else {
            RunStatus::Stopped
        }
    }

    /// True of the steps of a branch and of those in branches inside of it.
    pub fn is_inside(branch: &str, id: &str) -> bool {
        id.strip_prefix(branch).and_then(|rest| rest.strip_prefix('/')).is_some_and(begins_with_a_step)
    }

    /// True unless every write so far was certainly refused.
    pub fn has_changed(&self) -> bool {
        self.steps.values().any(|step| step.write.is_some() && !matches!(step.phase, Phase::Failed(_)))
    }

    /// True if a later step of the same branch exists: the script went on after this one failed.
    pub fn was_caught(&self, id: &StepId) -> bool {
        id.split().is_some_and(|(branch, counter)| self.last.get(branch).is_some_and(|last| *last > counter))
    }

    /// What was read and answered in a branch that closes is not asked for again: it stays in the journal's place only.
    fn forget_results_in(&mut self, branch: &str) {
        let inside = format!("{branch}/");
        #[cfg(test)]
        {
            let inside = |id: &StepId| id.as_str().starts_with(&inside);
            self.looked +=
                self.steps.range(StepId::new(format!("{branch}/"))..).take_while(|(id, _)| inside(id)).count();
        }
        for (id, step) in self.steps.range_mut(StepId::new(inside.clone())..) {
            if !id.as_str().starts_with(&inside) {
                break;
            }
            if Self::is_inside(branch, id.as_str())
                && let Phase::Done { out, .. } = &mut step.phase
            {
                *out = Json::Null.into();
            }
        }
        let nested = self.ended.range(inside.clone()..).map(|(id, _)| id).take_while(|id| id.starts_with(&inside));
        // The branch `a/7` of an item called so is not inside of `a`, whose branches have a `~` after the number.
        let is_branch = |id: &str| id[inside.len()..].trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('~');
        for id in nested.filter(|id| is_branch(id)).cloned().collect::<Vec<_>>() {
            self.ended.remove(&id);
        }
    }

    fn start(&mut self, mut event: Event) {
        let write = event.write.take();
        if let Some(write) = &write {
            self.touched.insert(write.object().to_string());
            self.writes += 1;
        }
        let step = self.entry(&event);
        step.phase = Phase::Started;
        if write.is_some() {
            step.write = write;
            step.sig = event.sig;
            step.sent += 1;
        }
    }

    fn finish(&mut self, event: &Event, phase: Phase) -> &mut Step {
        let step = self.entry(event);
        step.phase = phase;
        step.ended.clone_from(&event.time);
        step
    }

    fn entry(&mut self, event: &Event) -> &mut Step {
        if let Some((branch, counter)) = event.id.split() {
            let last = self.last.entry(branch.to_owned()).or_default();
            *last = counter.max(*last);
        }
        self.steps.entry(event.id.clone()).or_insert_with(|| Step {
            op: event.op.clone(),
            sig: event.sig.clone(),
            at: event.at.clone(),
            phase: Phase::Started,
            write: None,
            sent: 0,
            beat: None,
            undone: false,
            made: None,
            first: event.n,
            started: event.time.clone(),
            ended: String::new(),
        })
    }
}

/// True of `7`, `7.retain`, `7~key…`; not of `7/8` and `7.x/8`, which are steps of items whose names look like a step.
pub(super) fn begins_with_a_step(rest: &str) -> bool {
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_step = (after.is_empty() || after.starts_with('.')) && !after.contains('/');
    after.len() < rest.len() && (is_step || after.starts_with('~'))
}
