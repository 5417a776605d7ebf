//! Metadata that a person does without: a target that cannot hold it is no failure, and a difference in it is none.
//!
//! Pure; the words are those of `--waive`. Called by the host, which passes them on, and by the agent. What must stay
//! true: nothing is waived that was not named, and what was is counted.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One kind of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// POSIX ACLs: `system.posix_acl_access` and `system.posix_acl_default`.
    Acl,
    /// User and group.
    Owner,
    /// All other extended attributes.
    Xattr,
}

pub const KINDS: [Kind; 3] = [Kind::Acl, Kind::Owner, Kind::Xattr];

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Acl => "acl",
            Kind::Owner => "owner",
            Kind::Xattr => "xattr",
        }
    }

    /// The kind of an attribute.
    pub fn of_attribute(name: &[u8]) -> Kind {
        if name.starts_with(b"system.posix_acl_") { Kind::Acl } else { Kind::Xattr }
    }

    /// The kind of a difference, by its `what`. `None`: it can never be waived.
    pub fn of_difference(what: &str) -> Option<Kind> {
        match what {
            "uid" | "gid" => Some(Kind::Owner),
            _ => what.strip_prefix("xattr ").map(|name| Kind::of_attribute(name.as_bytes())),
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waive(u8);

impl Waive {
    pub const NOTHING: Waive = Waive(0);

    pub fn of(kinds: impl IntoIterator<Item = Kind>) -> Waive {
        Waive(kinds.into_iter().fold(0, |all, kind| all | 1 << kind as u8))
    }

    /// By their words; the first that is none.
    ///
    /// # Errors
    /// With the word that is no kind.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Waive, &'a str> {
        let kind = |word| KINDS.into_iter().find(|kind| kind.word() == word).ok_or(word);
        words.into_iter().map(kind).collect::<Result<Vec<_>, _>>().map(Waive::of)
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn kinds(self) -> Vec<Kind> {
        KINDS.into_iter().filter(|kind| self.has(*kind)).collect()
    }

    pub fn words(self) -> Vec<&'static str> {
        self.kinds().into_iter().map(Kind::word).collect()
    }
}

/// How many entries are without something: by kind, each entry once.
pub type Waived = BTreeMap<Kind, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_waived_is_this() {
        for (what, kind) in [
            ("uid", Some(Kind::Owner)),
            ("gid", Some(Kind::Owner)),
            ("xattr user.a", Some(Kind::Xattr)),
            ("xattr security.capability", Some(Kind::Xattr)),
            ("xattr system.posix_acl_access", Some(Kind::Acl)),
            ("xattr system.posix_acl_default", Some(Kind::Acl)),
            ("mode", None),
            ("mtime", None),
            ("content", None),
            ("missing", None),
            ("type", None),
            ("hard link", None),
        ] {
            assert_eq!(Kind::of_difference(what), kind, "{what}");
        }
        assert_eq!(Waive::parse(["xattr", "owner"]).unwrap().words(), ["owner", "xattr"]);
        assert_eq!(Waive::parse(["xattr", "mode"]), Err("mode"));
        let all = Waive::of(KINDS);
        assert!(KINDS.iter().all(|kind| all.has(*kind) && !Waive::NOTHING.has(*kind)));
        assert_eq!(serde_json::to_string(&Waived::from([(Kind::Owner, 2)])).unwrap(), r#"{"owner":2}"#);
    }
}
