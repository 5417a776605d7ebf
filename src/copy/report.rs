//! What the agent says and the host reads: one JSON object a line.
//!
//! Not the agent and not the judge: whether a report is good enough to go on is decided by the host.
//! Written by `copy::agent`, read from the log and the termination message of a copy pod.
//! What must stay true: readers tolerate unknown fields, unknown kinds of lines and lines that are no JSON (the log
//! carries stderr too); cutting a report never removes the verdict.

use super::waive::Waived;
use serde::{Deserialize, Serialize};

/// How many bytes Kubernetes keeps of a termination message (k8s.io/kubelet: `MaxContainerTerminationMessageLength`).
pub const TERMINATION_MESSAGE_BYTES: usize = 4096;

/// How many error lines and differences a report carries; the totals say how many there were.
pub const MESSAGES_MAX: usize = 20;
pub const DIFFERENCES_MAX: usize = 50;

/// One line of the agent's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Line {
    Progress(Progress),
    CopyReport(CopyReport),
    VerifyReport(VerifyReport),
    SyncReport(SyncReport),
    /// A line of a newer agent.
    #[serde(other)]
    Unknown,
}

/// Which pass of a copy: hot while the workload runs, final when nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    Hot,
    Final,
}

/// What verification compares beside the metadata, which it always compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The content of every regular file.
    Full,
    /// The content of the files that changed since a time; a full verification of the rest was made before it.
    Changed,
    /// No content.
    Metadata,
}

/// What the agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Flushing the source (before) or the target (after).
    Sync,
    /// Walking both trees.
    Scan,
    /// Reading again what size and time cannot vouch for, where the engine does that by itself.
    Reread,
    Copy,
    Verify,
    #[serde(other)]
    Other,
}

/// How far it is; at most one a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    /// None while verifying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// Entries of any type (files, directories, links) that are done; regular files if a verification was given totals.
    pub files: u64,
    /// As many as there are of them; 0 while that is not known.
    pub files_total: u64,
    /// Bytes transferred (rsync), read or known to be equal (native), or hashed on both sides (verify). A later pass ends far below `bytes_total`.
    pub bytes: u64,
    /// The sum of the sizes of the source's regular files, or of both sides' (verify); 0 while that is not known.
    pub bytes_total: u64,
    /// Bytes a second since the phase began.
    pub rate_bytes_s: u64,
    /// Seconds that are left, by the share of entries or bytes that is done; None while nothing can be said.
    #[serde(default)]
    pub eta_s: Option<u64>,
}

impl Progress {
    /// Nothing is done, and nothing known yet.
    pub fn begin(phase: Phase, pass: Option<Pass>) -> Self {
        Progress { phase, pass, files: 0, files_total: 0, bytes: 0, bytes_total: 0, rate_bytes_s: 0, eta_s: None }
    }
}

/// Why a copy or a verification failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// ENOSPC: bytes or inodes ran out while writing.
    NoSpace,
    /// EDQUOT.
    Quota,
    /// EROFS.
    ReadOnly,
    /// EPERM or EACCES.
    Permission,
    /// A source file went away while it was copied: normal in a hot pass, in a final pass proof of a writer.
    Vanished,
    /// Some files were not transferred, for several or unknown reasons.
    Partial,
    /// EIO, ESTALE and broken streams.
    Io,
    /// The target cannot hold owners, ACLs or extended attributes (ENOTSUP).
    MetadataUnsupported,
    /// SIGTERM or SIGINT, to the agent or to rsync.
    Interrupted,
    /// The command line or the two directories are wrong; nothing was touched.
    Usage,
    /// The target has fewer bytes or inodes than the source uses; nothing was touched.
    TargetTooSmall,
    #[serde(other)]
    Other,
}

/// The outcome of one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyReport {
    pub ok: bool,
    pub pass: Pass,
    /// `native` or `rsync`.
    pub engine: String,
    /// rsync's exit code, or that of `native`: 0 if it ended well, else 1; 128 + n if signal n ended it, -1 if the
    /// engine never ran.
    pub exit: i32,
    /// What that means, as a sentence for people: lower case, no full stop.
    pub meaning: String,
    /// Why it failed. `vanished` may stand beside `ok: true` in a hot pass.
    #[serde(default)]
    pub kind: Option<FailKind>,
    /// True if the same pass may succeed without anybody changing anything.
    #[serde(default)]
    pub retryable: bool,
    /// The pass's T: RFC 3339, UTC, nanoseconds; the agent's clock. The next pass is given this as `--since`.
    pub started_at: String,
    /// When the last thing was written, before the flush; empty if it did not come to that. The same clock. The next
    /// pass is given this as `--since-end`.
    #[serde(default)]
    pub ended_at: String,
    pub seconds: f64,
    /// Regular files in the source (names, not inodes) when the pass began.
    #[serde(default)]
    pub files_total: u64,
    /// The sum of their sizes in bytes, hard-linked files once.
    #[serde(default)]
    pub bytes_total: u64,
    /// Regular files transferred; a hot pass over a busy tree may count a file twice.
    #[serde(default)]
    pub files_copied: u64,
    /// The sum of their sizes in bytes.
    #[serde(default)]
    pub bytes_copied: u64,
    /// Entries removed from the target because the source no longer has them.
    #[serde(default)]
    pub files_deleted: u64,
    /// Files read on both sides although size and mtime were equal: see the pass rule in `agent::copy`. Those of them
    /// that differed are in `files_copied` too.
    #[serde(default)]
    pub reread: u64,
    /// Entries that the target has without something that was waived, as far as the engine knows: rsync is not asked.
    #[serde(default, skip_serializing_if = "Waived::is_empty")]
    pub waived: Waived,
    /// The first error lines, made printable.
    #[serde(default)]
    pub messages: Vec<String>,
    /// What a comparison found right after the pass, if it was asked for and the pass was good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Box<VerifyReport>>,
}

