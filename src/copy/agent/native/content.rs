//! The content of one file: the target's made equal to the source's, block by block, holes included.
//!
//! Not its name, owner or times. Called by `file`. What must stay true: a block that is equal is not written, unless it is
//! shared; what is a hole in the source takes no space in the target, as far as its file system has holes, nor does what
//! is read there as zeros; nothing is read of a file that was just made.

use super::share::Sharing;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// What is read at once.
const CHUNK: usize = 256 << 10;

/// What is compared at once: the block of common file systems.
const BLOCK: usize = 4096;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// The memory of one thread.
pub struct Buffers {
    source: Vec<u8>,
    target: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Self {
        Buffers { source: vec![0; CHUNK], target: vec![0; CHUNK] }
    }
}

/// What may be done to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It was just made and is empty.
    Fresh,
    /// What differs is overwritten.
    Update,
    /// Nothing; the first difference is enough.
    Compare,
}

/// Why it ended early.
#[derive(Debug)]
pub enum Fault {
    Source(io::Error),
    Target(io::Error),
    /// The caller said so.
    Stopped,
}

/// Two open files.
pub struct Content<'a> {
    pub source: &'a OwnedFd,
    pub target: &'a OwnedFd,
    /// The source's size in bytes.
    pub size: u64,
    /// How many of its bytes have blocks.
    pub allocated: u64,
    pub sharing: &'a Sharing,
    /// Whose turn it is to write, if several threads make one file. The kernel lets one at a time, too, and those who wait
    /// there turn in circles.
    pub turn: Option<&'a Mutex<()>>,
    pub way: Way,
}

