//! The cluster at work: the state, who wants to look at what again, and the one thread in which controllers act.
//!
//! Every request and every write of a controller takes the same lock and the same `handle`, so that there is one order
//! of everything. What must stay true: a controller makes one write at a time and is asked again; every commit is told
//! to the hooks before anybody else sees it; the loop rests when nothing is due, and never spins.

use super::access::User;
use super::act::{CONTROLLERS, Propagation, Turn, Write};
use super::disk::Disks;
use super::handle::{self, Answer, Request, Verb};
use super::keep::Keeper;
use super::kind::{self, Kind};
use super::kubelet::Kubelets;
use super::status::Status;
use super::store::{Commit, Key, State, text};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Looks at every commit, before anybody else: for invariants.
pub type Hook = Box<dyn FnMut(&State, &Commit) + Send>;

/// Who has something to do: a controller by its place in [`CONTROLLERS`], or a kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Actor {
    Controller(usize),
    Kubelet,
}

type Job = (Actor, Key);

/// Jobs that are due, each once.
#[derive(Default)]
struct Queue {
    order: Vec<Job>,
    known: HashSet<Job>,
}

impl Queue {
    fn insert(&mut self, job: Job) {
        if self.known.insert(job.clone()) {
            self.order.push(job);
        }
    }

    fn extend(&mut self, jobs: impl IntoIterator<Item = Job>) {
        jobs.into_iter().for_each(|job| self.insert(job));
    }

