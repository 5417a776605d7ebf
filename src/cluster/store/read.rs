//! A run's journal as it stands in ConfigMaps, read whole. Nothing is written here.
//!
//! Labels only make it quick: what they do not show is asked for by its name.

use super::line::{self, Said, damaged};
use super::shelf::Shelf;
use crate::journal::{Event, RunFile, RunStatus, State, T};
use crate::words::{Json, Kind, Problem, RunId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The keys of a head.
pub const RUN_JSON: &str = "run.json";
pub const INDEX_JSON: &str = "journal.json";
pub const SUMMARY_JSON: &str = "summary.json";

/// What a head says about the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub v: u64,
    /// The text that holds the scripts.
    pub sources: String,
    /// So many segments there are at least.
    pub segments: u64,
}

/// How a run stands, for lists: as of the last change of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub status: RunStatus,
    pub steps: usize,
    pub writes: u64,
    pub last: String,
    pub typed: bool,
    /// The process at work, unless it has ended in an orderly way.
    #[serde(default)]
    pub writer: String,
}

/// The head of a run.
#[derive(Clone, Debug)]
pub struct Head {
    pub record: Json,
    /// Without the scripts.
    pub file: RunFile,
    pub index: Index,
    pub summary: Summary,
}

/// A run's whole journal.
pub struct Read {
    pub events: Vec<Event>,
    /// The last segment: its number, ConfigMap and records.
    pub last: Option<(u64, Json, String)>,
    /// Payloads that are still needed, with the steps that need them.
    pub payloads: HashMap<String, (Json, HashSet<String>)>,
    /// Texts that are results, with the steps that need them.
    pub texts: HashMap<String, HashSet<String>>,
}

/// Reads the head of a run; `None` if there is none.
///
/// # Errors
/// If what has its name is something else, or damaged.
pub async fn head(shelf: &Shelf, run: &RunId) -> Result<Option<Head>, Problem> {
    let name = line::head_name(run);
    let Some(record) = shelf.read(&name).await? else { return Ok(None) };
    parse_head(record).map(Some)
}

/// # Errors
/// As [`head`].
pub fn parse_head(record: Json) -> Result<Head, Problem> {
    let meta = |field: &str| crate::cluster::text(&record, &format!("/metadata/{field}")).to_owned();
    let (name, namespace) = (meta("name"), meta("namespace"));
    let part = |key: &str| -> Result<Value, Problem> {
        let text = record["data"][key].as_str().ok_or_else(|| {
            Problem::new(
                Kind::Diverged,
                format!("ConfigMap `{namespace}/{name}` is no run of pvmigrate: it has no {key}"),
            )
        })?;
        serde_json::from_str(text).map_err(|e| damaged(&format!("{key} in ConfigMap `{namespace}/{name}`")).because(&e))
    };
    let wrong =
        |key: &str, e: &serde_json::Error| damaged(&format!("{key} in ConfigMap `{namespace}/{name}`")).because(e);
    let index = part(INDEX_JSON)?;
    line::check_version(&index["v"])?;
    let index: Index = serde_json::from_value(index).map_err(|e| wrong(INDEX_JSON, &e))?;
    let file = RunFile::parse(part(RUN_JSON)?, &format!("ConfigMap `{namespace}/{name}`"))?;
    let summary = serde_json::from_value(part(SUMMARY_JSON)?).map_err(|e| wrong(SUMMARY_JSON, &e))?;
    if line::head_name(&file.run) != name {
        return Err(damaged(&format!("ConfigMap `{namespace}/{name}` holds run {}", file.run)));
    }
    Ok(Head { file, index, summary, record })
}

/// The scripts of a run.
///
/// # Errors
/// If they are missing or damaged.
pub async fn sources(shelf: &Shelf, head: &Head) -> Result<RunFile, Problem> {
    let sources = text(shelf, &head.file.run, &head.index.sources).await?;
    let sources = serde_json::from_str(&sources).map_err(|e| damaged("the run's scripts").because(&e))?;
    Ok(RunFile { sources, ..head.file.clone() })
}

