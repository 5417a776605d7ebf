//! The only loops that wait. Each has a condition, a deadline and a way to be cancelled; none trusts a watch alone.

use super::{Cluster, Error, Resource, text, uid};
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
pub const BREATH: Duration = Duration::from_millis(500);

/// How often it is looked at why something does not come to its end.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

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
pub(crate) async fn pause(duration: Duration) {
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
    /// The object as an answer just showed it: the watch begins there. Absent: it is read first.
    pub seen: Option<&'a Json>,
}

/// Names the objects to wait for together.
#[derive(Clone, Debug)]
pub struct All<'a> {
    pub resource: Resource,
    pub namespace: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    /// What a list just said, and its version: the watch begins there and misses nothing. Absent: they are listed first.
    pub seen: Option<(Vec<Json>, String)>,
}

/// One stretch of a wait: what is watched, and what was missing when it was last looked at.
struct Round<'a> {
    resource: &'a Resource,
    namespace: &'a str,
    query: &'a [(&'a str, &'a str)],
    deadline: Deadline,
    cancel: &'a CancellationToken,
    what: &'a str,
    missing: String,
}

impl Round<'_> {
    fn given_up(&self) -> Problem {
        let seconds = self.deadline.timeout.as_secs();
        Problem::new(Kind::Timeout, format!("gave up waiting until {} after {seconds} s: {}", self.what, self.missing))
            .retryable()
    }
}

impl Cluster {
    /// Waits until `condition` is done with one object: as it is read, then as every event of a watch shows it.
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
        let query = [("fieldSelector", selector.as_str())];
        let (resource, namespace) = (&one.resource, one.namespace);
        let mut seen = one.seen.cloned();
        loop {
            let object = match seen.take() {
                Some(seen) => Some(seen),
                None => self
                    .find(resource, namespace, one.name)
                    .await
                    .map_err(|e| e.problem(&format!("wait until {what}"), None))?,
            };
            let missing = match condition(object.as_ref()) {
                Seen::Done(value) => return Ok(value),
                Seen::Hopeless(problem) => return Err(problem),
                Seen::NotYet(missing) => missing,
            };
            // Of what is not there no version is known, and a watch without one may begin with the past.
            let version = object.as_ref().map(|object| text(object, "/metadata/resourceVersion").to_owned());
            let round = Round { resource, namespace, query: &query, deadline, cancel, what, missing };
            let seen = |event| match event {
                _ if version.is_none() => None,
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(condition(Some(&object))),
                WatchEvent::Deleted(_) => Some(condition(None)),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => None,
            };
            match self.follow(round, version.as_deref().unwrap_or_default(), seen).await? {
                Some(value) => return Ok(value),
                None => continue,
            }
        }
    }

    /// Waits until `condition` is done with all objects: as they are listed, then as every event of a watch changes the
    /// list.
    ///
    /// # Errors
    /// As [`Cluster::wait_for`].
    pub async fn wait_for_all<T>(
        &self,
        all: All<'_>,
        deadline: Deadline,
        cancel: &CancellationToken,
        what: &str,
        mut condition: impl FnMut(&[Json]) -> Seen<T>,
    ) -> Result<T, Problem> {
        let All { resource, namespace, query, mut seen } = all;
        loop {
            let (mut objects, version) = match seen.take() {
                Some(seen) => seen,
                None => self
                    .list(&resource, namespace, query)
                    .await
                    .map_err(|e| e.problem(&format!("wait until {what}"), None))?,
            };
            let missing = match condition(&objects) {
                Seen::Done(value) => return Ok(value),
                Seen::Hopeless(problem) => return Err(problem),
                Seen::NotYet(missing) => missing,
            };
            let round = Round { resource: &resource, namespace, query, deadline, cancel, what, missing };
            let seen = |event| {
                let (object, stays) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                    WatchEvent::Deleted(object) => (object, false),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return None,
                };
                objects.retain(|other| uid(other) != uid(&object));
                if stays {
                    objects.push(object);
                }
                Some(condition(&objects))
            };
            if let Some(value) = self.follow(round, &version, seen).await? {
                return Ok(value);
            }
        }
    }

    /// Follows a watch until `seen` is done with an event. `None`: the watch ended, failed, stayed silent or showed what
    /// only a fresh read explains, so the caller reads again.
    async fn follow<T>(
        &self,
        mut round: Round<'_>,
        version: &str,
        mut seen: impl FnMut(WatchEvent<Json>) -> Option<Seen<T>>,
    ) -> Result<Option<T>, Problem> {
        let mut stream = None;
        loop {
            let limit = round.deadline.left().min(IDLE);
            if limit.is_zero() {
                return Err(round.given_up());
            }
            let next = async {
                let stream = match &mut stream {
                    Some(stream) => stream,
                    None => stream.insert(self.watch(round.resource, round.namespace, round.query, version).await?),
                };
                stream.try_next().await
            };
            let event = tokio::select! {
                event = next => event,
                () = pause(limit) => return Ok(None),
                () = round.cancel.cancelled() => return Err(interrupted()),
            };
            match event {
                Ok(Some(WatchEvent::Bookmark(_))) => {}
                Ok(Some(event)) => match seen(event) {
                    Some(Seen::Done(value)) => return Ok(Some(value)),
                    Some(Seen::Hopeless(problem)) => return Err(problem),
                    Some(Seen::NotYet(missing)) => round.missing = missing,
                    None => return self.breathe(&round).await,
                },
                Ok(None) => return self.breathe(&round).await,
                Err(e) => {
                    tracing::debug!("watching {}: {e}", round.resource.plural);
                    return self.breathe(&round).await;
                }
            }
        }
    }

    /// Before another read: whatever ended a watch may end the next one at once.
    async fn breathe<T>(&self, round: &Round<'_>) -> Result<Option<T>, Problem> {
        sleep(BREATH.min(round.deadline.left()), round.cancel).await.map(|()| None)
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
        tracing::trace!("WATCH {} {namespace} {query:?}", resource.plural);
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
        let cluster = self.clone();
        Ok(Box::pin(stream.map(move |event| {
            if let Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) = &event {
                cluster.has_seen(object);
            }
            event.map(slimmed).map_err(Error::from)
        })))
    }
}

/// Events carry objects as the server has them.
fn slimmed(event: WatchEvent<Json>) -> WatchEvent<Json> {
    match event {
        WatchEvent::Added(object) => WatchEvent::Added(super::connect::slim(object)),
        WatchEvent::Modified(object) => WatchEvent::Modified(super::connect::slim(object)),
        WatchEvent::Deleted(object) => WatchEvent::Deleted(super::connect::slim(object)),
        other => other,
    }
}
