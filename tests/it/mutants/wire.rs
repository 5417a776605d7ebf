//! Between a run and its outsides: here the mutants do their work.
//!
//! A request is changed, swallowed or preceded by another one after all guards have seen it, an answer is changed before
//! anybody reads it, and a journal before it is folded. Every write is noted with the revision it met, so that a finding
//! can be laid at its door.

use super::mutant::{Mutant, Way};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use pvmigrate::cluster::{self, Cluster};
use pvmigrate::journal::{Event, Store};
use pvmigrate::lab::access::User;
use pvmigrate::lab::core::Core;
use pvmigrate::lab::handle::{Request, Verb};
use pvmigrate::lab::http::{Response, failure};
use pvmigrate::lab::negotiate::Body;
use pvmigrate::lab::store::{State, text};
use pvmigrate::lab::transport::Transport;
use pvmigrate::lab::{kind, status::Status};
use pvmigrate::trial::doom::{Dying, Effect, Faulty};
use pvmigrate::trial::{Between, Doom};
use pvmigrate::words::{Json, Problem};
use serde_json::Value;
use std::cell::Cell;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// A mutant at work in one trial.
pub struct Mutation {
    pub mutant: &'static Mutant,
    core: Arc<Core>,
    doom: Mutex<Arc<Doom>>,
    cancel: Mutex<CancellationToken>,
    met: Mutex<Met>,
}

struct Met {
    /// The labels of the writes, the revision that each met, and how many faults of requests there were before it.
    sent: Vec<(String, u64, usize)>,
    last: Instant,
    did: bool,
}

/// A write on its way out.
pub struct Ask {
    pub method: String,
    pub path: String,
    pub content_type: Option<String>,
    pub body: Json,
}

impl Ask {
    /// Sets what a pointer names, and what leads to it.
    pub fn set(&mut self, pointer: &str, value: impl Into<Json>) {
        let mut at = &mut self.body;
        for part in pointer.split('/').skip(1) {
            if at.is_null() {
                *at = Json::Object(serde_json::Map::new());
            }
            at = match part.parse::<usize>() {
                Ok(number) if at.is_array() => &mut at[number],
                _ => &mut at[part.replace("~1", "/")],
            };
        }
        *at = value.into();
    }

    pub fn drop(&mut self, pointer: &str) {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let name = name.replace("~1", "/");
        if let Some(map) = self.body.pointer_mut(parent).and_then(Json::as_object_mut) {
            map.remove(&name);
        }
    }
}

/// Where a mutant acts: the write in hand, and the cluster behind it.
pub struct Stage<'a> {
    core: &'a Arc<Core>,
    /// `delete-original`, and how many of this name were there before.
    label: String,
    nth: usize,
    touched: Cell<bool>,
}

impl Stage<'_> {
    pub fn is(&self, label: &str, nth: usize) -> bool {
        self.label == label && self.nth == nth
    }

    /// A request that passes neither journal nor guards, as we.
    pub fn as_us(&self, verb: Verb, kind: &str, namespace: &str, name: &str, body: Json) {
        self.request(User::admin(), verb, kind, namespace, name, body);
    }

    /// The same by somebody else.
    pub fn as_another(&self, verb: Verb, kind: &str, namespace: &str, name: &str, body: Json) {
        self.request(User::system("another"), verb, kind, namespace, name, body);
    }

    fn request(&self, user: User, verb: Verb, kind: &str, namespace: &str, name: &str, body: Json) {
        let kind = kind::find(kind).expect("the lab serves it");
        let name = if verb == Verb::Create { "" } else { name };
        let (namespace, name, sub) = (namespace.to_owned(), name.to_owned(), String::new());
        let request = Request { verb, kind, namespace, name, sub, query: Default::default(), body, user };
        self.core.request(&request).expect("the lab takes it");
    }

    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.core.look(look)
    }

    /// Name of the volume of a class.
    pub fn volume_of_class(&self, class: &str) -> String {
        self.look(|state| {
            let mut volumes = state.list("PersistentVolume", "");
            let (key, _) = volumes.find(|(_, pv)| pv["spec"]["storageClassName"] == class).expect("it has one volume");
            key.name.clone()
        })
    }

    pub fn wait_for_pod_of_web(&self) {
        let is_of_web = |state: &State| state.list("Pod", "shop").any(|(key, _)| key.name.starts_with("web-"));
        loop {
            let (is_there, revision) = self.look(|state| (is_of_web(state), state.revision()));
            if is_there || !self.core.wait_past(revision, Duration::from_secs(10)) {
                return;
            }
        }
    }

    /// To be changed behind everybody's back.
    pub fn directory_of_class(&self, class: &str) -> PathBuf {
        self.touched.set(true);
        let name = self.volume_of_class(class);
        let handle = self.look(|state| {
            let volume = state.get("PersistentVolume", "", &name).expect("it was just there");
            text(&volume["spec"]["csi"]["volumeHandle"]).to_owned()
        });
        self.core.disks.volume(&handle)
    }
}

