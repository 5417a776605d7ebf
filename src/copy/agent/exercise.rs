//! The application of our tests: it writes in every way that a copy could lose, and knows afterwards what was lost.
//!
//! Not a benchmark. Run by `cli::agent` in application pods of the lab and of real clusters.
//!
//! On a directory, round n: append line n and fsync it; store n through mmap, without msync; change the small file n mod 8 in its own
//! way; then acknowledge n outside of the volume. So on any start, line n, the map and every small file must be where
//! the acknowledged round left them, or one unacknowledged round further. On a device: see `ring`.
//! What must stay true: SIGKILL at any instant is never reported as a loss; one process per name.

use super::pages::{self, Pages};
use super::ring::{self, Ring};
use super::slots;
use super::stop::Stop;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A line is told every so many rounds.
const TOLD_EVERY: u64 = 1000;

/// Where and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// The volume: a directory, or a device.
    pub dir: PathBuf,
    /// A directory outside of the volume that survives its migration.
    pub ack: Option<PathBuf>,
    /// Who writes: `dir/NAME/` and `ack/ack-NAME` are its own.
    pub name: String,
    pub interval: Duration,
    /// Ends after this round; None: when told to stop.
    pub until: Option<u64>,
}

/// What ends an exercise that should not end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Something that had been acknowledged, or written before it, is not there.
    #[error("LOST {0}")]
    Lost(String),
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
}

/// The last acknowledged round. Lines and map have a number each, so that a reader need not know their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub lines: u64,
    pub map: u64,
}

fn io_fault(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Fault {
    let doing = doing.into();
    move |source| Fault::Io { doing, source }
}

impl Job {
    fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn ack_file(&self) -> Option<PathBuf> {
        self.ack.as_ref().map(|dir| dir.join(format!("ack-{}", self.name)))
    }
}

/// Compares what is there with what was acknowledged, and returns the last complete line's number. Changes nothing.
///
/// # Errors
/// [`Fault::Lost`] if anything is missing or torn that no SIGKILL explains.
pub fn check(job: &Job) -> Result<u64, Fault> {
    let acked = read_ack(job)?;
    if ring::is_device(&job.dir) {
        let ring = Ring::open(&job.dir, false).and_then(|ring| ring.check(acked.lines));
        return ring.map_err(io_fault(format!("reading {}", job.dir.display())))?.map_err(Fault::Lost);
    }
    let home = job.home();
    let n = check_lines(&read_or_empty(&home.join("lines"))?, acked.lines)?;
    check_map(&read_or_empty(&home.join("map"))?, acked.map, n)?;
    slots::check(&home.join("f"), n, acked.lines.max(acked.map)).map_err(Fault::Lost)?;
    Ok(n)
}

/// Checks, then writes rounds until told to stop. `tell` gets what a person may want to see.
///
/// # Errors
/// As [`check`], or if the volume cannot be written.
pub fn exercise(job: &Job, stop: &Stop, tell: &mut dyn FnMut(String)) -> Result<u64, Fault> {
    let mut n = check(job)?;
    let mut writer = Writer::open(job, n).map_err(io_fault(format!("opening {}", job.dir.display())))?;
    tell(format!("exercise: started at n={n}"));
    while stop.requested().is_none() && job.until.is_none_or(|until| n < until) {
        n += 1;
        writer.round(n).map_err(io_fault(format!("writing round {n}")))?;
        if let Some(file) = job.ack_file() {
            write_ack(&file, Ack { lines: n, map: n }).map_err(io_fault("acknowledging"))?;
        }
        if n.is_multiple_of(TOLD_EVERY) {
            tell(format!("exercise: n={n}"));
        }
        stop.wait(job.interval);
    }
    Ok(n)
}

enum Writer {
    Files(Files),
    Device(Ring),
}

impl Writer {
    fn open(job: &Job, n: u64) -> io::Result<Writer> {
        if ring::is_device(&job.dir) {
            return Ring::open(&job.dir, true).map(Writer::Device);
        }
        Files::open(job, n).map(Writer::Files)
    }

    fn round(&mut self, n: u64) -> io::Result<()> {
        match self {
            Writer::Files(files) => files.round(n),
            Writer::Device(ring) => ring.write(n),
        }
    }
}

struct Files {
    lines: File,
    pages: Pages,
    files: PathBuf,
    incarnation: uuid::Uuid,
}

impl Files {
    /// Brings everything to round `n` exactly: a torn line is cut off, and the rest of a round that was interrupted
    /// is made up for.
    fn open(job: &Job, n: u64) -> io::Result<Files> {
        let (home, files) = (job.home(), job.home().join("f"));
        fs::create_dir_all(&files)?;
        let lines = OpenOptions::new().append(true).create(true).open(home.join("lines"))?;
        let whole = fs::read(home.join("lines"))?.iter().rposition(|b| *b == b'\n').map_or(0, |at| at as u64 + 1);
        lines.set_len(whole)?;
        let map = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(home.join("map"))?;
        if map.metadata()?.len() < pages::BYTES as u64 {
            map.set_len(pages::BYTES as u64)?;
        }
        let mut pages = Pages::map(&map)?;
        pages.store(n);
        if n > 0 {
            slots::write(&files, n)?;
        }
        Ok(Files { lines, pages, files, incarnation: uuid::Uuid::new_v4() })
    }

    fn round(&mut self, n: u64) -> io::Result<()> {
        self.lines.write_all(format!("{n} {}\n", self.incarnation).as_bytes())?;
        self.lines.sync_data()?;
        self.pages.store(n);
        slots::write(&self.files, n)
    }
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>, Fault> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(io_fault(format!("reading {}", path.display()))),
    }
}

