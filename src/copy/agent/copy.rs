//! One pass: make the target equal to the source with an engine, and say honestly how it went.
//!
//! Not a judge of the content: that is `verify`, in another process. Called by `cli::agent`.
//!
//! The engines: `native`, our own, which needs nothing installed; and `rsync`, for whoever trusts it more, and the oracle
//! of our tests. What a pass is and when it is good does not depend on the engine.
//!
//! The pass rule: an engine skips a file whose size and mtime are equal on both sides, but a store through mmap changes
//! neither at once, and anybody can set an mtime back. So a pass notes its time T, then flushes the source: whatever
//! is stored afterwards faults on a clean page and moves mtime and ctime to T or later. The next pass is given T as
//! `since`, and has every file read on both sides whose mtime or ctime is not safely before it, or which may have been
//! elsewhere then; and every file whose target was touched after that pass ended (`trust`).
//! What must stay true: T is taken before the flush; with no `since`, or no end of that pass, every file that the target has is read; success
//! means that the engine ended well, and the target's file system took everything to its disk.

use super::rsync::{self, Complaints, Run, Transfer, Verdict};
use super::scan::{self, Free, Scan};
use super::stop::Stop;
use super::tree::Root;
use super::trust::Trust;
use super::{Emit, Failure, block, child, file_system, native, open_both, stamp, tree, twins};
use crate::copy::report::{CopyReport, FailKind, Line, MESSAGES_MAX, Pass, Phase, Progress};
use crate::copy::waive::{Waive, Waived};
use crate::words::clock::Clock;
use jiff::Timestamp;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What to copy.
#[derive(Clone, Debug)]
pub struct Job {
    pub source: PathBuf,
    pub target: PathBuf,
    pub pass: Pass,
    /// `started_at` of the last pass that ended well.
    pub since: Option<Timestamp>,
    /// `ended_at` of the same pass; without it the target is trusted in nothing.
    pub since_end: Option<Timestamp>,
    /// The target is a clone that was made after `since`, when the source was flushed; no pass has seen it.
    pub is_clone: bool,
    /// True if an empty source is meant, and empties the target too.
    pub allow_empty: bool,
    pub engine: Engine,
    /// How many threads the native engine uses; as many as make it faster if nothing is said.
    pub workers: Option<usize>,
    /// Bytes per second at most.
    pub bandwidth: Option<u64>,
    /// What the target may be without.
    pub waive: Waive,
}

/// Who moves the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Native,
    /// The rsync to run: [`rsync::PROGRAM`].
    Rsync(OsString),
}

impl Engine {
    fn name(&self) -> &'static str {
        match self {
            Engine::Native => native::NAME,
            Engine::Rsync(_) => rsync::NAME,
        }
    }
}

