//! One regular file: its content if it is needed, then its metadata. Made by several threads at once, a large one in
//! pieces.
//!
//! Not its other names: hard links are the walk's. Called by the walk. What must stay true: the pass rule of `copy`
//! decides what is read; whatever was written is vouched for only by the time that is set last; the source's metadata
//! are those of before its content was read, so that what changed meanwhile is seen by the next pass.

use super::super::pace::Pace;
use super::super::stop::Stop;
use super::super::tree::{self, Detail, Node};
use super::super::trust::Trust;
use super::content::{Buffers, Content, Fault, Way};
use super::meta::Entry;
use super::outcome::{Outcome, Trouble, add};
use super::share::Sharing;
use crate::copy::report::Pass;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// From this size on a file is made in pieces, by several threads.
const LARGE: u64 = 2 * PIECE;
/// The bytes of a piece: seconds of work for no thread, and few enough of them to be worth their taking.
const PIECE: u64 = 16 << 20;

/// A directory that is open on both sides.
pub struct Dir {
    pub path: Vec<u8>,
    pub source: OwnedFd,
    pub target: OwnedFd,
    /// The source's, as it was before its names were read.
    pub own: Node,
    /// When it was put in its place at the latest, in the source.
    pub arrived: i128,
    /// True if what is made in the target gets an ACL from it.
    pub inherits: bool,
    /// How much is still to be done in it.
    left: AtomicUsize,
}

impl Dir {
    pub fn new(path: Vec<u8>, source: OwnedFd, target: OwnedFd, own: Node, arrived: i128, inherits: bool) -> Dir {
        Dir { path, source, target, own, arrived, inherits, left: AtomicUsize::new(1) }
    }

    /// Something more is to be done in it.
    pub fn enter(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Something of it is done. True if that was the last.
    pub fn leave(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// What a thread needs to know of the pass.
pub struct Worker<'a> {
    pub outcome: &'a Outcome<'a>,
    pub stop: &'a Stop,
    pub pace: Pace,
    pub sharing: Sharing,
    pub trust: Trust,
    pub as_root: bool,
    /// True if a flush of the whole file system does not tell of errors of writing.
    pub flush_each: bool,
}

/// A name in a directory and what was found there.
#[derive(Clone)]
pub struct Found {
    pub dir: Arc<Dir>,
    pub name: Vec<u8>,
    pub path: Vec<u8>,
    pub source: Node,
    /// What can become the source's.
    pub target: Option<Node>,
}

impl Found {
    pub fn entry(&self, as_root: bool) -> Entry<'_> {
        Entry { dir: &self.dir.target, name: &self.name, path: &self.path, as_root }
    }
}

/// Both sides open, while the content is made.
struct Open {
    source: OwnedFd,
    /// The source, as it was when it was opened.
    before: Node,
    target: OwnedFd,
    way: Way,
}

/// A large file while it is made.
pub struct Large {
    pub found: Found,
    open: Open,
    differed: AtomicBool,
    failed: AtomicBool,
    left: AtomicUsize,
    turn: Mutex<()>,
}

/// What became of a file.
pub enum Made {
    Done,
    /// It is large: these are its pieces.
    InPieces(Arc<Large>, Vec<Range<u64>>),
}

impl Worker<'_> {
    /// Makes the target's file equal.
    ///
    /// # Errors
    /// With what went wrong; the target's file may be half written then, and its time tells.
    pub fn file(&self, found: &Found, buffers: &mut Buffers) -> Result<Made, Trouble> {
        let Found { dir, name, path, source, target } = found;
        let looks_equal = |t: &&Node| t.size == source.size && t.mtime == source.mtime;
        if let Some(target) = target.as_ref().filter(looks_equal) {
            if self.trust.both(source, target, dir.arrived) {
                add(&self.outcome.bytes, source.size);
                // Nobody touched either since a good pass: its attributes are as that one left them, too.
                let seen = |node: &Node| (node.uid, node.gid, node.mode);
                if seen(source) != seen(target) {
                    let (xattrs, _) = tree::xattrs(&dir.source, name)
                        .map_err(|e| Trouble::source("reading the attributes of", path, &e))?;
                    found.entry(self.as_root).settle(&Node { xattrs, ..source.clone() }, self.outcome)?;
                }
                return Ok(Made::Done);
            }
            add(&self.outcome.reread, 1);
        }
        let file = open(&dir.source, name).map_err(|e| Trouble::source("opening", path, &e))?;
        let before = self.look(&file, path)?;
        if (before.dev, before.ino, before.kind) != (source.dev, source.ino, FileType::RegularFile) {
            return Err(Trouble::changed(path));
        }
        let (held, way) = self.open_target(&file, found, &before, buffers)?;
        let Some(target) = held else {
            // One of several names of a file that is equal.
            self.stood_still(&file, found)?;
            let source = self.attributes(&file, path, &before)?;
            found.entry(self.as_root).settle(&source, self.outcome)?;
            return Ok(Made::Done);
        };
        let open = Open { source: file, before, target, way };
        // What looks equal is compared: the report says what differed.
        let is_new = found.target.as_ref().is_none_or(|t| (t.size, t.mtime) != (open.before.size, open.before.mtime));
        if is_new && self.content(&open, path, |content| content.share())? {
            self.go_on(open.before.size, 0);
            return self.finish(found, &open, true).map(|()| Made::Done);
        }
        if open.before.size >= LARGE {
            let differed = self.content(&open, path, |content| content.begin())?;
            let size = open.before.size;
            let pieces = |n: u64| n * PIECE..((n + 1) * PIECE).min(size);
            let pieces: Vec<_> = (0..size.div_ceil(PIECE)).map(pieces).collect();
            let large = Large {
                found: found.clone(),
                open,
                differed: differed.into(),
                failed: false.into(),
                left: pieces.len().into(),
                turn: Mutex::default(),
            };
            return Ok(Made::InPieces(Arc::new(large), pieces));
        }
        let differed =
            self.content(&open, path, |content| content.settle(buffers, &mut |done, read| self.go_on(done, read)))?;
        self.finish(found, &open, differed)?;
        Ok(Made::Done)
    }

