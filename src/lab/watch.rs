//! What a watch tells: the commits that concern it, as events.
//!
//! Pure: `http` asks for the next events whenever there are commits, and decides about time. What must stay true: events
//! come in the order of commits, none is left out and none told twice; what cannot be told any more is said (410).

use super::handle::Selectors;
use super::kind::Kind;
use super::status::Status;
use super::store::{Commit, State, text};
use serde_json::{Value, json};
use std::sync::Arc;

/// One watch.
#[derive(Debug)]
pub struct Watch {
    kind: &'static Kind,
    /// Empty: all.
    namespace: String,
    selectors: Selectors,
    /// Everything up to here was told.
    seen: u64,
    /// What there was, to be told first.
    first: bool,
}

/// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`, with its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub word: &'static str,
    pub object: Arc<Value>,
}

impl Event {
    pub fn error(status: &Status) -> Event {
        Event { word: "ERROR", object: Arc::new(status.to_json()) }
    }
}

impl Watch {
    /// From this revision; without one (or with 0) everything that is there comes first.
    pub fn new(kind: &'static Kind, namespace: &str, selectors: Selectors, since: Option<u64>) -> Watch {
        Watch { kind, namespace: namespace.to_owned(), selectors, seen: since.unwrap_or(0), first: since.is_none() }
    }

    /// What is to be told now. After an `ERROR` the watch is over.
    pub fn next(&mut self, state: &State) -> Vec<Event> {
        if self.first {
            self.first = false;
            self.seen = state.revision();
            let all = state.list(self.kind.kind, &self.namespace);
            let fitting = all.filter(|(_, object)| self.selectors.fit(object));
            return fitting.map(|(_, object)| Event { word: "ADDED", object: object.clone() }).collect();
        }
        let Ok(commits) = state.since(self.seen) else {
            let message = format!("too old resource version: {} ({})", self.seen, state.oldest());
            return vec![Event::error(&Status::new(410, "Expired", message))];
        };
        let events = commits.filter_map(|commit| self.event(commit)).collect();
        self.seen = state.revision().max(self.seen);
        events
    }

    /// The revision up to which everything was told.
    pub fn bookmark(&self) -> Event {
        let object = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
        });
        Event { word: "BOOKMARK", object: Arc::new(object) }
    }

    fn event(&self, commit: &Commit) -> Option<Event> {
        let key = &commit.key;
        if key.kind != self.kind.kind || (!self.namespace.is_empty() && key.namespace != self.namespace) {
            return None;
        }
        let fits = |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|object| self.selectors.fit(object));
        let (word, object) = match (fits(&commit.before), fits(&commit.after)) {
            (false, false) => return None,
            (false, true) => ("ADDED", commit.after.clone()?),
            (true, true) => ("MODIFIED", commit.after.clone()?),
            (true, false) => {
                // The old state, with the revision of the change that took it out of sight.
                let mut last = (**commit.before.as_ref()?).clone();
                last["metadata"]["resourceVersion"] = commit.revision.to_string().into();
                ("DELETED", Arc::new(last))
            }
        };
        debug_assert!(!text(&object["metadata"]["resourceVersion"]).is_empty());
        Some(Event { word, object })
    }
}
