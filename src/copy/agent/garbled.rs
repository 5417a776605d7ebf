//! What the readers of lines make of lines that nobody wrote like that: any bytes, and good lines that were cut, flipped,
//! repeated and spliced.
//!
//! What must stay true: nobody panics; a bad report never turns into a good one; what was written is read back.

use super::fuzzed::{
    self, is_good, is_kept_within, is_none_if_cut, is_told, names_are_kept, only_both_times_are_trusted,
    torn_is_not_good,
};
use super::rsync::{Complaints, Stats, Transfer, parse_progress};
use super::stamp;
use crate::copy::report::{
    CopyReport, DIFFERENCES_MAX, Difference, FailKind, Line, MESSAGES_MAX, Mode, Pass, Phase, Progress, SyncReport,
    VerifyReport,
};
use crate::copy::waive::{Kind, Waived};
use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What happens to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    /// A part is gone.
    Cut(Index, Index),
    /// Only a part is left.
    Keep(Index, Index),
    Repeat(Index, Index),
    /// A part stands in another place as well.
    Splice(Index, Index, Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<Index>;
    let one = prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), at()).prop_map(|(from, to)| Damage::Cut(from, to)),
        (at(), at()).prop_map(|(from, to)| Damage::Keep(from, to)),
        (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        (at(), at(), at()).prop_map(|(from, to, into)| Damage::Splice(from, to, into)),
    ];
    vec(one, 1..4)
}

fn damaged(text: &str, damage: &[Damage]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for one in damage {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        let range = |a: &Index, b: &Index| place(a).min(place(b))..place(a).max(place(b));
        match one {
            Damage::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
            Damage::Flip(..) => {}
            Damage::Cut(a, b) => drop(bytes.drain(range(a, b))),
            Damage::Keep(a, b) => bytes = bytes[range(a, b)].to_vec(),
            Damage::Repeat(a, b) => bytes = [&bytes[..range(a, b).end], &bytes[range(a, b).start..]].concat(),
            Damage::Splice(a, b, into) => {
                let part = bytes[range(a, b)].to_vec();
                bytes.splice(place(into)..place(into), part);
            }
        }
    }
    // As logs are read.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn kind() -> impl Strategy<Value = FailKind> {
    use FailKind::*;
    select(vec![
        NoSpace,
        Quota,
        ReadOnly,
        Permission,
        Vanished,
        Partial,
        Io,
        MetadataUnsupported,
        Interrupted,
        Usage,
        TargetTooSmall,
        Other,
    ])
}

fn waived() -> impl Strategy<Value = Waived> {
    btree_map(select(vec![Kind::Acl, Kind::Owner, Kind::Xattr]), any::<u64>(), 0..3)
}

