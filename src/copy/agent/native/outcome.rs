//! What a native pass did so far, shared by its threads, and what went wrong.
//!
//! Not the work. Called by every part of `native`. What must stay true: an error that is not told to `tell` is lost,
//! so whoever returns a [`Trouble`] has a caller that tells it; a vanished file is an error in a final pass.

use super::super::rsync::{gravest, kind_of_errno};
use super::super::stop::Stop;
use super::super::{Failure, tree};
use crate::copy::report::{FailKind, MESSAGES_MAX, Pass};
use crate::copy::waive::{Kind, Waive, Waived};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What went wrong with one entry.
#[derive(Debug)]
pub struct Trouble {
    pub kind: FailKind,
    pub text: String,
}

impl Trouble {
    /// An error on the side that is read. What is gone, or has become something else, was changed by somebody.
    pub fn source(doing: &str, path: &[u8], error: &io::Error) -> Self {
        // ENOENT, ENOTDIR, ELOOP (a link where none was), ENODATA.
        let kind = match error.raw_os_error() {
            Some(2 | 20 | 40 | 61) => FailKind::Vanished,
            _ => kind_of(error),
        };
        Trouble { kind, text: format!("{doing} {} in the source: {error}", tree::shown(path)) }
    }

    /// An error on the side that is written.
    pub fn target(doing: &str, path: &[u8], error: &io::Error) -> Self {
        Trouble { kind: kind_of(error), text: format!("{doing} {} in the target: {error}", tree::shown(path)) }
    }

    /// An error while setting an extended attribute, on a file system that `is_full`.
    pub fn attribute(name: &[u8], path: &[u8], error: &io::Error, is_full: impl Fn() -> bool) -> Self {
        let mut trouble = Trouble::target(&format!("setting attribute {} of", tree::shown(name)), path, error);
        // E2BIG, ERANGE, and ENOSPC where there is space: the attribute is too large for it.
        match error.raw_os_error() {
            Some(7 | 34) => trouble.kind = FailKind::MetadataUnsupported,
            Some(28) if !is_full() => trouble.kind = FailKind::MetadataUnsupported,
            _ => {}
        }
        trouble
    }

    /// One of the two directories is inside the other, seen from somewhere.
    pub fn overlap(path: &[u8]) -> Self {
        let text = format!("source and target overlap: one contains the other as {}", tree::shown(path));
        Trouble { kind: FailKind::Usage, text }
    }

    /// The source is not what it was a moment ago.
    pub fn changed(path: &[u8]) -> Self {
        Trouble { kind: FailKind::Vanished, text: format!("{} changed while it was copied", tree::shown(path)) }
    }

    /// A request to stop came while the file was made. It decides nothing: the request does.
    pub fn stopped(path: &[u8]) -> Self {
        Trouble { kind: FailKind::Interrupted, text: format!("{} was not completed", tree::shown(path)) }
    }

    /// The target is not what it was a moment ago.
    pub fn meddled(path: &[u8]) -> Self {
        let text = format!("{} in the target was changed by somebody else", tree::shown(path));
        Trouble { kind: FailKind::Other, text }
    }
}

fn kind_of(error: &io::Error) -> FailKind {
    error.raw_os_error().and_then(kind_of_errno).unwrap_or(FailKind::Other)
}

/// The shared account.
pub struct Outcome<'a> {
    pub pass: Pass,
    waive: Waive,
    stop: &'a Stop,
    /// Regular files of the source (names), and the sum of their sizes, hard-linked ones once.
    pub files: AtomicU64,
    pub bytes_found: AtomicU64,
    /// Entries of the source that are done.
    pub entries: AtomicU64,
    /// Files of equal size and time that were read all the same.
    pub reread: AtomicU64,
    /// Character devices 0:0, by which overlay file systems mark what is deleted.
    pub whiteouts: AtomicU64,
    /// Bytes of content that were handled: copied, compared, or known to be equal.
    pub bytes: AtomicU64,
    pub files_copied: AtomicU64,
    pub bytes_copied: AtomicU64,
    pub deleted: AtomicU64,
    pub vanished: AtomicU64,
    hopeless: AtomicBool,
    told: Mutex<Told>,
    /// Entries of the target without what was waived.
    waived: Mutex<Waived>,
}

#[derive(Default)]
struct Told {
    first: Vec<Trouble>,
    total: u64,
}

impl<'a> Outcome<'a> {
    pub fn new(pass: Pass, waive: Waive, stop: &'a Stop) -> Self {
        Outcome {
            pass,
            waive,
            stop,
            files: AtomicU64::new(0),
            bytes_found: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            reread: AtomicU64::new(0),
            whiteouts: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            files_copied: AtomicU64::new(0),
            bytes_copied: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            vanished: AtomicU64::new(0),
            hopeless: AtomicBool::new(false),
            told: Mutex::default(),
            waived: Mutex::default(),
        }
    }

    /// True if the target may be without it: it was waived, and the error says that the target, or whoever copies, cannot.
    pub fn may_be_without(&self, kind: Kind, trouble: &Trouble) -> bool {
        self.waive.has(kind) && matches!(trouble.kind, FailKind::Permission | FailKind::MetadataUnsupported)
    }

    /// Counts an entry that is without these kinds.
    pub fn is_without(&self, kinds: Waive) {
        let mut waived = self.waived.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds.kinds() {
            *waived.entry(kind).or_default() += 1;
        }
    }