    /// The job at a place; the last one takes the place.
    fn take(&mut self, at: usize) -> Job {
        let job = self.order.swap_remove(at);
        self.known.remove(&job);
        job
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// After a write that was refused.
const BACKOFF: SignedDuration = SignedDuration::from_millis(500);
/// So many writes for one object without rest are a loop.
const WRITES_MAX: u32 = 10_000;

pub struct Core {
    inner: Mutex<Inner>,
    /// Something is due.
    work: Condvar,
    /// The revision, for those that watch.
    pub revisions: tokio::sync::watch::Sender<u64>,
    pub disks: Disks,
    pace_ms: AtomicU64,
}

struct Inner {
    state: State,
    queue: Queue,
    timers: BTreeMap<Timestamp, BTreeSet<Job>>,
    hooks: Vec<Hook>,
    /// Commits up to here were told.
    told: u64,
    /// Writes of a job since it last rested.
    writes: BTreeMap<Job, u32>,
    /// Added to the system's clock.
    ahead: SignedDuration,
    kubelets: Kubelets,
    /// Where commits are written down.
    keeper: Option<Keeper>,
    /// Why nothing may be changed any more.
    broken: Option<String>,
    at_work: bool,
    ended: bool,
}

impl Core {
    /// A cluster that stands still until [`Core::work`] is called.
    pub fn new(state: State, disks: Disks, kubelets: Kubelets, keeper: Option<Keeper>) -> Arc<Core> {
        let revision = state.revision();
        let mut inner = Inner {
            told: state.revision(),
            state,
            queue: Queue::default(),
            timers: BTreeMap::new(),
            hooks: Vec::new(),
            writes: BTreeMap::new(),
            ahead: SignedDuration::ZERO,
            kubelets,
            keeper,
            broken: None,
            at_work: false,
            ended: false,
        };
        inner.look_at_all();
        let (revisions, _) = tokio::sync::watch::channel(revision);
        Arc::new(Core { inner: Mutex::new(inner), work: Condvar::new(), revisions, disks, pace_ms: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked half-way: nothing that the lab says from now on could be trusted.
            let mut inner = poisoned.into_inner();
            inner.broken.get_or_insert_with(|| "a bug of the lab: it panicked".to_owned());
            inner.ended = true;
            inner
        })
    }

    /// One request of a client.
    pub fn request(&self, request: &Request) -> Result<Answer, Status> {
        let mut inner = self.lock();
        inner.tick();
        inner.sound()?;
        let answer = handle::handle(&mut inner.state, request);
        self.tell(&mut inner);
        // Not kept means not done, whatever was decided.
        inner.sound()?;
        answer
    }

    /// Lets every request through the port take this long, as on a server that is far and has a disk.
    pub fn set_pace(&self, pace: Duration) {
        self.pace_ms.store(u64::try_from(pace.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn pace(&self) -> Duration {
        Duration::from_millis(self.pace_ms.load(Ordering::Relaxed))
    }

    /// Why the lab had to stop, if it had to.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Waits until the state is past a revision; not for longer than this. Returns false if it is not.
    pub fn wait_past(&self, before: u64, limit: Duration) -> bool {
        let inner = self.lock();
        let (inner, _) = self
            .work
            .wait_timeout_while(inner, limit, |inner| inner.state.revision() == before && !inner.ended)
            .unwrap_or_else(PoisonError::into_inner);
        inner.state.revision() != before
    }

    /// Reads the state.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let mut inner = self.lock();
        inner.tick();
        look(&inner.state)
    }

    /// Changes the kubelets: what processes, nodes and tests do to them; they look at everything of theirs again.
    pub fn with_kubelets<T>(&self, change: impl FnOnce(&mut Kubelets, &State) -> T) -> T {
        let mut inner = self.lock();
        inner.tick();
        let Inner { state, kubelets, .. } = &mut *inner;
        let out = change(kubelets, state);
        for key in inner.kubelets.take_woken() {
            inner.queue.insert((Actor::Kubelet, key));
        }
        drop(inner);
        self.work.notify_all();
        out
    }

    pub fn hook(&self, hook: Hook) {
        self.lock().hooks.push(hook);
    }

    /// Lets time go forward at once.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.lock();
        inner.ahead += SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        drop(inner);
        self.work.notify_all();
    }

    /// Waits until nobody has anything to do before a later time; processes may still run.
    pub fn wait_for_rest(&self, limit: Duration) -> bool {
        let deadline = crate::words::clock::Clock.deadline(limit);
        let mut inner = self.lock();
        while !inner.queue.is_empty() || inner.at_work {
            if deadline.passed() {
                return false;
            }
            let (again, _) = self.work.wait_timeout(inner, deadline.left()).unwrap_or_else(PoisonError::into_inner);
            inner = again;
        }
        true
    }

    /// Ends the loop.
    pub fn end(&self) {
        self.lock().ended = true;
        self.work.notify_all();
    }

    /// Hands new commits to the hooks, and to all whom they concern.
    fn tell(&self, inner: &mut Inner) {
        if inner.state.revision() == inner.told {
            return;
        }
        let commits: Vec<Arc<Commit>> = match inner.state.since(inner.told) {
            Ok(commits) => commits.cloned().collect(),
            Err(_) => unreachable!("commits are told before the window moves on"),
        };
        if let Some(keeper) = &mut inner.keeper
            && let Err(why) = keeper.keep(&commits)
        {
            tracing::error!("{why}");
            inner.broken = Some(why);
            inner.ended = true;
        }
        let Inner { state, hooks, told, queue, kubelets, .. } = inner;
        for commit in &commits {
            for hook in hooks.iter_mut() {
                hook(state, commit);
            }
            for (number, controller) in CONTROLLERS.iter().enumerate() {
                let woken = (controller.wakes)(state, commit);
                queue.extend(woken.into_iter().map(|key| (Actor::Controller(number), key)));
            }
            queue.extend(kubelets.wakes(state, commit).into_iter().map(|key| (Actor::Kubelet, key)));
        }
        *told = state.revision();
        self.revisions.send_replace(state.revision());
        self.work.notify_all();
    }

    /// Acts until [`Core::end`]: the body of the lab's one thread.
    pub fn work(&self) {
        let mut inner = self.lock();
        loop {
            if inner.ended {
                inner.kubelets.end_all();
                return;
            }
            inner.tick();
            inner.ring();
            let Some(job) = inner.pick() else {
                inner.at_work = false;
                self.work.notify_all();
                inner = match inner.until_next() {
                    None => self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
                    Some(pause) => self.work.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0,
                };
                continue;
            };
            inner.at_work = true;
            self.turn(&mut inner, job);
            // Clients come in between any two writes.
            drop(inner);
            inner = self.lock();
        }
    }

    fn turn(&self, inner: &mut Inner, job: Job) {
        let (actor, key) = &job;
        let (name, turn) = match actor {
            Actor::Controller(number) => {
                let controller = CONTROLLERS[*number];
                (controller.name, (controller.act)(&inner.state, key))
            }
            Actor::Kubelet => {
                let Inner { state, kubelets, .. } = inner;
                ("kubelet", kubelets.act(state, key, &self.disks))
            }
        };
        let user = User::system(&format!("system:lab:{name}"));
        let before = inner.state.revision();
        let Turn { writes, again_at } = turn;
        let mut refused = false;
        let mut acted = false;
        for write in writes {
            // What is said behind a write is said of what was done; the rest waits until it was looked at again.
            if acted && !matches!(write, Write::Event { .. }) {
                break;
            }
            let wanted = match &write {
                Write::Create(object) => Some(object.clone()),
                _ => None,
            };
            match self.perform(&mut inner.state, &user, write) {
                Ok(changed) => acted |= changed,
                Err(status) => {
                    tracing::debug!("{name} on {key}: {}", status.message);
                    refused = true;
                    let told =
                        wanted.and_then(|object| super::act::events::refused(&inner.state, &object, &status.message));
                    if let Some(event) = told {
                        // Events are never refused: see there.
                        drop(self.perform(&mut inner.state, &user, event));
                    }
                    break;
                }
            }
        }
        acted |= inner.state.revision() != before;
        self.tell(inner);
        if refused {
            let at = inner.state.now() + BACKOFF;
            inner.timers.entry(at).or_default().insert(job);
        } else if acted {
            let count = inner.writes.entry(job.clone()).or_default();
            *count += 1;
            assert!(*count < WRITES_MAX, "{name} does not come to rest with {key}: a bug of the lab");
            inner.queue.insert(job);
        } else {
            inner.writes.remove(&job);
            if let Some(at) = again_at {
                inner.timers.entry(at).or_default().insert(job);
            }
        }
    }

    /// Makes one write. Returns whether anything changed.
    fn perform(&self, state: &mut State, user: &User, write: Write) -> Result<bool, Status> {
        let before = state.revision();
        let ask = |verb: Verb, kind: &'static Kind, namespace: &str, name: &str, sub: &str, body: Value| Request {
            verb,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            sub: sub.to_owned(),
            query: BTreeMap::new(),
            body,
            user: user.clone(),
        };
        let of = |object: &Value| {
            let meta = &object["metadata"];
            (kind::kind(text(&object["kind"])), text(&meta["namespace"]).to_owned(), text(&meta["name"]).to_owned())
        };
        let outcome = match write {
            Write::Create(object) => {
                let (kind, namespace, _) = of(&object);
                match handle::handle(state, &ask(Verb::Create, kind, &namespace, "", "", object)) {
                    Err(status) if status.reason == "AlreadyExists" => Ok(()),
                    other => other.map(|_| ()),
                }
            }
            Write::Update(object) => {
                let (kind, namespace, name) = of(&object);
                handle::handle(state, &ask(Verb::Update, kind, &namespace, &name, "", object)).map(|_| ())
            }
            Write::Status(object) => {
                let (kind, namespace, name) = of(&object);
                handle::handle(state, &ask(Verb::Update, kind, &namespace, &name, "status", object)).map(|_| ())
            }
            Write::Finalize(object) => {
                let (kind, namespace, name) = of(&object);
                handle::handle(state, &ask(Verb::Update, kind, &namespace, &name, "finalize", object)).map(|_| ())
            }
            Write::Delete { key, uid, grace_s, propagation } => {
                let policy = match propagation {
                    Propagation::Background => "Background",
                    Propagation::Foreground => "Foreground",
                    Propagation::Orphan => "Orphan",
                };
                let mut options = json!({"preconditions": {"uid": uid}, "propagationPolicy": policy});
                if let Some(grace) = grace_s {
                    options["gracePeriodSeconds"] = grace.into();
                }
                let request = ask(Verb::Delete, kind::kind(key.kind), &key.namespace, &key.name, "", options);
                match handle::handle(state, &request) {
                    Err(status) if matches!(status.code, 404 | 409) => Ok(()),
                    other => other.map(|_| ()),
                }
            }
            Write::Bind { pod, node } => {
                let body = json!({"target": {"kind": "Node", "name": node}});
                let kind = kind::kind("Pod");
                handle::handle(state, &ask(Verb::Create, kind, &pod.namespace, &pod.name, "binding", body)).map(|_| ())
            }
            Write::Event { about, is_warning, reason, message } => {
                match event(state, user, &about, is_warning, reason, &message) {
                    None => Ok(()),
                    Some(event) => {
                        let namespace = text(&event["metadata"]["namespace"]).to_owned();
                        let request = ask(Verb::Create, kind::kind("Event"), &namespace, "", "", event);
                        // Nobody's work fails because an event could not be told, in a namespace that goes say.
                        handle::handle(state, &request).map(|_| ()).or(Ok(()))
                    }
                }
            }
            Write::MakeDisk { handle, bytes, is_block, from } => {
                let made = match from {
                    Some(from) => self.disks.make_like(&from, &handle, bytes),
                    None if is_block => self.disks.make_device(&handle, bytes),
                    None => self.disks.make(&handle),
                };
                return made.map_err(|e| disk_failed(&e));
            }
            Write::RemoveDisk { handle } => return self.disks.remove(&handle).map_err(|e| disk_failed(&e)),
        };
        outcome.map(|()| state.revision() != before)
    }
}

fn disk_failed(error: &std::io::Error) -> Status {
    Status::new(500, "InternalError", format!("the directory of a volume: {error}"))
}

/// The Event, unless it was told of the same uid before.
fn event(state: &State, user: &User, about: &Value, is_warning: bool, reason: &str, message: &str) -> Option<Value> {
    let meta = &about["metadata"];
    let namespace = match text(&meta["namespace"]) {
        "" => "default",
        namespace => namespace,
    };
    let (name, uid) = (text(&meta["name"]), text(&meta["uid"]));
    // One name for one thing that is said: a second telling is seen by name, without a search.
    let said = format!("{uid} {reason} {message}");
    let hash = said
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let event_name = format!("{name}.{hash:016x}");
    if state.get("Event", namespace, &event_name).is_some() {
        return None;
    }
    let now = handle::stamp(state.now());
    let component = user.name.trim_start_matches("system:lab:");
    let mut event = json!({
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": event_name, "namespace": namespace},
        "involvedObject": {
            "kind": about["kind"], "namespace": meta["namespace"], "name": name, "uid": uid,
            "apiVersion": about["apiVersion"], "resourceVersion": meta["resourceVersion"],
        },
        "reason": reason, "message": message, "source": {"component": component},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1, "type": if is_warning { "Warning" } else { "Normal" },
        "reportingComponent": "", "reportingInstance": "",
    });
    if component == "default-scheduler" {
        // It alone tells its events in the newer way: a source of another name, and a time of another name.
        event["source"] = json!({});
        event["firstTimestamp"] = Value::Null;
        event["lastTimestamp"] = Value::Null;
        event["eventTime"] = state.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into();
        event["action"] = if is_warning { "Scheduling" } else { "Binding" }.into();
        event["reportingComponent"] = component.into();
        event["reportingInstance"] = format!("{component}-lab").into();
        event.as_object_mut().map(|event| event.shift_remove("count"));
    }
    Some(event)
}

impl Inner {
    fn sound(&self) -> Result<(), Status> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Status::new(500, "InternalError", format!("the lab has stopped: {why}"))),
        }
    }

    /// The cluster's time is the system's, plus what it was put ahead; never back.
    fn tick(&mut self) {
        let now = crate::words::clock::Clock.now() + self.ahead;
        if now > self.state.now() {
            self.state.set_now(now);
        }
    }

    /// Moves what is due from the timers to the queue.
    fn ring(&mut self) {
        let now = self.state.now();
        while let Some((at, jobs)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert(at, jobs);
                break;
            }
            self.queue.extend(jobs);
        }
    }

    fn until_next(&self) -> Option<Duration> {
        let (at, _) = self.timers.first_key_value()?;
        let left = at.duration_since(self.state.now());
        Some(Duration::try_from(left).unwrap_or(Duration::ZERO).max(Duration::from_millis(1)))
    }

    /// The next job, chosen by the seed.
    fn pick(&mut self) -> Option<Job> {
        let count = self.queue.len();
        if count == 0 {
            return None;
        }
        let at = (self.state.random() % count as u64) as usize;
        Some(self.queue.take(at))
    }

    /// Everybody looks at everything once: after a start, or a snapshot that was restored.
    fn look_at_all(&mut self) {
        let keys: Vec<(Key, Arc<Value>)> = super::kind::KINDS
            .iter()
            .flat_map(|kind| self.state.list(kind.kind, ""))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for (key, object) in keys {
            let commit = Commit { revision: 0, key, before: None, after: Some(object), by: "system:lab".into() };
            for (number, controller) in CONTROLLERS.iter().enumerate() {
                let woken = (controller.wakes)(&self.state, &commit);
                self.queue.extend(woken.into_iter().map(|key| (Actor::Controller(number), key)));
            }
            let woken = self.kubelets.wakes(&self.state, &commit);
            self.queue.extend(woken.into_iter().map(|key| (Actor::Kubelet, key)));
        }
    }
}