fn read_ack(job: &Job) -> Result<Ack, Fault> {
    let Some(file) = job.ack_file() else {
        return Ok(Ack::default());
    };
    let text = read_or_empty(&file)?;
    if text.is_empty() {
        return Ok(Ack::default());
    }
    serde_json::from_slice(&text).map_err(|e| io_fault(format!("reading {}", file.display()))(e.into()))
}

fn write_ack(file: &Path, ack: Ack) -> io::Result<()> {
    let fresh = file.with_added_extension("new");
    let mut out = File::create(&fresh)?;
    out.write_all(serde_json::to_string(&ack)?.as_bytes())?;
    out.sync_data()?;
    fs::rename(fresh, file)
}

/// The number of the last whole line. A torn one may follow it: its round was not acknowledged.
fn check_lines(content: &[u8], acked: u64) -> Result<u64, Fault> {
    let lost = |what: String| Err(Fault::Lost(what));
    let mut n = 0;
    for line in content.split_inclusive(|b| *b == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let number = std::str::from_utf8(line).ok().and_then(|text| {
            let (number, incarnation) = text.split_once(' ')?;
            uuid::Uuid::parse_str(incarnation).ok()?;
            number.parse::<u64>().ok()
        });
        match number {
            Some(number) if number == n + 1 => n = number,
            Some(number) => return lost(format!("lines: {number} follows {n}")),
            None => return lost(format!("lines: the line after {n} is damaged")),
        }
    }
    if n < acked {
        return lost(format!("lines: {acked} was acknowledged, {n} is the last there"));
    }
    Ok(n)
}

