//! The small files of the exercise: eight names, each changed in its own way, one a round.
//!
//! Not the acknowledged lines; called by `exercise`. What must stay true: what a slot must hold follows from the
//! round's number alone; writing a round again, over any half of it, gives the same as writing it once.

use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

/// How many slots there are.
const SLOTS: u64 = 8;

const XATTR: &str = "user.pvmigrate.round";

/// The way a slot is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Overwritten in place: the size never changes.
    InPlace,
    /// Written anew and renamed over.
    Renamed,
    /// Deleted and created.
    Recreated,
    /// Recreated together with a hard link `K.link`.
    HardLinked,
    /// A symbolic link with the content as its target.
    Symlink,
    /// In place, with the round in an extended attribute where the file system has them.
    Xattr,
}

fn way(slot: u64) -> Way {
    match slot {
        0 | 1 => Way::InPlace,
        2 | 3 => Way::Renamed,
        4 => Way::Recreated,
        5 => Way::HardLinked,
        6 => Way::Symlink,
        _ => Way::Xattr,
    }
}

/// What the slot holds after its round: of one length, so that size never tells.
fn content(round: u64) -> String {
    format!("{round:020}.").repeat(12)
}

/// Makes the change of this round in `dir`.
pub fn write(dir: &Path, round: u64) -> io::Result<()> {
    let slot = round % SLOTS;
    let (file, text) = (dir.join(slot.to_string()), content(round));
    match way(slot) {
        Way::InPlace | Way::Xattr => {
            let out = File::options().write(true).create(true).truncate(false).open(&file)?;
            out.write_all_at(text.as_bytes(), 0)?;
            if way(slot) == Way::Xattr {
                set_xattr(&file, round)?;
            }
        }
        Way::Renamed => {
            let fresh = dir.join(format!("{slot}.new"));
            fs::write(&fresh, text)?;
            fs::rename(fresh, file)?;
        }
        Way::Recreated => {
            remove(&file)?;
            File::create_new(&file)?.write_all(text.as_bytes())?;
        }
        Way::HardLinked => {
            let link = dir.join(format!("{slot}.link"));
            remove(&link)?;
            remove(&file)?;
            File::create_new(&file)?.write_all(text.as_bytes())?;
            fs::hard_link(&file, link)?;
        }
        Way::Symlink => {
            remove(&file)?;
            symlink(text, file)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn set_xattr(file: &Path, round: u64) -> io::Result<()> {
    match xattr::set(file, XATTR, round.to_string().as_bytes()) {
        Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Says what is wrong after `n` rounds of which `acked` were acknowledged. Only round `n` may be incomplete, and only
/// if it was not acknowledged.
pub fn check(dir: &Path, n: u64, acked: u64) -> Result<(), String> {
    let complete = if acked >= n { n } else { n - 1 };
    for slot in 0..SLOTS {
        let Some(round) = (1..=n).rev().take(SLOTS as usize).find(|round| round % SLOTS == slot) else {
            continue;
        };
        if round <= complete {
            check_slot(dir, slot, round).map_err(|wrong| format!("f/{slot} after round {round}: {wrong}"))?;
        }
    }
    Ok(())
}

fn check_slot(dir: &Path, slot: u64, round: u64) -> Result<(), String> {
    let (file, wanted) = (dir.join(slot.to_string()), content(round));
    let found = if way(slot) == Way::Symlink {
        fs::read_link(&file).map(|path| path.into_os_string().into_encoded_bytes())
    } else {
        fs::read(&file)
    };
    let found = found.map_err(|error| error.to_string())?;
    if found != wanted.as_bytes() {
        let start = String::from_utf8_lossy(&found[..found.len().min(21)]).into_owned();
        return Err(format!("it holds {} bytes, {start:?}…", found.len()));
    }
    match way(slot) {
        Way::HardLinked => {
            let inode = |path: &Path| fs::metadata(path).map(|m| m.ino()).map_err(|error| error.to_string());
            let link = dir.join(format!("{slot}.link"));
            if inode(&file)? == inode(&link)? { Ok(()) } else { Err("its hard link is another file".into()) }
        }
        Way::Xattr => match xattr::get(&file, XATTR) {
            Ok(Some(value)) if value == round.to_string().as_bytes() => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Ok(()),
            other => Err(format!("its attribute is {other:?}")),
        },
        _ => Ok(()),
    }
}
