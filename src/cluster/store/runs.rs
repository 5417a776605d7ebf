//! The runs that are kept in a cluster: found, listed, looked into, forgotten.

use super::line::{self, RECORD};
use super::read;
use super::shelf::Shelf;
use crate::cluster::keep::Kept;
use crate::cluster::{Cluster, Error, text};
use crate::journal::{Event, RunFile, RunListing, RunStatus};
use crate::words::{Json, Problem, RunId};
use std::path::PathBuf;

/// Where runs were looked for.
pub enum Found {
    /// In this namespace.
    In(String),
    /// Not there; the places in words.
    Nowhere(String),
}

/// Looks for a run: in `namespace` if one is given, else in the context's and then, if that is allowed, in all.
///
/// # Errors
/// If the server is away, or does not let us look anywhere.
pub async fn find(cluster: &Cluster, run: &RunId, namespace: Option<&str>) -> Result<Found, Problem> {
    let first = namespace.unwrap_or(cluster.default_namespace());
    let (resource, name) = (Kept::ConfigMap.resource(), line::head_name(run));
    let problem = |e: &Error| e.problem(&format!("look for run {run} in the cluster"), None);
    let here = cluster.find(&resource, first, &name).await;
    match (&here, namespace) {
        (Ok(Some(_)), _) => return Ok(Found::In(first.to_owned())),
        (Ok(None), Some(_)) => return Ok(Found::Nowhere(format!("namespace `{first}`"))),
        (Err(e), Some(_)) => return Err(problem(e)),
        (Err(e), None) if e.code() != Some(403) => return Err(problem(e)),
        (_, None) => {}
    }
    let selector = format!("metadata.name={name}");
    match cluster.list(&resource, "", &[("fieldSelector", &selector)]).await {
        Ok((found, _)) => {
            let places: Vec<&str> = found.iter().map(|head| text(head, "/metadata/namespace")).collect();
            match places.as_slice() {
                [] => Ok(Found::Nowhere("all namespaces".into())),
                [one] => Ok(Found::In((*one).to_owned())),
                several => Err(Problem::usage(format!("run {run} is in several namespaces: {}", several.join(", ")))
                    .hint("name the right one: --run-namespace NAMESPACE")),
            }
        }
        Err(e) if e.code() == Some(403) => match here {
            Ok(_) => Ok(Found::Nowhere(format!("namespace `{first}`, the others may not be asked"))),
            Err(e) => Err(problem(&e).hint("name the namespace that it is kept in: --run-namespace NAMESPACE")),
        },
        Err(e) => Err(problem(&e)),
    }
}

pub fn unknown(run: &RunId, namespace: &str) -> Problem {
    Problem::usage(format!("run {run} is not kept in namespace `{namespace}`"))
        .hint("pvmigrate runs list --store cluster")
}

