//! Where records live: ConfigMaps in the cluster that the run is about, so that any machine can go on with it.
//!
//! What must stay true: a durable record is acknowledged only when the server has it; after no answer a read decides; a
//! segment that another process wrote is never replaced, and nothing is recorded after a failure. Records that need not
//! be durable wait for the next one that must be, for the end, or for a moment: none overtakes another.

mod line;
mod read;
pub mod runs;
mod shelf;
pub mod tail;

pub use line::DROPPED;
pub use shelf::Shelf;

use crate::cluster::text;
use crate::journal::{Event, ROLLBACK, RunFile, State, Store, T, Write, is_of_rollback};
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem, RunId};
use line::Paid;
use read::{Head, Index, Read, Summary};
use serde_json::{Map, json};
use shelf::Wanted;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// So long a record that need not be durable waits at most, if another one follows.
const WAITS: Duration = Duration::from_secs(2);
/// Annotation of a head: its summary, for people.
const SUMMARY: &str = "pvmigrate.io/summary";

/// The store of one run.
pub struct ClusterStore {
    shelf: Shelf,
    runtime: Handle,
    run: RunId,
    /// This process.
    writer: String,
    inner: Mutex<Inner>,
}

struct Inner {
    head: Head,
    broken: bool,
    /// The last segment: its ConfigMap, once it was made, and records. `None`: the next record begins one.
    open: Option<Open>,
    /// The number of the last segment.
    number: u64,
    waiting: Vec<Event>,
    /// Texts that no record leads to yet.
    texts: HashMap<String, String>,
    /// What goes with the whole run, and what goes when a branch ends, is in payloads of its own.
    filling: [Option<Filling>; 2],
    payloads: HashMap<String, (Json, HashSet<String>)>,
    texts_in_use: HashMap<String, HashSet<String>>,
    /// What the journal means, without the objects.
    state: State,
    last_failure: String,
    /// This process has written something.
    has_written: bool,
    flushed: Instant,
}

struct Open {
    record: Option<Json>,
    records: String,
}

/// A payload that takes more results.
struct Filling {
    name: String,
    data: Map<String, Json>,
    bytes: usize,
    dirty: bool,
}

impl ClusterStore {
    /// Makes the records of a new run, which is nobody's yet.
    ///
    /// # Errors
    /// If rights are missing, or the server does not take it.
    pub fn create(shelf: Shelf, runtime: Handle, file: &RunFile) -> Result<Self, Problem> {
        let (shelf_of, file_of) = (shelf.clone(), file.clone());
        let writer = writer();
        let by = writer.clone();
        let head = on(&runtime, async move {
            shelf_of.check_rights().await?;
            let sources = serde_json::to_string(&file_of.sources).expect("sources are plain data");
            let digest = make_text(&shelf_of, &file_of.run, &sources).await?;
            let typed = file_of.sources.is_empty();
            let state = State::default();
            let summary =
                Summary { status: state.status(), steps: 0, writes: 0, last: String::new(), typed, writer: by };
            let index = Index { v: line::VERSION, sources: digest, segments: 0 };
            let file = RunFile { sources: Vec::new(), ..file_of };
            let wanted = head_wanted(&file, &index, &summary);
            let record = shelf_of.make(&file.run, "run", &wanted).await?;
            Ok::<Head, Problem>(Head { record, file, index, summary })
        })?;
        Ok(Self::with(shelf, runtime, writer, head))
    }

    /// Opens the records of a run that is there. They are read when the journal asks for them.
    ///
    /// # Errors
    /// If there is none, or rights are missing to go on with it.
    pub fn open(shelf: Shelf, runtime: Handle, run: &RunId) -> Result<(RunFile, Self), Problem> {
        let (shelf_of, run_of) = (shelf.clone(), run.clone());
        let (head, file) = on(&runtime, async move {
            let head =
                read::head(&shelf_of, &run_of).await?.ok_or_else(|| runs::unknown(&run_of, &shelf_of.namespace))?;
            shelf_of.check_rights().await?;
            let file = read::sources(&shelf_of, &head).await?;
            Ok::<_, Problem>((head, file))
        })?;
        Ok((file, Self::with(shelf, runtime, writer(), head)))
    }

