//! `pvmigrate agent …`: what runs inside pods, and on any two directories.
//!
//! Not the work: it reads the command line, prints lines and turns reports into exit codes. What must stay true:
//! stdout is JSON lines for `copy`, `verify` and `sync`, and the last one is the report, whatever happened.

use crate::copy::agent::stop::Stop;
use crate::copy::agent::{Failure, copy, exercise, flush, rsync, verify};
use crate::copy::report::{CopyReport, FailKind, Line, Mode, Pass, TERMINATION_MESSAGE_BYTES};
use crate::copy::waive::{Kind, Waive};
use crate::words::size;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const LOST: u8 = 3;

/// Where Kubernetes reads a container's last words, unless the pod says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Copy, verify or exercise directories or block devices (what runs inside pods)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one directory equal to another, or one block device
    Copy(CopyArgs),
    /// Compare two directories: names, metadata and content; or two block devices: their bytes
    Verify(VerifyArgs),
    /// Write what is in memory of a directory's file system, or of a block device, to its disk
    Sync(SyncArgs),
    /// Write like an application that would notice a lost write
    Exercise(ExerciseArgs),
}

#[derive(Debug, clap::Args)]
struct CopyArgs {
    /// Directory to copy from; never written to. A block device, or a file as one, if TARGET is one too
    source: PathBuf,
    /// Directory to make equal to it: what is not in SOURCE is deleted. What a device has beyond SOURCE's end is left
    target: PathBuf,
    /// hot: others write meanwhile; final: nobody writes, and a file that vanishes is an error
    #[arg(long)]
    pass: PassArg,
    /// When the last good pass began (its report's `started_at`); without it nothing in TARGET is trusted
    #[arg(long, value_name = "RFC3339")]
    since: Option<Timestamp>,
    /// When that pass ended (its report's `ended_at`); what was written to TARGET later is not trusted
    #[arg(long, value_name = "RFC3339", requires = "since")]
    since_end: Option<Timestamp>,
    /// TARGET is a clone of SOURCE that was made after it was flushed at --since (`agent sync`): what has the very times there is trusted
    #[arg(long, requires = "since", conflicts_with = "since_end")]
    cloned: bool,
    /// Empty TARGET if SOURCE is empty, which is refused otherwise
    #[arg(long)]
    allow_empty: bool,
    /// Threads of the native engine [default: as many as make it faster, at most 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Bytes of content per second at most, as 50Mi
    #[arg(long, value_name = "SIZE", value_parser = bandwidth)]
    bandwidth_limit: Option<u64>,
    /// What TARGET may be without: what it cannot hold is left out and counted
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    waive: Vec<WaiveArg>,
    /// Compare the two after a good pass, as `verify --mode` does; the report has the result as `proof`
    #[arg(long, value_name = "MODE")]
    verify: Option<ModeArg>,
    /// For --verify changed: a time before which all content was verified
    #[arg(long, value_name = "RFC3339", requires = "verify")]
    verified_since: Option<Timestamp>,
    /// native: this program; rsync: the rsync of the image or machine
    #[arg(long, default_value = "native")]
    engine: EngineArg,
    #[command(flatten)]
    last_words: LastWords,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// One side, only read
    source: PathBuf,
    /// The other side, only read
    target: PathBuf,
    /// full: all content; changed: the content of what changed since --since; metadata: no content
    #[arg(long)]
    mode: ModeArg,
    /// For --mode changed: a time before which all content was verified
    #[arg(long, value_name = "RFC3339")]
    since: Option<Timestamp>,
    /// Regular files in SOURCE (a copy's `files_total`): for the progress, instead of counting them ahead
    #[arg(long, value_name = "N", requires = "bytes_total")]
    files_total: Option<u64>,
    /// Bytes in them (a copy's `bytes_total`)
    #[arg(long, value_name = "N", requires = "files_total")]
    bytes_total: Option<u64>,
    /// Threads [default: as many as make it faster, at most 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// What is not compared, only counted
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    waive: Vec<WaiveArg>,
    /// The report of the pass that this is the proof of
    #[arg(long, value_name = "JSON", hide = true, value_parser = pass_report)]
    after_pass: Option<Box<CopyReport>>,
    #[command(flatten)]
    last_words: LastWords,
}

#[derive(Debug, clap::Args)]
struct SyncArgs {
    /// Directory or block device; the time in the report (`started_at`) is before all that is stored later
    source: PathBuf,
    #[command(flatten)]
    last_words: LastWords,
}

