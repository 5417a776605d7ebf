//! Our own engine: the target made equal to the source, by as many threads as make it faster.
//!
//! Not the pass (its time, the flush before and after and the scan are `copy`'s) and not a judge of the result (that
//! is `verify`). Called by `copy`. What must stay true: the source is never written to; nothing outside of the target
//! is touched and no link followed, whatever is changed meanwhile; an inode of the target belongs to one inode of the
//! source; memory grows with the largest directory and the hard-linked files only; it ends with every error told.
//!
//! A directory is a task: first goes what the source does not have, then its names are made, many of them by several
//! threads, and whoever does the last of it gives the directory its own metadata: nothing is changed in it after that.
//! Sub-directories are tasks of their own. A large file is made in pieces, each a task.

mod content;
mod file;
mod links;
mod meta;
mod outcome;
mod remove;
mod share;

use super::crew::{self, Crew};
use super::file_system;
use super::pace::Pace;
use super::rsync::Transfer;
use super::stop::Stop;
use super::tree::{self, Detail, Names, Node, Root};
use super::trust::{self, ALWAYS, Trust};
use super::tune::Tuner;
use crate::copy::report::{FailKind, Pass};
use crate::copy::waive::Waive;
use content::Buffers;
use file::{Dir, Found, Large, Made, Worker};
use links::{Claim, First, Links, id};
use meta::Entry;
pub use outcome::{Outcome, get};
use outcome::{Trouble, add};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use share::Sharing;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a report calls this engine.
pub const NAME: &str = "native";

/// So many names of a directory are one task: more than their taking costs, and few enough for all to have some.
const NAMES_AT_ONCE: usize = 32;

/// A small file weighs as much as so many bytes of a large one.
const BYTES_OF_A_FILE: f64 = 131_072.0;

/// Two open trees and the pass rule.
pub struct Job<'a> {
    pub source: &'a Root,
    pub target: &'a Root,
    pub pass: Pass,
    pub trust: Trust,
    /// True if an empty source is meant, and empties the target too.
    pub allow_empty: bool,
    /// How many threads; as many as make it faster if nothing is said.
    pub workers: Option<usize>,
    /// Bytes of content per second at most.
    pub bandwidth: Option<u64>,
    /// What the target may be without.
    pub waive: Waive,
}

/// A volume that was not mounted, or the directory of another node, looks like this in any pass.
pub const SUDDENLY_EMPTY: &str = "the source is empty and the target is not: nothing is deleted from the target; if the \
                                  source is meant to be empty, begin anew with an empty target, or allow it \
                                  (--allow-empty)";

/// Makes the target equal. What came of it is in the outcome; `see` is told how far it is.
pub fn run<'a>(job: &Job<'_>, stop: &'a Stop, see: &mut dyn FnMut(Transfer)) -> Outcome<'a> {
    let outcome = Outcome::new(job.pass, job.waive, stop);
    let as_root = rustix::process::geteuid().is_root();
    let flush_each = !file_system::flush_tells(job.target);
    let pace = Pace::new(job.bandwidth);
    let sharing = Sharing::between(job.source, job.target);
    let worker = Worker { outcome: &outcome, stop, pace, sharing, trust: job.trust, as_root, flush_each };
    let walk = Walk {
        job,
        outcome: &outcome,
        as_root,
        worker,
        links: Links::default(),
        open: AtomicU64::new(0),
        late: Mutex::default(),
    };
    let root = Place { path: Vec::new(), above: ALWAYS, ctime: ALWAYS, is_new: false };
    let mut tuner = Tuner::new(job.workers);
    crew::run(Task::Enter(root), &mut tuner, Buffers::new, |crew, own, task| walk.work(crew, own, task), &mut || {
        let (done, bytes) = (get(&outcome.entries), get(&outcome.bytes));
        see(Transfer { bytes, entries: Some((done, done)) });
        done as f64 + bytes as f64 / BYTES_OF_A_FILE
    });
    if !outcome.is_over() {
        walk.late();
        walk.check();
    }
    outcome
}

/// A directory that is there on both sides and not yet looked into.
struct Place {
    path: Vec<u8>,
    /// When the directory that it is in was put in its place at the latest, and that one's ctime, in the source.
    above: i128,
    ctime: i128,
    /// It was made just now: nothing is in it.
    is_new: bool,
}

