//! A journal in the cluster as it grows, for whoever looks on: a watch over the segment that is open.

use super::line::{self, Said};
use super::shelf::Shelf;
use super::{read, runs};
use crate::cluster::keep::{Kept, job_is_over};
use crate::cluster::wait::{One, Seen};
use crate::cluster::{RUN, text};
use crate::journal::{Event, RunFile, T};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, RunId};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long nothing may come before it is asked whether anybody is at work.
const SILENCE: Duration = Duration::from_secs(5);
/// A run without a Lease that nothing comes of for so long is nobody's.
const NOBODY: Duration = Duration::from_secs(30);

/// What was read of a run so far.
pub struct Tail {
    shelf: Shelf,
    run: RunId,
    number: u64,
    lines: usize,
    /// The last record closed the run.
    ended: bool,
    quiet_since: Instant,
    /// The Lease's version, and since when it is that.
    lease: (String, Instant),
}

impl Tail {
    /// # Errors
    /// If the run is unknown or damaged.
    pub async fn begin(shelf: Shelf, run: &RunId) -> Result<(RunFile, Self), Problem> {
        let head = read::head(&shelf, run).await?.ok_or_else(|| runs::unknown(run, &shelf.namespace))?;
        let now = Clock.monotonic();
        let (lease, quiet_since) = ((String::new(), now), now);
        Ok((head.file, Tail { shelf, run: run.clone(), number: 1, lines: 0, ended: false, quiet_since, lease }))
    }

    /// The next records; `None` when nobody is at work on the run any more.
    ///
    /// # Errors
    /// If the journal is damaged or cannot be read.
    pub async fn next(&mut self, cancel: &CancellationToken) -> Result<Option<Vec<Event>>, Problem> {
        loop {
            // Asked first: what is written until the process ends is read.
            let at_work = self.is_at_work().await?;
            let events = self.look(if at_work { SILENCE } else { Duration::ZERO }, cancel).await?;
            if !events.is_empty() {
                self.quiet_since = Clock.monotonic();
                return Ok(Some(events));
            }
            if !at_work {
                return Ok(None);
            }
        }
    }

    /// What the open segment has that was not told yet, waiting for it so long.
    async fn look(&mut self, patience: Duration, cancel: &CancellationToken) -> Result<Vec<Event>, Problem> {
        loop {
            let name = line::segment_name(&self.run, self.number);
            let told = self.lines;
            let news = |map: &Json| text(map, "/data/records").lines().count() > told || map["immutable"] == true;
            let map = if patience.is_zero() {
                match self.shelf.read(&name).await? {
                    Some(map) if news(&map) => map,
                    _ => return Ok(Vec::new()),
                }
            } else {
                let one = One {
                    resource: Kept::ConfigMap.resource(),
                    namespace: &self.shelf.namespace,
                    name: &name,
                    seen: None,
                };
                let seen = |map: Option<&Json>| match map {
                    Some(map) if news(map) => Seen::Done(map.clone()),
                    _ => Seen::NotYet("nothing new".into()),
                };
                let deadline = Clock.deadline(patience);
                match self.shelf.cluster.wait_for(&one, deadline, cancel, "the run goes on", seen).await {
                    Ok(map) => map,
                    Err(problem) if problem.kind == Kind::Timeout => return Ok(Vec::new()),
                    Err(problem) => return Err(problem),
                }
            };
            let records = line::segment_records(&self.run, self.number, &map["data"])?;
            let mut events = Vec::new();
            for record in records.lines().skip(told) {
                let said = match line::decode(record)? {
                    Said::Text(digest) => line::decode(&read::text(&self.shelf, &self.run, &digest).await?)?,
                    said => said,
                };
                if let Said::Line(line) = said {
                    self.ended =
                        line.event.t == T::End && line.event.err.is_none() && !line.event.id.as_str().contains('/');
                    events.push(line.event);
                }
            }
            self.lines = records.lines().count();
            if map["immutable"] == true {
                (self.number, self.lines) = (self.number + 1, 0);
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn has_a_job(&self) -> Result<bool, Problem> {
        let (resource, name) = (Kept::Job.resource(), line::head_name(&self.run));
        match self.shelf.cluster.find(&resource, &self.shelf.namespace, &name).await {
            Ok(job) => {
                Ok(job.is_some_and(|job| job["metadata"]["labels"][RUN] == self.run.as_str() && !job_is_over(&job)))
            }
            // Whoever may not look at it has not made it.
            Err(e) if e.is_definite() => Ok(false),
            Err(e) => Err(e.problem(&format!("look at the Job of run {}", self.run), None)),
        }
    }

    /// Whether a process may still add something. A Lease counts as long as it changes, by our own clock.
    /// A Job that is not over makes pods until it is.
    async fn is_at_work(&mut self) -> Result<bool, Problem> {
        if !self.ended && self.has_a_job().await? {
            return Ok(true);
        }
        let head = read::head(&self.shelf, &self.run).await?;
        let Some(head) = head.filter(|head| !self.ended && !head.summary.writer.is_empty()) else { return Ok(false) };
        let (resource, name) = (Kept::Lease.resource(), line::head_name(&head.file.run));
        let lease = match self.shelf.cluster.find(&resource, &self.shelf.namespace, &name).await {
            Ok(lease) => lease,
            // Whoever may not look at it goes by what comes.
            Err(e) if e.code() == Some(403) => None,
            Err(e) => return Err(e.problem(&format!("look at the Lease of run {}", self.run), None)),
        };
        let Some(lease) = lease else { return Ok(self.quiet_since.elapsed() < NOBODY) };
        let version = text(&lease, "/metadata/resourceVersion");
        if self.lease.0 != version {
            self.lease = (version.to_owned(), Clock.monotonic());
        }
        let seconds = lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or_default();
        Ok(self.lease.1.elapsed() < Duration::from_secs(seconds))
    }
}
