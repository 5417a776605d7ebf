//! Targets that cannot hold what the source has, and what of it may be waived; with each engine, on real file systems.

use super::copy::{Engine, Job, copy};
use super::stop::Stop;
use super::torture::{ACL, Bench, Volume, benches, only_as_root};
use super::verify;
use crate::copy::report::{FailKind, Mode, Pass};
use crate::copy::waive::{self, Kind, Waive, Waived};
use jiff::Timestamp;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file system without extended attributes and ACLs, as long as this lives.
struct Bare(PathBuf);

impl Bare {
    fn on(dir: &Path) -> Bare {
        let mounted = std::process::Command::new("mount").args(["-t", "ramfs", "none"]).arg(dir).status();
        assert!(mounted.is_ok_and(|status| status.success()), "root can mount a ramfs");
        Bare(dir.to_owned())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_the_target_cannot_hold_is_left_out_only_if_it_was_waived_and_then_counted() {
    if !only_as_root() {
        return;
    }
    for bench in benches() {
        let _bare = Bare::on(&bench.target(""));
        for name in ["both", "one", "plain"] {
            fs::write(bench.source(name), name).unwrap();
        }
        for name in ["both", "one"] {
            xattr::set(bench.source(name), "user.note", b"x").unwrap();
        }
        xattr::set(bench.source("both"), "user.other", b"y").unwrap();
        xattr::set(bench.source("both"), "system.posix_acl_access", ACL).unwrap();
        let pass = |kinds: &[Kind]| {
            let job = Job { waive: Waive::of(kinds.iter().copied()), ..bench.job(Pass::Final, None) };
            copy(&job, &Stop::new(), &mut |_| {})
        };
        for kinds in [&[][..], &[Kind::Acl], &[Kind::Xattr], &[Kind::Owner], &[Kind::Owner, Kind::Xattr]] {
            let report = pass(kinds);
            assert_eq!(
                (report.ok, report.kind),
                (false, Some(FailKind::MetadataUnsupported)),
                "{kinds:?}: {report:#?}"
            );
        }
        let both = [Kind::Acl, Kind::Xattr];
        let report = pass(&both);
        assert!(report.ok, "{report:#?}");
        let counted = Waived::from([(Kind::Acl, 1), (Kind::Xattr, 2)]);
        if bench.is_native() {
            assert_eq!(report.waived, counted);
        } else {
            assert!(report.messages.iter().any(|line| line.contains("not asked for acl, xattr")), "{report:#?}");
        }
        let verified = |kinds: &[Kind]| bench.verify_without(Mode::Full, None, Waive::of(kinds.iter().copied()));
        let report = verified(&both);
        assert!(report.ok && report.source_digest == report.target_digest, "{report:#?}");
        assert_eq!(report.waived, counted);
        // Each of them alone says the other, and so do the digests.
        for (kinds, waived, left) in [
            (&[][..], Waived::new(), Waived::from([(Kind::Acl, 1), (Kind::Xattr, 3)])),
            (&[Kind::Acl], Waived::from([(Kind::Acl, 1)]), Waived::from([(Kind::Xattr, 3)])),
            (&[Kind::Xattr], Waived::from([(Kind::Xattr, 2)]), Waived::from([(Kind::Acl, 1)])),
        ] {
            let report = verified(kinds);
            assert!(!report.ok && report.source_digest != report.target_digest, "{report:#?}");
            assert_eq!((report.waived, report.differences_by_kind), (waived, left), "{kinds:?}");
        }
        // What was not named is a difference as ever.
        for (what, spoil) in [
            ("content", &(|| fs::write(bench.target("one"), "not").unwrap()) as &dyn Fn()),
            ("mode", &|| fs::set_permissions(bench.target("plain"), Permissions::from_mode(0o601)).unwrap()),
            ("uid", &|| std::os::unix::fs::chown(bench.target("plain"), Some(7), None).unwrap()),
            ("missing", &|| fs::remove_file(bench.target("both")).unwrap()),
        ] {
            spoil();
            let report = verified(&both);
            assert!(!report.ok && report.source_digest != report.target_digest, "{what}: {report:#?}");
            assert!(report.differences.iter().any(|d| d.what == what), "{what}: {report:#?}");
        }
    }
}

/// Somebody goes on to write attributes: only those that nobody has touched since the pass began speak of the target.
#[test]
fn beside_a_writer_only_what_is_settled_is_counted_by_its_kind() {
    let bench = Bench::in_memory(Engine::Native);
    for name in ["busy", "settled"] {
        fs::write(bench.source(name), name).unwrap();
    }
    bench.good(Pass::Hot, None);
    let mark = |name| xattr::set(bench.source(name), "user.note", b"x").unwrap();
    mark("settled");
    let settled = fs::metadata(bench.source("settled")).unwrap();
    let settled = Timestamp::new(settled.ctime(), i32::try_from(settled.ctime_nsec()).unwrap()).unwrap();
    let began = settled + Duration::from_millis(200);
    while Timestamp::now() < began + Duration::from_millis(20) {
        std::thread::yield_now();
    }
    mark("busy");
    let (source, target) = (bench.source(""), bench.target(""));
    for (settled_before, counted) in [(None, 2), (Some(settled), 0), (Some(began), 1)] {
        let job = verify::Job { settled_before, ..verify::Job::new(source.clone(), target.clone(), Mode::Metadata) };
        let report = verify::verify(&job, &Stop::new(), &mut |_| {});
        assert_eq!((report.differences_total, report.ok), (2, false), "{report:#?}");
        let by_kind = if counted == 0 { Waived::new() } else { Waived::from([(Kind::Xattr, counted)]) };
        assert_eq!(report.differences_by_kind, by_kind, "{settled_before:?}");
    }
}

/// Of random trees: with a kind waived exactly its differences are missing, but for those that give more.
#[test]
fn a_waiver_takes_its_kinds_out_of_the_differences_and_nothing_else() {
    if !only_as_root() {
        return;
    }
    let bench = Bench::in_memory(Engine::Native);
    for seed in 0..20_u32 {
        let mut random = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = |n: u32| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % n
        };
        for side in [bench.source(""), bench.target("")] {
            for n in 0..8 {
                let path = side.join(n.to_string());
                fs::write(&path, if next(4) == 0 { "a" } else { "b" }).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o600 + next(2))).unwrap();
                std::os::unix::fs::chown(&path, Some(next(2)), Some(next(2))).unwrap();
                for (name, value) in [("user.a", &b"v"[..]), ("system.posix_acl_access", ACL)] {
                    let _none = xattr::remove(&path, name);
                    if next(2) == 0 {
                        xattr::set(&path, name, value).unwrap();
                    }
                }
            }
        }
        let plain = bench.verify(Mode::Full, None);
        // ACLs that only the target has are never waived.
        let has = |side: PathBuf| xattr::get(side, "system.posix_acl_access").unwrap().is_some();
        let more = |n: &i32| !has(bench.source(n.to_string())) && has(bench.target(n.to_string()));
        let more = (0..8).filter(more).count() as u64;
        let others = plain.differences_total - plain.differences_by_kind.values().sum::<u64>();
        for bits in 0..8_u32 {
            let waive = Waive::of(waive::KINDS.into_iter().filter(|kind| (bits >> *kind as u32) & 1 == 1));
            let report = bench.verify_without(Mode::Full, None, waive);
            let left = plain.differences_by_kind.iter().filter(|(kind, _)| !waive.has(**kind));
            let left = others + left.map(|(_, n)| n).sum::<u64>() + if waive.has(Kind::Acl) { more } else { 0 };
            assert_eq!(report.differences_total, left, "{seed} {waive:?}");
            assert_eq!(report.ok, report.source_digest == report.target_digest, "{seed} {waive:?}");
            let is_told = |kind: &Kind| {
                let found = plain.differences_by_kind.get(kind).copied().unwrap_or(0);
                let was = found > if *kind == Kind::Acl { more } else { 0 };
                (was && waive.has(*kind)) == report.waived.contains_key(kind)
            };
            assert!(waive::KINDS.iter().all(is_told), "{seed} {waive:?}: {report:#?}");
        }
    }
}

