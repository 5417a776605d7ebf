//! A limit of bytes per second, shared by all threads of a pass.
//!
//! Not a schedule: whoever has moved bytes waits until they are paid for. Used by `native`; rsync has its own. What must
//! stay true: over any few seconds the rate is not above the limit; nobody waits any more after a request to stop, or for long when all is over.

use super::stop::Stop;
use crate::words::clock::Clock;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often who waits looks whether it is still worth it.
const LOOK_UP: Duration = Duration::from_secs(1);
/// What was not used is saved for so long at most.
const SAVED: Duration = Duration::from_millis(500);

pub struct Pace {
    /// Bytes per second; nothing: as fast as it goes.
    limit: Option<u64>,
    /// Until when everything is paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    pub fn new(limit: Option<u64>) -> Pace {
        Pace { limit: limit.filter(|limit| *limit > 0), paid: Mutex::new(Clock.monotonic()) }
    }

    /// Waits until so many more bytes are within the limit, or everything is over.
    pub fn pay(&self, bytes: u64, stop: &Stop, is_over: &dyn Fn() -> bool) {
        let Some(limit) = self.limit else { return };
        let now = Clock.monotonic();
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let from = (*paid).max(now.checked_sub(SAVED).unwrap_or(now));
            *paid = from + Duration::from_secs_f64(bytes as f64 / limit as f64);
            *paid
        };
        let mut left = until.saturating_duration_since(now);
        while !left.is_zero() && stop.wait(left.min(LOOK_UP)).is_none() && !is_over() {
            left = until.saturating_duration_since(Clock.monotonic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_take_so_long_and_a_request_to_stop_takes_none() {
        let (stop, began) = (Stop::new(), Clock.monotonic());
        let pace = Pace::new(Some(1_000_000));
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..10).for_each(|_| pace.pay(25_000, &stop, &|| false)));
            }
        });
        // A million bytes, but for what was saved before.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(450), "{took:?}");
        stop.request(15);
        pace.pay(1 << 40, &stop, &|| false);
        pace.pay(1 << 40, &Stop::new(), &|| true);
        Pace::new(None).pay(u64::MAX, &Stop::new(), &|| false);
        Pace::new(Some(0)).pay(u64::MAX, &Stop::new(), &|| false);
    }
}
