//! The proof: both trees read anew and compared, entry by entry.
//!
//! Not a repair and not part of the copier: it runs in a process of its own after the copier ended, and trusts
//! nothing it said. Called by `cli::agent`. What must stay true: whatever cannot be read makes the verification fail;
//! equal trees have equal digests, in whatever order they are walked; memory grows with the largest directory and the
//! hard-linked files only.

use super::entry::{self, Content, Entry};
use super::groups::{self, Groups};
use super::hash;
use super::stop::Stop;
use super::sum::Sum;
use super::tree::{self, Detail, Node, Root, Seen, Side};
use super::trust::{ALWAYS, Trust};
use super::tune::Tuner;
use super::{Emit, Failure, block, file_system, open_both, stamp, suspect_from};
use crate::copy::report::{
    DIFFERENCES_MAX, Difference, FailKind, Line, MESSAGES_MAX, Mode, Phase, Progress, VerifyReport,
};
use crate::copy::waive::{Kind, Waive, Waived};
use crate::words::clock::Clock;
use jiff::Timestamp;
use rustix::fs::FileType;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From this size on both sides of a file are read at once.
const LARGE: u64 = 32 << 20;
/// A small file weighs as much as so many bytes of a large one.
const BYTES_OF_A_FILE: f64 = 131_072.0;

/// By how much the clock that stamps a change may lag behind the one that was read before it.
const TICK_NS: i128 = 100_000_000;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Job {
    pub source: PathBuf,
    pub target: PathBuf,
    pub mode: Mode,
    /// With [`Mode::Changed`]: when the full verification of what is not read now had been made.
    pub since: Option<Timestamp>,
    /// How much there is, for the progress only; a full verification counts it ahead if nobody says.
    pub totals: Option<Totals>,
    /// How many threads; as many as make it faster if nothing is said.
    pub workers: Option<usize>,
    /// What is not compared, only counted.
    pub waive: Waive,
    /// Right after a pass beside a writer, when that began: whatever changed since may differ in anything, and says
    /// nothing about the target. It is a difference, and counted under no kind.
    pub settled_before: Option<Timestamp>,
    /// Nobody uses the source: what is in memory of it is dropped as well, so that both disks are read.
    pub from_disk: bool,
}

impl Job {
    /// Everything is compared, as fast as it can be.
    pub fn new(source: PathBuf, target: PathBuf, mode: Mode) -> Job {
        let (since, totals, workers, waive) = (None, None, None, Waive::NOTHING);
        Job { source, target, mode, since, totals, workers, waive, settled_before: None, from_disk: false }
    }
}

/// What a copy found in the source, as its report says.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Regular files (names).
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// Compares. Always returns a report, and emits progress on the way.
pub fn verify(job: &Job, stop: &Stop, emit: Emit<'_>) -> VerifyReport {
    let began = Clock.monotonic();
    let now = stamp(Timestamp::now());
    let mut report = VerifyReport {
        ok: false,
        mode: job.mode,
        source_digest: String::new(),
        target_digest: String::new(),
        files: 0,
        bytes: 0,
        hashed_files: 0,
        hashed_bytes: 0,
        source_read_at: now.clone(),
        target_read_at: now,
        seconds: 0.0,
        kind: None,
        differences: Vec::new(),
        differences_total: 0,
        differences_by_kind: Waived::default(),
        waived: Waived::default(),
        messages: Vec::new(),
    };
    if let Err(failure) = steps(job, stop, emit, &mut report) {
        report.kind = Some(failure.kind);
        report.messages.insert(0, failure.meaning);
        report.messages.truncate(MESSAGES_MAX);
    }
    report.ok = report.kind.is_none() && report.differences_total == 0;
    report.seconds = began.elapsed().as_secs_f64();
    report
}

