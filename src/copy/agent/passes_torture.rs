//! What may happen between two passes and during one, with each engine; where only `native` is asked, it says why.

use super::copy::{Engine, Job, copy};
use super::native;
use super::stop::Stop;
use super::torture::{Bench, attribute, benches, kept, mode, node, only_as_root, raw, set_mtime, torture, with_rsync};
use super::tree::Root;
use super::trust::Trust;
use crate::copy::report::{FailKind, Line, Pass, Phase};
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

type At<'a> = &'a dyn Fn(&str) -> PathBuf;
type Edit<'a> = (&'a str, &'a dyn Fn(At<'_>));

#[test]
fn hard_links_are_broken_and_joined_between_passes() {
    let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
    let relink = |at: At<'_>, old: &str, new: &str| {
        fs::remove_file(at(new)).ok();
        fs::hard_link(at(old), at(new)).unwrap();
    };
    let split = |at: At<'_>, name: &str| {
        let meta = fs::metadata(at(name)).unwrap();
        fs::copy(at(name), at("copy")).unwrap();
        fs::rename(at("copy"), at(name)).unwrap();
        set_mtime(&at(name), meta.mtime(), meta.mtime_nsec());
    };
    // rsync keeps the names of a broken link together if nothing but their metadata differ; a verification sees that.
    let edits: [Edit<'_>; 12] = [
        ("nothing", &|_| ()),
        ("broken, and one of them rewritten", &|at| {
            split(at, "d/b");
            write(at("d/b"), "rewritten");
        }),
        ("not rsync: broken, and one of them has another mode", &|at| {
            split(at, "d/b");
            mode(&at("d/b"), 0o600);
        }),
        ("not rsync: broken, and the first has another mode", &|at| {
            split(at, "a");
            mode(&at("a"), 0o600);
        }),
        ("not rsync: broken only", &|at| split(at, "c")),
        ("two files joined", &|at| relink(at, "e", "d/f")),
        ("a first name before all others", &|at| relink(at, "a", "0")),
        ("a new name behind", &|at| relink(at, "d/b", "z")),
        ("all rewritten in place", &|at| write(at("c"), "all of them")),
        ("in place, size and time kept", &|at| kept(&at("a"), |path| write(path.to_path_buf(), "XYZ"))),
        ("groups exchanged", &|at| {
            relink(at, "e", "tmp");
            relink(at, "a", "e");
            relink(at, "tmp", "d/b");
            fs::remove_file(at("tmp")).unwrap();
        }),
        ("links and pipes too", &|at| {
            relink(at, "link", "link2");
            relink(at, "pipe", "d/pipe");
        }),
    ];
    for bench in [Engine::Native, with_rsync()].map(Bench::in_memory) {
        let at = |name: &str| bench.source(name);
        for (what, edit) in edits.iter().filter(|(what, _)| bench.is_native() || !what.starts_with("not rsync")) {
            fs::remove_dir_all(at("")).unwrap();
            fs::create_dir_all(at("d")).unwrap();
            if !bench.is_native() {
                fs::remove_dir_all(bench.target("")).unwrap();
                fs::create_dir(bench.target("")).unwrap();
            }
            write(at("a"), "abc");
            relink(&at, "a", "d/b");
            relink(&at, "a", "c");
            for name in ["e", "d/f"] {
                write(at(name), "the same");
                set_mtime(&at(name), 1_000_000_000, 1);
            }
            symlink("a", at("link")).unwrap();
            node(&at("pipe"), FileType::Fifo, 0);
            let hot = bench.good(Pass::Hot, None);
            bench.equal();
            edit(&at);
            bench.good(Pass::Final, Some(&hot));
            println!("{what}");
            bench.equal();
        }
    }
}

