//! Where records live: a file of JSON lines that one process at a time holds.
//!
//! What must stay true: `append(_, durable: true)` returns only after `fdatasync`; a torn last line is cut off when the
//! file is opened, any other damage is an error.

use super::{Event, VERSION};
use crate::words::{Json, Kind, Problem};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a journal needs of its place.
pub trait Store: Send + Sync {
    /// Every whole record, oldest first.
    fn load(&self) -> Result<Vec<Event>, Problem>;
    /// The same one by one, for whoever keeps little of each.
    ///
    /// # Errors
    /// If they cannot be read, or what `take` says.
    fn each(&self, take: &mut dyn FnMut(Event) -> Result<(), Problem>) -> Result<(), Problem> {
        self.load()?.into_iter().try_for_each(take)
    }
    /// After `Ok` with `durable`, this record and all before it survive a crash of the machine. After `Err` it is not
    /// known whether the record exists.
    fn append(&self, event: &Event, durable: bool) -> Result<(), Problem>;
    /// Keeps a large result, durably, and returns its name.
    fn put_blob(&self, text: &str) -> Result<String, Problem>;
    fn get_blob(&self, name: &str) -> Result<Json, Problem>;
    /// What names the lock on this place, if there is one that dies with its process: whoever has a lock of the same name
    /// knows that the process before is dead.
    fn lock_name(&self) -> Option<String> {
        None
    }
    /// True if a process elsewhere can write to it: then even what need not be durable is recorded inside of the fence only.
    fn is_shared(&self) -> bool {
        false
    }
    /// Whether another process has added records since these were read: asked once the fence holds.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn has_more(&self) -> Result<bool, Problem> {
        Ok(false)
    }
    /// This process adds nothing more: what still waits is written.
    fn close(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// The store in a run's directory.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    file: Mutex<File>,
    /// A record could not be written: the next one would stand behind what nobody can read.
    broken: AtomicBool,
    /// How many blobs were begun.
    halves: AtomicU64,
    /// Held as long as the store lives: the second process gets an error.
    lock: File,
}

impl FileStore {
    /// Opens or makes the journal in `dir`, which must exist.
    ///
    /// # Errors
    /// If another process holds it, or the directory cannot be written.
    pub fn open(dir: &Path) -> Result<Self, Problem> {
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(dir.join("lock"))
            .map_err(|e| unusable(dir, &e))?;
        if let Err(errno) = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            return Err(if errno == rustix::io::Errno::WOULDBLOCK {
                Problem::new(Kind::Conflict, "this run is being executed by another process")
                    .hint("wait for it, or stop it first")
            } else {
                unusable(dir, &std::io::Error::from(errno))
            });
        }
        let file = private(OpenOptions::new().create(true).truncate(false).read(true).append(true))
            .open(dir.join("journal.jsonl"))
            .map_err(|e| unusable(dir, &e))?;
        // The names of new files are durable only with their directory.
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| unusable(dir, &e))?;
        Ok(FileStore {
            dir: dir.to_owned(),
            file: Mutex::new(file),
            lock,
            broken: AtomicBool::new(false),
            halves: AtomicU64::new(0),
        })
    }
}

impl Store for FileStore {
    fn load(&self) -> Result<Vec<Event>, Problem> {
        let mut events = Vec::new();
        self.each(&mut |event| {
            events.push(event);
            Ok(())
        })?;
        Ok(events)
    }

