//! What a copy costs with this program and with the tools that others use, on the same trees.
//!
//! ```text
//! cargo bench --bench copy -- [DIR] [--only WORD] [--rounds N]
//! ```
//!
//! DIR is where the trees are made, or where temporary files are; it needs 16 GiB. Root is needed to forget what was read
//! before each run, to copy to a file system that is new each time (a file with ext4 in it), and to put a directory behind a
//! wire (`slow`). Every tool makes the same copy in every round, one after the
//! other and another one first each time; the medians are printed as a table. Whoever does not write to the disk by
//! himself is followed by a `sync`, which is counted. A tool that is not installed is left out, by name.
//!
//! `--only million` measures no time but the memory that this program takes for a million files.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench measures and prints")]

mod million;
mod slow;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One way to make `$D` equal to `$S`. `None` as the second: it cannot make a copy up to date.
struct Tool {
    name: &'static str,
    program: &'static str,
    fresh: &'static str,
    again: Option<&'static str>,
}

/// Whoever writes without waiting for the disk.
const TOOLS: [Tool; 7] = [
    Tool {
        name: "pvmigrate",
        program: env!("CARGO_BIN_EXE_pvmigrate"),
        fresh: "$P agent copy $S $D --pass hot",
        again: Some("$P agent copy $S $D --pass hot --since $SINCE --since-end $SINCE"),
    },
    Tool {
        name: "rsync -aHAX",
        program: "rsync",
        fresh: "rsync -aHAX --numeric-ids --delete $S/ $D/ && sync -f $D",
        again: Some("rsync -aHAX --numeric-ids --delete $S/ $D/ && sync -f $D"),
    },
    Tool {
        name: "cp -a",
        program: "cp",
        fresh: "cp -a $S/. $D/ && sync -f $D",
        again: Some("cp -au $S/. $D/ && sync -f $D"),
    },
    Tool {
        name: "tar, tar",
        program: "tar",
        fresh: "tar -C $S -cSf - --xattrs --acls --numeric-owner . | tar -C $D -xpf - --xattrs --acls --numeric-owner && sync -f $D",
        again: None,
    },
    Tool {
        name: "rclone sync -M",
        program: "rclone",
        fresh: "rclone sync -q -M -l --transfers 16 --checkers 16 $S $D && sync -f $D",
        again: Some("rclone sync -q -M -l --transfers 16 --checkers 16 $S $D && sync -f $D"),
    },
    Tool {
        name: "fpsync -n 4",
        program: "fpsync",
        fresh: "fpsync -n 4 -f 2000 -o '-lptgoD -AX --numeric-ids' $S/ $D/ && sync -f $D",
        again: Some("fpsync -n 4 -f 2000 -o '-lptgoD -AX --numeric-ids' $S/ $D/ && sync -f $D"),
    },
    Tool {
        name: "fpsync -n 16",
        program: "fpsync",
        fresh: "fpsync -n 16 -f 100 -o '-lptgoD -AX --numeric-ids' $S/ $D/ && sync -f $D",
        again: Some("fpsync -n 16 -f 100 -o '-lptgoD -AX --numeric-ids' $S/ $D/ && sync -f $D"),
    },
];

struct Options {
    dir: PathBuf,
    only: String,
    rounds: usize,
}

