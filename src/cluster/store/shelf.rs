//! ConfigMaps of ours in one namespace, surely written: after no answer a read decides before anything else is sent.
//!
//! Who else may write there: people put labels on things, and that stops nothing. What must stay true: data that another
//! process wrote is never replaced, and nothing is sent anew before it was read what became of it.

use super::line::RECORD;
use crate::cluster::connect::Reviewed;
use crate::cluster::keep::{Bookkeeping, Kept};
use crate::cluster::{Cluster, Error, RUN, text, wait};
use crate::words::clock::{Clock, Deadline};
use crate::words::{Json, Kind, Problem, RunId};
use serde_json::json;
use std::time::Duration;

/// How long a record is tried to be written while the server is away.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIG_MAPS: Reviewed = ("", "configmaps", "");

#[derive(Clone)]
pub struct Shelf {
    pub cluster: Cluster,
    pub namespace: String,
}

/// A record as it is to be.
pub struct Wanted {
    pub name: String,
    pub data: Json,
    pub sealed: bool,
    pub annotations: Json,
}

impl Wanted {
    pub fn new(name: String, data: Json) -> Self {
        Wanted { name, data, sealed: false, annotations: Json::Null }
    }

    pub fn sealed(self) -> Self {
        Wanted { sealed: true, ..self }
    }
}

fn is_as(found: &Json, data: &Json, sealed: bool) -> bool {
    found["data"] == *data && (found["immutable"] == true) == sealed
}

impl Shelf {
    /// Refuses unless everything that a journal here needs is allowed.
    ///
    /// # Errors
    /// `Forbidden`, with exactly what is missing.
    pub async fn check_rights(&self) -> Result<(), Problem> {
        let mut missing = Vec::new();
        for verb in ["create", "delete", "get", "list", "update"] {
            let allowed = self.cluster.may(verb, CONFIG_MAPS, &self.namespace).await;
            if !allowed.map_err(|e| e.problem("ask for our rights on ConfigMaps", None))? {
                missing.push(verb);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Kind::Forbidden,
            format!(
                "the journal cannot be kept in namespace `{}`: missing rights on configmaps: {}",
                self.namespace,
                missing.join(", ")
            ),
        )
        .hint("grant them, or name another namespace: --run-namespace NAMESPACE")
        .hint("or keep the run in a directory: --store dir"))
    }

    /// Reads one by its name.
    ///
    /// # Errors
    /// If the server does not let us, or is away.
    pub async fn read(&self, name: &str) -> Result<Option<Json>, Problem> {
        let found = self.cluster.find(&Kept::ConfigMap.resource(), &self.namespace, name).await;
        found.map_err(|e| self.problem(&e, "read"))
    }

    /// Every record of a run that says by its label that it holds `what`.
    ///
    /// # Errors
    /// As [`Shelf::read`].
    pub async fn list(&self, run: &RunId, what: &str) -> Result<Vec<Json>, Problem> {
        let selector = match what {
            "" => format!("{RUN}={run}"),
            what => format!("{RUN}={run},{RECORD}={what}"),
        };
        let query = [("labelSelector", selector.as_str())];
        let listed = self.cluster.list(&Kept::ConfigMap.resource(), &self.namespace, &query).await;
        listed.map(|(records, _)| records).map_err(|e| self.problem(&e, "read"))
    }

    /// Makes a record that is not there yet.
    ///
    /// # Errors
    /// `Conflict` if another one has the name; what the server refuses; `Unreachable` if it stays away.
    pub async fn make(&self, run: &RunId, what: &str, wanted: &Wanted) -> Result<Json, Problem> {
        let mut record = json!({
            "metadata": {"name": wanted.name, "labels": {RUN: run.as_str(), RECORD: what}}, "data": wanted.data,
        });
        if wanted.annotations.is_object() {
            record["metadata"]["annotations"] = wanted.annotations.clone();
        }
        if wanted.sealed {
            record["immutable"] = true.into();
        }
        let deadline = Clock.deadline(PATIENCE);
        for attempt in 0.. {
            let made = self.cluster.keep(&Bookkeeping::default(), Kept::ConfigMap, &self.namespace, &record).await;
            let error = match made {
                Ok(made) => return Ok(made),
                Err(e) => e,
            };
            if error.is_definite() && !error.is_conflict() && !error.is_passing() {
                return Err(self.problem(&error, "write"));
            }
            match self.read(&wanted.name).await? {
                Some(found) if is_as(&found, &wanted.data, wanted.sealed) => return Ok(found),
                Some(_) => return Err(self.another(&wanted.name)),
                None => self.again(&error, attempt, deadline).await?,
            }
        }
        Err(self.another(&wanted.name))
    }

