//! Threads that share what is to be done: whoever is free takes the next task, and a task may bring others.
//!
//! Not what a task is, and no order of them but two piles: what is urgent goes first, the newest first in each, so that a
//! tree is walked in depth and little of it is waiting. Called by `native` and `tree`. What must stay true: it ends when
//! nothing is left to do and nobody does anything; a panic of one thread ends all and is passed on.

use super::tune::Tuner;
use crate::words::clock::Clock;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the caller is asked how it goes.
const LOOK_UP: Duration = Duration::from_millis(100);

pub struct Crew<T> {
    state: Mutex<State<T>>,
    /// There is something to do, or nothing ever again.
    work: Condvar,
    /// There is nothing to do.
    rest: Condvar,
}

struct State<T> {
    urgent: Vec<T>,
    later: Vec<T>,
    busy: usize,
    /// How many may be busy at once.
    limit: usize,
    over: bool,
}

/// Does a task and all that come of it. `own` makes what one thread has for itself; `look` is called every now and then
/// by the caller's own thread and says how much was done so far, in any unit that is always the same.
pub fn run<T: Send, L>(
    first: T,
    tuner: &mut Tuner,
    own: impl Fn() -> L + Sync,
    work: impl Fn(&Crew<T>, &mut L, T) + Sync,
    look: &mut dyn FnMut() -> f64,
) {
    let crew = Crew {
        state: Mutex::new(State { urgent: Vec::new(), later: vec![first], busy: 0, limit: tuner.limit(), over: false }),
        work: Condvar::new(),
        rest: Condvar::new(),
    };
    std::thread::scope(|threads| {
        // Also if `look` panics: nobody waits for what never comes.
        let end = End(&crew);
        let (own, work, mut started, mut looked) = (&own, &work, 0, Clock.monotonic());
        loop {
            while started < tuner.limit() {
                let crew = &crew;
                let thread = std::thread::Builder::new().spawn_scoped(threads, move || crew.serve(own, work));
                // The system gives no more: those that there are do it all. Without any there is nobody to do it.
                match thread {
                    Ok(_) => started += 1,
                    Err(_) if started > 0 => break,
                    Err(error) => panic!("no thread can be started: {error}"),
                }
            }
            let (done, waiting) = crew.wait(LOOK_UP);
            let units = look();
            if done {
                break;
            }
            let now = Clock.monotonic();
            crew.allow(tuner.next(units, now.saturating_duration_since(looked), waiting));
            looked = now;
        }
        drop(end);
    });
}

impl<T> Crew<T> {
    /// Adds what is done before everything that waits.
    pub fn urgent(&self, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.urgent.extend(tasks);
        drop(state);
        self.work.notify_all();
    }

    /// Adds what is done when nothing urgent is left.
    pub fn later(&self, task: T) {
        self.lock().later.push(task);
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Whoever panicked held no half of a change: each is one push or one pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve<L>(&self, own: &impl Fn() -> L, work: &impl Fn(&Crew<T>, &mut L, T)) {
        let mut mine = own();
        while let Some(task) = self.take() {
            let _busy = Busy(self);
            work(self, &mut mine, task);
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.over {
                return None;
            }
            if state.busy < state.limit
                && let Some(task) = state.urgent.pop().or_else(|| state.later.pop())
            {
                state.busy += 1;
                return Some(task);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all is done, or for so long; also says whether more could be done at once.
    fn wait(&self, time: Duration) -> (bool, bool) {
        let is_on = |state: &mut State<T>| !state.is_done();
        let waited = self.rest.wait_timeout_while(self.lock(), time, is_on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (state.is_done(), !state.urgent.is_empty() || !state.later.is_empty())
    }

    fn allow(&self, limit: usize) {
        self.lock().limit = limit;
        self.work.notify_all();
    }
}

impl<T> State<T> {
    fn is_done(&self) -> bool {
        self.over || (self.busy == 0 && self.urgent.is_empty() && self.later.is_empty())
    }
}

/// One thread at work.
struct Busy<'a, T>(&'a Crew<T>);

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        state.over |= std::thread::panicking();
        if state.is_done() {
            drop(state);
            self.0.rest.notify_all();
        }
    }
}

struct End<'a, T>(&'a Crew<T>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A task of `n` brings two of `n - 1`, one of each kind.
    fn tree(depth: u32, workers: usize) -> u64 {
        let done = AtomicU64::new(0);
        let work = |crew: &Crew<u32>, mine: &mut u64, n: u32| {
            *mine += 1;
            done.fetch_add(1, Ordering::Relaxed);
            if n > 0 {
                crew.urgent([n - 1]);
                crew.later(n - 1);
            }
        };
        run(depth, &mut Tuner::fixed(workers), || 0, work, &mut || 0.0);
        done.into_inner()
    }

    #[test]
    fn everything_is_done_once_by_any_number_of_threads() {
        for workers in [1, 2, 7, 64] {
            assert_eq!(tree(12, workers), (1 << 13) - 1, "{workers}");
        }
    }

    #[test]
    fn a_panic_of_one_ends_all_and_is_passed_on() {
        let outcome = std::panic::catch_unwind(|| {
            let work = |crew: &Crew<u32>, (): &mut (), n: u32| {
                assert!(n != 5, "five");
                crew.urgent([n + 1]);
            };
            run(0, &mut Tuner::fixed(3), || (), work, &mut || 0.0);
        });
        assert!(outcome.is_err());
    }
}
