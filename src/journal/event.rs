//! What is written: one JSON object a line. The format is version 1 and frozen; fields are added, never changed.

use super::Write;
use crate::words::{Json, Problem};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The journal format that this program writes and reads.
pub const VERSION: u32 = 1;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum T {
    /// A step begins; with `write` it is about to be sent.
    Start,
    /// It ended; `out` or `blob` is its result.
    Done,
    /// It ended with `err`.
    Fail,
    /// A sign of life of long work; the last one counts.
    Beat,
    /// A branch closed with `out`.
    End,
    /// Something that guards rely on, in `out`.
    Fact,
    /// The step's inverse writes were applied.
    Undone,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub v: u32,
    /// The record's number, counted from 0 without gaps.
    pub n: u64,
    pub t: T,
    pub id: StepId,
    /// The operation, a primitive's name or a label within one.
    pub op: String,
    /// The version of the operation's meaning.
    #[serde(default = "one")]
    pub opv: u32,
    /// A digest of the arguments; of the write if there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sig: String,
    /// Where in which script.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// When, for people.
    #[serde(default)]
    pub time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Write>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<Problem>,
}

fn one() -> u32 {
    1
}

impl Event {
    pub(crate) fn new(t: T, id: &StepId, op: &str) -> Self {
        Event {
            v: VERSION,
            n: 0,
            t,
            id: id.clone(),
            op: op.to_owned(),
            opv: 1,
            sig: String::new(),
            at: String::new(),
            time: String::new(),
            write: None,
            pre: None,
            out: None,
            blob: None,
            err: None,
        }
    }
}

/// `root/3~PersistentVolumeClaim:shop/data/7`: the branch's path and the counter in it. The writes of a compound step
/// have a label after a dot: `root/7.reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(String);

impl StepId {
    pub fn new(text: impl Into<String>) -> Self {
        StepId(text.into())
    }

    pub fn in_branch(branch: &str, counter: u64) -> Self {
        StepId(format!("{branch}/{counter}"))
    }

    /// The id of one write of this step.
    #[must_use]
    pub fn part(&self, label: &str) -> Self {
        StepId(format!("{}.{label}", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch and the counter; `None` for ids of branches. Labels are ignored.
    pub fn split(&self) -> Option<(&str, u64)> {
        let (branch, last) = self.0.rsplit_once('/')?;
        let counter = last.split_once('.').map_or(last, |(counter, _)| counter);
        counter.parse().ok().map(|counter| (branch, counter))
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