impl CopyReport {
    /// Everything but the verdict speaks for it.
    fn is_clean(&self) -> bool {
        match self.kind {
            None => self.exit == 0,
            // rsync has codes of its own for that.
            Some(kind) => kind == FailKind::Vanished && self.pass == Pass::Hot,
        }
    }
}

/// The outcome of a flush.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// True if what had been stored when it began is on the disk.
    pub ok: bool,
    /// What happened, as a sentence for people: lower case, no full stop.
    pub meaning: String,
    /// Why it failed.
    #[serde(default)]
    pub kind: Option<FailKind>,
    #[serde(default)]
    pub retryable: bool,
    /// When it began: RFC 3339, UTC, nanoseconds; the agent's clock. To a first pass over a clone that is made later this is its
    /// `--since`.
    pub started_at: String,
    pub seconds: f64,
}

/// One thing that is not equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Relative to the roots, `.` for the roots themselves; bytes that are no UTF-8 or not printable as `\xNN`.
    pub path: String,
    /// `missing`, `extra`, `type`, `mode`, `uid`, `gid`, `size`, `mtime`, `device`, `link`, `hard link`,
    /// `xattr NAME` or `content`.
    pub what: String,
    pub source: String,
    pub target: String,
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// True if everything was read and nothing differs.
    pub ok: bool,
    pub mode: Mode,
    /// blake3 (hex) over all entries of one side; equal trees have equal digests in the same mode and `--since`.
    pub source_digest: String,
    pub target_digest: String,
    /// Regular files in the source (names, not inodes).
    #[serde(default)]
    pub files: u64,
    /// The sum of their sizes in bytes, hard-linked files once.
    #[serde(default)]
    pub bytes: u64,
    /// Files whose content was read, both sides counted.
    #[serde(default)]
    pub hashed_files: u64,
    /// Bytes that were read, both sides counted.
    #[serde(default)]
    pub hashed_bytes: u64,
    /// When reading of the side began: RFC 3339, UTC, nanoseconds; the agent's clock.
    pub source_read_at: String,
    pub target_read_at: String,
    pub seconds: f64,
    /// Why it could not be done; None if it was, with whatever result.
    #[serde(default)]
    pub kind: Option<FailKind>,
    /// The first differences by path.
    #[serde(default)]
    pub differences: Vec<Difference>,
    #[serde(default)]
    pub differences_total: u64,
    /// How many of them are of a kind of metadata that can be waived; after a hot pass only of entries that did not
    /// change since it began, so these the target does not keep.
    #[serde(default, skip_serializing_if = "Waived::is_empty")]
    pub differences_by_kind: Waived,
    /// Entries that differ in what was waived, which are no differences and in no digest.
    #[serde(default, skip_serializing_if = "Waived::is_empty")]
    pub waived: Waived,
    /// The first read errors and remarks, made printable.
    #[serde(default)]
    pub messages: Vec<String>,
}

impl VerifyReport {
    fn is_consistent(&self) -> bool {
        !self.ok || self.is_clean()
    }

    fn shrink(&mut self) -> bool {
        self.differences.pop().is_some() || self.messages.pop().is_some()
    }

    /// Everything but the verdict speaks for it.
    fn is_clean(&self) -> bool {
        let are_equal = !self.source_digest.is_empty() && self.source_digest == self.target_digest;
        are_equal && self.kind.is_none() && self.differences.is_empty() && self.differences_total == 0
    }
}

impl Line {
    /// Reads a line of a copy pod's log; None if it is something else (stderr, a runtime's message, a torn line), or a
    /// report that says of itself why it cannot be good.
    pub fn parse(text: &str) -> Option<Line> {
        serde_json::from_str(text.trim()).ok().filter(Line::is_consistent)
    }

    fn is_consistent(&self) -> bool {
        match self {
            Line::CopyReport(report) => {
                let proof = report.proof.as_deref();
                (!report.ok || report.is_clean()) && proof.is_none_or(|proof| report.ok && proof.is_consistent())
            }
            Line::VerifyReport(report) => report.is_consistent(),
            Line::SyncReport(report) => !report.ok || (report.kind.is_none() && !report.retryable),
            Line::Progress(_) | Line::Unknown => true,
        }
    }

