//! The flush that a clone is made after: what a pass does first, without the pass.
//!
//! Not a copy: nothing is looked at. Called by `cli::agent`. What must stay true: the time in the report is before the
//! flush, so that whatever is stored later has a time that is not before it (`copy` has the rule).

use super::{Failure, stamp};
use crate::copy::report::{FailKind, SyncReport};
use crate::words::clock::Clock;
use jiff::Timestamp;
use std::fs::File;
use std::path::Path;

/// Writes the file system of a directory, or a device, to its disk.
pub fn flush(source: &Path) -> SyncReport {
    let (began, started) = (Clock.monotonic(), Timestamp::now());
    let failure = write_out(source).err();
    SyncReport {
        ok: failure.is_none(),
        retryable: failure.as_ref().is_some_and(|failure| failure.retryable),
        kind: failure.as_ref().map(|failure| failure.kind),
        meaning: failure.map_or_else(|| "complete: the source is on its disk".into(), |failure| failure.meaning),
        started_at: stamp(started),
        seconds: began.elapsed().as_secs_f64(),
    }
}

fn write_out(source: &Path) -> Result<(), Failure> {
    let file = File::open(source)
        .map_err(|e| Failure::new(FailKind::Usage, format!("the source {} cannot be used: {e}", source.display())))?;
    let is_dir = file.metadata().is_ok_and(|about| about.is_dir());
    let flushed = if is_dir { rustix::fs::syncfs(&file).map_err(Into::into) } else { file.sync_all() };
    flushed.map_err(|e: std::io::Error| Failure::system("flushing the source", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_tells_when_it_began() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("device");
        std::fs::write(&file, "x").unwrap();
        for source in [dir.path(), &file] {
            let before = Timestamp::now();
            let report = flush(source);
            let began: Timestamp = report.started_at.parse().unwrap();
            assert!(report.ok && report.kind.is_none() && before <= began && began <= Timestamp::now(), "{report:?}");
        }
        let none = flush(&dir.path().join("absent"));
        assert_eq!((none.ok, none.kind, none.retryable), (false, Some(FailKind::Usage), false));
        assert!(none.meaning.contains("absent"), "{}", none.meaning);
    }
}