/// A text by its digest.
///
/// # Errors
/// If it is missing or damaged.
pub async fn text(shelf: &Shelf, run: &RunId, digest: &str) -> Result<String, Problem> {
    let mut whole = String::new();
    let (mut part, mut parts) = (0, 1);
    while part < parts {
        let name = line::text_name(run, digest, part);
        let record = shelf.read(&name).await?.ok_or_else(|| damaged(&format!("ConfigMap `{name}` is missing")))?;
        whole += record["data"]["text"].as_str().unwrap_or_default();
        parts = record["data"]["parts"].as_str().and_then(|parts| parts.parse().ok()).unwrap_or(1);
        part += 1;
    }
    if line::digest(&whole) != digest {
        return Err(damaged(&format!("ConfigMap `{}` was changed by somebody else", line::text_name(run, digest, 0))));
    }
    Ok(whole)
}

/// Reads all of a run's journal.
///
/// # Errors
/// If a part of it is missing, damaged or of another version.
pub async fn whole(shelf: &Shelf, head: &Head) -> Result<Read, Problem> {
    let run = head.file.run.clone();
    let segments = segments(shelf, head).await?;
    let mut lines = Vec::new();
    for (_, _, records) in &segments {
        for record in records.lines() {
            let said = match line::decode(record)? {
                Said::Text(digest) => line::decode(&text(shelf, &run, &digest).await?)?,
                said => said,
            };
            match said {
                Said::Line(line) => lines.push(*line),
                Said::Text(_) => return Err(damaged("a long line leads to another one")),
            }
        }
    }
    let over = over(lines.iter().map(|line| &line.event));
    let mut read = Read {
        events: Vec::with_capacity(lines.len()),
        last: segments.into_iter().next_back(),
        payloads: HashMap::new(),
        texts: HashMap::new(),
    };
    for line in lines {
        let mut event = line.event;
        let needed = !is_over(&over, &event);
        if !needed && (line.paid.is_some() || event.blob.is_some()) {
            event.blob = Some(line::DROPPED.to_owned());
        }
        if let Some(paid) = line.paid.as_ref().filter(|_| needed) {
            if !read.payloads.contains_key(&paid.r#in) {
                let name = line::payload_name(&run, &paid.r#in);
                let record =
                    shelf.read(&name).await?.ok_or_else(|| damaged(&format!("ConfigMap `{name}` is missing")))?;
                read.payloads.insert(paid.r#in.clone(), (record, HashSet::new()));
            }
            if let Some((record, steps)) = read.payloads.get_mut(&paid.r#in) {
                event.out = Some(line::paid_out(&event, paid, Some(&record["data"]))?);
                steps.insert(event.id.to_string());
            }
        }
        if let Some(blob) = event.blob.as_ref().filter(|_| needed) {
            read.texts.entry(blob.clone()).or_default().insert(event.id.to_string());
        }
        read.events.push(event);
    }
    Ok(read)
}

/// All segments in their order: number, ConfigMap, records.
async fn segments(shelf: &Shelf, head: &Head) -> Result<Vec<(u64, Json, String)>, Problem> {
    let run = &head.file.run;
    let mut listed = BTreeMap::new();
    for record in shelf.list(run, "segment").await? {
        if let Some(number) = line::segment_number(run, crate::cluster::text(&record, "/metadata/name")) {
            listed.insert(number, record);
        }
    }
    let known = listed.keys().next_back().copied().unwrap_or(0).max(head.index.segments);
    let mut segments = Vec::new();
    for number in 1.. {
        let record = match listed.remove(&number) {
            Some(record) => record,
            // It lost its label, or was made after the list.
            None => match shelf.read(&line::segment_name(run, number)).await? {
                Some(record) => record,
                None if number > known => break,
                None => {
                    let name = line::segment_name(run, number);
                    return Err(damaged(&format!("ConfigMap `{name}` is missing in namespace `{}`", shelf.namespace)));
                }
            },
        };
        let records = line::segment_records(run, number, &record["data"])?;
        segments.push((number, record, records));
    }
    Ok(segments)
}

/// The branches that ended, with the record of their last end.
fn over<'a>(events: impl Iterator<Item = &'a Event>) -> HashMap<String, u64> {
    let ends = events.filter(|event| event.t == T::End && event.err.is_none());
    ends.map(|event| (event.id.to_string(), event.n)).collect()
}

/// True if a branch that ended since holds this step: what it came to is not asked for again.
fn is_over(over: &HashMap<String, u64>, event: &Event) -> bool {
    let id = event.id.as_str();
    let ended = |branch: &str| over.get(branch).is_some_and(|end| *end > event.n) && State::is_inside(branch, id);
    id.match_indices('/').any(|(at, _)| ended(&id[..at]))
}
