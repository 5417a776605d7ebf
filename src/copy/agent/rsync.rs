//! What rsync is told and what its answers mean: pure, by tables.
//!
//! Not the process (that is `child`) and not the order of things (that is `copy`). Checked against rsync 3.2.7 to
//! 3.5.0. What must stay true: no user text becomes an option; an exit code alone is never success of a final pass.

use super::Failure;
use crate::copy::report::{FailKind, MESSAGES_MAX, Pass};
use crate::copy::waive::{Kind, Waive};
use std::ffi::OsString;
use std::path::Path;

/// What a report calls this engine.
pub const NAME: &str = "rsync";

/// Looked up in PATH.
pub const PROGRAM: &str = "rsync";

/// One of the ways rsync is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The whole tree; files of equal size and mtime are skipped.
    Whole,
    /// The files named on stdin, compared by their content.
    Listed,
}

/// The command line without the program. `lost_found` says that the root's `lost+found` is data on one side. What is
/// waived is not asked for: rsync cannot be told to try.
pub fn argv(
    run: Run,
    pass: Pass,
    as_root: bool,
    lost_found: bool,
    waive: Waive,
    source: &Path,
    target: &Path,
) -> Vec<OsString> {
    let mut words: Vec<&str> = vec!["-aHAXS", "--numeric-ids", "-x"];
    if waive.has(Kind::Acl) {
        words.push("--no-acls");
    }
    if waive.has(Kind::Xattr) {
        words.push("--no-xattrs");
    }
    if waive.has(Kind::Owner) {
        // What is set for another owner would run as the one who copies: that is left out, and seen by the verification.
        words.extend(["--no-owner", "--no-group", "--chmod=Fu-s,Fg-s"]);
    }
    if !lost_found {
        words.push("--exclude=/lost+found");
    }
    // With an xattr filter rsync drops its own: ACLs would be set twice (`system.*`, beside -A), and as a plain user
    // everything but `user.*` would be tried in vain. SELinux labels belong to the pod, not to the data.
    words.extend(if as_root {
        &["--filter=-x security.selinux", "--filter=-x system.*"][..]
    } else {
        &["--filter=-x! user.*"][..]
    });
    // Without it times are compared by the second only, and a directory's nanoseconds would never be put right.
    words.extend(["--modify-window=-1", "--info=progress2,stats2", "--no-h", "--outbuf=L"]);
    match run {
        // Deleting in hot passes too: a file that became a directory could not be replaced otherwise, and a workload
        // that rotates its files would fill the target with what it has long removed.
        Run::Whole => words.push("--delete"),
        // Directories keep what the target has: the run over the whole tree that follows puts them right.
        // Compared and not just sent again: writing an equal file anew needs its size in free space for a while.
        Run::Listed => words.extend(["--checksum", "--from0", "--files-from=-", "--no-implied-dirs"]),
    }
    if run == Run::Listed && pass == Pass::Hot {
        words.push("--ignore-missing-args");
    }
    words.push("--");
    let mut argv: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    for path in [source, target] {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        argv.push(path);
    }
    argv
}

/// The manual's words (rsync(1), EXIT VALUES).
pub fn meaning(code: i32) -> &'static str {
    match code {
        0 => "success",
        1 => "syntax or usage error",
        2 => "protocol incompatibility",
        3 => "errors selecting input/output files, directories",
        4 => "requested action not supported",
        5 => "error starting client-server protocol",
        6 => "daemon unable to append to log-file",
        10 => "error in socket I/O",
        11 => "error in file I/O",
        12 => "error in rsync protocol data stream",
        13 => "errors with program diagnostics",
        14 => "error in IPC code",
        15 => "sibling process crashed",
        16 => "sibling process was killed by a signal",
        19 => "received SIGUSR1",
        20 => "received SIGINT, SIGTERM, or SIGHUP",
        21 => "some error returned by waitpid()",
        22 => "error allocating core memory buffers",
        23 => "partial transfer due to error",
        24 => "partial transfer due to vanished source files",
        25 => "the --max-delete limit stopped deletions",
        30 => "timeout in data send/receive",
        35 => "timeout waiting for daemon connection",
        137 => "killed by signal 9, often for want of memory",
        129..=192 => "ended by a signal",
        _ => "an exit code that the manual does not know",
    }
}

/// What rsync said on stderr.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    /// The first of them, printable.
    pub first: Vec<String>,
    /// Every kind that was seen.
    pub kinds: Vec<FailKind>,
}

impl Complaints {
    pub fn add(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.first.len() < MESSAGES_MAX {
            let cut = line.floor_char_boundary(500);
            self.first.push(crate::words::names::plain(&line[..cut]));
        }
        if let Some(kind) = kind_of_complaint(line)
            && !self.kinds.contains(&kind)
        {
            self.kinds.push(kind);
        }
    }
}

