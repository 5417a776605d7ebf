//! DELETE: of one object and of a collection, with everything that can hold an object back.

use super::update::is_to_go;
use super::{Answer, Request, bad_option, number_of, stamp};
use crate::lab::admit::{self, Operation};
use crate::lab::rules::field::{go_list, unsupported_go};
use crate::lab::status::{Cause, Status};
use crate::lab::store::{State, list_of, text};
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::sync::Arc;

/// `DeleteOptions`, from body and query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub grace_s: Option<i64>,
    pub uid: Option<String>,
    pub version: Option<String>,
    /// `Background`, `Foreground`, `Orphan`; `None`: the kind's own.
    pub propagation: Option<String>,
    pub dry: bool,
}

impl Options {
    fn of(request: &Request) -> Result<Options, Status> {
        let body = &request.body;
        let said = text(&body["kind"]);
        if !said.is_empty() && said != "DeleteOptions" {
            let version = text(&body["apiVersion"]);
            let message = format!(
                "no kind \"{said}\" is registered for version \"{version}\" in scheme \
                 \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
            );
            return Err(Status::new(500, "", message));
        }
        let query = |name: &str| request.query.get(name).filter(|text| !text.is_empty());
        let mut dry = request.is_dry("DeleteOptions")?;
        match list_of(&body["dryRun"]) {
            [] => {}
            [only] if only == "All" => dry = true,
            other => {
                let shown = go_list(&other.into());
                return Err(bad_option("DeleteOptions", unsupported_go("dryRun", &shown, &["All"])));
            }
        }
        let grace_s = match &body["gracePeriodSeconds"] {
            Value::Null => number_of(&request.query, "gracePeriodSeconds")?,
            asked => Some(asked.as_i64().ok_or_else(|| {
                // The character is one of the reader's buffer.
                let why = "v1.DeleteOptions.GracePeriodSeconds: readUint64: unexpected character: \u{fffd}";
                Status::new(500, "", why)
            })?),
        };
        let orphan = body["orphanDependents"].as_bool();
        let propagation = body["propagationPolicy"].as_str().or(query("propagationPolicy").map(String::as_str));
        if let (Some(_), Some(asked)) = (orphan, propagation) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return Err(bad_option("DeleteOptions", Cause::invalid("propagationPolicy", &json!(asked), detail)));
        }
        if let Some(asked) = propagation
            && !matches!(asked, "Background" | "Foreground" | "Orphan")
        {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            return Err(bad_option(
                "DeleteOptions",
                Cause::unsupported("propagationPolicy", &json!(asked), &supported),
            ));
        }
        let by_flag = orphan.map(|orphan| if orphan { "Orphan" } else { "Background" });
        Ok(Options {
            grace_s,
            uid: body["preconditions"]["uid"].as_str().map(str::to_owned),
            version: body["preconditions"]["resourceVersion"].as_str().map(str::to_owned),
            propagation: propagation.or(by_flag).map(str::to_owned),
            dry,
        })
    }
}

pub fn delete(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let options = Options::of(request)?;
    let (last, is_gone) = delete_one(state, request, &options)?;
    let kind = request.kind;
    if kind.returns_deleted || !is_gone {
        return Ok(Answer::ok(last));
    }
    let mut details = kind.details(&request.name);
    details["uid"] = last["metadata"]["uid"].clone();
    let success =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(Answer::ok(success))
}

/// Returns the object as it was or has become, and whether it is gone.
fn delete_one(state: &mut State, request: &Request, options: &Options) -> Result<(Arc<Value>, bool), Status> {
    let old = request.current(state)?;
    let mut admitted = (*old).clone();
    admit::admit(
        state,
        request.kind,
        Operation::Delete,
        &request.namespace,
        &mut admitted,
        Some(&old),
        request.user(),
    )?;
    preconditions(request, &old, options)?;
    let Some(new) = marked(state, request, &old, options) else {
        return Ok((old, false));
    };
    if is_to_go(request.kind.kind, &new) {
        if !options.dry {
            state.remove(&request.key(), request.user());
        }
        // Pods are told to go before they go.
        let last = if request.kind.kind == "Pod" { Arc::new(new) } else { old };
        return Ok((last, true));
    }
    if options.dry {
        return Ok((Arc::new(new), false));
    }
    Ok((state.put(request.key(), new, request.user()), false))
}

