//! Our own engine: the target made equal to the source, directory by directory.
//!
//! Not the pass (its time, the flush before and after and the scan are `copy`'s) and not a judge of the result (that
//! is `verify`). Called by `copy`. What must stay true: the source is never written to; nothing outside of the target
//! is touched and no link followed, whatever is changed meanwhile; an inode of the target belongs to one inode of the
//! source; memory grows with the largest directory and the hard-linked files only; it ends with every error told.
//!
//! In a directory first goes what the source does not have, then everything is made, and at last the directory gets
//! its own metadata: nothing is changed in it after that. Sub-directories follow.

mod content;
mod file;
mod meta;
mod outcome;
mod pool;
mod remove;

use super::file_system;
use super::rsync::Transfer;
use super::stop::Stop;
use super::tree::{self, Detail, Node, Root};
use super::trust::{self, ALWAYS, Trust};
use crate::copy::report::{FailKind, Pass};
use file::{Dir, Worker};
use meta::Entry;
pub use outcome::{Outcome, get};
use outcome::{Trouble, add};
use pool::{Pool, Task};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a report calls this engine.
pub const NAME: &str = "native";

/// Files that are made at once: on network storage most of their time is waiting, on a disk more would only seek.
const THREADS: usize = 4;

/// Two open trees and the pass rule.
pub struct Job<'a> {
    pub source: &'a Root,
    pub target: &'a Root,
    pub pass: Pass,
    pub trust: Trust,
    /// True if an empty source is meant, and empties the target too.
    pub allow_empty: bool,
}

/// A volume that was not mounted, or the directory of another node, looks like this in any pass.
pub const SUDDENLY_EMPTY: &str = "the source is empty and the target is not: nothing is deleted from the target; if the \
                                  source is meant to be empty, begin anew with an empty target, or allow it \
                                  (--allow-empty)";

/// Makes the target equal. What came of it is in the outcome; `see` is told how far it is.
pub fn run<'a>(job: &Job<'_>, stop: &'a Stop, see: &mut dyn FnMut(Transfer)) -> Outcome<'a> {
    let outcome = Outcome::new(job.pass, stop);
    let as_root = rustix::process::geteuid().is_root();
    let worker =
        Worker { outcome: &outcome, trust: job.trust, as_root, flush_each: !file_system::flush_tells(job.target) };
    std::thread::scope(|threads| {
        let pool = Pool::start(threads, THREADS, &worker);
        let mut walk = Walk {
            job,
            outcome: &outcome,
            as_root,
            pool,
            see,
            stack: vec![Place { path: Vec::new(), above: ALWAYS, ctime: ALWAYS }],
            linked: HashMap::new(),
            owners: HashMap::new(),
            late: Vec::new(),
        };
        walk.all();
    });
    outcome
}

/// Device and inode.
type Id = (u64, u64);

fn id(node: &Node) -> Id {
    (node.dev, node.ino)
}

/// The first name of a hard-linked inode of the source, as it was made.
struct First {
    path: Vec<u8>,
    target: Id,
    /// Of the source: another one means that it was changed, or is another inode of the same number.
    ctime: i128,
}

/// A directory that is there on both sides and not yet looked into.
struct Place {
    path: Vec<u8>,
    /// When the directory that it is in was put in its place at the latest, and that one's ctime, in the source.
    above: i128,
    ctime: i128,
}

struct Walk<'a> {
    job: &'a Job<'a>,
    outcome: &'a Outcome<'a>,
    as_root: bool,
    pool: Pool,
    see: &'a mut dyn FnMut(Transfer),
    stack: Vec<Place>,
    linked: HashMap<Id, First>,
    /// To which inode of the source an inode of the target that has several names belongs.
    owners: HashMap<Id, Id>,
    /// Directories whose mode would keep us out of what is below them.
    late: Vec<(Vec<u8>, Node)>,
}

