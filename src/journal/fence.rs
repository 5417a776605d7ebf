//! Whether a run is this process's to execute, and still is.
//!
//! It is asked before a write is recorded ([`Journal::permit`](super::Journal::permit)) and again right before the request
//! goes out (`cluster::Door`). The cluster implements it with a Lease. What must stay true: a process that was paused
//! while another one took over gets no permit, and sends nothing with one that it has.

use crate::words::Problem;
use std::pin::Pin;

/// What comes when it was asked for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub trait Fence: Send + Sync {
    /// Makes sure that nobody else executes the run. Usually this is known and nobody is asked. Otherwise, as after a
    /// pause, the server is, and the epoch that comes back is another one: whatever was read before may be old.
    ///
    /// # Errors
    /// `Conflict` if somebody else has the run, `Unreachable` if nobody answers, `Forbidden` if we may not ask.
    fn hold(&self) -> Answer<'_, Result<u64, Problem>>;

    /// The epoch as it is, without asking.
    fn epoch(&self) -> u64;

    /// The namespace of the fence's record: rights are needed there.
    fn namespace(&self) -> &str;

    /// Lets the run go: the next process needs not wait. What cannot be let go runs out by itself.
    fn release(&self) -> Answer<'_, ()>;
}
