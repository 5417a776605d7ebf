//! One container: a process of its own group, its output in a file, and how it ended.
//!
//! Not Kubernetes: it is told what to run. A thread for each process reads its output and waits for its end. What must
//! stay true: started by the lab's one thread, so that the death of the lab is the death of its processes (the programs
//! ask for that themselves); the whole group is killed; the output is complete before the end is told.

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub command: Program,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where it may leave its last words.
    pub last_words: PathBuf,
    /// If it fails without last words, the end of its output stands for them.
    pub falls_back_to_log: bool,
}

/// More of its last words are not read.
const LAST_WORDS_BYTES: u64 = 4096;
/// How much of its output stands for last words.
const LOG_TAIL_BYTES: u64 = 2048;
const LOG_TAIL_LINES: usize = 80;

/// A program with its arguments; the environment is the container's own only.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub dir: PathBuf,
    /// User and group, for a lab that is root; any other cannot but run everything as itself.
    pub user: Option<(u32, u32)>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Running {
        since: Timestamp,
        restarts: u32,
    },
    Ended {
        since: Timestamp,
        at: Timestamp,
        code: i32,
        signal: Option<i32>,
        /// Who killed it, if that is known.
        fate: Option<Fate>,
        message: String,
        restarts: u32,
    },
    /// It could not be started.
    Failed {
        why: String,
        at: Timestamp,
        restarts: u32,
    },
}

/// Why the machine or its kubelet kills a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It used more memory than it may.
    OutOfMemory,
    /// Its node is short of something.
    Evicted,
}

impl Outcome {
    pub fn is_running(&self) -> bool {
        matches!(self, Outcome::Running { .. })
    }
}

/// A container that was started.
pub struct Container {
    shared: Arc<Shared>,
    restarts: u32,
    stop: Option<std::sync::mpsc::Sender<()>>,
}

struct Shared {
    outcome: Mutex<Outcome>,
    fate: Mutex<Option<Fate>>,
    pid: Option<Pid>,
    log: PathBuf,
    /// How many bytes the log has; `u64::MAX` is never there, the end is told by `ended`.
    written: tokio::sync::watch::Sender<Written>,
}

/// How far the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Written {
    pub bytes: u64,
    /// Nothing follows.
    pub ended: bool,
}

