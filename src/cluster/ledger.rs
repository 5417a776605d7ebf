//! What the guards know of this run: who holds what, what was verified, what was stopped. Written by Rust only, kept in
//! the journal as facts, so that it is the same after a crash.

use crate::journal::{Back, Journal, StepId};
use crate::words::{Json, ObjectRef, Problem, PvcRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// Something that was true and was seen to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The volume's policy is Retain by our doing; `was` is the policy from before.
    Retained { pv: String, uid: String, was: String },
    /// A temporary claim of ours exists for the original `like`.
    Temporary { claim: PvcRef, uid: String, like: PvcRef, like_uid: String },
    /// A pod that used the claim ran on this node.
    Used { claim: PvcRef, node: String },
    /// The workload has no pods by our doing.
    Stopped {
        workload: ObjectRef,
        uid: String,
        replicas: i64,
        at_ms: i64,
        claims: Vec<PvcRef>,
        /// Of the object when it had been set to 0.
        #[serde(default)]
        generation: i64,
    },
    /// It was started again and became Ready.
    Started { workload: ObjectRef, ready_ms: i64 },
    /// Both sides were compared after the last pass, with no writer since before that pass.
    Verified {
        claim: PvcRef,
        source: String,
        source_uid: String,
        target: String,
        target_uid: String,
        digest: String,
        mode: String,
        at: String,
        /// What the person did without, and how many entries of the target differ in it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        waived: BTreeMap<String, u64>,
    },
    /// What the verification of a source volume has proven, for people: see `proof`.
    Signed { source: String, report: Json, digest: String },
    /// A verification is no longer worth anything.
    Voided { source: String, why: String },
    /// The original name now stands on the target.
    Swapped { claim: PvcRef, was_uid: String, uid: String, source: String, target: String },
    /// A claim is about to be made anew on its own volume, which is called after another class, of which `was` is the one from
    /// before, or is handed over `from` a claim of another name.
    Relabels {
        claim: PvcRef,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<PvcRef>,
        uid: String,
        pv: String,
        was: String,
    },
    /// The volume was given up.
    Freed { pv: String },
    /// A claim that was gone was made anew as it was.
    Remade { was_uid: String, uid: String },
    /// A rollback begins, of the whole run or of a part.
    TakingBack(Back),
    /// The person overrode, for one rollback, what somebody else had made of an object.
    Forced { object: String, overridden: Vec<String> },
}

/// The sum of the facts.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// By volume: uid and the policy from before.
    pub retained: BTreeMap<String, (String, String)>,
    /// By temporary claim: its uid, the original and its uid.
    pub temporary: BTreeMap<PvcRef, (String, PvcRef, String)>,
    pub nodes: BTreeMap<PvcRef, BTreeSet<String>>,
    pub stopped: BTreeMap<ObjectRef, Stopped>,
    pub started: BTreeMap<ObjectRef, i64>,
    /// By source volume.
    pub verified: BTreeMap<String, Verified>,
    /// By source volume.
    pub swapped: BTreeMap<String, Swapped>,
    pub freed: BTreeSet<String>,
    /// By source volume: the last report. No guard goes by it.
    pub signed: BTreeMap<String, Json>,
    /// By volume.
    pub relabels: BTreeMap<String, Relabels>,
    /// Claims that this run made anew under their names: the uid of before, and the one since.
    pub remade: BTreeMap<String, String>,
}

/// A workload without pods by our doing.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    pub uid: String,
    /// From before the first stop of this outage.
    pub replicas: i64,
    pub at_ms: i64,
    /// The claims of this run that it uses.
    pub claims: Vec<PvcRef>,
    /// Of the last stop of this outage.
    pub generation: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    pub claim: PvcRef,
    pub source_uid: String,
    pub target: String,
    pub target_uid: String,
    pub digest: String,
    pub mode: String,
    pub at: String,
    pub waived: BTreeMap<String, u64>,
}

/// A volume that stays, and whose claim is made anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Relabels {
    pub claim: PvcRef,
    /// The one that goes.
    pub from: PvcRef,
    /// Of the claim that goes.
    pub uid: String,
    /// The class from before the first time.
    pub was: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Swapped {
    pub claim: PvcRef,
    pub uid: String,
    pub target: String,
}

