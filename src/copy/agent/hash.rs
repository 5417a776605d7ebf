//! The content of a file, as one side has it.
//!
//! Not a comparison. Called by `verify`, by many threads at once. What must stay true: only regular files are read, no
//! link is followed, and a file that changes its length while it is read is an error, not a digest.

use super::stop::Stop;
use super::tree::{Node, Root};
use rustix::fs::{Advice, FileType, OFlags};
use std::io;

/// Large enough for blake3 to use the widest instructions, and for a network file system to read ahead.
const BUFFER_BYTES: usize = 1 << 20;

const CHANGED: &str = "it changed while it was read";

/// True if somebody wrote to the file, or removed it, while it was to be read.
pub fn is_in_motion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.get_ref().is_some_and(|inner| inner.to_string() == CHANGED)
}

/// Reads the file that was seen as `node`; `read` is told how many bytes more were read.
///
/// # Errors
/// What the system says, [`is_in_motion`] if it is not what it was, or `Interrupted` after a request to stop.
pub fn hash(
    root: &Root,
    path: &[u8],
    node: &Node,
    from_disk: bool,
    stop: &Stop,
    read: &(dyn Fn(u64) + Sync),
) -> io::Result<blake3::Hash> {
    let changed = || io::Error::other(CHANGED);
    let file = root.open_in(path, OFlags::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(changed());
    }
    if from_disk {
        // The copier left it in memory; what is to be proven is what the disk has. Only advice, so no error.
        let _advice = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    }
    let room = usize::try_from(node.size).map_or(BUFFER_BYTES, |size| size.saturating_add(1).min(BUFFER_BYTES));
    let (mut buffer, mut hasher, mut total) = (vec![0; room], blake3::Hasher::new(), 0);
    loop {
        let bytes = match rustix::io::read(&file, &mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        hasher.update(&buffer[..bytes]);
        total += bytes as u64;
        read(bytes as u64);
        if stop.requested().is_some() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
    }
    if total == node.size { Ok(hasher.finalize()) } else { Err(changed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_or_goes_is_in_motion_and_what_cannot_be_read_is_not() {
        assert!(is_in_motion(&io::Error::other(CHANGED)));
        assert!(is_in_motion(&io::Error::from_raw_os_error(2)));
        for errno in [5, 13, 116] {
            assert!(!is_in_motion(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
