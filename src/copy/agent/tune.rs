//! How many threads work at once: more while that makes it faster, no more than that.
//!
//! Not the threads. Asked by `crew` every now and then. On network storage nearly all time is waiting for a server, and
//! sixty threads get there sixty times as fast; on a disk more threads only seek, and when the processors are busy they
//! only take turns. Nothing of this can be known beforehand, so it is tried: twice as many, and back if it did not help.

use crate::words::clock::Clock;
use std::time::Duration;

/// The most that are ever tried.
pub const MOST: usize = 64;
/// With how many it begins: enough to see what more of them do.
const BEGIN: usize = 4;
/// A change must bring so much, or it is taken back.
const GAIN: f64 = 1.25;
/// For how many looks it is left alone then, the first time; each time in vain makes it twice as long.
const HOLD: u32 = 10;
const LONGEST_HOLD: u32 = 160;
/// From this share of the processors' time on, more threads bring nothing.
const BUSY: f64 = 0.9;
/// So much must have passed for a rate to mean anything.
const LEAST: Duration = Duration::from_millis(50);

pub struct Tuner {
    limit: usize,
    most: usize,
    /// The limit and the rate before the last change.
    tried: Option<(usize, f64)>,
    hold: u32,
    next_hold: u32,
    units: f64,
    cpu: Duration,
    cores: f64,
}

impl Tuner {
    /// By what is seen, unless a number is given.
    pub fn new(workers: Option<usize>) -> Tuner {
        workers.map_or_else(|| Tuner::between(BEGIN, MOST), Tuner::fixed)
    }

    pub fn fixed(workers: usize) -> Tuner {
        Tuner::between(workers.max(1), workers.max(1))
    }

    fn between(limit: usize, most: usize) -> Tuner {
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        Tuner { limit, most, tried: None, hold: 0, next_hold: HOLD, units: 0.0, cpu: Clock.of_this_process(), cores }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many from now on, when `units` were done in all, and `waiting` more could be done at once.
    pub fn next(&mut self, units: f64, passed: Duration, waiting: bool) -> usize {
        let cpu = Clock.of_this_process();
        let used = cpu.saturating_sub(self.cpu).as_secs_f64() / passed.as_secs_f64().max(1e-6) / self.cores;
        let rate = (units - self.units) / passed.as_secs_f64().max(1e-6);
        (self.units, self.cpu) = (units, cpu);
        if passed >= LEAST {
            self.judge(rate, used, waiting);
        }
        self.limit
    }

    fn judge(&mut self, rate: f64, used: f64, waiting: bool) {
        if self.hold > 0 {
            self.hold -= 1;
            return;
        }
        if let Some((limit, before)) = self.tried.take() {
            if rate < before * GAIN {
                self.limit = limit;
                self.hold = self.next_hold;
                self.next_hold = (self.next_hold * 2).min(LONGEST_HOLD);
                return;
            }
            self.next_hold = HOLD;
        }
        if waiting && used < BUSY && self.limit < self.most {
            self.tried = Some((self.limit, rate));
            self.limit = (self.limit * 2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs it on storage that gives `rate` for a number of threads; where it ends up most of the time.
    fn settled(rate: impl Fn(usize) -> f64, used: f64) -> Vec<usize> {
        let mut tuner = Tuner::new(None);
        let mut seen = Vec::new();
        for _ in 0..400 {
            let now = rate(tuner.limit());
            tuner.judge(now, used, true);
            seen.push(tuner.limit());
        }
        seen.split_off(200)
    }

    #[test]
    fn where_all_is_waiting_all_of_them_work_and_where_it_is_not_few_do() {
        let waiting = settled(|n| n as f64, 0.1);
        assert!(waiting.iter().all(|n| *n == MOST), "{waiting:?}");
        // Four fill it; a few looks are spent on trying again.
        let disk = settled(|n| n.min(4) as f64, 0.1);
        assert!(disk.iter().filter(|n| **n == 4).count() > 180, "{disk:?}");
        let server = settled(|n| n.min(16) as f64, 0.1);
        assert!(server.iter().filter(|n| **n == 16).count() > 180, "{server:?}");
        // The processors are busy: it stays as it begins.
        assert!(settled(|n| n as f64, 0.95).iter().all(|n| *n == BEGIN));
    }

    #[test]
    fn what_is_told_is_done() {
        let mut tuner = Tuner::new(Some(7));
        tuner.judge(1.0, 0.0, true);
        assert_eq!(tuner.limit(), 7);
        assert_eq!(Tuner::fixed(0).limit(), 1);
    }
}
