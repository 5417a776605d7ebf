//! One regular file: its content if it is needed, then its metadata. Made by several threads at once.
//!
//! Not its other names: hard links are the walk's. Called by `pool`. What must stay true: the pass rule of `copy`
//! decides what is read; whatever was written is vouched for only by the time that is set last; the source's metadata
//! are those of before its content was read, so that what changed meanwhile is seen by the next pass.

use super::super::tree::{self, Detail, Node};
use super::super::trust::Trust;
use super::content::{Buffers, Content, Fault, Way};
use super::meta::Entry;
use super::outcome::{Outcome, Trouble, add};
use crate::copy::report::Pass;
use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// A directory that is open on both sides.
pub struct Dir {
    pub path: Vec<u8>,
    pub source: OwnedFd,
    pub target: OwnedFd,
    /// When it was put in its place at the latest, in the source.
    pub arrived: i128,
    /// Of the source.
    pub ctime: i128,
}

/// What a thread needs to know of the pass.
pub struct Worker<'a> {
    pub outcome: &'a Outcome<'a>,
    pub trust: Trust,
    pub as_root: bool,
    /// True if a flush of the whole file system does not tell of errors of writing.
    pub flush_each: bool,
}

impl Worker<'_> {
    /// Makes the target's file equal. `target` is a regular file that is of no other use, if there is one.
    ///
    /// # Errors
    /// With what went wrong; the target's file may be half written then, and its time tells.
    pub fn file(
        &self,
        dir: &Dir,
        name: &[u8],
        source: &Node,
        target: Option<&Node>,
        buffers: &mut Buffers,
    ) -> Result<(), Trouble> {
        let path = tree::join(&dir.path, name);
        let entry = Entry { dir: &dir.target, name, path: &path, as_root: self.as_root };
        let looks_equal = |t: &Node| t.size == source.size && t.mtime == source.mtime && self.trust.target(t);
        let is_equal = target.is_some_and(looks_equal) && self.trust.source(source, dir.arrived);
        let mut source = source.clone();
        if is_equal {
            add(&self.outcome.bytes, source.size);
        } else {
            let file = open(&dir.source, name).map_err(|e| Trouble::source("opening", &path, &e))?;
            let detail = if self.outcome.pass == Pass::Final { Detail::Now } else { Detail::Stat };
            let look = || tree::of_open(&file, detail).map_err(|e| Trouble::source("reading", &path, &e));
            let before = look()?;
            if (before.dev, before.ino, before.kind) != (source.dev, source.ino, FileType::RegularFile) {
                return Err(Trouble::changed(&path));
            }
            self.content(&file, &entry, &before, target, buffers)?;
            let after = look()?;
            let state = |node: &Node| (node.size, node.mtime, node.ctime);
            let has_changed = state(&source) != state(&after);
            if has_changed && self.outcome.pass == Pass::Final {
                return Err(Trouble::changed(&path));
            }
            source = before;
        }
        (source.xattrs, _) =
            tree::xattrs(&dir.source, name).map_err(|e| Trouble::source("reading the attributes of", &path, &e))?;
        entry.settle(&source)
    }

    fn content(
        &self,
        file: &OwnedFd,
        entry: &Entry<'_>,
        source: &Node,
        target: Option<&Node>,
        buffers: &mut Buffers,
    ) -> Result<(), Trouble> {
        let (held, way) = self.open_target(file, entry, source, target, buffers)?;
        if let Some(held) = held {
            let differed = self.settle(file, &held, source.size, way, entry.path, buffers)?;
            // What is equal may be there because an earlier pass wrote it that did not live to flush it.
            if self.flush_each {
                rustix::fs::fsync(&held).map_err(|e| Trouble::target("writing", entry.path, &e.into()))?;
            }
            if differed || way == Way::Fresh {
                add(&self.outcome.files_copied, 1);
                add(&self.outcome.bytes_copied, source.size);
            }
        }
        Ok(())
    }

    /// Opens what is to be written to. A file of one name is updated in place: nothing else is changed by it, only
    /// what differs is written, and no room for a second copy is needed. A file of several names is another file as
    /// soon as one of them has other content, so it is replaced; `None` if it is equal. There are no temporary names:
    /// nobody reads the target before it is verified, and what an interrupted pass left has a time that tells.
    fn open_target(
        &self,
        file: &OwnedFd,
        entry: &Entry<'_>,
        source: &Node,
        target: Option<&Node>,
        buffers: &mut Buffers,
    ) -> Result<(Option<OwnedFd>, Way), Trouble> {
        let failed = |doing: &str, e: &io::Error| Trouble::target(doing, entry.path, e);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Some(target) = target {
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
                    if target.size == source.size
                        && !self.settle(file, &held, source.size, Way::Compare, entry.path, buffers)?
                    {
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

    fn settle(
        &self,
        source: &OwnedFd,
        target: &OwnedFd,
        size: u64,
        way: Way,
        path: &[u8],
        buffers: &mut Buffers,
    ) -> Result<bool, Trouble> {
        let mut go_on = |bytes| {
            add(&self.outcome.bytes, bytes);
            !self.outcome.is_over()
        };
        let outcome = Content { source, target, size, way }.settle(buffers, &mut go_on);
        outcome.map_err(|fault| match fault {
            Fault::Source(error) => Trouble::source("reading", path, &error),
            Fault::Target(error) => Trouble::target("writing", path, &error),
            Fault::Stopped => Trouble::stopped(path),
        })
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
