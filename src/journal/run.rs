//! The directory of a run: what it is (`run.json`), what it executed (`script/`), how far it came (the journal).
//!
//! Layout: `STATE/runs/<cluster uid>/<run id>/`.

use super::store::{parse, private, unusable};
use super::{Event, FileStore, Journal, State};
use crate::words::{Json, Kind, Problem, RunId, clock::Clock};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// `run.json`: written once, before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    pub v: u32,
    /// The version of pvmigrate that began it.
    pub tool: String,
    pub run: RunId,
    /// The uid of the namespace `kube-system`.
    pub cluster_uid: String,
    pub server: String,
    pub context: String,
    /// The namespace of our own records: the run's Lease and, if it is kept in the cluster, its journal. Runs of before
    /// there were any have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// What was typed.
    pub argv: Vec<String>,
    /// The script's name as typed.
    pub script: String,
    /// The script's own options after parsing.
    pub args: Json,
    /// True if questions were answered on the command line.
    pub yes: bool,
    pub began: String,
    /// The script and everything that it imports.
    pub sources: Vec<Source>,
}

/// One script file as it was when the run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `std/unit`, or the path as the script's folder sees it.
    pub name: String,
    pub text: String,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    Done,
    /// Everything is as it was before.
    #[serde(rename = "rolled-back")]
    RolledBack,
    /// It ended before its first change: there is nothing to resume.
    Refused,
    /// It stopped, or was killed: `resume` goes on.
    Stopped,
    /// Some process has it.
    Running,
    /// It cannot be read, or another version of this program wrote it: what became of it is not known.
    Damaged,
}

/// One line of `pvmigrate runs`.
#[derive(Clone, Debug, Serialize)]
pub struct RunListing {
    pub run: RunId,
    pub script: String,
    pub status: RunStatus,
    pub began: String,
    pub steps: usize,
    pub writes: u64,
    pub context: String,
    pub last: String,
    /// It was typed line by line: there is no script to go on with.
    pub typed: bool,
    /// The namespace that it is kept in, if that is not the state directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip)]
    pub dir: PathBuf,
}

impl RunListing {
    /// True if `resume` goes on with it.
    pub fn is_to_be_resumed(&self) -> bool {
        self.status == RunStatus::Stopped && !self.typed
    }
}

/// All runs under one state directory.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
}

impl Runs {
    pub fn new(state_dir: &Path) -> Self {
        Runs { root: state_dir.join("runs") }
    }

