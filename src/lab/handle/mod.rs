//! One request to the API: from the state and what was asked to the answer and the state after it.
//!
//! Pure: no system clock (`State::now`), no chance but the state's, no I/O. Not HTTP, which is `http`; not what goes on
//! over time (`watch`, logs). Every change of the cluster passes here, a user's as well as a controller's.

mod create;
mod delete;
mod list;
mod read;
mod scale;
mod strict;
mod update;

pub use list::Selectors;
pub use update::set_condition;

use super::access::User;
use super::kind::Kind;
use super::negotiate;
use super::status::{Cause, Status};
use super::store::{Key, State, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub verb: Verb,
    pub kind: &'static Kind,
    /// Empty: none, or all.
    pub namespace: String,
    /// Empty for collections and creates.
    pub name: String,
    /// `status`, `scale`, …, or empty.
    pub sub: String,
    pub query: BTreeMap<String, String>,
    /// Null: there was none.
    pub body: Value,
    pub user: User,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    Get,
    List,
    Create,
    Update,
    /// With the form of the patch.
    Patch(negotiate::Body),
    Delete,
    DeleteCollection,
}

impl Verb {
    /// As rights name it.
    pub fn word(&self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch(_) => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// The yes: a code and an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub object: Arc<Value>,
    /// What the client is to be told besides.
    pub warnings: Vec<String>,
}

impl Answer {
    fn ok(object: impl Into<Arc<Value>>) -> Answer {
        Answer { code: 200, object: object.into(), warnings: Vec::new() }
    }

    fn created(object: impl Into<Arc<Value>>) -> Answer {
        Answer { code: 201, object: object.into(), warnings: Vec::new() }
    }

    fn warning(mut self, warnings: Vec<String>) -> Answer {
        self.warnings = warnings;
        self
    }
}

/// Does what is asked, or says why not; then nothing has changed.
///
/// # Errors
/// The `Status` that the API answers.
pub fn handle(state: &mut State, request: &Request) -> Result<Answer, Status> {
    match (&request.verb, &request.sub[..]) {
        (Verb::Get, "scale") => scale::get(state, request),
        (Verb::Update | Verb::Patch(_), "scale") => scale::change(state, request),
        (Verb::Get, "" | "status") => read::get(state, request),
        (Verb::List, "") => list::list(state, request),
        (Verb::Create, "") => create::create(state, request),
        (Verb::Create, "binding") => update::bind(state, request),
        (Verb::Update | Verb::Patch(_), "" | "status") => update::update(state, request),
        (Verb::Update, "finalize") => update::update(state, request),
        (Verb::Delete, "") => delete::delete(state, request),
        (Verb::DeleteCollection, "") => delete::delete_collection(state, request),
        _ => {
            Err(Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
                .details(json!({})))
        }
    }
}

impl Request {
    fn key(&self) -> Key {
        Key::new(self.kind.kind, &self.namespace[..], &self.name[..])
    }

    /// The object that the URL names.
    fn current(&self, state: &State) -> Result<Arc<Value>, Status> {
        state.at(&self.key()).cloned().ok_or_else(|| Status::not_found(self.kind, &self.name))
    }

    fn is_dry(&self, options: &'static str) -> Result<bool, Status> {
        match self.query.get("dryRun").map(String::as_str) {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(bad_option(
                options,
                Cause {
                    reason: "FieldValueNotSupported",
                    message: format!("Unsupported value: []string{{\"{other}\"}}: supported values: \"All\""),
                    field: "dryRun".into(),
                },
            )),
        }
    }

