//! POST: a new object.

use super::{Answer, Request, check, is_inert, object_of, stamp, strict};
use crate::lab::admit::{self, Operation};
use crate::lab::kind::Generation;
use crate::lab::rules::known;
use crate::lab::status::{Cause, Status};
use crate::lab::store::{State, text};
use serde_json::json;

/// `generateName` is cut to this length before the five characters.
const BASE_MAX: usize = 58;

pub fn create(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let kind = request.kind;
    let dry = request.is_dry("CreateOptions")?;
    let mut object = object_of(request)?;
    let warnings = strict::unknown_fields(request, &request.body)?;
    known::prune(kind, &mut object);
    if !text(&object["metadata"]["resourceVersion"]).is_empty() {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "uid"] {
            meta.remove(field);
        }
    }
    // A field that the lab would ignore is named before defaults hide it.
    if !is_inert(&object) {
        let causes = (kind.rules.unsimulated)(&object);
        if !causes.is_empty() {
            return Err(Status::invalid(kind, text(&object["metadata"]["name"]), &causes));
        }
    }
    (kind.rules.default)(&mut object);
    if text(&object["metadata"]["name"]).is_empty() {
        let base = text(&object["metadata"]["generateName"]);
        if base.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(kind, "", &[cause]));
        }
        let cut: String = base.chars().take(BASE_MAX).collect();
        object["metadata"]["name"] = format!("{cut}{}", state.suffix()).into();
    }
    let name = text(&object["metadata"]["name"]).to_owned();
    admit::mutate(state, kind, Operation::Create, &request.namespace, &mut object, None, request.user())?;
    object["metadata"]["uid"] = state.uid().into();
    object["metadata"]["creationTimestamp"] = stamp(state.now());
    if kind.generation != Generation::None {
        object["metadata"]["generation"] = json!(1);
    }
    (kind.rules.prepare)(&mut object, None);
    crate::lab::types::in_order(&mut object["metadata"]);
    check(kind, &object, None)?;
    admit::check(state, kind, Operation::Create, &request.namespace, &object, None)?;
    let key = crate::lab::store::Key::new(kind.kind, &request.namespace[..], name);
    if let Some(there) = state.at(&key) {
        let going = !there["metadata"]["deletionTimestamp"].is_null();
        return Err(Status::already_exists(kind, &key.name, going));
    }
    if dry {
        return Ok(Answer::created(object).warning(warnings));
    }
    Ok(Answer::created(state.put(key, object, request.user())).warning(warnings))
}
