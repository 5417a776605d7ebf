//! One name with both sides: what is compared and what goes into the digests.
//!
//! Not I/O: everything was read before. Called by `verify`. What must stay true: whatever `compare` looks at is in
//! the digest and the other way round, but for what is waived, which is told and in no digest: so "no difference" and
//! "equal digests" are the same statement.

use super::tree::{Node, shown};
use crate::copy::waive::{Kind, Waive};
use rustix::fs::FileType;

/// The content of one side.
#[derive(Debug)]
pub enum Content {
    /// No regular file, no content compared, or that of a hard-linked inode, which is compared by `groups`.
    None,
    /// Not changed since it was last verified, and not read.
    Reused,
    Hash(blake3::Hash),
    Failed,
}

/// One name; index 0 is the source, 1 the target.
pub struct Entry<'a> {
    pub path: &'a [u8],
    pub nodes: [Option<&'a Node>; 2],
    pub contents: [Content; 2],
    /// What is in no digest.
    pub waive: Waive,
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

impl Entry<'_> {
    /// The kind that a difference is of, if it is waived. What runs as its owner needs that very one; and an ACL or a
    /// capability that only the target has gives more than the source does, which is not to be without something.
    pub fn waived(&self, what: &str) -> Option<Kind> {
        let kind = Kind::of_difference(what)?;
        let is_waived = match what.strip_prefix("xattr ") {
            Some(name) => self.is_without(name.as_bytes()),
            None => self.is_without_owner(),
        };
        is_waived.then_some(kind)
    }

    fn is_without_owner(&self) -> bool {
        let runs_as_owner = |node: &&Node| node.kind == FileType::RegularFile && node.mode & 0o6000 != 0;
        self.waive.has(Kind::Owner) && !self.nodes.iter().flatten().any(runs_as_owner)
    }

    fn is_without(&self, name: &[u8]) -> bool {
        let kind = Kind::of_attribute(name);
        let gives_more = kind == Kind::Acl || name == b"security.capability";
        let has = |node: &Node| node.xattrs.iter().any(|(own, _)| own == name);
        self.waive.has(kind) && (!gives_more || self.nodes[0].is_some_and(has))
    }
}

/// Tells every difference as what, source's value, target's value.
pub fn compare(entry: &Entry<'_>, tell: &mut dyn FnMut(String, String, String)) {
    let mut differ = |what: &str, source: String, target: String| {
        if source != target {
            tell(what.to_owned(), source, target);
        }
    };
    let (source, target) = match entry.nodes {
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
    compare_xattrs(source, target, &mut differ);
    if let [Content::Hash(source), Content::Hash(target)] = &entry.contents {
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

/// What one side of the entry adds to that side's digest. Every part has a fixed length or its length before it.
pub fn digest(entry: &Entry<'_>, side: usize) -> Option<blake3::Hasher> {
    let node = entry.nodes[side]?;
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(b"entry");
    part(entry.path);
    part(&[kind(node).0]);
    part(&mode(node).unwrap_or(0).to_le_bytes());
    for id in [node.uid, node.gid] {
        if entry.is_without_owner() { part(b"") } else { part(&id.to_le_bytes()) }
    }
    part(&size(node).unwrap_or(0).to_le_bytes());
    part(&mtime(node).unwrap_or(0).to_le_bytes());
    part(&device(node).unwrap_or(0).to_le_bytes());
    part(&node.link);
    let counts = |name: &[u8]| !entry.is_without(name);
    let xattrs: Vec<_> = node.xattrs.iter().filter(|(name, _)| counts(name)).collect();
    part(&(xattrs.len() as u64).to_le_bytes());
    for (name, value) in xattrs {
        part(name);
        part(value);
    }
    match &entry.contents[side] {
        Content::None => part(b"none"),
        Content::Reused => part(b"reused"),
        Content::Hash(digest) => part(digest.as_bytes()),
        Content::Failed => part(b"unreadable"),
    }
    Some(hasher)
}
