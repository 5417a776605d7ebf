//! Lists: one revision, selectors, pages.

use super::{Answer, Request, bad_option, number_of};
use crate::lab::kind::Kind;
use crate::lab::selector::{FieldSelector, LabelSelector};
use crate::lab::status::{Cause, Status};
use crate::lab::store::{State, text};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a list or a watch selects.
#[derive(Clone, Debug)]
pub struct Selectors {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selectors {
    pub fn of(kind: &'static Kind, query: &BTreeMap<String, String>) -> Result<Selectors, Status> {
        let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let bad = |message: String| Status::bad_request(message);
        let labels = LabelSelector::parse(asked("labelSelector")).map_err(bad)?;
        let fields = FieldSelector::parse(kind.kind, asked("fieldSelector")).map_err(bad)?;
        Ok(Selectors { labels, fields })
    }

    pub fn fit(&self, object: &Value) -> bool {
        self.labels.matches(object["metadata"].get("labels")) && self.fields.matches(object)
    }
}

pub fn list(state: &State, request: &Request) -> Result<Answer, Status> {
    let (kind, query) = (request.kind, &request.query);
    let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let selectors = Selectors::of(kind, query)?;
    let has_selectors = !asked("labelSelector").is_empty() || !asked("fieldSelector").is_empty();
    let version = asked("resourceVersion");
    let limit: usize = number_of::<i64>(query, "limit")?.and_then(|limit| limit.try_into().ok()).unwrap_or(0);
    match (asked("resourceVersionMatch"), version) {
        ("", _) => {}
        (_, "") => {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(bad_option("ListOptions", Cause::forbidden("resourceVersionMatch", detail)));
        }
        ("Exact", "0") => {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return Err(bad_option("ListOptions", Cause::forbidden("resourceVersionMatch", detail)));
        }
        ("Exact" | "NotOlderThan", _) => {}
        (other, _) => {
            let supported = ["Exact", "NotOlderThan", ""];
            return Err(bad_option(
                "ListOptions",
                Cause::unsupported("resourceVersionMatch", &json!(other), &supported),
            ));
        }
    }
    let (revision, start) = match asked("continue") {
        "" => {
            reach(state, query.get("resourceVersion"))?;
            let at = if asked("resourceVersionMatch") == "Exact" { number(version)? } else { state.revision() };
            (at, None)
        }
        _ if !version.is_empty() && version != "0" => {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        token => {
            let (revision, start) = opened(token)?;
            // An inconsistent rest, taken knowingly after 410.
            (revision.unwrap_or(state.revision()), Some(start))
        }
    };
    let all: Vec<Arc<Value>> = if revision == state.revision() {
        state.list(kind.kind, &request.namespace).map(|(_, object)| object.clone()).collect()
    } else {
        state.list_at(revision, kind.kind, &request.namespace).map_err(|_| expired(start.as_deref()))?
    };
    let place = |object: &Value| place(kind, &request.namespace, object);
    let mut rest = all
        .into_iter()
        .filter(|object| start.as_ref().is_none_or(|start| place(object) >= *start))
        .filter(|object| selectors.fit(object));
    // A list from the cache of the real server knows no pages.
    let page = if limit == 0 || version == "0" { usize::MAX } else { limit };
    let items: Vec<Value> = rest.by_ref().take(page).map(|object| item(&object)).collect();
    let left = rest.count();
    let mut list = whole(kind, revision, items);
    if left > 0 {
        let last = list["items"].as_array().and_then(|items| items.last()).map(place).unwrap_or_default();
        list["metadata"]["continue"] = token(revision, &format!("{last}\0")).into();
        if !has_selectors {
            list["metadata"]["remainingItemCount"] = left.into();
        }
    }
    Ok(Answer::ok(list))
}

/// A list around its items.
pub fn whole(kind: &Kind, revision: u64, items: Vec<Value>) -> Value {
    json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision.to_string()}, "items": items,
    })
}

/// Items of a list do not say what they are.
fn item(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(map) = item.as_object_mut() {
        map.shift_remove("kind");
        map.shift_remove("apiVersion");
    }
    item
}

/// Where an object stands in a list: relative to the namespace that was asked for.
fn place(kind: &Kind, namespace: &str, object: &Value) -> String {
    let meta = &object["metadata"];
    if kind.namespaced && namespace.is_empty() {
        format!("{}/{}", text(&meta["namespace"]), text(&meta["name"]))
    } else {
        text(&meta["name"]).to_owned()
    }
}

fn number(version: &str) -> Result<u64, Status> {
    version.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
        Status::new(500, "", format!("resourceVersion: Invalid value: \"{version}\": {why}"))
    })
}

/// Fails if the state is not yet at what is asked for.
pub fn reach(state: &State, version: Option<&String>) -> Result<(), Status> {
    let Some(version) = version.filter(|version| !version.is_empty()) else { return Ok(()) };
    let (asked, is) = (number(version)?, state.revision());
    if asked <= is {
        return Ok(());
    }
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    let mut status =
        Status::new(504, "Timeout", format!("Timeout: Too large resource version: {asked}, current: {is}"))
            .details(json!({"causes": [cause]}));
    status.retry_after = Some(1);
    Err(status)
}

fn token(revision: u64, start: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

/// The revision (`None`: the present one) and the place after which to go on.
fn opened(token: &str) -> Result<(Option<u64>, String), Status> {
    let bad = |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(length) => length,
            DecodeError::InvalidPadding => token.trim_end_matches('=').len(),
        };
        bad(format!("illegal base64 data at input byte {at}"))
    })?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
        let first = bytes.first().map_or(String::new(), |byte| char::from(*byte).to_string());
        bad(format!("invalid character '{first}' looking for beginning of value"))
    })?;
    match (value["rv"].as_i64(), value["start"].as_str()) {
        (Some(revision), Some(start)) if value["v"] == "meta.k8s.io/v1" => {
            Ok((u64::try_from(revision).ok(), start.to_owned()))
        }
        _ if value["v"] != "meta.k8s.io/v1" => {
            let version = text(&value["v"]);
            Err(bad(format!("server does not recognize this encoded version \"{version}\"")))
        }
        _ => Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".to_owned())),
    }
}

/// The snapshot of a page is gone: the token that comes with it goes on from there in the present state.
fn expired(start: Option<&str>) -> Status {
    let mut status = match start {
        None => Status::new(410, "Expired", "The resourceVersion for the provided list is too old."),
        Some(_) => Status::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        ),
    };
    status.list_continue = start.map(|start| {
        let token = json!({"v": "meta.k8s.io/v1", "rv": -1, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    });
    status
}
