//! pvmigrate as a program: run to its end, or watched through its journal, signalled and killed.
//!
//! Each world has one state directory; a command may be given another one, another kubeconfig, more environment.

use super::World;
use super::journal::{self, Tail, journals, newest};
use super::outcome::{Outcome, Talk, lossy};
use pvmigrate::lab::core::Core;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, IntoFuture};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);
const EVENT_LIMIT: Duration = Duration::from_secs(180);

/// A command that has not been started; `.await` runs it to its end, `start()` does not wait.
#[must_use = "a command runs when it is awaited or started"]
pub struct Pvmigrate<'w> {
    world: &'w World,
    args: Vec<String>,
    state_dir: PathBuf,
    kubeconfig: PathBuf,
    env: BTreeMap<String, String>,
    stdin: Stdio,
    limit: Duration,
}

/// A process at work.
pub struct Running {
    child: Child,
    talk: Arc<Talk>,
    readers: Vec<JoinHandle<()>>,
    state_dir: PathBuf,
    /// The runs that there were, with the length of their journals.
    before: BTreeMap<PathBuf, u64>,
    tail: Tail,
    limit: Duration,
    /// The lab that it works on, if it does.
    lab: Option<Arc<Core>>,
}

/// While a test waits for an event, a request to the lab takes so long: what is to be met in between stays open for as
/// long as on a real server.
const PACE: Duration = Duration::from_millis(15);

impl World {
    /// pvmigrate with these arguments, on this cluster, with this world's state directory.
    pub fn pvmigrate(&self, args: &[&str]) -> Pvmigrate<'_> {
        Pvmigrate {
            world: self,
            args: args.iter().map(ToString::to_string).collect(),
            state_dir: self.state_dir(),
            kubeconfig: self.ground.kubeconfig.clone(),
            env: BTreeMap::new(),
            stdin: Stdio::null(),
            limit: LIMIT,
        }
    }

    /// The same, started.
    pub fn start(&self, args: &[&str]) -> Running {
        self.pvmigrate(args).start()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// The id of the newest run.
    pub fn run_id(&self) -> String {
        let runs = journals(&self.state_dir());
        let newest = newest(&runs).unwrap_or_else(|| panic!("there is no run in {}", self.state_dir().display()));
        newest.parent().and_then(Path::file_name).expect("a journal is in a run").to_string_lossy().into_owned()
    }

    /// All events of the newest run.
    pub fn events(&self) -> Vec<Value> {
        newest(&journals(&self.state_dir())).map(|journal| journal::events(&journal)).unwrap_or_default()
    }

    pub(super) fn kill_all(&self) {
        for talk in self.processes.lock().unwrap().iter() {
            if talk.ended.lock().unwrap().is_none()
                && let Some(pid) = Pid::from_raw(talk.pid.cast_signed())
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Pvmigrate<'_> {
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn kubeconfig(mut self, path: &Path) -> Self {
        self.kubeconfig = path.to_owned();
        self
    }

    pub fn state_dir(mut self, path: &Path) -> Self {
        self.state_dir = path.to_owned();
        self
    }

    /// What it reads from stdin; nothing unless told.
    pub fn typing(mut self, text: &str) -> Self {
        let file = self.world.dir().join("typed");
        std::fs::write(&file, text).expect("the world's directory is writable");
        self.stdin = std::fs::File::open(file).expect("it was just written").into();
        self
    }

    /// Five minutes unless told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub fn start(self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pvmigrate"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--state-dir").arg(&self.state_dir);
        command.args(["--run-namespace", &self.world.ns]).args(&self.args);
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy();
            if name.starts_with("PVMIGRATE_") || name == "KUBECONFIG" || name == "HOME" || name.starts_with("XDG_") {
                command.env_remove(&key);
            }
        }
        command.env("NO_COLOR", "1").envs(&self.env).current_dir(self.world.dir());
        command.stdin(self.stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before =
            journals(&self.state_dir).into_iter().map(|journal| (journal.clone(), journal::length(&journal))).collect();
        let mut child = command.spawn().expect("pvmigrate can be started");
        let talk = Arc::new(Talk {
            command: format!("pvmigrate {}", self.args.join(" ")),
            pid: child.id(),
            stdout: Mutex::default(),
            stderr: Mutex::default(),
            ended: Mutex::default(),
        });
        self.world.processes.lock().unwrap().push(talk.clone());
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (for_out, for_err) = (talk.clone(), talk.clone());
        let readers = vec![
            std::thread::spawn(move || keep(out, &for_out.stdout)),
            std::thread::spawn(move || keep(err, &for_err.stderr)),
        ];
        let lab = self.world.ground.bench().map(|bench| bench.lab.core().clone());
        let (tail, limit) = (Tail::default(), self.limit);
        Running { child, talk, readers, state_dir: self.state_dir, before, tail, limit, lab }
    }
}

impl<'w> IntoFuture for Pvmigrate<'w> {
    type Output = Outcome;
    type IntoFuture = Pin<Box<dyn Future<Output = Outcome> + Send + 'w>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.start().wait().await })
    }
}

