//! SIGTERM and SIGINT: noted once, told to the child at once, asked for between steps.
//!
//! Not a way to end the process: whoever works looks here and returns. Made by `cli::agent` (with handlers) and by
//! tests (without). What must stay true: a child is killed only while it is not reaped, so no foreign process that
//! got its number is ever hit.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Default)]
struct State {
    signal: Option<i32>,
    child: Option<Pid>,
    /// How often it may still be looked at before it says yes by itself.
    #[cfg(test)]
    looks: Option<u64>,
}

/// A shared note that somebody wants the agent to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<State>, Condvar)>);

impl Stop {
    pub fn new() -> Self {
        Stop::default()
    }

    /// A note that SIGTERM and SIGINT set. As PID 1 of a container nothing else would end us: the kernel gives
    /// the first process no default action.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Stop> {
        let stop = Stop::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut term, mut int) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let heard = stop.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let number = tokio::select! {
                        _ = term.recv() => Signal::TERM,
                        _ = int.recv() => Signal::INT,
                    };
                    heard.request(number.as_raw());
                }
            });
        })?;
        Ok(stop)
    }

    /// Asks for the end, by the number of the signal that a person would send. The first one counts.
    pub fn request(&self, signal: i32) {
        let mut state = self.lock();
        state.signal.get_or_insert(signal);
        kill(state.child);
        self.0.1.notify_all();
    }

    /// A note that says SIGTERM from the `n`th look on: an interruption at any point, without a clock.
    #[cfg(test)]
    pub fn at_look(n: u64) -> Self {
        let stop = Stop::new();
        stop.lock().looks = Some(n);
        stop
    }

    /// The signal that asked for the end.
    pub fn requested(&self) -> Option<i32> {
        #[cfg(test)]
        {
            let mut state = self.lock();
            state.looks = state.looks.map(|looks| looks.saturating_sub(1));
            if state.looks == Some(0) {
                state.signal.get_or_insert(15);
            }
        }
        self.lock().signal
    }

    /// Waits for the request, at most for `time`.
    pub fn wait(&self, time: Duration) -> Option<i32> {
        let waited = self.0.1.wait_timeout_while(self.lock(), time, |state| state.signal.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.signal
    }

    /// Names a process that must not outlive the request.
    pub fn adopt(&self, child: Pid) {
        let mut state = self.lock();
        state.child = Some(child);
        if state.signal.is_some() {
            kill(state.child);
        }
    }

    /// To be called when the child has ended and before it is reaped.
    pub fn release(&self) {
        self.lock().child = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SIGKILL, because a blocked rsync ignores the rest; its two other processes end when they find the first one gone,
/// and the temporary file of rsync's that may stay behind is removed by the next pass.
fn kill(child: Option<Pid>) {
    if let Some(child) = child {
        // It can only fail when the process has ended already.
        let _ended = kill_process(child, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_child_adopted_after_the_request_is_killed_too() {
        let stop = Stop::new();
        stop.request(15);
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        stop.adopt(Pid::from_child(&child));
        stop.request(2);
        assert_eq!(stop.wait(Duration::from_secs(60)), Some(15), "the first request counts");
        stop.release();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
