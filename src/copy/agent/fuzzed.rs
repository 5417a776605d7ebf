//! What must hold of the readers of lines and names, whatever bytes they are given.
//!
//! Not a part of the program: `garbled` asks with what proptest makes up, `tests/fuzz` with what libfuzzer finds.
//! What must stay true: each function takes anything, and panics only if a reader is wrong.

use super::child::each_line;
use super::rsync::{Complaints, Stats, Verdict, judge, parse_progress};
use super::tree::{Names, join, merge, shown, split};
use super::trust::Trust;
use super::{SLACK_S, stamp};
use crate::copy::report::{FailKind, Line, MESSAGES_MAX, Pass, TERMINATION_MESSAGE_BYTES};
use crate::copy::run::{copy_problem, sync_problem, verify_problem};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;

/// What a copy pod's log says, and what rsync does.
pub fn progress(bytes: &[u8]) {
    let (mut complaints, mut stats) = (Complaints::default(), Stats::default());
    each_line(bytes, &mut |line| {
        let entries = parse_progress(line).and_then(|transfer| transfer.entries);
        assert!(entries.is_none_or(|(done, all)| done <= all), "{line}");
        let before = stats;
        assert!(stats.take(line) || stats == before, "{line}");
        complaints.add(line);
        if let Some(line) = Line::parse(line) {
            is_read_back(&line);
        }
    });
    assert!(complaints.first.len() <= MESSAGES_MAX);
    assert!(complaints.first.iter().all(|line| !line.chars().any(|c| c.is_control() && c != '\t')));
    for code in [-1, 0, 1, 11, 20, 23, 24, 30, 137, 255] {
        // What can be said on stderr makes no other failure a success, and none at all in a final pass.
        let is_gone = code == 24 || code == 23 && complaints.kinds == [FailKind::Vanished];
        for (pass, is_fine) in [(Pass::Hot, code == 0 || is_gone), (Pass::Final, code == 0)] {
            let verdict = judge(code, pass, &complaints);
            assert_eq!(matches!(verdict, Verdict::Failed(_)), !is_fine, "{code} {pass:?} {complaints:?}");
        }
    }
}

/// What a pass goes by: when an earlier one began and ended, each on a line, and the names in a directory of the source
/// and of the target, which NUL and `/` part.
pub fn manifest(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut time = || str::from_utf8(parts.next()?).ok()?.parse().ok();
    only_both_times_are_trusted(time(), time());
    let mut sides = parts.next().unwrap_or_default().split(|byte| *byte == b'/');
    let mut names = || {
        let names =
            sides.next().unwrap_or_default().split(|byte| *byte == 0).filter(|name| matches!(name.len(), 1..=255));
        names.map(<[u8]>::to_vec).collect()
    };
    names_are_kept(&[names(), names()]);
}

/// The lines at a pod's end. The first four bytes say where two of them are torn.
pub fn report(bytes: &[u8]) {
    let Some(([a, b, c, d], text)) = bytes.split_first_chunk() else { return };
    let at = [[*a, *b], [*c, *d]].map(|two| usize::from(u16::from_le_bytes(two)));
    let lines: Vec<Line> = String::from_utf8_lossy(text).lines().filter_map(Line::parse).collect();
    for (line, next) in lines.iter().zip(lines.iter().cycle().skip(1)) {
        is_read_back(line);
        is_kept_within(line, TERMINATION_MESSAGE_BYTES - 1);
        is_told(line);
        is_none_if_cut(line, at[0]);
        torn_is_not_good([line, next], at);
    }
}

/// True if somebody who reads it goes on.
pub(super) fn is_good(line: Option<&Line>) -> bool {
    match line {
        Some(Line::CopyReport(report)) => report.ok,
        Some(Line::VerifyReport(report)) => report.ok,
        Some(Line::SyncReport(report)) => report.ok,
        Some(Line::Progress(_) | Line::Unknown) | None => false,
    }
}

/// What decides.
fn verdict(line: &Line) -> (bool, Option<FailKind>, Option<bool>, u64, String) {
    match line {
        Line::CopyReport(r) => {
            let proof = r.proof.as_deref().map(|proof| verdict(&Line::VerifyReport(proof.clone())));
            (r.ok, r.kind, Some(r.retryable), r.files_total, format!("{} {proof:?}", r.started_at))
        }
        Line::VerifyReport(r) => {
            (r.ok, r.kind, None, r.differences_total, format!("{} {}", r.source_digest, r.target_digest))
        }
        Line::SyncReport(r) => (r.ok, r.kind, Some(r.retryable), 0, r.started_at.clone()),
        Line::Progress(_) | Line::Unknown => (false, None, None, 0, String::new()),
    }
}