    /// Makes the directory of a new run and opens its journal.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn create(&self, file: &RunFile) -> Result<(Journal, PathBuf), Problem> {
        let dir = self.root.join(safe(&file.cluster_uid)).join(file.run.as_str());
        std::fs::create_dir_all(&dir).map_err(|e| unusable(&dir, &e))?;
        let store = FileStore::open(&dir)?;
        let text = serde_json::to_string_pretty(file).expect("a run file is plain data");
        let half = dir.join("run.json.half");
        private(OpenOptions::new().create(true).truncate(true).write(true))
            .open(&half)
            .and_then(|mut f| {
                f.write_all(text.as_bytes())?;
                f.sync_data()?;
                std::fs::rename(&half, dir.join("run.json"))?;
                File::open(&dir)?.sync_all()
            })
            .map_err(|e| unusable(&dir, &e))?;
        Ok((Journal::open(file.run.clone(), Box::new(store))?, dir))
    }

    /// Opens a run for going on with it.
    ///
    /// # Errors
    /// If it is unknown, damaged, or held by another process.
    pub fn open(&self, run: &RunId) -> Result<(RunFile, Journal, PathBuf), Problem> {
        let dir = self.look_up(run)?;
        let file = read_run_file(&dir)?;
        has_journal(&dir)?;
        let journal = Journal::open(run.clone(), Box::new(FileStore::open(&dir)?))?;
        Ok((file, journal, dir))
    }

    /// The newest run that can be resumed.
    ///
    /// # Errors
    /// If there is none.
    pub fn latest_stopped(&self) -> Result<RunId, Problem> {
        self.list()?
            .into_iter()
            .find(RunListing::is_to_be_resumed)
            .map(|run| run.run)
            .ok_or_else(|| Problem::usage("there is no stopped run to resume").hint("pvmigrate runs"))
    }

    /// Every run, newest first. Damaged ones are listed with what is wrong.
    pub fn list(&self) -> Result<Vec<RunListing>, Problem> {
        let mut all = Vec::new();
        for cluster in entries(&self.root)? {
            for dir in entries(&cluster)? {
                let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if let Ok(run) = RunId::parse(&name)
                    && dir.join("run.json").is_file()
                {
                    // One that cannot be read does not hide the others.
                    all.push(listing(&dir).unwrap_or_else(|problem| damaged(run, &dir, &problem)));
                }
            }
        }
        all.sort_by(|a: &RunListing, b| b.began.cmp(&a.began));
        Ok(all)
    }

    /// What a run is and everything in its journal, without taking it.
    ///
    /// # Errors
    /// If it is unknown or damaged.
    pub fn show(&self, run: &RunId) -> Result<(RunFile, Vec<Event>), Problem> {
        let dir = self.look_up(run)?;
        Ok((read_run_file(&dir)?, read_events(&dir)?))
    }

    /// The records after the first `offset` bytes of a journal, where they end, and whether a process still has the run.
    ///
    /// # Errors
    /// If the run is unknown or damaged.
    pub fn since(&self, run: &RunId, offset: u64) -> Result<(Vec<Event>, u64, bool), Problem> {
        let dir = self.look_up(run)?;
        // Asked first: what is written until the process ends is read.
        let held = is_held(&dir);
        let mut bytes = Vec::new();
        match File::open(dir.join("journal.jsonl")) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_to_end(&mut bytes))
                    .map_err(|e| unusable(&dir, &e))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(unusable(&dir, &e)),
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Ok((parse(&bytes[..whole], &dir)?, offset + whole as u64, held))
    }

    /// Says whether a run may be forgotten.
    ///
    /// # Errors
    /// If it is unknown, or running, or would have to be resumed.
    pub fn may_forget(&self, run: &RunId, force: bool) -> Result<(), Problem> {
        let dir = self.look_up(run)?;
        let RunListing { status, typed, last, .. } =
            listing(&dir).unwrap_or_else(|problem| damaged(run.clone(), &dir, &problem));
        if status == RunStatus::Damaged && !force {
            return Err(Problem::refused(format!("what became of run {run} is not known: {last}"))
                .hint("another version of pvmigrate may be able to go on with it")
                .hint(format!("to lose its journal for good: pvmigrate runs forget {run} --force")));
        }
        if status == RunStatus::Running || (status == RunStatus::Stopped && !force) {
            let next = if typed { "runs show" } else { "resume" };
            return Err(Problem::refused(format!("run {run} is not over"))
                .hint(format!("pvmigrate {next} {run}"))
                .hint(format!("to lose its journal for good: pvmigrate runs forget {run} --force")));
        }
        Ok(())
    }

    /// Removes a run's directory.
    ///
    /// # Errors
    /// As [`Runs::may_forget`].
    pub fn forget(&self, run: &RunId, force: bool) -> Result<(), Problem> {
        self.may_forget(run, force)?;
        let dir = self.look_up(run)?;
        std::fs::remove_dir_all(&dir).map_err(|e| unusable(&dir, &e))
    }

    /// The directory of a run.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn look_up(&self, run: &RunId) -> Result<PathBuf, Problem> {
        for cluster in entries(&self.root)? {
            let dir = cluster.join(run.as_str());
            if dir.join("run.json").is_file() {
                return Ok(dir);
            }
        }
        Err(Problem::usage(format!("run {run} is not known here"))
            .hint("pvmigrate runs")
            .hint(format!("runs are looked for in {}; another place is given with --state-dir", self.root.display())))
    }
}

