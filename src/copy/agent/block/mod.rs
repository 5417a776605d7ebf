//! Volumes without a file system: two block devices, or files that stand for them, made equal byte by byte.
//!
//! Not a file system's copy: there are no names, no metadata and no times, so nothing is ever taken for unchanged that was
//! not read. A pass after a good one reads both sides and writes what differs. Called by `copy` and `verify`.
//! What must stay true: the source is opened for reading only; bytes are read past the page cache, where what another
//! node wrote is not seen; a zero is left unwritten only where a zero was read.

pub mod copy;
mod device;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test says what this machine cannot do")]
mod torture;
mod tree;
pub mod verify;

pub use device::Device;

use super::Failure;
use super::crew::{self, Crew};
use super::stop::Stop;
use super::tune::{MOST, Tuner};
use crate::copy::report::FailKind;
use device::Buffer;
use rustix::fs::FileType;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

pub const NAME: &str = "block";

/// What is read at once, by each thread.
const CHUNK: u64 = 1 << 20;
/// What is compared, and written, at once.
const BLOCK: usize = 64 << 10;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Who may write to the second device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Copy,
    Verify,
}

/// Opens both if one of them is no directory; None if both are directories, or not there.
///
/// # Errors
/// Kind `usage` if they do not fit together, `target_too_small`, or what the system says.
pub fn open_both(source: &Path, target: &Path, access: Access) -> Result<Option<(Device, Device)>, Failure> {
    let kinds = [source, target].map(|path| {
        let kind = std::fs::metadata(path).ok()?.file_type();
        Some((FileType::from_raw_mode(rustix::fs::stat(path).ok()?.st_mode), kind.is_dir()))
    });
    let [Some((_, source_is_dir)), Some((_, target_is_dir))] = kinds else { return Ok(None) };
    if source_is_dir && target_is_dir {
        return Ok(None);
    }
    let usage = |meaning: String| Failure::new(FailKind::Usage, meaning);
    if source_is_dir != target_is_dir {
        let (dir, other) = if source_is_dir { (source, target) } else { (target, source) };
        let (dir, other) = (dir.display(), other.display());
        return Err(usage(format!("{dir} is a directory and {other} is none: both are directories, or both devices")));
    }
    for (path, kind) in [source, target].into_iter().zip(kinds) {
        if !matches!(kind, Some((FileType::BlockDevice | FileType::RegularFile, _))) {
            return Err(usage(format!("{} is neither a directory nor a block device nor a file", path.display())));
        }
    }
    let from = Device::open(source, false)?;
    let to = Device::open(target, access == Access::Copy)?;
    if from.is(&to) {
        let (source, target) = (source.display(), target.display());
        return Err(usage(format!("{source} and {target} are the same device")));
    }
    if access == Access::Copy && to.size() < from.size() {
        let meaning = format!("the target has {} bytes, the source {}: nothing was touched", to.size(), from.size());
        return Err(Failure::new(FailKind::TargetTooSmall, meaning));
    }
    Ok(Some((from, to)))
}

/// What is done to a chunk: from where, how many bytes, room for both sides.
type Work<'a> = dyn Fn(u64, usize, &mut [Buffer; 2]) -> Result<(), Failure> + Sync + 'a;

enum Task {
    Begin,
    Next,
}