impl Content<'_> {
    /// Makes the target equal, or compares it. True if they differed. `go_on` is told how many more bytes are done, and how
    /// many were read for it.
    /// A source that shrinks meanwhile gives a target as short as it has become.
    ///
    /// # Errors
    /// If one side cannot be read or written, or if `go_on` said no.
    pub fn settle(&self, buffers: &mut Buffers, go_on: &mut dyn FnMut(u64, u64) -> bool) -> Result<bool, Fault> {
        let differed = self.begin()?;
        if differed && self.way == Way::Compare {
            return Ok(true);
        }
        let differed = self.piece(0..self.size, buffers, go_on)? || differed;
        // Zeros at its end were not written, and nothing else gave it its size.
        let size = usize::try_from(self.size).unwrap_or(0);
        if self.way == Way::Fresh && self.is_written_at_once() && buffers.source[..size].last() == Some(&0) {
            self.cut(self.size)?;
        }
        Ok(differed)
    }

    /// Makes the target equal without reading, if the file system can: no block is copied, holes stay holes. Then it is
    /// what the source is now, as far as the size goes. If not, nothing is lost.
    ///
    /// # Errors
    /// If the target cannot be written.
    pub fn share(&self) -> Result<bool, Fault> {
        // An empty one has nothing to share.
        if self.size == 0 || self.way == Way::Compare || !self.sharing.is_hopeful() {
            return Ok(false);
        }
        let is_shared = self.sharing.whole(self.source, self.target);
        if is_shared {
            let held = rustix::fs::fstat(self.target).map_err(|e| Fault::Target(e.into()))?.st_size;
            if u64::try_from(held).is_ok_and(|held| held > self.size) {
                self.cut(self.size)?;
            }
        } else if self.way == Way::Fresh {
            // It may have come to share some blocks before it failed, and is to be empty.
            self.cut(0)?;
        }
        Ok(is_shared)
    }

    /// Gives the target its size, so that its pieces can be made in any order. True if it had another one.
    ///
    /// # Errors
    /// As [`Content::settle`].
    pub fn begin(&self) -> Result<bool, Fault> {
        let held = match self.way {
            Way::Fresh => 0,
            Way::Update | Way::Compare => rustix::fs::fstat(self.target).map_err(|e| Fault::Target(e.into()))?.st_size,
        };
        let differs = u64::try_from(held) != Ok(self.size);
        // What is written in one piece grows by that.
        if differs && self.way != Way::Compare && !(self.way == Way::Fresh && self.is_written_at_once()) {
            self.cut(self.size)?;
        }
        Ok(differs)
    }

    /// True if it has as many blocks as it needs: then nobody is asked for holes, which takes a file system in memory as long
    /// as all that follows is. What are holes nevertheless, with blocks elsewhere, is read as zeros.
    fn is_dense(&self) -> bool {
        self.allocated >= self.size
    }

    /// True if one write makes all of it.
    fn is_written_at_once(&self) -> bool {
        self.size <= CHUNK as u64 && self.is_dense()
    }

    /// The same for a part of the file, whatever becomes of the others meanwhile.
    ///
    /// # Errors
    /// As [`Content::settle`].
    pub fn piece(
        &self,
        part: Range<u64>,
        buffers: &mut Buffers,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool, Fault> {
        let (mut at, mut differed) = (part.start, false);
        while at < part.end && !(differed && self.way == Way::Compare) {
            let (is_data, range) =
                if self.is_dense() { (true, at..part.end) } else { next_range(self.source, at..part.end) };
            at = range.end;
            if is_data {
                let whole = self.data(range, buffers, &mut differed, go_on)?;
                if !whole {
                    return Ok(true);
                }
            } else {
                self.hole(range, buffers, &mut differed, go_on)?;
            }
        }
        Ok(differed)
    }

    /// False if the source ended before the range did.
    fn data(
        &self,
        range: Range<u64>,
        buffers: &mut Buffers,
        differed: &mut bool,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool, Fault> {
        let mut at = range.start;
        while at < range.end {
            let copied =
                if self.way == Way::Fresh { self.sharing.part(self.source, self.target, &(at..range.end)) } else { 0 };
            if copied > 0 {
                *differed = true;
                at += copied;
                // Its server may have read as much.
                if !go_on(copied, copied) {
                    return Err(Fault::Stopped);
                }
                continue;
            }
            let wanted = length(at..range.end);
            let got = read(self.source, &mut buffers.source[..wanted], at).map_err(Fault::Source)?;
            let held: &[u8] = match self.way {
                Way::Fresh => &ZEROS[..got],
                Way::Update | Way::Compare => {
                    let held = read(self.target, &mut buffers.target[..got], at).map_err(Fault::Target)?;
                    buffers.target[held..got].fill(0);
                    &buffers.target[..got]
                }
            };
            *differed |= self.write(&buffers.source[..got], held, at)?;
            at += got as u64;
            if got < wanted {
                if self.way != Way::Compare {
                    self.cut(at)?;
                }
                return Ok(false);
            }
            if !go_on(got as u64, got as u64) {
                return Err(Fault::Stopped);
            }
            if *differed && self.way == Way::Compare {
                break;
            }
        }
        Ok(true)
    }

    /// The target's data within a hole of the source becomes a hole, if it is not zeros anyway.
    fn hole(
        &self,
        range: Range<u64>,
        buffers: &mut Buffers,
        differed: &mut bool,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(), Fault> {
        let (bytes, mut at) = (range.end - range.start, range.start);
        while self.way != Way::Fresh && at < range.end {
            let (is_data, held) = next_range(self.target, at..range.end);
            at = held.end;
            let mut here = held.start;
            while is_data && here < held.end {
                let wanted = length(here..held.end);
                let got = read(self.target, &mut buffers.target[..wanted], here).map_err(Fault::Target)?;
                *differed |= self.write(&ZEROS[..got], &buffers.target[..got], here)?;
                if got < wanted {
                    break;
                }
                here += got as u64;
                if !go_on(0, got as u64) {
                    return Err(Fault::Stopped);
                }
            }
        }
        if go_on(bytes, 0) { Ok(()) } else { Err(Fault::Stopped) }
    }

    /// Writes the blocks that differ; true if there are any.
    fn write(&self, wanted: &[u8], held: &[u8], at: u64) -> Result<bool, Fault> {
        if wanted == held {
            return Ok(false);
        }
        if self.way == Way::Compare {
            return Ok(true);
        }
        let _turn = self.turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let block = |n: usize| n * BLOCK..((n + 1) * BLOCK).min(wanted.len());
        let state = |n: usize| match (&wanted[block(n)], &held[block(n)]) {
            (wanted, held) if wanted == held => State::Same,
            (wanted, _) if *wanted == ZEROS[..wanted.len()] => State::Zeros,
            _ => State::Data,
        };
        let (mut from, blocks) = (0, wanted.len().div_ceil(BLOCK));
        while from < blocks {
            let now = state(from);
            let to = (from + 1..blocks).find(|n| state(*n) != now).unwrap_or(blocks);
            let (start, end) = (block(from).start, block(to - 1).end);
            let offset = at + start as u64;
            match now {
                State::Same => {}
                State::Zeros if punch(self.target, offset, (end - start) as u64) => {}
                State::Zeros | State::Data => {
                    write(self.target, &wanted[start..end], offset).map_err(Fault::Target)?;
                }
            }
            from = to;
        }
        Ok(true)
    }

    fn cut(&self, size: u64) -> Result<(), Fault> {
        rustix::fs::ftruncate(self.target, size).map_err(|e| Fault::Target(e.into()))
    }
}

/// What is to be done about a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Same,
    Zeros,
    Data,
}

fn length(range: Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(CHUNK).min(CHUNK)
}

/// What begins at the start of `within`: true and the data up to the next hole, or false and the hole. A file system
/// that does not tell has data everywhere.
fn next_range(file: &OwnedFd, within: Range<u64>) -> (bool, Range<u64>) {
    let Range { start, end } = within;
    match rustix::fs::seek(file, SeekFrom::Data(start)) {
        Ok(data) if data > start => (false, start..data.min(end)),
        Ok(_) => {
            let hole = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(end);
            // At the start there is data: a hole there was made just now.
            (true, start..if hole > start { hole.min(end) } else { end })
        }
        Err(Errno::NXIO) => (false, start..end),
        Err(_) => (true, start..end),
    }
}

/// Fills the buffer as far as the file goes.
fn read(file: &OwnedFd, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match rustix::io::pread(file, &mut buffer[got..], at + got as u64) {
            Ok(0) => break,
            Ok(bytes) => got += bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(got)
}

fn write(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(wrote) => {
                bytes = &bytes[wrote..];
                at += wrote as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Not every file system can: then zeros are written.
fn punch(file: &OwnedFd, at: u64, bytes: u64) -> bool {
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::super::tree::Root;
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn settle(source: &File, target: &File, way: Way) -> bool {
        settle_by(&Sharing::only(false), source, target, way)
    }

    fn settle_by(sharing: &Sharing, source: &File, target: &File, way: Way) -> bool {
        let [from, to] = [source, target].map(|file| OwnedFd::from(file.try_clone().unwrap()));
        let size = source.metadata().unwrap().len();
        let allocated = source.metadata().unwrap().blocks() * 512;
        let content = Content { source: &from, target: &to, size, allocated, sharing, turn: None, way };
        let mut seen = 0;
        let differed = content.settle(&mut Buffers::new(), &mut |bytes, _| {
            seen += bytes;
            true
        });
        let differed = differed.unwrap();
        assert!(seen == size || (way == Way::Compare && differed), "{seen} of {size} bytes were told of");
        differed
    }

    /// A file made of pieces: letters are data, `.` a hole; `0` is zeros that are written.
    fn made(dir: &tempfile::TempDir, name: &str, pieces: &str, tail: &[u8]) -> File {
        // Three to a chunk and a bit.
        const PIECE: usize = 80 << 10;
        let path = dir.path().join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len((pieces.len() * PIECE) as u64).unwrap();
        for (n, piece) in pieces.bytes().enumerate().filter(|(_, piece)| *piece != b'.') {
            let byte = if piece == b'0' { 0 } else { piece };
            file.write_all_at(&vec![byte; PIECE], (n * PIECE) as u64).unwrap();
        }
        file.write_all_at(tail, (pieces.len() * PIECE) as u64).unwrap();
        file
    }

    #[test]
    fn any_file_becomes_any_other_and_takes_no_more_space() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let all =
            ["", "a", "ab", "abcdefghij", ".", "a.", ".a", "a..b", "....", "abcd....efgh", "0", "a0b", "....0..."];
        for from in all {
            for to in all {
                for tail in [&b""[..], b"end"] {
                    let (source, target) = (made(&dir, "source", from, tail), made(&dir, "target", to, b"tail"));
                    let path = |name: &str| dir.path().join(name);
                    let equal = fs::read(path("source")).unwrap() == fs::read(path("target")).unwrap();
                    assert_eq!(settle(&source, &target, Way::Compare), !equal, "{from} {to}");
                    assert_eq!(settle(&source, &target, Way::Update), !equal, "{from} {to}");
                    assert!(fs::read(path("source")).unwrap() == fs::read(path("target")).unwrap(), "{from} {to}");
                    assert!(!settle(&source, &target, Way::Compare));
                    let fresh = made(&dir, "fresh", "", b"");
                    settle(&source, &fresh, Way::Fresh);
                    assert!(fs::read(path("source")).unwrap() == fs::read(path("fresh")).unwrap(), "{from}");
                    let blocks = |file: &File| file.metadata().unwrap().blocks();
                    assert!(blocks(&fresh) <= blocks(&source), "{from}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_gets_its_holes_again_gives_its_space_back() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (made(&dir, "source", "a......b", b""), made(&dir, "target", "abcdefgh", b""));
        assert!(settle(&source, &target, Way::Update));
        assert_eq!(target.metadata().unwrap().blocks() * 512, 160 << 10);
    }

    /// Blocks beyond its end count as well.
    #[test]
    fn holes_of_a_file_that_seems_to_have_none_are_holes_again() {
        let dir = tempfile::tempdir().unwrap();
        for (pieces, to) in [("a......b", ""), ("a......b", "abcdefgh"), ("........", ""), (".abcdef.", "abcdefgh")] {
            let (source, target) = (made(&dir, "source", pieces, b""), made(&dir, "target", to, b""));
            let blocks = source.metadata().unwrap().blocks();
            let [from, to] = [&source, &target].map(|file| OwnedFd::from(file.try_clone().unwrap()));
            let (size, sharing) = (source.metadata().unwrap().len(), &Sharing::only(false));
            let way = if target.metadata().unwrap().len() == 0 { Way::Fresh } else { Way::Update };
            let content = Content { source: &from, target: &to, size, allocated: size, sharing, turn: None, way };
            assert!(content.settle(&mut Buffers::new(), &mut |_, _| true).unwrap(), "{pieces}");
            let content = |name: &str| fs::read(dir.path().join(name)).unwrap();
            assert!(content("source") == content("target"), "{pieces}");
            assert!(target.metadata().unwrap().blocks() <= blocks, "{pieces}");
        }
    }

    #[test]
    fn equal_blocks_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (made(&dir, "source", "ab", b""), made(&dir, "target", "ab", b""));
        let before = target.metadata().unwrap();
        assert!(!settle(&source, &target, Way::Update));
        let after = target.metadata().unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    }

    #[test]
    fn a_source_that_shrinks_meanwhile_gives_a_short_target() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (made(&dir, "source", "ab", b""), made(&dir, "target", "", b""));
        let [from, to] = [&source, &target].map(|file| OwnedFd::from(file.try_clone().unwrap()));
        source.set_len(70_000).unwrap();
        let (allocated, sharing) = (160 << 10, &Sharing::only(false));
        let [from, to] = [&from, &to];
        let content =
            Content { source: from, target: to, size: 160 << 10, allocated, sharing, turn: None, way: Way::Fresh };
        assert!(content.settle(&mut Buffers::new(), &mut |_, _| true).unwrap());
        // What follows the end is a hole to the kernel: whoever asks for the size afterwards sees that it changed.
        assert!(target.metadata().unwrap().len() >= 70_000);
        let stopped = Content { size: 70_000, way: Way::Update, ..content };
        assert!(matches!(stopped.settle(&mut Buffers::new(), &mut |_, _| false), Err(Fault::Stopped)));
    }

    #[test]
    fn parts_that_the_kernel_copies_are_what_they_would_be() {
        let dir = tempfile::tempdir().unwrap();
        let sharing = Sharing::only(true);
        for pieces in
            ["abcdefghijklmnop", "abcdefghijklmnop......abcdefghijklmnopabcdefghijklmnop", "..abcdefghijklmnopq"]
        {
            let (source, fresh) = (made(&dir, "source", pieces, b"end"), made(&dir, "fresh", "", b""));
            assert!(settle_by(&sharing, &source, &fresh, Way::Fresh));
            let content = |name: &str| fs::read(dir.path().join(name)).unwrap();
            assert!(content("source") == content("fresh"), "{pieces}");
            assert!(fresh.metadata().unwrap().blocks() <= source.metadata().unwrap().blocks(), "{pieces}");
        }
        // A source that ends early.
        let (source, fresh) = (made(&dir, "source", "abcdefghijklmnopqrstuvwxyz", b""), made(&dir, "fresh", "", b""));
        let [from, to] = [&source, &fresh].map(|file| OwnedFd::from(file.try_clone().unwrap()));
        let (size, allocated) = (26 * (80 << 10), 26 * (80 << 10));
        let content =
            Content { source: &from, target: &to, size, allocated, sharing: &sharing, turn: None, way: Way::Fresh };
        let mut told = 0;
        let settled = content.settle(&mut Buffers::new(), &mut |bytes, _| {
            source.set_len(1_500_000).unwrap();
            told += bytes;
            true
        });
        assert!(settled.unwrap() && told <= size);
        assert!(
            fs::read(dir.path().join("fresh")).unwrap()[..1_500_000] == fs::read(dir.path().join("source")).unwrap()
        );
    }

    #[test]
    fn what_was_shared_before_a_refusal_is_not_there_afterwards() {
        let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
        let (source, target) = (made(&memory, "source", "ab", b""), made(&memory, "target", "x", b""));
        let [from, to] = [&source, &target].map(|file| OwnedFd::from(file.try_clone().unwrap()));
        let root = Root::open(memory.path()).unwrap();
        let (size, allocated, sharing) = (160 << 10, 160 << 10, Sharing::between(&root, &root));
        let content =
            Content { source: &from, target: &to, size, allocated, sharing: &sharing, turn: None, way: Way::Fresh };
        assert!(!content.share().unwrap() && !sharing.is_hopeful());
        assert_eq!(target.metadata().unwrap().len(), 0);
        assert!(content.settle(&mut Buffers::new(), &mut |_, _| true).unwrap());
        assert!(fs::read(memory.path().join("source")).unwrap() == fs::read(memory.path().join("target")).unwrap());
    }
}
