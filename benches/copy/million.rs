//! How much memory a copy and a verification of a million files take at most.
//!
//! No measure of time. Trees in which memory could grow with something: many directories, one directory, and inodes with
//! two names each, which are remembered until both are met.

use super::{TOOLS, Volume};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Names in a tree, and inodes of a file system that holds two of them.
const NAMES: u32 = 1_000_000;
const INODES: u32 = 2 * NAMES + 20_000;

/// The target, in MiB.
const MEMORY_MAX: i64 = 300;

pub fn table(dir: &Path) {
    println!("| 1,000,000 small files | copy | copy again | verify |\n|---|---|---|---|");
    for (shape, dirs, names) in
        [("in 1,000 directories", 1000, 1), ("in one directory", 1, 1), ("two names each", 1000, 2)]
    {
        let volume = Volume::new(dir, Some(INODES));
        let [source, target] = ["source", "target"].map(|name| volume.place.join(name));
        fill(&source, dirs, names);
        fs::create_dir(&target).expect("it is ours");
        let copy = ["copy", "--pass", "hot"];
        let used = [&copy[..], &copy, &["verify", "--mode", "full"]].map(|args| megabytes(args, &source, &target));
        println!("| {shape} | {} MiB | {} MiB | {} MiB |", used[0], used[1], used[2]);
        assert!(used.iter().all(|used| *used < MEMORY_MAX), "more than {MEMORY_MAX} MiB");
    }
}

/// One file of ten has content.
fn fill(root: &Path, dirs: u32, names: u32) {
    for dir in 0..dirs {
        let dir = root.join(dir.to_string());
        fs::create_dir_all(&dir).expect("the disk has room");
        for n in (0..NAMES / dirs).step_by(names as usize) {
            let path = dir.join(format!("file-{n:07}"));
            let mut file = File::create(&path).expect("the disk has inodes");
            if n % 10 == 0 {
                file.write_all(&[b'x'; 100]).expect("the disk has room");
            }
            for other in 1..names {
                fs::hard_link(&path, dir.join(format!("name-{n:07}-{other}"))).expect("the file system has links");
            }
        }
    }
}

/// The most that the agent had in memory.
#[expect(clippy::zombie_processes, reason = "it is waited for, in another way")]
fn megabytes(args: &[&str], source: &Path, target: &Path) -> i64 {
    let mut agent = Command::new(TOOLS[0].program);
    agent.args(["agent", args[0]]).args([source, target]).args(&args[1..]).stdout(Stdio::null());
    let agent = agent.spawn().expect("this program runs");
    let (status, peak) = wait(&agent);
    assert_eq!(status, 0, "{args:?}");
    peak / 1024
}

/// Its status, and its largest resident set in KiB.
#[expect(unsafe_code, reason = "nobody else asks for the usage of one process that ended")]
fn wait(child: &Child) -> (i32, i64) {
    let mut status = 0;
    // SAFETY: all of it is numbers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are ours and live until it returns; the process is our child, and nobody else waits for it.
    let pid = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    assert!(pid > 0, "{}", std::io::Error::last_os_error());
    (status, usage.ru_maxrss)
}
