//! PUT and PATCH of an object, of its status, of a namespace's finalizers; and the binding of a pod.

use super::{Answer, Request, Verb, bad_option, check, create, flag, object_of, other_namespace, strict};
use crate::lab::admit::{self, Operation};
use crate::lab::kind::{Generation, Kind};
use crate::lab::negotiate::{self, Body};
use crate::lab::patch::{self, PatchError};
use crate::lab::rules::known;
use crate::lab::status::{Cause, Status};
use crate::lab::store::{State, list_of, text};
use crate::lab::types;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub fn update(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let kind = request.kind;
    let is_patch = matches!(request.verb, Verb::Patch(_));
    let dry = request.is_dry(if is_patch { "PatchOptions" } else { "UpdateOptions" })?;
    if is_patch && request.query.get("force").is_some_and(|text| flag(text)) {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(bad_option("PatchOptions", cause));
    }
    let old = match request.current(state) {
        Err(_) if !is_patch && kind.create_on_update && request.sub.is_empty() => {
            return create::create(state, request);
        }
        other => other?,
    };
    let (mut new, warnings) = if let Verb::Patch(form) = &request.verb {
        patched(request, form, &old)?
    } else {
        let body = object_of(request)?;
        let name = text(&body["metadata"]["name"]);
        if name != request.name {
            let message =
                format!("the name of the object ({name}) does not match the name on the URL ({})", request.name);
            return Err(Status::bad_request(message));
        }
        let warnings = strict::unknown_fields(request, &request.body)?;
        (body, warnings)
    };
    known::prune(kind, &mut new);
    versions_fit(request, &new, &old, is_patch)?;
    keep_what_is_the_servers(&mut new, &old);
    crate::lab::types::in_order(&mut new["metadata"]);
    if request.sub.is_empty() {
        (kind.rules.default)(&mut new);
    }
    match &request.sub[..] {
        "" => {
            if old.get("status").is_some() || kind.subresources.contains(&"status") {
                keep(&mut new, &old, "status");
            }
            admit::mutate(state, kind, Operation::Update, &request.namespace, &mut new, Some(&old), request.user())?;
            (kind.rules.prepare)(&mut new, Some(&old));
        }
        "status" => only_status(kind.group, &mut new, &old),
        _ => only_finalizers(&mut new, &old),
    }
    grow_generation(kind.generation, &request.sub, &mut new, &old);
    if request.sub.is_empty() {
        check(kind, &new, Some(&old))?;
        admit::check(state, kind, Operation::Update, &request.namespace, &new, Some(&old))?;
    } else {
        (kind.rules.default)(&mut new);
        let causes = (kind.rules.validate_status)(&new, &old);
        if !causes.is_empty() {
            return Err(Status::invalid(kind, &request.name, &causes));
        }
    }
    Ok(commit(state, request, &old, new, dry)?.warning(warnings))
}

