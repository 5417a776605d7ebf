//! A few threads that make regular files, while the walk goes on.
//!
//! Not an order of things: the walk waits for all files of a directory before it gives the directory its time. Called
//! by `native`. What must stay true: every file that was handed in is told to have ended exactly once, whatever
//! became of it; handing in never blocks, so that the walk can tell how far it is.

use super::super::tree::Node;
use super::content::Buffers;
use super::file::{Dir, Worker};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

/// How many files are under way at most: enough that no thread waits for the walk.
const WAITING: usize = 64;

/// How often who waits looks up.
const LOOK_UP: Duration = Duration::from_millis(250);

/// A file to make.
pub struct Task {
    pub dir: Arc<Dir>,
    pub name: Vec<u8>,
    pub source: Node,
    pub target: Option<Node>,
}

/// The threads, as the walk sees them.
pub struct Pool {
    tasks: Sender<Task>,
    ended: Receiver<bool>,
    under_way: usize,
}

impl Pool {
    /// Starts the threads; they end when the pool is dropped.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        worker: &'scope Worker<'scope>,
    ) -> Pool {
        let (tasks, waiting) = channel::<Task>();
        let (tell, ended) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.max(1) {
            let (waiting, tell) = (waiting.clone(), tell.clone());
            scope.spawn(move || {
                let mut buffers = Buffers::new();
                loop {
                    let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(task) = task else { return };
                    let mut end = End { tell: &tell, ok: false };
                    if worker.outcome.is_over() {
                        continue;
                    }
                    let made = worker.file(&task.dir, &task.name, &task.source, task.target.as_ref(), &mut buffers);
                    end.ok = made.is_ok();
                    if let Err(trouble) = made {
                        worker.outcome.tell(trouble);
                    }
                }
            });
        }
        Pool { tasks, ended, under_way: 0 }
    }

    /// Hands a file in. While too many are under way it waits, looking up with `tick`.
    pub fn begin(&mut self, task: Task, tick: &mut dyn FnMut()) {
        while self.under_way >= WAITING {
            self.wait_for_one(tick);
        }
        // It can only fail when every thread has panicked, which the scope passes on.
        if self.tasks.send(task).is_ok() {
            self.under_way += 1;
        }
    }

    /// Waits until no file is under way. True if all that ended here went well.
    pub fn wait(&mut self, tick: &mut dyn FnMut()) -> bool {
        let mut all = true;
        while self.under_way > 0 {
            all &= self.wait_for_one(tick);
        }
        all
    }

    fn wait_for_one(&mut self, tick: &mut dyn FnMut()) -> bool {
        loop {
            match self.ended.recv_timeout(LOOK_UP) {
                Ok(ok) => {
                    self.under_way -= 1;
                    return ok;
                }
                Err(RecvTimeoutError::Timeout) => tick(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.under_way = 0;
                    return false;
                }
            }
        }
    }
}

/// Tells that a file ended, even by a panic.
struct End<'a> {
    tell: &'a Sender<bool>,
    ok: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // Nobody listens when the walk itself has panicked.
        self.tell.send(self.ok).ok();
    }
}
