//! What a pass costs with each engine: a first copy, a pass over an unchanged tree, and one over a few changes.
//!
//! `cargo bench --bench copy [DIR]` prints medians of paired passes over 2,000 small files and one of 200 MB in DIR, or
//! where temporary files are. Needs rsync; both engines end with a flush, so other writers of the disk count too.
#![expect(clippy::print_stdout, reason = "a bench measures and prints")]

use pvmigrate::copy::agent::copy::{Engine, Job, copy};
use pvmigrate::copy::agent::stop::Stop;
use pvmigrate::copy::report::Pass;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ROUNDS: usize = 5;
const SMALL_FILES: usize = 2000;
const LARGE_BYTES: usize = 200_000_000;

fn main() {
    let place =
        std::env::args().nth(1).filter(|arg| !arg.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(place).expect("a directory for the trees");
    let source = dir.path().join("source");
    fill(&source);
    let mut seconds: [[Vec<f64>; 2]; 3] = Default::default();
    for round in 0..ROUNDS {
        let targets = ["native", "rsync"].map(|name| dir.path().join(name));
        for target in &targets {
            fs::create_dir(target).expect("a new directory");
        }
        let engines = || [Engine::Native, Engine::Rsync("rsync".into())].into_iter().enumerate();
        for (task, measured) in seconds.iter_mut().enumerate() {
            if task == 2 {
                change(&source, round);
            }
            for (n, engine) in engines() {
                measured[n].push(pass(&source, &targets[n], engine));
            }
        }
        for target in &targets {
            fs::remove_dir_all(target).expect("it is ours");
        }
    }
    for (task, mut measured) in
        ["first copy", "unchanged, all read", "twenty changes, all read"].into_iter().zip(seconds)
    {
        let [native, rsync] = [0, 1].map(|n| {
            measured[n].sort_by(f64::total_cmp);
            measured[n][ROUNDS / 2]
        });
        println!("{task}: native {native:.2} s, rsync {rsync:.2} s, {:.1} times as fast", rsync / native);
    }
}

fn fill(source: &Path) {
    for n in 0..SMALL_FILES {
        let dir = source.join(format!("{}", n % 40));
        fs::create_dir_all(&dir).expect("a new directory");
        fs::write(dir.join(format!("{n}")), vec![b'x'; 100 + n]).expect("the disk has room");
    }
    fs::write(source.join("large"), vec![b'y'; LARGE_BYTES]).expect("the disk has room");
}

/// One page of the large file and twenty small files.
fn change(source: &Path, round: usize) {
    let large = File::options().write(true).open(source.join("large")).expect("it was made");
    large.write_all_at(&[round as u8; 4096], 100_000_000).expect("it was made");
    for n in 0..20 {
        fs::write(source.join(format!("{n}/{n}")), format!("{round}")).expect("the disk has room");
    }
}

/// A hot pass that trusts nothing; its seconds.
fn pass(source: &Path, target: &Path, engine: Engine) -> f64 {
    let job = Job {
        source: source.into(),
        target: target.into(),
        pass: Pass::Hot,
        since: None,
        since_end: None,
        allow_empty: false,
        engine,
    };
    let report = copy(&job, &Stop::new(), &mut |_| {});
    assert!(report.ok, "{report:?}");
    report.seconds
}
