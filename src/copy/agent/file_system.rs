//! What is known of file systems by their kind: the one place with their numbers.
//!
//! Not a mount table. Asked by `copy`, `verify` and `native`. What must stay true: of a kind that is not known here the
//! worse is taken for true.

use super::tree::Root;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;

/// Those of this kernel. They write back with a flush of the whole, and tell of what failed; NFS and SMB tell when a file is
/// closed; of others, in user space above all, nothing is known.
const LOCAL: [u64; 9] = [
    0xef53, // ext2, ext3 and ext4
    XFS,
    BTRFS,
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0x794c_7630, // overlay
    TMPFS,
    RAMFS,
    HUGETLBFS,
];

/// Those that copy parts of files without moving their bytes through here, if both are on the same one.
const COPYING: [u64; 3] = [
    0x6969, // NFS: its server does, from version 4.2 on
    XFS, BTRFS,
];

/// The number of its kind, as `statfs` says.
fn kind(root: &Root) -> Option<u64> {
    #[allow(clippy::unnecessary_cast, reason = "the kernel's types differ by architecture")]
    rustix::fs::fstatfs(root.fd()).ok().map(|stat| stat.f_type as u64 & 0xffff_ffff)
}

/// False if every file is to be flushed by itself, or errors of writing would be lost.
pub fn flush_tells(root: &Root) -> bool {
    is_local(root)
}

/// True if it is the clock of this kernel that stamps what changes.
pub fn is_local(root: &Root) -> bool {
    kind(root).is_some_and(|kind| LOCAL.contains(&kind))
}

/// False where a store through mmap never moves a time, as nothing is ever written back.
pub fn times_tell_of_stores(root: &Root) -> bool {
    kind(root).is_some_and(|kind| ![TMPFS, RAMFS, HUGETLBFS].contains(&kind))
}

/// True if it is worth asking it to copy parts of files.
pub fn copies_by_itself(root: &Root) -> bool {
    kind(root).is_some_and(|kind| COPYING.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn of_what_is_not_known_the_worse_is_true() {
        let root = |path: &str| Root::open(Path::new(path)).unwrap();
        assert!(!flush_tells(&root("/proc")));
        let (disk, memory) = (tempfile::tempdir().unwrap(), root("/dev/shm"));
        let disk = Root::open(disk.path()).unwrap();
        if kind(&disk) == Some(0xef53) && kind(&memory) == Some(TMPFS) {
            assert_eq!((flush_tells(&disk), times_tell_of_stores(&disk)), (true, true));
            assert_eq!((flush_tells(&memory), times_tell_of_stores(&memory)), (true, false));
        }
    }
}