/// The object as the patch leaves it, and what to warn of.
fn patched(request: &Request, form: &Body, old: &Value) -> Result<(Value, Vec<String>), Status> {
    let kind = request.kind;
    let failed = |e: PatchError| e.status();
    let mut new = match form {
        Body::JsonPatch => patch::json_patch(old, &request.body).map_err(failed)?,
        Body::MergePatch if !request.body.is_object() => {
            // Of what is neither list nor object nobody can say what it is.
            let Value::Array(_) = request.body else { return Err(Status::new(500, "", "Invalid JSON Patch")) };
            let why = format!("couldn't get version/kind; json parse error: {}", negotiate::not_an_object("array"));
            return Err(unreadable(&request.body.to_string(), &why));
        }
        Body::MergePatch => patch::merge_patch(old, &request.body),
        Body::StrategicMergePatch => patch::strategic_merge(kind.kind, old, &request.body).map_err(failed)?,
        _ => return Err(Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").details(json!({}))),
    };
    if !new.is_object() {
        return Err(Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .details(json!({})));
    }
    let warnings = strict::unknown_fields(request, &new)?;
    readable(request, form, &mut new)?;
    let (said, is) = (text(&new["metadata"]["name"]), &request.name);
    if said != is {
        let message = format!("the name of the object ({said}) does not match the name on the URL ({is})");
        return Err(Status::bad_request(message));
    }
    if kind.namespaced && text(&new["metadata"]["namespace"]) != request.namespace {
        let said = text(&new["metadata"]["namespace"]);
        return Err(Status::bad_request(other_namespace(said, &request.namespace)));
    }
    patch::settle(&mut new);
    crate::lab::meta::tidy(&mut new);
    Ok((new, warnings))
}

/// What a patch made must still be an object of its kind.
fn readable(request: &Request, form: &Body, new: &mut Value) -> Result<(), Status> {
    let kind = request.kind;
    let said = |value: &Value| text(value).to_owned();
    let (said_kind, said_version) = (said(&new["kind"]), said(&new["apiVersion"]));
    let is_strategic = *form == Body::StrategicMergePatch;
    let shown = if is_strategic { patch::go(&request.body) } else { new.to_string() };
    if said_version != kind.api_version() {
        let why = format!(
            "no kind \"{said_kind}\" is registered for version \"{said_version}\" in scheme \
             \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\""
        );
        return Err(unreadable(&shown, &why));
    }
    if said_kind != kind.kind {
        let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
        let why = format!("converting (v1.{said_kind}) to ({group}.{}): unknown conversion", kind.kind);
        return Err(unreadable(&shown, &why));
    }
    // The other patches leave the fields in the order of their names.
    if !is_strategic && let Some(map) = new.as_object_mut() {
        map.sort_keys();
    }
    let outcome = types::read(kind, new).map_err(|wrong| {
        let why = if is_strategic { wrong.types } else { wrong.why };
        unreadable(&shown, &why)
    });
    in_place(new);
    outcome
}

/// Kind, version and metadata first, as in every answer.
fn in_place(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for (at, key) in ["kind", "apiVersion", "metadata"].into_iter().enumerate() {
        if let Some(value) = map.shift_remove(key) {
            map.shift_insert(at, key.to_owned(), value);
        }
    }
}

/// 422 about a patch.
pub(super) fn unreadable(shown: &str, why: &str) -> Status {
    let cause = Cause::invalid("patch", &shown.into(), why);
    let causes = json!([{"reason": cause.reason, "message": cause.message, "field": cause.field}]);
    Status::new(422, "Invalid", format!(" \"\" is invalid: patch: {}", cause.message))
        .details(json!({"causes": causes}))
}

fn versions_fit(request: &Request, new: &Value, old: &Value, is_patch: bool) -> Result<(), Status> {
    let kind = request.kind;
    let (said, is) = (text(&new["metadata"]["resourceVersion"]), text(&old["metadata"]["resourceVersion"]));
    if said.is_empty() || said == "0" {
        if !kind.unconditional_update {
            let cause = Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: 0x0: must be specified for an update".into(),
                field: "metadata.resourceVersion".into(),
            };
            // Here the real server names the resource.
            let named = Kind { kind: kind.plural, ..*kind };
            return Err(Status::invalid(&named, &request.name, &[cause]));
        }
    } else if said.parse::<u64>().is_err() {
        let message = format!("strconv.ParseUint: parsing \"{said}\": invalid syntax");
        return Err(Status::new(500, "", message));
    }
    let (said_uid, uid) = (text(&new["metadata"]["uid"]), text(&old["metadata"]["uid"]));
    if !is_patch && !said_uid.is_empty() && said_uid != uid {
        let namespace = if request.namespace.is_empty() { String::new() } else { format!("{}/", request.namespace) };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{namespace}{}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {said_uid}, UID in object meta: {uid}",
            kind.plural, request.name
        );
        return Err(Status::conflict(kind, &request.name, why));
    }
    if !said.is_empty() && said != "0" && said != is {
        return Err(Status::conflict(kind, &request.name, MODIFIED));
    }
    Ok(())
}

/// When it was made and its generation are the old object's, whatever was sent; a uid and a deletion that were left out
/// too.
fn keep_what_is_the_servers(new: &mut Value, old: &Value) {
    for field in
        ["creationTimestamp", "generation", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if field.starts_with("deletion") && !new["metadata"][field].is_null() {
            continue;
        }
        let value = old["metadata"][field].clone();
        match &mut new["metadata"] {
            Value::Object(meta) if value.is_null() => {
                meta.remove(field);
            }
            meta => meta[field] = value,
        }
    }
    if text(&new["metadata"]["uid"]).is_empty() {
        new["metadata"]["uid"] = old["metadata"]["uid"].clone();
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => {
            new.as_object_mut().and_then(|map| map.remove(field));
        }
    }
}