#[test]
fn what_gives_more_than_the_source_does_is_never_waived() {
    if !only_as_root() {
        return;
    }
    let all = Waive::of(waive::KINDS);
    let [bench, _] = benches();
    let both = |name: &str| [bench.source(name), bench.target(name)];
    let good = || {
        let report = bench.verify_without(Mode::Full, None, all);
        report.ok && report.source_digest == report.target_digest
    };
    for name in ["tool", "plain"] {
        fs::write(bench.source(name), name).unwrap();
    }
    fs::set_permissions(bench.source("tool"), Permissions::from_mode(0o4755)).unwrap();
    bench.good(Pass::Final, None);
    // An owner is waived, but not that of what runs as its owner.
    std::os::unix::fs::lchown(bench.target("plain"), Some(7), Some(7)).unwrap();
    assert!(good());
    let tool = bench.target("tool");
    std::os::unix::fs::lchown(&tool, Some(7), None).unwrap();
    fs::set_permissions(&tool, Permissions::from_mode(0o4755)).unwrap();
    assert!(!good());
    std::os::unix::fs::lchown(&tool, Some(0), None).unwrap();
    fs::set_permissions(&tool, Permissions::from_mode(0o4755)).unwrap();
    assert!(good());
    // An ACL is waived that the source has, but none that only the target has; an attribute is one way or the other.
    let [source, target] = both("plain");
    xattr::set(&source, "user.note", b"x").unwrap();
    xattr::set(&target, "user.other", b"y").unwrap();
    assert!(good());
    let [source, target] = both("tool");
    let had = fs::metadata(&target).unwrap().permissions();
    xattr::set(&target, "system.posix_acl_access", ACL).unwrap();
    fs::set_permissions(&target, had.clone()).unwrap();
    assert!(!good());
    xattr::remove(&target, "system.posix_acl_access").unwrap();
    xattr::set(&source, "system.posix_acl_access", ACL).unwrap();
    fs::set_permissions(&source, had.clone()).unwrap();
    fs::set_permissions(&target, had).unwrap();
    assert!(good());
}

