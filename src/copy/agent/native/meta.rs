//! Owner, attributes, mode and time of one entry, of any type.
//!
//! Not its content. Called when that is settled. What must stay true: the order. A change of owner takes setuid bits
//! and capabilities away, an ACL sets the mode's bits for the group, and everything before the time moves or may move
//! it: so owner, attributes, mode, time. The time is what the next pass trusts, and is set last.

use super::super::tree::{self, Detail, Node};
use super::outcome::Trouble;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One entry of the target.
pub struct Entry<'a> {
    pub dir: &'a OwnedFd,
    pub name: &'a [u8],
    /// For messages.
    pub path: &'a [u8],
    pub as_root: bool,
}

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
    /// If the target cannot hold something of it.
    pub fn settle(&self, source: &Node) -> Result<(), Trouble> {
        let failed = |doing: &str, e: &io::Error| Trouble::target(doing, self.path, e);
        let Some(mut held) = self.look()? else { return Err(Trouble::meddled(self.path)) };
        if held.kind != source.kind {
            return Err(Trouble::meddled(self.path));
        }
        let mut touched = false;
        if (held.uid, held.gid) != (source.uid, source.gid) {
            // Each only if it differs: who is not root may give a file to a group of his.
            let (uid, gid) = (Uid::from_raw(source.uid), Gid::from_raw(source.gid));
            let (uid, gid) = ((held.uid != source.uid).then_some(uid), (held.gid != source.gid).then_some(gid));
            rustix::fs::chownat(self.dir, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed(&format!("giving owner {}:{} to", source.uid, source.gid), &e.into()))?;
            touched = true;
        }
        let (attributes, _) = tree::xattrs(self.dir, self.name).map_err(|e| failed("reading the attributes of", &e))?;
        let [wanted, had] = [&source.xattrs, &attributes]
            .map(|all| all.iter().filter(|(name, _)| self.is_carried(name)).collect::<Vec<_>>());
        if wanted != had {
            // Attributes of one's own may only be set on what one may write.
            if !self.as_root && held.kind != FileType::Symlink && held.mode & 0o200 == 0 {
                self.chmod(held.mode | 0o600).map_err(|e| failed("changing the mode of", &e))?;
            }
            self.set_xattrs(&wanted, &had)?;
            touched = true;
        }
        if touched && let Some(now) = self.look()? {
            held.mode = now.mode;
        }
        if held.kind != FileType::Symlink && held.mode != source.mode {
            let doing = format!("setting mode {:04o} of", source.mode);
            self.chmod(source.mode).map_err(|e| failed(&doing, &e))?;
            touched = true;
        }
        // Some file systems take any of this for a change of content.
        if touched || held.mtime != source.mtime {
            self.set_mtime(source.mtime).map_err(|e| failed("setting the time of", &e))?;
        }
        Ok(())
    }

    /// Whoever is not root can set only those of `user.` and the ACLs.
    fn is_carried(&self, name: &[u8]) -> bool {
        self.as_root || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
    }

    fn set_xattrs(&self, wanted: &[&(Vec<u8>, Vec<u8>)], had: &[&(Vec<u8>, Vec<u8>)]) -> Result<(), Trouble> {
        let path = self.in_proc();
        for (name, _) in had.iter().filter(|(name, _)| !wanted.iter().any(|(own, _)| own == name)) {
            match xattr::remove(&path, OsStr::from_bytes(name)) {
                Err(error) if error.raw_os_error() != Some(Errno::NODATA.raw_os_error()) => {
                    return Err(Trouble::attribute(name, self.path, &error));
                }
                _ => {}
            }
        }
        for entry in wanted.iter().filter(|entry| !had.contains(entry)) {
            let (name, value) = entry;
            xattr::set(&path, OsStr::from_bytes(name), value).map_err(|e| Trouble::attribute(name, self.path, &e))?;
        }
        Ok(())
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

    fn set_mtime(&self, time: i128) -> io::Result<()> {
        const SECOND: i128 = 1_000_000_000;
        let [seconds, nanoseconds] = [time.div_euclid(SECOND), time.rem_euclid(SECOND)]
            .map(|part| i64::try_from(part).map_err(|_| io::Error::from(Errno::INVAL)));
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds?, tv_nsec: nanoseconds? },
        };
        Ok(rustix::fs::utimensat(self.dir, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}
