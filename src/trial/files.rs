//! What is in a volume, a line for each path: everything that a copy has to keep.
//!
//! An oracle, and so made of nothing that copies. Contents are read but for holes; two files are equal whether or not
//! they have the same holes.

use rustix::fs::{SeekFrom, seek};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

/// Paths from the volume's root; `.` is the root itself, `lost+found` of a disk is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, String>);

impl Files {
    /// Reads a whole volume. What goes while it is read is not there.
    pub fn of(root: &Path) -> Files {
        let (mut files, mut inodes) = (BTreeMap::new(), BTreeMap::new());
        walk(root, root, &mut files, &mut inodes);
        // A group of hard links is named by the first of its paths.
        let mut groups: BTreeMap<u64, String> = BTreeMap::new();
        for (path, inode) in inodes {
            let first = groups.entry(inode).or_insert_with(|| path.clone());
            if let Some(line) = files.get_mut(&path) {
                line.push_str(&format!(" is {first}"));
            }
        }
        Files(files)
    }

    /// The paths of this that are missing there, and those that are other there.
    pub fn missing_in(&self, other: &Files) -> (Vec<String>, Vec<String>) {
        let (gone, there): (Vec<_>, Vec<_>) = self.0.iter().partition(|(path, _)| !other.0.contains_key(*path));
        let other = there.into_iter().filter(|(path, line)| other.0.get(*path) != Some(line));
        (gone.into_iter().map(|(path, _)| path.clone()).collect(), other.map(|(path, _)| path.clone()).collect())
    }
}

fn walk(root: &Path, at: &Path, files: &mut BTreeMap<String, String>, inodes: &mut BTreeMap<String, u64>) {
    let Ok(meta) = at.symlink_metadata() else { return };
    let relative = at.strip_prefix(root).unwrap_or(at).as_os_str();
    let path = if relative.is_empty() { ".".to_owned() } else { shown(relative.as_bytes()) };
    if path == "lost+found" {
        return;
    }
    let file_type = meta.file_type();
    let what = if file_type.is_dir() {
        "dir".to_owned()
    } else if file_type.is_symlink() {
        let target = std::fs::read_link(at).map(|target| shown(target.as_os_str().as_bytes()));
        format!("link to {}", target.unwrap_or_default())
    } else if file_type.is_file() {
        match content(at, meta.size()) {
            Ok(digest) => format!("file of {} bytes {digest}", meta.size()),
            Err(error) => format!("file that cannot be read: {error}"),
        }
    } else if file_type.is_fifo() {
        "fifo".to_owned()
    } else if file_type.is_socket() {
        "socket".to_owned()
    } else {
        format!("device {:x}", meta.rdev())
    };
    let mut names: Vec<_> = xattr::list(at).map(Iterator::collect).unwrap_or_default();
    names.sort();
    let xattrs = names.iter().map(|name| {
        let value = xattr::get(at, name).ok().flatten().unwrap_or_default();
        format!(" {}={}", shown(name.as_bytes()), blake3::hash(&value).to_hex().split_at(8).0)
    });
    let xattrs: String = xattrs.collect();
    if !file_type.is_dir() && meta.nlink() > 1 {
        inodes.insert(path.clone(), meta.ino());
    }
    let (mode, seconds) = (meta.mode() & 0o7777, format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
    files.insert(path, format!("{what} {mode:04o} {}:{} at {seconds}{xattrs}", meta.uid(), meta.gid()));
    if file_type.is_dir() {
        for child in std::fs::read_dir(at).into_iter().flatten().flatten() {
            walk(root, &child.path(), files, inodes);
        }
    }
}

const BLOCK: usize = 64 * 1024;

/// A digest of where which bytes are; zeros are as good as a hole.
fn content(path: &Path, size: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < size {
        // A file system without holes answers with the same place.
        match seek(&file, SeekFrom::Data(at)) {
            Ok(found) => at = found - found % BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        }
        let mut count = 0;
        while count < BLOCK {
            match file.read_at(&mut block[count..], at + count as u64)? {
                0 => break,
                more => count += more,
            }
        }
        if count == 0 {
            break;
        }
        if block[..count].iter().any(|byte| *byte != 0) {
            hasher.update(&at.to_le_bytes());
            hasher.update(&block[..count]);
        }
        at += count as u64;
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// A name as text, without loss.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn everything_that_a_copy_must_keep_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "one").unwrap();
        fs::hard_link(&file, dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("c")).unwrap();
        let before = Files::of(dir.path());
        assert_eq!(before.0.keys().collect::<Vec<_>>(), [".", "a", "b", "c"]);
        assert_eq!(before, Files::of(dir.path()));
        xattr::set(&file, "user.note", b"x").unwrap();
        assert_eq!(before.missing_in(&Files::of(dir.path())), (vec![], vec!["a".to_owned(), "b".to_owned()]));
        xattr::remove(&file, "user.note").unwrap();
        fs::remove_file(dir.path().join("b")).unwrap();
        let (gone, other) = before.missing_in(&Files::of(dir.path()));
        assert_eq!(gone, ["b"]);
        assert!(other.contains(&"a".to_owned()), "a broken hard link: {other:?}");
    }

    #[test]
    fn holes_are_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, full) = (dir.path().join("sparse"), dir.path().join("full"));
        let file = File::create(&sparse).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"in the middle", 500_000).unwrap();
        let bytes = fs::read(&sparse).unwrap();
        fs::write(&full, &bytes).unwrap();
        let digest = |path: &Path| content(path, 1 << 20).unwrap();
        assert_eq!(digest(&sparse), digest(&full));
        fs::write(&full, [&bytes[..], b"x"].concat()).unwrap();
        let file = File::options().write(true).open(&full).unwrap();
        file.write_all_at(b"y", 7).unwrap();
        assert_ne!(digest(&sparse), digest(&full));
    }
}