/// A full file system is no reason to do without an attribute that it could hold.
#[test]
fn what_only_has_no_space_is_not_waived() {
    if !only_as_root() {
        return;
    }
    let Some(volume) = Volume::new("ext4") else { return };
    let bench = Bench::inside(tempfile::tempdir_in(volume.place()).unwrap(), Engine::Native);
    // From elsewhere: attributes that are equal share their block.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::remove_dir(bench.source("")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), bench.source("").parent().unwrap().join("source")).unwrap();
    fs::write(bench.source("noted"), "x").unwrap();
    bench.good(Pass::Final, None);
    xattr::set(bench.source("noted"), "user.note", &[7; 3000]).unwrap();
    let filler = volume.place().join("filler");
    let full = std::io::copy(&mut std::io::repeat(1), &mut fs::File::create(&filler).unwrap()).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let waived = Waive::of([Kind::Xattr]);
    let pass = || copy(&Job { waive: waived, ..bench.job(Pass::Final, None) }, &Stop::new(), &mut |_| {});
    let report = pass();
    assert_eq!(
        (report.ok, report.kind, &report.waived),
        (false, Some(FailKind::NoSpace), &Waived::new()),
        "{report:#?}"
    );
    fs::remove_file(filler).unwrap();
    let report = pass();
    assert!(report.ok && report.waived.is_empty(), "{report:#?}");
    bench.equal();
}
