//! The process inside a copy pod: it makes two directories or two block devices equal, and proves it.
//!
//! Not the host: it knows no Kubernetes, decides nothing about order and prints nothing (what it has to say goes
//! through the caller's `emit`). Called by `cli::agent`, in pods, in the lab and by hand on any two of them.
//! What must stay true: the source is never written to; nothing outside of the two directories is touched; symbolic
//! links are never followed; every run ends with a report, a killed one included as far as that can be.

pub mod block;
mod child;
pub mod copy;
mod crew;
mod entry;
pub mod exercise;
mod file_system;
pub mod flush;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
#[cfg(test)]
mod garbled;
mod groups;
mod hash;
pub mod native;
mod pace;
mod pages;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what this machine cannot do")]
mod passes_torture;
#[cfg(test)]
mod random;
mod ring;
pub mod rsync;
mod scan;
mod slots;
pub mod stop;
mod sum;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what this machine cannot do")]
mod torture;
pub mod tree;
mod trust;
mod tune;
mod twins;
pub mod verify;
#[cfg(test)]
mod waive_torture;

use crate::copy::report::{FailKind, Line};
use jiff::Timestamp;
use std::path::Path;
use tree::Root;

/// Where the agent's lines go.
pub type Emit<'a> = &'a mut dyn FnMut(Line);

/// How much older than `--since` a file's mtime and ctime must be before they vouch for its content, in seconds.
/// The kernel stamps files from a clock that lags by up to one tick, and on NFS, CephFS or SMB the stamp is the
/// server's or another client's. Half a minute is more than machines with NTP ever differ, and costs only the
/// reading of what was written in half a minute.
pub const SLACK_S: i64 = 30;

/// Why a copy or a verification ended early.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{meaning}")]
pub struct Failure {
    pub kind: FailKind,
    pub meaning: String,
    pub retryable: bool,
}

impl Failure {
    pub fn new(kind: FailKind, meaning: impl Into<String>) -> Self {
        Failure { kind, meaning: meaning.into(), retryable: false }
    }

    pub fn interrupted(signal: i32) -> Self {
        let meaning = format!("stopped by signal {signal} before it was done");
        Failure { kind: FailKind::Interrupted, meaning, retryable: true }
    }

    /// An error of the system while doing something, with the kind that its number tells.
    pub fn system(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let kind = error.raw_os_error().and_then(rsync::kind_of_errno).unwrap_or(FailKind::Io);
        Failure { kind, meaning: format!("{doing}: {error}"), retryable: kind == FailKind::Io }
    }
}

/// RFC 3339 in UTC with nanoseconds, as reports carry it and `--since` takes it.
pub fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

/// The mtime or ctime (nanoseconds since the epoch) from which on a file must be read again.
fn suspect_from(since: Timestamp) -> i128 {
    since.as_nanosecond() - i128::from(SLACK_S) * 1_000_000_000
}

/// Opens the two directories of a command.
///
/// # Errors
/// If one is no directory, or if they are the same or one is inside the other: kind `usage`.
pub fn open_both(source: &Path, target: &Path) -> Result<(Root, Root), Failure> {
    let usage = |meaning: String| Failure::new(FailKind::Usage, meaning);
    let mut real = Vec::new();
    for (word, path) in [("source", source), ("target", target)] {
        let path =
            path.canonicalize().map_err(|e| usage(format!("the {word} {} cannot be used: {e}", path.display())))?;
        if !path.is_dir() {
            return Err(usage(format!("the {word} {} is not a directory", path.display())));
        }
        real.push(path);
    }
    let [source, target] = [&real[0], &real[1]];
    if source == target {
        return Err(usage(format!("source and target are the same directory {}", source.display())));
    }
    for (inner, outer) in [(source, target), (target, source)] {
        if inner.starts_with(outer) {
            return Err(usage(format!("{} is inside {}", inner.display(), outer.display())));
        }
    }
    let open = |path: &Path| {
        Root::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Failure::new(FailKind::Permission, format!("{} may not be read: {e}", path.display()))
            }
            _ => usage(format!("{} cannot be opened: {e}", path.display())),
        })
    };
    let (source_root, target_root) = (open(source)?, open(target)?);
    // Two mounts of one volume have two paths: a claim given for both sides by mistake looks like this.
    if source_root.same_as(&target_root) {
        let (source, target) = (source.display(), target.display());
        return Err(usage(format!("{source} and {target} are two mounts of the same directory")));
    }
    Ok((source_root, target_root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_directories_must_be_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("a/inner")).unwrap();
        std::fs::create_dir(path("b")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        for (source, target, fits) in [
            ("a", "b", true),
            ("a", "a", false),
            ("a", "link", false),
            ("a", "a/../a", false),
            ("a", "a/inner", false),
            ("link/inner", "a", false),
            ("a", "file", false),
            ("absent", "b", false),
        ] {
            let outcome = open_both(&path(source), &path(target));
            assert_eq!(outcome.is_ok(), fits, "{source} {target}");
            assert!(outcome.err().is_none_or(|e| e.kind == FailKind::Usage));
        }
    }

    #[test]
    fn stamps_keep_nanoseconds() {
        let time: Timestamp = "2026-01-02T03:04:05.000000009Z".parse().unwrap();
        assert_eq!(stamp(time), "2026-01-02T03:04:05.000000009Z");
        assert_eq!(stamp(time).parse::<Timestamp>().unwrap(), time);
    }
}