#[test]
fn anything_may_become_anything_else() {
    if !only_as_root() {
        return;
    }
    let kinds: [&dyn Fn(&Path); 8] = [
        &|path| fs::write(path, "file").unwrap(),
        &|path| fs::create_dir(path).unwrap(),
        &|path| {
            fs::create_dir_all(path.join("x/y")).unwrap();
            fs::write(path.join("x/y/z"), "z").unwrap();
        },
        &|path| symlink("..", path).unwrap(),
        &|path| symlink("/etc/passwd", path).unwrap(),
        &|path| node(path, FileType::Fifo, 0),
        &|path| node(path, FileType::Socket, 0),
        &|path| node(path, FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
    ];
    for bench in [Engine::Native, with_rsync()].map(Bench::in_memory) {
        let each = |make: &dyn Fn(&Path, usize, usize)| {
            (0..kinds.len() * kinds.len())
                .for_each(|n| make(&bench.source(n.to_string()), n / kinds.len(), n % kinds.len()));
        };
        each(&|path, before, _| kinds[before](path));
        let hot = bench.good(Pass::Hot, None);
        bench.equal();
        each(&|path, _, _| {
            let is_dir = fs::symlink_metadata(path).unwrap().is_dir();
            if is_dir { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        });
        each(&|path, _, after| kinds[after](path));
        bench.good(Pass::Final, Some(&hot));
        bench.equal();
    }
}

#[test]
fn a_pass_that_was_interrupted_anywhere_is_made_good_by_the_next() {
    if !only_as_root() {
        return;
    }
    for bench in benches() {
        torture(&bench.source(""));
        fs::write(bench.source("large"), vec![7; 3 << 20]).unwrap();
        let mut looks = 1;
        loop {
            let report = bench.stopped_pass(Pass::Hot, None, &Stop::at_look(looks));
            if report.ok {
                break;
            }
            assert_eq!((report.kind, report.retryable), (Some(FailKind::Interrupted), true), "{report:?}");
            if looks.is_multiple_of(3) {
                fs::remove_dir_all(bench.target("")).unwrap();
                fs::create_dir(bench.target("")).unwrap();
            }
            // With rsync there are few looks while it runs.
            looks += if bench.is_native() { 1 + looks / 4 } else { 1 + looks / 2 };
        }
        assert!(looks > 50, "{looks}");
        bench.good(Pass::Final, None);
        bench.equal();
    }
}

#[test]
fn a_half_written_file_of_the_right_size_is_not_taken_for_whole() {
    let bench = Bench::in_memory(Engine::Native);
    fs::write(bench.source("file"), vec![7; 3 << 20]).unwrap();
    let hot = bench.good(Pass::Hot, None);
    fs::write(bench.source("file"), vec![8; 3 << 20]).unwrap();
    let mut was_torn = false;
    for looks in 3..40 {
        let report = bench.stopped_pass(Pass::Hot, Some(&hot), &Stop::at_look(looks));
        let found = fs::read(bench.target("file")).unwrap();
        was_torn |= found.contains(&7) && found.contains(&8);
        if report.ok {
            break;
        }
    }
    assert!(was_torn, "it was never interrupted within the file");
    bench.good(Pass::Final, Some(&hot));
    bench.equal();
}

#[test]
fn holes_and_sizes_follow_the_source() {
    for bench in [Engine::Native, with_rsync()].map(Bench::in_memory) {
        let file = File::create(bench.source("file")).unwrap();
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        let mut last = bench.good(Pass::Hot, None);
        let edits: [&dyn Fn(); 5] = [
            &|| {
                file.set_len(1 << 20).unwrap();
                file.set_len(8 << 20).unwrap();
            },
            &|| file.write_all_at(b"middle", 5 << 20).unwrap(),
            &|| file.set_len(100).unwrap(),
            &|| file.set_len(0).unwrap(),
            &|| file.write_all_at(b"far away", 64 << 20).unwrap(),
        ];
        for edit in edits {
            edit();
            last = bench.good(Pass::Hot, Some(&last));
            bench.equal();
            let blocks = |path: PathBuf| fs::metadata(path).unwrap().blocks();
            let (source, target) = (blocks(bench.source("file")), blocks(bench.target("file")));
            assert!(target <= source + 16, "{target} blocks instead of {source}");
        }
    }
}

#[test]
fn the_roots_own_metadata_arrive() {
    if !only_as_root() {
        return;
    }
    for bench in benches() {
        fs::write(bench.source("file"), "x").unwrap();
        lchown(bench.source(""), Some(5), Some(4_294_967_294)).unwrap();
        mode(&bench.source(""), 0o2571);
        attribute(&bench.source(""), "user.root", b"of the volume");
        attribute(&bench.target(""), "user.stale", b"");
        set_mtime(&bench.source(""), -7, 999_999_999);
        bench.good(Pass::Hot, None);
        bench.equal();
        let meta = fs::metadata(bench.target("")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime()), (5, 4_294_967_294, 0o2571, -7));
    }
}

/// The system takes setuid and capabilities from a file that gets another owner.
#[test]
fn what_a_change_of_owner_takes_away_is_given_again() {
    if !only_as_root() {
        return;
    }
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    for bench in benches() {
        let make = |owner| {
            for name in ["setuid", "capable"] {
                fs::write(bench.source(name), name).unwrap();
                lchown(bench.source(name), Some(owner), Some(owner)).unwrap();
                mode(&bench.source(name), 0o6755);
                attribute(&bench.source(name), "security.capability", capability);
                set_mtime(&bench.source(name), 1_000_000_000, 1);
            }
        };
        make(5);
        let hot = bench.good(Pass::Hot, None);
        bench.equal();
        make(6);
        let last = bench.good(Pass::Final, Some(&hot));
        assert_eq!(last.files_copied, 0);
        bench.equal();
    }
}

#[test]
fn no_link_in_the_target_leads_out() {
    for bench in benches() {
        let outside = bench.source("../outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "theirs").unwrap();
        fs::create_dir(bench.source("dir")).unwrap();
        fs::write(bench.source("dir/file"), "ours").unwrap();
        fs::write(bench.source("file"), "ours").unwrap();
        symlink("../outside", bench.target("dir")).unwrap();
        symlink("../outside/file", bench.target("file")).unwrap();
        symlink("../outside", bench.target("extra")).unwrap();
        bench.good(Pass::Hot, None);
        bench.equal();
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}

/// rsync takes such a file for up to date.
#[test]
fn a_target_that_shares_inodes_with_the_source_is_given_its_own() {
    let bench = Bench::new(Engine::Native);
    fs::write(bench.source("file"), "x").unwrap();
    fs::hard_link(bench.source("file"), bench.target("file")).unwrap();
    bench.good(Pass::Hot, None);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_ne!(inode(bench.source("file")), inode(bench.target("file")));
    bench.good(Pass::Final, None);
    bench.equal();
}

/// rsync moves times of last access where we do not.
#[test]
fn nothing_of_the_source_is_changed() {
    if !only_as_root() {
        return;
    }
    let bench = Bench::new(Engine::Native);
    torture(&bench.source(""));
    let state = || {
        let (mut all, mut dirs) = (BTreeMap::new(), vec![bench.source("")]);
        while let Some(dir) = dirs.pop() {
            let meta = fs::symlink_metadata(&dir).unwrap();
            let names: Vec<PathBuf> = if meta.is_dir() {
                fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect()
            } else {
                Vec::new()
            };
            let state = (meta.ino(), meta.nlink(), meta.ctime(), meta.ctime_nsec(), meta.mtime(), meta.mtime_nsec());
            // Listing and following it, as this test does, moves the other types' times.
            let atime = meta.is_file().then(|| (meta.atime(), meta.atime_nsec()));
            all.insert(dir, (state, atime));
            dirs.extend(names);
        }
        all
    };
    let before = state();
    bench.good(Pass::Hot, None);
    bench.good(Pass::Final, None);
    assert!(before == state());
}

/// rsync has a longest path.
#[test]
fn a_path_may_be_longer_than_the_system_takes_at_once() {
    let bench = Bench::new(Engine::Native);
    let mut here = rustix::fs::open(bench.source(""), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let name = "d".repeat(250);
    for depth in 0..40 {
        let file = rustix::fs::openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&file, depth.to_string().as_bytes()).unwrap();
        rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let hot = bench.good(Pass::Hot, None);
    assert_eq!(hot.files_copied, 40);
    let report = bench.verify(crate::copy::report::Mode::Full, None);
    assert!(report.ok && report.files == 40, "{report:?}");
    fs::remove_dir_all(bench.source(&name)).unwrap();
    let last = bench.good(Pass::Final, Some(&hot));
    assert_eq!(last.files_deleted, 40 + 39);
    bench.equal();
}

/// rsync sees it only when a file becomes shorter.
#[test]
fn a_file_that_is_written_to_while_a_final_pass_copies_it_is_an_error() {
    for (pass, ok) in [(Pass::Hot, true), (Pass::Final, false)] {
        let bench = Bench::new(Engine::Native);
        let mut file = File::create(bench.source("log")).unwrap();
        file.write_all(&vec![1; 32 << 20]).unwrap();
        let is_over = AtomicBool::new(false);
        let report = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    file.write_all(b"x").unwrap();
                }
            });
            // Within one file system the copy may be over between two writes.
            let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let job = Job { target: other.path().to_owned(), ..bench.job(pass, None) };
            let report = copy(&job, &Stop::new(), &mut |_| {});
            is_over.store(true, Ordering::Relaxed);
            report
        });
        assert_eq!(report.ok, ok, "{report:?}");
        if !ok {
            assert_eq!((report.kind, report.exit, report.retryable), (Some(FailKind::Vanished), 1, false));
            assert!(report.meaning.contains("somebody still writes"), "{}", report.meaning);
        }
        bench.good(Pass::Final, None);
        bench.equal();
    }
}