    fn user(&self) -> &str {
        &self.user.name
    }
}

/// A flag of a query: everything but these says yes, as the real server reads it.
pub fn flag(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// A number of a query.
///
/// # Errors
/// 400 if it is none.
pub fn number_of<T: std::str::FromStr>(query: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, Status> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |_| Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
    text.parse().map(Some).map_err(wrong)
}

/// 422 about an option of the request.
pub(super) fn bad_option(options: &'static str, cause: Cause) -> Status {
    bad_options(options, &[cause])
}

/// 422 about options of the request.
pub(super) fn bad_options(options: &'static str, causes: &[Cause]) -> Status {
    Status::invalid(&Kind { group: "meta.k8s.io", kind: options, ..super::kind::CORE }, "", causes)
}

/// Whether the lab stores it and never acts on it.
pub fn is_inert(object: &Value) -> bool {
    ["labels", "annotations"].iter().any(|place| object["metadata"][place]["lab.pvmigrate.io/inert"] == "true")
}

/// Checks a new state of an object by the rules of its kind.
fn check(kind: &'static Kind, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut causes = super::meta::validate(kind, object);
    // The real server looks at these twice: for all kinds, and for each; the causes say so.
    for _ in 0..2 {
        causes.extend(old.map(|old| super::meta::validate_update(object, old)).unwrap_or_default());
    }
    if !is_inert(object) {
        causes.extend((kind.rules.unsimulated)(object));
    }
    causes.extend((kind.rules.validate)(object));
    if old.is_some() && kind.kind == "PersistentVolume" {
        causes.extend((kind.rules.validate)(object));
    }
    causes.extend(old.map(|old| (kind.rules.validate_update)(object, old)).unwrap_or_default());
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(kind, text(&object["metadata"]["name"]), &causes)) }
}

/// The body as an object of this kind in this place; `kind` and `apiVersion` may be left out.
fn object_of(request: &Request) -> Result<Value, Status> {
    let kind = request.kind;
    let mut object = request.body.clone();
    if !object.is_object() {
        let message = format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: \
             unexpected end of JSON input ()",
            kind.kind
        );
        return Err(Status::bad_request(message));
    }
    let (said_version, said_kind) = (text(&object["apiVersion"]).to_owned(), text(&object["kind"]).to_owned());
    let api_version = kind.api_version();
    if !said_kind.is_empty() && said_kind != kind.kind {
        let (version, one) = (said_version.rsplit('/').next().unwrap_or_default(), &said_kind);
        let message = format!(
            "{one} in version \"{version}\" cannot be handled as a {}: converting (v1.{one}) to ({}.{}): unknown \
             conversion",
            kind.kind,
            if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() },
            kind.kind,
        );
        return Err(Status::bad_request(message));
    }
    if !said_version.is_empty() && said_version != api_version {
        if was_served(&said_version) {
            return Err(Status::bad_request(format!(
                "the API version in the data ({said_version}) does not match the expected API version ({api_version})"
            )));
        }
        let message = format!(
            "{0} in version \"{said_version}\" cannot be handled as a {0}: no kind \"{0}\" is registered for version \
             \"{said_version}\" in scheme \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"",
            kind.kind
        );
        return Err(Status::bad_request(message));
    }
    super::types::read(kind, &mut object).map_err(|wrong| {
        let version = kind.version;
        Status::bad_request(format!(
            "{0} in version \"{version}\" cannot be handled as a {0}: {1}",
            kind.kind, wrong.why
        ))
    })?;
    // Kind and version come first, as in every answer.
    let mut whole = json!({"kind": kind.kind, "apiVersion": api_version, "metadata": {}});
    for (field, value) in object.as_object_mut().into_iter().flatten() {
        if !matches!(&field[..], "kind" | "apiVersion") && !value.is_null() {
            whole[field.as_str()] = value.take();
        }
    }
    if kind.namespaced {
        match text(&whole["metadata"]["namespace"]) {
            "" => whole["metadata"]["namespace"] = request.namespace[..].into(),
            said if said != request.namespace => {
                let message = if request.verb == Verb::Create {
                    "the namespace of the provided object does not match the namespace sent on the request".to_owned()
                } else {
                    other_namespace(said, &request.namespace)
                };
                return Err(Status::bad_request(message));
            }
            _ => {}
        }
    } else if let Some(meta) = whole["metadata"].as_object_mut() {
        meta.shift_remove("namespace");
    }
    whole["metadata"].as_object_mut().map(|meta| meta.remove("managedFields"));
    super::meta::tidy(&mut whole);
    Ok(whole)
}

/// Versions in which 1.20 still serves kinds that the lab has in another version only.
fn was_served(api_version: &str) -> bool {
    ["extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"].contains(&api_version)
        || ["storage.k8s.io", "coordination.k8s.io", "rbac.authorization.k8s.io", "events.k8s.io"]
            .iter()
            .any(|group| api_version.strip_prefix(group) == Some("/v1beta1"))
}

/// 400 of a change.
fn other_namespace(said: &str, is: &str) -> String {
    format!("the namespace of the object ({said}) does not match the namespace on the request ({is})")
}

/// Seconds, as metadata has them.
pub fn stamp(at: jiff::Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
