//! What can go wrong between a client and the cluster, as data: one vocabulary for tests and for users' scripts.
//!
//! A fault says on which request (`on`), and what happens then (`then`). It is plain JSON, so it fits on one line of a
//! terminal and into a map of a script:
//!
//! ```json
//! {"on": {"verb": "delete", "kind": "PersistentVolumeClaim", "name": "data"}, "then": "answer_lost"}
//! {"on": {"verb": "write", "nth": 7}, "then": {"status": {"code": 429, "retry_after_s": 1}}}
//! {"on": {"nth": 40}, "when": "after", "then": {"somebody": {"patch": {"kind": "Deployment", "name": "web", "body": {"spec": {"replicas": 1}}}}}}
//! ```
//!
//! The core knows nothing of it: [`Faults`] is a layer around the transport. What must stay true: whether a fault
//! happened can always be told, because one that never did proves nothing.

mod layer;
#[cfg(test)]
mod tests;

pub use layer::{Again, Faults, Faulty, Fired};

use super::kind;
use super::process::Fate;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The request; without anything in it every request fits.
    #[serde(default, skip_serializing_if = "On::is_any")]
    pub on: On,
    #[serde(default, skip_serializing_if = "When::is_before")]
    pub when: When,
    pub then: Then,
    /// To how many fitting requests in a row it happens.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u32,
}

/// Which request. What is left out fits everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct On {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<Verb>,
    /// `PersistentVolumeClaim`, `pvc` or `persistentvolumeclaims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// With `*` for any characters. A list or a watch of one object has its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With `*` for any characters; empty for what has no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The how manieth of those that fit, from 1.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub nth: u32,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    /// A container's log.
    Log,
    /// A write with `dryRun=All`.
    DryRun,
    /// A question about rights.
    Review,
    /// What the server serves.
    Discover,
    /// get, list, watch or log.
    Read,
    /// create, update, patch or delete.
    Write,
}

/// On which side of what the server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The server has not seen the request; if the answer is a fault's, it never does.
    #[default]
    Before,
    /// The server has done it; the client has no answer yet.
    After,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// This answer instead of the server's; `{"status": 409}` for short.
    Status(Answer),
    /// The request never arrives: the connection is reset before it does.
    Lost,
    /// It is done, and the connection is reset before the answer arrives.
    AnswerLost,
    /// No answer comes, and no end.
    NoAnswer,
    /// The connection is reset in the middle of the answer.
    Reset,
    /// The answer ends in its middle as if it were whole.
    Truncated,
    /// It takes so many seconds longer.
    DelayS(f64),
    /// A get or list is answered as it would have been before the last so many changes of what it shows.
    Stale(u32),
    /// The request arrives twice, as from a proxy that tries again; the second answer is told.
    Twice,
    /// A watch ends at once, in good order.
    WatchDropped,
    /// A watch stays open and tells nothing.
    WatchSilent,
    /// A watch says that its past is gone (410 in a stream of 200).
    WatchExpired,
    /// Somebody else changes something.
    Somebody(Change),
    /// The processes of pods are killed, and nobody says so.
    KillPod(Which),
    /// The processes of pods are killed because they use too much memory, as their kubelet says.
    OomKillPod(Which),
    /// Pods are evicted by their kubelet, whose node is short of something.
    EvictPod(Which),
    /// The client dies: whoever runs it is called, and nothing is answered any more.
    Crash,
}

/// An answer that is none of the server's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Answer {
    pub code: u16,
    /// The usual one of the code, unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The `Retry-After` header, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Form::is_status")]
    pub body: Form,
}

/// What an answer's body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A `Status`, as of the API server.
    #[default]
    Status,
    /// The message alone, as of its filters.
    Text,
    /// A page, as of a proxy.
    Html,
    Empty,
}

/// What somebody else does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The object.
    Create(Value),
    Patch(Patch),
    Delete(Which),
}

/// Objects that somebody changes: all that fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    pub kind: String,
    #[serde(default = "any", skip_serializing_if = "is_any")]
    pub name: String,
    #[serde(default = "any", skip_serializing_if = "is_any")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub like: Value,
    /// Merged over the object.
    pub body: Value,
}

/// Objects: all that fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Not needed where only pods are meant.
    #[serde(default = "pod", skip_serializing_if = "is_pod")]
    pub kind: String,
    /// With `*` for any characters.
    #[serde(default = "any", skip_serializing_if = "is_any")]
    pub name: String,
    #[serde(default = "any", skip_serializing_if = "is_any")]
    pub namespace: String,
    /// A part of the object: `{"spec": {"storageClassName": "fast"}}`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub like: Value,
}

