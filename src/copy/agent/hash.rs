//! The content of many files, read by a few threads.
//!
//! Not a comparison. Called by `verify` with a batch of entries. What must stay true: only regular files are read, no
//! link is followed, and a file that changes its length while it is read is an error, not a digest.

use super::entry::{Content, Entry};
use super::stop::Stop;
use super::tree::Root;
use rustix::fs::{Advice, FileType, OFlags};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// Large enough for blake3 to use the widest instructions, and for a network file system to read ahead.
const BUFFER_BYTES: usize = 1 << 20;

const TARGET: usize = 1;

pub struct Work<'a> {
    pub roots: [&'a Root; 2],
    /// At least one is used.
    pub threads: usize,
    pub stop: &'a Stop,
}

/// What a reader tells.
enum Told {
    Bytes(u64),
    Done { entry: usize, side: usize, content: Content },
}

const CHANGED: &str = "it changed while it was read";

/// True if somebody wrote to the file, or removed it, while it was to be read.
pub fn is_in_motion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.get_ref().is_some_and(|inner| inner.to_string() == CHANGED)
}

impl Work<'_> {
    /// Replaces every [`Content::Wanted`]; `read` is told how many bytes more were read. After a request to stop
    /// the rest stays wanted.
    pub fn hash_all(&self, batch: &mut [Entry], read: &mut dyn FnMut(u64)) {
        let wanted = |entry: &Entry, side: usize| matches!(entry.contents[side], Content::Wanted);
        let jobs: Vec<(usize, usize)> =
            (0..batch.len()).flat_map(|n| [(n, 0), (n, 1)]).filter(|(n, side)| wanted(&batch[*n], *side)).collect();
        let mut done = Vec::with_capacity(jobs.len());
        let (next, shared) = (AtomicUsize::new(0), &*batch);
        std::thread::scope(|threads| {
            let (tell, told) = channel();
            for _ in 0..self.threads.clamp(1, jobs.len().max(1)) {
                let (tell, next, jobs) = (tell.clone(), &next, &jobs);
                threads.spawn(move || {
                    let mut buffer = vec![0; BUFFER_BYTES];
                    while let Some(&(entry, side)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if self.stop.requested().is_some() {
                            break;
                        }
                        let content = match self.hash(&shared[entry], side, &mut buffer, &tell) {
                            Ok((digest, bytes)) => Content::Hash { digest, bytes },
                            Err(error) => Content::Failed(error),
                        };
                        // The receiver lives as long as this scope.
                        tell.send(Told::Done { entry, side, content }).ok();
                    }
                });
            }
            drop(tell);
            for message in told {
                match message {
                    Told::Bytes(bytes) => read(bytes),
                    Told::Done { entry, side, content } => done.push((entry, side, content)),
                }
            }
        });
        for (entry, side, content) in done {
            batch[entry].contents[side] = content;
        }
    }

    fn hash(
        &self,
        entry: &Entry,
        side: usize,
        buffer: &mut [u8],
        tell: &Sender<Told>,
    ) -> io::Result<(blake3::Hash, u64)> {
        let changed = || io::Error::other(CHANGED);
        let file = self.roots[side].open_in(&entry.path, OFlags::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(changed());
        }
        if side == TARGET {
            // The copier left it in memory; what is to be proven is what the disk has. Only advice, so no error.
            let _advice = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
        let mut hasher = blake3::Hasher::new();
        let mut total = 0;
        loop {
            let bytes = match rustix::io::read(&file, &mut *buffer) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            hasher.update(&buffer[..bytes]);
            total += bytes as u64;
            tell.send(Told::Bytes(bytes as u64)).ok();
            if self.stop.requested().is_some() {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
        }
        match entry.nodes[side].as_ref().map(|node| node.size) {
            Some(size) if size == total => Ok((hasher.finalize(), total)),
            _ => Err(changed()),
        }
    }
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
