//! The layer: it stands where the network is, and lets happen what a plan says.

use super::{
    Answer, Change, Fault, Form, Patch, Seen, Then, Verb, When, Which, canonical, glob, is_like, steady, text,
};
use crate::lab::Lab;
use crate::lab::access::User;
use crate::lab::core::Core;
use crate::lab::handle::{Request, Verb as Asked};
use crate::lab::http::{self, Body, Response};
use crate::lab::kind;
use crate::lab::kubelet::{Images, Kubelets};
use crate::lab::negotiate;
use crate::lab::store::{Key, State};
use crate::words::clock::Clock;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Who changes things between requests.
const SOMEBODY: &str = "somebody";

/// A plan of faults for one lab, and the log of what was asked and of what happened.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    plan: Vec<Fault>,
    crashed: Box<dyn Fn(&Seen) + Send + Sync>,
    log: Mutex<Log>,
    dead: AtomicBool,
}

#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    /// How many requests of a verb, kind, namespace and steady name there were.
    met: BTreeMap<(Verb, String, String, String), u32>,
    /// How many requests fitted each fault.
    fitted: Vec<u32>,
    fired: Vec<Fired>,
    /// What was disturbed and did not come again yet, since when its answer was told.
    disturbed: Vec<(Same, usize, Instant)>,
    again: Vec<Again>,
}

/// What makes two requests the same: method, address and body.
type Same = (::http::Method, ::http::Uri, Bytes);

/// Something that went wrong as it should.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fired {
    /// Its place in the plan.
    pub fault: usize,
    pub on: Seen,
    /// The objects that somebody changed, if that is what happened.
    pub changed: Vec<String>,
}

/// A request that came again, word for word, after something had gone wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// What went wrong: its place in the plan.
    pub fault: usize,
    pub on: Seen,
    /// How long after the answer.
    pub after: Duration,
}

impl Faults {
    pub fn new(lab: &Lab, plan: Vec<Fault>) -> Faults {
        Faults::on(lab.core().clone(), plan, Box::new(|_| {}))
    }

    /// With what is to be done at a [`Then::Crash`].
    pub fn with_crash(lab: &Lab, plan: Vec<Fault>, crashed: Box<dyn Fn(&Seen) + Send + Sync>) -> Faults {
        Faults::on(lab.core().clone(), plan, crashed)
    }

    pub(super) fn on(core: Arc<Core>, plan: Vec<Fault>, crashed: Box<dyn Fn(&Seen) + Send + Sync>) -> Faults {
        let log = Log { fitted: vec![0; plan.len()], ..Log::default() };
        Faults { shared: Arc::new(Shared { core, plan, crashed, log: Mutex::new(log), dead: AtomicBool::new(false) }) }
    }

    /// A client's way in, through all that goes wrong.
    pub fn transport(&self) -> Faulty {
        Faulty { shared: self.shared.clone() }
    }

    /// Lets everything that somebody else does in the plan happen now, without a request.
    pub fn strike(&self) -> Vec<String> {
        let mut changed = Vec::new();
        for fault in &self.shared.plan {
            match &fault.then {
                Then::Somebody(change) => changed.extend(self.shared.change(change)),
                then => changed.extend(self.shared.kill(then)),
            }
        }
        changed
    }