    fn with(shelf: Shelf, runtime: Handle, writer: String, head: Head) -> Self {
        let run = head.file.run.clone();
        let inner = Inner {
            head,
            broken: false,
            open: None,
            number: 0,
            waiting: Vec::new(),
            texts: HashMap::new(),
            filling: [None, None],
            payloads: HashMap::new(),
            texts_in_use: HashMap::new(),
            state: State::default(),
            last_failure: String::new(),
            has_written: false,
            flushed: Clock.monotonic(),
        };
        ClusterStore { shelf, runtime, run, writer, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in between leaves records that were not acknowledged: nothing counts on them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        on(&self.runtime, work)
    }

    /// Writes everything that waits; `end`: this process adds nothing more.
    fn write_out(&self, inner: &mut Inner, end: bool) -> Result<(), Problem> {
        if inner.broken {
            return Err(Problem::new(Kind::Local, "the journal could not be written before: nothing more is recorded")
                .hint("the run can be resumed when the cluster takes its records again"));
        }
        inner.has_written = true;
        let written = self.write_waiting(inner, end);
        inner.broken |= written.is_err();
        inner.flushed = Clock.monotonic();
        written
    }

    fn write_waiting(&self, inner: &mut Inner, end: bool) -> Result<(), Problem> {
        let events = std::mem::take(&mut inner.waiting);
        let mut lines = Vec::new();
        for event in &events {
            lines.push(self.line(inner, event)?);
        }
        for payload in 0..inner.filling.len() {
            self.write_payload(inner, payload)?;
        }
        let number = inner.number;
        self.write_lines(inner, lines)?;
        for event in &events {
            inner.take_in(event);
        }
        let summary = inner.summary(if end { "" } else { &self.writer });
        let stands = |summary: &Summary| (summary.status, summary.writer.is_empty());
        if number != inner.number || end || stands(&summary) != stands(&inner.head.summary) {
            self.write_head(inner, summary)?;
        }
        for event in events.iter().filter(|event| event.t == T::End && event.err.is_none()) {
            // What stays for now is in nobody's way, and goes with the run.
            if let Err(problem) = self.forget_results_in(inner, event.id.as_str()) {
                tracing::debug!("{problem}");
            }
        }
        Ok(())
    }

    /// The line of a record, after what it leads to was written or noted.
    fn line(&self, inner: &mut Inner, event: &Event) -> Result<String, Problem> {
        if let Some(blob) = &event.blob {
            if let Some(text) = inner.texts.remove(blob) {
                self.write_text(text)?;
            }
            inner.texts_in_use.entry(blob.clone()).or_default().insert(event.id.to_string());
        }
        let paid = match line::result_beside(event) {
            Some(result) => Some(self.put_beside(inner, event, &result)?),
            None => None,
        };
        let line = line::encode(event, paid.as_ref());
        if line.len() <= line::LINE_BYTES {
            return Ok(line);
        }
        let digest = self.write_text(line)?;
        Ok(line::elsewhere(&digest))
    }

    /// Puts a result into the payload that is being filled.
    fn put_beside(&self, inner: &mut Inner, event: &Event, result: &str) -> Result<Paid, Problem> {
        let which = usize::from(line::goes_early(event));
        let full = |filling: &Filling| filling.bytes + result.len() > line::SEGMENT_BYTES;
        if inner.filling[which].as_ref().is_some_and(full) {
            self.write_payload(inner, which)?;
            inner.filling[which] = None;
        }
        let filling = inner.filling[which].get_or_insert_with(|| Filling {
            name: format!("{:06}-{}", event.n, &self.writer[..8]),
            data: Map::new(),
            bytes: 0,
            dirty: false,
        });
        filling.data.insert(event.n.to_string(), result.into());
        filling.bytes += result.len();
        filling.dirty = true;
        let name = filling.name.clone();
        inner.payloads.entry(name.clone()).or_default().1.insert(event.id.to_string());
        Ok(Paid { r#in: name, is: line::digest(result) })
    }

    fn write_payload(&self, inner: &mut Inner, which: usize) -> Result<(), Problem> {
        let Some(filling) = inner.filling[which].as_mut().filter(|filling| filling.dirty) else { return Ok(()) };
        let wanted = Wanted::new(line::payload_name(&self.run, &filling.name), Json::Object(filling.data.clone()));
        let before = inner.payloads.get(&filling.name).map(|(record, _)| record.clone()).unwrap_or_default();
        filling.dirty = false;
        let name = filling.name.clone();
        let record = self.put("payload", before, wanted)?;
        inner.payloads.entry(name).or_default().0 = record;
        Ok(())
    }

    /// Adds lines to the open segment, seals what is full and begins the next.
    fn write_lines(&self, inner: &mut Inner, lines: Vec<String>) -> Result<(), Problem> {
        let mut dirty = false;
        for line in lines {
            let full = |open: &Open| !open.records.is_empty() && open.records.len() + line.len() > line::SEGMENT_BYTES;
            if inner.open.as_ref().is_some_and(full) {
                self.write_segment(inner, true)?;
                inner.open = None;
            }
            if inner.open.is_none() {
                inner.number += 1;
            }
            inner.open.get_or_insert_with(|| Open { record: None, records: String::new() }).records += &line;
            dirty = true;
        }
        if dirty { self.write_segment(inner, false) } else { Ok(()) }
    }

    fn write_segment(&self, inner: &mut Inner, sealed: bool) -> Result<(), Problem> {
        let number = inner.number;
        let Some(open) = &mut inner.open else { return Ok(()) };
        let data = line::segment_data(&self.run, number, &self.writer, &open.records);
        let wanted = Wanted { sealed, ..Wanted::new(line::segment_name(&self.run, number), data) };
        open.record = Some(self.put("segment", open.record.take().unwrap_or_default(), wanted)?);
        Ok(())
    }

    fn write_head(&self, inner: &mut Inner, summary: Summary) -> Result<(), Problem> {
        inner.head.index.segments = inner.number;
        let wanted = head_wanted(&inner.head.file, &inner.head.index, &summary);
        inner.head.record = self.put("run", inner.head.record.clone(), wanted)?;
        inner.head.summary = summary;
        Ok(())
    }

    fn put(&self, what: &'static str, before: Json, wanted: Wanted) -> Result<Json, Problem> {
        let (shelf, run) = (self.shelf.clone(), self.run.clone());
        self.on(async move {
            if before.is_null() {
                shelf.make(&run, what, &wanted).await
            } else {
                shelf.replace(&run, what, &before, &wanted).await
            }
        })
    }

    fn write_text(&self, text: String) -> Result<String, Problem> {
        let (shelf, run) = (self.shelf.clone(), self.run.clone());
        self.on(async move { make_text(&shelf, &run, &text).await })
    }

    /// A branch has ended, durably: what its steps came to goes.
    fn forget_results_in(&self, inner: &mut Inner, branch: &str) -> Result<(), Problem> {
        let leave = |steps: &mut HashSet<String>| {
            steps.retain(|id| !State::is_inside(branch, id));
            steps.is_empty()
        };
        let mut gone = Vec::new();
        let payloads: Vec<String> =
            inner.payloads.iter_mut().filter_map(|(name, (_, steps))| leave(steps).then(|| name.clone())).collect();
        for name in payloads {
            let (record, _) = inner.payloads.remove(&name).unwrap_or_default();
            for filling in &mut inner.filling {
                if filling.as_ref().is_some_and(|filling| filling.name == name) {
                    *filling = None;
                }
            }
            gone.push(record);
        }
        let texts: Vec<String> =
            inner.texts_in_use.iter_mut().filter_map(|(name, steps)| leave(steps).then(|| name.clone())).collect();
        inner.texts_in_use.retain(|name, _| !texts.contains(name));
        let (shelf, run) = (self.shelf.clone(), self.run.clone());
        self.on(async move {
            for record in gone.iter().filter(|record| record.is_object()) {
                shelf.remove(record).await?;
            }
            for text in texts {
                runs::remove_text(&shelf, &run, &text).await?;
            }
            Ok(())
        })
    }
}

impl Inner {
    /// Follows what the journal means, without the objects in it.
    fn take_in(&mut self, event: &Event) {
        if let Some(problem) = &event.err {
            self.last_failure.clone_from(&problem.message);
        }
        // What was taken back of a run is to be done again.
        if event.t == T::End
            && event.err.is_none()
            && is_of_rollback(event.id.as_str())
            && event.id.as_str() != ROLLBACK
        {
            self.state.ended.remove("root");
            self.state.parts += 1;
        }
        if let Err(illegal) = self.state.next(&light(event)) {
            tracing::debug!("{illegal}");
        }
    }

    /// The same for a whole journal.
    fn take_in_all(&mut self, events: &[Event]) {
        if let Some(problem) = events.iter().rev().find_map(|event| event.err.as_ref()) {
            self.last_failure.clone_from(&problem.message);
        }
        match State::fold(events.iter().map(light).collect()) {
            Ok(state) => self.state = state,
            Err(illegal) => tracing::debug!("{illegal}"),
        }
    }

    fn summary(&self, writer: &str) -> Summary {
        Summary {
            status: self.state.status(),
            steps: self.state.steps.len(),
            writes: self.state.writes,
            last: self.last_failure.clone(),
            typed: self.head.summary.typed,
            writer: writer.to_owned(),
        }
    }
}

impl Store for ClusterStore {
    fn load(&self) -> Result<Vec<Event>, Problem> {
        let mut inner = self.lock();
        let (shelf, head) = (self.shelf.clone(), inner.head.clone());
        let Read { events, last, payloads, texts, .. } = self.on(async move { read::whole(&shelf, &head).await })?;
        // What was added by this process is known better than it was read.
        if inner.state.steps.is_empty() && inner.number == 0 {
            inner.take_in_all(&events);
            if let Some((number, record, records)) = last {
                inner.number = number;
                inner.open = (record["immutable"] != true).then_some(Open { record: Some(record), records });
            }
            (inner.payloads, inner.texts_in_use) = (payloads, texts);
        }
        Ok(events)
    }

    fn append(&self, event: &Event, durable: bool) -> Result<(), Problem> {
        let mut inner = self.lock();
        inner.waiting.push(event.clone());
        // Until the first durable one nothing is written: the run may turn out to be another process's.
        if durable || inner.broken || (inner.has_written && inner.flushed.elapsed() > WAITS) {
            return self.write_out(&mut inner, false);
        }
        Ok(())
    }

    fn put_blob(&self, text: &str) -> Result<String, Problem> {
        let name = line::digest(text);
        // It is written before the record that leads to it.
        self.lock().texts.insert(name.clone(), text.to_owned());
        Ok(name)
    }

    fn get_blob(&self, name: &str) -> Result<Json, Problem> {
        if name == DROPPED {
            return Err(Problem::new(
                Kind::Diverged,
                "what a step came to is not kept in the cluster any more: its branch had ended",
            ));
        }
        let waiting = self.lock().texts.get(name).cloned();
        let text = match waiting {
            Some(text) => text,
            None => {
                let (shelf, run, name) = (self.shelf.clone(), self.run.clone(), name.to_owned());
                self.on(async move { read::text(&shelf, &run, &name).await })?
            }
        };
        serde_json::from_str(&text).map_err(|e| line::damaged(&format!("text {name} is no JSON")).because(&e))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn has_more(&self) -> Result<bool, Problem> {
        let (shelf, next, known) = {
            let inner = self.lock();
            let open = inner.open.as_ref().and_then(|open| open.record.clone());
            let known: Vec<Json> = [inner.head.record.clone()].into_iter().chain(open).collect();
            (self.shelf.clone(), line::segment_name(&self.run, inner.number + 1), known)
        };
        self.on(async move {
            if shelf.read(&next).await?.is_some() {
                return Ok(true);
            }
            for record in &known {
                let is = shelf.read(text(record, "/metadata/name")).await?.unwrap_or_default();
                if is["metadata"]["resourceVersion"] != record["metadata"]["resourceVersion"] {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn close(&self) -> Result<(), Problem> {
        let has_something = {
            let inner = self.lock();
            inner.has_written || !inner.waiting.is_empty()
        };
        // Whoever was refused leaves everything as it is.
        if !has_something {
            return Ok(());
        }
        self.write_out(&mut self.lock(), true)
    }
}

/// Does the work on the runtime and waits for it. The script's thread may be in the midst of a wait of its own.
fn on<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    let (give, take) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        // Whoever asked has gone: the process ends.
        let _ = give.send(work.await);
    });
    tokio::task::block_in_place(|| take.recv()).expect("the work on the runtime neither panics nor outlives it")
}

/// A record without what only the objects are about.
fn light(event: &Event) -> Event {
    let write = |write: &Write| Write { body: Json::Null, inverse: Vec::new(), ..write.clone() };
    // Facts tell which parts were taken back.
    let out = event.out.clone().filter(|_| event.t == T::Fact);
    Event { write: event.write.as_ref().map(write), out, ..event.clone() }
}

fn writer() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn head_wanted(file: &RunFile, index: &Index, summary: &Summary) -> Wanted {
    let summary = json!(summary).to_string();
    let data = json!({
        read::RUN_JSON: serde_json::to_string_pretty(file).expect("a run file is plain data"),
        read::INDEX_JSON: json!(index).to_string(),
        read::SUMMARY_JSON: summary,
    });
    Wanted { annotations: json!({SUMMARY: summary}), ..Wanted::new(line::head_name(&file.run), data) }
}

async fn make_text(shelf: &Shelf, run: &RunId, text: &str) -> Result<String, Problem> {
    let digest = line::digest(text);
    let parts = line::parts(text);
    for (part, text) in parts.iter().enumerate() {
        let data = json!({"text": text, "parts": parts.len().to_string()});
        shelf.make(run, "text", &Wanted::new(line::text_name(run, &digest, part), data).sealed()).await?;
    }
    Ok(digest)
}
