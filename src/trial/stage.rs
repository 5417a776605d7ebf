//! One lab, and runs in it: in this process, so that the instant of death is exact.
//!
//! Not a way to migrate anything: the journal and the cluster of a run go through a [`Doom`]. Used by `pvmigrate test`
//! and by our own crash tests. What must stay true: everything of it is below one directory of the caller's.

use super::doom::{Doom, Dying, Faulty};
use crate::cluster::store::{ClusterStore, Shelf, runs};
use crate::cluster::{self, Cluster, Door, Fact, Ledger, Vigils, wait};
use crate::journal::{Back, Event, FileStore, Journal, RunFile, StepId, Store};
use crate::lab::faults::Faults;
use crate::lab::kubelet::Images;
use crate::lab::scenario::Scenario;
use crate::lab::store::{State, text};
use crate::lab::transport::Transport;
use crate::lab::{Lab, Options};
use crate::script::session::Session;
use crate::script::{Script, undo};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, Progress, RunId, Voice};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The namespace of journals in the lab.
const RECORDS_IN: &str = "default";
/// The engine's thread needs room for the call levels that scripts may use.
const STACK_BYTES: usize = 64 << 20;
/// No run in a small cluster takes longer; one that does waits for something that never comes.
pub const RUN_WITHIN: Duration = Duration::from_secs(300);
/// What is on its way moves at least once in this time.
const QUIET: Duration = Duration::from_secs(6);
/// How long a lab that was just filled may take until everything in it runs.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// How long a journal may still be held by a process that the lab was starting when it was closed.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);

/// A lab with the journals of the runs on it. Its directory goes when it is dropped.
pub struct Stage {
    pub lab: Lab,
    /// Stands between the runs and their outsides.
    pub between: Option<Arc<dyn Between>>,
    /// The journal is kept in the lab, not in a directory.
    pub in_cluster: bool,
    dir: PathBuf,
    state: PathBuf,
}

/// Changes what passes between a run and its outsides, so that tests can be tested.
pub trait Between: Send + Sync {
    /// The journal's place as the run sees it.
    fn place(&self, store: Dying) -> Box<dyn Store>;
    /// The cluster as the run sees it; `cancel` ends the run.
    fn cluster(&self, way: Faulty<Transport>, cancel: &CancellationToken) -> Cluster;
}

/// How a run is taken back.
pub struct TakeBack {
    /// What becomes of what was written since: `compare`, `reverse` or `discard`.
    pub how: &'static str,
    pub voice: Arc<dyn Voice>,
    pub within: Duration,
    pub faults: Option<Faults>,
}

/// Remembers what a run says.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Said>);

/// What a run said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub log: Vec<String>,
    pub warnings: Vec<String>,
    /// Of all tables.
    pub rows: Vec<Json>,
}

impl Notes {
    pub fn said(&self) -> Said {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Said)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Voice for Notes {
    fn status(&self, text: &str) {
        self.note(|said| said.log.push(text.to_owned()));
    }

    fn warn(&self, text: &str) {
        self.note(|said| said.warnings.push(text.to_owned()));
    }

    fn data(&self, _: &str, json: &Json) {
        self.note(|said| match json {
            Json::Array(rows) => said.rows.extend(rows.iter().cloned()),
            other => said.rows.push(other.clone()),
        });
    }

    fn progress(&self, _: &Progress) {}

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }
}