/// An update of `/status` leaves everything else as it is; annotations may be changed on the way, and labels but for
/// the kinds of `apps` and `batch`.
fn only_status(group: &str, new: &mut Value, old: &Value) {
    let fields: Vec<String> = old.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let mut whole = new.clone();
    if let Some(map) = whole.as_object_mut() {
        map.retain(|field, _| fields.contains(field) || field == "status");
    }
    for field in fields.iter().filter(|field| !matches!(&field[..], "status" | "metadata")) {
        keep(&mut whole, old, field);
    }
    let kept: &[&str] = if group.is_empty() || group == "storage.k8s.io" {
        &["ownerReferences"]
    } else {
        &["ownerReferences", "labels"]
    };
    let mut meta = whole["metadata"].take();
    for field in kept {
        keep(&mut meta, &old["metadata"], field);
    }
    whole["metadata"] = meta;
    *new = whole;
}

/// `/finalize` of a namespace.
fn only_finalizers(new: &mut Value, old: &Value) {
    let finalizers = new["spec"]["finalizers"].clone();
    let mut whole = old.clone();
    if list_of(&finalizers).is_empty() {
        whole["spec"].as_object_mut().and_then(|spec| spec.remove("finalizers"));
    } else {
        whole["spec"]["finalizers"] = finalizers;
    }
    *new = whole;
}

fn grow_generation(rule: Generation, sub: &str, new: &mut Value, old: &Value) {
    let changed = new["spec"] != old["spec"]
        || (rule == Generation::SpecAndAnnotations && new["metadata"]["annotations"] != old["metadata"]["annotations"]);
    if rule != Generation::None && sub.is_empty() && changed {
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
}

/// Stores it, unless nothing changed; the last finalizer of an object that is going takes it away.
pub(super) fn commit(
    state: &mut State,
    request: &Request,
    old: &Arc<Value>,
    new: Value,
    dry: bool,
) -> Result<Answer, Status> {
    if new == **old {
        return Ok(Answer::ok(old.clone()));
    }
    if is_to_go(request.kind.kind, &new) {
        if !dry {
            state.remove(&request.key(), request.user());
        }
        return Ok(Answer::ok(new));
    }
    if dry {
        return Ok(Answer::ok(new));
    }
    Ok(Answer::ok(state.put(request.key(), new, request.user())))
}

/// Whether nothing holds an object that is going.
pub(super) fn is_to_go(kind: &str, object: &Value) -> bool {
    let meta = &object["metadata"];
    let held_by_spec = kind == "Namespace" && !list_of(&object["spec"]["finalizers"]).is_empty();
    !meta["deletionTimestamp"].is_null()
        && list_of(&meta["finalizers"]).is_empty()
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held_by_spec
}

/// POST to `/binding`: the scheduler's word.
pub fn bind(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let kind = request.kind;
    let dry = request.is_dry("CreateOptions")?;
    let node = text(&request.body["target"]["name"]).to_owned();
    if node.is_empty() {
        return Err(Status::invalid(&BINDING, &request.name, &[Cause::required("target.name", "")]));
    }
    let pod = request.current(state)?;
    let said = text(&request.body["metadata"]["uid"]);
    if !said.is_empty() && said != text(&pod["metadata"]["uid"]) {
        return Err(Status::conflict(kind, &request.name, "the uid does not fit"));
    }
    let conflict = |why: String| Err(Status::conflict(&BINDING, &request.name, why));
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {} is being deleted, cannot be assigned to a host", request.name));
    }
    let assigned = text(&pod["spec"]["nodeName"]);
    if !assigned.is_empty() {
        return conflict(format!("pod {} is already assigned to node \"{assigned}\"", request.name));
    }
    let mut new = (*pod).clone();
    new["spec"]["nodeName"] = node.into();
    for (name, value) in request.body["metadata"]["annotations"].as_object().into_iter().flatten() {
        new["metadata"]["annotations"][name] = value.clone();
    }
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": super::stamp(state.now()),
    });
    set_condition(&mut new["status"], scheduled);
    if !dry {
        state.put(request.key(), new, request.user());
    }
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::created(success))
}

/// Replaces or adds a condition of a status.
pub fn set_condition(status: &mut Value, condition: Value) {
    let mut conditions = list_of(&status["conditions"]).to_vec();
    match conditions.iter_mut().find(|one| one["type"] == condition["type"]) {
        Some(one) => *one = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

/// What messages about a binding name; there are no such objects.
static BINDING: Kind = Kind { kind: "Binding", plural: "pods/binding", ..crate::lab::kind::CORE };