/// Fractions of seconds may be rounded, nothing else.
fn is_read_back(line: &Line) {
    let text = line.to_json();
    assert!(!text.contains('\n'));
    let again = Line::parse(&text);
    assert_eq!(again.as_ref().map(verdict), Some(verdict(line)), "{text}");
    assert!(!matches!(line, Line::Progress(_)) || again.as_ref() == Some(line), "{text}");
}

/// Returns what is left of it.
pub(super) fn is_kept_within(line: &Line, limit: usize) -> String {
    let text = line.clone().to_json_within(limit);
    assert_eq!(Line::parse(&text).as_ref().map(verdict), Some(verdict(line)), "{text}");
    text
}

/// A person is told of any of them.
pub(super) fn is_told(line: &Line) {
    match line {
        Line::CopyReport(report) => {
            drop(copy_problem(&json!(report), "shop/data"));
            drop(verify_problem(&json!(report.proof), "shop/data"));
        }
        Line::VerifyReport(report) => drop(verify_problem(&json!(report), "shop/data")),
        Line::SyncReport(report) => drop(sync_problem(&json!(report), "shop/data")),
        Line::Progress(_) | Line::Unknown => {}
    }
}

pub(super) fn is_none_if_cut(line: &Line, at: usize) {
    let text = line.to_json();
    let at = text.floor_char_boundary(at % text.len());
    assert_eq!(Line::parse(&text[..at]), None, "{text}");
    assert!(at == 0 || Line::parse(&text[at..]).is_none(), "{text}");
}

/// The beginning of one with the end of the other. If both are the same, a part is gone or there twice.
pub(super) fn torn_is_not_good(lines: [&Line; 2], at: [usize; 2]) {
    if lines.iter().any(|line| is_good(Some(line))) {
        return;
    }
    let texts = lines.map(Line::to_json);
    let [begin, end] = [0, 1].map(|n: usize| texts[n].split_at(texts[n].floor_char_boundary(at[n] % texts[n].len())));
    let text = format!("{}{}", begin.0, end.1);
    assert!(!is_good(Line::parse(&text).as_ref()), "{text}");
}

/// Without both times nothing is trusted, and what is a time can be reckoned with.
pub(super) fn only_both_times_are_trusted(began: Option<Timestamp>, ended: Option<Timestamp>) {
    let from = |time: Timestamp| time.as_nanosecond() - i128::from(SLACK_S) * 1_000_000_000;
    let wanted = match (began.map(from), ended.map(from)) {
        (Some(began), Some(ended)) => Trust::from(began, ended.max(began)),
        _ => Trust::NONE,
    };
    assert_eq!(Trust::after(began, ended), wanted);
    // Of the years that four digits say.
    for time in [began, ended].into_iter().flatten().filter(|time| !stamp(*time).starts_with('-')) {
        assert_eq!(stamp(time).parse().ok(), Some(time));
    }
}

/// The names of both sides are sorted, merged and shown, and none is lost, made up or taken for another.
pub(super) fn names_are_kept(sides: &[Vec<Vec<u8>>; 2]) {
    let packed = [0, 1].map(|side: usize| {
        let mut names = Names::default();
        sides[side].iter().for_each(|name| names.push(name).expect("they fit into memory"));
        names.sort();
        names
    });
    let sets = [0, 1].map(|side: usize| sides[side].iter().map(Vec::as_slice).collect::<BTreeSet<&[u8]>>());
    for (names, set) in packed.iter().zip(&sets) {
        assert_eq!(names.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
        assert!(names.len() == set.len() && names.is_empty() == set.is_empty());
        assert!((0..names.len()).all(|n| set.contains(names.get(n))));
    }
    let all: BTreeSet<&[u8]> = sets[0].union(&sets[1]).copied().collect();
    let merged: Vec<_> = merge(&packed[0], &packed[1]).map(|n| (n.bytes, n.in_source, n.in_target)).collect();
    let wanted: Vec<_> = all.iter().map(|n| (*n, sets[0].contains(n), sets[1].contains(n))).collect();
    assert_eq!(merged, wanted);
    assert_eq!(all.iter().map(|name| shown(name)).collect::<BTreeSet<_>>().len(), all.len(), "two are shown alike");
    assert!(
        all.iter().all(|name| !shown(name).contains(char::is_control) && split(&join(b"d/e", name)) == (b"d/e", *name))
    );
}
