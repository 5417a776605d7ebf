//! What is known of file systems by their kind: the one place with their numbers.
//!
//! Not a mount table. Asked by `copy`, `verify` and `native`. What must stay true: of a kind that is not known here the
//! worse is taken for true.

use super::tree::Root;

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;

/// The number of its kind, as `statfs` says.
fn kind(root: &Root) -> Option<u64> {
    #[allow(clippy::unnecessary_cast, reason = "the kernel's types differ by architecture")]
    rustix::fs::fstatfs(root.fd()).ok().map(|stat| stat.f_type as u64 & 0xffff_ffff)
}

/// False where a store through mmap never moves a time, as nothing is ever written back.
pub fn times_tell_of_stores(root: &Root) -> bool {
    kind(root).is_some_and(|kind| ![TMPFS, RAMFS, HUGETLBFS].contains(&kind))
}