/// Every run that is kept in `namespace`, or, if that is allowed, in any; newest first.
///
/// # Errors
/// If the server is away, or does not let us look anywhere.
pub async fn list(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<RunListing>, Problem> {
    let selector = format!("{RECORD}=run");
    let query = [("labelSelector", selector.as_str())];
    let resource = Kept::ConfigMap.resource();
    let first = cluster.list(&resource, namespace.unwrap_or_default(), &query).await;
    let heads = match first {
        Err(e) if e.code() == Some(403) && namespace.is_none() => {
            let here = cluster.default_namespace();
            tracing::debug!("{e}: only namespace {here} is asked");
            cluster.list(&resource, here, &query).await
        }
        other => other,
    };
    let (heads, _) = heads.map_err(|e| e.problem("list the runs in the cluster", None))?;
    let mut all: Vec<RunListing> = heads.into_iter().filter_map(listing).collect();
    all.sort_by(|a, b| b.began.cmp(&a.began));
    Ok(all)
}

/// A line of the list. What only looks like a run is left out, what is damaged says so.
fn listing(head: Json) -> Option<RunListing> {
    let name = text(&head, "/metadata/name").to_owned();
    let namespace = text(&head, "/metadata/namespace").to_owned();
    let run = RunId::parse(name.strip_prefix("pvmigrate-")?).ok()?;
    let began = text(&head, "/metadata/creationTimestamp").to_owned();
    Some(match read::parse_head(head) {
        Ok(read::Head { file, summary, .. }) => RunListing {
            run,
            script: file.script,
            status: summary.status,
            began: file.began,
            steps: summary.steps,
            writes: summary.writes,
            context: file.context,
            last: match summary.status {
                RunStatus::Refused | RunStatus::Stopped => summary.last,
                _ => String::new(),
            },
            typed: summary.typed,
            namespace,
            dir: PathBuf::new(),
        },
        Err(problem) => RunListing {
            run,
            script: String::new(),
            status: RunStatus::Damaged,
            began,
            steps: 0,
            writes: 0,
            context: String::new(),
            last: problem.message,
            typed: true,
            namespace,
            dir: PathBuf::new(),
        },
    })
}

/// What a run is and everything in its journal, without taking it.
///
/// # Errors
/// If it is unknown or damaged.
pub async fn show(shelf: &Shelf, run: &RunId) -> Result<(RunFile, Vec<Event>), Problem> {
    let head = read::head(shelf, run).await?.ok_or_else(|| unknown(run, &shelf.namespace))?;
    let file = read::sources(shelf, &head).await?;
    Ok((file, read::whole(shelf, &head).await?.events))
}

/// Refuses to forget a run that would have to be resumed.
///
/// # Errors
/// If it is unknown, not over, or, unless `force`, damaged.
pub async fn may_forget(shelf: &Shelf, run: &RunId, force: bool) -> Result<(), Problem> {
    if force {
        return Ok(());
    }
    let head = read::head(shelf, run).await?.ok_or_else(|| unknown(run, &shelf.namespace))?;
    if head.summary.status != RunStatus::Stopped {
        return Ok(());
    }
    let next = if head.summary.typed { "runs show" } else { "resume" };
    Err(Problem::refused(format!("run {run} is not over"))
        .hint(format!("pvmigrate {next} {run}"))
        .hint(format!("to lose its journal for good: pvmigrate runs forget {run} --force")))
}

/// Removes everything of a run; its head last, so that what was broken off can be repeated.
///
/// # Errors
/// If it is unknown.
pub async fn forget(shelf: &Shelf, run: &RunId) -> Result<(), Problem> {
    let head = shelf.read(&line::head_name(run)).await?.ok_or_else(|| unknown(run, &shelf.namespace))?;
    let whose = |record: &Json| text(record, "/metadata/name").to_owned();
    let own = line::head_name(run);
    for record in shelf.list(run, "").await? {
        if whose(&record).starts_with(&format!("{own}-")) {
            shelf.remove(&record).await?;
        }
    }
    // Those that lost their label.
    let mut number = 1;
    let segments = read::parse_head(head.clone()).map_or(0, |head| head.index.segments);
    loop {
        match shelf.read(&line::segment_name(run, number)).await? {
            Some(record) => shelf.remove(&record).await?,
            None if number > segments => break,
            None => {}
        }
        number += 1;
    }
    shelf.remove(&head).await
}

/// Removes a text, if it is there.
///
/// # Errors
/// If the server does not do it.
pub(super) async fn remove_text(shelf: &Shelf, run: &RunId, digest: &str) -> Result<(), Problem> {
    let (mut part, mut parts) = (0, 1);
    while part < parts {
        let Some(record) = shelf.read(&line::text_name(run, digest, part)).await? else { break };
        parts = record["data"]["parts"].as_str().and_then(|parts| parts.parse().ok()).unwrap_or(1);
        shelf.remove(&record).await?;
        part += 1;
    }
    Ok(())
}
