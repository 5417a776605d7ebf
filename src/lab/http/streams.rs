//! Watches: lines as the commits come.

use super::{Body, Response};
use crate::lab::core::Core;
use crate::lab::handle::{Selectors, bad_option, bad_options, flag, number_of};
use crate::lab::kind::Kind;
use crate::lab::negotiate::Answer;
use crate::lab::status::{Cause, Status};
use crate::lab::table::{self, Include};
use crate::lab::watch::{Event, Watch};
use crate::words::clock::{Clock, Deadline};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Without a wish of the client's.
const LASTS: Duration = Duration::from_secs(45 * 60);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Stream {
    core: Arc<Core>,
    watch: Watch,
    revisions: tokio::sync::watch::Receiver<u64>,
    ends: Deadline,
    bookmarks: bool,
    kind: &'static Kind,
    shape: Answer,
    include: Include,
    is_first: bool,
    is_over: bool,
}

pub fn watch(
    core: &Arc<Core>,
    kind: &'static Kind,
    namespace: &str,
    query: &BTreeMap<String, String>,
    shape: Answer,
) -> Result<Response, Status> {
    let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    if !asked("resourceVersionMatch").is_empty() {
        let mut details = vec!["resourceVersionMatch is forbidden for watch"];
        if asked("resourceVersion").is_empty() {
            details.push("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        let causes: Vec<Cause> =
            details.into_iter().map(|detail| Cause::forbidden("resourceVersionMatch", detail)).collect();
        return Err(bad_options("ListOptions", &causes));
    }
    if !asked("sendInitialEvents").is_empty() {
        // To ignore it would leave the client waiting for a bookmark that never comes.
        let detail = "sendInitialEvents is forbidden for watch";
        return Err(bad_option("ListOptions", Cause::forbidden("sendInitialEvents", detail)));
    }
    let since = match asked("resourceVersion") {
        "" | "0" => None,
        version => Some(version.parse::<u64>().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
            Status::new(500, "", format!("resourceVersion: Invalid value: \"{version}\": {why}"))
        })?),
    };
    let lasts = number_of::<i64>(query, "timeoutSeconds")?
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(LASTS, Duration::from_secs);
    let watch = Watch::new(kind, namespace, Selectors::of(kind, query)?, since);
    let stream = Stream {
        core: core.clone(),
        watch,
        revisions: core.revisions.subscribe(),
        ends: Clock.deadline(if lasts.is_zero() { LASTS } else { lasts }),
        bookmarks: query.get("allowWatchBookmarks").is_some_and(|text| flag(text)),
        kind,
        shape,
        include: super::included(query)?,
        is_first: true,
        is_over: false,
    };
    let frames = futures::stream::unfold(stream, |mut stream| async {
        let lines = stream.lines().await?;
        Some((Ok(Frame::data(Bytes::from(lines))), stream))
    });
    let body: Body = StreamBody::new(frames.fuse()).boxed_unsync();
    Ok(http::Response::builder()
        .status(200)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("code and content type are constants that fit"))
}

impl Stream {
    /// The next lines; nothing when it is over.
    async fn lines(&mut self) -> Option<String> {
        loop {
            if self.is_over {
                return None;
            }
            self.revisions.mark_unchanged();
            // What could not be written down has not happened.
            if self.core.broken().is_some() {
                return None;
            }
            let (watch, core) = (&mut self.watch, &self.core);
            let (events, now) = core.look(|state| (watch.next(state), state.now()));
            self.is_over = events.last().is_some_and(|event| event.word == "ERROR");
            if !events.is_empty() {
                return Some(events.iter().map(|event| self.line(event, now)).collect());
            }
            let pause = self.ends.left().min(BOOKMARK_EVERY);
            if pause.is_zero() {
                return None;
            }
            match tokio::time::timeout(pause, self.revisions.changed()).await {
                Ok(Ok(())) => {}
                // The lab has ended.
                Ok(Err(_)) => return None,
                Err(_) => {
                    self.is_over = self.ends.passed();
                    if self.bookmarks {
                        let bookmark = self.watch.bookmark();
                        return Some(self.line(&bookmark, now));
                    }
                }
            }
        }
    }

    fn line(&mut self, event: &Event, now: jiff::Timestamp) -> String {
        let is_plain = matches!(event.word, "ERROR" | "BOOKMARK");
        let shown = match self.shape {
            Answer::Table(version) if event.word != "ERROR" => {
                let columns = std::mem::take(&mut self.is_first);
                let metadata = json!({"resourceVersion": event.object["metadata"]["resourceVersion"]});
                Some(table::table(self.kind.kind, version, &[&event.object], &metadata, self.include, columns, now))
            }
            Answer::Partial { version, .. } if !is_plain => Some(table::partial(&event.object, version)),
            _ => None,
        };
        let line = json!({"type": event.word, "object": shown.as_ref().unwrap_or(&event.object)});
        format!("{line}\n")
    }
}