#[test]
fn a_file_that_is_gone_when_its_turn_comes_is_an_error_of_a_final_pass_only() {
    for (pass, ok) in [(Pass::Hot, true), (Pass::Final, false)] {
        let bench = Bench::in_memory(Engine::Native);
        (0..1500).for_each(|n| fs::write(bench.source(format!("{n}")), "x").unwrap());
        // The walk has listed the directory before it makes the first file.
        let report = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !bench.target("0").exists() {}
                (0..1500).for_each(|n| fs::remove_file(bench.source(format!("{n}"))).unwrap());
            });
            bench.pass(pass, None)
        });
        assert_eq!((report.ok, report.kind), (ok, Some(FailKind::Vanished)), "{report:?}");
    }
}

/// It would become a file of its own, and the copy would have a link less.
#[test]
fn a_file_that_changes_between_two_of_its_names_is_an_error_of_a_final_pass_only() {
    for (pass, ok) in [(Pass::Hot, true), (Pass::Final, false)] {
        let bench = Bench::in_memory(Engine::Native);
        fs::write(bench.source("a"), "x").unwrap();
        fs::hard_link(bench.source("a"), bench.source("z")).unwrap();
        (0..1500).for_each(|n| fs::write(bench.source(format!("{n}")), "x").unwrap());
        (0..1500).for_each(|n| fs::write(bench.source(format!("b{n}")), "x").unwrap());
        let report = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !bench.target("b0").exists() {}
                mode(&bench.source("a"), 0o600);
            });
            // So that they come one after the other.
            copy(&Job { workers: Some(1), ..bench.job(pass, None) }, &Stop::new(), &mut |_| {})
        });
        assert_eq!(report.ok, ok, "{report:?}");
        assert!(ok || report.kind == Some(FailKind::Vanished), "{report:?}");
        bench.good(Pass::Final, None);
        bench.equal();
    }
}