fn main() {
    let options = options();
    let dir = tempfile::tempdir_in(&options.dir).expect("a directory for the trees");
    if options.only == "million" {
        million::table(dir.path());
        return;
    }
    println!("| task | {} |", TOOLS.map(|tool| tool.name).join(" | "));
    println!("|---|{}", "---|".repeat(TOOLS.len()));
    let wanted = |word: &str| word.contains(&options.only);
    if wanted("small") {
        let source = dir.path().join("small");
        small_files(&source, 50_000, 500);
        table("50,000 small files", &source, dir.path(), &options, Where::Volume);
        fs::remove_dir_all(&source).expect("it is ours");
    }
    if wanted("large") {
        let source = dir.path().join("large");
        large_file(&source, 4 << 30);
        table("one file of 4 GiB", &source, dir.path(), &options, Where::Directory);
        fs::remove_dir_all(&source).expect("it is ours");
    }
    if wanted("wire") {
        let source = dir.path().join("wire");
        small_files(&source, 1600, 16);
        table("1,600 files, 1 ms an operation", &source, dir.path(), &options, Where::Wire(Duration::from_millis(1)));
        fs::remove_dir_all(&source).expect("it is ours");
    }
    if wanted("unchanged") {
        let source = dir.path().join("unchanged");
        small_files(&source, 200_000, 2000);
        unchanged("200,000 files, unchanged", &source, dir.path(), &options);
    }
}

fn options() -> Options {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut options = Options { dir: std::env::temp_dir(), only: String::new(), rounds: 3 };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => options.only = args.next().expect("--only needs a word"),
            "--rounds" => options.rounds = args.next().and_then(|n| n.parse().ok()).expect("--rounds needs a number"),
            dir => options.dir = dir.into(),
        }
    }
    options
}

/// Sizes as of sources and mails: from 100 bytes to 8 KiB.
fn small_files(root: &Path, files: usize, dirs: usize) {
    let mut random = 7_u64;
    for n in 0..dirs {
        fs::create_dir_all(root.join(format!("{}/{n}", n % 20))).expect("the disk has room");
    }
    for n in 0..files {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = 100 + (random >> 33) as usize % 8000;
        let place = n % dirs;
        let path = root.join(format!("{}/{place}/file-{n:06}", place % 20));
        fs::write(path, vec![b'a' + (random >> 60) as u8; size]).expect("the disk has room");
    }
}

fn large_file(root: &Path, bytes: u64) {
    fs::create_dir_all(root).expect("the disk has room");
    let file = File::create(root.join("large")).expect("the disk has room");
    let (mut random, mut block) = (7_u64, vec![0_u8; 1 << 20]);
    for at in (0..bytes).step_by(block.len()) {
        for word in block.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        file.write_all_at(&block, at).expect("the disk has room");
    }
}

/// What is copied to.
#[derive(Clone, Copy)]
enum Where {
    /// A new file system in a file: of many files what was deleted before makes the making of others slower.
    Volume,
    /// A directory of the same disk.
    Directory,
    /// The same, and the source too, with every operation so much later.
    Wire(Duration),
}

/// A first copy with every tool, in every round.
fn table(task: &str, source: &Path, dir: &Path, options: &Options, to: Where) {
    let mut all: [Vec<f64>; TOOLS.len()] = Default::default();
    for round in 0..options.rounds {
        for n in 0..TOOLS.len() {
            let n = (n + round) % TOOLS.len();
            if !is_there(&TOOLS[n]) {
                continue;
            }
            let volume = matches!(to, Where::Volume).then(|| Volume::new(dir, None));
            let target = volume.as_ref().map_or_else(|| dir.join("target"), |volume| volume.place.clone());
            fs::create_dir_all(&target).expect("it is ours");
            let (seen_source, seen_target) = (dir.join("seen-source"), dir.join("seen-target"));
            let delay = if let Where::Wire(delay) = to { Some(delay) } else { None };
            let mounts = delay.map(|delay| {
                [(source, &seen_source), (&*target, &seen_target)].map(|(real, seen)| {
                    fs::create_dir_all(seen).expect("it is ours");
                    slow::mount(real, seen, delay).expect("a file system can be mounted here")
                })
            });
            let (from, to) = if mounts.is_some() { (&*seen_source, &*seen_target) } else { (source, &*target) };
            forget();
            all[n].push(seconds(&TOOLS[n], TOOLS[n].fresh, from, to, None));
            drop(mounts);
            if volume.is_none() {
                fs::remove_dir_all(&target).expect("it is ours");
            }
        }
    }
    print_row(task, all);
}

