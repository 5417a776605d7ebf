//! Roles and their bindings. What they allow is decided in `access`.

use super::Rules;
use super::field::{each, fill_text, go_list, invalid_go, is_empty, need, one_of, set, sub, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub const ROLE: Rules = Rules { default: default_rules, validate: |role| rules(role, true), ..super::PLAIN };
pub const CLUSTER_ROLE: Rules = Rules {
    unsimulated: |role| match is_empty(&role["aggregationRule"]) {
        true => Vec::new(),
        false => vec![Cause::unsimulated("aggregationRule", "roles made of roles")],
    },
    default: default_rules,
    validate: |role| rules(role, false),
    ..super::PLAIN
};
pub const ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |binding| validate_binding(binding, &["Role", "ClusterRole"]),
    validate_update,
    ..super::PLAIN
};
pub const CLUSTER_ROLE_BINDING: Rules = Rules {
    default: default_binding,
    validate: |binding| validate_binding(binding, &["ClusterRole"]),
    validate_update,
    ..super::PLAIN
};

fn default_rules(role: &mut Value) {
    if is_empty(&role["rules"]) {
        set(role, "rules", Value::Null);
    }
}

fn rules(role: &Value, is_namespaced: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, rule) in list_of(&role["rules"]).iter().enumerate() {
        let field = format!("rules[{at}]");
        if is_empty(&rule["verbs"]) {
            causes.push(Cause::required(format!("{field}.verbs"), "verbs must contain at least one value"));
        }
        if !is_empty(&rule["nonResourceURLs"]) {
            let at = format!("{field}.nonResourceURLs");
            if is_namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                causes.push(invalid_go(&at, &go_list(&rule["nonResourceURLs"]), why));
            }
            if !is_empty(&rule["apiGroups"]) || !is_empty(&rule["resources"]) || !is_empty(&rule["resourceNames"]) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(invalid_go(&at, &go_list(&rule["nonResourceURLs"]), why));
            }
            continue;
        }
        for (key, what) in [("apiGroups", "api group"), ("resources", "resource")] {
            if is_empty(&rule[key]) {
                let why = format!("resource rules must supply at least one {what}");
                causes.push(Cause::required(format!("{field}.{key}"), &why));
            }
        }
    }
    causes
}

fn default_binding(binding: &mut Value) {
    fill_text(sub(binding, "roleRef"), "apiGroup", GROUP);
    for subject in each(binding, "subjects") {
        if ["User", "Group"].contains(&text(&subject["kind"])) {
            fill_text(subject, "apiGroup", GROUP);
        }
    }
}

fn validate_binding(binding: &Value, kinds: &[&str]) -> Vec<Cause> {
    let role = &binding["roleRef"];
    let mut causes = Vec::new();
    one_of("roleRef.apiGroup", &role["apiGroup"], &[GROUP], &mut causes);
    one_of("roleRef.kind", &role["kind"], kinds, &mut causes);
    if need("roleRef.name", &role["name"], &mut causes) {
        causes.extend(wrong("roleRef.name", text(&role["name"]), &meta::path_segment(text(&role["name"]))));
    }
    for (at, subject) in list_of(&binding["subjects"]).iter().enumerate() {
        let field = format!("subjects[{at}]");
        let (name, group) = (text(&subject["name"]), &subject["apiGroup"]);
        need(&format!("{field}.name"), &subject["name"], &mut causes);
        match text(&subject["kind"]) {
            "ServiceAccount" => {
                if !name.is_empty() {
                    causes.extend(wrong(&format!("{field}.name"), name, &meta::dns1123_subdomain(name)));
                }
                if !is_empty(group) {
                    causes.push(Cause::unsupported(format!("{field}.apiGroup"), group, &[""]));
                }
                if kinds.len() == 1 {
                    need(&format!("{field}.namespace"), &subject["namespace"], &mut causes);
                }
            }
            "User" | "Group" => one_of(&format!("{field}.apiGroup"), group, &[GROUP], &mut causes),
            _ => {
                let known = ["ServiceAccount", "User", "Group"];
                one_of(&format!("{field}.kind"), &subject["kind"], &known, &mut causes);
            }
        }
    }
    causes
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let role = &new["roleRef"];
    if *role == old["roleRef"] {
        return Vec::new();
    }
    let go = format!(
        "rbac.RoleRef{{APIGroup:\"{}\", Kind:\"{}\", Name:\"{}\"}}",
        text(&role["apiGroup"]),
        text(&role["kind"]),
        text(&role["name"])
    );
    vec![invalid_go("roleRef", &go, "cannot change roleRef")]
}