#[test]
fn a_target_that_may_not_be_written_to_is_told_by_its_reason() {
    let run = |word: &str, args: &[&str], path: &Path| {
        std::process::Command::new(word).args(args).arg(path).status().is_ok_and(|status| status.success())
    };
    for bench in benches() {
        fs::create_dir(bench.source("dir")).unwrap();
        fs::write(bench.source("dir/file"), "x").unwrap();
        if !run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs"], &bench.target("")) {
            println!("skipped: a tmpfs cannot be mounted here");
            return;
        }
        let report = bench.pass(Pass::Hot, None);
        assert!(run("umount", &[], &bench.target("")));
        assert_eq!((report.ok, report.kind), (false, Some(FailKind::ReadOnly)), "{report:?}");

        bench.good(Pass::Hot, None);
        fs::write(bench.source("dir/file"), "more").unwrap();
        if !run("chattr", &["+i"], &bench.target("dir/file")) {
            println!("not exercised here: a file that cannot be changed");
            continue;
        }
        let report = bench.pass(Pass::Hot, None);
        assert!(run("chattr", &["-i"], &bench.target("dir/file")));
        assert_eq!((report.ok, report.kind, report.retryable), (false, Some(FailKind::Permission), false));
        assert!(report.messages.iter().any(|message| message.contains("dir/file")), "{report:?}");
        bench.good(Pass::Final, None);
        bench.equal();
    }
}

