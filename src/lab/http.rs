//! The API as HTTP: paths, bodies, streams. The same for the client inside this process and for the port.
//!
//! Not the rules, which are in `handle`; not the transport. What must stay true: what has no answer here is answered as
//! by a server that does not serve it, or refused with a word about the lab; never by something that looks right.

mod logs;
mod path;
mod streams;

use super::access::{self, User};
use super::core::Core;
use super::handle::{Request, Verb, flag};
use super::kind::{self, KINDS, Kind};
use super::negotiate::{self, Body as Form, Offer};
use super::status::Status;
use super::table::{self, Include};
use super::{discovery, openapi};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
pub(super) use path::query;
use path::{Place, Route};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The body of an answer, whole or as it comes.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Response = http::Response<Body>;

/// What there is, said to whom asks for something else.
const PATHS: [&str; 7] = ["/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version"];

/// Larger bodies are refused.
const BODY_MAX: usize = 3 << 20;

/// Answers one request of a user who was let in.
pub async fn answer(core: &Arc<Core>, user: &User, request: http::Request<Bytes>) -> Response {
    let (parts, body) = request.into_parts();
    let accept = header(&parts, http::header::ACCEPT);
    let asked = Asked { core, user, parts: &parts, body };
    match asked.answer(&accept).await {
        Ok(response) => response,
        Err(status) => failure(&status),
    }
}

/// A request as it came.
struct Asked<'a> {
    core: &'a Arc<Core>,
    user: &'a User,
    parts: &'a http::request::Parts,
    body: Bytes,
}

