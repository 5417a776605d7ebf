//! Selectors: what a label selector and a node selector may say, and what a label selector picks.
//!
//! Not the selectors in a URL. Used by the rules of workloads, claims and volumes.

use super::field::{go_list, go_map, invalid_go, is_empty, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

/// Causes of a `LabelSelector`.
pub fn validate(field: &str, selector: &Value) -> Vec<Cause> {
    let mut causes = meta::labels(&format!("{field}.matchLabels"), &selector["matchLabels"]);
    for (at, one) in list_of(&selector["matchExpressions"]).iter().enumerate() {
        let field = format!("{field}.matchExpressions[{at}]");
        requirement_values(&field, one, &mut causes);
        let key = text(&one["key"]);
        causes.extend(wrong(&format!("{field}.key"), key, &meta::qualified_name(key)));
    }
    causes
}

fn requirement_values(field: &str, one: &Value, causes: &mut Vec<Cause>) {
    let values = list_of(&one["values"]);
    match text(&one["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            causes.push(Cause::required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            causes.push(Cause::forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            causes.push(Cause::invalid(format!("{field}.operator"), &other.into(), "not a valid selector operator"));
        }
    }
}

/// Causes of a required `NodeSelector`.
pub fn validate_node(field: &str, selector: &Value) -> Vec<Cause> {
    let terms = list_of(&selector["nodeSelectorTerms"]);
    let mut causes = Vec::new();
    if terms.is_empty() {
        let field = format!("{field}.nodeSelectorTerms");
        causes.push(Cause::required(field, "must have at least one node selector term"));
    }
    for (at, term) in terms.iter().enumerate() {
        for (nth, one) in list_of(&term["matchExpressions"]).iter().enumerate() {
            let field = format!("{field}.nodeSelectorTerms[{at}].matchExpressions[{nth}]");
            match text(&one["operator"]) {
                "Gt" | "Lt" if list_of(&one["values"]).len() != 1 => causes.push(Cause::required(
                    format!("{field}.values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                )),
                "Gt" | "Lt" => {}
                _ => requirement_values(&field, one, &mut causes),
            }
            let key = text(&one["key"]);
            causes.extend(wrong(&format!("{field}.key"), key, &meta::qualified_name(key)));
        }
    }
    causes
}

/// Whether it is written so that it can pick.
pub fn is_usable(selector: &Value) -> bool {
    list_of(&selector["matchExpressions"]).iter().all(|one| {
        let values = !is_empty(&one["values"]);
        match text(&one["operator"]) {
            "In" | "NotIn" => values,
            "Exists" | "DoesNotExist" => !values,
            _ => false,
        }
    })
}

/// Whether a `LabelSelector` picks these labels. An absent one picks nothing, an empty one everything.
pub fn picks(selector: &Value, labels: &Value) -> bool {
    is_usable(selector) && crate::lab::selector::picks(selector, labels)
}

/// The selector of a workload: there, not empty, and picking the template's labels.
pub fn validate_of_workload(object: &Value, what: &str, causes: &mut Vec<Cause>) {
    let selector = &object["spec"]["selector"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
        return;
    }
    causes.extend(validate("spec.selector", selector));
    if is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"]) {
        causes.push(invalid_go("spec.selector", &go(selector), &format!("empty selector is invalid for {what}")));
    }
}

/// Says so if the selector does not pick the template. `false` if it cannot pick at all, which is said with `detail`.
pub fn validate_template_labels(object: &Value, detail: &str, causes: &mut Vec<Cause>) -> bool {
    let spec = &object["spec"];
    let selector = &spec["selector"];
    if selector.is_object() && !is_usable(selector) {
        causes.push(invalid_go("spec.selector", &go(selector), detail));
        return false;
    }
    let picks_all =
        selector.is_object() && is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"]);
    let labels = &spec["template"]["metadata"]["labels"];
    if !picks_all && !picks(selector, labels) {
        causes.push(does_not_match(labels));
    }
    true
}

pub fn does_not_match(labels: &Value) -> Cause {
    invalid_go("spec.template.metadata.labels", &go_map(labels), "`selector` does not match template `labels`")
}

/// The selector may not change.
pub fn immutable(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if new == old { Vec::new() } else { vec![invalid_go("spec.selector", &go(new), "field is immutable")] }
}

/// As Go's `%#v` shows it.
pub fn go(selector: &Value) -> String {
    let expressions = match &selector["matchExpressions"] {
        Value::Array(all) if !all.is_empty() => {
            let shown: Vec<String> = all
                .iter()
                .map(|one| {
                    format!(
                        "v1.LabelSelectorRequirement{{Key:\"{}\", Operator:\"{}\", Values:{}}}",
                        text(&one["key"]),
                        text(&one["operator"]),
                        go_list(&one["values"])
                    )
                })
                .collect();
            format!("[]v1.LabelSelectorRequirement{{{}}}", shown.join(", "))
        }
        _ => "[]v1.LabelSelectorRequirement(nil)".into(),
    };
    format!("v1.LabelSelector{{MatchLabels:{}, MatchExpressions:{expressions}}}", go_map(&selector["matchLabels"]))
}
