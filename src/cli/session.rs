//! Bringing a run to life: runtime, cluster, journal, signals; and what its end means.

use super::lab::Trial;
use super::{Failure, Global, Place, exit_code, place, state_dir, ui};
use crate::cluster::store::{ClusterStore, Shelf, runs};
use crate::cluster::{self, Door, Lease, Ledger, Target, Vigils, lease};
use crate::journal::{Event, Fence as _, Journal, RunFile, Runs, T};
use crate::script::Script;
use crate::script::session::Session;
use crate::words::{Json, Kind, Problem, RunId, Voice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The engine's thread needs room for the call levels that scripts may use.
pub const STACK_BYTES: usize = 64 << 20;

/// The runtime that all requests run on. The script never does.
///
/// # Errors
/// If the machine has no threads left.
pub fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Problem::local("no threads can be started", &e))
}

/// First Ctrl-C or SIGTERM: stop after the step in hand. Second: at once; the journal is whole at every instant.
pub fn on_signals(global: &Global, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) {
    let (cancel, stopping) = (cancel.clone(), stopping(global));
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        if ui::is_asking() {
            ui::talk("");
            ui::leave(130);
        }
        ui::talk(stopping);
        cancel.cancel();
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        ui::leave(130);
    });
}

/// Ctrl-C or SIGTERM where nothing is at stake: what runs is ended, and what was made is removed. Again: at once.
pub fn on_interrupt(runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) {
    let cancel = cancel.clone();
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        cancel.cancel();
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        ui::leave(130);
    });
}

/// What the first signal is answered with.
pub fn stopping(global: &Global) -> &'static str {
    match global.lab {
        None => "stopping after the step in hand (again: at once; copy pods go on)",
        Some(_) => "stopping after the step in hand (again: at once); the cluster of this process ends too",
    }
}

/// A cluster that was reached, and its identity.
pub struct Reached {
    pub cluster: cluster::Cluster,
    pub uid: String,
    runtime: tokio::runtime::Handle,
    /// The cluster itself, if it is in this process: it ends with this.
    trial: Option<Trial>,
}

impl Reached {
    /// Where runs on it are kept.
    ///
    /// # Errors
    /// If no place is given and there is no home directory.
    pub fn state_dir(&self, global: &Global) -> Result<PathBuf, Problem> {
        self.trial.as_ref().map_or_else(|| state_dir(global), |trial| Ok(trial.state_dir()))
    }

    /// The ConfigMaps of runs in a namespace of it.
    pub fn shelf(&self, namespace: &str) -> Shelf {
        Shelf { cluster: self.cluster.clone(), namespace: namespace.to_owned() }
    }

    /// Keeps a cluster of this process alive.
    pub fn into_parts(self) -> (cluster::Cluster, Option<Trial>) {
        (self.cluster, self.trial)
    }
}

/// The cluster of `--lab` begins and ends with one command: there is nothing in it to go on with.
///
/// # Errors
/// If it is asked for.
pub fn needs_a_cluster_that_stays(global: &Global) -> Result<(), Problem> {
    if global.lab.is_none() {
        return Ok(());
    }
    Err(Problem::usage("--lab is a new cluster each time: no run is in it")
        .hint("`pvmigrate lab up` makes one that stays: run in it, and give its kubeconfig here"))
}

/// Connects and says hello.
///
/// # Errors
/// If the kubeconfig or the server does not let us.
pub fn reach(global: &Global, runtime: &tokio::runtime::Runtime) -> Result<Reached, Problem> {
    lease_duration()?;
    if let Some(scenario) = &global.lab {
        if global.kubeconfig.is_some() || global.context.is_some() {
            return Err(Problem::usage("--lab is a cluster of its own: it takes no --kubeconfig and no --context"));
        }
        let trial = super::lab::trial(global, scenario)?;
        return runtime.block_on(async {
            let cluster = cluster::over(trial.lab.transport(), "lab");
            let uid = cluster.uid().await?;
            Ok(Reached { cluster, uid, runtime: runtime.handle().clone(), trial: Some(trial) })
        });
    }
    let target = Target { kubeconfig: global.kubeconfig.clone(), context: global.context.clone() };
    runtime.block_on(async {
        let cluster = cluster::connect(&target).await?;
        let uid = cluster.uid().await?;
        Ok(Reached { cluster, uid, runtime: runtime.handle().clone(), trial: None })
    })
}

/// Where a run is kept.
pub enum Kept {
    Dir(RunId),
    Cluster(RunId, Box<InCluster>),
}

