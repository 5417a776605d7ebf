//! What a pass must know before it copies: how much there is, whether it fits, what has to be read again.
//!
//! Not a comparison of content. Called by `copy`. What must stay true: a file is trusted to be unchanged only if its
//! times say so (`trust`); a refusal for want of space is
//! made only where it is certain, and before anything is written.

use super::Failure;
use super::stop::Stop;
use super::tree::{self, Detail, Node, Pair, Root, Seen, Side};
use super::trust::Trust;
use super::tune::Tuner;
use crate::copy::report::{FailKind, Pass};
use crate::words::size::human_bytes;
use rustix::fs::FileType;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// What was found.
#[derive(Default)]
pub struct Scan {
    /// Entries of any type in the source, the root included.
    pub entries: u64,
    /// Regular files in the source (names).
    pub files: u64,
    /// The sum of their sizes, hard-linked ones once.
    pub bytes: u64,
    /// What they need at least on the target.
    pub need: Room,
    /// What the target tree holds already, and a copy would replace.
    pub held: Room,
    /// Files of equal size and mtime whose content nothing vouches for.
    pub suspects: u64,
    /// Their paths for rsync, which would skip them: with a NUL after each, as `--files-from --from0` reads them.
    /// Only if asked for: it grows with the tree.
    pub list: Option<Vec<u8>>,
    /// Character devices 0:0 of the source, by which overlay file systems mark what is deleted.
    pub whiteouts: u64,
    /// What vanished during the walk; only in hot passes.
    pub vanished: u64,
}

/// An amount of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub inodes: u64,
}

/// What a scan is for.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub pass: Pass,
    pub trust: Trust,
    /// With [`Scan::list`].
    pub with_list: bool,
    pub workers: Option<usize>,
}

/// Walks both trees.
///
/// # Errors
/// If the source cannot be read, if one root is found inside the other, or if the stop was requested.
pub fn scan(
    source: &Root,
    target: &Root,
    wanted: Wanted,
    stop: &Stop,
    see: &mut dyn FnMut(&Scan),
) -> Result<Scan, Failure> {
    let Wanted { pass, trust, with_list, workers } = wanted;
    let linked = (HashSet::new(), HashSet::new());
    let shared = Mutex::new((Scan { list: with_list.then(Vec::new), ..Scan::default() }, linked, None));
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    // When nobody writes any more, what a network file system remembers is not good enough.
    let detail = if pass == Pass::Final { Detail::Now } else { Detail::Stat };
    let mut look = || {
        let now = lock();
        see(&now.0);
        now.0.entries as f64
    };
    let add = |seen| {
        let mut shared = lock();
        let (scan, linked, failure) = &mut *shared;
        let outcome = match seen {
            _ if stop.requested().is_some() => Err(Failure::interrupted(stop.requested().unwrap_or_default())),
            Seen::Pair(pair) => scan.add(&pair, source, target, trust, linked),
            // Not the root: everything would pass for gone with it.
            Seen::Trouble { side: Side::Source, error, path, .. }
                if pass == Pass::Hot && error.kind() == std::io::ErrorKind::NotFound && !path.is_empty() =>
            {
                scan.vanished += 1;
                Ok(())
            }
            Seen::Trouble { side, path, doing, error } => {
                let side = if side == Side::Source { "source" } else { "target" };
                Err(Failure::system(format!("{doing} {} in the {side}", tree::shown(&path)), &error))
            }
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                // The first one is told.
                failure.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    };
    tree::walk([source, target], detail, &mut Tuner::new(workers), &add, &mut look);
    let (scan, _, failure) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(scan), Err)
}

/// Inodes of each side that were counted already.
type Linked = (HashSet<(u64, u64)>, HashSet<(u64, u64)>);