    /// Every request that came, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.log().seen.clone()
    }

    pub fn fired(&self) -> Vec<Fired> {
        self.shared.log().fired.clone()
    }

    /// What was asked again after it had been disturbed: the first time of each.
    pub fn again(&self) -> Vec<Again> {
        self.shared.log().again.clone()
    }

    /// What never happened: nothing fitted, or there was nothing to change.
    pub fn unfired(&self) -> Vec<Fault> {
        let log = self.shared.log();
        let plan = self.shared.plan.iter().enumerate();
        plan.filter(|(at, _)| log.fired.iter().all(|one| one.fault != *at)).map(|(_, fault)| fault.clone()).collect()
    }

    /// Whether the client has died.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and returns what is due, by place in the plan.
    fn meet(&self, mut seen: Seen, same: &Same) -> (Seen, Vec<usize>) {
        let mut log = self.log();
        let key = (seen.verb, seen.kind.clone(), seen.namespace.clone(), steady(&seen.name));
        let count = log.met.entry(key).or_default();
        *count += 1;
        seen.nth = *count;
        seen.number = u32::try_from(log.seen.len() + 1).unwrap_or(u32::MAX);
        log.seen.push(seen.clone());
        if let Some(at) = log.disturbed.iter().position(|(one, ..)| one == same) {
            let (_, fault, since) = log.disturbed.swap_remove(at);
            log.again.push(Again {
                fault,
                on: seen.clone(),
                after: Clock.monotonic().saturating_duration_since(since),
            });
        }
        let mut due = Vec::new();
        for (at, fault) in self.plan.iter().enumerate() {
            if fault.then.suits(seen.verb) && fault.on.fits(&seen) {
                log.fitted[at] += 1;
                let first = fault.on.nth;
                if (first..first.saturating_add(fault.times)).contains(&log.fitted[at]) {
                    due.push(at);
                }
            }
        }
        (seen, due)
    }

    fn fire(&self, fault: usize, on: &Seen, changed: Vec<String>) {
        self.log().fired.push(Fired { fault, on: on.clone(), changed });
    }

    async fn answer(&self, request: ::http::Request<Bytes>) -> Response {
        http::answer(&self.core, &User::admin(), request).await
    }

    async fn pass(&self, request: ::http::Request<Bytes>) -> io::Result<Response> {
        if self.dead.load(Ordering::SeqCst) {
            return Ok(nobody());
        }
        let same = (request.method().clone(), request.uri().clone(), request.body().clone());
        let (seen, due) = self.meet(seen(&request), &same);
        self.aside(&seen, &due, When::Before);
        let first = due.iter().find(|at| !self.plan[**at].then.is_aside());
        let answer = match first {
            Some(at) => self.disturb(*at, &seen, request).await,
            None => Ok(self.answer(request).await),
        };
        if let Some(at) = first {
            self.log().disturbed.push((same, *at, Clock.monotonic()));
        }
        self.aside(&seen, &due, When::After);
        // What comes after the death is read by nobody.
        if self.dead.load(Ordering::SeqCst) { Ok(nobody()) } else { answer }
    }

    /// What somebody else does at this moment.
    fn aside(&self, seen: &Seen, due: &[usize], when: When) {
        for at in due.iter().filter(|at| self.plan[**at].when == when) {
            let changed = match &self.plan[*at].then {
                Then::Somebody(change) => self.change(change),
                then => self.kill(then),
            };
            if !changed.is_empty() {
                self.fire(*at, seen, changed);
            }
        }
    }

    async fn disturb(&self, at: usize, seen: &Seen, request: ::http::Request<Bytes>) -> io::Result<Response> {
        let fault = &self.plan[at];
        if let Then::Stale(changes) = fault.then {
            let old = self.core.look(|state| before(state, seen, changes));
            let Some(old) = old else { return Ok(self.answer(request).await) };
            self.fire(at, seen, Vec::new());
            // A cluster that stands still, as it was then.
            let kubelets = Kubelets::new(Images::default(), Arc::new(|_| {}));
            let then = Core::new(old, self.core.disks.clone(), kubelets, None);
            return Ok(http::answer(&then, &User::admin(), request).await);
        }
        self.fire(at, seen, Vec::new());
        match &fault.then {
            Then::Lost => Err(reset()),
            Then::AnswerLost => {
                self.answer(request).await;
                Err(reset())
            }
            Then::NoAnswer => {
                if fault.when == When::After {
                    self.answer(request).await;
                }
                std::future::pending().await
            }
            Then::Status(answer) => {
                if fault.when == When::After {
                    self.answer(request).await;
                }
                Ok(refusal(answer, seen))
            }
            Then::Reset => Ok(self.cut(seen, request, true).await),
            Then::Truncated => Ok(self.cut(seen, request, false).await),
            Then::DelayS(seconds) => {
                let late = async |request| match fault.when {
                    When::Before => {
                        passes(*seconds).await;
                        self.answer(request).await
                    }
                    When::After => {
                        let answer = self.answer(request).await;
                        passes(*seconds).await;
                        answer
                    }
                };
                Ok(late(request).await)
            }
            Then::Twice => {
                self.answer(request.clone()).await;
                Ok(self.answer(request).await)
            }
            Then::WatchDropped => Ok(stream(futures::stream::empty())),
            Then::WatchSilent => Ok(stream(futures::stream::pending())),
            Then::WatchExpired => {
                let gone = render(&Answer::of(410), seen);
                let line = format!("{}\n", json!({"type": "ERROR", "object": gone}));
                Ok(stream(futures::stream::once(async { Ok(Bytes::from(line)) })))
            }
            Then::Crash => {
                if fault.when == When::After {
                    self.answer(request).await;
                }
                self.dead.store(true, Ordering::SeqCst);
                (self.crashed)(seen);
                Ok(nobody())
            }
            Then::Stale(_) | Then::Somebody(_) | Then::KillPod(_) | Then::OomKillPod(_) | Then::EvictPod(_) => {
                Ok(self.answer(request).await)
            }
        }
    }

    /// Half of the answer.
    async fn cut(&self, seen: &Seen, request: ::http::Request<Bytes>, is_reset: bool) -> Response {
        let (parts, whole) = self.answer(request).await.into_parts();
        let half = if matches!(seen.verb, Verb::Watch | Verb::Log) {
            // Of what has no end a beginning.
            Bytes::from_static(b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":")
        } else {
            let whole = whole.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            whole.slice(..whole.len() / 2)
        };
        let end = is_reset.then(|| Err(reset()));
        let mut answer = stream(futures::stream::iter([Ok(half)].into_iter().chain(end)));
        *answer.status_mut() = parts.status;
        answer
    }

    /// Makes a change that is none of the client's. Returns what was changed.
    fn change(&self, change: &Change) -> Vec<String> {
        let ask = |verb: Asked, kind: &str, namespace: &str, name: &str, body: Value| {
            let kind = kind::find(&canonical(kind))?;
            let request = Request {
                verb,
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                sub: String::new(),
                query: BTreeMap::new(),
                body,
                user: User::system(SOMEBODY),
            };
            let before = self.core.look(State::revision);
            match self.core.request(&request) {
                Ok(answer) if self.core.look(State::revision) != before => {
                    let named = text(&answer.object["metadata"]["name"]);
                    let name = if named.is_empty() { name } else { named };
                    Some(format!("{} {name}", kind.kind))
                }
                Ok(_) => None,
                Err(status) => {
                    tracing::debug!("{SOMEBODY} was refused: {}", status.message);
                    None
                }
            }
        };
        match change {
            Change::Create(object) => {
                let (kind, namespace) = (text(&object["kind"]), text(&object["metadata"]["namespace"]));
                ask(Asked::Create, kind, namespace, "", object.clone()).into_iter().collect()
            }
            Change::Patch(Patch { kind, name, namespace, like, body }) => {
                let all = self.which(kind, name, namespace, like);
                let merge = || Asked::Patch(negotiate::Body::MergePatch);
                all.iter().filter_map(|key| ask(merge(), key.kind, &key.namespace, &key.name, body.clone())).collect()
            }
            Change::Delete(Which { kind, name, namespace, like }) => {
                let all = self.which(kind, name, namespace, like);
                all.iter()
                    .filter_map(|key| ask(Asked::Delete, key.kind, &key.namespace, &key.name, Value::Null))
                    .collect()
            }
        }
    }

    fn kill(&self, then: &Then) -> Vec<String> {
        let Some((which, fate)) = then.kills() else { return Vec::new() };
        let all = self.which("Pod", &which.name, &which.namespace, &which.like);
        let kill = |key: &Key| self.core.with_kubelets(|kubelets, _| kubelets.kill_pod(key, fate)) > 0;
        all.into_iter().filter(kill).map(|key| format!("the processes of {key}")).collect()
    }

    fn which(&self, kind: &str, name: &str, namespace: &str, like: &Value) -> Vec<Key> {
        let Some(kind) = kind::find(&canonical(kind)) else { return Vec::new() };
        self.core.look(|state| {
            let all = state.list(kind.kind, "");
            let fitting = all.filter(|(key, object)| {
                glob(name, &key.name) && glob(namespace, &key.namespace) && is_like(object, like)
            });
            fitting.map(|(key, _)| key.clone()).collect()
        })
    }
}

