//! A file's pages, stored to through memory: a writer whose stores move no size and no mtime.
//!
//! Not for copying. Called by `exercise` only, which plays the application. What must stay true: the file is never
//! shorter than the mapping; the mapping lives exactly as long as this value.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ptr::NonNull;

/// The length of the file and of the mapping in bytes: one page of every machine we run on.
pub const BYTES: usize = 4096;

/// Where the number is stored: the first and the last word of the page and two between.
pub const OFFSETS: [usize; 4] = [0, 1024, 3000, BYTES - 8];

/// A shared, writable mapping of the first [`BYTES`] of a file.
pub struct Pages(NonNull<u8>);

impl Pages {
    /// # Errors
    /// If the file is shorter than [`BYTES`], or the file system cannot map it for writing.
    #[expect(unsafe_code, reason = "there is no safe way to store through mmap, and that is what is exercised")]
    pub fn map(file: &File) -> io::Result<Pages> {
        if file.metadata()?.len() < BYTES as u64 {
            return Err(io::Error::other("the file is shorter than its mapping"));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)?
        };
        NonNull::new(start.cast()).map(Pages).ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    /// Stores the number at every offset, in order, without msync.
    #[expect(unsafe_code, reason = "a volatile store is the only one that the compiler may not delay or merge")]
    pub fn store(&mut self, number: u64) {
        for offset in OFFSETS {
            // SAFETY: every offset is at least 8 bytes before the end of the mapping, which lives as long as `self`
            // and to which nobody in this process has another reference.
            unsafe { self.0.as_ptr().add(offset).cast::<[u8; 8]>().write_volatile(number.to_le_bytes()) }
        }
    }
}

impl Drop for Pages {
    #[expect(unsafe_code, reason = "the counterpart of mmap")]
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `map` made, and no reference into it was ever handed out.
        let _unmapped = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

/// The numbers at the offsets of a file's content.
pub fn numbers(content: &[u8]) -> Option<[u64; 4]> {
    let mut numbers = [0; 4];
    for (number, offset) in numbers.iter_mut().zip(OFFSETS) {
        *number = u64::from_le_bytes(content.get(offset..offset + 8)?.try_into().ok()?);
    }
    Some(numbers)
}