/// A merge patch.
pub const MERGE: Verb = Verb::Patch(Body::MergePatch);

impl Mutation {
    pub fn new(mutant: &'static Mutant, core: &Arc<Core>) -> Arc<Mutation> {
        (mutant.stage)(&Stage { core, label: String::new(), nth: 0, touched: Cell::default() });
        Arc::new(Mutation {
            mutant,
            core: core.clone(),
            doom: Mutex::new(Doom::none()),
            cancel: Mutex::default(),
            met: Mutex::new(Met { sent: Vec::new(), last: Instant::now(), did: false }),
        })
    }

    pub fn cancel(&self) {
        self.cancel.lock().unwrap().cancel();
    }

    pub fn did(&self) -> bool {
        self.met.lock().unwrap().did
    }

    /// How long nothing was written.
    pub fn quiet(&self) -> Duration {
        self.met.lock().unwrap().last.elapsed()
    }

    /// The write during which a revision came to be.
    pub fn label_at(&self, revision: u64) -> String {
        let met = self.met.lock().unwrap();
        met.sent
            .iter()
            .rev()
            .find(|(_, before, _)| *before < revision)
            .map_or("the start", |(label, ..)| label)
            .to_owned()
    }

    /// The write that made the first fault of a request, and the revision that it met.
    pub fn first_fault(&self) -> Option<(String, u64)> {
        let met = self.met.lock().unwrap();
        let at = met.sent.iter().rposition(|(.., faults)| *faults == 0)?;
        met.sent.get(at).map(|(label, revision, _)| (label.clone(), *revision))
    }

    pub fn last_label(&self) -> String {
        self.met.lock().unwrap().sent.last().map_or("the start".to_owned(), |(label, ..)| label.clone())
    }

    fn stage(&self) -> Stage<'_> {
        let label = |effect: &Effect| effect.id.rsplit_once('.').map_or("", |(_, label)| label).to_owned();
        let effects = self.doom.lock().unwrap().effects();
        let name = effects.last().map(label).unwrap_or_default();
        let nth = effects.iter().filter(|effect| label(effect) == name).count().saturating_sub(1);
        Stage { core: &self.core, label: name, nth, touched: Cell::default() }
    }

    fn write(&self, ask: &mut Ask) -> Way {
        let stage = self.stage();
        let faults = self.doom.lock().unwrap().faults().len();
        let revision = self.core.look(State::revision);
        {
            let mut met = self.met.lock().unwrap();
            met.sent.push((stage.label.clone(), revision, faults));
            met.last = Instant::now();
        }
        let before = (ask.method.clone(), ask.path.clone(), ask.body.clone());
        let way = (self.mutant.wire)(ask, &stage);
        let is_same = before == (ask.method.clone(), ask.path.clone(), ask.body.clone());
        if !is_same || stage.touched.get() || !matches!(way, Way::Send) || revision != self.core.look(State::revision) {
            self.met.lock().unwrap().did = true;
        }
        way
    }

    fn show(&self, path: &str, bytes: &[u8], streamed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut did = false;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
                out.extend_from_slice(line);
                continue;
            };
            let before = value.clone();
            let mut keep = true;
            if let Some(items) = value["items"].as_array_mut() {
                items.retain_mut(|item| (self.mutant.shown)(path, item));
            } else if streamed {
                keep = (self.mutant.shown)(path, &mut value["object"]);
            } else {
                (self.mutant.shown)(path, &mut value);
            }
            if !keep || value != before {
                did = true;
            }
            if keep {
                out.extend_from_slice(value.to_string().as_bytes());
                out.push(b'\n');
            }
        }
        if did {
            self.met.lock().unwrap().did = true;
        }
        out
    }
}