#[derive(Debug, clap::Args)]
struct LastWords {
    /// File that gets the report too, cut to 4096 bytes [default: $TERMINATION_LOG, or /dev/termination-log if there is one]
    #[arg(long, value_name = "PATH")]
    termination_log: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ExerciseArgs {
    /// Directory to write in, or a device to write to
    dir: PathBuf,
    /// Directory outside of the volume that remembers what was acknowledged
    #[arg(long, value_name = "DIR")]
    ack: Option<PathBuf>,
    /// Milliseconds between two rounds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    interval_ms: u64,
    /// Whose part of DIR it is [default: $HOSTNAME]
    #[arg(long)]
    name: Option<String>,
    /// Only say whether anything was lost; not while it is being written
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PassArg {
    Hot,
    Final,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineArg {
    Native,
    Rsync,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WaiveArg {
    Acl,
    Owner,
    Xattr,
}

fn waive(args: &[WaiveArg]) -> Waive {
    Waive::of(args.iter().map(|arg| match arg {
        WaiveArg::Acl => Kind::Acl,
        WaiveArg::Owner => Kind::Owner,
        WaiveArg::Xattr => Kind::Xattr,
    }))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Full,
    Changed,
    Metadata,
}

impl From<ModeArg> for Mode {
    fn from(arg: ModeArg) -> Mode {
        match arg {
            ModeArg::Full => Mode::Full,
            ModeArg::Changed => Mode::Changed,
            ModeArg::Metadata => Mode::Metadata,
        }
    }
}

/// Runtimes give containers a low limit that they may raise themselves.
fn as_many_files_as_allowed() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If not, what there is must do.
    let _refused = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

/// As it is said on the command line.
fn word(arg: impl ValueEnum) -> String {
    arg.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn pass_report(text: &str) -> Result<Box<CopyReport>, String> {
    match Line::parse(text) {
        Some(Line::CopyReport(report)) if report.ok => Ok(Box::new(report)),
        _ => Err("this is no report of a good pass".to_owned()),
    }
}

fn bandwidth(text: &str) -> Result<u64, String> {
    match size::parse_bytes(text) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("`{text}` is no number of bytes, as 50Mi is")),
    }
}

/// A pod of the lab is a process that must not outlive it, however it ends.
fn end_with_lab() -> Result<(), String> {
    let Some(lab) = std::env::var("PVMIGRATE_LAB_PID").ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return Ok(());
    };
    let wish = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    wish.map_err(|e| format!("the lab cannot be followed: {e}"))?;
    // It may have ended before the wish was told.
    match rustix::process::getppid() {
        Some(parent) if parent.as_raw_nonzero().get() == lab => Ok(()),
        _ => Err("the lab that started this has ended".to_owned()),
    }
}

/// Runs the command and returns the exit code: 0 done or equal, 1 failed or different, 2 usage, 3 lost, 128 + n if
/// signal n asked us to stop.
pub fn main(args: Args) -> u8 {
    if let Err(error) = end_with_lab() {
        talk(&format!("agent: {error}"));
        return FAILED;
    }
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            talk(&format!("agent: signals cannot be handled: {error}"));
            return FAILED;
        }
    };
    as_many_files_as_allowed();
    match args.command {
        Command::Copy(args) => run_copy(args, &stop),
        Command::Verify(args) => run_verify(args, &stop),
        Command::Sync(args) => run_sync(&args, &stop),
        Command::Exercise(args) => run_exercise(args, &stop),
    }
}

fn run_copy(args: CopyArgs, stop: &Stop) -> u8 {
    let pass = match args.pass {
        PassArg::Hot => Pass::Hot,
        PassArg::Final => Pass::Final,
    };
    let engine = match args.engine {
        EngineArg::Native => copy::Engine::Native,
        EngineArg::Rsync => copy::Engine::Rsync(rsync::PROGRAM.into()),
    };
    let CopyArgs { since, since_end, cloned: is_clone, allow_empty, .. } = args;
    let (source, target) = (args.source.clone(), args.target.clone());
    let (workers, waive) = (args.workers.map(usize::from), waive(&args.waive));
    let bandwidth = args.bandwidth_limit;
    let job =
        copy::Job { source, target, pass, since, since_end, is_clone, allow_empty, engine, workers, bandwidth, waive };
    let mut report = copy::copy(&job, stop, &mut |line| print(&line.to_json()));
    if !report.ok {
        talk(&format!("agent: {}", report.meaning));
    }
    if let Some(mode) = args.verify.filter(|_| report.ok) {
        report = give_over(report, mode, &args, stop);
    }
    let code = exit_code(report.ok, report.kind, stop);
    end(Line::CopyReport(report), &args.last_words, code)
}