/// A cluster that was asked for a run, and where it has it.
pub struct InCluster {
    pub runtime: tokio::runtime::Runtime,
    pub reached: Reached,
    pub shelf: Shelf,
}

/// Finds a run, the newest that stopped if none is named: here, or in the cluster if that keeps runs or this machine does
/// not know it.
///
/// # Errors
/// If it is unknown.
pub fn find(global: &Global, run: Option<&str>) -> Result<Kept, Problem> {
    let run = run.map(RunId::parse).transpose()?;
    let here = || state_dir(global).map(|dir| Runs::new(&dir));
    if place(global) == Place::Cluster {
        return find_in_cluster(global, run);
    }
    let Some(run) = run else { return here()?.latest_stopped().map(Kept::Dir) };
    let unknown = match here()?.look_up(&run) {
        Ok(_) => return Ok(Kept::Dir(run)),
        Err(problem) if global.store.is_some() || problem.kind != Kind::Usage || global.lab.is_some() => {
            return Err(problem);
        }
        Err(problem) => problem,
    };
    match find_in_cluster(global, Some(run)) {
        Ok(found) => {
            if let Kept::Cluster(run, there) = &found {
                ui::talk(&format!("run {run} is kept in the cluster, in namespace {}", there.shelf.namespace));
            }
            Ok(found)
        }
        Err(problem) if problem.kind == Kind::Usage => Err(unknown.quote(problem.message)),
        Err(problem) => Err(unknown.quote(format!("nor could the cluster be asked: {}", problem.message))),
    }
}

fn find_in_cluster(global: &Global, run: Option<RunId>) -> Result<Kept, Problem> {
    needs_a_cluster_that_stays(global)?;
    let runtime = runtime()?;
    let reached = reach(global, &runtime)?;
    let namespace = global.run_namespace.as_deref();
    let (run, namespace) = match run {
        Some(run) => match runtime.block_on(runs::find(&reached.cluster, &run, namespace))? {
            runs::Found::In(namespace) => (run, namespace),
            runs::Found::Nowhere(looked) => {
                return Err(Problem::usage(format!("run {run} is not kept in the cluster either: {looked}"))
                    .hint("pvmigrate runs list --store cluster"));
            }
        },
        None => {
            let all = runtime.block_on(runs::list(&reached.cluster, namespace))?;
            all.into_iter()
                .find(|listed| listed.is_to_be_resumed())
                .map(|listed| (listed.run, listed.namespace))
                .ok_or_else(|| {
                    Problem::usage("there is no stopped run to resume in the cluster")
                        .hint("pvmigrate runs list --store cluster")
                })?
        }
    };
    let shelf = reached.shelf(&namespace);
    Ok(Kept::Cluster(run, Box::new(InCluster { runtime, reached, shelf })))
}

/// The options with which the run is found again.
pub fn settled(global: &Global, file: &RunFile) -> Global {
    let mut global = global.clone();
    if place(&global) == Place::Cluster {
        global.store = Some(Place::Cluster);
        global.run_namespace = Some(file.namespace.clone());
    }
    global
}

/// Looking leaves nothing in a cluster unless told.
pub fn looking(global: &Global) -> Global {
    Global { store: global.store.or(Some(Place::Dir)), ..global.clone() }
}

/// Removes the journal of a run that is over for good.
///
/// # Errors
/// If it cannot be removed.
pub fn forget(global: &Global, run: &RunId) -> Result<(), Problem> {
    if place(global) == Place::Dir {
        return Runs::new(&state_dir(global)?).forget(run, true);
    }
    match find_in_cluster(global, Some(run.clone()))? {
        Kept::Cluster(run, there) => there.runtime.block_on(runs::forget(&there.shelf, &run)),
        Kept::Dir(_) => Ok(()),
    }
}

/// A run that is gone on with: it is ours, and its journal is read. Its cluster may not have been asked yet.
pub struct TakenUp {
    /// The options with which it is found again.
    pub global: Global,
    pub run: RunId,
    pub file: RunFile,
    pub journal: Journal,
    pub cancel: CancellationToken,
    reached: Option<(tokio::runtime::Runtime, Reached)>,
}

