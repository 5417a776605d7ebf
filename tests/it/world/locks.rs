//! Who may use the cluster now: four shared tests, or one alone, across threads and processes.
//!
//! Everything is `flock` on files beside the cluster's state, so a killed test run leaves nothing locked.
//! A shared test takes one of four slots, then passes the gate into the room; an exclusive one closes the gate
//! while it waits for the room to empty, so it does not starve.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const SLOTS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Shared,
    Exclusive,
}

/// The right to use the cluster until dropped.
pub struct Seat {
    _locks: Vec<File>,
}

/// Blocks until the cluster is free for this kind of test.
pub fn sit(dir: &Path, sharing: Sharing) -> Seat {
    std::fs::create_dir_all(dir).expect("the directory of the locks can be made");
    let room = open(dir, "room");
    match sharing {
        Sharing::Shared => {
            let slot = any_slot(dir);
            let gate = locked(dir, "gate");
            room.lock_shared().expect("flock works");
            drop(gate);
            Seat { _locks: vec![slot, room] }
        }
        Sharing::Exclusive => {
            let gate = locked(dir, "gate");
            room.lock().expect("flock works");
            Seat { _locks: vec![gate, room] }
        }
    }
}

/// A lock with a name, across processes, until dropped.
pub fn locked(dir: &Path, name: &str) -> File {
    let file = open(dir, name);
    file.lock().expect("flock works");
    file
}

fn any_slot(dir: &Path) -> File {
    let mut slots: Vec<File> = (0..SLOTS).map(|n| open(dir, &format!("slot-{n}"))).collect();
    loop {
        for n in 0..SLOTS {
            match slots[n].try_lock() {
                Ok(()) => return slots.swap_remove(n),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("flock works: {error}"),
            }
        }
        sleep(Duration::from_millis(50));
    }
}

fn open(dir: &Path, name: &str) -> File {
    let path = dir.join(name);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    opened.unwrap_or_else(|error| panic!("lock {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

    #[test]
    fn four_may_share_and_one_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, alone, most) = (AtomicI32::new(0), AtomicI32::new(0), AtomicI32::new(0));
        std::thread::scope(|scope| {
            for n in 0..12 {
                let (dir, shared, alone, most) = (dir.path(), &shared, &alone, &most);
                scope.spawn(move || {
                    let sharing = if n % 6 == 3 { Sharing::Exclusive } else { Sharing::Shared };
                    let _seat = sit(dir, sharing);
                    let mine = if sharing == Sharing::Shared { shared } else { alone };
                    let now = mine.fetch_add(1, SeqCst) + 1;
                    sleep(Duration::from_millis(20));
                    match sharing {
                        Sharing::Shared => assert_eq!(alone.load(SeqCst), 0),
                        Sharing::Exclusive => assert_eq!((now, shared.load(SeqCst)), (1, 0)),
                    }
                    most.fetch_max(now, SeqCst);
                    mine.fetch_sub(1, SeqCst);
                });
            }
        });
        assert!((2..=4).contains(&most.load(SeqCst)), "{most:?} at once");
    }
}
