//! LimitRanges: what containers and claims get and may ask for. Applied in `admit`.

use super::Rules;
use super::field::{each, entries, fill, invalid_go, is_empty, quantity, sub};
use crate::lab::quantity::{self, Quantity};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

pub const RULES: Rules = Rules { default, validate, ..super::PLAIN };

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn default(range: &mut Value) {
    for limit in each(sub(range, "spec"), "limits") {
        for list in LISTS {
            if let Some(list) = limit.get_mut(list) {
                quantity::tidy(list);
            }
        }
        if limit["type"] != "Container" {
            continue;
        }
        // What is not said follows: a default from the most, a default request from the default, else from the least.
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let all = limit[from].clone();
            for (name, amount) in entries(&all) {
                fill(sub(limit, to), name, amount.clone());
            }
        }
    }
}

fn validate(range: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let limits = list_of(&range["spec"]["limits"]);
    for (at, limit) in limits.iter().enumerate() {
        let field = format!("spec.limits[{at}]");
        let kind = text(&limit["type"]);
        if !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) && !kind.contains('/') {
            let why = "must be a standard limit type or fully qualified";
            causes.push(Cause::invalid(format!("{field}.type"), &kind.into(), why));
        }
        if limits[..at].iter().any(|before| before["type"] == limit["type"]) {
            causes.push(Cause::duplicate(format!("{field}.type"), &limit["type"]));
        }
        if kind == "Pod" {
            for list in ["default", "defaultRequest"].iter().filter(|list| !is_empty(&limit[**list])) {
                causes.push(Cause::forbidden(format!("{field}.{list}"), "may not be specified when `type` is 'Pod'"));
            }
        }
        if kind == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(format!("{field}.limits"), why));
        }
        let mut names: Vec<&str> = LISTS.iter().flat_map(|list| entries(&limit[*list])).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            amounts(&field, limit, name, &mut causes);
        }
    }
    causes
}

/// The amounts of one resource, each against the others.
fn amounts(field: &str, limit: &Value, name: &str, causes: &mut Vec<Cause>) {
    let mut of = |list: &str| match &limit[list][name] {
        Value::Null => None,
        amount => quantity(&format!("{field}.{list}[{name}]"), amount, causes),
    };
    let (min, max, default, request) = (of("min"), of("max"), of("default"), of("defaultRequest"));
    let mut ordered =
        |list: &str, shown: Option<Quantity>, low: (&str, Option<Quantity>), high: (&str, Option<Quantity>)| {
            let (Some(shown), Some(less), Some(more)) = (shown, low.1, high.1) else { return };
            if less > more {
                let why = format!("{} value {less} is greater than {} value {more}", low.0, high.0);
                causes.push(invalid_go(&format!("{field}.{list}[{name}]"), &shown.go(), &why));
            }
        };
    ordered("min", min, ("min", min), ("max", max));
    ordered("defaultRequest", request, ("min", min), ("default request", request));
    ordered("defaultRequest", request, ("default request", request), ("max", max));
    ordered("defaultRequest", request, ("default request", request), ("default limit", default));
    ordered("default", min, ("min", min), ("default", default));
    ordered("default", max, ("default", default), ("max", max));
}
