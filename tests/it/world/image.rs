//! The agent's image: the built program, its libraries and rsync as a root file system, imported once per binary.
//!
//! Named after the binary's hash, so that a test never meets yesterday's agent.

use super::World;
use super::locks::locked;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// busybox and rsync; the cluster brings it.
pub const TOOLS: &str = "docker.io/e2e/tools:1";

impl World {
    /// The agent's image, on both nodes.
    pub fn image(&self) -> String {
        if self.ground.bench().is_some() {
            return "docker.io/pvmigrate/agent:lab".to_owned();
        }
        static IMAGE: OnceLock<String> = OnceLock::new();
        IMAGE.get_or_init(|| self.import(&agent())).clone()
    }

    fn import(&self, binary: &Path) -> String {
        let bytes = fs::read(binary).unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let hash = blake3::hash(&bytes).to_hex()[..12].to_owned();
        let name = format!("docker.io/pvmigrate/agent:{hash}");
        let _one_at_a_time = locked(&self.ground.locks(), "image");
        let done = self.ground.locks().join(format!("image-{hash}"));
        if !done.exists() {
            let root = tempfile::tempdir().expect("a directory can be made");
            fill(root.path(), binary);
            let dir = root.path().to_str().expect("our paths are plain");
            self.ground.cluster(&["image", &name, dir]);
            fs::write(&done, binary.to_string_lossy().as_bytes()).expect("the import can be noted");
        }
        name
    }
}

/// `PVMIGRATE_TEST_AGENT`, or the release build if no source is newer, or the build under test.
fn agent() -> PathBuf {
    if let Some(path) = std::env::var_os("PVMIGRATE_TEST_AGENT").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let debug = PathBuf::from(env!("CARGO_BIN_EXE_pvmigrate"));
    let target = debug.ancestors().nth(2).expect("the build is in target/<profile>");
    let release = target.join("release/pvmigrate");
    let built = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    match built(&release) {
        Some(at) if at >= newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) => release,
        _ => debug,
    }
}

fn newest(dir: &Path) -> SystemTime {
    let entries = fs::read_dir(dir).expect("the sources are there").flatten();
    let times = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest(&entry.path()),
        _ => entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn fill(root: &Path, binary: &Path) {
    for dir in ["usr/local/bin", "usr/bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).expect("a directory can be made");
    }
    super::open_to_all(&root.join("tmp"));
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/false\n").expect("a file can be written");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("a file can be written");
    let program = root.join("usr/local/bin/pvmigrate");
    fs::copy(binary, &program).expect("the binary can be copied");
    // A debug build is a hundred megabytes; without strip it is only slower.
    let _ = Command::new("strip").arg("--strip-debug").arg(&program).output();
    let rsync = Path::new("/usr/bin/rsync");
    fs::copy(rsync, root.join("usr/bin/rsync")).expect("rsync is installed: the cluster needs it too");
    for library in libraries(binary).into_iter().chain(libraries(rsync)) {
        let to = root.join(library.strip_prefix("/").expect("ldd prints absolute paths"));
        fs::create_dir_all(to.parent().expect("a library is in a directory")).expect("a directory can be made");
        fs::copy(&library, &to).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    }
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    words.map(PathBuf::from).collect()
}
