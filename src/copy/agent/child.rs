//! One rsync process from start to end.
//!
//! Not a shell and not a retry. Called by `copy`. What must stay true: it has an environment of two variables, dies
//! with our request to stop, and all three of its streams are served, so that it never blocks on us. It stays in our
//! process group, so that whoever kills the group kills the copy; we return when all three processes of it are gone.

use super::rsync::{Complaints, Stats, Transfer, parse_progress};
use super::stop::Stop;
use super::{FailKind, Failure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

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
/// If it cannot be started, or if the stop was requested (kind `interrupted`).
pub fn run(
    program: &OsStr,
    argv: &[OsString],
    feed: &[u8],
    stop: &Stop,
    see: &mut dyn FnMut(Transfer),
) -> Result<Ended, Failure> {
    let mut child = start(program, argv).map_err(|error| cannot_start(program, &error))?;
    stop.adopt(Pid::from_child(&child));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut ended = Ended { code: -1, complaints: Complaints::default(), stats: Stats::default() };
    std::thread::scope(|threads| {
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
    });
    let status = wait(&mut child, stop).map_err(|error| Failure::system("waiting for rsync", &error))?;
    if let Some(signal) = stop.requested() {
        return Err(Failure::interrupted(signal));
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
fn each_line(stream: impl Read, see: &mut dyn FnMut(&str)) {
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
    fn lines_end_either_way_and_are_bounded() {
        let mut seen = Vec::new();
        let long = "x".repeat(LINE_MAX + 9);
        let text = [b"a\rb\r\nc\xff\n", long.as_bytes(), b"\nend"].concat();
        each_line(&text[..], &mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["a", "b", "", "c\u{fffd}", &long[..LINE_MAX], "end"]);
    }
}
