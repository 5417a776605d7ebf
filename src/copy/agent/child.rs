//! One rsync process from start to end.
//!
//! Not a shell and not a retry. Called by `copy`. What must stay true: it has an environment of two variables, dies
//! with our request to stop, and all three of its streams are served, so that it never blocks on us. It stays in our
//! process group, so that whoever kills the group kills the copy; we return when all three processes of it are gone.

use super::rsync::{Complaints, Stats, Transfer, parse_progress};
use super::stop::Stop;
use super::{FailKind, Failure};
use crate::words::clock::Clock;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// rsync's three processes can wait for each other for ever. Work on local trees takes processor time or waits for a
/// disk: who does neither for so long stands still.
const STANDSTILL: Duration = Duration::from_secs(300);

/// The longest line that is kept, in bytes.
const LINE_MAX: usize = 32 << 10;

/// What is left of an ended process.
pub struct Ended {
    /// The exit code; 128 + n if signal n ended it.
    pub code: i32,
    pub complaints: Complaints,
    pub stats: Stats,
}

/// Runs `program` to its end; `feed` is what it reads on stdin.
///
/// # Errors
/// If it cannot be started, if it stands still, or if the stop was requested (kind `interrupted`).
pub fn run(
    program: &OsStr,
    argv: &[OsString],
    feed: &[u8],
    stop: &Stop,
    see: &mut dyn FnMut(Transfer),
) -> Result<Ended, Failure> {
    run_for(program, argv, feed, stop, STANDSTILL, see)
}

fn run_for(
    program: &OsStr,
    argv: &[OsString],
    feed: &[u8],
    stop: &Stop,
    standstill: Duration,
    see: &mut dyn FnMut(Transfer),
) -> Result<Ended, Failure> {
    let mut child = start(program, argv).map_err(|error| cannot_start(program, &error))?;
    stop.adopt(Pid::from_child(&child));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut ended = Ended { code: -1, complaints: Complaints::default(), stats: Stats::default() };
    let pid = Pid::from_child(&child);
    let (over, until_over) = std::sync::mpsc::channel::<()>();
    let stood_still = std::thread::scope(|threads| {
        let watch = threads.spawn(move || watch(pid, standstill, &until_over));
        if let Some(mut stdin) = stdin {
            // If rsync ends before it has read all, its exit code says why; the broken pipe adds nothing.
            threads.spawn(move || stdin.write_all(feed).ok());
        }
        let listen = stderr.map(|stderr| {
            threads.spawn(|| {
                let mut complaints = Complaints::default();
                each_line(stderr, &mut |line| complaints.add(line));
                complaints
            })
        });
        if let Some(stdout) = stdout {
            each_line(stdout, &mut |line| match parse_progress(line) {
                Some(transfer) => see(transfer),
                None => drop(ended.stats.take(line)),
            });
        }
        ended.complaints = listen.and_then(|thread| thread.join().ok()).unwrap_or_default();
        drop(over);
        watch.join().unwrap_or(false)
    });
    let status = wait(&mut child, stop).map_err(|error| Failure::system("waiting for rsync", &error))?;
    if let Some(signal) = stop.requested() {
        return Err(Failure::interrupted(signal));
    }
    if stood_still {
        let meaning = format!("rsync stood still for {} s", standstill.as_secs());
        return Err(Failure { kind: FailKind::Io, meaning, retryable: true });
    }
    ended.code = status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(-1);
    Ok(ended)
}

fn start(program: &OsStr, argv: &[OsString]) -> std::io::Result<Child> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    Command::new(program)
        .args(argv)
        .env_clear()
        .env("PATH", path)
        // Its messages are read by their words, and a locale would decide which names count as printable.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn cannot_start(program: &OsStr, error: &std::io::Error) -> Failure {
    let program = program.display();
    let meaning = match error.kind() {
        std::io::ErrorKind::NotFound => format!("{program} is not installed: use an image that has it, as ours does"),
        _ => format!("{program} cannot be started: {error}"),
    };
    Failure::new(FailKind::Other, meaning)
}

/// Kills the process if it stands still before `over` is dropped; true if it did. It is not reaped before that.
fn watch(pid: Pid, standstill: Duration, over: &Receiver<()>) -> bool {
    let (mut last, mut since) = (None, Clock.deadline(standstill));
    while over.recv_timeout(standstill / 10) == Err(RecvTimeoutError::Timeout) {
        let now = pulse(pid.as_raw_nonzero().get());
        if now.is_none() || now != last {
            (last, since) = (now, Clock.deadline(standstill));
        } else if since.passed() {
            // Only the first of them is ours to kill; the others end when it is gone.
            let _gone_already = kill_process(pid, Signal::KILL);
            return true;
        }
    }
    false
}

/// The processor time of a process and its descendants, in ticks. `None` if one waits for a disk, or if they cannot be
/// looked at.
fn pulse(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    if *fields.first()? == "D" {
        return None;
    }
    let mut sum = ticks(11)? + ticks(12)?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    for child in children.split_whitespace() {
        sum += pulse(child.parse().ok()?)?;
    }
    Some(sum)
}

/// Waits without reaping first, so that the number cannot belong to somebody else while it may still be killed.
fn wait(child: &mut Child, stop: &Stop) -> std::io::Result<ExitStatus> {
    let id = WaitId::Pid(Pid::from_child(child));
    while let Err(error) = waitid(id.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    stop.release();
    child.wait()
}

/// Lines end with `\n` or, for progress, with `\r`: those must not wait for the next `\n`, which comes at the very end.
/// What is no UTF-8 is replaced. Returns when the last process that holds the other end is gone.
pub(super) fn each_line(stream: impl Read, see: &mut dyn FnMut(&str)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf() {
            Ok([]) => break,
            Ok(chunk) => chunk,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for byte in chunk {
            match byte {
                b'\n' | b'\r' => {
                    see(&String::from_utf8_lossy(&line));
                    line.clear();
                }
                // A name has at most 4096 bytes, and each of them takes at most five as rsync prints it.
                _ if line.len() < LINE_MAX => line.push(*byte),
                _ => {}
            }
        }
        let used = chunk.len();
        reader.consume(used);
    }
    see(&String::from_utf8_lossy(&line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_ended_and_who_works_is_not() {
        let (stop, limit) = (Stop::default(), Duration::from_secs(1));
        let shell = |script: &str| {
            let argv = ["-c", script].map(OsString::from);
            run_for(OsStr::new("sh"), &argv, b"", &stop, limit, &mut |_| {})
        };
        // `read` from a pipe that nobody writes to waits for ever, without a child that would outlive the shell.
        let still = shell("mkfifo \"${TMPDIR:-/tmp}/still.$$\"; exec 3<>\"${TMPDIR:-/tmp}/still.$$\"; rm \"${TMPDIR:-/tmp}/still.$$\"; read x <&3").err();
        assert!(still.is_some_and(|failure| failure.retryable && failure.meaning.contains("stood still")));
        let works = shell("end=$(($(date +%s) + 3)); while [ \"$(date +%s)\" -lt $end ]; do :; done");
        assert_eq!(works.map(|ended| ended.code).ok(), Some(0));
    }

    #[test]
    fn lines_end_either_way_and_are_bounded() {
        let mut seen = Vec::new();
        let long = "x".repeat(LINE_MAX + 9);
        let text = [b"a\rb\r\nc\xff\n", long.as_bytes(), b"\nend"].concat();
        each_line(&text[..], &mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["a", "b", "", "c\u{fffd}", &long[..LINE_MAX], "end"]);
    }
}
