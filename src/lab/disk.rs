//! The directories behind volumes, and what each node has of its own.
//!
//! `volumes/<handle>/data` is a volume of the lab's drivers, a file of its size if it is a device (volumeMode Block); `nodes/<node>/<path>` is what a host path or a local volume
//! means on that node. Not the volumes' objects. What must stay true: nothing outside of the lab's directory is ever
//! written, whatever a volume's spec says; a volume that was thrown away is gone from its place at once.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug)]
pub struct Disks {
    root: PathBuf,
    /// Directories outside that every node sees, as the caller wanted.
    shared: Vec<PathBuf>,
}

impl Disks {
    pub fn new(root: &Path, shared: Vec<PathBuf>) -> Disks {
        Disks { root: root.to_owned(), shared }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the bytes of a volume are.
    pub fn volume(&self, handle: &str) -> PathBuf {
        self.root.join("volumes").join(plain(handle)).join("data")
    }

    /// Makes a file that stands for a device, all zeros. Returns whether it was not there.
    pub fn make_device(&self, handle: &str, bytes: u64) -> io::Result<bool> {
        let file = self.volume(handle);
        std::fs::create_dir_all(file.parent().expect("it is below the lab's directory"))?;
        make_file(&file, bytes)
    }

    /// Makes it. Returns whether it was not there.
    pub fn make(&self, handle: &str) -> io::Result<bool> {
        let dir = self.volume(handle);
        if dir.is_dir() {
            return Ok(false);
        }
        std::fs::create_dir_all(&dir)?;
        open_to_all(&dir)?;
        Ok(true)
    }

    /// Makes a volume with what is in another one now; a device may be larger. Returns whether it was not there.
    ///
    /// Somebody may write meanwhile: what he writes then is there, or not, or half, as in any clone of what is in use.
    pub fn make_like(&self, from: &str, handle: &str, bytes: u64) -> io::Result<bool> {
        let (from, to) = (self.volume(from), self.volume(handle));
        if to.exists() {
            return Ok(false);
        }
        let fresh = to.with_added_extension("new");
        std::fs::create_dir_all(fresh.parent().expect("it is below the lab's directory"))?;
        remove(&fresh)?;
        let copied = Command::new("cp")
            .env("LC_ALL", "C")
            .args(["-a", "--sparse=always", "--reflink=auto", "-T", "--"])
            .args([&from, &fresh])
            .output()?;
        let complaints = String::from_utf8_lossy(&copied.stderr);
        let vanished = fresh.exists() && complaints.lines().all(|line| line.ends_with("No such file or directory"));
        if !copied.status.success() && !vanished {
            remove(&fresh)?;
            return Err(io::Error::other(complaints.into_owned()));
        }
        if fresh.is_file() {
            std::fs::OpenOptions::new().write(true).open(&fresh)?.set_len(bytes)?;
        }
        std::fs::rename(fresh, to)?;
        Ok(true)
    }

    /// Throws it away. Returns whether it was there.
    pub fn remove(&self, handle: &str) -> io::Result<bool> {
        let dir = self.root.join("volumes").join(plain(handle));
        if !dir.is_dir() {
            return Ok(false);
        }
        let trash = self.root.join("trash");
        std::fs::create_dir_all(&trash)?;
        // Out of sight first, then in peace.
        let away = trash.join(plain(handle));
        if away.exists() {
            std::fs::remove_dir_all(&away)?;
        }
        std::fs::rename(&dir, &away)?;
        std::fs::remove_dir_all(&away)?;
        Ok(true)
    }

    /// What a path means on a node; made if it is not there and `make` is set.
    pub fn on_node(&self, node: &str, path: &str, make: bool) -> io::Result<PathBuf> {
        let asked = Path::new(path);
        let has_parent = asked.components().any(|part| part == Component::ParentDir);
        let dir = match self.shared.iter().find(|shared| asked.starts_with(shared) && !has_parent) {
            Some(_) => asked.to_owned(),
            None => {
                let parts = asked.components().filter_map(|part| match part {
                    Component::Normal(part) => Some(part),
                    _ => None,
                });
                parts.fold(self.root.join("nodes").join(plain(node)), |dir, part| dir.join(part))
            }
        };
        if make && !dir.is_dir() {
            std::fs::create_dir_all(&dir)?;
            open_to_all(&dir)?;
        }
        Ok(dir)
    }

    /// Where an `emptyDir` of a pod is.
    pub fn of_pod(&self, uid: &str, volume: &str) -> PathBuf {
        self.root.join("pods").join(plain(uid)).join(plain(volume))
    }

    /// Where a container leaves its last words: its `/dev/termination-log`.
    pub fn last_words(&self, uid: &str, container: &str) -> PathBuf {
        self.root.join("logs").join(format!("{}_{}.last", plain(uid), plain(container)))
    }

    /// Where the output of a container is kept.
    pub fn log(&self, uid: &str, container: &str) -> PathBuf {
        self.root.join("logs").join(format!("{}_{}.log", plain(uid), plain(container)))
    }
}

/// A name as one part of a path, whatever somebody wrote into a volume's handle; two names never share one.
fn plain(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut out = String::new();
    for (at, byte) in name.bytes().enumerate() {
        if keep(byte) && !(at == 0 && byte == b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

/// As large as it says from its first moment on, and for all, as devices are.
fn make_file(path: &Path, bytes: u64) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    if path.exists() {
        return Ok(false);
    }
    let fresh = path.with_added_extension("new");
    let file = std::fs::File::create(&fresh)?;
    file.set_len(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))?;
    std::fs::rename(fresh, path)?;
    Ok(true)
}

/// Removes whatever is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn open_to_all(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_has_what_its_original_has() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::new(dir.path(), Vec::new());
        assert!(disks.make_like("none", "c", 0).is_err());
        disks.make("a").unwrap();
        std::fs::write(disks.volume("a").join("file"), "x").unwrap();
        std::fs::hard_link(disks.volume("a").join("file"), disks.volume("a").join("name")).unwrap();
        assert_eq!((disks.make_like("a", "c", 0).unwrap(), disks.make_like("a", "c", 0).unwrap()), (true, false));
        let [one, two] = ["file", "name"].map(|name| std::fs::metadata(disks.volume("c").join(name)).unwrap());
        let original = std::fs::metadata(disks.volume("a").join("file")).unwrap();
        assert_eq!((one.ino(), one.nlink(), one.mtime_nsec()), (two.ino(), 2, original.mtime_nsec()));
        assert_ne!(one.ino(), original.ino());
        disks.make_device("b", 5).unwrap();
        std::fs::write(disks.volume("b"), "12345").unwrap();
        disks.make_like("b", "d", 8).unwrap();
        assert_eq!(std::fs::read(disks.volume("d")).unwrap(), b"12345\0\0\0");
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::new(dir.path(), vec!["/srv/ours".into()]);
        for handle in ["pvc-1", "../../etc", "..", "", "a/b"] {
            let path = disks.volume(handle);
            assert_eq!(path.parent().unwrap().parent().unwrap(), dir.path().join("volumes"), "{handle}");
        }
        let node = dir.path().join("nodes/node1");
        assert_eq!(disks.on_node("node1", "/mnt/../../x", false).unwrap(), node.join("mnt/x"));
        assert_eq!(disks.on_node("node1", "/srv/ours/x", false).unwrap(), Path::new("/srv/ours/x"));
        assert_eq!(disks.on_node("node1", "/srv/ours/../x", false).unwrap(), node.join("srv/ours/x"));
        assert_ne!(disks.volume("a/b"), disks.volume("a_b"));
        assert_eq!((disks.make("a").unwrap(), disks.make("a").unwrap()), (true, false));
        assert_eq!((disks.remove("a").unwrap(), disks.remove("a").unwrap()), (true, false));
        assert!(!disks.volume("a").exists());
        assert_eq!((disks.make_device("b", 5).unwrap(), disks.make_device("b", 7).unwrap()), (true, false));
        assert_eq!(std::fs::metadata(disks.volume("b")).unwrap().len(), 5);
        assert!(disks.remove("b").unwrap());
    }
}