fn time() -> impl Strategy<Value = Timestamp> {
    // Of the years that four digits say.
    (-62_135_596_800..253_402_300_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
}

prop_compose! {
    fn copy_report()(
        (ok, is_final, retryable, is_gone) in any::<(bool, bool, bool, bool)>(),
        (exit, kind) in (1..200i32, option::of(kind())),
        numbers in any::<[u64; 6]>(),
        (began, ended, eighths) in (time(), time(), any::<u32>()),
        (meaning, messages) in (any::<String>(), vec(any::<String>(), 0..MESSAGES_MAX)),
        waived in waived(),
        proof in option::of(verify_report()),
    ) -> CopyReport {
        let pass = if is_final { Pass::Final } else { Pass::Hot };
        let (exit, kind) = match ok {
            true if is_gone && pass == Pass::Hot => (24, Some(FailKind::Vanished)),
            true => (0, None),
            false => (exit, kind),
        };
        let [files_total, bytes_total, files_copied, bytes_copied, files_deleted, reread] = numbers;
        CopyReport {
            ok, pass, engine: "native".into(), exit, meaning, kind, retryable,
            started_at: stamp(began), ended_at: stamp(ended), seconds: f64::from(eighths) / 8.0,
            files_total, bytes_total, files_copied, bytes_copied, files_deleted, reread, messages, waived,
            proof: proof.filter(|_| ok).map(Box::new),
        }
    }
}

prop_compose! {
    fn difference()(path in any::<String>(), what in any::<String>(), (source, target) in any::<(String, String)>()) -> Difference {
        Difference { path, what, source, target }
    }
}

prop_compose! {
    fn verify_report()(
        ok in any::<bool>(),
        mode in select(vec![Mode::Full, Mode::Changed, Mode::Metadata]),
        kind in option::of(kind()),
        [files, bytes, hashed_files, hashed_bytes] in any::<[u64; 4]>(),
        (began, eighths, digests) in (time(), any::<u32>(), any::<[u8; 2]>()),
        (differences, more) in (vec(difference(), 0..DIFFERENCES_MAX), 0..9u64),
        messages in vec(any::<String>(), 0..MESSAGES_MAX),
        (differences_by_kind, waived) in (waived(), waived()),
    ) -> VerifyReport {
        let digest = |n: u8| blake3::hash(&[n]).to_hex().to_string();
        let differences = if ok { Vec::new() } else { differences };
        VerifyReport {
            ok, mode,
            source_digest: digest(digests[0]), target_digest: digest(digests[usize::from(!ok)]),
            files, bytes, hashed_files, hashed_bytes,
            source_read_at: stamp(began), target_read_at: stamp(began), seconds: f64::from(eighths) / 8.0,
            kind: kind.filter(|_| !ok),
            differences_total: if ok { 0 } else { differences.len() as u64 + more },
            differences, differences_by_kind, waived, messages,
        }
    }
}

prop_compose! {
    fn sync_report()(
        (ok, retryable) in any::<(bool, bool)>(),
        (meaning, kind) in (any::<String>(), kind()),
        (began, eighths) in (time(), any::<u32>()),
    ) -> SyncReport {
        SyncReport {
            ok, meaning, kind: Some(kind).filter(|_| !ok), retryable: retryable && !ok,
            started_at: stamp(began), seconds: f64::from(eighths) / 8.0,
        }
    }
}

prop_compose! {
    fn progress()(
        phase in select(vec![Phase::Sync, Phase::Scan, Phase::Reread, Phase::Copy, Phase::Verify]),
        pass in select(vec![None, Some(Pass::Hot), Some(Pass::Final)]),
        [files, files_total, bytes, bytes_total, rate_bytes_s] in any::<[u64; 5]>(),
        eta_s in any::<Option<u64>>(),
    ) -> Progress {
        Progress { phase, pass, files, files_total, bytes, bytes_total, rate_bytes_s, eta_s }
    }
}

fn line() -> impl Strategy<Value = Line> {
    prop_oneof![
        copy_report().prop_map(Line::CopyReport),
        verify_report().prop_map(Line::VerifyReport),
        sync_report().prop_map(Line::SyncReport),
        progress().prop_map(Line::Progress),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_line_is_read_as_it_was_written(line in line()) {
        let text = line.to_json();
        prop_assert!(!text.contains('\n'));
        is_told(&line);
        prop_assert_eq!(Line::parse(&text), Some(line));
    }

    #[test]
    fn a_bad_report_never_becomes_a_good_one(line in line(), damage in damage()) {
        prop_assume!(!is_good(Some(&line)));
        let text = damaged(&line.to_json(), &damage);
        prop_assert!(!is_good(Line::parse(&text).as_ref()), "{text}");
    }

    #[test]
    fn a_bad_proof_never_becomes_a_good_one(copy in copy_report(), proof in verify_report(), damage in damage()) {
        prop_assume!(copy.ok && !proof.ok);
        let text = damaged(&Line::CopyReport(CopyReport { proof: Some(Box::new(proof)), ..copy }).to_json(), &damage);
        let is_proven = |line| matches!(line, Line::CopyReport(report) if report.proof.as_ref().is_some_and(|proof| proof.ok));
        prop_assert!(!Line::parse(&text).is_some_and(is_proven), "{text}");
    }

    #[test]
    fn a_report_that_is_cut_anywhere_is_none(line in line(), at in any::<Index>()) {
        is_none_if_cut(&line, at.index(usize::MAX));
    }

    #[test]
    fn bad_reports_that_are_torn_make_no_good_one(a in line(), b in line(), at in any::<[Index; 2]>()) {
        torn_is_not_good([&a, &b], at.map(|at| at.index(usize::MAX)));
    }

    #[test]
    fn a_report_that_contradicts_itself_is_none(report in verify_report(), copy in copy_report()) {
        let is_good = report.ok;
        prop_assert_eq!(Line::parse(&Line::VerifyReport(VerifyReport { ok: true, ..report }).to_json()).is_some(), is_good);
        let is_good = copy.ok || (copy.kind == Some(FailKind::Vanished) && copy.pass == Pass::Hot);
        prop_assert_eq!(Line::parse(&Line::CopyReport(CopyReport { ok: true, ..copy }).to_json()).is_some(), is_good);
    }

    #[test]
    fn what_is_shortened_fits_and_says_the_same(line in line(), limit in 1700..5000usize) {
        let text = is_kept_within(&line, limit);
        prop_assert!(text.len() <= limit, "{} bytes, not {limit}", text.len());
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert!(!is_good(Line::parse(&String::from_utf8_lossy(&bytes)).as_ref()));
        fuzzed::progress(&bytes);
        fuzzed::manifest(&bytes);
        fuzzed::report(&bytes);
    }

    #[test]
    fn a_name_in_a_complaint_says_nothing(name in prop_oneof![
        any::<String>(),
        (any::<String>(), select(vec![" has vanished: ", " failed verification -- update ", ": No space left on device (28)"]), any::<String>())
            .prop_map(|(a, b, c)| format!("{a}{b}{c}")),
    ]) {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let mut complaints = Complaints::default();
        complaints.add(&format!("rsync: [generator] chown \"/target/{name}\" failed: Operation not permitted (1)"));
        prop_assert_eq!(complaints.kinds, [FailKind::Permission]);
    }

    #[test]
    fn rsyncs_numbers_are_read_as_they_were_written(
        bytes in any::<u64>(), percent in 0..200u8, entries in option::of((any::<u64>(), any::<u64>())), damage in damage(),
    ) {
        let (left, all) = entries.map_or((0, 0), |(a, b)| (a.min(b), a.max(b)));
        let bracket = entries.map_or(String::new(), |_| format!(" (xfr#3, ir-chk={left}/{all})"));
        let line = format!("{:>15} {percent:>3}%  122.21MB/s    0:00:01{bracket}", with_commas(bytes));
        let wanted = Transfer { bytes, entries: entries.map(|_| (all - left, all)) };
        prop_assert_eq!(parse_progress(&line), Some(wanted));
        parse_progress(&damaged(&line, &damage));
        let mut stats = Stats::default();
        let line = format!("Total transferred file size: {} bytes", with_commas(bytes));
        prop_assert!(stats.take(&line));
        prop_assert_eq!(stats.bytes_copied, bytes);
        stats.take(&damaged(&line, &damage));
    }

    #[test]
    fn a_time_is_read_as_it_was_written(time in time(), damage in damage(), any in any::<String>()) {
        only_both_times_are_trusted(Some(time), None);
        for text in [damaged(&stamp(time), &damage), any] {
            only_both_times_are_trusted(Some(time), text.parse().ok());
            only_both_times_are_trusted(text.parse().ok(), Some(time));
        }
    }

    #[test]
    fn packed_names_are_the_names(sides in [vec(name(), 0..60), vec(name(), 0..60)]) {
        names_are_kept(&sides);
    }
}

/// Few letters, so that names begin alike and are there twice; short and as long as names may be.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(select(b"ab\xff".to_vec()), 1..5),
        vec(any::<u8>().prop_filter("no name has these", |byte| !matches!(byte, 0 | b'/')), 1..255),
    ]
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