    /// Replaces a record, which is `before` as it was last seen.
    ///
    /// # Errors
    /// `Conflict` if another process wrote it or it is gone; what the server refuses; `Unreachable` if it stays away.
    pub async fn replace(&self, run: &RunId, what: &str, before: &Json, wanted: &Wanted) -> Result<Json, Problem> {
        let was_sealed = before["immutable"] == true;
        let mut metadata = before["metadata"].clone();
        let deadline = Clock.deadline(PATIENCE);
        for attempt in 0.. {
            // Labels of others stay, and ours come back.
            metadata["labels"][RUN] = run.as_str().into();
            metadata["labels"][RECORD] = what.into();
            let mut record = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": wanted.data,
            });
            for (name, value) in wanted.annotations.as_object().into_iter().flatten() {
                record["metadata"]["annotations"][name] = value.clone();
            }
            if wanted.sealed {
                record["immutable"] = true.into();
            }
            let replaced = self.cluster.keep_anew(&Bookkeeping::default(), Kept::ConfigMap, &record).await;
            let error = match replaced {
                Ok(replaced) => return Ok(replaced),
                Err(e) => e,
            };
            if error.says_not_found() {
                return Err(self.gone(&wanted.name));
            }
            if error.is_definite() && !error.is_conflict() && !error.is_passing() {
                return Err(self.problem(&error, "write"));
            }
            match self.read(&wanted.name).await? {
                None => return Err(self.gone(&wanted.name)),
                Some(found) if is_as(&found, &wanted.data, wanted.sealed) => return Ok(found),
                // It did not arrive, or somebody put a label on it.
                Some(found)
                    if is_as(&found, &before["data"], was_sealed)
                        && text(&found, "/metadata/uid") == text(before, "/metadata/uid") =>
                {
                    metadata = found["metadata"].clone();
                    self.again(&error, attempt, deadline).await?;
                }
                Some(_) => return Err(self.another(&wanted.name)),
            }
        }
        Err(self.another(&wanted.name))
    }

    /// Removes a record, whatever was written to it since.
    ///
    /// # Errors
    /// What the server refuses; `Unreachable` if it stays away.
    pub async fn remove(&self, record: &Json) -> Result<(), Problem> {
        let mut record = record.clone();
        let deadline = Clock.deadline(PATIENCE);
        for attempt in 0.. {
            let removed = self.cluster.keep_no_more(&Bookkeeping::default(), Kept::ConfigMap, &record).await;
            let error = match removed {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if error.is_definite() && !error.is_conflict() && !error.is_passing() {
                return Err(self.problem(&error, "remove"));
            }
            match self.read(text(&record, "/metadata/name")).await? {
                None => return Ok(()),
                Some(found) => record = found,
            }
            self.again(&error, attempt, deadline).await?;
        }
        Ok(())
    }

    async fn again(&self, error: &Error, attempt: u32, deadline: Deadline) -> Result<(), Problem> {
        if deadline.passed() {
            return Err(self.problem(error, "write"));
        }
        tracing::debug!("the journal in namespace {}: {error}: again", self.namespace);
        wait::pause(Duration::from_millis(20 << attempt.min(6))).await;
        Ok(())
    }

    fn problem(&self, error: &Error, doing: &str) -> Problem {
        error.problem(&format!("{doing} the journal in namespace `{}`", self.namespace), None)
    }

    fn another(&self, name: &str) -> Problem {
        Problem::new(Kind::Conflict, format!("another process writes the journal of this run (ConfigMap `{name}`)"))
            .object(format!("ConfigMap:{}/{name}", self.namespace))
            .hint("only one process executes a run: wait for the other one, or stop it first")
    }

    fn gone(&self, name: &str) -> Problem {
        Problem::new(
            Kind::Conflict,
            format!(
                "the journal of this run was removed: ConfigMap `{name}` in namespace `{}` is gone",
                self.namespace
            ),
        )
        .hint("nothing more is done: look at the objects that the run has in its hands (annotation pvmigrate.io/run)")
    }
}
