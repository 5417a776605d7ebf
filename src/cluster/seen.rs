//! The newest version of every object that was seen: knowledge never goes back.
//!
//! A server that restarts, or a cache in between, may show a state from before. What was decided on newer news must not
//! be decided again on older ones (I24), so such an answer counts as none. Versions are compared for the same uid only;
//! what is no number is never older.

use super::{text, uid};
use crate::words::Json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// By uid.
#[derive(Debug, Default)]
pub struct Seen {
    versions: Mutex<HashMap<String, u64>>,
}

impl Seen {
    /// Notes an object.
    pub fn note(&self, object: &Json) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((uid, version)) = version_of(object) {
            let known = versions.entry(uid.to_owned()).or_default();
            *known = version.max(*known);
        }
    }

    /// Whether an object, or every item of a list, is as new as what was seen of it before; then it is noted.
    pub fn is_news(&self, answer: &Json) -> bool {
        let items = answer["items"].as_array();
        let objects = || std::iter::once(answer).chain(items.into_iter().flatten());
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_older = |(uid, version): (&str, u64)| versions.get(uid).is_some_and(|known| version < *known);
        if objects().filter_map(version_of).any(is_older) {
            return false;
        }
        drop(versions);
        objects().for_each(|object| self.note(object));
        true
    }
}

fn version_of(object: &Json) -> Option<(&str, u64)> {
    let version = text(object, "/metadata/resourceVersion").parse().ok()?;
    Some(uid(object)).filter(|uid| !uid.is_empty()).map(|uid| (uid, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(uid: &str, version: &str) -> Json {
        json!({"metadata": {"uid": uid, "resourceVersion": version}})
    }

    #[test]
    fn what_is_older_than_what_was_seen_is_no_news() {
        let seen = Seen::default();
        assert!(seen.is_news(&object("a", "7")) && seen.is_news(&object("a", "7")));
        assert!(!seen.is_news(&object("a", "6")), "an older state of the same object");
        assert!(seen.is_news(&object("b", "6")), "another object, or one made anew");
        seen.note(&object("b", "9"));
        seen.note(&object("b", "8"));
        assert!(
            !seen
                .is_news(&json!({"metadata": {"resourceVersion": "3"}, "items": [object("c", "1"), object("b", "8")]}))
        );
        assert!(seen.is_news(&json!({"items": [object("c", "1"), object("b", "9")]})));
        assert!(!seen.is_news(&object("c", "0")), "items of a list are noted too");
        assert!(seen.is_news(&object("a", "v2")), "versions that are no numbers cannot be compared");
    }
}
