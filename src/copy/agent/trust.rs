//! What the times of a file vouch for: the one place where the pass rule of `copy` decides.
//!
//! Not a clock and not a look at anything. Asked by `scan`, `native` and `verify`. What must stay true: without times
//! of a good pass nothing is trusted; whatever is in doubt is read.
//!
//! A file of the source is as it was at the last good pass if its mtime and ctime are before that pass, and if it was
//! in its place then: the rename of a directory moves no time of what is below it. It moves the directory's own ctime
//! and that of the directory it is in, so where both are new, everything below may have come from elsewhere.
//!
//! A file of the target is as the last good pass left it if its ctime is before the end of that pass. A later pass that
//! did not end well may have given it size and time without its content being on the disk when the node went down.
//!
//! A file of a clone that no pass has seen yet is its original's if it has the very ctime, which nobody can give it: not a
//! driver that copied it, and not one that cloned what the original was before.

use super::suspect_from;
use super::tree::Node;
use jiff::Timestamp;

/// Nanoseconds since the epoch from which on times vouch for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    source_from: i128,
    target_from: i128,
    /// The target is a clone that no pass has seen.
    is_clone: bool,
}

impl Trust {
    /// Everything is read.
    pub const NONE: Trust = Trust { source_from: i128::MIN, target_from: i128::MIN, is_clone: false };

    /// Everything that looks equal is equal.
    #[cfg(test)]
    pub const ALL: Trust = Trust::from(i128::MAX, i128::MAX);

    /// Without slack: no test waits that long.
    #[cfg(any(test, fuzzing))]
    pub const fn from(source_from: i128, target_from: i128) -> Trust {
        Trust { source_from, target_from, is_clone: false }
    }

    /// After a good pass that began and ended then; without both nothing is known of it.
    pub fn after(began: Option<Timestamp>, ended: Option<Timestamp>) -> Trust {
        match (began, ended) {
            (Some(began), Some(ended)) => {
                let (source_from, target_from) = (suspect_from(began), suspect_from(ended.max(began)));
                Trust { source_from, target_from, is_clone: false }
            }
            _ => Trust::NONE,
        }
    }

    /// Of a clone that was made when the source had been flushed at that time.
    pub fn of_clone(flushed: Timestamp) -> Trust {
        Trust { source_from: suspect_from(flushed), target_from: i128::MIN, is_clone: true }
    }

    /// True if the two are still what they were when they were made equal.
    pub fn both(&self, source: &Node, target: &Node, arrived: i128) -> bool {
        let target = if self.is_clone { target.ctime == source.ctime } else { self.target(target) };
        target && self.source(source, arrived)
    }

    /// True if the source's file in a directory that arrived then is what it was when the good pass began.
    pub fn source(&self, node: &Node, arrived: i128) -> bool {
        node.mtime < self.source_from && node.ctime < self.source_from && arrived < self.source_from
    }

    /// True if the target's file is what it was when the good pass ended.
    fn target(&self, node: &Node) -> bool {
        node.ctime < self.target_from
    }
}

/// When the root came: it was always there.
pub const ALWAYS: i128 = i128::MIN;

/// The latest time at which a directory, or one above it, may have been put in its place. `above` is that of the
/// directory it is in, and `ctimes` are its own ctime and that directory's.
pub fn arrived(above: i128, ctimes: [i128; 2]) -> i128 {
    above.max(ctimes[0].min(ctimes[1]))
}

#[cfg(test)]
mod tests {
    use super::super::tree::Detail;
    use super::*;
    use rustix::fs::FileType;

    #[test]
    fn only_what_is_safely_old_is_trusted() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let ns = |second: i64| i128::from(second) * 1_000_000_000;
        let trust = Trust::after(Some(at(1000)), Some(at(2000)));
        let node = |mtime, ctime| {
            let node = super::super::tree::of_open(&std::fs::File::open("/dev/null").unwrap().into(), Detail::Stat);
            let node = node.unwrap();
            Node { kind: FileType::RegularFile, mtime: ns(mtime), ctime: ns(ctime), ..node }
        };
        for (mtime, ctime, arrived, source, target) in [
            (0, 0, ALWAYS, true, true),
            (969, 969, ns(969), true, true),
            (970, 0, ALWAYS, false, true),
            (0, 970, ALWAYS, false, true),
            (0, 0, ns(970), false, true),
            (0, 1969, ALWAYS, false, true),
            (0, 1970, ALWAYS, false, false),
            (5000, 0, ALWAYS, false, true),
        ] {
            let node = node(mtime, ctime);
            assert_eq!((trust.source(&node, arrived), trust.target(&node)), (source, target), "{mtime} {ctime}");
            assert!(!Trust::NONE.source(&node, arrived) && !Trust::NONE.target(&node));
            assert!(Trust::ALL.source(&node, arrived) && Trust::ALL.target(&node));
        }
        for (began, ended) in [(None, None), (Some(at(1)), None), (None, Some(at(1)))] {
            assert_eq!(Trust::after(began, ended), Trust::NONE);
        }
    }

    #[test]
    fn of_a_clone_only_what_has_the_very_time_of_change_is_trusted() {
        let trust = Trust::of_clone(Timestamp::from_second(1000).unwrap());
        let node = |ctime: i128| {
            let node = super::super::tree::of_open(&std::fs::File::open("/dev/null").unwrap().into(), Detail::Stat);
            Node { kind: FileType::RegularFile, mtime: 0, ctime, ..node.unwrap() }
        };
        const NS: i128 = 1_000_000_000;
        for (source, target, arrived, wanted) in [
            (5, 5, ALWAYS, true),
            (5, 6, ALWAYS, false),
            (6, 5, ALWAYS, false),
            (969 * NS, 969 * NS, ALWAYS, true),
            (970 * NS, 970 * NS, ALWAYS, false),
            (5, 5, 970 * NS, false),
        ] {
            assert_eq!(trust.both(&node(source), &node(target), arrived), wanted, "{source} {target} {arrived}");
        }
    }

    #[test]
    fn what_is_below_a_renamed_directory_arrived_with_it() {
        // Own ctime and that of the directory above; the rename of either at 5 moved both.
        for (above, ctimes, wanted) in
            [(ALWAYS, [5, 5], 5), (ALWAYS, [5, 9], 5), (ALWAYS, [9, 1], 1), (5, [1, 1], 5), (5, [7, 9], 7)]
        {
            assert_eq!(arrived(above, ctimes), wanted);
        }
    }
}
