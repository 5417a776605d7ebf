//! One side: a block device, or a file in its place.
//!
//! Not a cache: reading and writing go past the kernel's, so that what another node wrote is seen, and what is verified
//! is what the disk has. Where that is refused (files of some file systems, an odd end) the cache is dropped before reading.
//! What must stay true: a short read is an error; a refusal of the fast way is followed by the slow one, never by less.

use super::super::Failure;
use super::ZEROS;
use crate::copy::report::FailKind;
use rustix::fs::{Advice, FallocateFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What every disk can be read and written by; their own sectors divide it.
const SECTOR: usize = 4096;

pub struct Device {
    path: PathBuf,
    /// Past the cache, if that is possible.
    direct: Option<File>,
    plain: File,
    size: u64,
    stat: Stat,
    /// It refuses to make zeros by itself.
    writes_zeros: AtomicBool,
}

/// Memory that a disk can be read into without a copy in between.
pub struct Buffer {
    memory: Vec<u8>,
    offset: usize,
    room: usize,
}

impl Buffer {
    /// `room` is rounded up to whole sectors.
    pub fn new(room: usize) -> Buffer {
        let room = room.next_multiple_of(SECTOR);
        let memory = vec![0; room + SECTOR];
        let offset = memory.as_ptr().align_offset(SECTOR);
        Buffer { memory, offset, room }
    }

    /// The first `length` bytes.
    pub fn bytes(&self, length: usize) -> &[u8] {
        &self.memory[self.offset..self.offset + length]
    }

    fn room(&mut self, length: usize) -> &mut [u8] {
        let room = length.next_multiple_of(SECTOR).min(self.room);
        &mut self.memory[self.offset..self.offset + room]
    }
}

impl Device {
    /// Opens it. A device that is written to must not be in use: mounted, part of another, or opened so by another copier.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, write: bool) -> Result<Device, Failure> {
        let fault = |error: io::Error| match rustix::io::Errno::from_io_error(&error) {
            Some(Errno::BUSY) => {
                let meaning = format!("{} is in use: it is mounted, or somebody else writes to it", path.display());
                Failure { kind: FailKind::Other, meaning, retryable: true }
            }
            _ => Failure::system(path.display(), &error),
        };
        let open = |flags: OFlags| {
            let flags = i32::try_from(flags.bits()).expect("flags of open are small");
            OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
        };
        let is_disk =
            rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice);
        // One descriptor holds it; the other one is of the same holder.
        let mut plain = open(if write && is_disk { OFlags::EXCL } else { OFlags::empty() }).map_err(fault)?;
        let direct = open(OFlags::DIRECT).ok();
        let size = plain.seek(SeekFrom::End(0)).map_err(fault)?;
        let stat = rustix::fs::fstat(&plain).map_err(|error| fault(error.into()))?;
        Ok(Device { path: path.to_owned(), direct, plain, size, stat, writes_zeros: AtomicBool::new(false) })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// True if they are one, whatever their paths.
    pub fn is(&self, other: &Device) -> bool {
        let is_disk = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        if is_disk(&self.stat) && is_disk(&other.stat) {
            return self.stat.st_rdev == other.stat.st_rdev;
        }
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    /// Writes what the system may still hold of others' writes, so that it is read.
    ///
    /// # Errors
    /// What the system says.
    pub fn flush(&self) -> Result<(), Failure> {
        self.plain.sync_all().map_err(|error| Failure::system(format!("flushing {}", self.path.display()), &error))
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// What the system says, and `UnexpectedEof` if they are not there.
    pub fn read(&self, at: u64, length: usize, buffer: &mut Buffer) -> Result<(), Failure> {
        let read = match self.direct.as_ref().map(|direct| read_direct(direct, at, length, buffer)) {
            Some(Ok(true)) => Ok(()),
            Some(Err(error)) => Err(error),
            None | Some(Ok(false)) => {
                // Only advice: what is dirty is not dropped, and is the newest.
                let _advice = rustix::fs::fadvise(&self.plain, at, NonZeroU64::new(length as u64), Advice::DontNeed);
                self.plain.read_exact_at(&mut buffer.room(length)[..length], at)
            }
        };
        read.map_err(|error| self.fault("reading", at, &error))
    }

    /// Writes so many bytes of the buffer, from its `offset` on.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self.direct.as_ref().map(|direct| direct.write_all_at(bytes, at)) {
            Some(Err(error)) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => None,
            other => other,
        };
        let written = written.unwrap_or_else(|| self.plain.write_all_at(bytes, at));
        written.map_err(|error| self.fault("writing", at, &error))
    }

    /// Makes zeros, which a thin device need not store.
    ///
    /// # Errors
    /// What the system says.
    pub fn zero(&self, at: u64, length: u64) -> Result<(), Failure> {
        if !self.writes_zeros.load(Ordering::Relaxed) {
            for way in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
                match rustix::fs::fallocate(&self.plain, way | FallocateFlags::KEEP_SIZE, at, length) {
                    Ok(()) => return Ok(()),
                    Err(error @ (Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::NODEV)) => {
                        return Err(self.fault("making zeros", at, &error.into()));
                    }
                    // It cannot, or not there.
                    Err(_) => {}
                }
            }
            self.writes_zeros.store(true, Ordering::Relaxed);
        }
        let zeros = Buffer::new(ZEROS.len());
        let mut done = 0;
        while done < length {
            let step = (length - done).min(ZEROS.len() as u64);
            self.write(at + done, zeros.bytes(usize::try_from(step).expect("a block fits")))?;
            done += step;
        }
        Ok(())
    }

    fn fault(&self, doing: &str, at: u64, error: &io::Error) -> Failure {
        Failure::system(format!("{doing} {} at byte {at}", self.path.display()), error)
    }
}

/// False if it cannot be read so.
fn read_direct(direct: &File, at: u64, length: usize, buffer: &mut Buffer) -> io::Result<bool> {
    let mut done = 0;
    while done < length {
        match direct.read_at(&mut buffer.room(length)[done..], at + done as u64) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_at_any_odd_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let size = 3 * 65_536 + 513;
        File::create(&path).unwrap().set_len(size).unwrap();
        let device = Device::open(&path, true).unwrap();
        assert_eq!(device.size(), size);
        let mut buffer = Buffer::new(65_536);
        buffer.room(65_536).fill(7);
        for at in [0, 65_536, 131_072] {
            device.write(at, buffer.bytes(65_536)).unwrap();
        }
        device.write(196_608, buffer.bytes(513)).unwrap();
        device.zero(65_536, 65_536).unwrap();
        device.zero(196_608 + 500, 13).unwrap();
        device.flush().unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len() as u64, size);
        let is_zero = |at: usize| (65_536..131_072).contains(&at) || at >= 196_608 + 500;
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == if is_zero(at) { 0 } else { 7 }));
        device.read(196_608, 513, &mut buffer).unwrap();
        assert_eq!(buffer.bytes(513), &content[196_608..]);
        let beyond = device.read(196_608, 600, &mut buffer).unwrap_err();
        assert!(beyond.meaning.contains("at byte 196608"), "{beyond}");
    }
}
