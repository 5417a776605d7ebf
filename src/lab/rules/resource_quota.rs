//! ResourceQuotas: which resources can be limited. What they allow is decided in `admit`.

use super::Rules;
use super::field::{entries, invalid_go, is_empty, keep_status, quantity, sub};
use crate::lab::quantity;
use crate::lab::status::Cause;
use serde_json::{Value, json};

pub const RULES: Rules =
    Rules { unsimulated, default, prepare: |new, old| keep_status(new, old, json!({})), validate, ..super::PLAIN };

const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn unsimulated(quota: &Value) -> Vec<Cause> {
    ["scopes", "scopeSelector"]
        .iter()
        .filter(|key| !is_empty(&quota["spec"][**key]))
        .map(|key| Cause::unsimulated(format!("spec.{key}"), "scopes of quotas"))
        .collect()
}

fn default(quota: &mut Value) {
    if let Some(hard) = sub(quota, "spec").get_mut("hard") {
        quantity::tidy(hard);
    }
    let status = sub(quota, "status");
    for list in ["hard", "used"] {
        if let Some(list) = status.get_mut(list) {
            quantity::tidy(list);
        }
    }
}

fn validate(quota: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (name, amount) in entries(&quota["spec"]["hard"]) {
        let field = format!("spec.hard[{name}]");
        if !COUNTED.contains(&name) && !MEASURED.contains(&name) && !name.contains('/') {
            for why in ["must be a standard resource type or fully qualified", "must be a standard resource for quota"]
            {
                causes.push(Cause::invalid(&field, &name.into(), why));
            }
        }
        let Some(amount) = quantity(&field, amount, &mut causes) else { continue };
        if amount.is_negative() {
            let why = "must be greater than or equal to 0";
            causes.push(Cause::invalid(&field, &amount.to_string().into(), why));
        }
        if (COUNTED.contains(&name) || name.starts_with("count/")) && !amount.is_whole() {
            causes.push(invalid_go(&field, &amount.go(), "must be an integer"));
        }
    }
    causes
}
