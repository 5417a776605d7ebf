//! Our own records in the cluster: the ConfigMaps of a journal, Leases, and Jobs that execute runs. Nothing of the user's.
//!
//! They are no steps of a run: the journal itself is kept in them. So they have a door of their own, which opens for
//! three kinds and for names of ours only. Callers: the cluster's store of journals, and the fence. What must stay true:
//! a [`Bookkeeping`] is good for nothing else, and every replacement and deletion names uid and resourceVersion.

use super::{Cluster, Error, Resource, known, text, uid};
use crate::words::Json;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// What names of our records begin with.
pub const PREFIX: &str = "pvmigrate-";
/// The label that all of our records carry.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pvmigrate");

/// The kinds of our own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    ConfigMap,
    Lease,
    /// What executes a run in the cluster.
    Job,
}

/// Lets our own records be written, and nothing else.
#[derive(Debug, Default)]
pub struct Bookkeeping(());

impl Kept {
    pub fn resource(self) -> Resource {
        known(match self {
            Kept::ConfigMap => "ConfigMap",
            Kept::Lease => "Lease",
            Kept::Job => "Job",
        })
    }
}

impl Cluster {
    /// Makes a record. The answer may leave open whether it was made: the caller reads.
    ///
    /// # Errors
    /// As the server says; `AlreadyExists` is code 409.
    pub async fn keep(&self, _: &Bookkeeping, kind: Kept, namespace: &str, record: &Json) -> Result<Json, Error> {
        let resource = kind.resource();
        let mut body = record.clone();
        ours(text(&body, "/metadata/name"))?;
        body["apiVersion"] = Value::String(resource.gvk.api_version());
        body["kind"] = Value::String(resource.gvk.kind.clone());
        body["metadata"]["namespace"] = namespace.into();
        body["metadata"]["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
        self.write_record("POST", &resource.path(namespace, ""), &body).await
    }

    /// Replaces a record that is still as `record` was read: it carries uid and resourceVersion.
    ///
    /// # Errors
    /// As the server says; 409 if somebody else was faster.
    pub async fn keep_anew(&self, _: &Bookkeeping, kind: Kept, record: &Json) -> Result<Json, Error> {
        let (namespace, name) = (text(record, "/metadata/namespace"), text(record, "/metadata/name"));
        ours(name)?;
        if uid(record).is_empty() || text(record, "/metadata/resourceVersion").is_empty() {
            return Err(Error::unknown(format!("the record {name} was not read before it is replaced")));
        }
        self.write_record("PUT", &kind.resource().path(namespace, name), record).await
    }

    /// Removes a record that is still as it was read. One that is gone is removed.
    ///
    /// # Errors
    /// As the server says; 409 if it is another one by now.
    pub async fn keep_no_more(&self, _: &Bookkeeping, kind: Kept, record: &Json) -> Result<(), Error> {
        let (namespace, name) = (text(record, "/metadata/namespace"), text(record, "/metadata/name"));
        ours(name)?;
        let version = text(record, "/metadata/resourceVersion");
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": uid(record), "resourceVersion": version}});
        match self.write_record("DELETE", &kind.resource().path(namespace, name), &body).await {
            Err(e) if !e.says_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    async fn write_record(&self, method: &str, path: &str, body: &Json) -> Result<Json, Error> {
        self.requests().records.fetch_add(1, Ordering::Relaxed);
        let query: &[(&str, &str)] = if method == "DELETE" { &[] } else { &[("fieldManager", "pvmigrate")] };
        self.once(method, path, query, body.to_string().into_bytes(), Some("application/json")).await
    }
}

/// True if a Job makes no more pods and none of its is at work.
pub fn job_is_over(job: &Json) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|one| matches!(one["type"].as_str(), Some("Complete" | "Failed")) && one["status"] == "True")
}

fn ours(name: &str) -> Result<(), Error> {
    if name.starts_with(PREFIX) {
        Ok(())
    } else {
        Err(Error::unknown(format!("`{name}` is no name of a record of ours")))
    }
}
