//! `Files`: bytes in a volume, the same every time.

use serde::Deserialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

/// The document.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Files {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub metadata: Claim,
    pub spec: Spec,
}

/// The claim whose volume is filled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    /// How many regular files.
    pub files: u64,
    /// Bytes of all of them together.
    pub bytes: u64,
    /// Also hard links, symbolic links, a sparse file, attributes and names that scripts trip over.
    #[serde(default)]
    pub oddities: bool,
}

/// Files in one directory.
const PER_DIR: u64 = 100;
const BLOCK: usize = 64 * 1024;

impl Files {
    /// Writes everything below `dir`.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let Spec { files, bytes, oddities } = self.spec;
        let mut random = 0x5eed_u64;
        let mut block = vec![0; BLOCK];
        for number in 0..files {
            let folder = dir.join(format!("d{:03}", number / PER_DIR));
            if number % PER_DIR == 0 {
                fs::create_dir_all(&folder)?;
            }
            // A tenth of the files has most of the bytes, as in life.
            let share =
                if number % 10 == 0 { bytes * 8 / 10 / files.div_ceil(10) } else { bytes * 2 / 10 / files.max(1) };
            let mut file = File::create(folder.join(format!("f{number:05}")))?;
            let mut left = share;
            while left > 0 {
                fill(&mut block, &mut random);
                let count = left.min(BLOCK as u64) as usize;
                file.write_all(&block[..count])?;
                left -= count as u64;
            }
        }
        if oddities { odd(dir) } else { Ok(()) }
    }
}

fn fill(block: &mut [u8], random: &mut u64) {
    for chunk in block.chunks_mut(8) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        chunk.copy_from_slice(&random.to_le_bytes()[..chunk.len()]);
    }
}

fn odd(dir: &Path) -> io::Result<()> {
    let odd = dir.join("odd");
    fs::create_dir_all(odd.join("deep/er/still"))?;
    let names: [&[u8]; 9] =
        [b" leading", b"trailing ", b"new\nline", b"quo\"te's", b"-rf", b"#hash", b";semi", b"*?[x]", b"not\xffutf8"];
    for name in names {
        fs::write(odd.join(std::ffi::OsStr::from_bytes(name)), name)?;
    }
    fs::write(odd.join("x".repeat(255)), "long")?;
    fs::write(odd.join("empty"), "")?;
    fs::write(odd.join("linked"), "one file, three names\n")?;
    fs::hard_link(odd.join("linked"), odd.join("linked too"))?;
    fs::hard_link(odd.join("linked"), odd.join("deep/er/linked"))?;
    symlink("linked", odd.join("symlink"))?;
    symlink("/nowhere/at/all", odd.join("dangling"))?;
    symlink("deep", odd.join("to-directory"))?;
    let sparse = File::create(odd.join("sparse"))?;
    sparse.set_len(64 << 20)?;
    sparse.write_all_at(b"in the middle", 32 << 20)?;
    let marked: PathBuf = odd.join("attributes");
    fs::write(&marked, "with attributes\n")?;
    // A file system without them is no reason to have no lab.
    for (name, value) in [("user.origin", &b"the lab"[..]), ("user.binary", &[0, 255, 10][..])] {
        if let Err(error) = xattr::set(&marked, name, value) {
            tracing::debug!("{}: {error}", marked.display());
        }
    }
    Ok(())
}