impl Running {
    /// The first event that fits among those written since this process started; events that were there when it was
    /// resumed do not count. Looks every millisecond.
    pub async fn wait_for_event(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        self.pace(PACE);
        let mut seen = 0;
        loop {
            let ended = self.has_ended();
            self.follow();
            let events = &self.tail.events;
            if let Some(event) = events[seen..].iter().find(|event| fits(event)) {
                return event.clone();
            }
            seen = events.len();
            let so_far = || format!("{}\n{events:#?}", self.outcome_so_far());
            assert!(!ended, "the process ended before the event came: {}", so_far());
            assert!(started.elapsed() < EVENT_LIMIT, "the event did not come in {EVENT_LIMIT:?}: {}", so_far());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills with SIGKILL; it must have been at work until then.
    pub fn kill9(mut self) {
        assert!(!self.has_ended(), "the process had ended before it was to be killed: {}", self.outcome_so_far());
        self.signal(Signal::KILL);
        let status = self.child.wait().expect("a child can be waited for");
        *self.talk.ended.lock().unwrap() = Some(status);
        self.pace(Duration::ZERO);
        assert_eq!(status.signal(), Some(9), "the kill did not land: {}", self.outcome_so_far());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid is not zero");
        kill_process(pid, signal).expect("our child can be signalled");
        // A thread in the midst of a write ends that first.
        let since = Instant::now();
        while signal == Signal::STOP && !is_stopped(pid) {
            assert!(since.elapsed() < Duration::from_secs(10), "a process does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        if signal == Signal::STOP {
            self.pace(Duration::ZERO);
        }
    }

    fn pace(&self, pace: Duration) {
        if let Some(lab) = &self.lab {
            lab.set_pace(pace);
        }
    }

    /// All events of this run, those from before a resume included.
    pub fn events(&self) -> Vec<Value> {
        self.journal().map(|journal| journal::events(&journal)).unwrap_or_default()
    }

    /// The journal's directory is the run's.
    pub fn run_dir(&self) -> Option<PathBuf> {
        self.journal().and_then(|journal| journal.parent().map(Path::to_owned))
    }

    pub fn has_ended(&mut self) -> bool {
        let status = self.child.try_wait().expect("a child can be asked for");
        if status.is_some() {
            *self.talk.ended.lock().unwrap() = status;
        }
        status.is_some()
    }

    /// What it has printed so far, stdout and stderr.
    pub fn said(&self) -> String {
        format!("{}{}", lossy(&self.talk.stdout), lossy(&self.talk.stderr))
    }

    pub async fn wait(mut self) -> Outcome {
        self.pace(Duration::ZERO);
        let started = Instant::now();
        while !self.has_ended() {
            if started.elapsed() > self.limit {
                self.signal(Signal::KILL);
                panic!("the process took longer than {:?}: {}", self.limit, self.outcome_so_far());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader only reads");
        }
        self.outcome_so_far()
    }

    fn outcome_so_far(&self) -> Outcome {
        self.talk.outcome()
    }

    /// The journal that this process writes: a new one, or the one that grows.
    fn journal(&self) -> Option<PathBuf> {
        let all = journals(&self.state_dir);
        let new: BTreeSet<PathBuf> =
            all.iter().filter(|journal| !self.before.contains_key(*journal)).cloned().collect();
        if new.is_empty() { newest(&all) } else { newest(&new) }
    }

    /// Reads what was written since.
    fn follow(&mut self) {
        if self.tail.journal.as_os_str().is_empty() {
            let Some(journal) = self.journal() else { return };
            let offset = self.before.get(&journal).copied().unwrap_or(0);
            // An old journal that has not grown may be another run's: this one's may still come.
            if self.before.contains_key(&journal) && journal::length(&journal) == offset {
                return;
            }
            self.tail = Tail { journal, offset, events: Vec::new() };
        }
        self.tail.read_on();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::KILL);
            let status = self.child.wait().ok();
            *self.talk.ended.lock().unwrap() = status;
        }
    }
}

/// Whether no thread of a process runs, or it has ended.
fn is_stopped(pid: Pid) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else { return true };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // After the program's name, which is in parentheses.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

fn keep(mut from: impl Read, to: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        to.lock().unwrap().extend_from_slice(&buffer[..read]);
    }
}
