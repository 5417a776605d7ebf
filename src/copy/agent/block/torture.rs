//! Whole passes over devices: files that stand for them, and loop devices where there are any.

use super::super::copy::{Engine, Job, copy};
use super::super::stop::Stop;
use super::super::verify;
use crate::copy::report::{CopyReport, FailKind, Line, Mode, Pass, VerifyReport};
use crate::copy::waive::Waive;
use proptest::prelude::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: u64 = 5 * (1 << 20) + 8 * 512;

/// Two devices.
struct Bench {
    dir: tempfile::TempDir,
    source: PathBuf,
    target: PathBuf,
    loops: Vec<PathBuf>,
}

impl Bench {
    fn new(source_bytes: u64, target_bytes: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
        File::create(&source).unwrap().set_len(source_bytes).unwrap();
        File::create(&target).unwrap().set_len(target_bytes).unwrap();
        Bench { dir, source, target, loops: Vec::new() }
    }

    /// The same with devices of the kernel's; None where there can be none.
    fn of_loops(bytes: u64) -> Option<Bench> {
        let mut bench = Bench::new(bytes, bytes);
        for side in 0..2 {
            let file = if side == 0 { &bench.source } else { &bench.target };
            let made = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok();
            let Some(made) = made.filter(|made| made.status.success()) else {
                println!("skipped: there are no loop devices here");
                return None;
            };
            let device = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
            bench.loops.push(device.clone());
            if side == 0 { bench.source = device } else { bench.target = device }
        }
        Some(bench)
    }

    fn job(&self, since: Option<&CopyReport>, allow_empty: bool) -> Job {
        let time = |text: &String| text.parse().unwrap();
        Job {
            source: self.source.clone(),
            target: self.target.clone(),
            pass: Pass::Final,
            since: since.map(|report| time(&report.started_at)),
            since_end: since.map(|report| time(&report.ended_at)),
            is_clone: false,
            allow_empty,
            engine: Engine::Native,
            workers: None,
            bandwidth: None,
            waive: Waive::NOTHING,
        }
    }

    fn pass(&self, since: Option<&CopyReport>) -> CopyReport {
        copy(&self.job(since, false), &Stop::new(), &mut |_| {})
    }

    fn good(&self, since: Option<&CopyReport>) -> CopyReport {
        let report = self.pass(since);
        assert!(report.ok && report.kind.is_none() && report.exit == 0, "{report:#?}");
        assert_eq!((report.engine.as_str(), report.bytes_total), ("block", self.size()));
        report
    }

    fn size(&self) -> u64 {
        read(&self.source).len() as u64
    }

    fn verify(&self, mode: Mode) -> VerifyReport {
        let since = (mode == Mode::Changed).then(jiff::Timestamp::now);
        let job = verify::Job { since, ..verify::Job::new(self.source.clone(), self.target.clone(), mode) };
        verify::verify(&job, &Stop::new(), &mut |_| {})
    }

    fn are_equal(&self) {
        let (source, target) = (read(&self.source), read(&self.target));
        assert!(target[..source.len()] == source, "the bytes differ");
        let report = self.verify(Mode::Full);
        assert!(report.ok, "{report:#?}");
        assert_eq!(report.source_digest, blake3::hash(&source).to_hex().to_string());
        assert_eq!((&report.target_digest, report.bytes), (&report.source_digest, source.len() as u64));
        assert_eq!(report.hashed_bytes, 2 * report.bytes);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for device in &self.loops {
            Command::new("losetup").arg("-d").arg(device).status().unwrap();
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 509 + usize::from(seed)) as u8 | 1).collect()
}

#[test]
fn a_first_pass_makes_it_equal_whatever_was_there() {
    let bench = Bench::new(SIZE, SIZE + 4096);
    put(&bench.source, 1 << 20, &noise(2 << 20, 1));
    put(&bench.target, 0, &noise((SIZE + 4096) as usize, 2));
    let report = bench.good(None);
    // All of it differed, zeros too.
    assert_eq!(report.bytes_copied, SIZE);
    bench.are_equal();
    for mode in [Mode::Full, Mode::Metadata] {
        let line = Line::VerifyReport(bench.verify(mode));
        assert_eq!(Line::parse(&line.to_json()), Some(line), "the host takes it for good");
    }
    assert_eq!(
        read(&bench.target)[SIZE as usize..],
        noise((SIZE + 4096) as usize, 2)[SIZE as usize..],
        "the rest stays"
    );
}

#[test]
fn what_is_zero_takes_no_room_in_the_target() {
    let bench = Bench::new(64 << 20, 64 << 20);
    put(&bench.source, 10 << 20, &noise(65_536, 3));
    assert_eq!(bench.good(None).bytes_copied, 65_536);
    bench.are_equal();
    assert!(fs::metadata(&bench.target).unwrap().blocks() * 512 < 2 << 20);
    // What became zero gives its room back.
    let first = bench.good(None);
    put(&bench.source, 10 << 20, &[0; 65_536]);
    put(&bench.source, 20 << 20, &[5]);
    bench.good(Some(&first));
    bench.are_equal();
    assert!(fs::metadata(&bench.target).unwrap().blocks() * 512 < 2 << 20);
}

#[test]
fn a_later_pass_writes_what_differs_and_trusts_nothing() {
    let bench = Bench::new(SIZE, SIZE);
    put(&bench.source, 0, &noise(SIZE as usize, 4));
    let first = bench.good(None);
    assert_eq!(bench.good(Some(&first)).bytes_copied, 0);
    // Somebody wrote to the source, and somebody to the target.
    put(&bench.source, SIZE - 1, &[0]);
    put(&bench.target, 3 << 20, &[0]);
    let tail = SIZE % 65_536;
    assert_eq!(bench.good(Some(&first)).bytes_copied, tail + 65_536);
    bench.are_equal();
}