fn listing(dir: &Path) -> Result<RunListing, Problem> {
    let file = read_run_file(dir)?;
    let events = read_events(dir)?;
    let gap = events.iter().enumerate().find(|(at, event)| event.n != *at as u64);
    let gap = gap.map(|(at, event)| format!("record {} where {at} belongs", event.n));
    let last = events.iter().rev().find_map(|event| event.err.clone());
    let (state, damage) = match State::fold(events) {
        Ok(state) => (state, None),
        Err(damage) => (State::default(), Some(damage.to_string())),
    };
    let damage = gap.or(damage);
    let status = if is_held(dir) {
        RunStatus::Running
    } else if damage.is_some() {
        RunStatus::Damaged
    } else {
        state.status()
    };
    Ok(RunListing {
        run: file.run,
        script: file.script,
        status,
        began: file.began,
        steps: state.steps.len(),
        writes: state.writes,
        context: file.context,
        last: match (damage, status, last) {
            (Some(damage), ..) => damage,
            (None, RunStatus::Refused | RunStatus::Stopped, Some(problem)) => problem.message,
            _ => String::new(),
        },
        typed: file.sources.is_empty(),
        namespace: String::new(),
        dir: dir.to_owned(),
    })
}

/// What there is to say of a run that cannot be read.
fn damaged(run: RunId, dir: &Path, problem: &Problem) -> RunListing {
    let file = read_run_file(dir).ok();
    RunListing {
        run,
        script: file.as_ref().map(|file| file.script.clone()).unwrap_or_default(),
        status: if is_held(dir) { RunStatus::Running } else { RunStatus::Damaged },
        began: file.as_ref().map(|file| file.began.clone()).unwrap_or_default(),
        steps: 0,
        writes: 0,
        context: file.map(|file| file.context).unwrap_or_default(),
        last: problem.message.clone(),
        typed: false,
        namespace: String::new(),
        dir: dir.to_owned(),
    }
}

fn is_held(dir: &Path) -> bool {
    File::open(dir.join("lock")).is_ok_and(|lock| {
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared)
            == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

fn read_run_file(dir: &Path) -> Result<RunFile, Problem> {
    let text = std::fs::read_to_string(dir.join("run.json")).map_err(|e| unusable(dir, &e))?;
    let damaged = |e: &serde_json::Error| {
        Problem::new(Kind::Diverged, format!("{}/run.json is damaged", dir.display())).because(e)
    };
    RunFile::parse(serde_json::from_str(&text).map_err(|e| damaged(&e))?, &dir.display().to_string())
}

fn read_events(dir: &Path) -> Result<Vec<Event>, Problem> {
    match std::fs::read(dir.join("journal.jsonl")) {
        Ok(bytes) => parse(&bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)], dir),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => has_journal(dir).map(|()| Vec::new()),
        Err(e) => Err(unusable(dir, &e)),
    }
}

/// The journal is there before `run.json` is: a run without one is no run that did nothing.
fn has_journal(dir: &Path) -> Result<(), Problem> {
    if dir.join("journal.jsonl").exists() {
        return Ok(());
    }
    Err(Problem::new(Kind::Diverged, format!("the journal {} is missing", dir.join("journal.jsonl").display()))
        .hint("what the run did is not known: nothing was sent")
        .hint("put the file back, or look for the annotations pvmigrate.io/… on volumes and workloads"))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    match std::fs::read_dir(dir) {
        Ok(list) => Ok(list.filter_map(|entry| entry.ok().map(|e| e.path())).filter(|path| path.is_dir()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(unusable(dir, &e)),
    }
}

/// A server's words never become a path: anything but a uid's characters is hashed.
pub fn safe(text: &str) -> String {
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        text.to_owned()
    } else {
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}

impl RunFile {
    /// Reads what `place` has.
    ///
    /// # Errors
    /// If another version wrote it, or it is damaged.
    pub fn parse(value: Json, place: &str) -> Result<Self, Problem> {
        if value["v"] != super::VERSION {
            return Err(Problem::new(
                Kind::Diverged,
                format!("the run in {place} was made by another version of pvmigrate (format {})", value["v"]),
            )
            .hint(format!("use the version that began it: {}", value["tool"].as_str().unwrap_or("unknown"))));
        }
        serde_json::from_value(value)
            .map_err(|e| Problem::new(Kind::Diverged, format!("the run file in {place} is damaged")).because(&e))
    }

    pub fn new(run: RunId, script: &str) -> Self {
        RunFile {
            v: super::VERSION,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            run,
            cluster_uid: String::new(),
            server: String::new(),
            context: String::new(),
            namespace: String::new(),
            argv: Vec::new(),
            script: script.to_owned(),
            args: Json::Null,
            yes: false,
            began: Clock.stamp(),
            sources: Vec::new(),
        }
    }
}
