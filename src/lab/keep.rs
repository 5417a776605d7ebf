//! The lab's directory: who may use it, and the log of commits that outlives the process.
//!
//! `lab.json` says what the directory is and of which form; `lock` is held by the one process that uses it; `state.jsonl`
//! has a line for each commit, after a first one with the whole state of the last start. What must stay true: a commit is
//! in the file before anybody hears of it; a torn last line is a commit that nobody heard of; what this version cannot
//! read it refuses, unchanged; a cluster whose beginning was cut short is not taken for one (`filling` marks it).

use super::kind;
use super::store::{Commit, Key, State, text};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The form of the directory.
const FORM: u64 = 1;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{} is not empty, and not the directory of a lab", .0.display())]
    Foreign(PathBuf),
    #[error("{} was made by a newer lab (form {form}; this one knows form {FORM})", .dir.display())]
    Newer { dir: PathBuf, form: u64 },
    #[error("{} is used by another lab that runs", .0.display())]
    InUse(PathBuf),
    #[error("{} line {line} is damaged: {why}", .path.display())]
    Damaged { path: PathBuf, line: usize, why: String },
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct Home {
    pub dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Takes the directory: an empty or absent one, or a lab's.
    pub fn open(dir: &Path) -> Result<Home, Unusable> {
        let io = |error: io::Error| Unusable::Io { path: dir.to_owned(), error };
        std::fs::create_dir_all(dir).map_err(io)?;
        let about = dir.join("lab.json");
        if !about.exists() && holds_more_than(dir, &["lock", "lab.json.new"]).map_err(io)? {
            return Err(Unusable::Foreign(dir.to_owned()));
        }
        if about.exists() {
            let text = std::fs::read_to_string(&about).map_err(io)?;
            let value: Value = serde_json::from_str(&text).map_err(|_| Unusable::Foreign(dir.to_owned()))?;
            match value["pvmigrate-lab"].as_u64() {
                None => return Err(Unusable::Foreign(dir.to_owned())),
                Some(form) if form > FORM => return Err(Unusable::Newer { dir: dir.to_owned(), form }),
                Some(_) => {}
            }
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Unusable::InUse(dir.to_owned())),
            Err(std::fs::TryLockError::Error(e)) => return Err(io(e)),
        }
        if !about.exists() {
            write_whole(&about, format!("{}\n", json!({"pvmigrate-lab": FORM})).as_bytes()).map_err(io)?;
        }
        let home = Home { dir: dir.to_owned(), _lock: lock };
        if home.filling().exists() {
            home.empty(&["lock", "lab.json"]).map_err(io)?;
        }
        Ok(home)
    }

    fn filling(&self) -> PathBuf {
        self.dir.join("filling")
    }

    /// What is there from now on is no cluster yet: until [`Home::is_filled`], whoever opens the directory begins anew.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn fills(&self) -> io::Result<()> {
        File::create(self.filling()).map(drop)
    }

    /// # Errors
    /// As [`Home::fills`].
    pub fn is_filled(&self) -> io::Result<()> {
        std::fs::remove_file(self.filling())
    }

    /// Leaves the directory as if no lab had ever been in it.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        self.empty(&[])
    }

    fn empty(&self, but: &[&str]) -> io::Result<()> {
        let filling = self.filling();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path == filling || path.file_name().is_some_and(|name| but.iter().any(|one| name == *one)) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
            }
        }
        // Last: whoever is killed before comes back to it.
        match std::fs::remove_file(filling) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("state.jsonl")
    }

    /// Whether a state was kept.
    pub fn has_state(&self) -> bool {
        self.log().exists()
    }

    /// Reads what was kept into an empty state.
    pub fn load(&self, state: &mut State) -> Result<(), Unusable> {
        let path = self.log();
        if !path.exists() {
            return Ok(());
        }
        let io = |error: io::Error| Unusable::Io { path: path.clone(), error };
        let mut reader = BufReader::new(File::open(&path).map_err(io)?);
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
                return Ok(());
            }
            number += 1;
            // The process died while it wrote: nobody heard of it.
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            let damaged = |why: String| Unusable::Damaged { path: path.clone(), line: number, why };
            let value: Value = serde_json::from_slice(&line).map_err(|e| damaged(e.to_string()))?;
            apply(state, &value).map_err(damaged)?;
        }
    }

    /// Begins a new file with the present state; the commits follow it.
    pub fn keep(&self, state: &State) -> Result<Keeper, Unusable> {
        let path = self.log();
        let io = |error: io::Error| Unusable::Io { path: path.clone(), error };
        let mut text = Vec::new();
        for kind in kind::KINDS {
            for (key, object) in state.list(kind.kind, "") {
                line(&mut text, object_revision(object), key, Some(object));
            }
        }
        text.extend(format!("{}\n", json!({"rev": state.revision()})).into_bytes());
        write_whole(&path, &text).map_err(io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Keeper { file, broken: None })
    }
}

