//! What the fields of each kind may say, and what they say when nobody said anything.
//!
//! Pure functions over one object (and the one before it). Not admission, which looks at other objects (`admit`), and
//! not behaviour (`act`). Called by `handle` in this order: `unsimulated`, `default`, `prepare`, `validate`.

mod config_map;
mod container;
mod daemon_set;
mod deployment;
pub mod field;
mod inert;
mod job;
pub mod known;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod plain;
mod pod;
mod pod_limits;
mod pod_spec;
mod rbac;
mod replica_set;
mod resource_quota;
mod secret;
pub mod selector;
mod stateful_set;
mod storage_class;
#[cfg(test)]
mod tests;

pub use pod::qos_class;

use super::status::Cause;
use serde_json::Value;

/// The rules of one kind. Objects come with `apiVersion`, `kind` and `metadata`; metadata itself is checked elsewhere.
#[derive(Debug)]
pub struct Rules {
    /// Fields that would change behaviour and that the lab would ignore. Not asked of objects that are marked inert.
    pub unsimulated: fn(&Value) -> Vec<Cause>,
    /// Fills in what was left out, on create and on every update.
    pub default: fn(&mut Value),
    /// The new object and the old one (`None` on create): what the client may not say is put right here, such as the
    /// status. Not called for subresources.
    pub prepare: fn(&mut Value, Option<&Value>),
    pub validate: fn(&Value) -> Vec<Cause>,
    /// New, old.
    pub validate_update: fn(&Value, &Value) -> Vec<Cause>,
    /// New, old: an update of `/status`.
    pub validate_status: fn(&Value, &Value) -> Vec<Cause>,
}

/// Anything goes.
pub const PLAIN: Rules = Rules {
    unsimulated: |_| Vec::new(),
    default: |_| {},
    prepare: |_, _| {},
    validate: |_| Vec::new(),
    validate_update: |_, _| Vec::new(),
    validate_status: |_, _| Vec::new(),
};

pub use config_map::RULES as CONFIG_MAP;
pub use daemon_set::RULES as DAEMON_SET;
pub use deployment::RULES as DEPLOYMENT;
pub use inert::{CRON_JOB, HORIZONTAL_POD_AUTOSCALER, REPLICATION_CONTROLLER};
pub use job::RULES as JOB;
pub use limit_range::RULES as LIMIT_RANGE;
pub use namespace::RULES as NAMESPACE;
pub use node::RULES as NODE;
pub use persistent_volume::RULES as PERSISTENT_VOLUME;
pub use persistent_volume_claim::RULES as PERSISTENT_VOLUME_CLAIM;
pub use plain::{CSI_DRIVER, EVENT, LEASE, VOLUME_ATTACHMENT};
pub use pod::RULES as POD;
pub use rbac::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
pub use replica_set::RULES as REPLICA_SET;
pub use resource_quota::RULES as RESOURCE_QUOTA;
pub use secret::{RULES as SECRET, is_base64};
pub use stateful_set::RULES as STATEFUL_SET;
pub use storage_class::RULES as STORAGE_CLASS;

/// Nothing of a ServiceAccount matters to the lab but that it is there.
pub const SERVICE_ACCOUNT: Rules = PLAIN;