fn roots(bench: &Bench) -> [Root; 2] {
    [bench.source(""), bench.target("")].map(|path| Root::open(&path).unwrap())
}

fn all(trust: Trust) -> super::scan::Wanted {
    super::scan::Wanted { pass: Pass::Final, trust, with_list: true, workers: None }
}

/// A final pass that trusts times as it is told to; how many files it copied.
fn native_pass(bench: &Bench, trust: Trust) -> u64 {
    let ([source, target], stop) = (roots(bench), Stop::new());
    let job = native::Job {
        source: &source,
        target: &target,
        pass: Pass::Final,
        trust,
        allow_empty: false,
        workers: None,
        bandwidth: None,
        waive: crate::copy::waive::Waive::NOTHING,
    };
    let outcome = native::run(&job, &stop, &mut |_| {});
    assert!(outcome.failure().is_none());
    native::get(&outcome.files_copied)
}

/// A time of the file system's clock after everything that was done, and not after anything that will be.
fn time_between(bench: &Bench) -> i128 {
    let stamp = || {
        let clock = bench.source("../clock");
        fs::write(&clock, "").unwrap();
        let meta = fs::metadata(&clock).unwrap();
        fs::remove_file(&clock).unwrap();
        i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
    };
    let before = stamp();
    loop {
        let now = stamp();
        if now > before {
            return now;
        }
    }
}

