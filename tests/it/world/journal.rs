//! Journals of runs, read as any other program could: `STATE/runs/<cluster>/<run>/journal.jsonl`, an event a line.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Follows a journal that is being written.
#[derive(Default)]
pub struct Tail {
    pub journal: PathBuf,
    pub offset: u64,
    pub events: Vec<Value>,
}

impl Tail {
    /// Takes in the lines that are whole by now.
    pub fn read_on(&mut self) {
        let mut bytes = Vec::new();
        let Ok(mut file) = File::open(&self.journal) else {
            return;
        };
        if file.seek(SeekFrom::Start(self.offset)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        self.events.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
        self.offset += whole as u64;
    }
}

/// All events of a journal.
pub fn events(journal: &Path) -> Vec<Value> {
    let mut tail = Tail { journal: journal.to_owned(), ..Tail::default() };
    tail.read_on();
    tail.events
}

/// All journals below a state directory: `runs/<cluster>/<run>/journal.jsonl`.
pub fn journals(state_dir: &Path) -> BTreeSet<PathBuf> {
    let children = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = children(state_dir.join("runs")).flat_map(children);
    runs.map(|run| run.join("journal.jsonl")).filter(|journal| journal.is_file()).collect()
}

/// The one written last.
pub fn newest(journals: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    let written = |path: &&PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    journals.iter().max_by_key(written).cloned()
}

pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map(|meta| meta.len()).unwrap_or(0)
}