/// Makes the pass. Always returns a report, and emits progress on the way.
pub fn copy(job: &Job, stop: &Stop, emit: Emit<'_>) -> CopyReport {
    let began = Clock.monotonic();
    let mut report = CopyReport {
        ok: false,
        pass: job.pass,
        engine: job.engine.name().into(),
        exit: -1,
        meaning: String::new(),
        kind: None,
        retryable: false,
        started_at: stamp(Timestamp::now()),
        ended_at: String::new(),
        seconds: 0.0,
        files_total: 0,
        bytes_total: 0,
        files_copied: 0,
        bytes_copied: 0,
        files_deleted: 0,
        reread: 0,
        waived: Waived::default(),
        messages: Vec::new(),
        proof: None,
    };
    match steps(job, stop, &mut Ticker::new(job.pass, emit), &mut report) {
        Ok(()) => {
            report.ok = true;
            if report.meaning.is_empty() {
                report.meaning =
                    format!("complete: {} ended without an error and the target is on disk", report.engine);
            }
        }
        Err(failure) => {
            report.kind = Some(failure.kind);
            report.meaning = failure.meaning;
            report.retryable = failure.retryable;
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    report
}

fn steps(job: &Job, stop: &Stop, ticker: &mut Ticker<'_>, report: &mut CopyReport) -> Result<(), Failure> {
    if let Some((source, target)) = block::open_both(&job.source, &job.target, block::Access::Copy)? {
        return blocks(job, &source, &target, stop, ticker, report);
    }
    let (source, target) = open_both(&job.source, &job.target)?;
    ticker.phase(Phase::Sync);
    // Before the flush, never after it: a page that is stored to again while the flush goes on is stamped once.
    let started = Timestamp::now();
    report.started_at = stamp(started);
    rustix::fs::syncfs(source.fd()).map_err(|e| Failure::system("flushing the source", &e.into()))?;

    let trust = trust(job, &source, started, report);
    // Our own engine finds out on its way what a pass after a good one has to know; the first one is told its end ahead,
    // and refused if it cannot have one.
    let mut list = None;
    if job.engine != Engine::Native || trust == Trust::NONE {
        ticker.phase(Phase::Scan);
        let with_list = job.engine != Engine::Native;
        let see = &mut |scan: &Scan| ticker.scanned(scan);
        let wanted = scan::Wanted { pass: job.pass, trust, with_list, workers: job.workers };
        let scan = scan::scan(&source, &target, wanted, stop, see)?;
        (report.files_total, report.bytes_total) = (scan.files, scan.bytes);
        if scan.entries <= 1 && scan.held.inodes > 1 && !job.allow_empty {
            return Err(Failure::new(FailKind::Other, native::SUDDENLY_EMPTY));
        }
        scan::fits(scan.need, scan.held, free(&target)?)?;
        if with_list {
            note_whiteouts(scan.whiteouts, report);
            report.reread = scan.suspects;
        }
        list = scan.list;
    }
    twins::refuse(&source, &target)?;

    match &job.engine {
        Engine::Native => {
            ticker.phase(Phase::Copy);
            let Job { pass, allow_empty, workers, bandwidth, waive, .. } = *job;
            let (source, target) = (&source, &target);
            let pass = native::Job { source, target, pass, trust, allow_empty, workers, bandwidth, waive };
            run_native(&pass, stop, ticker, report)?;
        }
        Engine::Rsync(program) => {
            // First, because only the run over the whole tree puts right what this one does to directories and links.
            let is_data = |root: &Root| {
                tree::lost_found_is_data(root).map_err(|e| Failure::system("looking into lost+found", &e))
            };
            let lost_found = is_data(&source)? || is_data(&target)?;
            if !job.waive.is_empty() {
                let words = job.waive.words().join(", ");
                report
                    .messages
                    .push(format!("rsync was not asked for {words}: a verification counts where they differ"));
            }
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                ticker.phase(Phase::Reread);
                run_rsync(job, program, Run::Listed, lost_found, &list, stop, ticker, report)?;
            }
            ticker.phase(Phase::Copy);
            run_rsync(job, program, Run::Whole, lost_found, &[], stop, ticker, report)?;
        }
    }

    ticker.phase(Phase::Sync);
    // Before the flush: what is written from now on is no work of this pass, and nobody saw it on its disk.
    report.ended_at = stamp(Timestamp::now());
    // The same descriptor as before the copy: the kernel reports here every write that failed since it was opened.
    rustix::fs::syncfs(target.fd()).map_err(|e| Failure::system("writing the target to its disk", &e.into()))
}

/// The pass over two devices: there is one engine for them.
fn blocks(
    job: &Job,
    source: &block::Device,
    target: &block::Device,
    stop: &Stop,
    ticker: &mut Ticker<'_>,
    report: &mut CopyReport,
) -> Result<(), Failure> {
    report.engine = block::NAME.into();
    ticker.phase(Phase::Sync);
    report.started_at = stamp(Timestamp::now());
    source.flush()?;
    report.bytes_total = source.size();
    ticker.now.bytes_total = source.size();
    ticker.phase(Phase::Copy);
    let Job { allow_empty, workers, bandwidth, .. } = *job;
    let pass = block::copy::Job { source, target, compare: job.since.is_some(), allow_empty, workers, bandwidth };
    let copied = block::copy::run(pass, stop, &mut |transfer| ticker.transferred(transfer));
    report.exit = match &copied {
        Err(failure) if failure.kind == FailKind::Interrupted => 128 + stop.requested().unwrap_or(0),
        Err(_) => 1,
        Ok(_) => 0,
    };
    report.bytes_copied = copied?;
    ticker.phase(Phase::Sync);
    report.ended_at = stamp(Timestamp::now());
    target.flush()
}

/// What the pass may take for unchanged.
fn trust(job: &Job, source: &Root, started: Timestamp, report: &mut CopyReport) -> Trust {
    if job.since.is_none() {
        return Trust::NONE;
    }
    if !file_system::times_tell_of_stores(source) {
        report.messages.push("the source is in memory, where times do not tell of every store: all is read".into());
        return Trust::NONE;
    }
    // A time that has not come vouches for nothing: one of the clocks is wrong.
    if [job.since, job.since_end].into_iter().flatten().any(|time| time > started) {
        report.messages.push("--since or --since-end is in the future: every file is read again".into());
        return Trust::NONE;
    }
    match job.since {
        Some(flushed) if job.is_clone => Trust::of_clone(flushed),
        since => Trust::after(since, job.since_end),
    }
}

fn free(target: &Root) -> Result<Free, Failure> {
    let stat = rustix::fs::fstatvfs(target.fd()).map_err(|e| Failure::system("asking for space", &e.into()))?;
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    // Some file systems do not say: they seem to have no room at all, not even used.
    let bytes = if stat.f_blocks == 0 { u64::MAX } else { stat.f_bavail.saturating_mul(stat.f_frsize) };
    Ok(Free { bytes, inodes })
}

/// Runs our own engine and adds what it did to the report.
fn run_native(
    job: &native::Job<'_>,
    stop: &Stop,
    ticker: &mut Ticker<'_>,
    report: &mut CopyReport,
) -> Result<(), Failure> {
    let outcome = native::run(job, stop, &mut |transfer| ticker.transferred(transfer));
    report.files_copied = native::get(&outcome.files_copied);
    report.bytes_copied = native::get(&outcome.bytes_copied);
    report.files_deleted = native::get(&outcome.deleted);
    report.reread = native::get(&outcome.reread);
    report.waived = outcome.waived();
    if report.files_total == 0 {
        (report.files_total, report.bytes_total) = (native::get(&outcome.files), native::get(&outcome.bytes_found));
    }
    note_whiteouts(native::get(&outcome.whiteouts), report);
    let room = MESSAGES_MAX.saturating_sub(report.messages.len());
    report.messages.extend(outcome.messages().into_iter().take(room));
    if let Some(failure) = outcome.failure() {
        report.exit = if failure.kind == FailKind::Interrupted { 128 + stop.requested().unwrap_or(0) } else { 1 };
        return Err(failure);
    }
    report.exit = 0;
    if native::get(&outcome.vanished) > 0 {
        note_vanished(report);
    }
    Ok(())
}

fn note_whiteouts(whiteouts: u64, report: &mut CopyReport) {
    if whiteouts > 0 && !sees_trusted(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        report.messages.push(format!(
            "{whiteouts} character devices 0:0, as layers of overlay file systems have them: what their `trusted.` \
             attributes say is seen and copied only with the capability SYS_ADMIN",
        ));
    }
}

fn note_vanished(report: &mut CopyReport) {
    report.kind = Some(FailKind::Vanished);
    report.meaning = "complete but for files that went away meanwhile, as in a live tree".into();
}

/// True if `trusted.` attributes are listed at all to the process of this status, as /proc has it.
fn sees_trusted(status: &str) -> bool {
    const SYS_ADMIN: u32 = 21;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).is_some_and(|all| all >> SYS_ADMIN & 1 == 1)
}

