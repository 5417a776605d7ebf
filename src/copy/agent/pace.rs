//! A limit of bytes per second, shared by all threads of a pass.
//!
//! Not a schedule: whoever has moved bytes waits until they are paid for. Used by `native`; rsync has its own. What must
//! stay true: over any few seconds the rate is not above the limit; nobody waits any more after a request to stop.

use super::stop::Stop;
use crate::words::clock::Clock;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

    /// Waits until so many more bytes are within the limit.
    pub fn pay(&self, bytes: u64, stop: &Stop) {
        let Some(limit) = self.limit else { return };
        let now = Clock.monotonic();
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let from = (*paid).max(now.checked_sub(SAVED).unwrap_or(now));
            *paid = from + Duration::from_secs_f64(bytes as f64 / limit as f64);
            *paid
        };
        if until > now {
            let _asked = stop.wait(until - now);
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
                threads.spawn(|| (0..10).for_each(|_| pace.pay(25_000, &stop)));
            }
        });
        // A million bytes, but for what was saved before.
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(450), "{took:?}");
        stop.request(15);
        pace.pay(1 << 40, &stop);
        Pace::new(None).pay(u64::MAX, &Stop::new());
        Pace::new(Some(0)).pay(u64::MAX, &Stop::new());
    }
}