/// The kind to act on: the first of this order that was seen.
pub fn gravest(kinds: &[FailKind]) -> Option<FailKind> {
    use FailKind::*;
    let order = [Usage, NoSpace, Quota, ReadOnly, Io, MetadataUnsupported, Permission, Other, Vanished];
    order.into_iter().find(|kind| kinds.contains(kind))
}

/// What one line is about; None for summaries and consequences of other errors.
fn kind_of_complaint(line: &str) -> Option<FailKind> {
    let summary = ["rsync error:", "rsync warning:", "IO error encountered", "cannot delete non-empty directory"];
    if summary.iter().any(|start| line.starts_with(start)) {
        return None;
    }
    // The source changed while it was read: the second is what a file says that shrank.
    // By their beginnings, as all else may be a file's name.
    let is_gone = line.starts_with("file has vanished: ") || line.starts_with("directory has vanished: ");
    let is_update = |line: &str| line.contains(" failed verification -- update ");
    if is_gone || ["WARNING: ", "ERROR: "].iter().any(|start| line.starts_with(start) && is_update(line)) {
        return Some(FailKind::Vanished);
    }
    let number = line.trim_end().strip_suffix(')').and_then(|rest| rest.rsplit_once('(')).map(|(_, number)| number);
    let Some(errno) = number.and_then(|number| number.parse::<i32>().ok()) else {
        return Some(FailKind::Other);
    };
    Some(match errno {
        // ENOENT, ENOTDIR, ENODATA: it, its parent, its end or its attribute is gone.
        2 | 20 | 61 => FailKind::Vanished,
        // E2BIG, ENOSPC, ERANGE: the file system is not full, the attribute is too large for it.
        7 | 28 | 34 if line.contains("xattr") => FailKind::MetadataUnsupported,
        _ => kind_of_errno(errno).unwrap_or(FailKind::Other),
    })
}

/// The kind that an error number of the system tells, if it tells one.
pub fn kind_of_errno(errno: i32) -> Option<FailKind> {
    Some(match errno {
        1 | 13 => FailKind::Permission,           // EPERM, EACCES
        5 | 74 | 116 | 117 => FailKind::Io,       // EIO, EBADMSG, ESTALE, EUCLEAN
        22 | 95 => FailKind::MetadataUnsupported, // EINVAL: an owner outside of the user namespace; ENOTSUP
        28 => FailKind::NoSpace,
        30 => FailKind::ReadOnly,
        122 => FailKind::Quota,
        _ => return None,
    })
}

/// What an ended rsync means for the pass.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Clean,
    /// Source files went away or shrank while being read; only in hot passes.
    Vanished,
    Failed(Failure),
}

pub fn judge(code: i32, pass: Pass, complaints: &Complaints) -> Verdict {
    let only_vanished = complaints.kinds == [FailKind::Vanished];
    // rsync says 23 instead of 24 when the file went between its listing and the reading of its ACL or attributes.
    let vanished = code == 24 || (code == 23 && only_vanished);
    if code == 0 {
        return Verdict::Clean;
    }
    if vanished && pass == Pass::Hot {
        return Verdict::Vanished;
    }
    let kind = match code {
        24 => FailKind::Vanished,
        1..=6 => FailKind::Usage,
        20 | 130 | 143 => FailKind::Interrupted,
        _ => gravest(&complaints.kinds).unwrap_or(match code {
            10..=12 | 30 | 35 => FailKind::Io,
            23 => FailKind::Partial,
            _ => FailKind::Other,
        }),
    };
    let kind = if code == 23 && kind == FailKind::Other { FailKind::Partial } else { kind };
    let said = match (kind, complaints.first.first()) {
        (FailKind::Vanished, _) => ": somebody still writes to the source".to_owned(),
        (_, Some(first)) => format!(": {first}"),
        (_, None) => String::new(),
    };
    let meaning = format!("rsync ended with {code} ({}){said}", meaning(code));
    Verdict::Failed(Failure { kind, meaning, retryable: retryable(code, kind) })
}

/// True if the same command may succeed without anybody changing anything.
fn retryable(code: i32, kind: FailKind) -> bool {
    match kind {
        FailKind::Io | FailKind::Interrupted => true,
        FailKind::Other => matches!(code, 10 | 12 | 14 | 15 | 16 | 19 | 30 | 35 | 137),
        _ => false,
    }
}

/// A line of `--info=progress2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes of file content handled so far.
    pub bytes: u64,
    /// Entries looked at and entries found so far, if the line says so; the second grows while rsync lists.
    pub entries: Option<(u64, u64)>,
}

