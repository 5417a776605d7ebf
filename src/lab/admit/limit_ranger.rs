//! LimitRanges at work: what containers get when they ask for nothing, and what is too little or too much.
//!
//! Containers, whole pods and claims; the ranges themselves are checked in `rules`.

use super::{Operation, forbidden};
use crate::lab::kind::Kind;
use crate::lab::quantity::Quantity;
use crate::lab::rules::field::{each, entries, set, sub};
use crate::lab::status::Status;
use crate::lab::store::{State, list_of, text};
use serde_json::{Value, json};

fn limits<'a>(state: &'a State, namespace: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    state
        .list("LimitRange", namespace)
        .flat_map(|(_, range)| list_of(&range["spec"]["limits"]))
        .filter(move |limit| limit["type"] == kind)
}

/// Gives containers what they did not say, and notes it on the pod.
pub fn mutate(state: &State, namespace: &str, pod: &mut Value) {
    for limit in limits(state, namespace, "Container") {
        let mut notes = Vec::new();
        for container in each(sub(pod, "spec"), "containers") {
            let name = text(&container["name"]).to_owned();
            for (from, to, what) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")] {
                let missing: Vec<(&str, &Value)> = entries(&limit[from])
                    .into_iter()
                    .filter(|(resource, _)| container["resources"][to][*resource].is_null())
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                let names: Vec<&str> = missing.iter().map(|(resource, _)| *resource).collect();
                notes.push(format!("{} {what} for container {name}", names.join(", ")));
                let list = sub(sub(container, "resources"), to);
                for (resource, amount) in missing {
                    set(list, resource, amount.clone());
                }
            }
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            set(sub(sub(pod, "metadata"), "annotations"), "kubernetes.io/limit-ranger", note);
        }
    }
}

/// Refuses what is outside. Pods cannot change what they ask for: they are looked at once.
pub fn check(state: &State, kind: &Kind, operation: Operation, namespace: &str, object: &Value) -> Result<(), Status> {
    let mut problems = Vec::new();
    match (kind.kind, operation) {
        ("PersistentVolumeClaim", Operation::Create | Operation::Update) => {
            let asked = &object["spec"]["resources"];
            for limit in limits(state, namespace, "PersistentVolumeClaim") {
                for (resource, least) in entries(&limit["min"]) {
                    at_least(kind.kind, resource, least, asked, &mut problems);
                }
                for (resource, most) in entries(&limit["max"]) {
                    let amount = &asked["requests"][resource];
                    outside("maximum", kind.kind, resource, most, amount, "request", true, &mut problems);
                }
            }
        }
        ("Pod", Operation::Create) => {
            for limit in limits(state, namespace, "Container") {
                for container in list_of(&object["spec"]["containers"]) {
                    compute(limit, "Container", &container["resources"], &mut problems);
                }
            }
            let whole = sums(&object["spec"]);
            for limit in limits(state, namespace, "Pod") {
                compute(limit, "Pod", &whole, &mut problems);
            }
        }
        _ => {}
    }
    match &problems[..] {
        [] => Ok(()),
        [only] => Err(forbidden(kind, object, only)),
        all => Err(forbidden(kind, object, format!("[{}]", all.join(", ")))),
    }
}

/// What all containers ask for together.
pub fn sums(spec: &Value) -> Value {
    let mut all = json!({});
    for container in list_of(&spec["containers"]) {
        for list in ["requests", "limits"] {
            for (resource, amount) in entries(&container["resources"][list]) {
                let more = Quantity::of(amount).unwrap_or(Quantity::ZERO);
                let before = Quantity::of(&all[list][resource]).unwrap_or(Quantity::ZERO);
                set(sub(&mut all, list), resource, before.plus(more).to_string());
            }
        }
    }
    all
}

fn compute(limit: &Value, what: &str, asked: &Value, problems: &mut Vec<String>) {
    for (resource, least) in entries(&limit["min"]) {
        at_least(what, resource, least, asked, problems);
    }
    for (resource, most) in entries(&limit["max"]) {
        let (request, limit) = (&asked["requests"][resource], &asked["limits"][resource]);
        if !outside("maximum", what, resource, most, limit, "limit", true, problems) {
            outside("maximum", what, resource, most, request, "request", false, problems);
        }
    }
    for (resource, ratio) in entries(&limit["maxLimitRequestRatio"]) {
        let amount = |list: &str| Quantity::of(&asked[list][resource]).filter(|one| !one.is_zero());
        let most = Quantity::of(ratio).unwrap_or(Quantity::ZERO);
        let says = format!("{resource} max limit to request ratio per {what} is {most}");
        match (amount("requests"), amount("limits")) {
            (None, _) => problems.push(format!("{says}, but no request is specified or request is 0")),
            (_, None) => problems.push(format!("{says}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit.ratio(request) > most.ratio(Quantity::whole(1)) => {
                problems.push(format!("{says}, but provided ratio is {:.6}", limit.ratio(request)));
            }
            _ => {}
        }
    }
}

fn at_least(what: &str, resource: &str, least: &Value, asked: &Value, problems: &mut Vec<String>) {
    if !outside("minimum", what, resource, least, &asked["requests"][resource], "request", true, problems) {
        outside("minimum", what, resource, least, &asked["limits"][resource], "limit", false, problems);
    }
}

/// Says so if an amount is below the minimum or above the maximum, or not there although it must be.
#[expect(clippy::too_many_arguments, reason = "one sentence with eight words")]
fn outside(
    bound: &str,
    what: &str,
    resource: &str,
    enforced: &Value,
    amount: &Value,
    name: &str,
    must_be_there: bool,
    problems: &mut Vec<String>,
) -> bool {
    let enforced = Quantity::of(enforced).unwrap_or(Quantity::ZERO);
    let says = format!("{bound} {resource} usage per {what} is {enforced}");
    let Some(amount) = Quantity::of(amount) else {
        if must_be_there {
            problems.push(format!("{says}.  No {name} is specified"));
        }
        return must_be_there;
    };
    let is_outside = if bound == "minimum" { amount < enforced } else { amount > enforced };
    if is_outside {
        problems.push(format!("{says}, but {name} is {amount}"));
    }
    is_outside
}
