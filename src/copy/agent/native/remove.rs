//! Removing an entry of the target with everything below it.
//!
//! Not deciding what goes. Called by the walk for what the source does not have, or has as something else. What must
//! stay true: nothing outside of the target is removed, no link is followed, no other file system is entered; the
//! depth of the tree takes memory, not stack and not descriptors.

use super::super::tree::{self, Detail, Node};
use super::Job;
use super::meta::Entry;
use super::outcome::{Outcome, Trouble, add};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Removes it and counts. Ends early when the pass is over.
///
/// # Errors
/// With the first entry that cannot be removed.
pub fn remove(job: &Job<'_>, entry: &Entry<'_>, node: &Node, outcome: &Outcome<'_>) -> Result<(), Trouble> {
    let root = job.target;
    // Mounted here by somebody: it is not ours to remove.
    if !root.is_on_same(node) {
        return Err(Trouble::target("removing", entry.path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
    }
    if node.kind != FileType::Directory {
        return unlink(entry.dir, entry.name, entry.path, AtFlags::empty(), outcome);
    }
    let failed = |path: &[u8], e: &io::Error| Trouble::target("removing", path, e);
    let mut stack = vec![(entry.path.to_vec(), false)];
    while let Some((path, is_empty)) = stack.pop() {
        if outcome.is_over() {
            return Ok(());
        }
        let (parent, name) = tree::split(&path);
        let parent = root.open_in(parent, OFlags::DIRECTORY).map_err(|e| failed(&path, &e))?;
        if is_empty {
            unlink(&parent, name, &path, AtFlags::REMOVEDIR, outcome)?;
            continue;
        }
        let Some(own) = (Entry { dir: &parent, name, path: &path, as_root: entry.as_root }).look()? else { continue };
        if job.source.is(&own) {
            return Err(Trouble::overlap(&path));
        }
        // Mounted here by somebody: it is not ours to empty.
        if !root.is_on_same(&own) {
            return Err(failed(&path, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
        }
        if !entry.as_root && own.mode & 0o700 != 0o700 {
            let own = Entry { dir: &parent, name, path: &path, as_root: false };
            own.chmod(0o700).map_err(|e| failed(&path, &e))?;
        }
        let (dir, names) = tree::list(root, &path).map_err(|e| failed(&path, &e))?;
        stack.push((path.clone(), true));
        for name in names.iter() {
            let child = tree::join(&path, name);
            let node = match tree::node(&dir, name, Detail::Stat) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| failed(&child, &e))?,
            };
            if node.as_ref().is_some_and(|node| !root.is_on_same(node)) {
                return Err(failed(&child, &io::Error::other(tree::OTHER_FILE_SYSTEM)));
            }
            if node.is_some_and(|node| node.kind == FileType::Directory) {
                stack.push((child, false));
            } else {
                unlink(&dir, name, &child, AtFlags::empty(), outcome)?;
            }
        }
    }
    Ok(())
}

fn unlink(dir: &OwnedFd, name: &[u8], path: &[u8], flags: AtFlags, outcome: &Outcome<'_>) -> Result<(), Trouble> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) => add(&outcome.deleted, 1),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(Trouble::target("removing", path, &error.into())),
    }
    Ok(())
}