/// `       3000  17%    1.50MB/s    0:00:01 (xfr#2, to-chk=298/301)`, with or without the bracket.
pub fn parse_progress(line: &str) -> Option<Transfer> {
    let mut words = line.split_whitespace();
    let bytes = words.next()?.replace(',', "").parse().ok()?;
    words.next()?.strip_suffix('%')?.parse::<u64>().ok()?;
    words.next()?.strip_suffix("/s")?;
    let entries = words.find_map(|word| {
        let (left, all) = word.trim_end_matches(')').split_once("-chk=")?.1.split_once('/')?;
        let (left, all): (u64, u64) = (left.parse().ok()?, all.parse().ok()?);
        Some((all.saturating_sub(left), all))
    });
    Some(Transfer { bytes, entries })
}

/// What `--info=stats2` says at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub files_copied: u64,
    pub bytes_copied: u64,
    pub deleted: u64,
}

impl Stats {
    /// Takes the line if it is one of the statistics.
    pub fn take(&mut self, line: &str) -> bool {
        let Some((name, value)) = line.split_once(": ") else {
            return false;
        };
        let digits: String = value.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        let Ok(number) = digits.replace(',', "").parse() else {
            return false;
        };
        match name {
            "Number of regular files transferred" => self.files_copied = number,
            "Total transferred file size" => self.bytes_copied = number,
            "Number of deleted files" => self.deleted = number,
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(lines: &[&str]) -> Complaints {
        let mut all = Complaints::default();
        lines.iter().for_each(|line| all.add(line));
        all
    }

    #[test]
    fn the_command_lines_are_these() {
        let line = |run, pass, root| {
            let words = argv(run, pass, root, false, Waive::NOTHING, Path::new("/src"), Path::new("/-rf"));
            words.into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>().join(" | ")
        };
        let start = "-aHAXS | --numeric-ids | -x | --exclude=/lost+found";
        let filter = "--filter=-x security.selinux | --filter=-x system.*";
        let rest = "--modify-window=-1 | --info=progress2,stats2 | --no-h | --outbuf=L";
        for (run, pass, root, wanted) in [
            (Run::Whole, Pass::Hot, true, format!("{start} | {filter} | {rest} | --delete")),
            (Run::Whole, Pass::Final, false, format!("{start} | --filter=-x! user.* | {rest} | --delete")),
            (
                Run::Listed,
                Pass::Hot,
                true,
                format!(
                    "{start} | {filter} | {rest} | --checksum | --from0 | --files-from=- | --no-implied-dirs \
                     | --ignore-missing-args"
                ),
            ),
            (
                Run::Listed,
                Pass::Final,
                true,
                format!("{start} | {filter} | {rest} | --checksum | --from0 | --files-from=- | --no-implied-dirs"),
            ),
        ] {
            assert_eq!(line(run, pass, root), format!("{wanted} | -- | /src/ | /-rf/"), "{run:?} {pass:?}");
        }
    }

    #[test]
    fn what_is_waived_is_not_asked_for() {
        let line = |kinds: &[Kind]| {
            let waive = Waive::of(kinds.iter().copied());
            let words = argv(Run::Whole, Pass::Hot, true, false, waive, Path::new("/src"), Path::new("/dst"));
            words.into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (kinds, wanted) in [
            (&[][..], "-aHAXS --numeric-ids -x --exclude"),
            (&[Kind::Acl], "-x --no-acls --exclude"),
            (&[Kind::Xattr], "-x --no-xattrs --exclude"),
            (&[Kind::Owner], "-x --no-owner --no-group --chmod=Fu-s,Fg-s --exclude"),
        ] {
            assert!(line(kinds).contains(wanted), "{kinds:?}: {}", line(kinds));
        }
    }

    #[test]
    fn progress_lines_are_understood() {
        let some = |bytes, entries| Some(Transfer { bytes, entries });
        for (line, wanted) in [
            ("           3000   0%    0.00kB/s    0:00:00  ", some(3000, None)),
            ("           3000  17%    1.50MB/s    0:00:01 (xfr#2, to-chk=298/301)", some(3000, Some((3, 301)))),
            ("  1,234,567 100%  122.21GB/s   12:34:56 (xfr#300, ir-chk=0/301)", some(1_234_567, Some((301, 301)))),
            ("      123456 104%    9.99kB/s   ??:??:?? (xfr#1, ir-chk=1000/1002)", some(123_456, Some((2, 1002)))),
            ("Number of files: 301 (reg: 300, dir: 1)", None),
            ("sent 917913 bytes  received 5734 bytes  1847294.00 bytes/sec", None),
            ("skipping non-regular file \"x\"", None),
            ("", None),
            ("%", None),
            ("99999999999999999999999 1% 1kB/s", None),
        ] {
            assert_eq!(parse_progress(line), wanted, "{line}");
        }
    }

    #[test]
    fn statistics_are_understood() {
        let mut stats = Stats::default();
        for (line, taken) in [
            ("Number of files: 301 (reg: 300, dir: 1)", false),
            ("Number of deleted files: 4 (reg: 3, dir: 1)", true),
            ("Number of regular files transferred: 1,300", true),
            ("Total transferred file size: 900000 bytes", true),
        ] {
            assert_eq!(stats.take(line), taken, "{line}");
        }
        assert_eq!(stats, Stats { files_copied: 1300, bytes_copied: 900_000, deleted: 4 });
    }

    #[test]
    fn exit_codes_mean_this() {
        use FailKind::*;
        let gone = r#"file has vanished: "/src/a""#;
        let gone_acl =
            r#"rsync: [sender] get_acl: sys_acl_get_file(a, ACL_TYPE_ACCESS): No such file or directory (2)"#;
        let full = r#"rsync: [receiver] write failed on "/dst/a": No space left on device (28)"#;
        let named_gone = r#"rsync: [generator] chown "/dst/a has vanished: b" failed: Operation not permitted (1)"#;
        let named_update =
            r#"rsync: [generator] chown "/dst/failed verification -- update c" failed: Operation not permitted (1)"#;
        let update = "WARNING: a failed verification -- update discarded (will try again).";
        let denied = r#"rsync: [generator] chown "/dst/a" failed: Operation not permitted (1)"#;
        let no_acl = r#"rsync: [receiver] set_acl: sys_acl_set_file(a, ACL_TYPE_ACCESS): Operation not supported (95)"#;
        let fat_xattr =
            r#"rsync: [receiver] rsync_xal_set: lsetxattr("a","user.x") failed: No space left on device (28)"#;
        let eio = r#"rsync: [sender] read errors mapping "/src/a": Input/output error (5)"#;
        let shrank = r#"rsync: [sender] read errors mapping "/src/a": No data available (61)"#;
        let end = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1)";
        let failed = |kind, retryable| Some((kind, retryable));
        for (code, pass, lines, wanted) in [
            (0, Pass::Final, vec![], None),
            (24, Pass::Final, vec![gone], failed(Vanished, false)),
            (23, Pass::Final, vec![gone_acl, end], failed(Vanished, false)),
            (23, Pass::Hot, vec![gone_acl, denied, end], failed(Permission, false)),
            (23, Pass::Hot, vec![end], failed(Partial, false)),
            (23, Pass::Hot, vec!["something new", end], failed(Partial, false)),
            (23, Pass::Hot, vec![no_acl, denied, end], failed(MetadataUnsupported, false)),
            (23, Pass::Hot, vec![fat_xattr, end], failed(MetadataUnsupported, false)),
            (23, Pass::Final, vec![eio, end], failed(Io, true)),
            (23, Pass::Hot, vec![named_gone, end], failed(Permission, false)),
            (23, Pass::Hot, vec![named_update, end], failed(Permission, false)),
            (11, Pass::Hot, vec![full], failed(NoSpace, false)),
            (12, Pass::Hot, vec![full], failed(NoSpace, false)),
            (12, Pass::Hot, vec![], failed(Io, true)),
            (1, Pass::Hot, vec!["rsync: --bad: unknown option"], failed(Usage, false)),
            (20, Pass::Final, vec![], failed(Interrupted, true)),
            (137, Pass::Final, vec![], failed(Other, true)),
            (22, Pass::Hot, vec![], failed(Other, false)),
            (25, Pass::Hot, vec![], failed(Other, false)),
            (255, Pass::Hot, vec![], failed(Other, false)),
        ] {
            let verdict = match judge(code, pass, &complaints(&lines)) {
                Verdict::Clean => None,
                Verdict::Vanished => panic!("{code} {lines:?} is no hot pass over a busy tree"),
                Verdict::Failed(failure) => Some((failure.kind, failure.retryable)),
            };
            assert_eq!(verdict, wanted, "{code} {lines:?}");
        }
        for (code, line) in [(24, gone), (23, gone_acl), (23, shrank), (23, update)] {
            assert_eq!(judge(code, Pass::Hot, &complaints(&[line, end])), Verdict::Vanished, "{line}");
        }
    }

    #[test]
    fn complaints_are_bounded_and_printable() {
        let mut all = Complaints::default();
        (0..100).for_each(|n| all.add(&format!("\u{1b}[31m{n}{}", "é".repeat(1000))));
        assert_eq!(all.first.len(), MESSAGES_MAX);
        assert!(all.first[0].starts_with("\\u{1b}[31m0é") && all.first[0].len() < 520);
    }
}