/// A request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// From 1, over all requests.
    pub number: u32,
    pub verb: Verb,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// From 1, over the requests with the same verb, kind, namespace and [`steady`] name.
    pub nth: u32,
}

fn once() -> u32 {
    1
}

fn is_once(times: &u32) -> bool {
    *times == 1
}

fn any() -> String {
    "*".to_owned()
}

fn is_any(name: &str) -> bool {
    name == "*"
}

fn pod() -> String {
    "Pod".to_owned()
}

fn is_pod(kind: &str) -> bool {
    kind == "Pod"
}

impl Default for On {
    fn default() -> On {
        On { verb: None, kind: None, name: None, namespace: None, nth: 1 }
    }
}

impl On {
    fn is_any(&self) -> bool {
        *self == On::default()
    }

    /// Whether a request fits, but for its number.
    pub fn fits(&self, seen: &Seen) -> bool {
        self.verb.is_none_or(|verb| verb.covers(seen.verb))
            && self.kind.as_deref().is_none_or(|kind| canonical(kind) == seen.kind)
            && self.name.as_deref().is_none_or(|name| glob(name, &seen.name))
            && self.namespace.as_deref().is_none_or(|namespace| glob(namespace, &seen.namespace))
    }
}

impl Verb {
    fn covers(self, other: Verb) -> bool {
        match self {
            Verb::Read => matches!(other, Verb::Get | Verb::List | Verb::Watch | Verb::Log),
            Verb::Write => other.is_write(),
            one => one == other,
        }
    }

    /// Whether it changes the cluster.
    pub fn is_write(self) -> bool {
        matches!(self, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::Write)
    }

    pub fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::Log => "log",
            Verb::DryRun => "dry_run",
            Verb::Review => "review",
            Verb::Discover => "discover",
            Verb::Read => "read",
            Verb::Write => "write",
        }
    }
}

impl When {
    pub fn is_before(&self) -> bool {
        *self == When::Before
    }
}

impl Form {
    fn is_status(&self) -> bool {
        *self == Form::Status
    }
}

/// A number is the code.
impl TryFrom<Value> for Answer {
    type Error = String;

    fn try_from(value: Value) -> Result<Answer, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Whole {
            code: u16,
            reason: Option<String>,
            message: Option<String>,
            retry_after_s: Option<u64>,
            #[serde(default)]
            body: Form,
        }
        if value.is_number() {
            return serde_json::from_value(value).map(Answer::of).map_err(|e| e.to_string());
        }
        let Whole { code, reason, message, retry_after_s, body } =
            serde_json::from_value(value).map_err(|e| format!("status: {e}"))?;
        Ok(Answer { code, reason, message, retry_after_s, body })
    }
}

impl Answer {
    pub fn of(code: u16) -> Answer {
        Answer { code, reason: None, message: None, retry_after_s: None, body: Form::Status }
    }
}

impl Then {
    /// The only requests that it can happen to, if not all.
    fn needs(&self) -> &'static [Verb] {
        match self {
            Then::Stale(_) => &[Verb::Get, Verb::List],
            Then::WatchDropped | Then::WatchSilent | Then::WatchExpired => &[Verb::Watch],
            _ => &[],
        }
    }

    fn suits(&self, verb: Verb) -> bool {
        self.needs().is_empty() || self.needs().contains(&verb)
    }

    /// Whose processes are killed, and what their kubelet says about it.
    fn kills(&self) -> Option<(&Which, Option<Fate>)> {
        match self {
            Then::KillPod(which) => Some((which, None)),
            Then::OomKillPod(which) => Some((which, Some(Fate::OutOfMemory))),
            Then::EvictPod(which) => Some((which, Some(Fate::Evicted))),
            _ => None,
        }
    }

    /// Whether the client's request and its answer are left as they are.
    fn is_aside(&self) -> bool {
        matches!(self, Then::Somebody(_)) || self.kills().is_some()
    }
}

impl Fault {
    pub fn new(on: On, then: Then) -> Fault {
        Fault { on, when: When::Before, then, times: 1 }
    }

    #[must_use]
    pub fn when(mut self, when: When) -> Fault {
        self.when = when;
        self
    }

    #[must_use]
    pub fn times(mut self, times: u32) -> Fault {
        self.times = times;
        self
    }