/// What one argument of a program may have, by half (execve(2): `MAX_ARG_STRLEN`).
const ARGUMENT_BYTES: usize = 64 << 10;

/// Becomes another process, which opens both sides anew, and tells of both. Returns the report only if it comes to nothing.
fn give_over(report: CopyReport, mode: ModeArg, args: &CopyArgs, stop: &Stop) -> CopyReport {
    let failed = |failure: Failure| CopyReport {
        ok: false,
        exit: stop.requested().map_or(1, |signal| 128 + signal),
        meaning: failure.meaning,
        kind: Some(failure.kind),
        retryable: failure.retryable,
        ..report.clone()
    };
    if let Some(signal) = stop.requested() {
        return failed(Failure::interrupted(signal));
    }
    // Also if the file has been replaced since.
    let mut verify = std::process::Command::new("/proc/self/exe");
    verify.arg0("pvmigrate").args(["agent", "verify", "--mode", &word(mode)]);
    verify.args(["--files-total", &report.files_total.to_string(), "--bytes-total", &report.bytes_total.to_string()]);
    if let Some(since) = &args.verified_since {
        verify.arg(format!("--since={since}"));
    }
    if let Some(workers) = args.workers {
        verify.args(["--workers", &workers.to_string()]);
    }
    for kind in &args.waive {
        verify.args(["--waive", &word(*kind)]);
    }
    if let Some(path) = &args.last_words.termination_log {
        let mut flag = std::ffi::OsString::from("--termination-log=");
        flag.push(path);
        verify.arg(flag);
    }
    verify.args(["--after-pass", &Line::CopyReport(report.clone()).to_json_within(ARGUMENT_BYTES)]);
    verify.arg("--").arg(&args.source).arg(&args.target);
    let error = verify.exec();
    failed(Failure::system("starting the comparison", &error))
}

fn run_verify(args: VerifyArgs, stop: &Stop) -> u8 {
    let VerifyArgs { source, target, since, .. } = args;
    let totals = args.files_total.zip(args.bytes_total).map(|(files, bytes)| verify::Totals { files, bytes });
    let (workers, waive) = (args.workers.map(usize::from), waive(&args.waive));
    // Beside a writer, or when there is none.
    let of = |kind: Pass| args.after_pass.as_ref().filter(|report| report.pass == kind);
    let settled_before = of(Pass::Hot).and_then(|report| report.started_at.parse().ok());
    let from_disk = of(Pass::Final).is_some();
    let all = verify::Job::new(source, target, args.mode.into());
    let job = verify::Job { since, totals, workers, waive, settled_before, from_disk, ..all };
    let report = verify::verify(&job, stop, &mut |line| print(&line.to_json()));
    if !report.ok {
        let first = report.messages.first().map_or(String::new(), |first| format!(", {first}"));
        talk(&format!("agent: {} differences{first}", report.differences_total));
    }
    let code = exit_code(report.ok, report.kind, stop);
    let line = match args.after_pass {
        Some(pass) => Line::CopyReport(CopyReport { proof: Some(Box::new(report)), ..*pass }),
        None => Line::VerifyReport(report),
    };
    end(line, &args.last_words, code)
}

fn run_sync(args: &SyncArgs, stop: &Stop) -> u8 {
    let report = flush::flush(&args.source);
    if !report.ok {
        talk(&format!("agent: {}", report.meaning));
    }
    let code = exit_code(report.ok, report.kind, stop);
    end(Line::SyncReport(report), &args.last_words, code)
}

fn exit_code(ok: bool, kind: Option<FailKind>, stop: &Stop) -> u8 {
    match (kind, stop.requested()) {
        _ if ok => DONE,
        (Some(FailKind::Interrupted), Some(signal)) => 128 + u8::try_from(signal).unwrap_or(0),
        (Some(FailKind::Usage), _) => USAGE,
        _ => FAILED,
    }
}

