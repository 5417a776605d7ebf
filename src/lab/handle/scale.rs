//! `/scale`: how many pods a workload shall have, as `autoscaling/v1 Scale`.

use super::{Answer, Request, Verb, update};
use crate::lab::admit::{self, Operation};
use crate::lab::kind::{CORE, Kind};
use crate::lab::negotiate::Body;
use crate::lab::patch;
use crate::lab::status::{Cause, Status};
use crate::lab::store::{State, text};
use crate::lab::types;
use serde_json::{Value, json};

/// What messages name; there are no such objects.
static SCALE: Kind = Kind { group: "autoscaling", kind: "Scale", plural: "scales", ..CORE };

pub fn get(state: &State, request: &Request) -> Result<Answer, Status> {
    let workload = request.current(state).map_err(|_| match request.kind.kind {
        // Of these the subresource is missing, of the others the object.
        "Deployment" | "ReplicaSet" => Status::not_found(&scale_kind(request.kind), &request.name),
        _ => Status::not_found(request.kind, &request.name),
    })?;
    Ok(Answer::ok(scale_of(&workload)))
}

/// The subresource, as messages name it.
fn scale_kind(of: &Kind) -> Kind {
    let plural = match of.kind {
        "Deployment" => "deployments/scale",
        "ReplicaSet" => "replicasets/scale",
        _ => "statefulsets/scale",
    };
    Kind { plural, ..*of }
}

/// The Scale of a workload.
fn scale_of(workload: &Value) -> Value {
    let meta = &workload["metadata"];
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {}, "status": {}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        scale["metadata"][field] = meta[field].clone();
    }
    // Zero is left out of the spec.
    if let Some(replicas) = workload["spec"]["replicas"].as_u64().filter(|replicas| *replicas > 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    scale["status"]["replicas"] = workload["status"]["replicas"].as_u64().unwrap_or(0).into();
    let mut selector: Vec<String> = Vec::new();
    let labels = &workload["spec"]["selector"];
    let plain = if labels["matchLabels"].is_object() { &labels["matchLabels"] } else { labels };
    for (key, value) in plain.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            selector.push(format!("{key}={value}"));
        }
    }
    selector.sort();
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.join(",").into();
    }
    scale
}

pub fn change(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let is_patch = matches!(request.verb, Verb::Patch(_));
    let dry = request.is_dry(if is_patch { "PatchOptions" } else { "UpdateOptions" })?;
    let old = request.current(state)?;
    let before = scale_of(&old);
    let mut wanted = match &request.verb {
        Verb::Patch(Body::JsonPatch) => patch::json_patch(&before, &request.body).map_err(|e| e.status())?,
        Verb::Patch(Body::MergePatch | Body::StrategicMergePatch) => patch::merge_patch(&before, &request.body),
        Verb::Patch(_) => {
            return Err(Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").details(json!({})));
        }
        _ => request.body.clone(),
    };
    types::read(&SCALE, &mut wanted).map_err(|wrong| match request.verb {
        Verb::Patch(_) => update::unreadable(&before.to_string(), &wrong.why),
        _ => Status::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {}", wrong.why)),
    })?;
    let meta = &wanted["metadata"];
    let (uid, version) = (text(&meta["uid"]), text(&meta["resourceVersion"]));
    if !text(&meta["name"]).is_empty() && text(&meta["name"]) != request.name {
        let (said, is) = (text(&meta["name"]), &request.name);
        let message = format!("the name of the object ({said}) does not match the name on the URL ({is})");
        return Err(Status::bad_request(message));
    }
    if !uid.is_empty() && uid != text(&old["metadata"]["uid"]) {
        let is = text(&old["metadata"]["uid"]);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
        return Err(Status::conflict(&scale_kind(request.kind), &request.name, why));
    }
    if !version.is_empty() && version != text(&old["metadata"]["resourceVersion"]) {
        return Err(Status::conflict(request.kind, &request.name, update::MODIFIED));
    }
    let replicas = match &wanted["spec"]["replicas"] {
        Value::Null => 0,
        value => match value.as_i64() {
            Some(count @ 0..) => count,
            _ => {
                let detail = "must be greater than or equal to 0";
                let cause = Cause::invalid("spec.replicas", value, detail);
                return Err(Status::invalid(&SCALE, &request.name, &[cause]));
            }
        },
    };
    let mut new = (*old).clone();
    if old["spec"]["replicas"].as_i64() != Some(replicas) {
        new["spec"]["replicas"] = replicas.into();
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
    }
    admit::admit(state, request.kind, Operation::Update, &request.namespace, &mut new, Some(&old), request.user())?;
    let answer = update::commit(state, request, &old, new, dry)?;
    Ok(Answer::ok(scale_of(&answer.object)))
}
