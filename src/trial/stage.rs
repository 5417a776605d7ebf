//! One lab, and runs in it: in this process, so that the instant of death is exact.
//!
//! Not a way to migrate anything: the journal and the cluster of a run go through a [`Doom`]. Used by `pvmigrate test`
//! and by our own crash tests. What must stay true: everything of it is below one directory of the caller's.

use super::doom::{Doom, Dying, Faulty};
use crate::cluster::{self, Cluster, Door, Ledger, Vigils};
use crate::journal::{FileStore, Journal, Store};
use crate::lab::kubelet::Images;
use crate::lab::scenario::Scenario;
use crate::lab::store::{State, text};
use crate::lab::transport::Transport;
use crate::lab::{Lab, Options};
use crate::script::session::Session;
use crate::script::{Script, undo};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, RunId, Voice};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The engine's thread needs room for the call levels that scripts may use.
const STACK_BYTES: usize = 64 << 20;
/// How long a lab that was just filled may take until everything in it runs.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// How long a journal may still be held by a process that the lab was starting when it was closed.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

/// A lab with the journal of one run at a time.
pub struct Stage {
    pub lab: Lab,
    /// Stands between the runs and their outsides.
    pub between: Option<Arc<dyn Between>>,
    state: PathBuf,
}

/// Changes what passes between a run and its outsides, so that tests can be tested.
pub trait Between: Send + Sync {
    /// The journal's place as the run sees it.
    fn place(&self, store: Dying) -> Box<dyn Store>;
    /// The cluster as the run sees it; `cancel` ends the run.
    fn cluster(&self, way: Faulty<Transport>, cancel: &CancellationToken) -> Cluster;
}

/// What a run of the stage is to do.
pub struct Play {
    pub script: Script,
    /// Ends the script: the one that it was compiled with.
    pub cancel: CancellationToken,
    pub args: Json,
    /// `root`, or [`undo::BRANCH`].
    pub branch: &'static str,
    /// The journal holds what was done before.
    pub resumed: bool,
    pub voice: Arc<dyn Voice>,
}

impl Stage {
    /// Makes the cluster in a directory, which must be empty or absent, and waits until all of it runs.
    ///
    /// # Errors
    /// If the directory cannot be used, or the lab does not take the scenario.
    pub fn open(dir: &Path, images: Images, scenario: &Scenario, seed: u64) -> Result<Stage, Problem> {
        let state = dir.join("state");
        std::fs::create_dir_all(&state)
            .map_err(|e| Problem::local(format!("{} cannot be made", state.display()), &e))?;
        let options = Options { dir: dir.join("lab"), images, shared: Vec::new(), seed, keep: false };
        let lab = Lab::open(options)
            .map_err(|e| Problem::new(Kind::Local, "the lab's directory cannot be used").because(&e))?;
        scenario.apply(&lab).map_err(|e| Problem::usage("the scenario cannot be applied").because(&e))?;
        lab.settle(OPENS_WITHIN);
        if lab.wait(OPENS_WITHIN, |state| all_run(state).is_none().then_some(())).is_none() {
            let late = lab.core().look(all_run).unwrap_or_default();
            return Err(Problem::usage(format!("the scenario does not come to run: {late}")));
        }
        Ok(Stage { lab, between: None, state })
    }

    /// Runs a script until its end or its death.
    ///
    /// # Errors
    /// What ended it before its end.
    pub fn play(&self, run: &RunId, doom: &Arc<Doom>, play: Play) -> Result<Json, Problem> {
        let Play { mut script, cancel, args, branch, resumed, voice } = play;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Problem::local("no threads can be started", &e))?;
        let dir = self.dir_of(run)?;
        let store = Dying { inner: open(&dir)?, file: dir.join("journal.jsonl"), doom: doom.clone() };
        let store: Box<dyn Store> = match &self.between {
            Some(between) => between.place(store),
            None => Box::new(store),
        };
        let journal = Arc::new(Journal::open(run.clone(), store)?);
        let ledger = Arc::new(Ledger::from_facts(&journal.facts())?);
        let way = Faulty { inner: self.lab.transport(), doom: doom.clone() };
        let cluster = runtime.block_on(async {
            match &self.between {
                Some(between) => between.cluster(way, &cancel),
                None => cluster::over(way, "lab"),
            }
        });
        let door = Door { cluster, journal: journal.clone(), ledger, vigils: Arc::new(Vigils::default()), cancel };
        let session = Arc::new(Session { door, runtime: runtime.handle().clone(), voice, args, yes: true, resumed });
        let ended = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, || script.run(&session, branch)) {
                Ok(handle) => handle.join().unwrap_or_else(|_| Err(Problem::bug("the script's thread panicked"))),
                Err(e) => Err(Problem::local("no thread can be started", &e)),
            }
        });
        let ended = ended.and_then(|value| journal.end(branch, value.clone()).map(|()| value));
        drop((session, journal, script));
        runtime.shutdown_timeout(Duration::from_secs(5));
        ended
    }

    /// Takes back what the journal of a run has, until the end or the death. `how` is what becomes of what was written
    /// since: `compare`, `reverse` or `discard`.
    ///
    /// # Errors
    /// Why it cannot be taken back, or what ended that before its end.
    pub fn take_back(&self, run: &RunId, doom: &Arc<Doom>, how: &str, voice: Arc<dyn Voice>) -> Result<(), Problem> {
        let events = open(&self.dir_of(run)?)?.load()?;
        let (state, books) = undo::before_rollback(&events)?;
        let plan = undo::plan(&state, &books, how);
        if let Some(obstacle) = plan.obstacles.first() {
            return Err(obstacle.clone());
        }
        let cancel = CancellationToken::new();
        let script = Script::typed(undo::SCRIPT, &cancel)
            .map_err(|problems| problems.into_iter().next().unwrap_or_else(|| Problem::bug("the way back is wrong")))?;
        let args = undo::args(&plan, &json!({"how": how, "image": null, "pod_patch": null, "run_as": null}), 4);
        self.play(run, doom, Play { script, cancel, args, branch: undo::BRANCH, resumed: true, voice }).map(|_| ())
    }

    fn dir_of(&self, run: &RunId) -> Result<PathBuf, Problem> {
        let dir = self.state.join(run.as_str());
        std::fs::create_dir_all(&dir).map_err(|e| Problem::local(format!("{} cannot be made", dir.display()), &e))?;
        Ok(dir)
    }
}

/// A lock is let go when the last process has closed the file, and the lab may be starting one just now.
fn open(dir: &Path) -> Result<FileStore, Problem> {
    let deadline = Clock.deadline(LET_GO_WITHIN);
    loop {
        match FileStore::open(dir) {
            Err(problem) if problem.kind == Kind::Conflict && !deadline.passed() => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// The first workload or pod that does not run yet.
fn all_run(state: &State) -> Option<String> {
    for kind in ["Deployment", "StatefulSet"] {
        for (key, one) in state.list(kind, "") {
            let wanted = one["spec"]["replicas"].as_i64().unwrap_or(1);
            if one["status"]["readyReplicas"].as_i64().unwrap_or(0) != wanted {
                return Some(format!("{key} has not {wanted} ready pods"));
            }
        }
    }
    let is_late = |pod: &serde_json::Value| text(&pod["status"]["phase"]) == "Pending";
    state.list("Pod", "").find(|(_, pod)| is_late(pod)).map(|(key, _)| format!("{key} is pending"))
}
