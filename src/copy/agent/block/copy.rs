//! One pass over a device.
//!
//! Not a proof: that is `verify`, in another process. Called by `agent::copy`. What must stay true: nothing is written if the
//! source holds nothing but zeros and the target does not, unless that is meant; a failure ends the pass as failed.

use super::super::Failure;
use super::super::native::SUDDENLY_EMPTY;
use super::super::pace::Pace;
use super::super::rsync::Transfer;
use super::super::stop::Stop;
use super::device::{Buffer, Device};
use super::{BLOCK, Want, each_chunk, is_zero, stretches};
use crate::copy::report::FailKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a pass is.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub source: &'a Device,
    pub target: &'a Device,
    /// Most of the target is as it should be: it is read, and only what differs is written.
    pub compare: bool,
    pub allow_empty: bool,
    pub workers: Option<usize>,
    /// Bytes per second at most.
    pub bandwidth: Option<u64>,
}

struct Pass<'a> {
    job: Job<'a>,
    stop: &'a Stop,
    pace: Pace,
    read: AtomicU64,
    written: AtomicU64,
    /// A chunk could not be made: nobody waits for his turn any more.
    failed: AtomicBool,
    /// The source has more than zeros.
    holds_data: AtomicBool,
    /// Zeros that the target must get, kept back until that is known.
    held_back: Mutex<Vec<(u64, u64)>>,
}

/// Makes the pass and returns how many bytes of the target were changed; zeros count.
///
/// # Errors
/// What the system says of reading or writing, with the place; or that the source is suddenly empty.
pub fn run(job: Job<'_>, stop: &Stop, look: &mut dyn FnMut(Transfer)) -> Result<u64, Failure> {
    let pass = Pass {
        job,
        stop,
        pace: Pace::new(job.bandwidth),
        read: AtomicU64::new(0),
        written: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        holds_data: AtomicBool::new(false),
        held_back: Mutex::default(),
    };
    let mut seen = || {
        let bytes = pass.read.load(Ordering::Relaxed);
        look(Transfer { bytes, entries: None });
        bytes as f64
    };
    each_chunk(job.source.size(), job.workers, stop, &mut seen, &|at, length, room| {
        pass.chunk(at, length, room).inspect_err(|_| pass.failed.store(true, Ordering::Relaxed))
    })?;
    pass.release()?;
    Ok(pass.written.load(Ordering::Relaxed))
}

impl Pass<'_> {
    fn chunk(&self, at: u64, length: usize, [from, to]: &mut [Buffer; 2]) -> Result<(), Failure> {
        let Job { source, target, compare, .. } = self.job;
        self.pace.pay(length as u64, self.stop, &|| self.failed.load(Ordering::Relaxed));
        source.read(at, length, from)?;
        let wanted = from.bytes(length);
        let zeros = wanted.chunks(BLOCK).filter(|block| is_zero(block)).count();
        if zeros < wanted.chunks(BLOCK).count() {
            self.holds_data.store(true, Ordering::Relaxed);
        }
        // What is zero here is often zero there, and then need not be written: that is looked at, never assumed.
        let is_known = compare || zeros > 0;
        if is_known {
            target.read(at, length, to)?;
        }
        for (want, range) in stretches(wanted, is_known.then(|| to.bytes(length))) {
            let (place, bytes) = (at + range.start as u64, range.len() as u64);
            match want {
                Want::Data => {
                    target.write(place, &wanted[range])?;
                    self.written.fetch_add(bytes, Ordering::Relaxed);
                }
                Want::Zeros => self.zero(place, bytes)?,
            }
        }
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }

    fn zero(&self, at: u64, length: u64) -> Result<(), Failure> {
        if self.holds_data.load(Ordering::Relaxed) || self.job.allow_empty {
            self.written.fetch_add(length, Ordering::Relaxed);
            return self.job.target.zero(at, length);
        }
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner).push((at, length));
        Ok(())
    }

    /// What was held back is made, if the source was seen to hold something.
    fn release(&self) -> Result<(), Failure> {
        let held_back = std::mem::take(&mut *self.held_back.lock().unwrap_or_else(PoisonError::into_inner));
        if !held_back.is_empty() && !self.holds_data.load(Ordering::Relaxed) {
            return Err(Failure::new(FailKind::Other, SUDDENLY_EMPTY));
        }
        for (at, length) in held_back {
            if let Some(signal) = self.stop.requested() {
                return Err(Failure::interrupted(signal));
            }
            self.zero(at, length)?;
        }
        Ok(())
    }
}
