//! What a running script may reach, and where in the run it is.

use crate::cluster::Door;
use crate::journal::StepId;
use crate::words::{Json, Problem, Voice};
use rhai::{Dynamic, NativeCallContext};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;

/// One execution of a script.
pub struct Session {
    pub door: Door,
    pub runtime: Handle,
    pub voice: Arc<dyn Voice>,
    /// The script's own options.
    pub args: Json,
    /// Questions are answered with yes.
    pub yes: bool,
    /// The run goes on after a break.
    pub resumed: bool,
}

/// A strand of execution with step numbers of its own.
pub struct Branch {
    pub session: Option<Arc<Session>>,
    pub path: String,
    counter: AtomicU64,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every primitive is a step.
    Steps,
    /// Inside `wait_until`: reads are live and unnumbered, writes refused.
    Looking,
    /// While a module is imported: nothing reaches the cluster.
    Importing,
}

impl Branch {
    /// The first branch of an execution: `root`, or another name for what is done after a run.
    pub fn root(session: Arc<Session>, path: &str) -> Arc<Self> {
        Arc::new(Branch { session: Some(session), path: path.into(), counter: AtomicU64::new(0), mode: Mode::Steps })
    }

    /// The same branch for another session: its numbers go on where they are. The REPL gives every line one.
    pub fn continued(&self, session: Arc<Session>) -> Arc<Self> {
        let counter = AtomicU64::new(self.counter.load(Ordering::SeqCst));
        Arc::new(Branch { session: Some(session), path: self.path.clone(), counter, mode: self.mode })
    }

    pub fn nowhere() -> Arc<Self> {
        Arc::new(Branch { session: None, path: String::new(), counter: AtomicU64::new(0), mode: Mode::Importing })
    }

    /// A branch of this one; `path` says under which step and key.
    pub fn child(&self, path: String, mode: Mode) -> Arc<Self> {
        Arc::new(Branch { session: self.session.clone(), path, counter: AtomicU64::new(0), mode })
    }

    /// The branch that a native function was called in.
    pub fn of(ctx: &NativeCallContext) -> Arc<Self> {
        ctx.tag().and_then(|tag| tag.clone().try_cast::<Arc<Branch>>()).unwrap_or_else(Branch::nowhere)
    }

    pub fn tag(self: &Arc<Self>) -> Dynamic {
        Dynamic::from(self.clone())
    }

    /// # Errors
    /// While a module is being imported.
    pub fn session(&self) -> Result<&Arc<Session>, Problem> {
        self.session.as_ref().ok_or_else(|| {
            Problem::usage("the cluster cannot be reached from the top level of an imported module")
                .hint("put the call into a function of the module")
        })
    }

    /// Takes the next step number.
    pub fn next(&self) -> (u64, StepId) {
        let number = self.counter.fetch_add(1, Ordering::SeqCst) + 1;
        (number, StepId::in_branch(&self.path, number))
    }

    /// True while everything that is about to happen here happened before: the script should be quiet.
    pub fn is_replaying(&self) -> bool {
        let next = self.counter.load(Ordering::SeqCst) + 1;
        self.session.as_ref().is_some_and(|session| session.door.journal.is_past(&self.path, next))
    }
}
