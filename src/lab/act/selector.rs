//! Who is meant: label selectors, node selectors, taints and tolerations.
//!
//! Pure functions over parts of objects. Not the scheduler, and not the query language of lists. Called by the
//! controllers that choose pods or nodes. What must stay true: an operator nobody knows selects nothing.

use super::Value;
pub use crate::lab::selector::picks as matches;
use crate::lab::store::{list_of, text};

/// Whether a pod's nodeName, nodeSelector and required node affinity allow this node.
pub fn allows_node(pod_spec: &Value, node: &Value) -> bool {
    (text(&pod_spec["nodeName"]).is_empty() || pod_spec["nodeName"] == node["metadata"]["name"])
        && super::placement::spec_fits(pod_spec, node)
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let key = text(&toleration["key"]);
    let effect = text(&toleration["effect"]);
    (effect.is_empty() || effect == text(&taint["effect"]))
        && (key.is_empty() || key == text(&taint["key"]))
        && match text(&toleration["operator"]) {
            "Exists" => true,
            "Equal" | "" => text(&toleration["value"]) == text(&taint["value"]),
            _ => false,
        }
}

/// The taints of a node with one of these effects that no toleration covers.
pub fn untolerated<'a>(tolerations: &Value, node: &'a Value, effects: &[&str]) -> Vec<&'a Value> {
    let tolerations = list_of(tolerations);
    list_of(&node["spec"]["taints"])
        .iter()
        .filter(|taint| effects.contains(&text(&taint["effect"])))
        .filter(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_select() {
        let labels = json!({"app": "web", "size": "3"});
        let one = |operator: &str, key: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "no": "such"}}), false),
            (one("In", "app", &["a", "web"]), true),
            (one("NotIn", "app", &["a"]), true),
            (one("NotIn", "absent", &["a"]), true),
            (one("Exists", "absent", &[]), false),
            (one("DoesNotExist", "absent", &[]), true),
            (one("Gt", "size", &["2"]), false),
            (one("Like", "app", &["web"]), false),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn pods_choose_nodes() {
        let node = json!({"metadata": {"name": "node1", "labels": {"disk": "ssd"}}});
        let affinity = |term: Value| {
            let required = json!({"nodeSelectorTerms": [term]});
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
        };
        let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        let cases = [
            (json!({}), true),
            (json!({"nodeName": "node2"}), false),
            (json!({"nodeSelector": {"disk": "ssd"}}), true),
            (json!({"nodeSelector": {"disk": "hdd"}}), false),
            (affinity(name("node1")), true),
            (affinity(name("node2")), false),
            (affinity(json!({})), false),
        ];
        for (spec, expected) in cases {
            assert_eq!(allows_node(&spec, &node), expected, "{spec}");
        }
    }

    #[test]
    fn tolerations_cover_taints() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoExecute"});
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "w"}), false),
        ];
        for (toleration, expected) in cases {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration}");
        }
    }
}
