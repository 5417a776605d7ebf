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
mod tests {
    use super::*;
    use crate::copy::agent::copy::{Engine, Job, copy};
    use crate::copy::agent::pages::Pages;
    use crate::copy::agent::stop::Stop;
    use crate::copy::agent::torture::{Bench, Volume, set_mtime};
    use crate::copy::report::Pass;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Bytes that are nowhere twice, so that nothing makes them fewer.
    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut all = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut all);
        all
    }

    fn fill(bench: &Bench) {
        let source = |name: &str| bench.source(name);
        fs::write(source("large"), noise((33 << 20) + 5, 1)).unwrap();
        fs::hard_link(source("large"), source("again")).unwrap();
        fs::write(source("small"), "small").unwrap();
        fs::write(source("empty"), "").unwrap();
        fs::write(source("middle"), noise(300_000, 2)).unwrap();
        let sparse = File::create(source("sparse")).unwrap();
        sparse.set_len(200 << 20).unwrap();
        sparse.write_all_at(&noise(70_000, 3), 100 << 20).unwrap();
        fs::write(source("mapped"), noise(9000, 4)).unwrap();
        // Where this means something (btrfs), these cannot share blocks with files that do not have it.
        fs::create_dir(source("plain")).unwrap();
        Command::new("chattr").arg("+C").arg(source("plain")).output().unwrap();
        (0..3).for_each(|n| fs::write(source(&format!("plain/{n}")), noise(20_000, 5 + n)).unwrap());
    }

    #[test]
    fn blocks_are_shared_where_that_is_possible_and_copied_where_not() {
        for (kind, shares) in [("btrfs", true), ("xfs", true), ("ext4", false)] {
            let Some(volume) = Volume::new(kind) else { continue };
            let bench = Bench::inside(tempfile::tempdir_in(volume.place()).unwrap(), Engine::Native);
            fill(&bench);
            rustix::fs::syncfs(File::open(volume.place()).unwrap()).unwrap();
            let before = volume.used();
            let mapped = File::options().read(true).write(true).open(bench.source("mapped")).unwrap();
            let mut pages = Pages::map(&mapped).unwrap();
            // Nothing has flushed this, and no time tells.
            pages.store(7);
            let first = bench.good(Pass::Hot, None);
            bench.equal();
            let names = ["large", "small", "empty", "middle", "sparse", "mapped", "plain/0", "plain/1", "plain/2"];
            let sizes: u64 = names.iter().map(|name| fs::metadata(bench.source(name)).unwrap().size()).sum();
            assert_eq!((first.files_copied, first.bytes_copied), (names.len() as u64, sizes), "{kind}");
            let blocks = |path: PathBuf| fs::metadata(path).unwrap().blocks();
            assert!(blocks(bench.target("sparse")) <= blocks(bench.source("sparse")), "{kind}");
            let grown = |shared: u64| {
                let grown = volume.used().saturating_sub(before);
                assert_eq!(grown < 8 << 20, shares, "{kind}: {grown} bytes more, {shared} of them are shared");
            };
            grown(sizes);

            // A pass over what is there: what changed is shared anew, longer or shorter.
            let open = |name: &str| File::options().write(true).open(bench.source(name)).unwrap();
            open("large").write_all_at(b"changed", 20 << 20).unwrap();
            open("sparse").set_len((100 << 20) + 9).unwrap();
            open("small").write_all_at(b"longer than it was", 0).unwrap();
            pages.store(8);
            open("plain/1").write_all_at(b"changed", 5000).unwrap();
            let last = bench.good(Pass::Final, Some(&first));
            bench.equal();
            assert!(last.bytes_copied >= (133 << 20) && last.bytes_copied < (134 << 20), "{last:?}");
            grown(sizes);

            // What only looks new is not counted among what looked equal.
            set_mtime(&bench.source("middle"), 1, 2);
            let touched = bench.good(Pass::Final, Some(&last));
            assert_eq!(touched.bytes_copied, if shares { 300_000 } else { 0 }, "{kind}");
            bench.equal();

            // To another file system nothing is shared.
            let other = tempfile::tempdir().unwrap();
            let job = Job { target: other.path().to_owned(), ..bench.job(Pass::Final, None) };
            let report = copy(&job, &Stop::new(), &mut |_| {});
            assert!(report.ok && report.bytes_copied == last.bytes_total, "{kind}: {report:?}");
            for name in names {
                assert!(fs::read(other.path().join(name)).unwrap() == fs::read(bench.source(name)).unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn what_is_refused_for_good_is_asked_once() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), Path::new("/dev/shm"));
        let Ok(memory) = tempfile::tempdir_in(memory) else {
            println!("skipped: there is no /dev/shm");
            return;
        };
        let roots = [disk.path(), memory.path()].map(|path| Root::open(path).unwrap());
        let sharing = Sharing::between(&roots[0], &roots[1]);
        if roots[0].is_beside(&roots[1]) {
            println!("skipped: there is one file system only");
            return;
        }
        let files: [OwnedFd; 2] = [disk.path(), memory.path()].map(|path| tempfile::tempfile_in(path).unwrap().into());
        assert!(sharing.is_hopeful());
        assert!(!sharing.whole(&files[0], &files[1]) && !sharing.is_hopeful());
        assert_eq!(sharing.part(&files[0], &files[1], &(0..PART)), 0);
    }

    #[test]
    fn a_reason_of_one_file_is_none_of_the_next_unless_all_have_it() {
        let Some(volume) = Volume::new("xfs") else { return };
        let root = Root::open(&volume.place()).unwrap();
        let sharing = Sharing::between(&root, &root);
        let files = [b"source", b"target"].map(|content| {
            let file = tempfile::tempfile_in(volume.place()).unwrap();
            file.write_all_at(content, 0).unwrap();
            OwnedFd::from(file)
        });
        // Nothing shares its blocks with itself.
        let refused = || assert!(!sharing.whole(&files[0], &files[0]));
        (1..PATIENCE).for_each(|_| refused());
        assert!(sharing.is_hopeful() && sharing.whole(&files[0], &files[1]));
        (1..PATIENCE).for_each(|_| refused());
        assert!(sharing.is_hopeful());
        refused();
        assert!(!sharing.is_hopeful());
    }
}