    pub fn waived(&self) -> Waived {
        self.waived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes an error. The pass goes on with the next entry, unless that is of no use.
    pub fn tell(&self, trouble: Trouble) {
        if trouble.kind == FailKind::Vanished && self.pass == Pass::Hot {
            add(&self.vanished, 1);
            return;
        }
        if trouble.kind == FailKind::Interrupted {
            return;
        }
        let mut told = self.told();
        let is_full = matches!(trouble.kind, FailKind::NoSpace | FailKind::Quota | FailKind::ReadOnly);
        told.total += 1;
        if told.first.len() < MESSAGES_MAX {
            told.first.push(trouble);
        } else if is_full {
            // It decides what the pass failed of.
            told.first[MESSAGES_MAX - 1] = trouble;
        }
        // It has failed, and what more it would say nobody would see.
        if is_full || told.first.len() == MESSAGES_MAX {
            self.hopeless.store(true, Ordering::Relaxed);
        }
    }

    /// True if nothing more is to be begun.
    pub fn is_over(&self) -> bool {
        self.hopeless.load(Ordering::Relaxed) || self.stop.requested().is_some()
    }

    /// The errors that were kept.
    pub fn messages(&self) -> Vec<String> {
        self.told().first.iter().map(|trouble| trouble.text.clone()).collect()
    }

    /// The verdict. Of many errors the gravest names the kind.
    pub fn failure(&self) -> Option<Failure> {
        if let Some(signal) = self.stop.requested() {
            return Some(Failure::interrupted(signal));
        }
        let told = self.told();
        let kinds: Vec<FailKind> = told.first.iter().map(|trouble| trouble.kind).collect();
        // Whatever was told is a failure, also of a kind that has no place in the order.
        let kind = gravest(&kinds).or_else(|| kinds.first().copied())?;
        let text = told.first.iter().find(|trouble| trouble.kind == kind).map_or("", |trouble| &trouble.text);
        let mut meaning = text.to_owned();
        if told.total > 1 {
            meaning.push_str(&format!("; {} errors in all", told.total));
        }
        if kind == FailKind::Vanished {
            meaning.push_str(": somebody still writes to the source");
        }
        let kind = if kind == FailKind::Other { FailKind::Partial } else { kind };
        Some(Failure { kind, meaning, retryable: kind == FailKind::Io })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters are read for progress and after the last thread ended.
pub fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailKind::*;

    #[test]
    fn error_numbers_mean_the_same_as_with_rsync() {
        let error = io::Error::from_raw_os_error;
        for (number, source, target, attribute) in [
            (1, Permission, Permission, Permission),
            (2, Vanished, Other, Other),
            (5, Io, Io, Io),
            (7, Other, Other, MetadataUnsupported),
            (13, Permission, Permission, Permission),
            (20, Vanished, Other, Other),
            (22, MetadataUnsupported, MetadataUnsupported, MetadataUnsupported),
            (27, Other, Other, Other),
            (28, NoSpace, NoSpace, MetadataUnsupported),
            (30, ReadOnly, ReadOnly, ReadOnly),
            (34, Other, Other, MetadataUnsupported),
            (61, Vanished, Other, Other),
            (95, MetadataUnsupported, MetadataUnsupported, MetadataUnsupported),
            (116, Io, Io, Io),
            (122, Quota, Quota, Quota),
        ] {
            assert_eq!(Trouble::source("reading", b"a", &error(number)).kind, source, "{number}");
            assert_eq!(Trouble::target("writing", b"a", &error(number)).kind, target, "{number}");
            let of_attribute = |is_full| Trouble::attribute(b"user.x", b"a", &error(number), || is_full).kind;
            assert_eq!(of_attribute(false), attribute, "{number}");
            assert_eq!(of_attribute(true), if number == 28 { NoSpace } else { attribute }, "{number}");
        }
    }

    #[test]
    fn the_gravest_error_is_the_verdict() {
        let failed = |pass, kinds: &[FailKind]| {
            let (stop, text) = (Stop::new(), String::new());
            let outcome = Outcome::new(pass, Waive::NOTHING, &stop);
            kinds.iter().for_each(|kind| outcome.tell(Trouble { kind: *kind, text: text.clone() }));
            (outcome.failure().map(|failure| (failure.kind, failure.retryable)), outcome.is_over())
        };
        for (pass, kinds, wanted, over) in [
            (Pass::Final, &[][..], None, false),
            (Pass::Hot, &[Vanished], None, false),
            (Pass::Final, &[Vanished], Some((Vanished, false)), false),
            (Pass::Hot, &[Vanished, Permission], Some((Permission, false)), false),
            (Pass::Hot, &[Other], Some((Partial, false)), false),
            (Pass::Final, &[Permission, Io, Vanished], Some((Io, true)), false),
            (Pass::Final, &[Io, NoSpace], Some((NoSpace, false)), true),
            (Pass::Hot, &[Usage], Some((Usage, false)), false),
            (Pass::Hot, &[TargetTooSmall], Some((TargetTooSmall, false)), false),
            (Pass::Hot, &[Permission; 20], Some((Permission, false)), true),
            (Pass::Hot, &[Vanished; 50], None, false),
        ] {
            assert_eq!(failed(pass, kinds), (wanted, over), "{kinds:?}");
        }
    }

    #[test]
    fn a_request_to_stop_is_the_verdict_before_all_others() {
        let stop = Stop::new();
        let outcome = Outcome::new(Pass::Final, Waive::NOTHING, &stop);
        outcome.tell(Trouble::changed(b"a"));
        stop.request(15);
        assert!(outcome.is_over());
        assert!(outcome.failure().is_some_and(|failure| failure.kind == Interrupted && failure.retryable));
    }
}
