//! Whole passes over trees that are as bad as they get, with each engine; a real rsync, real file systems, no sleeps.
//! After every pass that must be good rsync is asked too whether anything differs.

use super::copy::{Engine, Job, copy};
use super::native;
use super::stop::Stop;
use super::trust::Trust;
use super::{exercise, tree, verify};
use crate::copy::report::{CopyReport, FailKind, Line, Mode, Pass, VerifyReport};
use crate::copy::waive::Waive;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Timespec, Timestamps};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Two directories and what is done to them.
pub(super) struct Bench {
    dir: tempfile::TempDir,
    pub(super) engine: Engine,
}

pub(super) fn with_rsync() -> Engine {
    Engine::Rsync("rsync".into())
}

/// One for each engine.
pub(super) fn benches() -> [Bench; 2] {
    [Engine::Native, with_rsync()].map(Bench::new)
}

impl Bench {
    pub(super) fn new(engine: Engine) -> Bench {
        Bench::inside(tempfile::tempdir().unwrap(), engine)
    }

    /// In memory, where there is such a place: a flush of a disk that others use takes as long as they like.
    pub(super) fn in_memory(engine: Engine) -> Bench {
        Bench::inside(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(), engine)
    }

    pub(super) fn inside(dir: tempfile::TempDir, engine: Engine) -> Bench {
        let bench = Bench { dir, engine };
        fs::create_dir(bench.source("")).unwrap();
        fs::create_dir(bench.target("")).unwrap();
        bench
    }

    pub(super) fn is_native(&self) -> bool {
        self.engine == Engine::Native
    }

    pub(super) fn source(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("source").join(name)
    }

    pub(super) fn target(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("target").join(name)
    }

    pub(super) fn job(&self, pass: Pass, since: Option<&CopyReport>) -> Job {
        let [since, since_end] = [since.map(|report| &report.started_at), since.map(|report| &report.ended_at)]
            .map(|time| time.map(|time| time.parse().unwrap()));
        let (source, target, engine) = (self.source(""), self.target(""), self.engine.clone());
        let waive = Waive::NOTHING;
        Job {
            source,
            target,
            pass,
            since,
            since_end,
            is_clone: false,
            allow_empty: false,
            engine,
            workers: None,
            bandwidth: None,
            waive,
        }
    }

    pub(super) fn pass(&self, pass: Pass, since: Option<&CopyReport>) -> CopyReport {
        self.stopped_pass(pass, since, &Stop::new())
    }

    pub(super) fn stopped_pass(&self, pass: Pass, since: Option<&CopyReport>, stop: &Stop) -> CopyReport {
        copy(&self.job(pass, since), stop, &mut |_| {})
    }

    pub(super) fn good(&self, pass: Pass, since: Option<&CopyReport>) -> CopyReport {
        let report = self.pass(pass, since);
        assert!(report.ok && report.kind.is_none(), "{report:#?}");
        report
    }

    pub(super) fn verify(&self, mode: Mode, since: Option<Timestamp>) -> VerifyReport {
        self.verify_without(mode, since, Waive::NOTHING)
    }

    pub(super) fn verify_without(&self, mode: Mode, since: Option<Timestamp>, waive: Waive) -> VerifyReport {
        let (source, target) = (self.source(""), self.target(""));
        let job = verify::Job { since, workers: Some(3), waive, ..verify::Job::new(source, target, mode) };
        verify::verify(&job, &Stop::new(), &mut |_| {})
    }

    pub(super) fn equal(&self) {
        let report = self.verify(Mode::Full, None);
        assert!(report.ok && report.source_digest == report.target_digest, "{report:#?}");
        assert_eq!(self.asked_rsync(), "", "rsync would change this");
    }

