//! The only loops that wait. Each has a condition, a deadline and a way to be cancelled; none trusts a watch alone.

use super::{Cluster, Error, Resource};
use crate::words::{Json, Kind, Problem, clock::Deadline};
use futures::{StreamExt, TryStreamExt};
use http::Request;
use kube::core::WatchEvent;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A watch that says nothing for so long is not believed: the state is read again.
const IDLE: Duration = Duration::from_secs(15);
/// After an error of a watch.
const BREATH: Duration = Duration::from_millis(500);

/// What a condition makes of what it sees.
pub enum Seen<T> {
    /// The wait is over.
    Done(T),
    /// It can never be over.
    Hopeless(Problem),
    /// Not yet: what is missing, for the message at the deadline.
    NotYet(String),
}

/// Passes time. For retries only: whoever waits for something says for what.
#[expect(clippy::disallowed_methods, reason = "this is the wait")]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Passes time for a script, unless cancelled.
pub async fn sleep(duration: Duration, cancel: &CancellationToken) -> Result<(), Problem> {
    tokio::select! {
        () = pause(duration) => Ok(()),
        () = cancel.cancelled() => Err(interrupted()),
    }
}

pub fn interrupted() -> Problem {
    Problem::new(Kind::Interrupted, "interrupted")
}

/// Names one object to wait for.
#[derive(Clone, Debug)]
pub struct One<'a> {
    pub resource: Resource,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Cluster {
    /// Waits until `condition` is done with one object, which it sees anew after every change.
    ///
    /// # Errors
    /// `Timeout` with what was missing, `Interrupted`, what the condition calls hopeless, or a read that failed for good.
    pub async fn wait_for<T>(
        &self,
        one: &One<'_>,
        deadline: Deadline,
        cancel: &CancellationToken,
        what: &str,
        mut condition: impl FnMut(Option<&Json>) -> Seen<T>,
    ) -> Result<T, Problem> {
        let selector = format!("metadata.name={}", one.name);
        loop {
            let object = self
                .find(&one.resource, one.namespace, one.name)
                .await
                .map_err(|e| e.problem(&format!("wait until {what}"), None))?;
            let missing = match condition(object.as_ref()) {
                Seen::Done(value) => return Ok(value),
                Seen::Hopeless(problem) => return Err(problem),
                Seen::NotYet(missing) => missing,
            };
            let version = object.as_ref().and_then(|o| o["metadata"]["resourceVersion"].as_str()).unwrap_or_default();
            let query = [("fieldSelector", selector.as_str())];
            self.until_something_happens(
                &one.resource,
                one.namespace,
                &query,
                version,
                deadline,
                cancel,
                what,
                &missing,
            )
            .await?;
        }
    }

    /// Waits until `condition` is done with all objects that match `query`.
    ///
    /// # Errors
    /// As [`Cluster::wait_for`].
    #[expect(clippy::too_many_arguments, reason = "a wait is said in one sentence: where, how long, for what")]
    pub async fn wait_for_all<T>(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &[(&str, &str)],
        deadline: Deadline,
        cancel: &CancellationToken,
        what: &str,
        mut condition: impl FnMut(&[Json]) -> Seen<T>,
    ) -> Result<T, Problem> {
        loop {
            let (objects, version) = self
                .list(resource, namespace, query)
                .await
                .map_err(|e| e.problem(&format!("wait until {what}"), None))?;
            let missing = match condition(&objects) {
                Seen::Done(value) => return Ok(value),
                Seen::Hopeless(problem) => return Err(problem),
                Seen::NotYet(missing) => missing,
            };
            self.until_something_happens(resource, namespace, query, &version, deadline, cancel, what, &missing)
                .await?;
        }
    }

    /// Returns when a watch reports anything, ends, fails or stays silent: the caller reads again.
    #[expect(clippy::too_many_arguments, reason = "private: the two waits above share it")]
    async fn until_something_happens(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &[(&str, &str)],
        version: &str,
        deadline: Deadline,
        cancel: &CancellationToken,
        what: &str,
        missing: &str,
    ) -> Result<(), Problem> {
        let limit = deadline.left().min(IDLE);
        if limit.is_zero() {
            return Err(Problem::new(
                Kind::Timeout,
                format!("gave up waiting until {what} after {} s: {missing}", deadline.timeout.as_secs()),
            )
            .retryable());
        }
        let event = async {
            match self.watch_once(resource, namespace, query, version).await {
                Ok(()) => {}
                Err(e) => {
                    tracing::debug!("watching {}: {e}", resource.plural);
                    pause(BREATH).await;
                }
            }
        };
        tokio::select! {
            () = event => Ok(()),
            () = pause(limit) => Ok(()),
            () = cancel.cancelled() => Err(interrupted()),
        }
    }

    /// Returns at the first event that is not a bookmark, or when the stream ends.
    async fn watch_once(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &[(&str, &str)],
        version: &str,
    ) -> Result<(), Error> {
        let mut stream = self.watch(resource, namespace, query, version).await?;
        while let Some(event) = stream.try_next().await? {
            if !matches!(event, WatchEvent::Bookmark(_)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A watch from `version`, with bookmarks. The caller keeps the idle deadline.
    pub(super) async fn watch(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &[(&str, &str)],
        version: &str,
    ) -> Result<std::pin::Pin<Box<dyn futures::Stream<Item = Result<WatchEvent<Json>, Error>> + Send>>, Error> {
        self.requests().watches.fetch_add(1, Ordering::Relaxed);
        let mut query = query.to_vec();
        query.extend([("watch", "true"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", "290")]);
        if !version.is_empty() {
            query.push(("resourceVersion", version));
        }
        let request =
            Request::get(super::connect::url(&resource.path(namespace, ""), &query)).body(Vec::new()).map_err(|e| {
                Error::Unknown { what: "the path of the watch is not valid".into(), source: Some(Box::new(e)) }
            })?;
        let opening = self.client().request_events::<Json>(request);
        let stream = tokio::time::timeout(Duration::from_secs(super::connect::REQUEST_S), opening)
            .await
            .map_err(|_| Error::unknown("no answer to the watch"))??;
        Ok(Box::pin(stream.map(|event| event.map_err(Error::from))))
    }
}