/// The source's names in a directory, and which of them the target had.
struct Listed {
    dir: Arc<Dir>,
    names: Names,
    held: Vec<bool>,
}

enum Task {
    Enter(Place),
    Make(Arc<Listed>, Range<usize>),
    /// Another name of an inode, after its first name could not be made.
    Again(Arc<Dir>, Vec<u8>),
    Piece(Arc<Large>, Range<u64>),
}

struct Walk<'a> {
    job: &'a Job<'a>,
    outcome: &'a Outcome<'a>,
    as_root: bool,
    worker: Worker<'a>,
    links: Links,
    /// Directories that are begun and not finished.
    open: AtomicU64,
    /// Directories whose mode would keep us out of what is below them.
    late: Mutex<Vec<(Vec<u8>, Node)>>,
}

impl Walk<'_> {
    fn work(&self, crew: &Crew<Task>, buffers: &mut Buffers, task: Task) {
        if self.outcome.is_over() {
            return;
        }
        match task {
            Task::Enter(place) => {
                let is_root = place.path.is_empty();
                let path = place.path.clone();
                if let Err(mut trouble) = self.enter(crew, buffers, place) {
                    // In a hot pass what is gone is passed over; but the root is everything, and what is still there would
                    // be trusted by the next pass without having been looked at.
                    if trouble.kind == FailKind::Vanished && (is_root || is_there(self.job.source, &path)) {
                        trouble.kind = FailKind::Io;
                    }
                    self.outcome.tell(trouble);
                }
            }
            Task::Make(listed, range) => self.make(crew, buffers, &listed, range),
            Task::Again(dir, name) => {
                match self.entry(crew, buffers, &dir, &name, true) {
                    Ok(pieces) => crew.urgent(pieces),
                    Err(trouble) => self.outcome.tell(trouble),
                }
                self.leave(&dir);
            }
            Task::Piece(large, range) => {
                if let Some(made) = self.worker.piece(&large, range, buffers) {
                    self.end(crew, &large.found, made);
                    self.leave(&large.found.dir);
                }
            }
        }
    }

    /// Opens a directory on both sides and makes what is in it, or sees to it that it is made.
    fn enter(&self, crew: &Crew<Task>, buffers: &mut Buffers, place: Place) -> Result<(), Trouble> {
        let Place { path, above, ctime, is_new } = place;
        let (from, to) = (self.job.source, self.job.target);
        let in_source = |e: &io::Error| Trouble::source("listing", &path, e);
        let in_target = |e: &io::Error| Trouble::target("listing", &path, e);
        let source = tree::open_unseen(from, &path, OFlags::DIRECTORY).map_err(|e| in_source(&e))?;
        // Before its names: what is changed in it from here on moves its time to after this one.
        let own = read(&source, b".", Detail::All).map_err(|e| in_source(&e))?;
        if to.is(&own) {
            return Err(Trouble::overlap(&path));
        }
        let names = tree::names(from, &path, &source).map_err(|e| in_source(&e))?;
        let (target, held) = if is_new {
            (to.open_in(&path, OFlags::DIRECTORY).map_err(|e| in_target(&e))?, Names::default())
        } else {
            tree::list(to, &path).map_err(|e| in_target(&e))?
        };
        let at = read(&target, b".", Detail::Stat).map_err(|e| Trouble::target("reading", &path, &e))?;
        for (root, node) in [(from, &own), (to, &at)] {
            if !root.is_on_same(node) {
                return Err(Trouble::source("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
            }
        }
        if path.is_empty() && names.is_empty() && !held.is_empty() && !self.job.allow_empty {
            return Err(Trouble { kind: FailKind::Other, text: SUDDENLY_EMPTY.to_owned() });
        }
        let (attributes, _) =
            tree::xattrs_of(&target).map_err(|e| Trouble::target("reading the attributes of", &path, &e))?;
        let inherits = attributes.iter().any(|(name, _)| name == b"system.posix_acl_default");
        let arrived = trust::arrived(above, [own.ctime, ctime]);
        let dir = Arc::new(Dir::new(path, source, target, own, arrived, inherits));
        self.open.fetch_add(1, Ordering::Relaxed);
        // What goes makes room for what comes.
        let mut is_held = vec![false; names.len()];
        let mut next = 0;
        for name in tree::merge(&names, &held) {
            if name.in_source {
                is_held[next] = name.in_target;
                next += 1;
            } else if !self.outcome.is_over() {
                self.tell(self.extra(&dir, name.bytes));
            }
        }
        let all = names.len();
        let listed = Arc::new(Listed { dir, names, held: is_held });
        if all <= NAMES_AT_ONCE {
            self.make(crew, buffers, &listed, 0..all);
            return Ok(());
        }
        let part = |n: usize| n * NAMES_AT_ONCE..((n + 1) * NAMES_AT_ONCE).min(all);
        let parts = (0..all.div_ceil(NAMES_AT_ONCE)).map(part);
        // One is counted already.
        parts.clone().skip(1).for_each(|_| listed.dir.enter());
        // The first ones are taken first.
        crew.urgent(parts.rev().map(|part| Task::Make(listed.clone(), part)));
        Ok(())
    }

    fn make(&self, crew: &Crew<Task>, buffers: &mut Buffers, listed: &Arc<Listed>, range: Range<usize>) {
        for n in range.clone() {
            if self.outcome.is_over() {
                return;
            }
            match self.entry(crew, buffers, &listed.dir, listed.names.get(n), listed.held[n]) {
                Ok(pieces) if pieces.is_empty() => {}
                Ok(pieces) => {
                    // A large file is open until its last piece is made: those go before the rest.
                    let rest = Task::Make(listed.clone(), n + 1..range.end);
                    return crew.urgent([rest].into_iter().chain(pieces));
                }
                Err(trouble) => self.outcome.tell(trouble),
            }
        }
        self.leave(&listed.dir);
    }

    fn tell(&self, made: Result<(), Trouble>) {
        if let Err(trouble) = made {
            self.outcome.tell(trouble);
        }
    }

    /// Something in the directory is done; after the last of it comes its own metadata, and nothing will change in it
    /// any more.
    fn leave(&self, dir: &Dir) {
        if dir.leave() && !self.outcome.is_over() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.tell(self.finish(dir));
        }
    }

    fn finish(&self, dir: &Dir) -> Result<(), Trouble> {
        let own = &dir.own;
        add(&self.outcome.entries, 1);
        if self.job.pass == Pass::Final {
            let now = read(&dir.source, b".", Detail::Now).map_err(|e| Trouble::source("reading", &dir.path, &e))?;
            if (now.mtime, now.ctime) != (own.mtime, own.ctime) {
                return Err(Trouble::changed(&dir.path));
            }
        }
        if !self.as_root && own.mode & 0o500 != 0o500 {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push((dir.path.clone(), own.clone()));
            return Ok(());
        }
        let entry = Entry { dir: &dir.target, name: b".", path: &dir.path, as_root: self.as_root };
        entry.settle_directory(own, self.outcome)
    }

    /// Everything that was begun is over, or the pass is not.
    fn check(&self) {
        let open = self.open.load(Ordering::Relaxed);
        if open > 0 || self.links.is_making() {
            let text = format!("{open} directories were not finished: this is a bug of the engine");
            self.outcome.tell(Trouble { kind: FailKind::Other, text });
        }
    }

    /// The modes that would have kept us out, those below first.
    fn late(&self) {
        let mut late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        for (path, own) in late {
            let opened = self.job.target.open_in(&path, OFlags::DIRECTORY);
            let opened = opened.map_err(|e| Trouble::target("opening", &path, &e));
            self.tell(opened.and_then(|dir| {
                Entry { dir: &dir, name: b".", path: &path, as_root: self.as_root }.settle_directory(&own, self.outcome)
            }));
        }
    }

    /// What the source does not have goes, in hot passes too: a file that became a directory could not be replaced
    /// otherwise, and a workload that rotates its files would fill the target with what it has long removed.
    fn extra(&self, dir: &Dir, name: &[u8]) -> Result<(), Trouble> {
        let path = tree::join(&dir.path, name);
        let entry = Entry { dir: &dir.target, name, path: &path, as_root: self.as_root };
        match entry.look()? {
            Some(node) => remove::remove(self.job, &entry, &node, self.outcome),
            None => Ok(()),
        }
    }

    /// What the source has under a name; `is_held`: the target had something under it too. Returns the pieces of a large
    /// file, which are still to be made.
    fn entry(
        &self,
        crew: &Crew<Task>,
        buffers: &mut Buffers,
        dir: &Arc<Dir>,
        name: &[u8],
        is_held: bool,
    ) -> Result<Vec<Task>, Trouble> {
        let path = tree::join(&dir.path, name);
        let source = read(&dir.source, name, self.detail()).map_err(|e| Trouble::source("reading", &path, &e))?;
        if !self.job.source.is_on_same(&source) {
            return Err(Trouble::source("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
        }
        let entry = Entry { dir: &dir.target, name, path: &path, as_root: self.as_root };
        // An empty one is not listed.
        let is_held = is_held || (dir.path.is_empty() && name == tree::LOST_FOUND);
        let target = if is_held { entry.look()? } else { None };
        if target.as_ref().is_some_and(|held| !self.job.target.is_on_same(held)) {
            return Err(Trouble::target("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
        }
        let is_dir = |node: &Node| node.kind == FileType::Directory;
        let contains = is_dir(&source) && self.job.target.is(&source);
        if contains || target.as_ref().is_some_and(|held| is_dir(held) && self.job.source.is(held)) {
            return Err(Trouble::overlap(&path));
        }
        if is_dir(&source) {
            let is_new = self.make_directory(&entry, target)?;
            crew.later(Task::Enter(Place { path, above: dir.arrived, ctime: dir.own.ctime, is_new }));
            return Ok(Vec::new());
        }
        add(&self.outcome.entries, 1);
        add(&self.outcome.files, u64::from(source.kind == FileType::RegularFile));
        if source.nlink > 1 {
            match self.links.claim(&source, dir, name) {
                Claim::Make => {}
                Claim::Wait => return Ok(Vec::new()),
                Claim::Link(first) => return self.link(&entry, target, &first).map(|()| Vec::new()),
                // Two files instead of one would be no copy of anything that ever was.
                Claim::Changed if self.job.pass == Pass::Final => return Err(Trouble::changed(&path)),
                Claim::Changed => {}
            }
        }
        if source.kind == FileType::RegularFile {
            add(&self.outcome.bytes_found, source.size);
        }
        let mut found = Found { dir: dir.clone(), name: name.to_vec(), path, source, target };
        let made = self.usable(&mut found).and_then(|()| match found.source.kind {
            FileType::RegularFile => self.worker.file(&found, buffers),
            _ => self.make_other(&found).map(|()| Made::Done),
        });
        match made {
            Ok(Made::InPieces(large, pieces)) => {
                dir.enter();
                return Ok(pieces.into_iter().rev().map(|piece| Task::Piece(large.clone(), piece)).collect());
            }
            Ok(Made::Done) => self.end(crew, &found, Ok(())),
            Err(trouble) => self.end(crew, &found, Err(trouble)),
        }
        Ok(Vec::new())
    }

    /// An entry is made, or could not be. Its other names follow.
    fn end(&self, crew: &Crew<Task>, found: &Found, made: Result<(), Trouble>) {
        let is_made = made.is_ok();
        self.tell(made);
        if found.source.nlink < 2 || self.outcome.is_over() {
            return;
        }
        let held = match found.entry(self.as_root).look() {
            Ok(held) => held.filter(|_| is_made),
            Err(trouble) => return self.outcome.tell(trouble),
        };
        let Some(held) = held else {
            let waiting = self.links.failed(&found.source);
            return crew.urgent(waiting.into_iter().map(|(dir, name)| Task::Again(dir, name)));
        };
        let first = First { path: found.path.as_slice().into(), target: id(&held) };
        for (dir, name) in self.links.made(&found.source, first.clone()) {
            let path = tree::join(&dir.path, &name);
            let entry = Entry { dir: &dir.target, name: &name, path: &path, as_root: self.as_root };
            self.tell(entry.look().and_then(|target| self.link(&entry, target, &first)));
            self.leave(&dir);
        }
    }

    /// True if it was not there before.
    fn make_directory(&self, entry: &Entry<'_>, target: Option<Node>) -> Result<bool, Trouble> {
        let failed = |e: &io::Error| Trouble::target("making directory", entry.path, e);
        match target {
            Some(held) if held.kind == FileType::Directory => {
                if !self.as_root && held.mode & 0o700 != 0o700 {
                    entry.chmod(held.mode | 0o700).map_err(|e| failed(&e))?;
                }
                Ok(false)
            }
            other => {
                if let Some(held) = other {
                    remove::remove(self.job, entry, &held, self.outcome)?;
                }
                rustix::fs::mkdirat(entry.dir, entry.name, Mode::RWXU).map_err(|e| failed(&e.into()))?;
                Ok(true)
            }
        }
    }

    /// Another name of what was made already.
    fn link(&self, entry: &Entry<'_>, target: Option<Node>, first: &First) -> Result<(), Trouble> {
        if let Some(held) = target {
            if id(&held) == first.target {
                return Ok(());
            }
            remove::remove(self.job, entry, &held, self.outcome)?;
        }
        let failed = |e: &io::Error| Trouble::target("making hard link", entry.path, e);
        let (parent, name) = tree::split(&first.path);
        let parent = self.job.target.open_in(parent, OFlags::DIRECTORY).map_err(|e| failed(&e))?;
        rustix::fs::linkat(&parent, name, entry.dir, entry.name, AtFlags::empty()).map_err(|e| failed(&e.into()))?;
        match entry.look()? {
            Some(now) if id(&now) == first.target => Ok(()),
            _ => Err(Trouble::meddled(entry.path)),
        }
    }

    /// Leaves what stands in the target if it can become the source's entry; else it is removed. It cannot if it is of
    /// another type, if it is the source's very inode, or if it is also the name of something else in the source:
    /// then whatever one of them got, the other would get too.
    fn usable(&self, found: &mut Found) -> Result<(), Trouble> {
        let Some(held) = found.target.take() else { return Ok(()) };
        let source = &found.source;
        let is_free = held.nlink < 2 || self.links.is_free(&held, source);
        if held.kind == source.kind && id(&held) != id(source) && is_free {
            found.target = Some(held);
            return Ok(());
        }
        let entry = found.entry(self.as_root);
        if held.kind == source.kind {
            // One name of several; nothing is lost by it, so it does not count as deleted.
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty())
                .map_err(|e| Trouble::target("replacing", entry.path, &e.into()))?;
        } else {
            remove::remove(self.job, &entry, &held, self.outcome)?;
        }
        Ok(())
    }

    /// Symbolic links, FIFOs, sockets and devices.
    fn make_other(&self, found: &Found) -> Result<(), Trouble> {
        let (source, entry) = (&found.source, found.entry(self.as_root));
        let now = read(&found.dir.source, entry.name, Detail::All).map_err(|e| match e.raw_os_error() {
            // It was a link when it was looked at, and none when it was read.
            Some(22) if source.kind == FileType::Symlink => Trouble::changed(entry.path),
            _ => Trouble::source("reading", entry.path, &e),
        })?;
        if (id(&now), now.kind) != (id(source), source.kind) {
            return Err(Trouble::changed(entry.path));
        }
        if now.kind == FileType::CharacterDevice && now.rdev == 0 {
            add(&self.outcome.whiteouts, 1);
        }
        let failed = |e: &io::Error| Trouble::target("making", entry.path, e);
        let is_equal = match &found.target {
            None => false,
            Some(_) if now.kind == FileType::Symlink => {
                let link = rustix::fs::readlinkat(entry.dir, entry.name, Vec::new()).map_err(|e| failed(&e.into()))?;
                link.to_bytes() == now.link
            }
            Some(held) => {
                !matches!(now.kind, FileType::CharacterDevice | FileType::BlockDevice) || held.rdev == now.rdev
            }
        };
        if found.target.is_some() && !is_equal {
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty()).map_err(|e| failed(&e.into()))?;
        }
        if !is_equal {
            let made = match now.kind {
                FileType::Symlink => rustix::fs::symlinkat(&now.link[..], entry.dir, entry.name),
                kind => rustix::fs::mknodat(entry.dir, entry.name, kind, Mode::RUSR | Mode::WUSR, now.rdev),
            };
            made.map_err(|e| failed(&e.into()))?;
        }
        entry.settle(&now, self.outcome)
    }

    /// When nobody writes any more, what a network file system remembers is not good enough.
    fn detail(&self) -> Detail {
        if self.job.pass == Pass::Final { Detail::Now } else { Detail::Stat }
    }
}

/// True unless it is certain that nothing has this name in the source.
fn is_there(source: &Root, path: &[u8]) -> bool {
    let (parent, name) = tree::split(path);
    match source.open_in(parent, OFlags::DIRECTORY) {
        Ok(parent) => !tree::node(&parent, name, Detail::Now).is_err_and(|e| e.kind() == io::ErrorKind::NotFound),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn read(dir: &OwnedFd, name: &[u8], detail: Detail) -> io::Result<Node> {
    tree::node(dir, name, detail)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}