/// The report goes to stdout whole, and cut to where Kubernetes keeps it after the log is gone.
fn end(report: Line, last_words: &LastWords, code: u8) -> u8 {
    print(&report.to_json());
    // Whoever cannot mount the file says where it is.
    let told = std::env::var_os("TERMINATION_LOG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let there = || Some(PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists());
    if let Some(file) = last_words.termination_log.clone().or(told).or_else(there) {
        let text = report.to_json_within(TERMINATION_MESSAGE_BYTES - 1);
        let wrote = OpenOptions::new().write(true).create(true).truncate(true).open(&file);
        if let Err(error) = wrote.and_then(|mut file| file.write_all(text.as_bytes())) {
            talk(&format!("agent: the report is only in the log: {}: {error}", file.display()));
        }
    }
    code
}

fn run_exercise(args: ExerciseArgs, stop: &Stop) -> u8 {
    let name = args.name.or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty());
    let Some(name) = name else {
        talk("agent: there is no $HOSTNAME: give --name");
        return USAGE;
    };
    if name.contains('/') || name.starts_with('.') {
        talk(&format!("agent: `{name}` cannot be a directory's name"));
        return USAGE;
    }
    let interval = Duration::from_millis(args.interval_ms);
    let job = exercise::Job { dir: args.dir, ack: args.ack, name, interval, until: None };
    let outcome = if args.check {
        exercise::check(&job).inspect(|n| print(&format!("exercise: n={n}")))
    } else {
        exercise::exercise(&job, stop, &mut |line| print(&line))
    };
    match outcome {
        Ok(_) => DONE,
        Err(fault @ exercise::Fault::Lost(_)) => {
            print(&fault.to_string());
            LOST
        }
        Err(exercise::Fault::Io { doing, source }) => {
            talk(&format!("agent: {doing}: {source}"));
            FAILED
        }
    }
}

/// A reader that went away must not end a copy: the report is in the termination log too.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn talk(line: &str) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_line_is_sound() {
        <Alone as clap::CommandFactory>::command().debug_assert();
        let since = "2026-01-02T03:04:05.000000001Z";
        for (line, fits) in [
            ("copy /src /dst --pass hot", true),
            (&format!("copy /src /dst --pass final --since {since} --termination-log /tmp/x"), true),
            ("copy /src /dst --pass hot --engine rsync", true),
            (&format!("copy /src /dst --pass hot --since {since} --since-end {since}"), true),
            (&format!("copy /src /dst --pass hot --since-end {since}"), false),
            ("copy /src /dst --pass hot --allow-empty", true),
            ("copy /src /dst --pass hot --workers 64", true),
            ("copy /src /dst --pass hot --workers 0", false),
            ("copy /src /dst --pass hot --bandwidth-limit 50Mi", true),
            ("copy /src /dst --pass hot --bandwidth-limit 0", false),
            ("copy /src /dst --pass hot --bandwidth-limit fast", false),
            ("copy /src /dst --pass hot --waive acl,owner --waive xattr", true),
            ("copy /src /dst --pass hot --waive mode", false),
            ("verify /src /dst --mode full --waive xattr", true),
            ("copy /src /dst --pass final --verify full", true),
            (&format!("copy /src /dst --pass final --verify changed --verified-since {since}"), true),
            (&format!("copy /src /dst --pass final --verified-since {since}"), false),
            ("copy /src /dst --pass final --verify half", false),
            ("copy /src /dst --pass hot --engine cp", false),
            ("copy /src /dst", false),
            ("copy /src --pass hot", false),
            ("copy /src /dst --pass hot --since yesterday", false),
            (&format!("verify /src /dst --mode changed --since {since}"), true),
            ("verify /src /dst --mode full --files-total 9 --bytes-total 0", true),
            ("verify /src /dst --mode full --files-total 9", false),
            ("verify /src /dst --mode full --bytes-total 9", false),
            ("verify /src /dst --mode full --files-total -1 --bytes-total 9", false),
            ("verify /src /dst --mode half", false),
            ("sync /src", true),
            ("sync", false),
            ("exercise /data --ack /ack --interval-ms 5 --name web", true),
            ("exercise /data --check", true),
            ("", false),
        ] {
            let parsed = Alone::try_parse_from(["agent"].into_iter().chain(line.split_whitespace()));
            assert_eq!(parsed.is_ok(), fits, "{line}");
        }
        let Ok(Alone { args: Args { command: Command::Copy(copy) } }) =
            Alone::try_parse_from(["agent", "copy", "a", "b", "--pass", "hot", "--since", since])
        else {
            panic!("it parsed above");
        };
        assert_eq!(copy.since.unwrap().subsec_nanosecond(), 1);
    }

    #[test]
    fn exit_codes_tell_what_to_do() {
        let (quiet, asked) = (Stop::new(), Stop::new());
        asked.request(15);
        for (ok, kind, stop, wanted) in [
            (true, None, &quiet, 0),
            (true, Some(FailKind::Vanished), &asked, 0),
            (false, None, &quiet, 1),
            (false, Some(FailKind::Usage), &quiet, 2),
            (false, Some(FailKind::NoSpace), &asked, 1),
            (false, Some(FailKind::Interrupted), &asked, 143),
            (false, Some(FailKind::Interrupted), &quiet, 1),
        ] {
            assert_eq!(exit_code(ok, kind, stop), wanted, "{kind:?}");
        }
    }
}