    /// Makes a piece of a large file. After the last one the file is over: then what became of it is returned.
    pub fn piece(&self, large: &Large, piece: Range<u64>, buffers: &mut Buffers) -> Option<Result<(), Trouble>> {
        let Large { found, open, differed, failed, left, turn } = large;
        if !failed.load(Ordering::Relaxed) {
            let settle = |content: Content<'_>| {
                let content = Content { turn: Some(turn), ..content };
                let made = content.piece(piece.clone(), buffers, &mut |done, read| self.go_on(done, read));
                // So that the disk begins with it now, and not when memory is full of it. Only advice, so no error.
                let length = NonZeroU64::new(piece.end - piece.start);
                let _advice = rustix::fs::fadvise(&open.target, piece.start, length, Advice::DontNeed);
                made
            };
            match self.content(open, &found.path, settle) {
                Ok(differs) => {
                    differed.fetch_or(differs, Ordering::Relaxed);
                }
                Err(trouble) => {
                    failed.store(true, Ordering::Relaxed);
                    self.outcome.tell(trouble);
                }
            }
        }
        if left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let result = if failed.load(Ordering::Relaxed) {
            // It was told by the piece that failed.
            Err(Trouble::stopped(&found.path))
        } else {
            self.finish(found, open, differed.load(Ordering::Relaxed))
        };
        Some(result)
    }

    /// When the content is there: it is counted, looked at once more in the source, and gets its metadata.
    fn finish(&self, found: &Found, open: &Open, differed: bool) -> Result<(), Trouble> {
        let Open { source, before, target, way } = open;
        // What is equal may be there because an earlier pass wrote it that did not live to flush it.
        if self.flush_each {
            rustix::fs::fsync(target).map_err(|e| Trouble::target("writing", &found.path, &e.into()))?;
        }
        if differed || *way == Way::Fresh {
            add(&self.outcome.files_copied, 1);
            add(&self.outcome.bytes_copied, before.size);
        }
        self.stood_still(source, found)?;
        let source = self.attributes(source, &found.path, before)?;
        let is_bare = *way == Way::Fresh && !found.dir.inherits;
        found.entry(self.as_root).settle_open(target, &source, is_bare, self.outcome)
    }

    /// In a final pass nobody may have written to the source while it was read.
    fn stood_still(&self, source: &OwnedFd, found: &Found) -> Result<(), Trouble> {
        if self.outcome.pass != Pass::Final {
            return Ok(());
        }
        let (after, state) = (self.look(source, &found.path)?, |node: &Node| (node.size, node.mtime, node.ctime));
        if state(&found.source) == state(&after) { Ok(()) } else { Err(Trouble::changed(&found.path)) }
    }

    fn look(&self, file: &OwnedFd, path: &[u8]) -> Result<Node, Trouble> {
        let detail = if self.outcome.pass == Pass::Final { Detail::Now } else { Detail::Stat };
        tree::of_open(file, detail).map_err(|e| Trouble::source("reading", path, &e))
    }

    /// The same with its attributes.
    fn attributes(&self, file: &OwnedFd, path: &[u8], node: &Node) -> Result<Node, Trouble> {
        let (xattrs, _) = tree::xattrs_of(file).map_err(|e| Trouble::source("reading the attributes of", path, &e))?;
        Ok(Node { xattrs, ..node.clone() })
    }

    /// Opens what is to be written to. A file of one name is updated in place: nothing else is changed by it, only
    /// what differs is written, and no room for a second copy is needed. A file of several names is another file as
    /// soon as one of them has other content, so it is replaced; `None` if it is equal. There are no temporary names:
    /// nobody reads the target before it is verified, and what an interrupted pass left has a time that tells.
    fn open_target(
        &self,
        file: &OwnedFd,
        found: &Found,
        source: &Node,
        buffers: &mut Buffers,
    ) -> Result<(Option<OwnedFd>, Way), Trouble> {
        let entry = found.entry(self.as_root);
        let failed = |doing: &str, e: &io::Error| Trouble::target(doing, entry.path, e);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Some(target) = &found.target {
            let access = if target.nlink < 2 { OFlags::RDWR } else { OFlags::RDONLY };
            match rustix::fs::openat(entry.dir, entry.name, flags | access, Mode::empty()) {
                Ok(held) => {
                    let now = tree::of_open(&held, Detail::Stat).map_err(|e| failed("reading", &e))?;
                    if (now.dev, now.ino) != (target.dev, target.ino) {
                        return Err(Trouble::meddled(entry.path));
                    }
                    // What an earlier pass wrote may have failed on its way to the disk, and still be in memory as if
                    // it had not. What is compared is what the disk has. Only advice, so no error.
                    let _advice = rustix::fs::fadvise(&held, 0, None, Advice::DontNeed);
                    if target.nlink < 2 && now.nlink < 2 {
                        return Ok((Some(held), Way::Update));
                    }
                    if target.size == source.size && !self.differs(file, &held, source, entry.path, buffers)? {
                        return Ok((None, Way::Compare));
                    }
                }
                // Its mode keeps us out: it is made anew.
                Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {}
                Err(error) => return Err(failed("opening", &error.into())),
            }
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty())
                .map_err(|e| failed("replacing", &e.into()))?;
        }
        let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        // Nobody else's until it has its owner and mode.
        let held = rustix::fs::openat(entry.dir, entry.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed("making", &e.into()))?;
        Ok((Some(held), Way::Fresh))
    }

    fn differs(
        &self,
        source: &OwnedFd,
        target: &OwnedFd,
        node: &Node,
        path: &[u8],
        buffers: &mut Buffers,
    ) -> Result<bool, Trouble> {
        let Node { size, allocated, .. } = *node;
        let (sharing, way) = (&self.sharing, Way::Compare);
        let content = Content { source, target, size, allocated, sharing, turn: None, way };
        content.settle(buffers, &mut |done, read| self.go_on(done, read)).map_err(|fault| told(fault, path))
    }

    fn content(
        &self,
        open: &Open,
        path: &[u8],
        make: impl FnOnce(Content<'_>) -> Result<bool, Fault>,
    ) -> Result<bool, Trouble> {
        let Open { source, before, target, way } = open;
        let Node { size, allocated, .. } = *before;
        let (sharing, way) = (&self.sharing, *way);
        let content = Content { source, target, size, allocated, sharing, turn: None, way };
        make(content).map_err(|fault| told(fault, path))
    }

    fn go_on(&self, done: u64, read: u64) -> bool {
        add(&self.outcome.bytes, done);
        self.pace.pay(read, self.stop, &|| self.outcome.is_over());
        !self.outcome.is_over()
    }
}

fn told(fault: Fault, path: &[u8]) -> Trouble {
    match fault {
        Fault::Source(error) => Trouble::source("reading", path, &error),
        Fault::Target(error) => Trouble::target("writing", path, &error),
        Fault::Stopped => Trouble::stopped(path),
    }
}

/// Without moving the time of last access, where we may.
fn open(dir: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        other => Ok(other?),
    }
}
