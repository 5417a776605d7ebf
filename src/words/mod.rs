//! The words that every layer shares: names, sizes, time, what a person is told.
//!
//! Nothing here knows Kubernetes' API, Rhai or a terminal. Everybody may use it.

pub mod clock;
pub mod names;
pub mod problem;
pub mod size;
pub mod voice;

pub use names::{ObjectRef, PvcRef, RunId};
pub use problem::{Kind, Place, Problem};
pub use voice::{Progress, Voice};

/// A JSON object as the API server sent it.
pub type Json = serde_json::Value;