    /// One line of JSON without its line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, strings and lists always serialise")
    }

    /// The same within `limit` bytes: differences, messages and at last the tail of the meaning are dropped, the
    /// verdict never is. Only a `limit` smaller than an empty report (about 700 bytes; twice that with a proof) is exceeded.
    pub fn to_json_within(mut self, limit: usize) -> String {
        loop {
            let text = self.to_json();
            if text.len() <= limit || !self.shrink() {
                return text;
            }
        }
    }

    /// Drops the least important thing; false if nothing is left to drop.
    fn shrink(&mut self) -> bool {
        match self {
            Line::CopyReport(report) => {
                let proof = report.proof.as_deref_mut();
                report.messages.pop().is_some() || proof.is_some_and(VerifyReport::shrink) || halve(&mut report.meaning)
            }
            Line::VerifyReport(report) => report.shrink(),
            Line::SyncReport(report) => halve(&mut report.meaning),
            Line::Progress(_) | Line::Unknown => false,
        }
    }
}

fn halve(text: &mut String) -> bool {
    if text.is_empty() {
        return false;
    }
    text.truncate(text.floor_char_boundary(text.len() / 2));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn failed_copy() -> CopyReport {
        CopyReport {
            ok: false,
            pass: Pass::Final,
            engine: "rsync".into(),
            exit: 23,
            meaning: "partial transfer due to error".into(),
            kind: Some(FailKind::Permission),
            retryable: false,
            started_at: "2026-01-02T03:04:05.123456789Z".into(),
            ended_at: "2026-01-02T03:04:06.623456789Z".into(),
            seconds: 1.5,
            files_total: 3,
            bytes_total: 4096,
            files_copied: 1,
            bytes_copied: 10,
            files_deleted: 0,
            reread: 1,
            waived: Waived::default(),
            messages: vec![],
            proof: None,
        }
    }

    #[test]
    fn lines_read_back_what_was_written() {
        let line = Line::CopyReport(failed_copy());
        assert_eq!(Line::parse(&line.to_json()), Some(line.clone()));
        assert!(line.to_json().starts_with(r#"{"t":"copy_report","ok":false,"pass":"final""#));
    }

    #[test]
    fn readers_tolerate_what_they_do_not_know() {
        for (text, wanted) in [
            (r#"{"t":"weather","sun":true}"#, Some(Line::Unknown)),
            ("rsync: [sender] something", None),
            (r#"{"t":"progress","phase":"cop"#, None),
            ("", None),
        ] {
            assert_eq!(Line::parse(text), wanted, "{text}");
        }
        let newer = r#"{"t":"progress","phase":"dreaming","files":1,"files_total":2,"bytes":3,"bytes_total":4,
            "rate_bytes_s":5,"mood":"good"}"#;
        assert!(matches!(Line::parse(newer), Some(Line::Progress(p)) if p.phase == Phase::Other && p.eta_s.is_none()));
        let kind: FailKind = serde_json::from_str("\"struck_by_lightning\"").unwrap();
        assert_eq!(kind, FailKind::Other);
    }

    #[test]
    fn a_cut_report_is_valid_json_and_keeps_the_verdict() {
        let mut copy = failed_copy();
        copy.messages = vec!["ü\u{1}".repeat(300); MESSAGES_MAX];
        copy.meaning = "é".repeat(5000);
        let text = Line::CopyReport(copy).to_json_within(TERMINATION_MESSAGE_BYTES - 1);
        assert!(text.len() < TERMINATION_MESSAGE_BYTES);
        let Some(Line::CopyReport(cut)) = Line::parse(&text) else { panic!("{text}") };
        assert!(!cut.ok && cut.kind == Some(FailKind::Permission) && cut.exit == 23 && cut.meaning.starts_with('é'));

        let difference =
            Difference { path: "p".repeat(200), what: "mode".into(), source: "1".into(), target: "2".into() };
        let verify = VerifyReport {
            ok: false,
            mode: Mode::Full,
            source_digest: "a".repeat(64),
            target_digest: "b".repeat(64),
            files: 1,
            bytes: 1,
            hashed_files: 2,
            hashed_bytes: 2,
            source_read_at: String::new(),
            target_read_at: String::new(),
            seconds: 0.0,
            kind: None,
            differences: vec![difference; DIFFERENCES_MAX],
            differences_total: 77,
            differences_by_kind: Waived::default(),
            waived: Waived::default(),
            messages: vec!["m".into()],
        };
        let text = Line::VerifyReport(verify).to_json_within(TERMINATION_MESSAGE_BYTES - 1);
        assert!(text.len() < TERMINATION_MESSAGE_BYTES);
        let Some(Line::VerifyReport(cut)) = Line::parse(&text) else { panic!("{text}") };
        assert!(cut.differences_total == 77 && cut.differences.len() > 5 && cut.messages == ["m"]);
    }
}