/// Takes a run up, the newest that stopped if none is named. Where runs are kept is decided here and in [`open_run`].
///
/// # Errors
/// If it is unknown or damaged, or another process has it.
pub fn take_up(global: &Global, run: Option<&str>) -> Result<TakenUp, Problem> {
    needs_a_cluster_that_stays(global)?;
    let cancel = CancellationToken::new();
    match find(global, run)? {
        Kept::Dir(run) => {
            let (file, journal, _) = Runs::new(&state_dir(global)?).open(&run)?;
            Ok(TakenUp { global: global.clone(), run, file, journal, cancel, reached: None })
        }
        Kept::Cluster(run, there) => {
            let InCluster { runtime, reached, shelf } = *there;
            let namespace = shelf.namespace.clone();
            let (file, store) = ClusterStore::open(shelf, runtime.handle().clone(), &run)?;
            let journal = Journal::open(run.clone(), Box::new(store))?.waiting_for_its_fence();
            let global = Global { store: Some(Place::Cluster), run_namespace: Some(namespace), ..global.clone() };
            Ok(TakenUp { global, run, file, journal, cancel, reached: Some((runtime, reached)) })
        }
    }
}

impl TakenUp {
    /// Every record so far: the run is ours, nobody adds to it any more.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn events(&self) -> Result<Vec<Event>, Problem> {
        self.journal.events()
    }

    /// Reaches the run's cluster; `word` is the command, for hints.
    ///
    /// # Errors
    /// If it cannot be reached, or is another one.
    pub fn reach(self, word: &str) -> Result<Met, Problem> {
        let TakenUp { global, run, file, journal, cancel, reached } = self;
        let (runtime, reached) = match reached {
            Some((runtime, reached)) => {
                on_signals(&global, &runtime, &cancel);
                (runtime, reached)
            }
            None => {
                let runtime = runtime()?;
                on_signals(&global, &runtime, &cancel);
                let reached = reach(&global, &runtime)?;
                (runtime, reached)
            }
        };
        if reached.uid != file.cluster_uid {
            return Err(Problem::new(Kind::Diverged, format!("run {run} belongs to another cluster"))
                .quote(format!("it began on context `{}` ({})", file.context, file.server))
                .quote(format!("this is context `{}` ({})", reached.cluster.context(), reached.cluster.server()))
                .hint(format!("pvmigrate {word} {run} --context {}", file.context)));
        }
        let (cluster, trial) = reached.into_parts();
        Ok(Met { file, journal, cancel, runtime, cluster, trial })
    }
}

/// A run that was taken up, and its cluster.
pub struct Met {
    pub file: RunFile,
    pub journal: Journal,
    pub runtime: tokio::runtime::Runtime,
    pub cluster: cluster::Cluster,
    cancel: CancellationToken,
    trial: Option<Trial>,
}

impl Met {
    pub fn start(self, script: Script, voice: Arc<dyn Voice>, yes: bool) -> Start {
        let Met { file, journal, runtime, cluster, cancel, trial } = self;
        Start { script, runtime, cluster, journal, file, voice, cancel, yes, trial }
    }
}

/// Everything that is needed to run a script.
pub struct Start {
    pub script: Script,
    pub runtime: tokio::runtime::Runtime,
    pub cluster: cluster::Cluster,
    pub journal: Journal,
    pub file: RunFile,
    pub voice: Arc<dyn Voice>,
    pub cancel: CancellationToken,
    pub yes: bool,
    /// A cluster of this process, to be kept until the end.
    pub trial: Option<Trial>,
}

/// How many seconds the Lease of a run lasts after its last renewal.
const LEASE_SECONDS: &str = "PVMIGRATE_LEASE_SECONDS";

fn lease_duration() -> Result<Duration, Problem> {
    let Ok(text) = std::env::var(LEASE_SECONDS) else {
        return Ok(Duration::from_secs(lease::DEFAULT_SECONDS));
    };
    let seconds = text.trim().parse().ok().filter(|seconds| lease::SECONDS.contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let (least, most) = lease::SECONDS.into_inner();
        Problem::usage(format!("{LEASE_SECONDS} is a number of seconds from {least} to {most}, not `{text}`"))
    })
}

/// What keeps other processes off the run as long as this one executes it. `lock` names what dies with this process.
///
/// # Errors
/// If the environment asks for an impossible Lease.
pub fn fence(
    cluster: &cluster::Cluster,
    file: &RunFile,
    lock: Option<String>,
    voice: &Arc<dyn Voice>,
    cancel: &CancellationToken,
) -> Result<Arc<Lease>, Problem> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Runs of before there were Leases do not say where.
    let namespace = if file.namespace.is_empty() { cluster.default_namespace() } else { &file.namespace };
    let claim = lease::Claim {
        run: file.run.clone(),
        namespace: namespace.to_owned(),
        who: format!("{host}-{}", std::process::id()),
        lock,
        duration: lease_duration()?,
    };
    Ok(Arc::new(Lease::new(cluster.clone(), claim, voice.clone(), cancel.clone())))
}

