//! Two directories that are one: a claim given for both sides, seen through two mounts that do not know of each other.
//!
//! Not a comparison of devices and inodes, which `open_both` makes: two mounts of one network file system may differ in
//! both. Called by `copy` before its first write. What must stay true: nothing stays behind in either.

use super::Failure;
use super::tree::Root;
use crate::copy::report::FailKind;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Makes a file in the target's root and looks for it in the source's.
///
/// # Errors
/// Kind `usage` if it is there; else what the system says of making, seeing or removing it.
pub fn refuse(source: &Root, target: &Root) -> Result<(), Failure> {
    let name = format!(".pvmigrate-{}", uuid::Uuid::new_v4().simple());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(target.fd(), &name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => {}
        // What is there makes room for what comes, and only then there is room for this.
        Err(Errno::NOSPC | Errno::DQUOT) => return Ok(()),
        Err(error) => return Err(Failure::system("writing to the target", &error.into())),
    }
    let seen = rustix::fs::statat(source.fd(), &name, AtFlags::SYMLINK_NOFOLLOW);
    let removed = rustix::fs::unlinkat(target.fd(), &name, AtFlags::empty());
    match seen {
        Ok(_) => {
            let meaning =
                "source and target are the same directory, mounted twice: what is made in one is in the other";
            return Err(Failure::new(FailKind::Usage, meaning));
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(Failure::system("looking into the source", &error.into())),
    }
    removed.map_err(|e| Failure::system(format!("removing {name} from the target"), &e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_is_not_two() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = [0, 1].map(|n| Root::open(dirs[n].path()).unwrap());
        let again = Root::open(dirs[0].path()).unwrap();
        assert_eq!(refuse(&one, &other), Ok(()));
        assert_eq!(refuse(&one, &again).unwrap_err().kind, FailKind::Usage);
        for dir in &dirs {
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