fn steps(job: &Job, stop: &Stop, emit: Emit<'_>, report: &mut VerifyReport) -> Result<(), Failure> {
    if (job.mode == Mode::Changed) != job.since.is_some() {
        return Err(Failure::new(FailKind::Usage, "mode changed needs --since, and no other mode takes it"));
    }
    if let Some((source, target)) = block::open_both(&job.source, &job.target, block::Access::Verify)? {
        return blocks(job, [&source, &target], stop, emit, report);
    }
    let (source, target) = open_both(&job.source, &job.target)?;
    // The pass rule: what is stored after this flush moves a time to `source_read_at` or later, which is what a later
    // comparison is given as `since`.
    rustix::fs::syncfs(source.fd()).map_err(|e| Failure::system("flushing the source", &e.into()))?;
    let progress = Progress::begin(Phase::Verify, None);
    let mut teller = Teller { emit, progress, began: Clock.monotonic(), told: Clock.monotonic() };
    if let Some(Totals { files, bytes }) = job.totals {
        teller.progress.files_total = files;
        // Both sides are read; how much of them is known ahead only if it is all.
        teller.progress.bytes_total = if job.mode == Mode::Full { bytes.saturating_mul(2) } else { 0 };
    } else if job.mode == Mode::Full {
        teller.count_ahead([&source, &target], job.workers, stop)?;
    }
    (teller.emit)(Line::Progress(teller.progress.clone()));
    let comparison = Comparison {
        job,
        trust: trust(job, &source),
        stop,
        settled_before: job.settled_before.map(|began| match file_system::is_local(&source) {
            true => began.as_nanosecond() - TICK_NS,
            // Another machine's clock.
            false => suspect_from(began),
        }),
        roots: [&source, &target],
        bytes: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        found: Mutex::default(),
    };
    let see = |seen| {
        match seen {
            Seen::Pair(pair) => comparison.add(&pair),
            Seen::Trouble { side, path, doing, error } => comparison.trouble(side, &path, doing, &error),
        }
        if stop.requested().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut look = || {
        let (entries, bytes) = (comparison.entries.load(Ordering::Relaxed), comparison.bytes.load(Ordering::Relaxed));
        // Other entries are not among the totals that are given.
        let done = if job.totals.is_some() { comparison.found().files } else { entries };
        teller.tell(done, bytes);
        entries as f64 + bytes as f64 / BYTES_OF_A_FILE
    };
    tree::walk([&source, &target], Detail::All, &mut Tuner::new(job.workers), &see, &mut look);
    comparison.close(report);
    stop.requested().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
}

/// The same for two devices, which have neither metadata nor times: their bytes are read, or nothing is.
fn blocks(
    job: &Job,
    sides: [&block::Device; 2],
    stop: &Stop,
    emit: Emit<'_>,
    report: &mut VerifyReport,
) -> Result<(), Failure> {
    sides[0].flush()?;
    report.bytes = sides[0].size();
    if job.mode == Mode::Metadata {
        let [source, target] = sides.map(|side| side.size().to_string());
        // A larger target holds what the source has.
        let compared = sides.map(|side| side.size().min(sides[0].size()).to_string());
        let digests = compared.map(|size| blake3::hash(size.as_bytes()).to_hex().to_string());
        if sides[1].size() < sides[0].size() {
            report.differences.push(Difference { path: ".".into(), what: "size".into(), source, target });
            report.differences_total = 1;
        }
        [report.source_digest, report.target_digest] = digests;
        report.messages.push("devices have no metadata: only their sizes were compared".into());
        return Ok(());
    }
    let progress = Progress { bytes_total: 2 * sides[0].size(), ..Progress::begin(Phase::Verify, None) };
    let mut teller = Teller { emit, progress, began: Clock.monotonic(), told: Clock.monotonic() };
    (teller.emit)(Line::Progress(teller.progress.clone()));
    let found = block::verify::run(sides, job.workers, stop, &mut |bytes| teller.tell(0, bytes))?;
    [report.source_digest, report.target_digest] = found.digests;
    (report.differences, report.differences_total) = (found.differences, found.differences_total);
    report.hashed_bytes = found.read;
    Ok(())
}

/// What need not be read again.
fn trust(job: &Job, source: &Root) -> Trust {
    // A time that has not come vouches for nothing: one of the clocks is wrong.
    let since = job.since.filter(|since| *since <= Timestamp::now() && file_system::times_tell_of_stores(source));
    Trust::after(since, since)
}

struct Comparison<'a> {
    job: &'a Job,
    trust: Trust,
    /// The ctime from which on an entry of the source is in motion.
    settled_before: Option<i128>,
    stop: &'a Stop,
    roots: [&'a Root; 2],
    /// Bytes that were read, and entries that were compared.
    bytes: AtomicU64,
    entries: AtomicU64,
    found: Mutex<Found>,
}

/// What came of it so far.
#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    hashed_files: u64,
    kind: Option<FailKind>,
    /// Each with its path as it is, to be put in order.
    differences: Vec<(Vec<u8>, Difference)>,
    differences_total: u64,
    by_kind: Waived,
    waived: Waived,
    messages: Vec<String>,
    groups: Groups,
    sums: [Sum; 2],
    /// Entries of each side with attributes that are neither copied nor compared.
    foreign: [u64; 2],
}

