//! The patches of the API: JSON patch, JSON merge patch and strategic merge patch, each a function of an object and a patch.
//!
//! It knows no schema beyond the merge rules: whether the result is a valid object is asked afterwards, by the caller.
//! The request pipeline calls it. It answers as Kubernetes 1.20 does, also where later versions do better, and what
//! Kubernetes would get wrong without saying so (a directive in a list without merge key) is refused.

mod directives;
mod json;
mod merge;
mod order;
mod settle;
mod strategic;
mod strategies;

use super::status::Status;
use serde_json::json;

pub use json::json_patch;
pub use merge::merge_patch;
pub use settle::settle;
pub use strategic::{go, strategic_merge};

/// Why a patch was not applied; [`PatchError::code`], [`PatchError::reason`] and the text make the Status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself cannot be read: 400.
    #[error("{0}")]
    Malformed(String),
    /// A well-formed JSON patch whose test or path does not fit the object: 422, with empty `details`.
    #[error("the server rejected our request due to an error in our request")]
    Failed,
    /// More operations than one JSON patch may have: 413.
    #[error("Request entity too large: The allowed maximum operations in a JSON patch is 10000, got {0}")]
    TooLarge(usize),
    /// A strategic merge patch that cannot be merged; Kubernetes answers 500 without a reason.
    #[error("{0}")]
    Unmergeable(String),
    /// A patch that Kubernetes applies in a way nobody means: refused with 400.
    #[error("{0}")]
    Unsupported(String),
    /// A strategic merge patch for a kind without merge rules, such as a custom resource: 415.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json"
    )]
    UnknownKind,
}

impl PatchError {
    /// The HTTP status, which is also the Status' `code`.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Unsupported(_) => 400,
            Self::Failed => 422,
            Self::TooLarge(_) => 413,
            Self::Unmergeable(_) => 500,
            Self::UnknownKind => 415,
        }
    }

    /// The Status' `reason`; some answers of Kubernetes have none.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) | Self::Unsupported(_) => Some("BadRequest"),
            Self::Failed => Some("Invalid"),
            Self::TooLarge(_) => Some("RequestEntityTooLarge"),
            Self::Unmergeable(_) => None,
            Self::UnknownKind => Some("UnsupportedMediaType"),
        }
    }

    /// As the API answers it.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = Status::new(self.code(), self.reason().unwrap_or_default(), self.to_string());
        if *self == Self::Failed { status.details(json!({})) } else { status }
    }
}