    /// What rsync would do to the target, were it allowed to: every line is a difference.
    fn asked_rsync(&self) -> String {
        let mut rsync = std::process::Command::new("rsync");
        rsync.args(["-aHAXSnic", "--numeric-ids", "-x", "--delete", "--modify-window=-1"]);
        let is_data = |path: PathBuf| tree::lost_found_is_data(&tree::Root::open(&path).unwrap()).unwrap();
        if !is_data(self.source("")) && !is_data(self.target("")) {
            rsync.arg("--exclude=/lost+found");
        }
        rsync.args(["--filter=-x security.selinux", "--filter=-x system.*"]);
        let output = rsync.arg("--").arg(self.source("")).arg(self.target("")).output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// What a verification says as `path: what`.
    fn differences(&self, mode: Mode, since: Option<Timestamp>) -> Vec<String> {
        let report = self.verify(mode, since);
        assert_eq!(report.ok, report.source_digest == report.target_digest, "{report:#?}");
        report.differences.into_iter().map(|d| format!("{}: {}", d.path, d.what)).collect()
    }
}

/// A file system of its own, in a file.
pub(super) struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    /// None if this machine cannot make one of this kind.
    pub(super) fn new(kind: &str) -> Option<Volume> {
        let volume = Volume { dir: tempfile::tempdir().unwrap() };
        let image = volume.dir.path().join("image");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        fs::create_dir(volume.place()).unwrap();
        let ran = |program: &str, args: &[&Path]| {
            std::process::Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let is_made = ran(&format!("mkfs.{kind}"), &[Path::new("-q"), &image])
            && ran("mount", &[Path::new("-o"), Path::new("loop"), &image, &volume.place()]);
        if !is_made {
            println!("skipped: a volume with {kind} cannot be made here");
        }
        is_made.then_some(volume)
    }

    pub(super) fn place(&self) -> PathBuf {
        self.dir.path().join("place")
    }

    pub(super) fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.place()).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It may not be mounted.
        std::process::Command::new("umount").arg(self.place()).output().unwrap();
    }
}

pub(super) fn raw(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

pub(super) fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(super) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(super) fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, 0o640.into(), device).unwrap();
}

/// A POSIX ACL as the kernel stores it: owner rw, user 1000 r, group r, mask r, other none.
pub(super) const ACL: &[u8] =
    b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
                     \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// Attributes that this file system does not take are said, not silently left out.
pub(super) fn attribute(path: &Path, name: &str, value: &[u8]) {
    if let Err(error) = xattr::set(path, name, value) {
        println!("not exercised here: {name}: {error}");
    }
}

/// The trees of everything have owners, devices and `trusted.` attributes.
pub(super) fn only_as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can make such a tree");
    }
    root
}