/// The way in of one client, cheap to clone.
#[derive(Clone)]
pub struct Faulty {
    shared: Arc<Shared>,
}

impl<B> tower_service::Service<::http::Request<B>> for Faulty
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.map_err(|e| io::Error::other(e.to_string()))?.to_bytes();
            shared.pass(::http::Request::from_parts(parts, bytes)).await
        })
    }
}

/// What a request is, before it is counted.
fn seen(request: &::http::Request<Bytes>) -> Seen {
    let (method, uri) = (request.method(), request.uri());
    let told = http::place(uri.path());
    let query = http::query(uri.query().unwrap_or_default());
    let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let Some(place) = told else {
        let is_review = uri.path().contains("/authorization.k8s.io/") && method == ::http::Method::POST;
        let (verb, kind) = if is_review { (Verb::Review, "") } else { (Verb::Discover, "") };
        let name = uri.path().to_owned();
        return Seen { number: 0, verb, kind: kind.to_owned(), namespace: String::new(), name, nth: 0 };
    };
    let kind = kind::served(&place.group, &place.version, &place.plural).map_or(&place.plural[..], |kind| kind.kind);
    let one = asked("fieldSelector").split(',').find_map(|part| part.strip_prefix("metadata.name="));
    let mut name = if place.name.is_empty() { one.unwrap_or_default().to_owned() } else { place.name.clone() };
    let verb = match (method.as_str(), place.name.is_empty()) {
        _ if !asked("dryRun").is_empty() => Verb::DryRun,
        ("POST", _) => Verb::Create,
        ("PUT", _) => Verb::Update,
        ("PATCH", _) => Verb::Patch,
        ("DELETE", _) => Verb::Delete,
        _ if place.sub == "log" => Verb::Log,
        (_, false) => Verb::Get,
        _ if asked("watch") == "true" || asked("watch") == "1" => Verb::Watch,
        _ => Verb::List,
    };
    if method == ::http::Method::POST && name.is_empty() {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        text(&body["metadata"]["name"]).clone_into(&mut name);
    }
    Seen { number: 0, verb, kind: kind.to_owned(), namespace: place.namespace, name, nth: 0 }
}