/// Appends the commits.
#[derive(Debug)]
pub struct Keeper {
    file: File,
    broken: Option<String>,
}

impl Keeper {
    /// Writes commits down. After the first failure everything fails: what was answered must have been kept.
    pub fn keep(&mut self, commits: &[std::sync::Arc<Commit>]) -> Result<(), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let mut text = Vec::new();
        for commit in commits {
            line(&mut text, commit.revision, &commit.key, commit.after.as_deref());
        }
        // A power cut may cost the last moments of a lab; a kill may not.
        self.file.write_all(&text).map_err(|e| {
            let why = format!("the state cannot be written: {e}");
            self.broken = Some(why.clone());
            why
        })
    }
}

fn object_revision(object: &Value) -> u64 {
    text(&object["metadata"]["resourceVersion"]).parse().unwrap_or(0)
}

fn line(out: &mut Vec<u8>, revision: u64, key: &Key, object: Option<&Value>) {
    let value = json!({
        "rev": revision, "kind": key.kind, "namespace": key.namespace, "name": key.name, "object": object,
    });
    out.extend(value.to_string().into_bytes());
    out.push(b'\n');
}

fn apply(state: &mut State, line: &Value) -> Result<(), String> {
    let revision = line["rev"].as_u64().ok_or("it has no revision")?;
    let Some(word) = line["kind"].as_str() else {
        state.begin_at(revision);
        return Ok(());
    };
    let kind = kind::find(word).ok_or_else(|| format!("it has an unknown kind {word}"))?;
    let key = Key::new(kind.kind, text(&line["namespace"]), text(&line["name"]));
    match &line["object"] {
        Value::Null => state.restore(key, None, revision),
        object => state.restore(key, Some(object.clone()), revision),
    }
    Ok(())
}

/// Replaces a file as a whole or not at all. Nobody else may read it: it has secrets.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&fresh, path)
    };
    write().inspect_err(|_| {
        // A disk that is full has no room for half a file either.
        if let Err(error) = std::fs::remove_file(&fresh) {
            tracing::debug!("{}: {error}", fresh.display());
        }
    })
}

fn holds_more_than(dir: &Path, known: &[&str]) -> io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !known.iter().any(|one| name == *one) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use std::sync::Arc;

    fn state() -> State {
        State::new(1, Timestamp::UNIX_EPOCH)
    }

    fn commits(state: &State, since: u64) -> Vec<Arc<Commit>> {
        state.since(since).unwrap().cloned().collect()
    }

    #[test]
    fn what_was_kept_comes_back_and_a_torn_line_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = state();
        let key = |name: &str| Key::new("ConfigMap", "shop", name);
        let object = |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}});
        one.put(key("a"), object("a"), "me");
        let home = Home::open(dir.path()).unwrap();
        assert!(matches!(Home::open(dir.path()), Err(Unusable::InUse(_))));
        let mut keeper = home.keep(&one).unwrap();
        one.put(key("b"), object("b"), "me");
        one.remove(&key("a"), "me");
        keeper.keep(&commits(&one, 1)).unwrap();
        let path = home.log();
        let mut text = std::fs::read(&path).unwrap();
        text.extend(b"{\"rev\":4,\"kind\":\"ConfigM");
        std::fs::write(&path, &text).unwrap();
        let mut two = state();
        home.load(&mut two).unwrap();
        assert_eq!((two.revision(), two.get("ConfigMap", "shop", "a"), two.oldest()), (3, None, 3));
        assert_eq!(two.get("ConfigMap", "shop", "b"), one.get("ConfigMap", "shop", "b"));
        text.splice(0..1, *b"#");
        std::fs::write(&path, &text).unwrap();
        let error = home.load(&mut state()).unwrap_err().to_string();
        assert!(error.contains("state.jsonl line 1 is damaged"), "{error}");
    }

    #[test]
    fn a_beginning_that_was_cut_short_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        home.fills().unwrap();
        home.keep(&state()).unwrap();
        std::fs::create_dir_all(dir.path().join("volumes/a/data")).unwrap();
        drop(home);
        let home = Home::open(dir.path()).unwrap();
        let left = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|one| one.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!((home.has_state(), left(dir.path())), (false, vec!["lab.json".into(), "lock".into()]));
        home.keep(&state()).unwrap();
        drop(home);
        let home = Home::open(dir.path()).unwrap();
        assert!(home.has_state());
        home.clear().unwrap();
        assert!(left(dir.path()).is_empty());
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        assert!(matches!(Home::open(dir.path()), Err(Unusable::Foreign(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let newer = tempfile::tempdir().unwrap();
        std::fs::write(newer.path().join("lab.json"), "{\"pvmigrate-lab\": 99}").unwrap();
        assert!(matches!(Home::open(newer.path()), Err(Unusable::Newer { form: 99, .. })));
    }
}