#[test]
fn one_bit_is_found_wherever_it_is() {
    let bench = Bench::new(SIZE, SIZE);
    put(&bench.source, 0, &noise(SIZE as usize, 5));
    bench.good(None);
    for at in [0, 65_535, 65_536, (1 << 20) - 1, 1 << 20, SIZE - 1] {
        let was = read(&bench.target)[at as usize];
        put(&bench.target, at, &[was ^ 0x10]);
        for mode in [Mode::Full, Mode::Changed] {
            let report = bench.verify(mode);
            assert!(!report.ok && report.kind.is_none(), "{at}: {report:#?}");
            assert_eq!(report.differences_total, 1);
            assert_ne!(report.source_digest, report.target_digest);
            let (begin, what) = (at / 65_536 * 65_536, &report.differences[0]);
            assert!(what.path.starts_with(&format!("bytes {begin} to ")) && what.what == "content", "{what:?}");
        }
        // Their sizes are all the metadata that there is.
        assert!(bench.verify(Mode::Metadata).ok);
        put(&bench.target, at, &[was]);
    }
    bench.are_equal();
}

#[test]
fn a_source_that_is_suddenly_empty_empties_nothing() {
    let bench = Bench::new(SIZE, SIZE);
    put(&bench.target, 70_000, &noise(10, 6));
    let before = read(&bench.target);
    let report = bench.pass(None);
    assert!(!report.ok && report.meaning.contains("the source is empty"), "{report:#?}");
    assert!(read(&bench.target) == before);
    let report = copy(&bench.job(None, true), &Stop::new(), &mut |_| {});
    assert!(report.ok, "{report:#?}");
    bench.are_equal();
    // Both are empty: there is nothing to refuse.
    bench.good(None);
}

#[test]
fn a_target_that_is_too_small_is_not_touched() {
    let bench = Bench::new(SIZE, SIZE - 512);
    put(&bench.source, 0, &noise(SIZE as usize, 7));
    let report = bench.pass(None);
    assert_eq!((report.ok, report.kind), (false, Some(FailKind::TargetTooSmall)));
    assert!(report.meaning.contains(&SIZE.to_string()), "{}", report.meaning);
    assert!(read(&bench.target).iter().all(|byte| *byte == 0));
    let report = bench.verify(Mode::Metadata);
    assert_eq!((report.ok, report.differences[0].what.as_str()), (false, "size"));
    assert!(!bench.verify(Mode::Full).ok);
}

#[test]
fn a_pass_that_is_told_to_stop_says_so_and_the_next_one_ends_it() {
    let bench = Bench::new(SIZE, SIZE);
    put(&bench.source, 0, &noise(SIZE as usize, 8));
    let stop = Stop::new();
    stop.request(15);
    let report = copy(&bench.job(None, false), &stop, &mut |_| {});
    assert_eq!((report.ok, report.kind, report.exit), (false, Some(FailKind::Interrupted), 143));
    let job = verify::Job::new(bench.source.clone(), bench.target.clone(), Mode::Full);
    assert_eq!(verify::verify(&job, &stop, &mut |_| {}).kind, Some(FailKind::Interrupted));
    bench.good(None);
    bench.are_equal();
}

#[test]
fn devices_of_the_kernel_are_copied_and_one_in_use_is_refused() {
    let Some(bench) = Bench::of_loops(SIZE + 512) else { return };
    put(&bench.source, 0, &noise(SIZE as usize / 2, 9));
    put(&bench.target, 0, &noise(SIZE as usize, 10));
    let first = bench.good(None);
    bench.are_equal();
    put(&bench.source, SIZE + 511, &[9]);
    bench.good(Some(&first));
    bench.are_equal();
    // One device by two names is one.
    let other = bench.dir.path().join("same");
    let device = fs::metadata(&bench.source).unwrap().rdev();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &other, rustix::fs::FileType::BlockDevice, mode, device).unwrap();
    let report = copy(&Job { target: other, ..bench.job(None, false) }, &Stop::new(), &mut |_| {});
    assert_eq!(report.kind, Some(FailKind::Usage), "{report:#?}");
    // Somebody holds the target, as a mount does.
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC;
    let held = rustix::fs::open(&bench.target, flags, rustix::fs::Mode::empty()).unwrap();
    let report = bench.pass(None);
    assert!(!report.ok && report.retryable && report.meaning.contains("is in use"), "{report:#?}");
    drop(held);
    bench.good(None);
}

/// What is done to a side between two passes: a byte, from a place, so often.
fn edits() -> impl Strategy<Value = Vec<(bool, u64, u8, usize)>> {
    prop::collection::vec((any::<bool>(), 0..SIZE, any::<u8>(), 1..200_000usize), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_written_the_next_pass_makes_it_equal(first in edits(), second in edits(), marked in any::<bool>()) {
        let bench = Bench::new(SIZE, SIZE);
        if marked {
            put(&bench.source, 17, &[1]);
        }
        let edit = |edits: &[(bool, u64, u8, usize)]| {
            for (of_source, at, byte, length) in edits {
                let length = (*length).min((SIZE - at) as usize);
                put(if *of_source { &bench.source } else { &bench.target }, *at, &vec![*byte; length]);
            }
        };
        edit(&first);
        let one = copy(&bench.job(None, true), &Stop::new(), &mut |_| {});
        prop_assert!(one.ok, "{one:#?}");
        edit(&second);
        let two = copy(&bench.job(Some(&one), true), &Stop::new(), &mut |_| {});
        prop_assert!(two.ok, "{two:#?}");
        bench.are_equal();
    }
}