/// Everything a tree can hold.
pub(super) fn torture(root: &Path) {
    let path = |name: &str| root.join(name);
    fs::create_dir_all(path("a/b")).unwrap();
    fs::create_dir_all(path("empty/deeper")).unwrap();
    fs::write(path("a/one"), "one").unwrap();
    fs::hard_link(path("a/one"), path("a/b/two")).unwrap();
    fs::hard_link(path("a/one"), path("three")).unwrap();
    fs::write(path("linked-elsewhere"), "x").unwrap();
    fs::hard_link(path("linked-elsewhere"), path("a/linked")).unwrap();
    symlink("a/one", path("relative")).unwrap();
    symlink("/etc/passwd", path("absolute")).unwrap();
    symlink("nowhere/at/all", path("dangling")).unwrap();
    symlink("../../..", path("a/up")).unwrap();
    symlink("a", path("to-directory")).unwrap();
    fs::hard_link(path("relative"), path("relative-again")).unwrap();
    let sparse = File::create(path("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    node(&path("fifo"), FileType::Fifo, 0);
    node(&path("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node(&path("block"), FileType::BlockDevice, rustix::fs::makedev(7, 200));
    drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
    let longest = vec![b'n'; 255];
    for name in
        [&b"new\nline"[..], b"-rf", b"--delete", b"caf\xe9", b"\xff\xfe", b" ", b"*", b"a\\b", b"\x1b[31m", &longest]
    {
        fs::write(root.join(raw(name)), name).unwrap();
    }
    let mut deep = root.to_path_buf();
    (0..12).for_each(|_| deep.push("d".repeat(200)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "deep").unwrap();
    for (name, bits) in [("setuid", 0o4755), ("setgid", 0o2711), ("closed", 0o000)] {
        fs::write(path(name), name).unwrap();
        mode(&path(name), bits);
    }
    fs::create_dir(path("sticky")).unwrap();
    mode(&path("sticky"), 0o3777);
    fs::write(path("owned"), "").unwrap();
    std::os::unix::fs::lchown(path("owned"), Some(4_294_967_294), Some(4_294_967_294)).unwrap();
    std::os::unix::fs::lchown(path("dangling"), Some(1000), Some(1001)).unwrap();
    attribute(&path("a/one"), "user.small", b"value\0with\xffbytes");
    attribute(&path("a"), "user.directory", &[7; 1000]);
    attribute(&path("setuid"), "trusted.secret", b"t");
    attribute(&path("owned"), "system.posix_acl_access", ACL);
    attribute(&path("a"), "system.posix_acl_default", ACL);
    attribute(&path("a/b"), "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    attribute(&path("dangling"), "trusted.link", b"l");
    fs::write(path("old"), "").unwrap();
    for (name, seconds, nanoseconds) in
        [("old", -1, 1), ("three", 1_000_000_000, 999_999_999), ("dangling", 5, 6), ("fifo", 7, 8)]
    {
        set_mtime(&path(name), seconds, nanoseconds);
    }
    fs::create_dir(path("read-only")).unwrap();
    fs::write(path("read-only/inside"), "x").unwrap();
    mode(&path("read-only/inside"), 0o400);
    mode(&path("read-only"), 0o500);
    for (name, nanoseconds) in [("a/b", 1), ("a", 2), ("read-only", 3), ("empty", 999_999_999), ("", 4)] {
        set_mtime(&path(name), 1_700_000_000, nanoseconds);
    }
    fs::create_dir(path("lost+found")).unwrap();
    fs::write(path("lost+found/#12"), "what fsck found").unwrap();
    set_mtime(root, 1_700_000_000, 4);
}

#[test]
fn a_tree_of_everything_arrives_whole() {
    if !only_as_root() {
        return;
    }
    for bench in benches() {
        torture(&bench.source(""));
        let hot = bench.good(Pass::Hot, None);
        assert_eq!(hot.files_copied, hot.files_total - 3, "hard links are made, not copied: {hot:?}");
        assert_eq!((hot.reread, hot.files_deleted), (0, 0));
        bench.equal();
        let sparse = fs::metadata(bench.target("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(fs::read_to_string(bench.target("lost+found/#12")).unwrap(), "what fsck found");

        // Again, with everything suspect: it was all written within the slack.
        let last = bench.good(Pass::Final, Some(&hot));
        // Ours reads an inode once, whatever its names are.
        let read = if bench.is_native() { last.files_total - 3 } else { last.files_total };
        assert!(last.reread == read && last.files_copied == 0 && last.files_deleted == 0, "{last:?}");
        bench.equal();
        assert_eq!(bench.differences(Mode::Metadata, None), [""; 0]);
    }
}

#[test]
fn the_target_becomes_the_source_whatever_it_was() {
    if !only_as_root() {
        return;
    }
    for bench in benches() {
        torture(&bench.target(""));
        fs::write(bench.target(".db.Xy12ab"), "left by a killed rsync").unwrap();
        fs::write(bench.source("a"), "a file where a directory was").unwrap();
        fs::create_dir(bench.source("old")).unwrap();
        let report = bench.good(Pass::Hot, None);
        assert!(report.files_deleted > 20, "{report:?}");
        assert!(!bench.target("lost+found/#12").exists(), "it is data as soon as it holds any");
        bench.equal();
    }
}

#[test]
fn every_kind_of_difference_is_seen() {
    if !only_as_root() {
        return;
    }
    type Damage = fn(&dyn Fn(&str) -> PathBuf);
    let cases: [(&[&str], Damage); 14] = [
        (&["sparse: content"], |at| {
            kept(&at("sparse"), |p| File::options().write(true).open(p).unwrap().write_all_at(b"E", 32 << 20).unwrap())
        }),
        (&["old: size", "old: content"], |at| kept(&at("old"), |p| fs::write(p, "x").unwrap())),
        (&["old: mtime"], |at| set_mtime(&at("old"), -1, 2)),
        (&["a: mtime"], |at| set_mtime(&at("a"), 1_700_000_000, 3)),
        (&[".: mtime"], |at| set_mtime(&at(""), 1_700_000_000, 5)),
        (&["dangling: mtime"], |at| set_mtime(&at("dangling"), 5, 7)),
        (&["setuid: mode"], |at| mode(&at("setuid"), 0o755)),
        (&["owned: uid"], |at| std::os::unix::fs::lchown(at("owned"), Some(1), None).unwrap()),
        (&["a: xattr user.directory"], |at| xattr::set(at("a"), "user.directory", &[8; 1000]).unwrap()),
        (&["old: xattr user.more"], |at| xattr::set(at("old"), "user.more", b"").unwrap()),
        (&["a: mtime", "a/linked: hard link"], |at| {
            fs::remove_file(at("a/linked")).unwrap();
            fs::copy(at("linked-elsewhere"), at("a/linked")).unwrap();
            // Inherited from the directory's default ACL, where there are ACLs.
            xattr::remove(at("a/linked"), "system.posix_acl_access").ok();
            let meta = fs::metadata(at("linked-elsewhere")).unwrap();
            set_mtime(&at("a/linked"), meta.mtime(), meta.mtime_nsec());
        }),
        (&["read-only: mtime", "read-only/inside: missing"], |at| fs::remove_file(at("read-only/inside")).unwrap()),
        (&["empty: mtime", "empty/more: extra"], |at| symlink("x", at("empty/more")).unwrap()),
        (&[".: mtime", "absolute: link", "fifo: type", "null: device"], |at| {
            for name in ["absolute", "fifo", "null"] {
                fs::remove_file(at(name)).unwrap();
            }
            symlink("/etc/passwx", at("absolute")).unwrap();
            fs::write(at("fifo"), "").unwrap();
            node(&at("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 5));
            for name in ["absolute", "null"] {
                let source = at("../source").join(name);
                let meta = fs::symlink_metadata(source).unwrap();
                set_mtime(&at(name), meta.mtime(), meta.mtime_nsec());
            }
        }),
    ];
    for bench in [Engine::Native, with_rsync()].map(Bench::in_memory) {
        torture(&bench.source(""));
        for (wanted, damage) in cases {
            bench.good(Pass::Final, None);
            assert_eq!(bench.differences(Mode::Full, None), [""; 0]);
            damage(&|name| bench.target(name));
            assert_eq!(bench.differences(Mode::Full, None), wanted);
        }
    }
}

pub(super) fn kept(path: &Path, change: impl Fn(&Path)) {
    let meta = fs::symlink_metadata(path).unwrap();
    change(path);
    set_mtime(path, meta.mtime(), meta.mtime_nsec());
}

#[test]
fn a_change_that_size_and_time_hide_is_copied_by_the_next_pass() {
    for bench in benches() {
        fs::write(bench.source("old"), "0123456789").unwrap();
        fs::write(bench.source("quiet"), "unchanged").unwrap();
        set_mtime(&bench.source("old"), 1_000_000_000, 5);
        let hot = bench.good(Pass::Hot, None);
        kept(&bench.source("old"), |p| fs::write(p, "012345678X").unwrap());
        assert_eq!(bench.differences(Mode::Metadata, None), [""; 0], "nothing shows it");
        assert_eq!(bench.differences(Mode::Full, None), ["old: content"]);

        let last = bench.good(Pass::Final, Some(&hot));
        assert_eq!(fs::read_to_string(bench.target("old")).unwrap(), "012345678X");
        assert_eq!((last.reread, last.files_copied), (2, 1), "both were written within the slack");
        bench.equal();
    }
}

#[test]
fn a_source_that_is_suddenly_empty_empties_nothing() {
    for bench in benches() {
        bench.good(Pass::Final, None);
        fs::write(bench.source("file"), "x").unwrap();
        let hot = bench.good(Pass::Hot, None);
        fs::remove_file(bench.source("file")).unwrap();
        for (pass, since) in
            [(Pass::Hot, None), (Pass::Hot, Some(&hot)), (Pass::Final, None), (Pass::Final, Some(&hot))]
        {
            let report = bench.pass(pass, since);
            assert!(!report.ok && !report.retryable, "{report:?}");
            assert!(report.meaning.contains("the source is empty"), "{report:?}");
            // As if it had been emptied after the scan.
            let [from, to] = [bench.source(""), bench.target("")].map(|path| tree::Root::open(&path).unwrap());
            let job = native::Job {
                source: &from,
                target: &to,
                pass,
                trust: Trust::NONE,
                allow_empty: false,
                workers: None,
                bandwidth: None,
                waive: Waive::NOTHING,
            };
            let failure = native::run(&job, &Stop::new(), &mut |_| {}).failure().unwrap();
            assert!(!failure.retryable && failure.meaning == report.meaning, "{failure:?}");
            assert!(bench.target("file").exists());
        }
        let told = Job { allow_empty: true, ..bench.job(Pass::Final, Some(&hot)) };
        assert!(copy(&told, &Stop::new(), &mut |_| {}).ok);
        assert!(!bench.target("file").exists());
    }
}

/// As if nobody had looked before: two mounts may hide what is inside of what.
#[test]
fn one_directory_inside_of_the_other_is_met_and_left_alone() {
    let bench = Bench::new(Engine::Native);
    let volume = bench.source("../volume");
    for (from, to) in [("b", ""), ("", "b")] {
        fs::create_dir_all(volume.join("b/b")).unwrap();
        fs::write(volume.join("b/b/file"), "theirs").unwrap();
        fs::write(volume.join("b/other"), "theirs").unwrap();
        let [from, to] = [from, to].map(|name| tree::Root::open(&volume.join(name)).unwrap());
        let (source, target, trust) = (&from, &to, Trust::NONE);
        let job = native::Job {
            source,
            target,
            pass: Pass::Hot,
            trust,
            allow_empty: false,
            workers: None,
            bandwidth: None,
            waive: Waive::NOTHING,
        };
        let failure = native::run(&job, &Stop::new(), &mut |_| {}).failure().unwrap();
        assert!(failure.meaning.contains("source and target overlap"), "{failure:?}");
        for file in ["b/b/file", "b/other"] {
            assert_eq!(fs::read_to_string(volume.join(file)).unwrap(), "theirs");
        }
    }
}

/// rsync takes lines of a list that begin so for comments.
#[test]
fn names_like_comments_are_read_again_too() {
    for bench in benches() {
        for name in ["#one", ";two", "-three"] {
            fs::write(bench.source(name), "old").unwrap();
        }
        let hot = bench.good(Pass::Hot, None);
        for name in ["#one", ";two", "-three"] {
            kept(&bench.source(name), |p| fs::write(p, "new").unwrap());
        }
        bench.good(Pass::Final, Some(&hot));
        for name in ["#one", ";two", "-three"] {
            assert_eq!(fs::read_to_string(bench.target(name)).unwrap(), "new", "{name}");
        }
        bench.equal();
    }
}

#[test]
fn a_file_system_inside_the_source_is_not_left_out_in_silence() {
    for bench in benches() {
        let inner = bench.source("inner");
        fs::create_dir(&inner).unwrap();
        let mount = |word: &str, args: &[&str]| {
            std::process::Command::new(word).args(args).arg(&inner).status().is_ok_and(|status| status.success())
        };
        if !mount("mount", &["-t", "tmpfs", "tmpfs"]) {
            println!("skipped: a tmpfs cannot be mounted here");
            return;
        }
        fs::write(inner.join("file"), "x").unwrap();
        let report = bench.pass(Pass::Hot, None);
        let verified = bench.verify(Mode::Full, None);
        assert!(mount("umount", &[]));
        assert!(!report.ok && report.meaning.contains("another file system begins here"), "{report:?}");
        assert!(!verified.ok && verified.messages[0].contains("another file system"), "{verified:?}");
    }
}

/// Two mounts of one file system: the numbers of the devices are the same.
#[test]
fn what_is_mounted_within_is_neither_passed_over_nor_touched() {
    let run = |word: &str, args: &[&Path]| {
        std::process::Command::new(word).args(args).status().is_ok_and(|status| status.success())
    };
    for bench in benches() {
        let outside = bench.source("../outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "theirs").unwrap();
        for side in [bench.source(""), bench.target("")] {
            fs::create_dir_all(side.join("dir/inner")).unwrap();
            fs::write(side.join("dir/file"), "ours").unwrap();
        }
        fs::create_dir(bench.target("extra")).unwrap();
        fs::write(bench.target("extra/file"), "ours").unwrap();
        let places: [(PathBuf, &Path); 6] = [
            (bench.source("dir/inner"), &outside),
            (bench.source("dir/file"), &outside.join("file")),
            (bench.target("dir/inner"), &outside),
            (bench.target("dir/file"), &outside.join("file")),
            (bench.target("extra"), &outside),
            (bench.target("extra/file"), &outside.join("file")),
        ];
        for (place, what) in places {
            if !run("mount", &[Path::new("--bind"), what, &place]) {
                println!("skipped: nothing can be mounted here");
                return;
            }
            let report = bench.pass(Pass::Hot, None);
            let verified = bench.verify(Mode::Full, None);
            // As if the scan had not seen it.
            let job = bench.job(Pass::Final, None);
            let [source, target] = [&job.source, &job.target].map(|path| tree::Root::open(path).unwrap());
            let stop = Stop::new();
            let (pass, trust) = (job.pass, Trust::NONE);
            let job = native::Job {
                source: &source,
                target: &target,
                pass,
                trust,
                allow_empty: false,
                workers: None,
                bandwidth: None,
                waive: crate::copy::waive::Waive::NOTHING,
            };
            let outcome = native::run(&job, &stop, &mut |_| {});
            let failure = bench.is_native().then(|| outcome.failure().unwrap());
            assert!(run("umount", &[&place]));
            let words = "another file system begins here";
            assert!(!report.ok && report.meaning.contains(words), "{report:?}");
            assert!(!verified.ok && verified.messages[0].contains(words), "{verified:?}");
            assert!(failure.is_none_or(|failure| failure.meaning.contains(words)));
            assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "theirs");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
            fs::create_dir_all(bench.target("extra")).unwrap();
            fs::write(bench.target("extra/file"), "ours").unwrap();
        }
    }
}

#[test]
fn lost_and_found_is_data_as_soon_as_it_holds_any() {
    type Make<'a> = (&'a str, &'a dyn Fn(&Path));
    let kinds: [Make<'_>; 5] = [
        ("nothing", &|_| ()),
        ("empty", &|path| fs::create_dir(path).unwrap()),
        ("full", &|path| {
            fs::create_dir_all(path.join("#12")).unwrap();
            fs::write(path.join("#12/file"), "found").unwrap();
        }),
        ("a file", &|path| fs::write(path, "x").unwrap()),
        ("a link", &|path| symlink("..", path).unwrap()),
    ];
    for engine in [Engine::Native, with_rsync()] {
        for (source, make_source) in &kinds {
            for (target, make_target) in &kinds {
                let bench = Bench::in_memory(engine.clone());
                fs::write(bench.source("file"), "x").unwrap();
                make_source(&bench.source("lost+found"));
                make_target(&bench.target("lost+found"));
                bench.good(Pass::Final, None);
                bench.equal();
                let held = fs::symlink_metadata(bench.target("lost+found")).ok();
                match (*source, *target) {
                    ("nothing" | "empty", "empty") => assert!(held.unwrap().is_dir(), "mkfs made it"),
                    ("full", _) => {
                        assert_eq!(fs::read_to_string(bench.target("lost+found/#12/file")).unwrap(), "found");
                    }
                    ("a file" | "a link", _) => assert!(!held.unwrap().is_dir()),
                    _ => assert!(held.is_none_or(|_| fs::read_dir(bench.target("lost+found")).unwrap().count() == 0)),
                }
            }
        }
    }
}

#[test]
fn whiteouts_are_spoken_of_where_their_attributes_are_not_seen() {
    if !only_as_root() {
        return;
    }
    let bench = Bench::new(Engine::Native);
    node(&bench.source("gone"), FileType::CharacterDevice, 0);
    let report = bench.good(Pass::Hot, None);
    assert!(report.messages.is_empty(), "root sees them: {report:?}");
}

#[test]
fn what_is_safely_older_than_the_last_pass_is_not_read_again() {
    for bench in benches() {
        fs::write(bench.source("file"), "x").unwrap();
        let mut hot = bench.good(Pass::Hot, None);
        // As if the pass had been a minute later: now the file is safely older.
        let minute = jiff::SignedDuration::from_secs(60);
        hot.started_at = super::stamp(Timestamp::now() + minute);
        let last = bench.good(Pass::Final, Some(&hot));
        assert_eq!(last.reread, 1, "a time that has not come yet vouches for nothing: {last:?}");
        assert!(last.messages[0].contains("future"));

        let changed = bench.verify(Mode::Changed, Some(Timestamp::now() + minute));
        assert!(changed.ok && changed.hashed_files == 2, "the same when verifying: {changed:?}");
        let changed = bench.verify(Mode::Changed, Some(Timestamp::now()));
        assert!(changed.ok && changed.hashed_files == 2 && changed.hashed_bytes == 2, "{changed:?}");
        assert_eq!(bench.verify(Mode::Changed, None).kind, Some(FailKind::Usage));
    }
}

#[test]
fn an_unknown_target_is_trusted_in_nothing() {
    for bench in benches() {
        for (root, text) in [(bench.source(""), "right"), (bench.target(""), "wrong")] {
            fs::write(root.join("file"), text).unwrap();
            set_mtime(&root.join("file"), 1_000_000_000, 0);
        }
        let report = bench.good(Pass::Final, None);
        assert_eq!((report.reread, report.files_copied), (1, 1));
        bench.equal();
    }
}

#[test]
fn a_busy_tree_is_copied_hot_and_complete_in_the_end() {
    for bench in benches() {
        let ack = bench.dir.path().join("ack");
        fs::create_dir(&ack).unwrap();
        let job = exercise::Job {
            dir: bench.source(""),
            ack: Some(ack),
            name: "db-0".into(),
            interval: std::time::Duration::ZERO,
            until: None,
        };
        let stop = Stop::new();
        let mut last = None;
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| exercise::exercise(&job, &stop, &mut |_| {}).unwrap());
            // The writer must be told to stop before anything can fail, or the test would never end.
            let mut reports: Vec<CopyReport> = Vec::new();
            (0..4).for_each(|_| reports.push(bench.pass(Pass::Hot, reports.iter().rev().find(|report| report.ok))));
            stop.request(15);
            writer.join().unwrap();
            for report in &reports {
                // On a busy tree rsync's processes sometimes wait for each other until they are ended.
                let stood_still = report.retryable && !bench.is_native();
                let is_good = report.ok && report.kind.is_none_or(|kind| kind == FailKind::Vanished);
                assert!(is_good || stood_still, "{report:#?}");
            }
            last = reports.into_iter().rev().find(|report| report.ok);
        });
        bench.good(Pass::Final, last.as_ref());
        bench.equal();
        let moved = exercise::Job { dir: bench.target(""), ..job.clone() };
        assert_eq!(exercise::check(&moved).unwrap(), exercise::check(&job).unwrap());
    }
}

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_is_written() {
    for bench in benches() {
        let mounted = |options: &str| {
            let mut mount = std::process::Command::new("mount");
            let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(bench.target(""));
            mount.status().is_ok_and(|status| status.success())
        };
        fs::write(bench.source("big"), vec![1; 2 << 20]).unwrap();
        if !mounted("size=1m") {
            println!("skipped: a tmpfs cannot be mounted here");
            return;
        }
        let unmount = || std::process::Command::new("umount").arg(bench.target("")).status().unwrap();
        let report = bench.pass(Pass::Hot, None);
        assert_eq!(report.kind, Some(FailKind::TargetTooSmall), "{report:?}");
        assert!(
            report.meaning.contains("the source uses 2 MiB (2") && report.exit == -1 && !report.retryable,
            "{report:?}"
        );
        assert_eq!(fs::read_dir(bench.target("")).unwrap().count(), 0);

        // What fits by the numbers and not in fact: the new file stands beside the old one, which has a second name.
        fs::write(bench.source("big"), vec![1; 700 << 10]).unwrap();
        fs::hard_link(bench.source("big"), bench.source("again")).unwrap();
        bench.good(Pass::Hot, None);
        fs::write(bench.source("big"), vec![2; 701 << 10]).unwrap();
        let report = bench.pass(Pass::Final, None);
        assert_eq!(report.kind, Some(FailKind::NoSpace), "{report:?}");
        assert!(!report.ok && !report.retryable);
        unmount();

        assert!(mounted("size=10m,nr_inodes=5"));
        for n in 0..6 {
            fs::write(bench.source(n.to_string()), "").unwrap();
        }
        let report = bench.pass(Pass::Hot, None);
        assert_eq!(report.kind, Some(FailKind::TargetTooSmall), "{report:?}");
        assert!(report.meaning.contains("inodes"), "{report:?}");
        unmount();
    }
}

#[test]
fn without_rsync_the_report_says_so() {
    let bench = Bench::new(Engine::Rsync("no-such-rsync".into()));
    let job = bench.job(Pass::Hot, None);
    let report = copy(&job, &Stop::new(), &mut |_| {});
    assert!(report.meaning.starts_with("no-such-rsync is not installed"), "{report:?}");
    assert_eq!((report.ok, report.kind, report.exit), (false, Some(FailKind::Other), -1));
}

#[test]
fn a_request_to_stop_ends_both_with_a_report() {
    for bench in benches() {
        fs::write(bench.source("file"), "x").unwrap();
        let stop = Stop::new();
        stop.request(15);
        let report = bench.stopped_pass(Pass::Hot, None, &stop);
        assert_eq!((report.ok, report.kind), (false, Some(FailKind::Interrupted)));
        let (source, target) = (bench.source(""), bench.target(""));
        let job = verify::Job::new(source, target, Mode::Full);
        assert_eq!(verify::verify(&job, &stop, &mut |_| {}).kind, Some(FailKind::Interrupted));
    }
}

#[test]
fn totals_that_are_given_are_not_counted_and_decide_nothing() {
    let bench = Bench::new(Engine::Native);
    fs::create_dir(bench.source("dir")).unwrap();
    fs::write(bench.source("dir/file"), "12345").unwrap();
    bench.good(Pass::Final, None);
    // In a full verification both sides are read; in the others nobody knows how much.
    for (mode, given, wanted) in [
        (Mode::Full, None, (3, 10)),
        (Mode::Full, Some((70, 9)), (70, 18)),
        (Mode::Full, Some((0, u64::MAX)), (0, u64::MAX)),
        (Mode::Metadata, Some((70, 9)), (70, 0)),
    ] {
        let totals = given.map(|(files, bytes)| verify::Totals { files, bytes });
        let (source, target) = (bench.source(""), bench.target(""));
        let job = verify::Job { totals, workers: Some(1), ..verify::Job::new(source, target, mode) };
        let mut told = Vec::new();
        let report = verify::verify(&job, &Stop::new(), &mut |line| {
            let Line::Progress(progress) = line else { panic!("no other line comes on the way") };
            told.push((progress.files_total, progress.bytes_total));
        });
        assert!(report.ok && report.files == 1 && report.bytes == 5, "{report:?}");
        assert_eq!(told.first(), Some(&wanted), "{mode:?} {given:?}");
    }
}

#[test]
fn a_request_to_stop_ends_a_running_rsync() {
    let bench = Bench::new(with_rsync());
    // A hole of this size keeps rsync reading for many minutes.
    File::create(bench.source("huge")).unwrap().set_len(1 << 42).unwrap();
    let job = bench.job(Pass::Final, None);
    let (stop, mut told) = (Stop::new(), Vec::new());
    let report = copy(&job, &stop, &mut |line| {
        if let Line::Progress(progress) = line {
            if progress.bytes > 0 {
                stop.request(2);
            }
            told.push(progress);
        }
    });
    assert_eq!((report.ok, report.kind, report.retryable), (false, Some(FailKind::Interrupted), true));
    let last = told.last().unwrap();
    assert!(last.bytes < last.bytes_total && last.rate_bytes_s > 0 && last.bytes_total == 1 << 42, "{told:?}");
}
