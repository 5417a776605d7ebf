//! The proof for devices: both sides read anew and compared, byte by byte.
//!
//! Not a repair. Called by `agent::verify`. What must stay true: whatever cannot be read makes the verification fail; the
//! digests are blake3 of the bytes, of the target of as many as the source has.

use super::super::Failure;
use super::super::stop::Stop;
use super::device::{Buffer, Device};
use super::{each_chunk, stretches, tree};
use crate::copy::report::{DIFFERENCES_MAX, Difference};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Of the source and of as much of the target, in hex.
    pub digests: [String; 2],
    /// The first stretches that differ, by their place.
    pub differences: Vec<Difference>,
    pub differences_total: u64,
    /// Bytes that were read, both sides counted.
    pub read: u64,
}

#[derive(Default)]
struct Results {
    trees: [tree::Tree; 2],
    differences: Vec<(u64, Difference)>,
    total: u64,
}

/// Reads and compares all bytes of the source with as many of the target.
///
/// # Errors
/// What the system says of reading, with the place.
pub fn run(
    sides: [&Device; 2],
    workers: Option<usize>,
    stop: &Stop,
    look: &mut dyn FnMut(u64),
) -> Result<Found, Failure> {
    let [from, to] = sides.map(Device::size);
    let size = from.min(to);
    let (read, results) = (AtomicU64::new(0), Mutex::new(Results::default()));
    let mut seen = || {
        let bytes = read.load(Ordering::Relaxed);
        look(bytes);
        bytes as f64
    };
    each_chunk(size, workers, stop, &mut seen, &|at, length, room: &mut [Buffer; 2]| {
        for (side, room) in sides.into_iter().zip(&mut *room) {
            side.read(at, length, room)?;
            read.fetch_add(length as u64, Ordering::Relaxed);
        }
        let both = [room[0].bytes(length), room[1].bytes(length)];
        let leaves = both.map(|bytes| tree::leaf(at, bytes, size));
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        for (tree, leaf) in results.trees.iter_mut().zip(leaves) {
            tree.add(at, leaf, size);
        }
        results.add(at, both);
        Ok(())
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if to < from {
        let (path, what) = (".".to_owned(), "size".to_owned());
        results.differ(to, Difference { path, what, source: from.to_string(), target: to.to_string() });
    }
    results.keep_first();
    Ok(Found {
        digests: results.trees.map(|tree| tree.digest().to_hex().to_string()),
        differences: results.differences.into_iter().map(|(_, difference)| difference).collect(),
        differences_total: results.total,
        read: read.into_inner(),
    })
}

impl Results {
    fn add(&mut self, at: u64, [from, to]: [&[u8]; 2]) {
        for (_, range) in stretches(from, Some(to)) {
            let (begin, end) = (at + range.start as u64, at + range.end as u64 - 1);
            let told = |bytes: &[u8]| format!("blake3 {}", &blake3::hash(&bytes[range.clone()]).to_hex()[..16]);
            let (path, what) = (format!("bytes {begin} to {end}"), "content".to_owned());
            self.differ(begin, Difference { path, what, source: told(from), target: told(to) });
        }
    }

    fn differ(&mut self, at: u64, difference: Difference) {
        self.total += 1;
        self.differences.push((at, difference));
        if self.differences.len() > 4 * DIFFERENCES_MAX {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        self.differences.sort_by_key(|(at, _)| *at);
        self.differences.truncate(DIFFERENCES_MAX);
    }
}
