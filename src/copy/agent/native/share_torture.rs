//! Sharing blocks where file systems can, and where they cannot.

use super::*;
use crate::copy::agent::copy::{Engine, Job, copy};
use crate::copy::agent::pages::Pages;
use crate::copy::agent::stop::Stop;
use crate::copy::agent::torture::{Bench, Volume, set_mtime};
use crate::copy::report::Pass;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that are nowhere twice, so that nothing makes them fewer.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut all = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut all);
    all
}

fn fill(bench: &Bench) {
    let source = |name: &str| bench.source(name);
    fs::write(source("large"), noise((33 << 20) + 5, 1)).unwrap();
    fs::hard_link(source("large"), source("again")).unwrap();
    fs::write(source("small"), "small").unwrap();
    fs::write(source("empty"), "").unwrap();
    fs::write(source("middle"), noise(300_000, 2)).unwrap();
    let sparse = File::create(source("sparse")).unwrap();
    sparse.set_len(200 << 20).unwrap();
    sparse.write_all_at(&noise(70_000, 3), 100 << 20).unwrap();
    fs::write(source("mapped"), noise(9000, 4)).unwrap();
    // Where this means something (btrfs), these cannot share blocks with files that do not have it.
    fs::create_dir(source("plain")).unwrap();
    Command::new("chattr").arg("+C").arg(source("plain")).output().unwrap();
    (0..3).for_each(|n| fs::write(source(&format!("plain/{n}")), noise(20_000, 5 + n)).unwrap());
}

#[test]
fn blocks_are_shared_where_that_is_possible_and_copied_where_not() {
    for (kind, shares) in [("btrfs", true), ("xfs", true), ("ext4", false)] {
        let Some(volume) = Volume::new(kind) else { continue };
        let bench = Bench::inside(tempfile::tempdir_in(volume.place()).unwrap(), Engine::Native);
        fill(&bench);
        rustix::fs::syncfs(File::open(volume.place()).unwrap()).unwrap();
        let before = volume.used();
        let mapped = File::options().read(true).write(true).open(bench.source("mapped")).unwrap();
        let mut pages = Pages::map(&mapped).unwrap();
        // Nothing has flushed this, and no time tells.
        pages.store(7);
        let first = bench.good(Pass::Hot, None);
        bench.equal();
        let names = ["large", "small", "empty", "middle", "sparse", "mapped", "plain/0", "plain/1", "plain/2"];
        let sizes: u64 = names.iter().map(|name| fs::metadata(bench.source(name)).unwrap().size()).sum();
        assert_eq!((first.files_copied, first.bytes_copied), (names.len() as u64, sizes), "{kind}");
        let blocks = |path: PathBuf| fs::metadata(path).unwrap().blocks();
        assert!(blocks(bench.target("sparse")) <= blocks(bench.source("sparse")), "{kind}");
        let grown = |shared: u64| {
            let grown = volume.used().saturating_sub(before);
            assert_eq!(grown < 8 << 20, shares, "{kind}: {grown} bytes more, {shared} of them are shared");
        };
        grown(sizes);

        // A pass over what is there: what changed is shared anew, longer or shorter.
        let open = |name: &str| File::options().write(true).open(bench.source(name)).unwrap();
        open("large").write_all_at(b"changed", 20 << 20).unwrap();
        open("sparse").set_len((100 << 20) + 9).unwrap();
        open("small").write_all_at(b"longer than it was", 0).unwrap();
        pages.store(8);
        open("plain/1").write_all_at(b"changed", 5000).unwrap();
        let last = bench.good(Pass::Final, Some(&first));
        bench.equal();
        assert!(last.bytes_copied >= (133 << 20) && last.bytes_copied < (134 << 20), "{last:?}");
        grown(sizes);

        // What only looks new is not counted among what looked equal.
        set_mtime(&bench.source("middle"), 1, 2);
        let touched = bench.good(Pass::Final, Some(&last));
        assert_eq!(touched.bytes_copied, if shares { 300_000 } else { 0 }, "{kind}");
        bench.equal();

        // To another file system nothing is shared.
        let other = tempfile::tempdir().unwrap();
        let job = Job { target: other.path().to_owned(), ..bench.job(Pass::Final, None) };
        let report = copy(&job, &Stop::new(), &mut |_| {});
        assert!(report.ok && report.bytes_copied == last.bytes_total, "{kind}: {report:?}");
        for name in names {
            assert!(fs::read(other.path().join(name)).unwrap() == fs::read(bench.source(name)).unwrap(), "{name}");
        }
    }
}

#[test]
fn what_is_refused_for_good_is_asked_once() {
    let (disk, memory) = (tempfile::tempdir().unwrap(), Path::new("/dev/shm"));
    let Ok(memory) = tempfile::tempdir_in(memory) else {
        println!("skipped: there is no /dev/shm");
        return;
    };
    let roots = [disk.path(), memory.path()].map(|path| Root::open(path).unwrap());
    let sharing = Sharing::between(&roots[0], &roots[1]);
    if roots[0].is_beside(&roots[1]) {
        println!("skipped: there is one file system only");
        return;
    }
    let files: [OwnedFd; 2] = [disk.path(), memory.path()].map(|path| tempfile::tempfile_in(path).unwrap().into());
    assert!(sharing.is_hopeful());
    assert!(!sharing.whole(&files[0], &files[1]) && !sharing.is_hopeful());
    assert_eq!(sharing.part(&files[0], &files[1], &(0..PART)), 0);
}

#[test]
fn a_reason_of_one_file_is_none_of_the_next_unless_all_have_it() {
    let Some(volume) = Volume::new("xfs") else { return };
    let root = Root::open(&volume.place()).unwrap();
    let sharing = Sharing::between(&root, &root);
    let files = [b"source", b"target"].map(|content| {
        let file = tempfile::tempfile_in(volume.place()).unwrap();
        file.write_all_at(content, 0).unwrap();
        OwnedFd::from(file)
    });
    // Nothing shares its blocks with itself.
    let refused = || assert!(!sharing.whole(&files[0], &files[0]));
    (1..PATIENCE).for_each(|_| refused());
    assert!(sharing.is_hopeful() && sharing.whole(&files[0], &files[1]));
    (1..PATIENCE).for_each(|_| refused());
    assert!(sharing.is_hopeful());
    refused();
    assert!(!sharing.is_hopeful());
}