/// The map is stored after line n is on disk, so it is at n or, after a kill, partly or wholly at n - 1.
fn check_map(content: &[u8], acked: u64, n: u64) -> Result<(), Fault> {
    let lost = |what: String| Err(Fault::Lost(what));
    // A kill between creating and growing it leaves it empty: only before the first round.
    let numbers = pages::numbers(content).unwrap_or_default();
    let (low, high) = numbers.iter().fold((u64::MAX, 0), |(low, high), n| (low.min(*n), high.max(*n)));
    if low < acked {
        return lost(format!("map: {acked} was acknowledged, {numbers:?} is there"));
    }
    if high > n {
        return lost(format!("lines: the map has seen {high}, {n} is the last line there"));
    }
    if low + 1 < n {
        return lost(format!("map: line {n} was written after map {}, {numbers:?} is there", n - 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(dir: &Path, until: u64) -> Job {
        let (dir, ack) = (dir.join("volume"), dir.join("ack"));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&ack).unwrap();
        Job { dir, ack: Some(ack), name: "web-0".into(), interval: Duration::ZERO, until: Some(until) }
    }

    fn run(job: &Job) -> Result<u64, Fault> {
        exercise(job, &Stop::new(), &mut |_| {})
    }

    fn lost(job: &Job) -> String {
        match check(job) {
            Err(fault @ Fault::Lost(_)) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rounds_are_continued_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        for until in [0, 1, 2, 9, 30] {
            let job = job(dir.path(), until);
            assert_eq!(run(&job).unwrap(), until);
            assert_eq!(check(&job).unwrap(), until);
        }
        assert_eq!(read_ack(&job(dir.path(), 0)).unwrap(), Ack { lines: 30, map: 30 });
        let other = Job { name: "web-1".into(), ..job(dir.path(), 3) };
        assert_eq!(run(&other).unwrap(), 3, "every name has its own part");
    }

    #[test]
    fn what_a_kill_leaves_behind_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), 21);
        run(&job).unwrap();
        let lines = job.home().join("lines");
        let whole = fs::read(&lines).unwrap();
        // In the middle of line 22; after line 22 and before its map and its file; with a half-made file.
        fs::write(&lines, [&whole[..], b"22 c0ff"].concat()).unwrap();
        assert_eq!(check(&job).unwrap(), 21);
        let line = format!("22 {}\n", uuid::Uuid::new_v4());
        fs::write(&lines, [&whole[..], line.as_bytes()].concat()).unwrap();
        assert_eq!(check(&job).unwrap(), 22);
        fs::remove_file(job.home().join("f/6")).unwrap();
        let mut map = fs::read(job.home().join("map")).unwrap();
        map[..8].copy_from_slice(&22u64.to_le_bytes());
        fs::write(job.home().join("map"), &map).unwrap();
        assert_eq!(check(&job).unwrap(), 22);
        assert_eq!(run(&Job { until: Some(40), ..job.clone() }).unwrap(), 40);
        assert_eq!(check(&job).unwrap(), 40);
    }

    #[test]
    fn every_lost_write_is_seen() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 9] = [
            ("lines: 30 was acknowledged, 29 is the last there", |home| {
                let text = fs::read_to_string(home.join("lines")).unwrap();
                let end = text.trim_end().rfind('\n').unwrap();
                fs::write(home.join("lines"), &text[..=end]).unwrap();
            }),
            ("lines: 8 follows 6", |home| {
                let text = fs::read_to_string(home.join("lines")).unwrap();
                let rest = text.split_inclusive('\n').filter(|line| !line.starts_with("7 "));
                fs::write(home.join("lines"), rest.collect::<String>()).unwrap();
            }),
            ("lines: the line after 0 is damaged", |home| {
                let mut bytes = fs::read(home.join("lines")).unwrap();
                bytes[5] = 0;
                fs::write(home.join("lines"), bytes).unwrap();
            }),
            ("lines: 30 was acknowledged, 0 is the last there", |home| fs::remove_file(home.join("lines")).unwrap()),
            ("map: 30 was acknowledged", |home| {
                let mut bytes = fs::read(home.join("map")).unwrap();
                bytes[pages::BYTES - 8..].copy_from_slice(&29u64.to_le_bytes());
                fs::write(home.join("map"), bytes).unwrap();
            }),
            ("f/0 after round 24: it holds 252 bytes", |home| {
                fs::write(home.join("f/0"), slots_content(16)).unwrap();
            }),
            ("f/5 after round 29: its hard link is another file", |home| {
                fs::remove_file(home.join("f/5.link")).unwrap();
                fs::copy(home.join("f/5"), home.join("f/5.link")).unwrap();
            }),
            ("f/6 after round 30: No such file", |home| fs::remove_file(home.join("f/6")).unwrap()),
            ("f/7 after round 23: its attribute is", |home| {
                if xattr::set(home.join("f/7"), "user.pvmigrate.round", b"15").is_err() {
                    fs::write(home.join("f/7"), "").unwrap();
                }
            }),
        ];
        for (wanted, damage) in cases {
            let dir = tempfile::tempdir().unwrap();
            let job = job(dir.path(), 30);
            run(&job).unwrap();
            damage(&job.home());
            let said = lost(&job);
            assert!(said.starts_with(&format!("LOST {wanted}")), "{said}");
            assert!(matches!(run(&job), Err(Fault::Lost(_))), "and it does not go on over it");
        }
    }

    #[test]
    fn a_device_is_exercised_too() {
        let dir = tempfile::tempdir().unwrap();
        let job = |until| Job { dir: dir.path().join("device"), ..job(dir.path(), until) };
        File::create(job(0).dir).unwrap().set_len(1 << 20).unwrap();
        assert_eq!((run(&job(5)).unwrap(), check(&job(0)).unwrap(), run(&job(9)).unwrap()), (5, 5, 9));
        fs::write(job(0).dir, vec![0; 1 << 20]).unwrap();
        assert_eq!(lost(&job(0)), "LOST device: 9 was acknowledged, 0 is the newest there");
    }

    fn slots_content(round: u64) -> String {
        format!("{round:020}.").repeat(12)
    }
}