    fn each(&self, take: &mut dyn FnMut(Event) -> Result<(), Problem>) -> Result<(), Problem> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind().map_err(|e| unusable(&self.dir, &e))?;
        let (mut whole, mut number, mut line) = (0, 0, Vec::new());
        let mut reader = BufReader::with_capacity(256 << 10, &*file);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(|e| unusable(&self.dir, &e))?;
            if line.pop() != Some(b'\n') {
                break;
            }
            whole += bytes as u64;
            if !line.is_empty() {
                number += 1;
                take(record(&line, number, &self.dir)?)?;
            }
        }
        // A record without its newline was never acknowledged: nothing was sent because of it.
        if file.metadata().map_err(|e| unusable(&self.dir, &e))?.len() > whole {
            file.set_len(whole).and_then(|()| file.sync_data()).map_err(|e| unusable(&self.dir, &e))?;
        }
        Ok(())
    }

    fn append(&self, event: &Event, durable: bool) -> Result<(), Problem> {
        let mut line = serde_json::to_vec(event).expect("records are plain data");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // After half a record, or one that may not be on disk, nothing more is written: it would follow what the next
        // process cannot read, or count on what it does not find.
        if self.broken.load(Ordering::SeqCst) {
            return Err(Problem::new(Kind::Local, "the journal could not be written before: nothing more is recorded")
                .hint(format!("free space or permissions in {}, then resume", self.dir.display())));
        }
        file.write_all(&line).and_then(|()| if durable { file.sync_data() } else { Ok(()) }).map_err(|e| {
            self.broken.store(true, Ordering::SeqCst);
            Problem::local("the journal cannot be written", &e)
                .hint(format!("free space or permissions in {}, then resume", self.dir.display()))
        })
    }

    fn lock_name(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        // The file itself, on this very machine since it started: a copy of the directory is another one.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let file = self.lock.metadata().ok()?;
        Some(format!("{}:{}:{}", boot.trim(), file.dev(), file.ino()))
    }

    fn put_blob(&self, text: &str) -> Result<String, Problem> {
        let name = blake3::hash(text.as_bytes()).to_hex()[..32].to_owned();
        let dir = self.dir.join("blobs");
        let path = dir.join(&name);
        if path.exists() {
            return Ok(name);
        }
        // Branches that read the same at the same time write it each for itself.
        let half = dir.join(format!("{name}.half-{}", self.halves.fetch_add(1, Ordering::SeqCst)));
        std::fs::create_dir_all(&dir)
            .and_then(|()| {
                let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(&half)?;
                file.write_all(text.as_bytes())?;
                file.sync_data()?;
                std::fs::rename(&half, &path)?;
                File::open(&dir)?.sync_all()
            })
            .map_err(|e| unusable(&self.dir, &e))?;
        Ok(name)
    }

    fn get_blob(&self, name: &str) -> Result<Json, Problem> {
        let damaged = || Problem::new(Kind::Diverged, format!("blob {name} of the journal is damaged")).hint(KEEP);
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(damaged());
        }
        let text = std::fs::read_to_string(self.dir.join("blobs").join(name)).map_err(|e| unusable(&self.dir, &e))?;
        if blake3::hash(text.as_bytes()).to_hex()[..32] != *name {
            return Err(damaged());
        }
        serde_json::from_str(&text).map_err(|e| damaged().because(&e))
    }
}

/// Parses whole lines.
pub(super) fn parse(bytes: &[u8], dir: &Path) -> Result<Vec<Event>, Problem> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.enumerate().map(|(at, line)| record(line, at + 1, dir)).collect()
}

fn record(line: &[u8], number: usize, dir: &Path) -> Result<Event, Problem> {
    serde_json::from_slice(line).map_err(|e| {
        // What another version adds may be what cannot be read here.
        let version = serde_json::from_slice::<Json>(line).ok().and_then(|line| line["v"].as_u64());
        match version {
            Some(v) if v != u64::from(VERSION) => another_version(number as u64 - 1, v),
            _ => Problem::new(
                Kind::Diverged,
                format!("line {number} of {} is damaged", dir.join("journal.jsonl").display()),
            )
            .because(&e)
            .hint(KEEP),
        }
    })
}

/// What to do with a journal that says nothing certain any more.
pub(super) const KEEP: &str = "nothing was sent; keep the run's directory and compare it with the cluster by hand";

pub(super) fn another_version(n: u64, v: u64) -> Problem {
    Problem::new(
        Kind::Diverged,
        format!("another version of pvmigrate wrote this journal: record {n} has format {v}, this one reads {VERSION}"),
    )
    .hint("nothing was sent; go on with the version that wrote it")
}

/// Journals may hold what only the operator should read.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

pub(super) fn unusable(dir: &Path, cause: &std::io::Error) -> Problem {
    Problem::local(format!("the state directory {} cannot be used", dir.display()), cause)
        .hint("give another one with --state-dir, or free space and permissions")
}
