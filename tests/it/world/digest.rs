//! What is in a volume: every file with all that a copy has to keep. Two of them compare; a difference is readable.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Files by path, relative to the volume's root; `.` is the root itself, `lost+found` of a disk is left out.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    pub files: BTreeMap<String, Entry>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of files; zero for what has no content of its own.
    pub size: u64,
    pub mtime_ns: i128,
    /// Number of the group of hard links within the volume, in the order of their first paths; zero if there are none.
    pub links: u64,
    /// blake3 of the content, target of a link, numbers of a device.
    pub content: String,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Digest {
    pub fn of(root: &Path) -> Digest {
        let mut files = BTreeMap::new();
        let mut inodes = BTreeMap::new();
        walk(root, root, &mut files, &mut inodes);
        let mut groups = BTreeMap::new();
        for (path, entry) in &mut files {
            if let Some(inode) = inodes.get(path) {
                let next = groups.len() as u64 + 1;
                entry.links = *groups.entry(*inode).or_insert(next);
            }
        }
        Digest { files }
    }

    /// Only what is below a directory: what stands still while the exercise goes on.
    #[must_use]
    pub fn under(mut self, dir: &str) -> Digest {
        self.files.retain(|path, _| Path::new(path).starts_with(dir));
        self
    }

    /// Without the root's own metadata, which some volumes cannot keep.
    #[must_use]
    pub fn without_root(mut self) -> Digest {
        self.files.remove(".");
        self
    }

    pub fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

fn walk(root: &Path, at: &Path, files: &mut BTreeMap<String, Entry>, inodes: &mut BTreeMap<String, u64>) {
    // A file that the exercise has just renamed away is not there any more.
    let Ok(meta) = at.symlink_metadata() else { return };
    let relative = at.strip_prefix(root).expect("we walk below the root");
    let path = if relative.as_os_str().is_empty() { ".".to_owned() } else { shown(relative.as_os_str().as_bytes()) };
    if path == "lost+found" {
        return;
    }
    let file_type = meta.file_type();
    let (kind, content) = if file_type.is_dir() {
        ("dir", String::new())
    } else if file_type.is_symlink() {
        let target = std::fs::read_link(at).map(|target| shown(target.as_os_str().as_bytes()));
        ("link", target.unwrap_or_default())
    } else if file_type.is_file() {
        let bytes = std::fs::read(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        ("file", blake3::hash(&bytes).to_hex()[..16].to_owned())
    } else if file_type.is_fifo() {
        ("fifo", String::new())
    } else if file_type.is_socket() {
        ("socket", String::new())
    } else {
        let kind = if file_type.is_block_device() { "block" } else { "char" };
        (kind, format!("{:x}", meta.rdev()))
    };
    let names = xattr::list(at).map(|names| names.collect()).unwrap_or_else(|_| Vec::new());
    let value = |name: std::ffi::OsString| {
        let value = xattr::get(at, &name).ok().flatten().unwrap_or_default();
        (shown(name.as_bytes()), value)
    };
    if kind != "dir" && meta.nlink() > 1 {
        inodes.insert(path.clone(), meta.ino());
    }
    let entry = Entry {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size: if kind == "file" { meta.size() } else { 0 },
        mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        links: 0,
        content,
        xattrs: names.into_iter().map(value).collect(),
    };
    files.insert(path, entry);
    if kind == "dir" {
        let entries = std::fs::read_dir(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        for child in entries.flatten() {
            walk(root, &child.path(), files, inodes);
        }
    }
}

/// A name as text, without loss.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, entry) in &self.files {
            write!(f, "\n{path:?}: {entry:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { kind, mode, uid, gid, size, mtime_ns, links, content, xattrs } = self;
        write!(f, "{kind} {mode:04o} {uid}:{gid} {size} B at {mtime_ns} links {links} {content} {xattrs:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_digest_sees_what_a_copy_must_keep() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "one").unwrap();
        fs::hard_link(&file, dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("c")).unwrap();
        let before = Digest::of(dir.path());
        assert_eq!(before.paths(), [".", "a", "b", "c"]);
        assert_eq!((before.files["a"].links, before.files["b"].links, before.files["c"].links), (1, 1, 0));
        assert_eq!(before, Digest::of(dir.path()));

        xattr::set(&file, "user.note", b"x").unwrap();
        assert_ne!(before, Digest::of(dir.path()));
        xattr::remove(&file, "user.note").unwrap();
        assert_eq!(before, Digest::of(dir.path()));

        fs::remove_file(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b"), "one").unwrap();
        assert_ne!(before.without_root(), Digest::of(dir.path()).without_root(), "a broken hard link");
    }
}
