//! The names of hard-linked inodes, which many threads come upon at once.
//!
//! Not the making of a link. Called by the walk. What must stay true: an inode of the source is made once, by whoever
//! comes upon its first name; the others wait in a list, not in a thread; an inode of the target belongs to one inode of
//! the source. Memory grows with the hard-linked inodes only.

use super::super::tree::Node;
use super::file::Dir;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device and inode.
pub type Id = (u64, u64);

pub fn id(node: &Node) -> Id {
    (node.dev, node.ino)
}

/// A name whose inode is being made under another one.
pub type Waiting = (Arc<Dir>, Vec<u8>);

/// The first name of an inode of the source, as it was made.
#[derive(Clone)]
pub struct First {
    pub path: Arc<[u8]>,
    pub target: Id,
}

/// What whoever comes upon a name has to do.
pub enum Claim {
    /// Make it, and say what became of it.
    Make,
    /// Nothing: it is made when the first name is.
    Wait,
    /// Link it.
    Link(First),
    /// The inode was changed since its first name was looked at, or is another one of the same number.
    Changed,
}

#[derive(Default)]
pub struct Links {
    /// By inode of the source, with the ctime that it had.
    all: Mutex<HashMap<Id, (i128, State)>>,
    /// To which inode of the source an inode of the target that has several names belongs.
    owners: Mutex<HashMap<Id, Id>>,
}

enum State {
    Making(Vec<Waiting>),
    Made(First),
}

impl Links {
    pub fn claim(&self, source: &Node, dir: &Arc<Dir>, name: &[u8]) -> Claim {
        let mut all = lock(&self.all);
        match all.get_mut(&id(source)) {
            None => {
                all.insert(id(source), (source.ctime, State::Making(Vec::new())));
                Claim::Make
            }
            Some((ctime, _)) if *ctime != source.ctime => Claim::Changed,
            Some((_, State::Making(waiting))) => {
                dir.enter();
                waiting.push((dir.clone(), name.to_vec()));
                Claim::Wait
            }
            Some((_, State::Made(first))) => Claim::Link(first.clone()),
        }
    }

    /// It was made under its first name. Returns who waits for it.
    pub fn made(&self, source: &Node, first: First) -> Vec<Waiting> {
        self.own(first.target, id(source));
        let mut all = lock(&self.all);
        match all.insert(id(source), (source.ctime, State::Made(first))) {
            Some((_, State::Making(waiting))) => waiting,
            _ => Vec::new(),
        }
    }

    /// It could not be made under that name: whoever waits tries another one.
    pub fn failed(&self, source: &Node) -> Vec<Waiting> {
        match lock(&self.all).remove(&id(source)) {
            Some((_, State::Making(waiting))) => waiting,
            _ => Vec::new(),
        }
    }

    /// Whether an inode of the target that has several names is this source's; the first who asks gets it.
    pub fn is_free(&self, target: &Node, source: &Node) -> bool {
        *lock(&self.owners).entry(id(target)).or_insert_with(|| id(source)) == id(source)
    }

    /// True if somebody who said that he would make an inode has not said what became of it.
    pub fn is_making(&self) -> bool {
        lock(&self.all).values().any(|(_, state)| matches!(state, State::Making(_)))
    }

    pub fn own(&self, target: Id, source: Id) {
        lock(&self.owners).insert(target, source);
    }
}

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call of the map.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}