impl Books {
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Retained { pv, uid, was } => {
                // The first sight counts: after it the policy is Retain by our own doing.
                self.retained.entry(pv).or_insert((uid, was));
            }
            Fact::Temporary { claim, uid, like, like_uid } => {
                self.temporary.insert(claim, (uid, like, like_uid));
            }
            Fact::Used { claim, node } => {
                self.nodes.entry(claim).or_default().insert(node);
            }
            Fact::Stopped { workload, uid, replicas, at_ms, claims, generation } => {
                self.started.remove(&workload);
                // A second stop of the same outage must not forget what there was before the first.
                let stopped = Stopped { uid, replicas, at_ms, claims, generation };
                self.stopped.entry(workload).or_insert(stopped).generation = generation;
            }
            Fact::Started { workload, ready_ms } => {
                self.stopped.remove(&workload);
                self.started.insert(workload, ready_ms);
            }
            Fact::Verified { claim, source, source_uid, target, target_uid, digest, mode, at, waived } => {
                let fact = Verified { claim, source_uid, target, target_uid, digest, mode, at, waived };
                self.verified.insert(source, fact);
            }
            Fact::Signed { source, report, .. } => {
                self.signed.insert(source, report);
            }
            Fact::Voided { source, .. } => {
                self.verified.remove(&source);
            }
            Fact::Swapped { claim, was_uid, uid, source, target } => {
                if !was_uid.is_empty() {
                    self.remade.insert(was_uid, uid.clone());
                }
                // The way back: what had been replaced has its name again.
                if self.swapped.get(&target).is_some_and(|before| before.target == source) {
                    self.swapped.remove(&target);
                    self.verified.remove(&target);
                }
                self.swapped.insert(source, Swapped { claim, uid, target });
            }
            Fact::Relabels { claim, from, uid, pv, was } => {
                let was = self.relabels.get(&pv).map_or(was, |before| before.was.clone());
                let from = from.unwrap_or_else(|| claim.clone());
                self.relabels.insert(pv, Relabels { claim, from, uid, was });
            }
            Fact::Freed { pv } => {
                self.freed.insert(pv);
            }
            Fact::Remade { was_uid, uid } => {
                self.remade.insert(was_uid, uid);
            }
            // Told and kept; no guard goes by them.
            Fact::TakingBack(_) | Fact::Forced { .. } => {}
        }
    }

    /// True if the object of the first uid is the one of the second: itself, or the claim that this run made in its place.
    pub fn is_same(&self, meant: &str, now: &str) -> bool {
        let mut uid = meant;
        // A claim is made anew once more each time: no uid comes back.
        for _ in 0..=self.remade.len() {
            if uid == now {
                return true;
            }
            let Some(next) = self.remade.get(uid) else { return false };
            uid = next;
        }
        false
    }

    /// Where the bytes of a replaced volume are in the end: the same claim may have been moved on, each time compared.
    pub fn last_of<'a>(&'a self, swapped: &'a Swapped) -> &'a Swapped {
        let mut last = swapped;
        for _ in 0..self.swapped.len() {
            let compared = self.verified.get(&last.target).is_some_and(|v| v.mode != super::guard::DISCARDED);
            match self.swapped.get(&last.target).filter(|next| compared && next.claim == last.claim) {
                Some(next) => last = next,
                None => break,
            }
        }
        last
    }

    /// True if the volume is the target of a pair that was verified.
    pub fn verified_target(&self, target: &str) -> Option<(&String, &Verified)> {
        self.verified.iter().find(|(_, verified)| verified.target == target)
    }

    pub fn swap_onto(&self, target: &str) -> Option<(&String, &Swapped)> {
        self.swapped.iter().find(|(_, swapped)| swapped.target == target)
    }
}

/// The books of a run, shared by its branches.
#[derive(Debug, Default)]
pub struct Ledger {
    books: RwLock<Arc<Books>>,
}

impl Ledger {
    /// Reads the facts of a journal.
    ///
    /// # Errors
    /// If a fact is of a kind that this version does not know: guessing could lose data.
    pub fn from_facts(facts: &[Json]) -> Result<Self, Problem> {
        let mut books = Books::default();
        for fact in facts {
            books.take(serde_json::from_value(fact.clone()).map_err(|e| {
                Problem::new(crate::words::Kind::Diverged, "the journal holds a fact that this version does not know")
                    .because(&e)
            })?);
        }
        Ok(Ledger { books: RwLock::new(Arc::new(books)) })
    }

    /// Journals a fact, then takes it in.
    ///
    /// # Errors
    /// If it cannot be journaled: then it is not known.
    pub fn record(&self, journal: &Journal, step: &StepId, fact: Fact) -> Result<(), Problem> {
        let json = serde_json::to_value(&fact).expect("facts are plain data");
        journal.fact(step, json)?;
        Arc::make_mut(&mut self.books.write().unwrap_or_else(PoisonError::into_inner)).take(fact);
        Ok(())
    }

    /// The books as they are now.
    pub fn books(&self) -> Arc<Books> {
        self.books.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