/// Failed as a `Status`.
pub fn failure(status: &Status) -> Response {
    let mut response = json_response(status.code, &status.to_json());
    if let Some(seconds) = status.retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json_response(code: u16, value: &Value) -> Response {
    let mut text = value.to_string();
    text.push('\n');
    plain(code, "application/json", text)
}

/// The object or collection that a path names, if it names one.
pub(super) fn place(path: &str) -> Option<Place> {
    match path::route(path) {
        Route::Resource(place) => Some(place),
        _ => None,
    }
}

pub(super) fn plain(code: u16, content: &str, text: impl Into<Bytes>) -> Response {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed_unsync();
    http::Response::builder()
        .status(code)
        .header(http::header::CONTENT_TYPE, content)
        .body(body)
        .expect("code and content type are constants that fit")
}

fn header(parts: &http::request::Parts, name: http::HeaderName) -> String {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

impl Asked<'_> {
    async fn answer(&self, accept: &str) -> Result<Response, Status> {
        let query = path::query(self.parts.uri.query().unwrap_or_default());
        if self.body.len() > BODY_MAX {
            return Err(Status::new(413, "RequestEntityTooLarge", "limit is 3145728"));
        }
        let route = path::route(self.parts.uri.path());
        if !matches!(route, Route::Resource(_) | Route::Review(..)) {
            self.may_path()?;
        }
        match route {
            Route::Health => Ok(plain(200, "text/plain; charset=utf-8", "ok")),
            Route::Version => Ok(json_response(200, &discovery::version())),
            Route::Discovery(path) => self.discover(&path, accept),
            Route::OpenApi(path) => self.openapi(&path),
            Route::Nothing => Ok(json_response(404, &json!({"paths": PATHS}))),
            Route::Review(plural, namespace) => self.review(&plural, &namespace),
            Route::Resource(place) => self.resource(&place, query, accept).await,
        }
    }

    /// Refuses a path that is no object to whom it is not open.
    fn may_path(&self) -> Result<(), Status> {
        let (path, verb) = (self.parts.uri.path(), self.parts.method.as_str().to_lowercase());
        let may = self.core.look(|state| access::may_path(state, self.user, &verb, path));
        if may { Ok(()) } else { Err(access::refusal_of_path(self.user, &verb, path)) }
    }

    /// Refuses what is not served to whom it would not be open if it were: nobody learns by asking what there is.
    fn may_ask(&self, place: &Place, is_watch: bool) -> Result<(), Status> {
        let verb = match (&self.parts.method, place.name.is_empty()) {
            (&http::Method::POST, _) => "create",
            (&http::Method::PUT, _) => "update",
            (&http::Method::PATCH, _) => "patch",
            (&http::Method::DELETE, true) => "deletecollection",
            (&http::Method::DELETE, false) => "delete",
            (_, false) => "get",
            (_, true) if is_watch => "watch",
            (_, true) => "list",
        };
        let Place { group, plural, namespace, name, sub, .. } = place;
        let may = self.core.look(|state| access::may(state, self.user, verb, group, plural, sub, namespace, name));
        if may { Ok(()) } else { Err(access::refusal(self.user, verb, group, plural, sub, namespace, name)) }
    }

    fn discover(&self, path: &str, accept: &str) -> Result<Response, Status> {
        let all = resources();
        let is_root = matches!(path, "/api" | "/apis");
        let offer = if is_root { Offer::DiscoveryRoots } else { Offer::Plain };
        let shape = accepted(accept, offer)?;
        let host = header(self.parts, http::header::HOST);
        let mut parts = path.trim_start_matches('/').split('/').skip(1);
        let answer = match (path, parts.next(), parts.next()) {
            _ if is_root && shape == negotiate::Answer::AggregatedDiscovery => {
                Some(discovery::aggregated(&all, path == "/api"))
            }
            ("/api", ..) => Some(discovery::api_versions(&host)),
            ("/apis", ..) => Some(discovery::api_group_list(&all)),
            (path, Some(version), None) if path.starts_with("/api/") => discovery::api_resource_list(&all, "", version),
            (_, Some(group), None) => discovery::api_group(&all, group),
            (_, Some(group), Some(version)) => discovery::api_resource_list(&all, group, version),
            _ => None,
        };
        match answer {
            Some(value) => Ok(plain(200, negotiate::content_type(&shape), format!("{value}\n"))),
            None if path.split('/').count() > 3 && is_known_group(path.split('/').nth(2).unwrap_or_default()) => {
                Err(no_such_resource())
            }
            None => Ok(plain(404, "text/plain; charset=utf-8", "404 page not found\n")),
        }
    }

    fn openapi(&self, path: &str) -> Result<Response, Status> {
        let all = resources();
        let answer = match path {
            "/openapi/v2" => return Err(Status::new(406, "NotAcceptable", openapi::V2_REFUSED)),
            "/openapi/v3" => Some(openapi::index(&all)),
            path => path.strip_prefix("/openapi/v3/").and_then(|path| openapi::document(&all, path)),
        };
        match answer {
            Some(value) => Ok(json_response(200, &value)),
            None => Ok(plain(404, "text/plain; charset=utf-8", "404 page not found\n")),
        }
    }

    fn review(&self, plural: &str, namespace: &str) -> Result<Response, Status> {
        if self.parts.method != http::Method::POST {
            return Err(not_allowed());
        }
        let place = Place {
            group: access::REVIEW_GROUP.into(),
            plural: plural.into(),
            namespace: namespace.into(),
            ..Place::default()
        };
        self.may_ask(&place, false)?;
        body_form(&header(self.parts, http::header::CONTENT_TYPE), false)?;
        let body = self.json().map_err(|why| Status::bad_request(unrecognized("", &why, &self.body)))?;
        let Some((_, kind, namespaced)) = access::REVIEWS.iter().find(|(known, ..)| *known == plural) else {
            return Err(no_such_resource());
        };
        if *namespaced == namespace.is_empty() {
            return Err(no_such_resource());
        }
        let answer = self.core.look(|state| access::review(state, self.user, kind, namespace, &body))?;
        Ok(json_response(201, &answer))
    }

    /// The object of the body, or what the reader says of it.
    fn json(&self) -> Result<Value, String> {
        let what = match serde_json::from_slice(&self.body) {
            Ok(object @ (Value::Object(_) | Value::Null)) => return Ok(object),
            Ok(Value::Array(_)) => "array",
            Ok(Value::String(_)) => "string",
            Ok(Value::Bool(_)) => "bool",
            Ok(Value::Number(_)) => "number",
            Err(_) => return Err(negotiate::not_json(&self.body)),
        };
        Err(negotiate::not_an_object(what))
    }

    async fn resource(&self, place: &Place, query: BTreeMap<String, String>, accept: &str) -> Result<Response, Status> {
        let is_watch = query.get("watch").is_some_and(|text| flag(text));
        let Some(kind) = kind::served(&place.group, &place.version, &place.plural) else {
            self.may_ask(place, is_watch)?;
            if !is_known_group(&place.group) {
                return Ok(plain(404, "text/plain; charset=utf-8", "404 page not found\n"));
            }
            return Err(no_such_resource());
        };
        let has_namespace = !place.namespace.is_empty();
        let fits = if kind.namespaced { has_namespace || place.name.is_empty() } else { !has_namespace };
        if !fits {
            return Err(no_such_resource());
        }
        if !place.sub.is_empty() && !kind.subresources.contains(&&place.sub[..]) {
            let known = ["attach", "exec", "portforward", "proxy", "ephemeralcontainers", "eviction", "token"];
            return Err(if known.contains(&&place.sub[..]) {
                Status::unsimulated(format!("{}/{}", kind.plural, place.sub))
            } else {
                no_such_resource()
            });
        }
        let content = header(self.parts, http::header::CONTENT_TYPE);
        let is_collection = place.name.is_empty();
        let verb = match (&self.parts.method, is_collection) {
            (&http::Method::GET, false) => Verb::Get,
            (&http::Method::GET, true) => Verb::List,
            (&http::Method::POST, true) => Verb::Create,
            (&http::Method::POST, false) if !place.sub.is_empty() => Verb::Create,
            (&http::Method::PUT, false) => Verb::Update,
            (&http::Method::PATCH, false) => match body_form(&content, true)? {
                Form::ApplyPatch => {
                    return Err(Status::new(
                        415,
                        "UnsupportedMediaType",
                        format!("415: Unsupported Media Type: {} server-side apply", super::status::UNSIMULATED),
                    )
                    .details(json!({})));
                }
                form => Verb::Patch(form),
            },
            (&http::Method::DELETE, false) => Verb::Delete,
            (&http::Method::DELETE, true) => Verb::DeleteCollection,
            _ => return Err(not_allowed()),
        };
        // Over all namespaces one can only look; and they do not go all at once.
        let is_too_much = kind.namespaced && !has_namespace && verb != Verb::List;
        if is_too_much || !verbs_of(kind).contains(&verb.word()) {
            return Err(not_allowed());
        }
        let word = if is_watch && verb == Verb::List { "watch" } else { verb.word() };
        self.core
            .look(|state| access::check(state, self.user, word, kind, &place.sub, &place.namespace, &place.name))?;
        let shape = accepted(accept, Offer::Objects)?;
        if place.sub == "log" {
            return if verb == Verb::Get { logs::answer(self.core, place, &query) } else { Err(not_allowed()) };
        }
        if verb == Verb::List && is_watch {
            return streams::watch(self.core, kind, &place.namespace, &query, shape);
        }
        let body = match verb {
            Verb::Get | Verb::List => Value::Null,
            Verb::Patch(form) => self.patch_body(form)?,
            Verb::Delete | Verb::DeleteCollection => {
                if self.body.is_empty() {
                    Value::Null
                } else {
                    body_form(&content, false)?;
                    let failed = |why| format!("couldn't get version/kind; json parse error: {why}");
                    self.json().map_err(|why| Status::new(500, "", failed(why)))?
                }
            }
            _ => {
                body_form(&content, false)?;
                let of = if place.sub.is_empty() { kind.kind } else { "" };
                self.json().map_err(|why| Status::bad_request(unrecognized(of, &why, &self.body)))?
            }
        };
        let request = Request {
            verb,
            kind,
            namespace: place.namespace.clone(),
            name: place.name.clone(),
            sub: place.sub.clone(),
            query,
            body,
            user: self.user.clone(),
        };
        let answer = self.core.request(&request)?;
        let shown = self.shown(kind, &request, shape, &answer.object)?;
        let mut response = json_response(answer.code, shown.as_ref().unwrap_or(&answer.object));
        for warning in &answer.warnings {
            let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
            // What no header can carry was sent by the client itself.
            if let Ok(text) = http::HeaderValue::from_str(&text) {
                response.headers_mut().append(http::header::WARNING, text);
            }
        }
        Ok(response)
    }

    fn patch_body(&self, form: Form) -> Result<Value, Status> {
        serde_json::from_slice(&self.body).map_err(|error| match form {
            Form::MergePatch => Status::new(500, "", "Invalid JSON Patch"),
            // Another reader, with other words.
            Form::StrategicMergePatch if error.is_eof() => Status::bad_request("unexpected EOF"),
            _ => Status::bad_request(negotiate::not_json(&self.body)),
        })
    }

    /// The answer in the shape that was asked for, if that is not the object itself.
    fn shown(
        &self,
        kind: &Kind,
        request: &Request,
        shape: negotiate::Answer,
        object: &Value,
    ) -> Result<Option<Value>, Status> {
        if object["kind"] == "Status" || (!request.sub.is_empty() && request.sub != "status") {
            return Ok(None);
        }
        let list = object["items"].as_array();
        let whole: Vec<Value> = list.into_iter().flatten().map(|item| named(kind, item)).collect();
        let objects: Vec<&Value> = if list.is_some() { whole.iter().collect() } else { vec![object] };
        let metadata = match list {
            Some(_) => object["metadata"].clone(),
            None => json!({"resourceVersion": object["metadata"]["resourceVersion"]}),
        };
        match shape {
            negotiate::Answer::Table(version) => {
                let include = included(&request.query)?;
                let now = self.core.look(super::store::State::now);
                Ok(Some(table::table(kind.kind, version, &objects, &metadata, include, true, now)))
            }
            negotiate::Answer::Partial { version, list: wants_list } => {
                if let Some(why) = negotiate::wrong_partial(wants_list, list.is_some(), kind.kind) {
                    return Err(Status::new(406, "NotAcceptable", why));
                }
                Ok(Some(match list {
                    Some(_) => table::partial_list(&objects, &metadata, version),
                    None => table::partial(object, version),
                }))
            }
            negotiate::Answer::Json | negotiate::Answer::AggregatedDiscovery => Ok(None),
        }
    }
}

/// An item of a list as an object by itself.
fn named(kind: &Kind, item: &Value) -> Value {
    let mut whole = json!({"kind": kind.kind, "apiVersion": kind.api_version()});
    for (field, value) in item.as_object().into_iter().flatten() {
        whole[field.as_str()] = value.clone();
    }
    whole
}

/// What the real server says of a body; `kind` is what it should have been.
fn unrecognized(kind: &str, why: &str, body: &[u8]) -> String {
    const MOST: usize = 30;
    let cut = &body[..body.len().min(MOST)];
    let mut shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(cut).into_owned(),
        Some(_) => cut.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > MOST {
        shown.push_str(" ...");
    }
    let of = if kind.is_empty() { String::new() } else { format!(" (must be of type {kind})") };
    format!("the object provided is unrecognized{of}: couldn't get version/kind; json parse error: {why} ({shown})")
}

fn is_known_group(group: &str) -> bool {
    group == access::REVIEW_GROUP || KINDS.iter().any(|kind| kind.group == group)
}

/// What of the objects a table carries.
fn included(query: &BTreeMap<String, String>) -> Result<Include, Status> {
    Include::parse(query.get("includeObject").map(String::as_str)).map_err(Status::bad_request)
}

fn accepted(header: &str, offer: Offer) -> Result<negotiate::Answer, Status> {
    negotiate::accept(Some(header), offer).map_err(|why| {
        let status = Status::new(406, "NotAcceptable", why);
        if why == negotiate::UNKNOWN_MEDIA { status.details(json!({})) } else { status }
    })
}

fn body_form(header: &str, is_patch: bool) -> Result<Form, Status> {
    negotiate::body(Some(header), is_patch).map_err(|why| {
        let status = Status::new(415, "UnsupportedMediaType", why);
        if is_patch { status.details(json!({})) } else { status }
    })
}

/// The kinds as discovery tells of them.
pub fn resources() -> Vec<discovery::Resource> {
    KINDS.iter().map(resource_of).collect()
}

fn resource_of(kind: &'static Kind) -> discovery::Resource {
    let subresources = kind.subresources.iter().map(|sub| {
        let (own, verbs): (Option<(&str, &str, &str)>, &[&str]) = match *sub {
            "scale" => (Some(("autoscaling", "v1", "Scale")), &["get", "patch", "update"]),
            "binding" => (Some(("", "v1", "Binding")), &["create"]),
            "log" => (None, &["get"]),
            "finalize" => (None, &["update"]),
            _ => (None, &["get", "patch", "update"]),
        };
        discovery::Subresource {
            name: sub,
            group: own.map(|(group, ..)| group).filter(|group| !group.is_empty()),
            version: own.map(|(_, version, _)| version).filter(|_| *sub != "binding"),
            kind: own.map_or(kind.kind, |(.., kind)| kind),
            verbs,
        }
    });
    discovery::Resource {
        group: kind.group,
        version: kind.version,
        plural: kind.plural,
        singular: kind.singular,
        kind: kind.kind,
        namespaced: kind.namespaced,
        verbs: verbs_of(kind),
        short_names: kind.short_names,
        categories: kind.categories,
        subresources: subresources.collect(),
    }
}

/// What can be done with objects of a kind.
fn verbs_of(kind: &Kind) -> &'static [&'static str] {
    const ALL: [&str; 8] = ["create", "delete", "get", "list", "patch", "update", "watch", "deletecollection"];
    if kind.kind == "Namespace" { &ALL[..7] } else { &ALL }
}

fn no_such_resource() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource").details(json!({}))
}

fn not_allowed() -> Status {
    Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        .details(json!({}))
}