    /// Reads one fault from a line.
    ///
    /// # Errors
    /// Says what is wrong with it, also if it could never happen.
    pub fn parse(line: &str) -> Result<Fault, String> {
        Fault::read(serde_json::from_str(line).map_err(|e| format!("this is not JSON: {e}"))?)
    }

    /// The same from a value.
    ///
    /// # Errors
    /// As [`Fault::parse`].
    pub fn read(value: Value) -> Result<Fault, String> {
        let fault: Fault = serde_json::from_value(value).map_err(|e| e.to_string())?;
        fault.check()?;
        Ok(fault)
    }

    fn check(&self) -> Result<(), String> {
        if self.on.nth == 0 {
            return Err("`nth` counts from 1".to_owned());
        }
        if self.times == 0 {
            return Err("`times` is at least 1".to_owned());
        }
        let needs = self.then.needs();
        let can = |verb: Verb| needs.is_empty() || needs.iter().any(|one| verb.covers(*one));
        if let Some(verb) = self.on.verb.filter(|verb| !can(*verb)) {
            let words: Vec<&str> = needs.iter().map(|verb| verb.word()).collect();
            return Err(format!("this can happen to a {} only, never to a {}", words.join(" or "), verb.word()));
        }
        match &self.then {
            Then::Status(answer) if !(400..600).contains(&answer.code) => {
                Err(format!("{} is not the code of a failure: 400 to 599", answer.code))
            }
            Then::DelayS(seconds) if !(0.0..=86_400.0).contains(seconds) => Err(format!("{seconds} s is no delay")),
            Then::Stale(0) => Err("`stale` says how many changes are not seen: at least 1".to_owned()),
            Then::Somebody(Change::Create(object)) if kind::find(&canonical(text(&object["kind"]))).is_none() => {
                Err(format!("the lab has no kind `{}`", text(&object["kind"])))
            }
            Then::Somebody(Change::Patch(Patch { kind, .. }) | Change::Delete(Which { kind, .. }))
            | Then::KillPod(Which { kind, .. })
            | Then::OomKillPod(Which { kind, .. })
            | Then::EvictPod(Which { kind, .. })
                if kind::find(&canonical(kind)).is_none() =>
            {
                Err(format!("the lab has no kind `{kind}`"))
            }
            then => match then.kills() {
                Some((which, _)) if canonical(&which.kind) != "Pod" => Err("only pods have processes".to_owned()),
                _ => Ok(()),
            },
        }
    }
}

/// As one line of JSON, which [`Fault::parse`] reads.
impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
    }
}

impl Seen {
    /// What a fault says to meet this request, in this run and in the next one.
    pub fn on(&self) -> On {
        On {
            verb: Some(self.verb),
            kind: Some(self.kind.clone()),
            name: Some(steady(&self.name)),
            namespace: Some(self.namespace.clone()),
            nth: self.nth,
        }
    }
}

/// `3: patch PersistentVolume pvc-* #2`.
impl std::fmt::Display for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        let name = steady(&self.name);
        write!(out, "{}: {} {} {}{slash}{name} #{}", self.number, self.verb.word(), self.kind, self.namespace, self.nth)
    }
}

/// A name with `*` for every uid in it: those differ from run to run.
pub fn steady(name: &str) -> String {
    const UID: usize = 36;
    let is_uid = |text: &str| {
        let at_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        text.bytes().enumerate().all(|(at, byte)| if at_dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
    };
    let (mut out, mut rest) = (String::new(), name);
    while !rest.is_empty() {
        if rest.get(..UID).is_some_and(is_uid) {
            out.push('*');
            rest = &rest[UID..];
        } else {
            let mut letters = rest.chars();
            out.extend(letters.next());
            rest = letters.as_str();
        }
    }
    out
}

/// Whether a name fits, with `*` for any characters.
pub fn glob(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.any(|at| glob(rest, &name[at..]))
}

/// Whether everything that `part` says is so in `whole`.
fn is_like(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Null => true,
        Value::Object(fields) => fields.iter().all(|(name, value)| match value {
            Value::Null => whole[name].is_null(),
            value => is_like(&whole[name], value),
        }),
        other => whole == other,
    }
}

/// A kind as objects name it, from whatever kubectl would take; what nobody knows stays.
fn canonical(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    let known = kind::KINDS.iter().find(|one| {
        one.kind == kind || one.plural == lower || one.singular == lower || one.short_names.contains(&&lower[..])
    });
    known.map_or_else(|| kind.to_owned(), |known| known.kind.to_owned())
}

fn text(value: &Value) -> &str {
    super::store::text(value)
}