impl Comparison<'_> {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pair: &tree::Pair) {
        let nodes = [pair.source.as_ref(), pair.target.as_ref()];
        let is_linked = groups::is_linked(nodes);
        let are_new = if is_linked { self.found().groups.add(&pair.path, nodes) } else { [true, true] };
        let mut contents = self.contents(pair, nodes, is_linked);
        if is_linked {
            let mut found = self.found();
            for side in [0, 1] {
                if let (Some(node), Some(content)) = (nodes[side], contents[side].take()) {
                    found.groups.keep(side, node, content);
                }
            }
        }
        let contents = contents.map(|content| content.unwrap_or(Content::None));
        let entry = Entry { path: &pair.path, nodes, contents, waive: self.job.waive };
        let digests = [entry::digest(&entry, 0), entry::digest(&entry, 1)];
        let mut differences = Vec::new();
        entry::compare(&entry, &mut |what, source, target| differences.push((what, source, target)));
        let mut found = self.found();
        for (side, digest) in digests.iter().enumerate() {
            if let Some(digest) = digest {
                found.sums[side].add(digest);
            }
            found.foreign[side] += u64::from(nodes[side].is_some_and(|n| n.has_foreign_xattrs));
        }
        if let Some(node) = nodes[0].filter(|n| n.kind == FileType::RegularFile) {
            found.files += 1;
            found.bytes += if are_new[0] { node.size } else { 0 };
        }
        let (waived, differences): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|(what, ..)| entry.waived(what).is_some());
        let kinds = Waive::of(waived.iter().filter_map(|(what, ..)| entry.waived(what)));
        for kind in kinds.kinds() {
            *found.waived.entry(kind).or_default() += 1;
        }
        // A directory that is renamed moves no time of what is in it.
        let settled = |before| pair.arrived < before && nodes[0].is_some_and(|node| node.ctime < before);
        let is_settled = self.settled_before.is_none_or(settled);
        for (what, source, target) in differences {
            if let Some(kind) = Kind::of_difference(&what).filter(|_| is_settled) {
                *found.by_kind.entry(kind).or_default() += 1;
            }
            found.differ(&pair.path, what, source, target);
        }
        drop(found);
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// What the two sides hold, as far as it is compared; of hard-linked inodes only what is not known yet.
    fn contents(&self, pair: &tree::Pair, nodes: [Option<&Node>; 2], is_linked: bool) -> [Option<Content>; 2] {
        if self.job.mode == Mode::Metadata {
            return [None, None];
        }
        let must = self.must_read(nodes[0], pair.arrived) || self.must_read(nodes[1], ALWAYS);
        let wanted = [0, 1].map(|side| {
            let node = nodes[side].filter(|node| node.kind == FileType::RegularFile)?;
            // Asked only if it will be read: whoever gets a yes has to.
            let is_ours = must && (!is_linked || self.found().groups.is_to_be_read(side, node));
            is_ours.then_some(node)
        });
        let hash = |side: usize| wanted[side].map(|node| self.hash(&pair.path, side, node));
        let is_large = wanted.iter().flatten().count() == 2 && wanted[0].is_some_and(|node| node.size >= LARGE);
        let [source, target] = if is_large {
            std::thread::scope(|threads| {
                let source = std::thread::Builder::new().spawn_scoped(threads, || hash(0));
                let target = hash(1);
                let source = match source {
                    // A panic there is one here.
                    Ok(source) => source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    // The system gives no more threads.
                    Err(_) => hash(0),
                };
                [source, target]
            })
        } else {
            [hash(0), hash(1)]
        };
        let is_file = |side: usize| nodes[side].is_some_and(|node| node.kind == FileType::RegularFile);
        let reused = |side: usize| (is_file(side) && !must).then_some(Content::Reused);
        [source.or_else(|| reused(0)), target.or_else(|| reused(1))]
    }

    fn hash(&self, path: &[u8], side: usize, node: &Node) -> Content {
        let read = |bytes| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        let from_disk = side == 1 || self.job.from_disk;
        match hash::hash(self.roots[side], path, node, from_disk, self.stop, &read) {
            Ok(digest) => {
                self.found().hashed_files += 1;
                Content::Hash(digest)
            }
            // A busy volume is no fault: its files differ, and the final comparison finds none that does.
            Err(error) if hash::is_in_motion(&error) => {
                let mut told = [String::new(), String::new()];
                told[side] = error.to_string();
                let [source, target] = told;
                self.found().differ(path, "content".to_owned(), source, target);
                Content::Failed
            }
            Err(_) if self.stop.requested().is_some() => Content::Failed,
            Err(error) => {
                let side = if side == 0 { Side::Source } else { Side::Target };
                self.trouble(side, path, "reading the content of", &error);
                Content::Failed
            }
        }
    }

    /// True if this side's file makes both be read. Both sides were the same then, so the same is asked of both; but no
    /// pass renames a directory of the target.
    fn must_read(&self, node: Option<&Node>, arrived: i128) -> bool {
        node.is_some_and(|n| n.kind == FileType::RegularFile && !self.trust.source(n, arrived))
    }

    fn trouble(&self, side: Side, path: &[u8], doing: &str, error: &std::io::Error) {
        let side = if side == Side::Source { "source" } else { "target" };
        let failure = Failure::system(format!("{doing} {} in the {side}", tree::shown(path)), error);
        // Of what goes while it is looked at nothing is known but that; any other fault weighs more.
        let kind = if hash::is_in_motion(error) { FailKind::Vanished } else { failure.kind };
        let mut found = self.found();
        if matches!(found.kind, None | Some(FailKind::Vanished)) {
            found.kind = Some(kind);
        }
        if found.messages.len() < MESSAGES_MAX {
            found.messages.push(failure.meaning);
        }
    }

    fn close(self, report: &mut VerifyReport) {
        let mut found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.stop.requested().is_none() {
            let (groups, mut sums) = (std::mem::take(&mut found.groups), std::mem::take(&mut found.sums));
            groups.close(&mut sums, &mut |path, what, source, target| {
                found.differ(path, what.to_owned(), source, target);
            });
            report.source_digest = sums[0].digest().to_hex().to_string();
            report.target_digest = sums[1].digest().to_hex().to_string();
        }
        found.keep_first();
        for (side, count) in [("source", found.foreign[0]), ("target", found.foreign[1])] {
            if count > 0 {
                let text = format!("{count} entries of the {side} have `system.` attributes that are not compared");
                found.messages.push(text);
            }
        }
        (report.files, report.bytes) = (found.files, found.bytes);
        (report.hashed_files, report.hashed_bytes) = (found.hashed_files, self.bytes.into_inner());
        report.kind = found.kind;
        report.differences = found.differences.into_iter().map(|(_, difference)| difference).collect();
        report.differences_total = found.differences_total;
        (report.differences_by_kind, report.waived) = (found.by_kind, found.waived);
        report.messages = found.messages;
    }
}

