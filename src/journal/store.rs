//! Where records live: a file of JSON lines that one process at a time holds.
//!
//! What must stay true: `append(_, durable: true)` returns only after `fdatasync`; a torn last line is cut off when the
//! file is opened, any other damage is an error.

use super::Event;
use crate::words::{Json, Kind, Problem};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a journal needs of its place.
pub trait Store: Send + Sync {
    /// Every whole record, oldest first.
    fn load(&self) -> Result<Vec<Event>, Problem>;
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
        Ok(FileStore { dir: dir.to_owned(), file: Mutex::new(file), lock, broken: AtomicBool::new(false) })
    }
}

impl Store for FileStore {
    fn load(&self) -> Result<Vec<Event>, Problem> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| unusable(&self.dir, &e))?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            // A record without its newline was never acknowledged: nothing was sent because of it.
            file.set_len(whole as u64).and_then(|()| file.sync_data()).map_err(|e| unusable(&self.dir, &e))?;
        }
        parse(&bytes[..whole])
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
        let half = dir.join(format!("{name}.half"));
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
        let text = std::fs::read_to_string(self.dir.join("blobs").join(name)).map_err(|e| unusable(&self.dir, &e))?;
        if blake3::hash(text.as_bytes()).to_hex()[..32] != *name {
            return Err(Problem::new(Kind::Diverged, format!("blob {name} of the journal is damaged")));
        }
        serde_json::from_str(&text)
            .map_err(|e| Problem::new(Kind::Diverged, format!("blob {name} of the journal is damaged")).because(&e))
    }
}

/// Parses whole lines.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Event>, Problem> {
    bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|e| {
                Problem::new(Kind::Diverged, format!("line {} of the journal is damaged", number + 1)).because(&e)
            })
        })
        .collect()
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
