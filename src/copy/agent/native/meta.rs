//! Owner, attributes, mode and time of one entry, of any type.
//!
//! Not its content. Called when that is settled. What must stay true: the order. A change of owner takes setuid bits
//! and capabilities away, an ACL sets the mode's bits for the group, and everything before the time moves or may move
//! it: so owner, attributes, mode, time. The time is what the next pass trusts, and is set last.

use super::super::tree::{self, Detail, Node, Xattrs};
use super::outcome::{Outcome, Trouble};
use crate::copy::waive::{Kind, Waive};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One entry of the target.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a [u8],
    /// For messages.
    pub path: &'a [u8],
    pub as_root: bool,
}

/// The way to it: by its name, or open, which spares a network file system the looking up.
#[derive(Clone, Copy)]
enum Way<'a> {
    Named,
    Open(&'a OwnedFd),
}

type Attribute = (Vec<u8>, Vec<u8>);

impl Entry<'_> {
    /// What stands there now, without its attributes. `None` if nothing does.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn look(&self) -> Result<Option<Node>, Trouble> {
        match tree::node(self.dir, self.name, Detail::Stat) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(|e| Trouble::target("reading", self.path, &e)),
        }
    }

    /// Gives it everything that `source` has, which was read with all its details.
    ///
    /// # Errors
    /// If the target cannot hold something of it that was not waived.
    pub fn settle(&self, source: &Node, outcome: &Outcome<'_>) -> Result<(), Trouble> {
        self.settle_by(Way::Named, source, false, outcome)
    }

    /// The same for a regular file that is open for writing; `is_bare`: it was just made, and has no attributes.
    ///
    /// # Errors
    /// As [`Entry::settle`].
    pub fn settle_open(
        &self,
        file: &OwnedFd,
        source: &Node,
        is_bare: bool,
        outcome: &Outcome<'_>,
    ) -> Result<(), Trouble> {
        self.settle_by(Way::Open(file), source, is_bare, outcome)
    }

    /// The same for the directory that is open as `dir`.
    ///
    /// # Errors
    /// As [`Entry::settle`].
    pub fn settle_directory(&self, source: &Node, outcome: &Outcome<'_>) -> Result<(), Trouble> {
        self.settle_by(Way::Open(self.dir), source, false, outcome)
    }

    fn settle_by(&self, way: Way<'_>, source: &Node, is_bare: bool, outcome: &Outcome<'_>) -> Result<(), Trouble> {
        let failed = |doing: &str, e: &io::Error| Trouble::target(doing, self.path, e);
        let mut held = self.read(way)?;
        if held.kind != source.kind {
            return Err(Trouble::meddled(self.path));
        }
        // A mode as of the file that was there before may be another one after this.
        let mut may_have_moved = false;
        let mut without = Vec::new();
        if (held.uid, held.gid) != (source.uid, source.gid) {
            // Each only if it differs: who is not root may give a file to a group of his.
            let (uid, gid) = (Uid::from_raw(source.uid), Gid::from_raw(source.gid));
            let (uid, gid) = ((held.uid != source.uid).then_some(uid), (held.gid != source.gid).then_some(gid));
            let give = |uid, gid| match way {
                Way::Named => rustix::fs::chownat(self.dir, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
                Way::Open(file) => rustix::fs::fchown(file, uid, gid),
            };
            let given = give(uid, gid);
            let doing = format!("giving owner {}:{} to", source.uid, source.gid);
            if let Err(trouble) = given.map_err(|e| failed(&doing, &e.into())) {
                // What is set for another owner would run as whoever copies.
                let runs_as_owner = held.kind == FileType::RegularFile && source.mode & 0o6000 != 0;
                if runs_as_owner || !outcome.may_be_without(Kind::Owner, &trouble) {
                    return Err(trouble);
                }
                // What of the two can be given is given.
                if uid.is_some() && gid.is_some() && give(None, gid).is_err() {
                    let _neither = give(uid, None);
                }
                without.push(Kind::Owner);
            }
            // Only what is set for others may be taken by that.
            may_have_moved = held.mode & 0o6000 != 0;
        }
        let attributes = if is_bare { Xattrs::new() } else { self.xattrs(way)? };
        let [wanted, had] = [&source.xattrs, &attributes]
            .map(|all| all.iter().filter(|(name, _)| self.is_carried(name)).collect::<Vec<_>>());
        if wanted != had {
            // Attributes of one's own may only be set on what one may write.
            if !self.as_root && held.kind != FileType::Symlink && held.mode & 0o200 == 0 {
                self.chmod_by(way, held.mode | 0o600).map_err(|e| failed("changing the mode of", &e))?;
            }
            self.set_xattrs(way, &wanted, &had, outcome, &mut without)?;
            may_have_moved = true;
        }
        if may_have_moved {
            held = self.read(way)?;
        }
        if held.kind != FileType::Symlink && held.mode != source.mode {
            let doing = format!("setting mode {:04o} of", source.mode);
            self.chmod_by(way, source.mode).map_err(|e| failed(&doing, &e))?;
            may_have_moved = true;
        }
        // Some file systems take any of this for a change of content.
        if may_have_moved || held.mtime != source.mtime || held.uid != source.uid || held.gid != source.gid {
            self.set_mtime(way, source.mtime).map_err(|e| failed("setting the time of", &e))?;
        }
        if !without.is_empty() {
            outcome.is_without(Waive::of(without));
        }
        Ok(())
    }

    fn read(&self, way: Way<'_>) -> Result<Node, Trouble> {
        match way {
            Way::Named => self.look()?.ok_or_else(|| Trouble::meddled(self.path)),
            Way::Open(file) => tree::of_open(file, Detail::Stat).map_err(|e| Trouble::target("reading", self.path, &e)),
        }
    }

    fn xattrs(&self, way: Way<'_>) -> Result<Xattrs, Trouble> {
        let read = match way {
            Way::Named => tree::xattrs(self.dir, self.name),
            Way::Open(file) => tree::xattrs_of(file),
        };
        let (attributes, _) = read.map_err(|e| Trouble::target("reading the attributes of", self.path, &e))?;
        Ok(attributes)
    }

    /// Whoever is not root can set only those of `user.` and the ACLs.
    fn is_carried(&self, name: &[u8]) -> bool {
        self.as_root || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
    }

    fn set_xattrs(
        &self,
        way: Way<'_>,
        wanted: &[&Attribute],
        had: &[&Attribute],
        outcome: &Outcome<'_>,
        without: &mut Vec<Kind>,
    ) -> Result<(), Trouble> {
        let mut failed = |name: &[u8], error: &io::Error| {
            let (kind, trouble) =
                (Kind::of_attribute(name), Trouble::attribute(name, self.path, error, || self.is_full()));
            if !outcome.may_be_without(kind, &trouble) {
                return Err(trouble);
            }
            without.push(kind);
            Ok(())
        };
        let named = self.in_proc();
        for (name, _) in had.iter().filter(|(name, _)| !wanted.iter().any(|(own, _)| own == name)) {
            let removed = match way {
                Way::Named => xattr::remove(&named, OsStr::from_bytes(name)),
                Way::Open(file) => rustix::fs::fremovexattr(file, &name[..]).map_err(io::Error::from),
            };
            match removed {
                Err(error) if error.raw_os_error() != Some(Errno::NODATA.raw_os_error()) => {
                    failed(name, &error)?;
                }
                _ => {}
            }
        }
        for entry in wanted.iter().filter(|entry| !had.contains(entry)) {
            let (name, value) = entry;
            let set = match way {
                Way::Named => xattr::set(&named, OsStr::from_bytes(name), value),
                Way::Open(file) => {
                    rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()).map_err(io::Error::from)
                }
            };
            set.or_else(|error| failed(name, &error))?;
        }
        Ok(())
    }

    /// Whether so little space is left that an attribute may not fit for that. Where nobody knows, it is.
    fn is_full(&self) -> bool {
        !rustix::fs::fstatvfs(self.dir).is_ok_and(|is| is.f_bavail.saturating_mul(is.f_frsize) >= 1 << 20)
    }

    /// The entry through its open directory: no rename can redirect it, and it may have any length of path.
    fn in_proc(&self) -> PathBuf {
        let mut path = format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name);
        PathBuf::from(OsStr::from_bytes(&path))
    }

    /// Sets the mode of this very entry: the system has no call that takes a name and follows no link, so it goes
    /// through a descriptor, of which /proc knows the name. A link has no mode and is refused.
    pub fn chmod(&self, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = rustix::fs::openat(self.dir, self.name, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        Ok(rustix::fs::chmodat(CWD, Path::new(&path), Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    fn chmod_by(&self, way: Way<'_>, mode: u32) -> io::Result<()> {
        match way {
            Way::Named => self.chmod(mode),
            Way::Open(file) => Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?),
        }
    }

    fn set_mtime(&self, way: Way<'_>, time: i128) -> io::Result<()> {
        const SECOND: i128 = 1_000_000_000;
        let [seconds, nanoseconds] = [time.div_euclid(SECOND), time.rem_euclid(SECOND)]
            .map(|part| i64::try_from(part).map_err(|_| io::Error::from(Errno::INVAL)));
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds?, tv_nsec: nanoseconds? },
        };
        match way {
            Way::Named => rustix::fs::utimensat(self.dir, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?,
            Way::Open(file) => rustix::fs::futimens(file, &times)?,
        }
        Ok(())
    }
}
