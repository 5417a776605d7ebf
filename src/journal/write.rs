//! A write as a value: planned by a pure function, journaled whole, sent by one function.

use crate::words::{Json, ObjectRef};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// POST of `body`.
    Create,
    /// PATCH with `body` as JSON merge patch.
    Patch,
    /// DELETE; `body` holds options such as `propagationPolicy`.
    Delete,
}

/// Group, version and kind as an API server names them; the group of core kinds is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gvk {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What must still be true of the object when the write arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    /// The object does not exist (POST).
    Absent,
    /// It is this very object, whatever changed in it; the guards' fresh read supplies the resourceVersion.
    Uid(String),
    /// It is this very object in this very state.
    Version { uid: String, resource_version: String },
}

impl Precondition {
    pub fn uid(&self) -> Option<&str> {
        match self {
            Precondition::Absent => None,
            Precondition::Uid(uid) | Precondition::Version { uid, .. } => Some(uid),
        }
    }
}

/// What kind of effect a write has, for plans and undo. Guards look at the content; of this they take only that a volume is
/// to be given up, which no other write may do by the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Its inverse puts the object back as it was.
    Reversible,
    /// It makes or removes an object that only this run uses.
    Own,
    /// It is part of the swap: undone only by switching back.
    Swap,
    /// It gives up a volume.
    Free,
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub verb: Verb,
    pub gvk: Gvk,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub body: Json,
    pub precondition: Precondition,
    /// What would take it back, in the order to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inverse: Vec<Write>,
    pub class: Class,
}

impl Write {
    pub fn object(&self) -> ObjectRef {
        ObjectRef::new(&self.gvk.kind, &self.namespace, &self.name)
    }

    /// A digest of everything that is sent.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("a write is plain data: nothing in it can fail to serialise");
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Create => "create",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        };
        write!(f, "{verb} {}", self.object())
    }
}
