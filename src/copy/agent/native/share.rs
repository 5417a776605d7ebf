//! Content that the file system copies by itself, within one file system: blocks that both files share, or bytes that
//! never leave their server.
//!
//! Not a decision what is copied, and no last word: whoever hears no reads and writes, and finds out why. Called by
//! `content`. What must stay true: what a pair of file systems refuses for good is asked once and not again; a yes means
//! that the target has what the source had at one moment of the call.
//!
//! A file that shares another one's blocks (FICLONE) has what was stored through mmap, too: under the locks of both files
//! the kernel writes the source's dirty pages to their blocks first (`filemap_write_and_wait_range` in
//! `generic_remap_file_range_prep`, and what btrfs and NFS have instead of it), and that makes the pages clean. So a later store faults
//! and moves the source's times, as after any flush, and the pass rule holds. The source's content, size and times stay as they are.

use super::super::file_system;
use super::super::tree::Root;
use rustix::io::Errno;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// After so many refusals in a row, each for a reason of its file's, all files have that reason.
const PATIENCE: usize = 16;

/// What is copied at once: nobody waits long for a request to stop, or pays for more than a limit allows in a moment.
const PART: u64 = 1 << 20;

/// What the two file systems of a pass do by themselves, as far as is known.
pub struct Sharing {
    /// How often in a row no blocks were shared.
    refusals: AtomicUsize,
    copies_parts: AtomicBool,
}

impl Sharing {
    pub fn between(source: &Root, target: &Root) -> Sharing {
        // Others copy in the kernel what we copy here, no faster, and without seeing zeros.
        let copies_parts = source.is_beside(target) && file_system::copies_by_itself(target);
        Sharing { refusals: AtomicUsize::new(0), copies_parts: AtomicBool::new(copies_parts) }
    }

    /// Nothing is done by the file system, or only parts.
    #[cfg(test)]
    pub fn only(copies_parts: bool) -> Sharing {
        Sharing { refusals: AtomicUsize::new(PATIENCE), copies_parts: AtomicBool::new(copies_parts) }
    }

    /// True if whole files may still come to share their blocks.
    pub fn is_hopeful(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) < PATIENCE
    }

    /// Has the target share all blocks of the source. It is not made shorter. After a no it may have some of them.
    pub fn whole(&self, source: &OwnedFd, target: &OwnedFd) -> bool {
        match rustix::fs::ioctl_ficlone(target, source) {
            Ok(()) => {
                self.refusals.store(0, Ordering::Relaxed);
                return true;
            }
            // Two file systems (before Linux 5.18 two mounts of one, as in every pod), or one that cannot.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => {
                self.refusals.store(PATIENCE, Ordering::Relaxed);
            }
            // Of this file: EINVAL where only one of both has checksums (btrfs), ETXTBSY for a swap file, EPERM for one that
            // may not be changed. Or there is no room, or it cannot be read: then reading or writing says so.
            Err(_) => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
        }
        false
    }

    /// Copies the beginning of a range to the same place. Returns how many bytes; 0 if it is to be read and written.
    pub fn part(&self, source: &OwnedFd, target: &OwnedFd, range: &Range<u64>) -> u64 {
        let bytes = (range.end - range.start).min(PART);
        if bytes < PART || !self.copies_parts.load(Ordering::Relaxed) {
            return 0;
        }
        let (mut from, mut to) = (range.start, range.start);
        // It fits: it is a mebibyte.
        let copied = rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), bytes as usize);
        match copied {
            Ok(bytes) => bytes as u64,
            Err(Errno::INTR) => 0,
            Err(_) => {
                self.copies_parts.store(false, Ordering::Relaxed);
                0
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what this machine cannot do")]
#[path = "share_torture.rs"]
mod torture;