/// What a run of the stage is to do.
pub struct Play {
    pub script: Script,
    /// Ends the script: the one that it was compiled with.
    pub cancel: CancellationToken,
    pub args: Json,
    /// `root`, or that of a rollback.
    pub branch: String,
    /// The journal holds what was done before.
    pub resumed: bool,
    pub voice: Arc<dyn Voice>,
    /// A run that takes longer is ended.
    pub within: Duration,
    /// What goes wrong on the way to the cluster.
    pub faults: Option<Faults>,
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
        Ok(Stage { lab, between: None, in_cluster: false, dir: dir.to_owned(), state })
    }

    /// Waits until nothing is on its way any more: what does not come to run, or does not go, is left as it is.
    pub fn rest(&self) {
        let deadline = Clock.deadline(OPENS_WITHIN);
        loop {
            self.lab.settle(deadline.left());
            let (late, revision) = self.lab.core().look(|state| (is_late(state), state.revision()));
            if late.is_none() || deadline.passed() || !self.lab.core().wait_past(revision, QUIET) {
                return;
            }
        }
    }

    /// The journal of a run that is over, or of one that begins.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn journal(&self, run: &RunId) -> Result<Journal, Problem> {
        Journal::open(run.clone(), Box::new(open(&self.dir_of(run)?)?))
    }

    /// Runs a script until its end or its death.
    ///
    /// # Errors
    /// What ended it before its end.
    pub fn play(&self, run: &RunId, doom: &Arc<Doom>, play: Play) -> Result<Json, Problem> {
        let Play { mut script, cancel, args, branch, resumed, voice, within, faults } = play;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| Problem::local("no threads can be started", &e))?;
        let cluster = runtime.block_on(async {
            let doom = doom.clone();
            let way = Faulty { inner: self.lab.transport(), doom: doom.clone() };
            match (faults, &self.between) {
                (Some(faults), _) => cluster::over(Faulty { inner: faults.transport(), doom }, "lab"),
                (None, Some(between)) => between.cluster(way, &cancel),
                (None, None) => cluster::over(way, "lab"),
            }
        });
        let (inner, file): (Box<dyn Store>, _) = if self.in_cluster {
            (self.store_in_cluster(&cluster, &runtime, run, resumed)?, None)
        } else {
            let dir = self.dir_of(run)?;
            (Box::new(open(&dir)?), Some(dir.join("journal.jsonl")))
        };
        let store = Dying { inner, file, doom: doom.clone() };
        let store: Box<dyn Store> = match &self.between {
            Some(between) => between.place(store),
            None => Box::new(store),
        };
        let journal = Arc::new(Journal::open(run.clone(), store)?);
        let ledger = Arc::new(Ledger::from_facts(&journal.facts())?);
        let vigils = Arc::new(Vigils::default());
        let door = Door { cluster, journal: journal.clone(), ledger, vigils, cancel: cancel.clone() };
        let session = Arc::new(Session { door, runtime: runtime.handle().clone(), voice, args, yes: true, resumed });
        let over = CancellationToken::new();
        let is_late = Arc::new(AtomicBool::new(false));
        let (limit, stop, late) = (over.clone(), cancel.clone(), is_late.clone());
        runtime.spawn(async move {
            if wait::sleep(within, &limit).await.is_ok() {
                late.store(true, Ordering::SeqCst);
                stop.cancel();
            }
        });
        let ended = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, || script.run(&session, &branch)) {
                Ok(handle) => handle.join().unwrap_or_else(|_| Err(Problem::bug("the script's thread panicked"))),
                Err(e) => Err(Problem::local("no thread can be started", &e)),
            }
        });
        let ended = ended.and_then(|value| journal.end(&branch, value.clone()).map(|()| value));
        over.cancel();
        // The dead close nothing.
        if let Err(problem) = journal.close() {
            tracing::debug!("{problem}");
        }
        drop((session, journal, script));
        runtime.shutdown_timeout(Duration::from_secs(5));
        match ended {
            Err(_) if is_late.load(Ordering::SeqCst) => {
                Err(Problem::new(Kind::Timeout, format!("it did not come to an end in {} s", within.as_secs())))
            }
            ended => ended,
        }
    }

    /// Takes back what the journal of a run has, until the end or the death.
    ///
    /// # Errors
    /// Why it cannot be taken back, or what ended that before its end.
    pub fn take_back(&self, run: &RunId, doom: &Arc<Doom>, way: TakeBack) -> Result<(), Problem> {
        let events = self.events(run)?;
        let (state, books) = undo::before_rollback(&events)?;
        let back = Back { branch: undo::BRANCH.into(), ..Back::default() };
        self.go_back(run, doom, &undo::plan(&state, &books, way.how), &back, way)
    }

    /// The same with what came after a step only.
    ///
    /// # Errors
    /// As [`Stage::take_back`].
    pub fn take_back_to(&self, run: &RunId, doom: &Arc<Doom>, to: &StepId, way: TakeBack) -> Result<(), Problem> {
        let events = open(&self.dir_of(run)?)?.load()?;
        let (plan, back) = undo::plan_to(&events, way.how, to)?;
        let journal = Journal::open(run.clone(), Box::new(open(&self.dir_of(run)?)?))?;
        if journal.taking_back().as_ref() != Some(&back) {
            let fact = serde_json::to_value(Fact::TakingBack(back.clone())).expect("facts are plain data");
            journal.fact(&StepId::new(back.branch.as_str()), fact)?;
        }
        drop(journal);
        self.go_back(run, doom, &plan, &back, way)
    }

    fn go_back(
        &self,
        run: &RunId,
        doom: &Arc<Doom>,
        plan: &undo::Plan,
        back: &Back,
        way: TakeBack,
    ) -> Result<(), Problem> {
        let TakeBack { how, voice, within, faults } = way;
        if let Some(obstacle) = plan.obstacles.first() {
            return Err(obstacle.clone());
        }
        let cancel = CancellationToken::new();
        let script = Script::typed(undo::SCRIPT, &cancel)
            .map_err(|problems| problems.into_iter().next().unwrap_or_else(|| Problem::bug("the way back is wrong")))?;
        let opts = json!({"how": how, "image": null, "pod_patch": null, "run_as": null, "force": []});
        let args = undo::args(plan, &opts, 4);
        let branch = back.branch.clone();
        self.play(run, doom, Play { script, cancel, args, branch, resumed: true, voice, within, faults }).map(|_| ())
    }

    /// Every record of a run so far.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn events(&self, run: &RunId) -> Result<Vec<Event>, Problem> {
        if !self.in_cluster {
            return open(&self.dir_of(run)?)?.load();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Problem::local("no threads can be started", &e))?;
        runtime.block_on(async {
            let cluster = cluster::over(self.lab.transport(), "lab");
            let shelf = Shelf { cluster, namespace: RECORDS_IN.to_owned() };
            runs::show(&shelf, run).await.map(|(_, events)| events)
        })
    }

    /// The journal in the lab itself: a resumed run has nothing else.
    fn store_in_cluster(
        &self,
        cluster: &Cluster,
        runtime: &tokio::runtime::Runtime,
        run: &RunId,
        resumed: bool,
    ) -> Result<Box<dyn Store>, Problem> {
        let shelf = Shelf { cluster: cluster.clone(), namespace: RECORDS_IN.to_owned() };
        let runtime = runtime.handle().clone();
        let store = if resumed {
            ClusterStore::open(shelf, runtime, run)?.1
        } else {
            ClusterStore::create(shelf, runtime, &RunFile::new(run.clone(), "trial"))?
        };
        Ok(Box::new(store))
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

impl Drop for Stage {
    fn drop(&mut self) {
        // The processes end first; the directory is removed when nothing writes to it any more.
        self.lab.end();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::debug!("{}: {error}", self.dir.display());
        }
    }
}

/// What is on its way to run or to go.
fn is_late(state: &State) -> Option<String> {
    let goes = |kind| {
        let going = |one: &Json| !one["metadata"]["deletionTimestamp"].is_null();
        state.list(kind, "").find(|(_, one)| going(one)).map(|(key, _)| format!("{key} is being deleted"))
    };
    let given_back = |volume: &Json| {
        volume["status"]["phase"] == "Released" && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    };
    let released = || {
        let found = state.list("PersistentVolume", "").find(|(_, volume)| given_back(volume));
        found.map(|(key, _)| format!("{key} is being given back"))
    };
    let goes = || ["Pod", "PersistentVolumeClaim", "PersistentVolume", "Namespace"].into_iter().find_map(goes);
    all_run(state).or_else(goes).or_else(released)
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