/// A pass over a copy that is up to date.
fn unchanged(task: &str, source: &Path, dir: &Path, options: &Options) {
    let volume = Volume::new(dir, None);
    let target = volume.place.clone();
    let program = TOOLS[0].program;
    let output = Command::new(program).args(["agent", "copy"]).args([source, &target]).args(["--pass", "hot"]).output();
    let output = output.expect("this program runs");
    assert!(output.status.success(), "{output:?}");
    // What was written within half a minute of a good pass is read again by the next one. This is about a tree that nobody
    // has written to for longer than that.
    pause(Duration::from_secs(35));
    let mut all: [Vec<f64>; TOOLS.len()] = Default::default();
    for round in 0..options.rounds {
        for n in 0..TOOLS.len() {
            let n = (n + round) % TOOLS.len();
            let Some(again) = TOOLS[n].again.filter(|_| is_there(&TOOLS[n])) else { continue };
            // As if the last good pass had been made just now.
            let now = jiff::Timestamp::now().to_string();
            forget();
            all[n].push(seconds(&TOOLS[n], again, source, &target, Some(&now)));
        }
    }
    print_row(task, all);
}

/// A file system of its own, as volumes are: what was deleted from one before makes nothing slower.
struct Volume {
    image: PathBuf,
    place: PathBuf,
}

impl Volume {
    fn new(dir: &Path, inodes: Option<u32>) -> Volume {
        let volume = Volume { image: dir.join("volume.ext4"), place: dir.join("volume") };
        let file = File::create(&volume.image).expect("the disk has room");
        file.set_len(12 << 30).expect("files may have holes");
        fs::create_dir_all(&volume.place).expect("it is ours");
        // Nothing is left to be done by the kernel later.
        let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"].map(str::to_owned).into_iter();
        let inodes = inodes.into_iter().flat_map(|inodes| ["-N".to_owned(), inodes.to_string()]);
        let options: Vec<_> = options.chain(inodes).collect();
        run("mkfs.ext4", &options.iter().map(String::as_str).collect::<Vec<_>>(), &[&volume.image]);
        run("mount", &["-o", "loop"], &[&volume.image, &volume.place]);
        volume
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &[], &[&self.place]);
        fs::remove_file(&self.image).expect("it is ours");
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let status = Command::new(program).args(options).args(paths).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} failed: root is needed");
}

fn is_there(tool: &Tool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool.program).is_file())
}

fn seconds(tool: &Tool, command: &str, from: &Path, to: &Path, since: Option<&str>) -> f64 {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("set -o pipefail; {command}")]);
    shell.env("P", tool.program).env("S", from).env("D", to).stdout(Stdio::null());
    if let Some(since) = since {
        shell.env("SINCE", since);
    }
    let began = now();
    let output = shell.output().expect("there is a bash");
    let seconds = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}: {}", tool.name, String::from_utf8_lossy(&output.stderr));
    eprintln!("{}: {seconds:.2} s", tool.name);
    seconds
}

/// What was read is not remembered, as far as we may say so.
fn forget() {
    let synced = Command::new("sync").status();
    assert!(synced.is_ok_and(|status| status.success()));
    if let Ok(mut file) = File::options().write(true).open("/proc/sys/vm/drop_caches") {
        file.write_all(b"3").ok();
    }
}

fn print_row(task: &str, all: [Vec<f64>; TOOLS.len()]) {
    let medians = all.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    });
    let ours = medians[0].expect("this program is there");
    let cells = medians.iter().enumerate().map(|(n, median)| match median {
        Some(seconds) if n == 0 => format!("{seconds:.2} s"),
        Some(seconds) => format!("{seconds:.2} s ({:.1}×)", seconds / ours),
        None => "-".to_owned(),
    });
    println!("| {task} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

#[expect(clippy::disallowed_methods, reason = "a bench measures")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "times must become old, which nothing else brings about")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
