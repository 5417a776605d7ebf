//! Which node suits: label selectors, node selector terms, taints and tolerations.
//!
//! Pure questions about two objects. Not the choice among the nodes that suit (`scheduler`). Asked by the scheduler, by
//! the binder (selectors of claims) and wherever a volume may be on some nodes only.

use crate::lab::selector::{LabelSelector, picks, picks_node};
use crate::lab::store::{list_of, text};
use serde_json::{Value, json};

/// A LabelSelector; without one everything matches.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    selector.is_null() || picks(selector, labels)
}

/// Where a volume may be used.
pub fn volume_fits(volume: &Value, node: &Value) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"];
    required.is_null() || picks_node(required, node)
}

/// What a pod demands of its node: `nodeSelector` and the required node affinity.
pub fn pod_fits(pod: &Value, node: &Value) -> bool {
    spec_fits(&pod["spec"], node)
}

/// The same of a pod's spec.
pub fn spec_fits(spec: &Value, node: &Value) -> bool {
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let labels = &node["metadata"]["labels"];
    spec["nodeSelector"].as_object().is_none_or(|wanted| LabelSelector::from_map(wanted).matches(Some(labels)))
        && (required.is_null() || picks_node(required, node))
}

/// Whether a pod tolerates a taint.
pub fn tolerates(pod: &Value, taint: &Value) -> bool {
    list_of(&pod["spec"]["tolerations"]).iter().any(|one| super::selector::tolerates(one, taint))
}

/// The first taint that keeps a pod off a node. A node that is not ready counts as tainted, also while nobody has
/// written the taint yet.
pub fn repelled_by(pod: &Value, node: &Value) -> Option<Value> {
    let ready = list_of(&node["status"]["conditions"]).iter().find(|one| one["type"] == "Ready");
    let unready = match ready.map(|one| text(&one["status"])) {
        Some("True") => None,
        Some("Unknown") => Some("node.kubernetes.io/unreachable"),
        _ => Some("node.kubernetes.io/not-ready"),
    };
    let implied = unready.map(|key| json!({"key": key, "effect": "NoSchedule"}));
    let taints = list_of(&node["spec"]["taints"]).iter().cloned().chain(implied);
    taints
        .filter(|taint| matches!(text(&taint["effect"]), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerates(pod, taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_a_selector_takes_every_volume() {
        let labels = json!({"zone": "a"});
        assert!(selects(&Value::Null, &labels) && selects(&json!({"matchLabels": {"zone": "a"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"zone": "b"}}), &labels));
    }

    #[test]
    fn taints_and_tolerations() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        let rows = [
            (json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"operator": "Exists"}), true),
        ];
        for (toleration, expected) in rows {
            assert_eq!(tolerates(&json!({"spec": {"tolerations": [toleration]}}), &taint), expected, "{toleration}");
        }
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let soft =
            json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}, "status": {"conditions": ready}});
        assert_eq!(repelled_by(&json!({}), &soft), None);
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        assert_eq!(repelled_by(&json!({}), &unready).unwrap()["key"], "node.kubernetes.io/unreachable");
    }
}
