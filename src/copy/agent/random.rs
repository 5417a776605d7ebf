//! Random trees, edited at random between random passes; rsync and `verify` say whether all arrived.

use super::copy::Engine;
use super::stop::Stop;
use super::torture::{Bench, Volume, kept, raw, set_mtime, with_rsync};
use crate::copy::report::{FailKind, Pass};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{CWD, FileType};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// One change of a tree. What cannot be done, as the paths are, is not done.
#[derive(Clone, Debug)]
enum Edit {
    Write(PathBuf, u8, u16),
    /// Of the same size at the same time, which only the pass rule finds.
    Overwrite(PathBuf, u8),
    Resize(PathBuf, u32),
    Poke(PathBuf, u32, u8),
    Directory(PathBuf),
    Symlink(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Fifo(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Mode(PathBuf, u16),
    Owner(PathBuf, u32),
    Attribute(PathBuf, u8, Option<u8>),
    Time(PathBuf, i32),
}

/// Few names, so that edits meet each other.
fn path() -> impl Strategy<Value = PathBuf> {
    let names: [&[u8]; 6] = [b"a", b"b", b"#c", b"caf\xe9", b"-e", b"lost+found"];
    prop::collection::vec(0..names.len(), 1..4)
        .prop_map(move |parts| parts.into_iter().map(|n| raw(names[n])).collect())
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (path(), any::<u8>(), any::<u16>()).prop_map(|(p, byte, size)| Edit::Write(p, byte, size)),
        2 => (path(), any::<u8>()).prop_map(|(p, byte)| Edit::Overwrite(p, byte)),
        2 => (path(), 0..3_000_000u32).prop_map(|(p, size)| Edit::Resize(p, size)),
        2 => (path(), 0..3_000_000u32, any::<u8>()).prop_map(|(p, at, byte)| Edit::Poke(p, at, byte)),
        6 => path().prop_map(Edit::Directory),
        2 => (path(), path()).prop_map(|(p, to)| Edit::Symlink(p, to)),
        4 => (path(), path()).prop_map(|(old, new)| Edit::Link(old, new)),
        1 => path().prop_map(Edit::Fifo),
        2 => path().prop_map(Edit::Remove),
        3 => (path(), path()).prop_map(|(old, new)| Edit::Rename(old, new)),
        2 => (path(), 0..0o10000u16).prop_map(|(p, mode)| Edit::Mode(p, mode)),
        1 => (path(), 0..4u32).prop_map(|(p, owner)| Edit::Owner(p, owner)),
        2 => (path(), 0..3u8, any::<Option<u8>>()).prop_map(|(p, name, value)| Edit::Attribute(p, name, value)),
        2 => (path(), any::<i32>()).prop_map(|(p, time)| Edit::Time(p, time)),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(), 0..40)
}

fn apply(root: &Path, edits: &[Edit]) {
    for edit in edits {
        apply_one(root, edit);
    }
}

fn apply_one(root: &Path, edit: &Edit) -> Option<()> {
    let at = |path: &PathBuf| root.join(path);
    let file = |path: &PathBuf| fs::symlink_metadata(at(path)).ok().filter(|meta| meta.is_file());
    let exists = |path: &PathBuf| fs::symlink_metadata(at(path)).ok();
    match edit {
        Edit::Write(path, byte, size) => {
            // Never through a link or into a pipe.
            if exists(path).is_none() || file(path).is_some() {
                fs::write(at(path), vec![*byte; usize::from(*size)]).ok()?;
            }
        }
        Edit::Overwrite(path, byte) => {
            let size = file(path)?.len().min(100_000) as usize;
            kept(&at(path), |path| {
                let file = File::options().write(true).open(path);
                file.and_then(|file| file.write_all_at(&vec![*byte; size], 0)).ok();
            });
        }
        Edit::Resize(path, size) => {
            file(path)?;
            File::options().write(true).open(at(path)).ok()?.set_len((*size).into()).ok()?;
        }
        Edit::Poke(path, place, byte) => {
            file(path)?;
            File::options().write(true).open(at(path)).ok()?.write_all_at(&[*byte; 5000], (*place).into()).ok()?;
        }
        Edit::Directory(path) => fs::create_dir(at(path)).ok()?,
        Edit::Symlink(path, to) => symlink(to, at(path)).ok()?,
        Edit::Link(old, new) => fs::hard_link(at(old), at(new)).ok()?,
        Edit::Fifo(path) => rustix::fs::mknodat(CWD, at(path), FileType::Fifo, 0o644.into(), 0).ok()?,
        Edit::Remove(path) => {
            let is_dir = exists(path)?.is_dir();
            if is_dir { fs::remove_dir_all(at(path)).ok()? } else { fs::remove_file(at(path)).ok()? }
        }
        Edit::Rename(old, new) => fs::rename(at(old), at(new)).ok()?,
        Edit::Mode(path, bits) => {
            if !exists(path)?.is_symlink() {
                // Directories stay open to whoever runs this.
                let bits = u32::from(*bits) | if exists(path)?.is_dir() { 0o700 } else { 0o600 };
                fs::set_permissions(at(path), fs::Permissions::from_mode(bits)).ok()?;
            }
        }
        Edit::Owner(path, owner) => lchown(at(path), Some(*owner), Some(*owner)).ok()?,
        Edit::Attribute(path, name, value) => match value {
            Some(value) => xattr::set(at(path), format!("user.{name}"), &[*value]).ok()?,
            None => xattr::remove(at(path), format!("user.{name}")).ok()?,
        },
        Edit::Time(path, time) => {
            exists(path)?;
            set_mtime(&at(path), (*time).into(), 123_456_789);
        }
    }
    Some(())
}

/// What happens to a source, and to the target in the end.
#[derive(Clone, Debug)]
struct Story {
    first: Vec<Edit>,
    between: Vec<Edit>,
    last: Vec<Edit>,
    strange: Vec<Edit>,
    /// When the pass in the middle is interrupted, if it takes so long.
    looks: u64,
}

fn story() -> impl Strategy<Value = Story> {
    (edits(), edits(), edits(), edits(), 1..200u64).prop_map(|(first, between, last, strange, looks)| Story {
        first,
        between,
        last,
        strange,
        looks,
    })
}

fn becomes(bench: &Bench, story: &Story) -> Result<(), TestCaseError> {
    let Story { first, between, last, strange, looks } = story;
    // A source that is suddenly empty is refused.
    fs::write(bench.source("always"), "x").unwrap();
    apply(&bench.source(""), first);
    let hot = bench.good(Pass::Hot, None);
    bench.equal();
    apply(&bench.source(""), between);
    let stopped = bench.stopped_pass(Pass::Hot, Some(&hot), &Stop::at_look(*looks));
    prop_assert!(stopped.ok || stopped.kind == Some(FailKind::Interrupted), "{stopped:?}");
    apply(&bench.source(""), last);
    bench.good(Pass::Final, Some(&hot));
    bench.equal();
    // What somebody else did to the target is undone by whoever trusts nothing.
    apply(&bench.target(""), strange);
    bench.good(Pass::Final, None);
    bench.equal();
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn any_tree_becomes_any_other(story in story()) {
        becomes(&Bench::in_memory(Engine::Native), &story)?;
    }
}

#[test]
fn any_tree_becomes_any_other_where_blocks_are_shared() {
    for kind in ["btrfs", "xfs"] {
        let Some(volume) = Volume::new(kind) else { continue };
        let told = TestRunner::new(config(6)).run(&story(), |story| {
            let dir = tempfile::tempdir_in(volume.place()).unwrap();
            becomes(&Bench::inside(dir, Engine::Native), &story)
        });
        assert!(told.is_ok(), "{kind}: {}", told.unwrap_err());
    }
}

/// Without hard links: rsync keeps the names of a broken one together if only their metadata differ.
#[test]
fn any_tree_becomes_any_other_with_rsync() {
    let told = TestRunner::new(config(8)).run(&story(), |mut story| {
        for edits in [&mut story.first, &mut story.between, &mut story.last, &mut story.strange] {
            edits.retain(|edit| !matches!(edit, Edit::Link(..)));
        }
        becomes(&Bench::in_memory(with_rsync()), &story)
    });
    assert!(told.is_ok(), "{}", told.unwrap_err());
}
