//! The proof: both trees read anew and compared, entry by entry.
//!
//! Not a repair and not part of the copier: it runs in a process of its own after the copier ended, and trusts
//! nothing it said. Called by `cli::agent`. What must stay true: whatever cannot be read makes the verification fail;
//! equal trees have equal digests; memory grows with the largest directory and the hard-linked files only.

use super::entry::{self, Content, Entry, Links};
use super::hash::{self, Work};
use super::stop::Stop;
use super::tree::{self, Detail, Node, Root, Seen, Side};
use super::trust::{ALWAYS, Trust};
use super::{Emit, Failure, file_system, open_both, stamp};
use crate::copy::report::{
    DIFFERENCES_MAX, Difference, FailKind, Line, MESSAGES_MAX, Mode, Phase, Progress, VerifyReport,
};
use crate::words::clock::Clock;
use jiff::Timestamp;
use rustix::fs::FileType;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many entries are held at once; their files are hashed together.
const BATCH: usize = 4096;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Job {
    pub source: PathBuf,
    pub target: PathBuf,
    pub mode: Mode,
    /// With [`Mode::Changed`]: when the full verification of what is not read now had been made.
    pub since: Option<Timestamp>,
    /// How many files are read at once.
    pub threads: usize,
}

/// As many readers as there are processors, at most four: more only make a disk seek.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().min(4))
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
    let (source, target) = open_both(&job.source, &job.target)?;
    // The pass rule: what is stored after this flush moves a time to `source_read_at` or later, which is what a later
    // comparison is given as `since`.
    rustix::fs::syncfs(source.fd()).map_err(|e| Failure::system("flushing the source", &e.into()))?;
    let mut comparison = Comparison {
        job,
        trust: trust(job, &source),
        stop,
        roots: [&source, &target],
        report,
        emit,
        batch: Vec::new(),
        links: Default::default(),
        digests: Default::default(),
        foreign: [0, 0],
        progress: Progress {
            phase: Phase::Verify,
            pass: None,
            files: 0,
            files_total: 0,
            bytes: 0,
            bytes_total: 0,
            rate_bytes_s: 0,
            eta_s: None,
        },
        began: Clock.monotonic(),
        told: Clock.monotonic(),
    };
    if job.mode == Mode::Full {
        comparison.count_ahead()?;
    }
    (comparison.emit)(Line::Progress(comparison.progress.clone()));
    tree::walk(&source, &target, Detail::All, &mut |seen| {
        match seen {
            Seen::Pair(pair) => comparison.add(pair),
            Seen::Trouble { side, path, doing, error } => comparison.trouble(side, &path, doing, &error),
        }
        if comparison.batch.len() >= BATCH {
            comparison.flush();
        }
        if stop.requested().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    comparison.flush();
    comparison.close();
    stop.requested().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
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
    stop: &'a Stop,
    roots: [&'a Root; 2],
    report: &'a mut VerifyReport,
    emit: Emit<'a>,
    batch: Vec<Entry>,
    links: [Links; 2],
    digests: [blake3::Hasher; 2],
    /// Entries of each side with attributes that are neither copied nor compared.
    foreign: [u64; 2],
    progress: Progress,
    began: Instant,
    told: Instant,
}

impl Comparison<'_> {
    /// A full verification takes long enough for its end to be foretold.
    fn count_ahead(&mut self) -> Result<(), Failure> {
        let (stop, totals) = (self.stop, &mut self.progress);
        tree::walk(self.roots[0], self.roots[1], Detail::Stat, &mut |seen| {
            if let Seen::Pair(pair) = seen {
                totals.files_total += 1;
                let files = [&pair.source, &pair.target].into_iter().flatten();
                totals.bytes_total += files.filter(|n| n.kind == FileType::RegularFile).map(|n| n.size).sum::<u64>();
            }
            if stop.requested().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        stop.requested().map_or(Ok(()), |signal| Err(Failure::interrupted(signal)))
    }

    fn add(&mut self, pair: tree::Pair) {
        let read = self.must_read(pair.source.as_ref(), pair.arrived) || self.must_read(pair.target.as_ref(), ALWAYS);
        let content = |node: &Option<Node>| match node {
            Some(node) if node.kind == FileType::RegularFile => match self.job.mode {
                Mode::Metadata => Content::None,
                Mode::Full | Mode::Changed if read => Content::Wanted,
                Mode::Full | Mode::Changed => Content::Reused,
            },
            _ => Content::None,
        };
        let firsts = [(0, &pair.source), (1, &pair.target)]
            .map(|(side, node)| node.as_ref().and_then(|node| self.links[side].first(node, &pair.path)));
        // A later name of an inode that was read under its first name, on both sides, has nothing new to tell.
        let again = firsts[0].is_some() && firsts[0] == firsts[1];
        let contents =
            if again { [Content::None, Content::None] } else { [content(&pair.source), content(&pair.target)] };
        for (side, node) in [&pair.source, &pair.target].into_iter().enumerate() {
            self.foreign[side] += u64::from(node.as_ref().is_some_and(|n| n.has_foreign_xattrs));
        }
        if let Some(node) = pair.source.as_ref().filter(|n| n.kind == FileType::RegularFile) {
            self.report.files += 1;
            self.report.bytes += if firsts[0].is_none() { node.size } else { 0 };
        }
        self.batch.push(Entry { path: pair.path, nodes: [pair.source, pair.target], firsts, contents });
    }

    /// True if this side's file makes both be read. Both sides were the same then, so the same is asked of both; but no
    /// pass renames a directory of the target.
    fn must_read(&self, node: Option<&Node>, arrived: i128) -> bool {
        node.is_some_and(|n| n.kind == FileType::RegularFile && !self.trust.source(n, arrived))
    }

    /// Reads the files of the batch, compares its entries and forgets them.
    fn flush(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        let work = Work { roots: self.roots, threads: self.job.threads, stop: self.stop };
        work.hash_all(&mut batch, &mut |bytes| {
            self.progress.bytes += bytes;
            self.tick();
        });
        for entry in &batch {
            if self.stop.requested().is_some() {
                return;
            }
            self.settle(entry);
        }
        self.progress.files += batch.len() as u64;
        self.tick();
    }

    fn settle(&mut self, entry: &Entry) {
        for (side, content) in entry.contents.iter().enumerate() {
            match content {
                Content::Hash { bytes, .. } => {
                    self.report.hashed_files += 1;
                    self.report.hashed_bytes += bytes;
                }
                // A busy volume is no fault: its files differ, and the final comparison finds none that does.
                Content::Failed(error) if hash::is_in_motion(error) => {
                    let what = "content".to_owned();
                    let told =
                        if side == 0 { [error.to_string(), String::new()] } else { [String::new(), error.to_string()] };
                    let [source, target] = told;
                    self.differ(&entry.path, what, source, target);
                }
                Content::Failed(error) => {
                    let side = if side == 0 { Side::Source } else { Side::Target };
                    self.trouble(side, &entry.path, "reading the content of", error);
                }
                _ => {}
            }
            entry::digest(&mut self.digests[side], entry, side);
        }
        entry::compare(entry, &mut |what, source, target| self.differ(&entry.path, what, source, target));
    }

    fn differ(&mut self, path: &[u8], what: String, source: String, target: String) {
        self.report.differences_total += 1;
        if self.report.differences.len() < DIFFERENCES_MAX {
            self.report.differences.push(Difference { path: tree::shown(path), what, source, target });
        }
    }

    fn trouble(&mut self, side: Side, path: &[u8], doing: &str, error: &std::io::Error) {
        let side = if side == Side::Source { "source" } else { "target" };
        let failure = Failure::system(format!("{doing} {} in the {side}", tree::shown(path)), error);
        // Of what goes while it is looked at nothing is known but that; any other fault weighs more.
        let kind = if hash::is_in_motion(error) { FailKind::Vanished } else { failure.kind };
        if matches!(self.report.kind, None | Some(FailKind::Vanished)) {
            self.report.kind = Some(kind);
        }
        if self.report.messages.len() < MESSAGES_MAX {
            self.report.messages.push(failure.meaning);
        }
    }

    fn close(&mut self) {
        self.report.source_digest = self.digests[0].finalize().to_hex().to_string();
        self.report.target_digest = self.digests[1].finalize().to_hex().to_string();
        for (side, count) in [("source", self.foreign[0]), ("target", self.foreign[1])] {
            if count > 0 {
                let text = format!("{count} entries of the {side} have `system.` attributes that are not compared");
                self.report.messages.push(text);
            }
        }
    }

    fn tick(&mut self) {
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