/// The cluster before the last so many changes of what is asked for, if they are remembered.
fn before(state: &State, seen: &Seen, changes: u32) -> Option<State> {
    let commits: Vec<_> = state.since(state.oldest()).ok()?.collect();
    let shown = commits.iter().rev().filter(|commit| {
        let key = &commit.key;
        key.kind == seen.kind
            && (seen.namespace.is_empty() || key.namespace == seen.namespace)
            && (seen.name.is_empty() || key.name == seen.name)
    });
    let first = shown.take(changes as usize).last()?;
    state.as_of(first.revision - 1).ok()
}

/// The body of a refusal.
fn render(answer: &Answer, seen: &Seen) -> Value {
    let place = kind::find(&seen.kind).map_or_else(|| seen.kind.clone(), kind::Kind::qualified);
    let object = format!("{place} \"{}\"", seen.name);
    let (reason, message) = match answer.code {
        400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
        401 => ("Unauthorized", "Unauthorized".to_owned()),
        403 => ("Forbidden", format!("{object} is forbidden: User \"me\" cannot {} resource", seen.verb.word())),
        404 => ("NotFound", format!("{object} not found")),
        409 if seen.verb == Verb::Create => ("AlreadyExists", format!("{object} already exists")),
        409 => (
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {object}: the object has been modified; please apply your changes \
                 to the latest version and try again"
            ),
        ),
        410 => ("Expired", "too old resource version: 1 (2)".to_owned()),
        413 => ("RequestEntityTooLarge", "limit is 3145728".to_owned()),
        422 => ("Invalid", format!("{object} is invalid")),
        429 => ("TooManyRequests", "Too many requests, please try again later.".to_owned()),
        500 => ("InternalError", "Internal error occurred: etcdserver: leader changed".to_owned()),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        504 => ("Timeout", "Timeout: request did not complete within the allotted timeout".to_owned()),
        _ => ("", "an error on the server has prevented the request from succeeding".to_owned()),
    };
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": answer.message.clone().unwrap_or(message),
        "reason": answer.reason.clone().unwrap_or_else(|| reason.to_owned()),
        "details": {"name": seen.name, "kind": place}, "code": answer.code,
    });
    if let Some(seconds) = answer.retry_after_s {
        body["details"]["retryAfterSeconds"] = seconds.into();
    }
    body
}

fn refusal(answer: &Answer, seen: &Seen) -> Response {
    let status = render(answer, seen);
    let message = text(&status["message"]);
    let (content, body) = match answer.body {
        Form::Status => ("application/json", format!("{status}\n")),
        Form::Text => ("text/plain; charset=utf-8", format!("{message}\n")),
        Form::Html => ("text/html", format!("<html><body><h1>{} {message}</h1></body></html>\n", answer.code)),
        Form::Empty => ("text/plain; charset=utf-8", String::new()),
    };
    let mut response = http::plain(answer.code, content, body);
    if let Some(seconds) = answer.retry_after_s {
        response.headers_mut().insert(::http::header::RETRY_AFTER, seconds.into());
    }
    response
}

/// What the dead are told: an answer that ends everything at once, where a reset would be tried again.
fn nobody() -> Response {
    http::failure(&crate::lab::status::Status::new(403, "Forbidden", "the process is dead"))
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
}

fn stream(pieces: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    let body: Body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
    ::http::Response::builder()
        .status(200)
        .header(::http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("code and content type are constants that fit")
}

async fn passes(seconds: f64) {
    let never = std::future::pending::<()>();
    // The time being over is all that is wanted.
    drop(tokio::time::timeout(Duration::from_secs_f64(seconds), never).await);
}