impl Walk<'_> {
    fn all(&mut self) {
        while let Some(place) = self.stack.pop() {
            if self.outcome.is_over() {
                return;
            }
            let is_root = place.path.is_empty();
            if let Err(mut trouble) = self.directory(place) {
                if is_root && trouble.kind == FailKind::Vanished && self.job.pass == Pass::Hot {
                    // In a hot pass what is gone is passed over, but this is everything.
                    trouble.kind = FailKind::Io;
                }
                self.outcome.tell(trouble);
            }
        }
        for (path, own) in std::mem::take(&mut self.late).into_iter().rev() {
            let opened = self.job.target.open_in(&path, OFlags::DIRECTORY);
            let settled = opened
                .map_err(|e| Trouble::target("opening", &path, &e))
                .and_then(|dir| Entry { dir: &dir, name: b".", path: &path, as_root: self.as_root }.settle(&own));
            if let Err(trouble) = settled {
                self.outcome.tell(trouble);
            }
        }
    }

    /// Makes everything in one directory but what is below its sub-directories.
    fn directory(&mut self, place: Place) -> Result<(), Trouble> {
        let Place { path, above, ctime } = place;
        let (from, to) = (self.job.source, self.job.target);
        let in_source = |e: &io::Error| Trouble::source("listing", &path, e);
        let source = tree::open_unseen(from, &path, OFlags::DIRECTORY).map_err(|e| in_source(&e))?;
        // Before its names: what is changed in it from here on moves its time to after this one.
        let own = read(&source, b".", Detail::All).map_err(|e| in_source(&e))?;
        let in_source_names = tree::names(from, &path, &source).map_err(|e| in_source(&e))?;
        let (target, in_target_names) = tree::list(to, &path).map_err(|e| Trouble::target("listing", &path, &e))?;
        let held = read(&target, b".", Detail::Stat).map_err(|e| Trouble::target("reading", &path, &e))?;
        for (root, node) in [(from, &own), (to, &held)] {
            if !root.is_on_same(node) {
                return Err(Trouble::source("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
            }
        }
        let is_lost = path.is_empty() && in_source_names.is_empty() && !in_target_names.is_empty();
        if is_lost && !self.job.allow_empty {
            return Err(Trouble { kind: FailKind::Other, text: SUDDENLY_EMPTY.to_owned() });
        }
        let names: Vec<tree::Name> = tree::merge(in_source_names, in_target_names).collect();
        let arrived = trust::arrived(above, [own.ctime, ctime]);
        let dir = Arc::new(Dir { path, source, target, arrived, ctime: own.ctime });
        let first_child = self.stack.len();
        // What goes makes room for what comes.
        for name in names.iter().filter(|name| !name.in_source) {
            self.each(|walk| walk.extra(&dir, &name.bytes));
        }
        for name in names.iter().filter(|name| name.in_source) {
            self.each(|walk| walk.entry(&dir, &name.bytes));
        }
        self.wait();
        self.stack[first_child..].reverse();
        if self.outcome.is_over() {
            return Ok(());
        }
        self.finish(&dir, own)
    }

    fn each(&mut self, make: impl FnOnce(&mut Self) -> Result<(), Trouble>) {
        if self.outcome.is_over() {
            return;
        }
        if let Err(trouble) = make(self) {
            self.outcome.tell(trouble);
        }
        self.tick();
    }

    /// The directory's own metadata, when nothing in it will change any more.
    fn finish(&mut self, dir: &Dir, own: Node) -> Result<(), Trouble> {
        add(&self.outcome.entries, 1);
        if self.job.pass == Pass::Final {
            let now = read(&dir.source, b".", Detail::Now).map_err(|e| Trouble::source("reading", &dir.path, &e))?;
            if (now.mtime, now.ctime) != (own.mtime, own.ctime) {
                return Err(Trouble::changed(&dir.path));
            }
        }
        if !self.as_root && own.mode & 0o500 != 0o500 {
            self.late.push((dir.path.clone(), own));
            return Ok(());
        }
        Entry { dir: &dir.target, name: b".", path: &dir.path, as_root: self.as_root }.settle(&own)
    }

    /// What the source does not have goes, in hot passes too: a file that became a directory could not be replaced
    /// otherwise, and a workload that rotates its files would fill the target with what it has long removed.
    fn extra(&mut self, dir: &Dir, name: &[u8]) -> Result<(), Trouble> {
        let path = tree::join(&dir.path, name);
        let entry = Entry { dir: &dir.target, name, path: &path, as_root: self.as_root };
        match entry.look()? {
            Some(node) => remove::remove(self.job.target, &entry, &node, self.outcome),
            None => Ok(()),
        }
    }

    /// What the source has under a name.
    fn entry(&mut self, dir: &Arc<Dir>, name: &[u8]) -> Result<(), Trouble> {
        let path = tree::join(&dir.path, name);
        let source = read(&dir.source, name, self.detail()).map_err(|e| Trouble::source("reading", &path, &e))?;
        if !self.job.source.is_on_same(&source) {
            return Err(Trouble::source("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
        }
        let entry = Entry { dir: &dir.target, name, path: &path, as_root: self.as_root };
        let target = entry.look()?;
        if target.as_ref().is_some_and(|held| !self.job.target.is_on_same(held)) {
            return Err(Trouble::target("entering", &path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
        }
        if source.kind == FileType::Directory {
            return self.make_directory(dir, &entry, target);
        }
        add(&self.outcome.entries, 1);
        match self.linked.get(&id(&source)).filter(|_| source.nlink > 1) {
            Some(First { path: first, target: wanted, ctime }) if *ctime == source.ctime => {
                return self.link(&entry, target, first, *wanted);
            }
            // Two files instead of one would be no copy of anything that ever was.
            Some(_) if self.job.pass == Pass::Final => return Err(Trouble::changed(&path)),
            _ => {}
        }
        let target = self.usable(&entry, &source, target)?;
        if self.outcome.is_over() {
            return Ok(());
        }
        let is_linked = source.nlink > 1;
        let ctime = source.ctime;
        let source_id = id(&source);
        let mut made = true;
        if source.kind == FileType::RegularFile {
            let name = name.to_vec();
            if is_linked {
                self.wait();
            }
            let (outcome, see) = (self.outcome, &mut *self.see);
            self.pool.begin(Task { dir: dir.clone(), name, source, target }, &mut || tick(outcome, see));
            // The next name of it needs this one, if it was made.
            made = !is_linked || self.wait();
        } else {
            self.make_other(&dir.source, &entry, &source, target)?;
        }
        if is_linked
            && made
            && let Some(now) = entry.look()?
        {
            self.owners.insert(id(&now), source_id);
            self.linked.insert(source_id, First { path, target: id(&now), ctime });
        }
        Ok(())
    }

    fn make_directory(&mut self, dir: &Dir, entry: &Entry<'_>, target: Option<Node>) -> Result<(), Trouble> {
        let failed = |e: &io::Error| Trouble::target("making directory", entry.path, e);
        match target {
            Some(held) if held.kind == FileType::Directory => {
                if !self.as_root && held.mode & 0o700 != 0o700 {
                    entry.chmod(held.mode | 0o700).map_err(|e| failed(&e))?;
                }
            }
            other => {
                if let Some(held) = other {
                    remove::remove(self.job.target, entry, &held, self.outcome)?;
                }
                rustix::fs::mkdirat(entry.dir, entry.name, Mode::RWXU).map_err(|e| failed(&e.into()))?;
            }
        }
        self.stack.push(Place { path: entry.path.to_vec(), above: dir.arrived, ctime: dir.ctime });
        Ok(())
    }

    /// Another name of what was made already.
    fn link(&self, entry: &Entry<'_>, target: Option<Node>, first: &[u8], wanted: Id) -> Result<(), Trouble> {
        if let Some(held) = target {
            if id(&held) == wanted {
                return Ok(());
            }
            remove::remove(self.job.target, entry, &held, self.outcome)?;
        }
        let failed = |e: &io::Error| Trouble::target("making hard link", entry.path, e);
        let (parent, name) = tree::split(first);
        let parent = self.job.target.open_in(parent, OFlags::DIRECTORY).map_err(|e| failed(&e))?;
        rustix::fs::linkat(&parent, name, entry.dir, entry.name, AtFlags::empty()).map_err(|e| failed(&e.into()))?;
        match entry.look()? {
            Some(now) if id(&now) == wanted => Ok(()),
            _ => Err(Trouble::meddled(entry.path)),
        }
    }

    /// What stands in the target if it can become the source's entry; else it is removed. It cannot if it is of
    /// another type, if it is the source's very inode, or if it is also the name of something else in the source:
    /// then whatever one of them got, the other would get too.
    fn usable(&mut self, entry: &Entry<'_>, source: &Node, target: Option<Node>) -> Result<Option<Node>, Trouble> {
        let Some(held) = target else { return Ok(None) };
        let is_free = held.nlink < 2 || *self.owners.entry(id(&held)).or_insert_with(|| id(source)) == id(source);
        if held.kind == source.kind && id(&held) != id(source) && is_free {
            return Ok(Some(held));
        }
        if held.kind == source.kind {
            // One name of several; nothing is lost by it, so it does not count as deleted.
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty())
                .map_err(|e| Trouble::target("replacing", entry.path, &e.into()))?;
        } else {
            remove::remove(self.job.target, entry, &held, self.outcome)?;
        }
        Ok(None)
    }

    /// Symbolic links, FIFOs, sockets and devices.
    fn make_other(&self, dir: &OwnedFd, entry: &Entry<'_>, source: &Node, target: Option<Node>) -> Result<(), Trouble> {
        let now = read(dir, entry.name, Detail::All).map_err(|e| match e.raw_os_error() {
            // It was a link when it was looked at, and none when it was read.
            Some(22) if source.kind == FileType::Symlink => Trouble::changed(entry.path),
            _ => Trouble::source("reading", entry.path, &e),
        })?;
        if (id(&now), now.kind) != (id(source), source.kind) {
            return Err(Trouble::changed(entry.path));
        }
        let failed = |e: &io::Error| Trouble::target("making", entry.path, e);
        let is_equal = match &target {
            None => false,
            Some(_) if now.kind == FileType::Symlink => {
                let link = rustix::fs::readlinkat(entry.dir, entry.name, Vec::new()).map_err(|e| failed(&e.into()))?;
                link.to_bytes() == now.link
            }
            Some(held) => {
                !matches!(now.kind, FileType::CharacterDevice | FileType::BlockDevice) || held.rdev == now.rdev
            }
        };
        if target.is_some() && !is_equal {
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty()).map_err(|e| failed(&e.into()))?;
        }
        if !is_equal {
            let made = match now.kind {
                FileType::Symlink => rustix::fs::symlinkat(&now.link[..], entry.dir, entry.name),
                kind => rustix::fs::mknodat(entry.dir, entry.name, kind, Mode::RUSR | Mode::WUSR, now.rdev),
            };
            made.map_err(|e| failed(&e.into()))?;
        }
        entry.settle(&now)
    }

    /// When nobody writes any more, what a network file system remembers is not good enough.
    fn detail(&self) -> Detail {
        if self.job.pass == Pass::Final { Detail::Now } else { Detail::Stat }
    }

    fn wait(&mut self) -> bool {
        let (outcome, see) = (self.outcome, &mut *self.see);
        self.pool.wait(&mut || tick(outcome, see))
    }

    fn tick(&mut self) {
        tick(self.outcome, self.see);
    }
}

fn tick(outcome: &Outcome<'_>, see: &mut dyn FnMut(Transfer)) {
    let done = get(&outcome.entries);
    see(Transfer { bytes: get(&outcome.bytes), entries: Some((done, done)) });
}

fn read(dir: &OwnedFd, name: &[u8], detail: Detail) -> io::Result<Node> {
    tree::node(dir, name, detail)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}