/// Does something to every chunk, nearly in order, by as many threads as make it faster; each has room for both sides.
/// `look` says how far it is, in any unit.
///
/// # Errors
/// The first of `work`, after which no other chunk is begun; or that a signal ended it.
fn each_chunk(
    size: u64,
    workers: Option<usize>,
    stop: &Stop,
    look: &mut dyn FnMut() -> f64,
    work: &Work<'_>,
) -> Result<(), Failure> {
    let (next, is_over, failure) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(None));
    let room = || [Buffer::new(CHUNK as usize), Buffer::new(CHUNK as usize)];
    let one = |crew: &Crew<Task>, room: &mut [Buffer; 2], task| match task {
        // So many may be at it at once; each takes the next chunk when it is done with one.
        Task::Begin => (0..MOST).for_each(|_| crew.later(Task::Next)),
        Task::Next => {
            if is_over.load(Ordering::Relaxed) || stop.requested().is_some() {
                return;
            }
            let at = next.fetch_add(CHUNK, Ordering::Relaxed);
            if at >= size {
                return;
            }
            let length = usize::try_from(CHUNK.min(size - at)).expect("a chunk fits into memory");
            match work(at, length, room) {
                Ok(()) => crew.later(Task::Next),
                Err(fault) => {
                    is_over.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                }
            }
        }
    };
    crew::run(Task::Begin, &mut Tuner::new(workers), room, one, look);
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => stop.requested().map_or(Ok(()), |signal| Err(Failure::interrupted(signal))),
    }
}

/// What a stretch of the target must become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Data,
    Zeros,
}

/// The stretches of a chunk in which the target, if it is known, is not as the source; whole blocks, from the front.
fn stretches(source: &[u8], target: Option<&[u8]>) -> Vec<(Want, Range<usize>)> {
    let mut found: Vec<(Want, Range<usize>)> = Vec::new();
    for (number, block) in source.chunks(BLOCK).enumerate() {
        let (from, to) = (number * BLOCK, number * BLOCK + block.len());
        if target.is_some_and(|target| target[from..to] == *block) {
            continue;
        }
        let want = if is_zero(block) { Want::Zeros } else { Want::Data };
        match found.last_mut() {
            Some((last, range)) if *last == want && range.end == from => range.end = to,
            _ => found.push((want, from..to)),
        }
    }
    found
}

fn is_zero(block: &[u8]) -> bool {
    block == &ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_what_differs_and_what_it_must_become() {
        let mut source = vec![7; 5 * BLOCK + 100];
        source[BLOCK..3 * BLOCK].fill(0);
        let mut target = source.clone();
        let at = |block: usize| block * BLOCK;
        let end = source.len();
        // Of a target of which nothing is known everything is written.
        let all = [(Want::Data, 0..at(1)), (Want::Zeros, at(1)..at(3)), (Want::Data, at(3)..end)];
        assert_eq!(stretches(&source, None), all);
        assert_eq!(stretches(&source, Some(&target)), []);
        (target[at(2)], target[end - 1], target[5]) = (1, 1, 1);
        let some = [(Want::Data, 0..at(1)), (Want::Zeros, at(2)..at(3)), (Want::Data, at(5)..end)];
        assert_eq!(stretches(&source, Some(&target)), some);
    }

    #[test]
    fn two_devices_must_be_two_and_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("dir")).unwrap();
        for (name, size) in [("small", 4096), ("large", 8192), ("same", 8192)] {
            std::fs::File::create(path(name)).unwrap().set_len(size).unwrap();
        }
        std::fs::hard_link(path("large"), path("again")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let kind = |source: &str, target: &str, access| match open_both(&path(source), &path(target), access) {
            Ok(found) => Ok(found.is_some()),
            Err(failure) => Err(failure.kind),
        };
        for (source, target, copy, verify) in [
            ("dir", "dir", Ok(false), Ok(false)),
            ("absent", "large", Ok(false), Ok(false)),
            ("small", "large", Ok(true), Ok(true)),
            ("large", "same", Ok(true), Ok(true)),
            ("large", "small", Err(FailKind::TargetTooSmall), Ok(true)),
            ("large", "again", Err(FailKind::Usage), Err(FailKind::Usage)),
            ("large", "dir", Err(FailKind::Usage), Err(FailKind::Usage)),
            ("dir", "large", Err(FailKind::Usage), Err(FailKind::Usage)),
            ("fifo", "large", Err(FailKind::Usage), Err(FailKind::Usage)),
        ] {
            assert_eq!(kind(source, target, Access::Copy), copy, "{source} {target}");
            assert_eq!(kind(source, target, Access::Verify), verify, "{source} {target}");
        }
    }
}