/// The rename of a directory moves no time of what is below it.
#[test]
fn a_directory_that_took_the_place_of_another_is_read() {
    let bench = Bench::new(Engine::Native);
    let old = |path: PathBuf, text: &str| {
        fs::write(&path, text).unwrap();
        set_mtime(&path, 1_000_000_000, 0);
    };
    for name in ["releases", "still"] {
        for (version, text) in [("current", "first"), ("next", "other")] {
            fs::create_dir_all(bench.source(name).join(version).join("deep")).unwrap();
            old(bench.source(name).join(version).join("deep/file"), text);
        }
    }
    bench.good(Pass::Hot, None);
    let from = time_between(&bench);
    let at = |name: &str| bench.source("releases").join(name);
    fs::rename(at("current"), at("old")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    kept(&bench.target("still/next/deep/file"), |path| fs::write(path, "wrong").unwrap());

    let ([source, target], trust) = (roots(&bench), Trust::from(from, i128::MAX));
    let scan = super::scan::scan(&source, &target, all(trust), &Stop::new(), &mut |_| {}).unwrap();
    assert_eq!(scan.list.unwrap(), b"./releases/current/deep/file\0", "and so with rsync");
    assert_eq!(native_pass(&bench, trust), 2, "one of them under a new name");
    assert_eq!(fs::read_to_string(bench.target("releases/current/deep/file")).unwrap(), "other");
    assert_eq!(fs::read_to_string(bench.target("still/next/deep/file")).unwrap(), "wrong", "nothing says it moved");
    native_pass(&bench, Trust::NONE);
    bench.equal();
}

/// What a node that went down left of a pass that had not ended: size and time, and other content.
#[test]
fn a_file_that_was_touched_after_the_last_good_pass_is_read() {
    let bench = Bench::new(Engine::Native);
    for name in ["torn", "whole"] {
        fs::write(bench.source(name), "right").unwrap();
        set_mtime(&bench.source(name), 1_000_000_000, 0);
    }
    bench.good(Pass::Hot, None);
    kept(&bench.target("whole"), |path| fs::write(path, "whole").unwrap());
    let from = time_between(&bench);
    kept(&bench.target("torn"), |path| fs::write(path, [0; 5]).unwrap());

    let ([source, target], trust) = (roots(&bench), Trust::from(i128::MAX, from));
    let scan = super::scan::scan(&source, &target, all(trust), &Stop::new(), &mut |_| {}).unwrap();
    assert_eq!(scan.list.unwrap(), b"./torn\0", "and so with rsync");
    assert_eq!(native_pass(&bench, trust), 1);
    assert_eq!(fs::read_to_string(bench.target("torn")).unwrap(), "right");
    assert_eq!(fs::read_to_string(bench.target("whole")).unwrap(), "whole", "nothing says it was touched");
}

#[test]
fn a_good_pass_says_when_it_ended_and_a_bad_one_does_not() {
    for bench in benches() {
        fs::write(bench.source("file"), "x").unwrap();
        let report = bench.good(Pass::Hot, None);
        assert!(report.started_at < report.ended_at, "{report:?}");
        fs::remove_file(bench.source("file")).unwrap();
        assert_eq!(bench.pass(Pass::Hot, None).ended_at, "");
    }
}

/// Everything that is safely old is trusted, which no test can bring about by waiting.
#[test]
fn what_is_old_and_looks_equal_is_not_read() {
    let bench = Bench::new(Engine::Native);
    for (root, text) in [(bench.source(""), "right"), (bench.target(""), "wrong")] {
        fs::write(root.join(raw(b"\xff")), text).unwrap();
        set_mtime(&root.join(raw(b"\xff")), 1_000_000_000, 0);
    }
    mode(&bench.source(raw(b"\xff")), 0o640);
    let found = |trust| {
        let copied = native_pass(&bench, trust);
        (copied, fs::read_to_string(bench.target(raw(b"\xff"))).unwrap())
    };
    assert_eq!(found(Trust::ALL), (0, "wrong".into()));
    assert_eq!(fs::metadata(bench.target(raw(b"\xff"))).unwrap().mode() & 0o777, 0o640, "but what was seen is kept");
    assert_eq!(found(Trust::NONE), (1, "right".into()));
}

#[test]
fn what_rsync_began_native_ends_and_the_other_way_round() {
    if !only_as_root() {
        return;
    }
    for (first, second) in [(Engine::Native, with_rsync()), (with_rsync(), Engine::Native)] {
        let mut bench = Bench::new(first);
        torture(&bench.source(""));
        let hot = bench.good(Pass::Hot, None);
        bench.engine = second;
        fs::write(bench.target(".db.Xy12ab"), "left by a killed rsync").unwrap();
        let last = bench.good(Pass::Final, Some(&hot));
        assert_eq!((last.files_copied, last.files_deleted), (0, 1), "nothing is left to do: {last:?}");
        bench.equal();
    }
}

#[test]
fn progress_is_told_while_native_copies() {
    let bench = Bench::new(Engine::Native);
    (0..10).for_each(|n| fs::write(bench.source(n.to_string()), [1; 1000]).unwrap());
    let mut told = Vec::new();
    let report = copy(&bench.job(Pass::Hot, None), &Stop::new(), &mut |line| {
        if let Line::Progress(progress) = line {
            told.push(progress);
        }
    });
    assert_eq!((report.ok, report.exit, report.engine.as_str()), (true, 0, "native"), "{report:?}");
    let copying = told.iter().find(|progress| progress.phase == Phase::Copy).unwrap();
    assert_eq!((copying.files_total, copying.bytes_total), (11, 10_000));
    assert_eq!(told.last().unwrap().phase, Phase::Sync);
}
