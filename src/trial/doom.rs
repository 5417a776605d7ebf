//! The instant of death: at one write of a run, in one of seven ways.
//!
//! It stands between the program and its two outsides, the journal's place and the cluster. After a death nothing gets
//! out any more, as if the process were gone; so the rest of the run cannot help. It also looks at every request on its
//! way out. What must stay true: at most one thing happens to a run, and it can be asked whether it did.

use crate::cluster::known;
use crate::journal::{Event, Store, T, Verb, Write};
use crate::lab::http::{Response, failure};
use crate::lab::status::Status;
use crate::words::{Json, Kind, ObjectRef, Problem};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tower_service::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Dead before the journal has the write.
    BeforeStart,
    /// Dead before it is sent.
    AfterStart,
    /// The request is lost on its way; the process lives.
    SentAndLost,
    /// It is done, and the answer is lost; the process lives.
    AnswerLost,
    /// Dead before the journal has the answer.
    BeforeDone,
    /// Dead while the answer is written down.
    TornLine,
    /// Dead when it is written down, and before anything follows from it.
    AfterDone,
}

impl How {
    pub const ALL: [How; 7] = [
        How::BeforeStart,
        How::AfterStart,
        How::SentAndLost,
        How::AnswerLost,
        How::BeforeDone,
        How::TornLine,
        How::AfterDone,
    ];

    pub fn word(self) -> &'static str {
        match self {
            How::BeforeStart => "before-start",
            How::AfterStart => "after-start",
            How::SentAndLost => "sent-and-lost",
            How::AnswerLost => "answer-lost",
            How::BeforeDone => "before-done",
            How::TornLine => "torn-line",
            How::AfterDone => "after-done",
        }
    }

    /// The way of this word.
    pub fn find(word: &str) -> Option<How> {
        How::ALL.into_iter().find(|how| how.word() == word)
    }

    pub fn kills(self) -> bool {
        !matches!(self, How::SentAndLost | How::AnswerLost)
    }
}

/// At which write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Point {
    /// The one of this number, from 0.
    Number(usize),
    /// The first of this [`Effect::line`].
    Line(String),
    /// The first that is described so: `delete PersistentVolumeClaim shop/data`, or the beginning of it.
    Words(String),
}

impl Point {
    fn is(&self, number: usize, effect: &Effect) -> bool {
        match self {
            Point::Number(wanted) => *wanted == number,
            Point::Line(line) => *line == effect.line(),
            Point::Words(words) => {
                let described = effect.described();
                described.strip_prefix(&words[..]).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            }
        }
    }
}

/// Shared by the two outsides of one run.
#[derive(Debug)]
pub struct Doom {
    at: Option<(Point, How)>,
    state: Mutex<Met>,
    fired: AtomicBool,
    dead: AtomicBool,
}

/// A write that a run meant to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub id: String,
    pub verb: Verb,
    pub object: ObjectRef,
    /// Where in which script: `my:12:5`.
    pub at: String,
}

#[derive(Debug, Default)]
struct Met {
    effects: Vec<Effect>,
    /// Where the steps were called that have begun.
    places: BTreeMap<String, String>,
    /// The step that is doomed, between its records.
    step: Option<String>,
    /// The requests that the journal surely has and that were not sent yet: a record is good for one sending.
    noted: BTreeMap<String, u32>,
    faults: Vec<String>,
}

impl Doom {
    fn new(at: Option<(Point, How)>) -> Arc<Doom> {
        Arc::new(Doom { at, state: Mutex::default(), fired: AtomicBool::new(false), dead: AtomicBool::new(false) })
    }

    /// Nothing happens.
    pub fn none() -> Arc<Doom> {
        Doom::new(None)
    }

    /// At the write of this number, from 0.
    pub fn at(point: usize, how: How) -> Arc<Doom> {
        Doom::new(Some((Point::Number(point), how)))
    }

    /// At the write of this [`Effect::line`], whenever it comes: with parallel branches the order differs.
    pub fn at_write(line: &str, how: How) -> Arc<Doom> {
        Doom::new(Some((Point::Line(line.to_owned()), how)))
    }

    /// At the first write that is [described](Effect::described) so, or begins so.
    pub fn at_words(words: &str, how: How) -> Arc<Doom> {
        Doom::new(Some((Point::Words(words.to_owned()), how)))
    }

