//! One name with both sides: what is compared and what goes into the digests.
//!
//! Not I/O: everything was read before. Called by `verify`. What must stay true: whatever `compare` looks at is in
//! the digest and the other way round, so that "no difference" and "equal digests" are the same statement.

use super::tree::{Node, shown};
use rustix::fs::FileType;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

/// The content of one side.
#[derive(Debug)]
pub enum Content {
    /// No regular file, or no content compared.
    None,
    /// Not changed since it was last verified, and not read.
    Reused,
    /// To be read.
    Wanted,
    Hash {
        digest: blake3::Hash,
        bytes: u64,
    },
    Failed(std::io::Error),
}

/// One name; index 0 is the source, 1 the target.
pub struct Entry {
    pub path: Vec<u8>,
    pub nodes: [Option<Node>; 2],
    /// The first name of the same inode, if this is a later one.
    pub firsts: [Option<Arc<[u8]>>; 2],
    pub contents: [Content; 2],
}

/// The first names of the hard-linked inodes of one side.
#[derive(Default)]
pub struct Links(HashMap<(u64, u64), Arc<[u8]>>);

impl Links {
    /// The first name of the node's inode; None if it is this one. Two trees have the same partition of names into
    /// inodes exactly if this is equal for every name.
    pub fn first(&mut self, node: &Node, path: &[u8]) -> Option<Arc<[u8]>> {
        if node.nlink < 2 || node.kind == FileType::Directory {
            return None;
        }
        match self.0.entry((node.dev, node.ino)) {
            Slot::Occupied(first) => Some(first.get().clone()),
            Slot::Vacant(slot) => {
                slot.insert(path.into());
                None
            }
        }
    }
}

/// Size counts for what has content, not for directories: theirs is the file system's own business.
fn size(node: &Node) -> Option<u64> {
    matches!(node.kind, FileType::RegularFile | FileType::Symlink).then_some(node.size)
}

fn mtime(node: &Node) -> Option<i128> {
    matches!(node.kind, FileType::RegularFile | FileType::Directory | FileType::Symlink).then_some(node.mtime)
}

/// Links have no mode of their own.
fn mode(node: &Node) -> Option<u32> {
    (node.kind != FileType::Symlink).then_some(node.mode)
}

fn device(node: &Node) -> Option<u64> {
    matches!(node.kind, FileType::CharacterDevice | FileType::BlockDevice).then_some(node.rdev)
}

fn kind(node: &Node) -> (u8, &'static str) {
    match node.kind {
        FileType::RegularFile => (1, "file"),
        FileType::Directory => (2, "directory"),
        FileType::Symlink => (3, "symlink"),
        FileType::Fifo => (4, "fifo"),
        FileType::Socket => (5, "socket"),
        FileType::CharacterDevice => (6, "character device"),
        FileType::BlockDevice => (7, "block device"),
        FileType::Unknown => (8, "unknown"),
    }
}

/// Tells every difference as what, source's value, target's value.
pub fn compare(entry: &Entry, tell: &mut dyn FnMut(String, String, String)) {
    let mut differ = |what: &str, source: String, target: String| {
        if source != target {
            tell(what.to_owned(), source, target);
        }
    };
    let (source, target) = match &entry.nodes {
        [Some(source), Some(target)] => (source, target),
        [Some(source), None] => return differ("missing", kind(source).1.into(), "absent".into()),
        [None, Some(target)] => return differ("extra", "absent".into(), kind(target).1.into()),
        [None, None] => return,
    };
    if source.kind != target.kind {
        return differ("type", kind(source).1.into(), kind(target).1.into());
    }
    let optional = |value: Option<u64>| value.map_or_else(String::new, |v| v.to_string());
    let both = |text: &dyn Fn(&Node) -> String| (text(source), text(target));
    for (what, (source, target)) in [
        ("mode", both(&|n| mode(n).map_or_else(String::new, |mode| format!("{mode:04o}")))),
        ("uid", both(&|n| n.uid.to_string())),
        ("gid", both(&|n| n.gid.to_string())),
        ("size", both(&|n| optional(size(n)))),
        ("mtime", both(&|n| mtime(n).map_or_else(String::new, seconds))),
        ("device", both(&|n| device(n).map_or_else(String::new, |d| format!("{d:#x}")))),
        (
            "link",
            both(&|n| {
                if n.kind == FileType::Symlink { shown(&n.link) } else { String::new() }
            }),
        ),
    ] {
        differ(what, source, target);
    }
    let first = |first: &Option<Arc<[u8]>>| match first {
        Some(first) => format!("linked to {}", shown(first)),
        None => "its own or the first name".to_owned(),
    };
    differ("hard link", first(&entry.firsts[0]), first(&entry.firsts[1]));
    compare_xattrs(source, target, &mut differ);
    if let [Content::Hash { digest: source, .. }, Content::Hash { digest: target, .. }] = &entry.contents {
        differ("content", source.to_hex().to_string(), target.to_hex().to_string());
    }
}

fn compare_xattrs(source: &Node, target: &Node, differ: &mut dyn FnMut(&str, String, String)) {
    let value = |node: &Node, name: &[u8]| {
        let found = node.xattrs.iter().find(|(own, _)| own == name);
        found.map_or_else(|| "absent".to_owned(), |(_, value)| brief(value))
    };
    let only_target = target.xattrs.iter().filter(|(name, _)| !source.xattrs.iter().any(|(own, _)| own == name));
    for (name, _) in source.xattrs.iter().chain(only_target) {
        differ(&format!("xattr {}", shown(name)), value(source, name), value(target, name));
    }
}

/// A value's length, its start and its hash: two different values never read the same.
fn brief(value: &[u8]) -> String {
    let hash = &blake3::hash(value).to_hex()[..16];
    format!("{} bytes, {}…, blake3 {hash}", value.len(), shown(&value[..value.len().min(16)]))
}

/// Nanoseconds since the epoch as `seconds.nanoseconds`.
fn seconds(time: i128) -> String {
    format!("{}.{:09}", time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000))
}

/// Adds one side of the entry to that side's digest. Every part has a fixed length or its length before it.
pub fn digest(hasher: &mut blake3::Hasher, entry: &Entry, side: usize) {
    let Some(node) = &entry.nodes[side] else { return };
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&entry.path);
    part(&[kind(node).0]);
    part(&mode(node).unwrap_or(0).to_le_bytes());
    part(&node.uid.to_le_bytes());
    part(&node.gid.to_le_bytes());
    part(&size(node).unwrap_or(0).to_le_bytes());
    part(&mtime(node).unwrap_or(0).to_le_bytes());
    part(&device(node).unwrap_or(0).to_le_bytes());
    part(&node.link);
    part(entry.firsts[side].as_deref().unwrap_or_default());
    part(&(node.xattrs.len() as u64).to_le_bytes());
    for (name, value) in &node.xattrs {
        part(name);
        part(value);
    }
    match &entry.contents[side] {
        Content::None => part(b"none"),
        Content::Reused => part(b"reused"),
        Content::Hash { digest, .. } => part(digest.as_bytes()),
        Content::Wanted | Content::Failed(_) => part(b"unreadable"),
    }
}
