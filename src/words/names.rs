//! Names that were checked once and are trusted afterwards.

use super::Problem;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The identity of a run: eight lower-case hex digits, random.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    pub fn random() -> Self {
        RunId(uuid::Uuid::new_v4().simple().to_string()[..8].to_owned())
    }

    /// # Errors
    /// If `text` is not eight lower-case hex digits: it becomes part of paths and labels.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(RunId(text.to_owned()))
        } else {
            Err(Problem::usage(format!("`{text}` is not the id of a run"))
                .hint("ids are eight hex digits: see `pvmigrate runs`"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RunId {
    type Error = Problem;
    fn try_from(text: String) -> Result<Self, Problem> {
        RunId::parse(&text)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

/// A claim by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PvcRef {
    pub namespace: String,
    pub name: String,
}

impl PvcRef {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        PvcRef { namespace: namespace.into(), name: name.into() }
    }

    /// Parses `namespace/name`.
    ///
    /// # Errors
    /// If it is not exactly two valid names.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(PvcRef::new(label_name(namespace)?, object_name(name)?)),
            None => Err(Problem::usage(format!("`{text}` is not NAMESPACE/NAME")).hint("for example shop/data")),
        }
    }
}

impl fmt::Display for PvcRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Any object by kind and name; `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    /// `PersistentVolumeClaim:shop/data`, `PersistentVolume:pv-1`: the key of branches and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}:{}", self.kind, self.name)
        } else {
            write!(f, "{}:{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Checks a name of one DNS label (namespaces).
///
/// # Errors
/// If it is empty, too long or has other characters than `a-z0-9-`.
pub fn label_name(text: &str) -> Result<&str, Problem> {
    if text.len() <= 63 && is_dns(text, false) { Ok(text) } else { Err(bad_name(text, 63)) }
}

/// Checks a name of DNS labels with dots (claims, volumes, classes, pods).
///
/// # Errors
/// If it is empty, too long or has other characters than `a-z0-9-.`.
pub fn object_name(text: &str) -> Result<&str, Problem> {
    if text.len() <= 253 && is_dns(text, true) { Ok(text) } else { Err(bad_name(text, 253)) }
}

fn bad_name(text: &str, longest: usize) -> Problem {
    Problem::usage(format!("`{}` is not a Kubernetes name", plain(text)))
        .hint(format!("names have at most {longest} of the characters a-z, 0-9, `-` and, in most kinds, `.`"))
}

fn is_dns(text: &str, dots: bool) -> bool {
    let edge = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    !text.is_empty()
        && text.split('.').count() <= if dots { usize::MAX } else { 1 }
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|b| edge(*b))
                && bytes.last().is_some_and(|b| edge(*b))
                && bytes.iter().all(|b| edge(*b) || *b == b'-')
        })
}

/// Cuts a name to `longest` bytes, keeping it unique by a hash of the whole.
pub fn short_name(prefix: &str, whole: &str, longest: usize) -> String {
    let hash = &blake3::hash(whole.as_bytes()).to_hex()[..8];
    let room = longest.saturating_sub(hash.len() + 1);
    let mut cut: String = prefix.chars().filter(char::is_ascii).take(room).collect();
    while cut.ends_with(['-', '.']) {
        cut.pop();
    }
    format!("{cut}-{hash}")
}

/// Text from elsewhere made safe for a terminal: control and bidirectional characters are shown escaped.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n' && c != '\t') || bidi {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The word of `known` that `typed` was probably meant to be.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&typed.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_door() {
        for good in ["shop/data", "shop/data-db-0", "a/b.c"] {
            assert!(PvcRef::parse(good).is_ok(), "{good}");
        }
        for bad in ["data", "a/b/c", "../x", "a.b/c", "A/b", "a/-b", "a/b-", "a/", "/b", "a/b..c", "a/b\u{1b}"] {
            assert!(PvcRef::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_names_stay_unique_and_legal() {
        let (a, b) = (short_name(&"x".repeat(300), "one", 63), short_name(&"x".repeat(300), "two", 63));
        assert!(a.len() <= 63 && label_name(&a).is_ok());
        assert_ne!(a, b);
        assert!(label_name(&short_name("a.-", "one", 63)).is_ok());
    }

    #[test]
    fn escapes_never_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\u{202e}c"), "a\\u{1b}[31mb\\u{202e}c");
    }

    #[test]
    fn near_misses_are_recognised() {
        assert_eq!(did_you_mean("scal", ["scale", "sleep", "start"]), Some("scale"));
        assert_eq!(did_you_mean("zzz", ["scale"]), None);
    }
}