    /// Death at once, whatever comes.
    pub fn die(&self) {
        self.fired.store(true, Ordering::SeqCst);
        self.dead.store(true, Ordering::SeqCst);
    }

    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }

    /// The writes that were met, in their order.
    pub fn effects(&self) -> Vec<Effect> {
        self.lock().effects.clone()
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn fire(&self, kills: bool) {
        let fired_before = self.fired.swap(true, Ordering::SeqCst);
        debug_assert!(!fired_before, "one fault for each run");
        self.dead.store(kills, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Met> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn how(&self) -> Option<How> {
        self.at.as_ref().map(|(_, how)| *how)
    }

    /// A write is about to be noted: whether it is the doomed one.
    fn meets(&self, event: &Event) -> bool {
        let mut met = self.lock();
        if event.t == T::Start && !event.at.is_empty() {
            met.places.insert(event.id.to_string(), event.at.clone());
        }
        let Some(write) = event.write.as_ref().filter(|_| event.t == T::Start) else { return false };
        let effect = Effect::new(event, write, &met.places);
        let number = met.effects.len();
        let is_it = self.at.as_ref().is_some_and(|(point, _)| point.is(number, &effect)) && !self.has_fired();
        met.effects.push(effect);
        if is_it {
            met.step = Some(event.id.to_string());
        }
        is_it
    }

    /// A record is where no death can reach it.
    fn has(&self, event: &Event) {
        let Some(write) = event.write.as_ref().filter(|_| event.t == T::Start) else { return };
        let method = match write.verb {
            Verb::Create => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        };
        let path = known(&write.gvk.kind).path(&write.namespace, &write.name);
        *self.lock().noted.entry(format!("{method} {path}")).or_default() += 1;
    }

    /// I12, I13 and I15: every request was written down first and names what it means, and none uses force.
    fn look_at(&self, parts: &http::request::Parts, body: &[u8]) {
        let body: Json = serde_json::from_slice(body).unwrap_or_default();
        let made = body["metadata"]["name"].as_str().filter(|_| parts.method == http::Method::POST);
        let request =
            format!("{} {}{}", parts.method, parts.uri.path(), made.map_or(String::new(), |n| format!("/{n}")));
        let mut met = self.lock();
        match met.noted.get_mut(&request) {
            Some(sendings) if *sendings > 0 => *sendings -= 1,
            _ => met.faults.push(format!("I12 a request that the journal does not have: {request}")),
        }
        drop(met);
        let is_set = |pointer: &str| body.pointer(pointer).is_some_and(|value| value.is_string());
        let is_fenced = is_set("/metadata/uid") || is_set("/metadata/resourceVersion");
        let is_of = |plural: &str| parts.uri.path().split('/').rev().nth(1) == Some(plural);
        let fault = match parts.method.as_str() {
            "POST" if !is_set("/metadata/annotations/pvmigrate.io~1run") => "I13 a POST that does not say by which run",
            "DELETE" if is_of("persistentvolumes") || is_of("namespaces") => "I15 a DELETE that takes bytes with it",
            "PATCH" if body.pointer("/metadata/finalizers").is_some() => "I15 a PATCH of finalizers",
            "DELETE" if !is_set("/preconditions/uid") => "I13 a DELETE without uid",
            "DELETE" if body["gracePeriodSeconds"] == 0 => "I15 a DELETE by force",
            "DELETE" if body["propagationPolicy"] == "Orphan" => "I15 a DELETE that leaves orphans",
            "PUT" if !is_set("/metadata/resourceVersion") => "I13 a PUT without resourceVersion",
            "PATCH" if !is_fenced => "I13 a PATCH of whatever has the name",
            _ => return,
        };
        self.lock().faults.push(format!("{fault}: {} {} {body}", parts.method, parts.uri));
    }

    /// What the requests were not to be.
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    fn is_doomed(&self, event: &Event) -> bool {
        self.lock().step.as_deref() == Some(&event.id.to_string())
    }

    /// Whether the request that goes out now is the doomed one.
    fn in_flight(&self) -> bool {
        self.lock().step.is_some() && !self.has_fired()
    }
}

impl Effect {
    fn new(event: &Event, write: &Write, places: &BTreeMap<String, String>) -> Effect {
        let id = event.id.as_str();
        // The step is the id without the label of its write; labels may have dots, names of branches too.
        let steps = id.rmatch_indices('.').map(|(at, _)| &id[..at]);
        let at = std::iter::once(id).chain(steps).find_map(|step| places.get(step)).cloned().unwrap_or_default();
        Effect { id: id.to_owned(), verb: write.verb, object: write.object(), at }
    }

    pub fn verb(&self) -> &'static str {
        match self.verb {
            Verb::Create => "create",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }

    /// `delete PersistentVolumeClaim shop/data`
    pub fn described(&self) -> String {
        let (kind, namespace, name) = (&self.object.kind, &self.object.namespace, &self.object.name);
        if namespace.is_empty() {
            format!("{} {kind} {name}", self.verb())
        } else {
            format!("{} {kind} {namespace}/{name}", self.verb())
        }
    }

    /// The step, the verb and the kind: the same in every run, whatever names were made up.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.id, self.verb(), self.object.kind)
    }
}

fn dead() -> Problem {
    Problem::new(Kind::Local, "the process is dead")
}

/// The journal's place.
pub struct Dying {
    pub inner: Box<dyn Store>,
    /// The file that a torn line stands in; a record in the cluster is there whole or not at all.
    pub file: Option<PathBuf>,
    pub doom: Arc<Doom>,
}

impl Store for Dying {
    fn load(&self) -> Result<Vec<Event>, Problem> {
        self.inner.load()
    }

    fn append(&self, event: &Event, durable: bool) -> Result<(), Problem> {
        self.append_unless_dead(event, durable)?;
        if durable {
            self.doom.has(event);
        }
        Ok(())
    }

    fn put_blob(&self, text: &str) -> Result<String, Problem> {
        if self.doom.is_dead() { Err(dead()) } else { self.inner.put_blob(text) }
    }

    fn get_blob(&self, name: &str) -> Result<Json, Problem> {
        self.inner.get_blob(name)
    }

    fn close(&self) -> Result<(), Problem> {
        if self.doom.is_dead() { Err(dead()) } else { self.inner.close() }
    }
}

impl Dying {
    fn append_unless_dead(&self, event: &Event, durable: bool) -> Result<(), Problem> {
        let doom = &self.doom;
        if doom.is_dead() {
            return Err(dead());
        }
        if doom.meets(event) {
            match doom.how() {
                Some(How::BeforeStart) => {
                    doom.fire(true);
                    return Err(dead());
                }
                Some(How::AfterStart) => {
                    self.inner.append(event, durable)?;
                    doom.fire(true);
                    return Err(dead());
                }
                _ => return self.inner.append(event, durable),
            }
        }
        if doom.is_doomed(event) && !doom.has_fired() {
            match doom.how() {
                Some(How::BeforeDone) => {
                    doom.fire(true);
                    return Err(dead());
                }
                Some(How::TornLine) => {
                    if let Some(file) = &self.file {
                        let line = serde_json::to_vec(event).expect("records are plain data");
                        let mut file = std::fs::OpenOptions::new().append(true).open(file).expect("it is there");
                        file.write_all(&line[..line.len() / 2]).expect("half a line can be written");
                    }
                    doom.fire(true);
                    return Err(dead());
                }
                Some(How::AfterDone) => {
                    self.inner.append(event, durable)?;
                    doom.fire(true);
                    return Err(dead());
                }
                _ => {}
            }
        }
        self.inner.append(event, durable)
    }
}

/// The way to the cluster.
#[derive(Clone)]
pub struct Faulty<S> {
    pub inner: S,
    pub doom: Arc<Doom>,
}

impl<S, B> Service<http::Request<B>> for Faulty<S>
where
    S: Service<http::Request<Full<Bytes>>, Response = Response, Error = std::io::Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (doom, mut inner) = (self.doom.clone(), self.inner.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| std::io::Error::other(e.to_string()))?.to_bytes();
            let uri = parts.uri.to_string();
            let is_write = parts.method != http::Method::GET
                && !uri.contains("dryRun=All")
                && !uri.contains("/apis/authorization.k8s.io/")
                && !is_record(&parts, &body);
            if doom.is_dead() {
                return Ok(nobody());
            }
            if is_write {
                doom.look_at(&parts, &body);
            }
            let is_it = is_write && doom.in_flight();
            if is_it && doom.how() == Some(How::SentAndLost) {
                doom.fire(false);
                return Err(reset());
            }
            let answer = inner.call(http::Request::from_parts(parts, Full::new(body))).await?;
            if is_it && doom.how() == Some(How::AnswerLost) {
                doom.fire(false);
                return Err(reset());
            }
            // An answer that comes after the death is read by nobody.
            Ok(if doom.is_dead() { nobody() } else { answer })
        })
    }
}

/// A journal in the cluster, and who executes the run: these are no effects.
fn is_record(parts: &http::request::Parts, body: &[u8]) -> bool {
    let path = parts.uri.path();
    let named = ["/configmaps/pvmigrate-", "/leases/pvmigrate-"].iter().any(|kind| path.contains(kind));
    let made = parts.method == http::Method::POST && (path.ends_with("/configmaps") || path.ends_with("/leases"));
    let name = || serde_json::from_slice::<Json>(body).unwrap_or_default();
    named || made && name()["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("pvmigrate-"))
}

/// What the dead are told: an answer that ends everything at once, where a reset would be tried again.
fn nobody() -> Response {
    failure(&Status::new(403, "Forbidden", "the process is dead"))
}

fn reset() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer")
}