/// Runs rsync once and adds what it did to the report.
#[expect(clippy::too_many_arguments, reason = "one caller, and each of them is another thing")]
fn run_rsync(
    job: &Job,
    program: &OsStr,
    run: Run,
    lost_found: bool,
    feed: &[u8],
    stop: &Stop,
    ticker: &mut Ticker<'_>,
    report: &mut CopyReport,
) -> Result<(), Failure> {
    if let Some(signal) = stop.requested() {
        return Err(Failure::interrupted(signal));
    }
    let real = |path: &PathBuf| path.canonicalize().map_err(|e| Failure::system(path.display(), &e));
    let as_root = rustix::process::geteuid().is_root();
    let mut argv = rsync::argv(run, job.pass, as_root, lost_found, job.waive, &real(&job.source)?, &real(&job.target)?);
    if let Some(bandwidth) = job.bandwidth {
        // In units of 1024 bytes, and 0 is no limit.
        argv.insert(0, format!("--bwlimit={}", (bandwidth / 1024).max(1)).into());
    }
    let ended = child::run(program, &argv, feed, stop, &mut |transfer| ticker.transferred(transfer))?;
    report.files_copied += ended.stats.files_copied;
    report.bytes_copied += ended.stats.bytes_copied;
    report.files_deleted += ended.stats.deleted;
    let Complaints { first, .. } = &ended.complaints;
    let room = MESSAGES_MAX.saturating_sub(report.messages.len());
    report.messages.extend(first.iter().take(room).cloned());
    report.exit = if report.exit > 0 { report.exit } else { ended.code };
    match rsync::judge(ended.code, job.pass, &ended.complaints) {
        Verdict::Clean => Ok(()),
        Verdict::Vanished => {
            note_vanished(report);
            Ok(())
        }
        Verdict::Failed(failure) => {
            report.exit = ended.code;
            Err(failure)
        }
    }
}