/// Removes the Lease that a killed process of a run left; the run is ours. A cluster that cannot be asked stands in nobody's way.
///
/// # Errors
/// If the run is being executed.
pub fn sweep(global: &Global, file: &RunFile, journal: &Journal) -> Result<(), Problem> {
    let run = &file.run;
    // What never began a step of its own has taken no Lease.
    if !journal.events().is_ok_and(|events| events.iter().any(|event| event.t == T::Start)) {
        return Ok(());
    }
    let context = Some(file.context.clone()).filter(|name| !name.is_empty() && global.kubeconfig.is_none());
    let there = Global { context: global.context.clone().or(context), ..global.clone() };
    let runtime = runtime()?;
    let cleared = reach(&there, &runtime).and_then(|reached| {
        if reached.uid != file.cluster_uid {
            return Err(Problem::new(Kind::Diverged, format!("run {run} belongs to another cluster")));
        }
        let cancel = CancellationToken::new();
        on_signals(global, &runtime, &cancel);
        let lease = fence(&reached.cluster, file, journal.lock_name(), &ui::voice(global), &cancel)?;
        runtime.block_on(lease.clear())
    });
    match cleared {
        Err(problem) if problem.kind == Kind::Conflict || problem.kind == Kind::Interrupted => Err(problem),
        Err(problem) => {
            ui::talk(&format!("whether its Lease is left could not be seen: {problem}"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Makes the place of a new run.
///
/// # Errors
/// If the state directory cannot be written, or the cluster does not take a run's records.
pub fn open_run(
    global: &Global,
    reached: &Reached,
    script: &Script,
    args: Json,
    argv: Vec<String>,
) -> Result<(RunFile, Journal), Problem> {
    let file = new_run(global, reached, script, args, argv);
    let journal = keep_run(global, reached, &file)?;
    Ok((file, journal))
}

/// What a new run is.
pub fn new_run(global: &Global, reached: &Reached, script: &Script, args: Json, argv: Vec<String>) -> RunFile {
    let mut file = RunFile::new(RunId::random(), &script.name);
    file.cluster_uid.clone_from(&reached.uid);
    file.server = reached.cluster.server().to_owned();
    file.context = reached.cluster.context().to_owned();
    file.namespace = global.run_namespace.clone().unwrap_or_else(|| reached.cluster.default_namespace().to_owned());
    file.argv = argv;
    file.args = args;
    file.yes = global.yes;
    file.sources = script.sources.all();
    file
}

/// Makes its place, with nothing in it yet.
///
/// # Errors
/// As [`open_run`].
pub fn keep_run(global: &Global, reached: &Reached, file: &RunFile) -> Result<Journal, Problem> {
    Ok(match place(global) {
        Place::Dir => Runs::new(&reached.state_dir(global)?).create(file)?.0,
        Place::Cluster => {
            let shelf = reached.shelf(&file.namespace);
            let store = ClusterStore::create(shelf, reached.runtime.clone(), file)?;
            Journal::open(file.run.clone(), Box::new(store))?
        }
    })
}

/// How a run ended.
pub struct Ended {
    pub result: Result<Json, Problem>,
    pub changed: bool,
    /// Nothing was done: another process went on with the run after its journal was read, and has let it go by now.
    pub behind: bool,
    pub run: RunId,
    pub sources: Vec<(String, String)>,
}

/// Runs the script on a thread of its own until it ends, and closes the journal.
///
/// # Errors
/// If the journal cannot be read. How the script ended is in the result.
pub fn execute(start: Start) -> Result<Ended, Problem> {
    execute_in(start, "root")
}

/// The same in a branch of another name: what is done after a run has ended.
///
/// # Errors
/// As [`execute`].
pub fn execute_in(start: Start, branch: &str) -> Result<Ended, Problem> {
    let Start { mut script, runtime, cluster, journal, file, voice, cancel, yes, trial } = start;
    let resumed = !journal.is_empty();
    let fence = fence(&cluster, &file, journal.lock_name(), &voice, &cancel)?;
    let journal = Arc::new(journal.fenced(fence.clone()));
    let ledger = Arc::new(Ledger::from_facts(&journal.facts())?);
    let door = Door {
        cluster: cluster.clone(),
        journal: journal.clone(),
        ledger,
        vigils: Arc::new(Vigils::default()),
        cancel,
    };
    let session =
        Arc::new(Session { door, runtime: runtime.handle().clone(), voice, args: file.args.clone(), yes, resumed });
    let sources = script.sources.clone();
    // A journal that others can write to is ours before anything is added to it.
    let held = match journal.is_shared() {
        true => runtime.block_on(async { journal.hold().await.and_then(|_| journal.is_behind()) }),
        false => Ok(false),
    };
    let behind = matches!(held, Ok(true));
    let held = held.and_then(|behind| if behind { Err(went_on(&file.run)) } else { Ok(()) });
    let is_ours = held.is_ok();
    let result = held.and_then(|()| {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("script".into()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, || script.run(&session, branch)) {
                Ok(handle) => handle.join().unwrap_or_else(|_| Err(Problem::bug("the script's thread panicked"))),
                Err(e) => Err(Problem::local("no thread can be started", &e)),
            }
        })
    });
    let result = result.and_then(|value| journal.end(branch, value.clone()).map(|()| value));
    let counts = cluster.requests();
    tracing::debug!(
        "requests: {} reads, {} more for the guards, {} writes, {} watches",
        load(&counts.reads),
        load(&counts.guards),
        load(&counts.writes),
        load(&counts.watches)
    );
    // What is lost here is found by a read.
    if is_ours && let Err(problem) = journal.close() {
        tracing::debug!("{problem}");
    }
    runtime.block_on(fence.release());
    let changed = journal.has_changed();
    drop(session);
    runtime.shutdown_background();
    drop(trial);
    let sources = sources.all().into_iter().map(|source| (source.name, source.text)).collect();
    Ok(Ended { result, changed, behind, run: file.run, sources })
}

fn went_on(run: &RunId) -> Problem {
    Problem::new(Kind::Conflict, format!("another process went on with run {run} while this one waited for it"))
        .hint(format!("see how it stands: pvmigrate runs show {run}"))
}

fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

impl Ended {
    /// What to tell the person.
    ///
    /// # Errors
    /// The failure of the run, with how to go on and how to go back.
    pub fn conclude(self, global: &Global) -> Result<Json, Failure> {
        let next = vec![
            format!("the run can be continued: {}", resume_line(global, &self.run)),
            format!("or taken back: {}", line(global, &format!("rollback {}", self.run))),
        ];
        self.conclude_with(global, next)
    }

    /// The same with what to type next after a failure.
    ///
    /// # Errors
    /// As [`Ended::conclude`].
    pub fn conclude_with(self, global: &Global, next: Vec<String>) -> Result<Json, Failure> {
        match self.result {
            Ok(value) => Ok(value),
            Err(mut problem) => {
                let code = exit_code(problem.kind, self.changed);
                // Whoever asked for it does not look for a fault in the script.
                problem.place = problem.place.filter(|_| problem.kind != Kind::Interrupted);
                let mut last = Vec::new();
                if self.changed && global.lab.is_some() {
                    last.push(
                        "the cluster was in this process and is gone: `pvmigrate lab up` makes one that stays".into(),
                    );
                } else if self.changed {
                    last.extend(next);
                } else if problem.kind != Kind::Usage {
                    last.push("nothing was changed".to_owned());
                }
                Err(Failure { problems: vec![problem], sources: self.sources, last, code })
            }
        }
    }
}

/// Exactly what to type.
pub fn resume_line(global: &Global, run: &RunId) -> String {
    line(global, &format!("resume {run}"))
}

/// The same for any command.
pub fn line(global: &Global, command: &str) -> String {
    let mut line = format!("pvmigrate {command}");
    for (flag, value) in [
        ("--kubeconfig", global.kubeconfig.as_ref().map(|path| path.display().to_string())),
        ("--context", global.context.clone()),
        ("--state-dir", global.state_dir.as_ref().map(|path| path.display().to_string())),
        ("--store", (global.store == Some(Place::Cluster)).then(|| "cluster".to_owned())),
        ("--run-namespace", global.run_namespace.clone().filter(|_| global.store == Some(Place::Cluster))),
    ] {
        if let Some(value) = value {
            line.push_str(&format!(" {flag} {}", quoted(&value)));
        }
    }
    line
}

/// For a shell.
pub fn quoted(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=:@+,~%".contains(c));
    // At its beginning a tilde is somebody's home.
    if plain && !word.starts_with('~') && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
