//! The cluster: the only part that speaks Kubernetes.
//!
//! Reads need nothing. Writes need a [`Permit`](crate::journal::Permit) and pass [`guard::admit`]; `send` is the only
//! place that issues POST, PATCH or DELETE on the user's objects. Per noun one file: what it is, and pure functions
//! that plan its writes. What must stay true: nothing here knows scripts, terminals or the order of a migration.

pub mod account;
pub mod clone;
pub mod connect;
mod dependents;
mod error;
pub mod guard;
pub mod keep;
pub mod kinds;
pub mod lease;
pub mod ledger;
pub mod preflight;
pub mod proof;
pub mod pv;
pub mod pvc;
pub mod quota;
pub mod rbac;
pub mod relabel;
mod seen;
pub mod send;
pub mod store;
pub mod units;
pub mod vigil;
pub mod wait;
pub mod workload;

pub use connect::{Cluster, Target, connect, over};
pub use dependents::before_free;
pub use error::Error;
pub use kinds::{Resource, known};
pub use lease::Lease;
pub use ledger::{Fact, Ledger};
pub use send::Door;
pub use vigil::{Vigil, Vigils};

use crate::words::Json;

/// Marks of ours on objects. The run that touched or made it:
pub const RUN: &str = "pvmigrate.io/run";
/// The step that wrote last.
pub const STEP: &str = "pvmigrate.io/step";
/// The reclaim policy from before.
pub const POLICY: &str = "pvmigrate.io/policy";
/// The replicas from before.
pub const REPLICAS: &str = "pvmigrate.io/replicas";

/// The text at a JSON pointer, or nothing.
pub fn text<'a>(object: &'a Json, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

pub fn uid(object: &Json) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn finalizers(object: &Json) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// True if a finalizer is one that storage itself puts there and takes away.
pub fn is_storage_finalizer(finalizer: &str) -> bool {
    matches!(
        finalizer,
        "kubernetes.io/pvc-protection"
            | "kubernetes.io/pv-protection"
            | "kubernetes.io/pv-controller"
            | "external-provisioner.volume.kubernetes.io/finalizer"
            | "provisioner.storage.kubernetes.io/cloning-protection"
    ) || finalizer.starts_with("external-attacher/")
}