impl Container {
    /// Starts it; `ended` is called from another thread when it has ended and its output is complete.
    pub fn start(process: Process, at: Timestamp, ended: Box<dyn Fn() + Send>) -> Container {
        match spawn(&process) {
            Err(error) => Container::failed(format!("{}: {error}", process.command.path.display()), at),
            Ok((mut child, output, log)) => {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                let (written, _) = tokio::sync::watch::channel(Written::default());
                let outcome = Mutex::new(Outcome::Running { since: at, restarts: 0 });
                let (last_words, falls_back) = (process.last_words, process.falls_back_to_log);
                let shared = Arc::new(Shared { outcome, fate: Mutex::default(), pid, log: process.log, written });
                let told = shared.clone();
                std::thread::spawn(move || {
                    keep(output, log, &told.written);
                    let status = child.wait();
                    let (code, signal) = match &status {
                        Ok(status) => (status.code().unwrap_or(-1), status.signal()),
                        Err(_) => (-1, None),
                    };
                    let code = signal.map_or(code, |signal| 128 + signal);
                    let now = crate::words::clock::Clock.now();
                    let mut message = read_last_words(&last_words);
                    if message.is_empty() && code != 0 && falls_back {
                        message = read_tail(&told.log);
                    }
                    let fate = told.fate.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| signal == Some(9));
                    *told.outcome.lock().unwrap_or_else(PoisonError::into_inner) =
                        Outcome::Ended { since: at, at: now, code, signal, fate, message, restarts: 0 };
                    told.written.send_modify(|written| written.ended = true);
                    ended();
                });
                Container { shared, restarts: 0, stop: None }
            }
        }
    }

    /// One that could not be started.
    pub fn failed(why: String, at: Timestamp) -> Container {
        let (written, _) = tokio::sync::watch::channel(Written { bytes: 0, ended: true });
        let outcome = Mutex::new(Outcome::Failed { why, at, restarts: 0 });
        let shared = Arc::new(Shared { outcome, fate: Mutex::default(), pid: None, log: PathBuf::new(), written });
        Container { shared, restarts: 0, stop: None }
    }

    #[must_use]
    pub fn restarted(mut self, restarts: u32) -> Container {
        self.restarts = restarts;
        self
    }

    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    pub fn outcome(&self) -> Outcome {
        let mut outcome = self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match &mut outcome {
            Outcome::Running { restarts, .. } | Outcome::Ended { restarts, .. } | Outcome::Failed { restarts, .. } => {
                *restarts = self.restarts;
            }
        }
        outcome
    }

    /// Asks it to end; after the grace it is killed. Asking again changes nothing, but for a shorter grace.
    pub fn stop(&mut self, grace_s: u64) {
        if !self.outcome().is_running() {
            return;
        }
        if grace_s == 0 {
            self.shared.signal(Signal::KILL);
            return;
        }
        if self.stop.is_some() {
            return;
        }
        self.shared.signal(Signal::TERM);
        let (keep, ended) = std::sync::mpsc::channel::<()>();
        self.stop = Some(keep);
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            // Ends early only with the container itself.
            if ended.recv_timeout(Duration::from_secs(grace_s)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                shared.signal(Signal::KILL);
            }
        });
    }

    pub fn kill(&self) {
        self.shared.signal(Signal::KILL);
    }

    /// The same, and it will be told why.
    pub fn kill_for(&self, fate: Fate) {
        *self.shared.fate.lock().unwrap_or_else(PoisonError::into_inner) = Some(fate);
        self.kill();
    }

    /// Where the output is, and how far.
    pub fn output(&self) -> (PathBuf, tokio::sync::watch::Receiver<Written>) {
        (self.shared.log.clone(), self.shared.written.subscribe())
    }
}

impl Shared {
    /// Signals the group while the process has not been waited for: its id cannot be another's.
    fn signal(&self, signal: Signal) {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(pid)) = (outcome.is_running(), self.pid)
            && let Err(error) = kill_process_group(pid, signal)
        {
            tracing::debug!("signal {signal:?} to {pid:?}: {error}");
        }
    }
}

fn spawn(process: &Process) -> std::io::Result<(std::process::Child, std::io::PipeReader, File)> {
    if let Some(dir) = process.log.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let log = File::create(&process.log)?;
    // There, as a kubelet mounts it, empty, and for whoever the container runs as.
    File::create(&process.last_words)?.set_permissions(Permissions::from_mode(0o666))?;
    let (reader, writer) = std::io::pipe()?;
    let command = &process.command;
    let mut started = Command::new(&command.path);
    if let Some((user, group)) = command.user.filter(|_| rustix::process::geteuid().is_root()) {
        started.uid(user).gid(group);
    }
    let child = started
        .args(&command.args)
        .env_clear()
        .envs(&command.env)
        .current_dir(existing(&command.dir))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    Ok((child, reader, log))
}

fn read_last_words(path: &Path) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::debug!("{}: {error}", path.display());
            String::new()
        }
    }
}

/// The last lines of its output, a broken first one included.
fn read_tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(LOG_TAIL_BYTES)))?;
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        tracing::debug!("{}: {error}", log.display());
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].concat()
}

fn existing(dir: &Path) -> &Path {
    if dir.is_dir() { dir } else { Path::new("/") }
}

/// Copies the output to the file, and tells how far it is.
fn keep(mut output: impl Read, mut log: File, written: &tokio::sync::watch::Sender<Written>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if let Err(error) = log.write_all(&buffer[..count]) {
            tracing::warn!("the log of a container cannot be written: {error}");
            // Read on: a full pipe would stop the container.
            continue;
        }
        written.send_modify(|written| written.bytes += count as u64);
    }
}