/// Puts a mutation to work.
pub struct At(pub Arc<Mutation>);

impl Between for At {
    fn place(&self, store: Dying) -> Box<dyn Store> {
        Box::new(Forged { inner: store, mutation: self.0.clone() })
    }

    fn cluster(&self, way: Faulty<Transport>, cancel: &CancellationToken) -> Cluster {
        *self.0.doom.lock().unwrap() = way.doom.clone();
        *self.0.cancel.lock().unwrap() = cancel.clone();
        self.0.met.lock().unwrap().last = Instant::now();
        cluster::over(Twisted { inner: way, mutation: self.0.clone() }, "lab")
    }
}

/// The way to the cluster.
#[derive(Clone)]
struct Twisted<S> {
    inner: S,
    mutation: Arc<Mutation>,
}

impl<S, B> Service<http::Request<B>> for Twisted<S>
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
        let (mutation, mut inner) = (self.mutation.clone(), self.inner.clone());
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| std::io::Error::other(e.to_string()))?.to_bytes();
            let uri = parts.uri.to_string();
            let is_write = parts.method != http::Method::GET
                && !uri.contains("dryRun=All")
                && !uri.contains("/apis/authorization.k8s.io/");
            if !is_write {
                let answer = inner.call(http::Request::from_parts(parts, Full::new(body))).await?;
                return Ok(if uri.contains("/log") { answer } else { shown(mutation, &uri, answer).await? });
            }
            let mut ask = Ask {
                method: parts.method.to_string(),
                path: uri,
                content_type: None,
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let way = mutation.write(&mut ask);
            let twice = matches!(way, Way::Twice);
            match way {
                Way::Send | Way::Twice => {}
                Way::Answer(object) => return Ok(answered(&object)),
                Way::Refuse(code, reason, message) => return Ok(failure(&Status::new(code, reason, message))),
            }
            parts.method = ask.method.parse().expect("a mutant knows its methods");
            parts.uri = ask.path.parse().expect("a mutant knows its paths");
            if let Some(content_type) = ask.content_type {
                parts.headers.insert(http::header::CONTENT_TYPE, content_type.parse().expect("it is a name"));
            }
            let body = Bytes::from(ask.body.to_string());
            parts.headers.remove(http::header::CONTENT_LENGTH);
            if twice {
                let first = http::Request::from_parts(parts.clone(), Full::new(body.clone()));
                inner.call(first).await?;
            }
            inner.call(http::Request::from_parts(parts, Full::new(body))).await
        })
    }
}

fn answered(object: &Json) -> Response {
    let body = Full::new(Bytes::from(object.to_string())).map_err(|never| match never {}).boxed_unsync();
    http::Response::builder()
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("a constant is a header")
}

async fn shown(mutation: Arc<Mutation>, uri: &str, answer: Response) -> Result<Response, std::io::Error> {
    let (mut parts, body) = answer.into_parts();
    let path = uri.to_owned();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    if uri.contains("watch=") {
        let body = body.map_frame(move |frame| frame.map_data(|bytes| Bytes::from(mutation.show(&path, &bytes, true))));
        return Ok(http::Response::from_parts(parts, body.boxed_unsync()));
    }
    let bytes = body.collect().await.map_err(|e| std::io::Error::other(e.to_string()))?.to_bytes();
    let bytes = Bytes::from(mutation.show(&path, &bytes, false));
    Ok(http::Response::from_parts(parts, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
}

/// The journal's place: what a run finds there when it goes on is what the mutant leaves of it.
struct Forged {
    inner: Dying,
    mutation: Arc<Mutation>,
}

impl Store for Forged {
    fn load(&self) -> Result<Vec<Event>, Problem> {
        let events = self.inner.load()?;
        let mut forged = (self.mutation.mutant.forged)(events.clone());
        for (number, event) in forged.iter_mut().enumerate() {
            event.n = number as u64;
        }
        if forged != events {
            self.mutation.met.lock().unwrap().did = true;
        }
        Ok(forged)
    }

    fn append(&self, event: &Event, durable: bool) -> Result<(), Problem> {
        self.inner.append(event, durable)
    }

    fn put_blob(&self, text: &str) -> Result<String, Problem> {
        self.inner.put_blob(text)
    }

    fn get_blob(&self, name: &str) -> Result<Json, Problem> {
        self.inner.get_blob(name)
    }
}