fn preconditions(request: &Request, old: &Value, options: &Options) -> Result<(), Status> {
    let (uid, version) = (text(&old["metadata"]["uid"]), text(&old["metadata"]["resourceVersion"]));
    let conflict = |why: String| {
        let mut status = Status::conflict(request.kind, &request.name, why);
        // Here, and only here, the real server names the kind instead of the resource.
        status.message = status.message.replacen(&request.kind.qualified(), request.kind.kind, 1);
        status.details = Some(json!({"name": request.name, "kind": request.kind.kind}));
        status
    };
    if let Some(asked) = &options.uid
        && asked != uid
    {
        return Err(conflict(format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        )));
    }
    if let Some(asked) = &options.version
        && asked != version
    {
        return Err(conflict(format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
             ({version}). The object might have been modified"
        )));
    }
    Ok(())
}

/// The object as it goes; `None` if it is going already and this changes nothing.
fn marked(state: &State, request: &Request, old: &Value, options: &Options) -> Option<Value> {
    let mut new = old.clone();
    let meta = &old["metadata"];
    let held = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let is_going = !meta["deletionTimestamp"].is_null();
    if is_going {
        let wanted = options.grace_s.unwrap_or(held);
        // Only ever sooner.
        if wanted >= held && !(held == 0 && is_to_go(request.kind.kind, old)) {
            return None;
        }
        let began = text(&meta["deletionTimestamp"]).parse().unwrap_or(state.now());
        let at = began - seconds(held) + seconds(wanted);
        new["metadata"]["deletionTimestamp"] = stamp(at);
        new["metadata"]["deletionGracePeriodSeconds"] = wanted.into();
        return Some(new);
    }
    let grace = if request.kind.kind == "Pod" { grace_of_pod(old, options) } else { 0 };
    new["metadata"]["deletionTimestamp"] = stamp(state.now() + seconds(grace));
    if request.kind.kind != "Namespace" {
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    }
    if let Some(generation) = meta["generation"].as_u64().filter(|generation| *generation > 0) {
        new["metadata"]["generation"] = (generation + 1).into();
    }
    // Without a word, batch/v1 leaves the pods of a Job alone.
    let own = if request.kind.kind == "Job" { "Orphan" } else { "Background" };
    let asked = options.propagation.as_deref().unwrap_or(own);
    let finalizer = match asked {
        "Foreground" => Some("foregroundDeletion"),
        "Orphan" => Some("orphan"),
        _ => None,
    };
    let mut finalizers = list_of(&meta["finalizers"]).to_vec();
    finalizers.retain(|one| !matches!(text(one), "foregroundDeletion" | "orphan"));
    finalizers.extend(finalizer.map(Value::from));
    match &mut new["metadata"] {
        Value::Object(map) if finalizers.is_empty() => {
            map.remove("finalizers");
        }
        map => map["finalizers"] = finalizers.into(),
    }
    if request.kind.kind == "Namespace" {
        new["status"]["phase"] = "Terminating".into();
    }
    Some(new)
}

fn grace_of_pod(pod: &Value, options: &Options) -> i64 {
    let is_over = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    if is_over || text(&pod["spec"]["nodeName"]).is_empty() {
        return 0;
    }
    options.grace_s.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

pub fn delete_collection(state: &mut State, request: &Request) -> Result<Answer, Status> {
    let options = Options::of(request)?;
    let list = super::list::list(state, request)?;
    for item in list_of(&list.object["items"]) {
        let one = Request { name: text(&item["metadata"]["name"]).to_owned(), ..request.clone() };
        match delete_one(state, &one, &options) {
            Ok(_) => {}
            // It went in the meantime: with one writer only by an earlier item of this call.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    // As they were.
    Ok(list)
}