impl Found {
    fn differ(&mut self, path: &[u8], what: String, source: String, target: String) {
        self.differences_total += 1;
        self.differences.push((path.to_vec(), Difference { path: tree::shown(path), what, source, target }));
        if self.differences.len() > 4 * DIFFERENCES_MAX {
            self.keep_first();
        }
    }

    /// By path; those of one path as they were told.
    fn keep_first(&mut self) {
        self.differences.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.differences.truncate(DIFFERENCES_MAX);
    }
}

/// Tells how far it is.
struct Teller<'a> {
    emit: Emit<'a>,
    progress: Progress,
    began: Instant,
    told: Instant,
}

impl Teller<'_> {
    /// A full verification takes long enough for its end to be foretold.
    fn count_ahead(&mut self, roots: [&Root; 2], workers: Option<usize>, stop: &Stop) -> Result<(), Failure> {
        let (entries, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let see = |seen| {
            if let Seen::Pair(pair) = seen {
                entries.fetch_add(1, Ordering::Relaxed);
                let files = [&pair.source, &pair.target].into_iter().flatten();
                let files = files.filter(|n| n.kind == FileType::RegularFile);
                bytes.fetch_add(files.map(|n| n.size).sum(), Ordering::Relaxed);
            }
            if stop.requested().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut look = || entries.load(Ordering::Relaxed) as f64;
        tree::walk(roots, Detail::Stat, &mut Tuner::new(workers), &see, &mut look);
        (self.progress.files_total, self.progress.bytes_total) = (entries.into_inner(), bytes.into_inner());
        stop.requested().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
    }

    fn tell(&mut self, entries: u64, bytes: u64) {
        (self.progress.files, self.progress.bytes) = (entries, bytes);
        if self.told.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.told = Clock.monotonic();
        let (seconds, now) = (self.began.elapsed().as_secs_f64(), &mut self.progress);
        now.rate_bytes_s = (now.bytes as f64 / seconds.max(0.001)) as u64;
        let (done, all) = (now.bytes.min(now.bytes_total) as f64, now.bytes_total as f64);
        now.eta_s = (done > 0.0).then(|| (seconds * (all - done) / done).ceil() as u64);
        (self.emit)(Line::Progress(self.progress.clone()));
    }
}