/// Turns what happens into progress, at most once a second and once for every phase.
struct Ticker<'a> {
    emit: Emit<'a>,
    now: Progress,
    phase_began: Instant,
    told: Instant,
}

impl<'a> Ticker<'a> {
    fn new(pass: Pass, emit: Emit<'a>) -> Self {
        let now = Progress::begin(Phase::Sync, Some(pass));
        Ticker { emit, now, phase_began: Clock.monotonic(), told: Clock.monotonic() }
    }

    fn phase(&mut self, phase: Phase) {
        self.now = Progress { phase, files: 0, bytes: 0, rate_bytes_s: 0, eta_s: None, ..self.now.clone() };
        self.phase_began = Clock.monotonic();
        self.tell();
    }

    fn scanned(&mut self, scan: &Scan) {
        (self.now.files, self.now.files_total, self.now.bytes_total) = (scan.entries, scan.entries, scan.bytes);
        self.tick();
    }

    fn transferred(&mut self, transfer: Transfer) {
        self.now.bytes = transfer.bytes;
        self.now.files = transfer.entries.map_or(self.now.files, |(done, _)| done);
        let seconds = self.phase_began.elapsed().as_secs_f64();
        self.now.rate_bytes_s = (transfer.bytes as f64 / seconds.max(0.001)) as u64;
        // The first moments foretell nothing.
        self.now.eta_s = if seconds < 1.0 { None } else { eta(&self.now, seconds) };
        self.tick();
    }

    fn tick(&mut self) {
        if self.told.elapsed() >= Duration::from_secs(1) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told = Clock.monotonic();
        (self.emit)(Line::Progress(self.now.clone()));
    }
}

/// Seconds that are left after `seconds`, by whichever of entries and bytes is further.
fn eta(now: &Progress, seconds: f64) -> Option<u64> {
    let share = |done: u64, all: u64| {
        if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) }
    };
    let done = share(now.files, now.files_total).max(share(now.bytes, now.bytes_total));
    (done > 0.0).then(|| (seconds * (1.0 - done) / done).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_capability_shows_trusted_attributes() {
        for (status, sees) in [
            ("", false),
            ("CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\n", true),
            ("CapPrm:\t000001ffffffffff\nCapEff:\t000001ffffdfffff\n", false),
            ("CapEff:\t0000000000200000\n", true),
            ("CapEff:\tnone\n", false),
        ] {
            assert_eq!(sees_trusted(status), sees, "{status}");
        }
    }

    #[test]
    fn what_is_left_follows_from_what_is_further() {
        let mut now = Ticker::new(Pass::Hot, &mut |_| {}).now;
        for (files, bytes, wanted) in
            [(0, 0, None), (5, 0, Some(10)), (5, 800, Some(3)), (10, 800, Some(0)), (99, 9999, Some(0))]
        {
            (now.files, now.files_total, now.bytes, now.bytes_total) = (files, 10, bytes, 1000);
            assert_eq!(eta(&now, 10.0), wanted, "{files} {bytes}");
        }
    }
}