impl Scan {
    fn add(
        &mut self,
        pair: &Pair,
        source: &Root,
        target: &Root,
        trust: Trust,
        seen: &mut Linked,
    ) -> Result<(), Failure> {
        let inside = |node: &Node, other: &Root| node.kind == FileType::Directory && other.is(node);
        if pair.source.as_ref().is_some_and(|n| inside(n, target))
            || pair.target.as_ref().is_some_and(|n| inside(n, source))
        {
            let meaning = format!("source and target overlap: one contains the other as {}", tree::shown(&pair.path));
            return Err(Failure::new(FailKind::Usage, meaning));
        }
        if let Some(node) = pair.target.as_ref().filter(|node| first_name(node, &mut seen.1)) {
            self.held.bytes += node.allocated;
            self.held.inodes += 1;
        }
        let Some(node) = &pair.source else { return Ok(()) };
        let first = first_name(node, &mut seen.0);
        self.entries += 1;
        self.whiteouts += u64::from(node.kind == FileType::CharacterDevice && node.rdev == 0);
        if first {
            self.need.bytes += least_room(node);
            self.need.inodes += 1;
        }
        if node.kind == FileType::RegularFile {
            self.files += 1;
            self.bytes += if first { node.size } else { 0 };
            let alike = pair
                .target
                .as_ref()
                .filter(|t| t.kind == FileType::RegularFile && t.size == node.size && t.mtime == node.mtime);
            // Of an unknown target every file is suspect; an empty one has none.
            if alike.is_some_and(|held| !trust.both(node, held, pair.arrived)) {
                self.suspects += 1;
                if let Some(list) = &mut self.list {
                    // rsync takes a line that begins with # or ; for a comment.
                    list.extend_from_slice(b"./");
                    list.extend_from_slice(&pair.path);
                    list.push(0);
                }
            }
        }
        Ok(())
    }
}

fn first_name(node: &Node, seen: &mut HashSet<(u64, u64)>) -> bool {
    node.kind == FileType::Directory || node.nlink == 1 || seen.insert((node.dev, node.ino))
}

/// What an entry needs anywhere: holes stay holes, and blocks that are allocated beyond the end are not copied.
fn least_room(node: &Node) -> u64 {
    match node.kind {
        FileType::RegularFile => node.allocated.min(node.size.next_multiple_of(4096)),
        // A directory of ext4 keeps the blocks of entries that it once had.
        _ => node.allocated.min(4096),
    }
}

/// What a file system still gives.
#[derive(Clone, Copy, Debug)]
pub struct Free {
    pub bytes: u64,
    /// None if it does not count inodes.
    pub inodes: Option<u64>,
}

/// The space rule: what is needed must fit in what is free plus what the target tree holds.
///
/// # Errors
/// Kind `target_too_small`, with the numbers.
pub fn fits(need: Room, held: Room, free: Free) -> Result<(), Failure> {
    let small = |meaning| Err(Failure::new(FailKind::TargetTooSmall, meaning));
    let bytes = free.bytes.saturating_add(held.bytes);
    if need.bytes > bytes {
        return small(format!(
            "the source uses {} ({} bytes), the target can hold {} ({bytes} bytes)",
            human_bytes(need.bytes),
            need.bytes,
            human_bytes(bytes)
        ));
    }
    match free.inodes.map(|inodes| inodes.saturating_add(held.inodes)) {
        Some(inodes) if need.inodes > inodes => {
            small(format!("the source uses {} inodes, the target can hold {inodes}", need.inodes))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let room = |bytes, inodes| Room { bytes, inodes };
        for (need, held, free, wanted) in [
            (room(10, 1), room(0, 0), (10, Some(1)), Ok(())),
            (room(11, 1), room(1, 0), (10, None), Ok(())),
            (
                room(12288, 1),
                room(1, 0),
                (4095, None),
                Err("the source uses 12 KiB (12288 bytes), the target can hold 4 KiB (4096 bytes)"),
            ),
            (room(1, 9), room(0, 3), (10, Some(5)), Err("the source uses 9 inodes, the target can hold 8")),
            (room(1, 9), room(0, 0), (10, None), Ok(())),
            (room(u64::MAX, 9), room(u64::MAX, 0), (u64::MAX, None), Ok(())),
        ] {
            let outcome = fits(need, held, Free { bytes: free.0, inodes: free.1 });
            assert_eq!(outcome.as_ref().map_err(|e| e.meaning.as_str()).copied(), wanted);
            assert!(outcome.err().is_none_or(|e| e.kind == FailKind::TargetTooSmall));
        }
    }
}
