//! Rights as roles grant them: what this program itself needs, and the manifests that grant exactly what is needed.
//!
//! Pure. What a script needs is read from its text (`script::rights`). What must stay true: nothing is granted that was
//! not asked for, no wildcards, and the same needs make the same text.

use super::kinds::is_namespaced;
use crate::words::Json;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    pub group: &'static str,
    /// With its subresource: `pods/log`.
    pub resource: &'static str,
    /// Of one object only; empty for all.
    pub name: &'static str,
    pub verb: &'static str,
}

/// Every run: the identity of the cluster, and the questions of preflight.
const EVERY_RUN: [Need; 2] = [
    Need { group: "", resource: "namespaces", name: "kube-system", verb: "get" },
    Need { group: "authorization.k8s.io", resource: "selfsubjectaccessreviews", name: "", verb: "create" },
];

/// The run's own records, in its namespace.
const RECORDS: [(&str, &str, &str); 3] = [
    ("create delete get list update watch", "", "configmaps"),
    ("create delete get update", "coordination.k8s.io", "leases"),
    // In a Job: to say that the run failed for good.
    ("get update", "batch", "jobs"),
];

/// For whom, and where.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// Name of the script: part of the names of its roles.
    pub script: &'a str,
    /// The ServiceAccount, in the namespace of the run's own records.
    pub account: &'a str,
    pub namespace: &'a str,
    /// Where volumes may be moved; everywhere if empty.
    pub places: &'a [String],
}

impl Need {
    /// One for each verb of `get list`.
    pub fn all_of(verbs: &'static str, group: &'static str, resource: &'static str) -> impl Iterator<Item = Need> {
        verbs.split(' ').map(move |verb| Need { group, resource, name: "", verb })
    }

    /// `patch deployments.apps`
    pub fn told(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        format!("{} {}{group}", self.verb, self.resource)
    }

    /// What is listed is listed in all namespaces: who uses a volume is nowhere else to be seen.
    pub fn is_of_the_cluster(&self) -> bool {
        let plural = self.resource.split('/').next().unwrap_or(self.resource);
        self.verb == "list" || is_namespaced(self.group, plural) != Some(true)
    }
}

/// What every run needs in the namespace of its own records.
pub fn records() -> BTreeSet<Need> {
    RECORDS.iter().flat_map(|(verbs, group, resource)| Need::all_of(verbs, group, resource)).collect()
}

/// Name and groups by which the server knows a ServiceAccount.
pub fn account_user(namespace: &str, account: &str) -> (String, [String; 3]) {
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    (format!("system:serviceaccount:{namespace}:{account}"), groups)
}

/// A ServiceAccount and the roles that grant it what a script and this program need, and no more.
pub fn manifests(needs: &BTreeSet<Need>, grant: &Grant<'_>) -> Vec<Json> {
    let mut all = needs.clone();
    all.extend(EVERY_RUN.iter().filter(|need| !needs.contains(&Need { name: "", ..(*need).clone() })).cloned());
    let records = records();
    let (everywhere, placed): (BTreeSet<Need>, BTreeSet<Need>) =
        all.into_iter().partition(|need| grant.places.is_empty() || need.is_of_the_cluster());

    let name = role_name(grant.account, grant.script);
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": grant.account, "namespace": grant.namespace},
    });
    let mut manifests = vec![account];
    manifests.extend(role("ClusterRole", &name, "", &everywhere, grant));
    for place in grant.places {
        manifests.extend(role("Role", &name, place, &placed, grant));
    }
    manifests.extend(role("Role", &format!("{}-runs", grant.account), grant.namespace, &records, grant));
    manifests
}

fn role(kind: &str, name: &str, namespace: &str, needs: &BTreeSet<Need>, grant: &Grant<'_>) -> [Json; 2] {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let metadata = match namespace {
        "" => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    };
    let version = format!("{GROUP}/v1");
    [
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules(needs)}),
        json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": grant.account, "namespace": grant.namespace}],
        }),
    ]
}

/// The rules of a role, sorted, each kind once: what has the same verbs shares a rule.
pub fn rules(needs: &BTreeSet<Need>) -> Vec<Json> {
    let mut verbs: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for need in needs {
        verbs.entry((need.group, need.name, need.resource)).or_default().insert(need.verb);
    }
    let mut rules: BTreeMap<(&str, &str, BTreeSet<&str>), BTreeSet<&str>> = BTreeMap::new();
    for ((group, name, resource), verbs) in verbs {
        rules.entry((group, name, verbs)).or_default().insert(resource);
    }
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_by(|((a, a_name, _), a_resources), ((b, b_name, _), b_resources)| {
        (a, a_resources, a_name).cmp(&(b, b_resources, b_name))
    });
    let rule = |((group, name, verbs), resources): ((&str, &str, BTreeSet<&str>), BTreeSet<&str>)| {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if !name.is_empty() {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    rules.into_iter().map(rule).collect()
}

/// `pvmigrate-sc-migrate`, whatever the file of the script is called.
fn role_name(account: &str, script: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let script: String = script.chars().map(legal).collect();
    format!("{account}-{}", script.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(rights: &[(&'static str, &'static str, &'static str)]) -> BTreeSet<Need> {
        rights.iter().flat_map(|(verbs, group, resource)| Need::all_of(verbs, group, resource)).collect()
    }

    #[test]
    fn what_has_the_same_verbs_shares_a_rule() {
        let needs = needs(&[
            ("get", "", "pods"),
            ("list", "", "pods"),
            ("get list", "", "configmaps"),
            ("get", "apps", "deployments"),
            ("patch", "", "persistentvolumes"),
        ]);
        assert_eq!(
            json!(rules(&needs)),
            json!([
                {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["patch"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
            ])
        );
    }

    #[test]
    fn roles_of_namespaces_take_what_needs_not_be_everywhere() {
        let needs =
            needs(&[("create get list", "", "pods"), ("get patch", "", "persistentvolumes"), ("get", "", "pods/log")]);
        let places = ["shop".to_owned()];
        let grant = Grant { script: "My Script.v2", account: "mover", namespace: "ops", places: &places };
        let made = manifests(&needs, &grant);
        let picture: Vec<String> = made
            .iter()
            .map(|one| {
                let metadata = &one["metadata"];
                let rules = one["rules"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|rule| format!(" {} {}{}", rule["verbs"], rule["resources"], rule["resourceNames"]));
                format!("{} {}/{}{}", one["kind"], metadata["namespace"], metadata["name"], rules.collect::<String>())
                    .replace('"', "")
                    .replace("null", "")
            })
            .collect();
        assert_eq!(
            picture,
            [
                "ServiceAccount ops/mover",
                "ClusterRole /mover-my-script-v2 [get] [namespaces][kube-system] [get,patch] [persistentvolumes] [list] [pods] [create] [selfsubjectaccessreviews]",
                "ClusterRoleBinding /mover-my-script-v2",
                "Role shop/mover-my-script-v2 [create,get] [pods] [get] [pods/log]",
                "RoleBinding shop/mover-my-script-v2",
                "Role ops/mover-runs [create,delete,get,list,update,watch] [configmaps] [get,update] [jobs] [create,delete,get,update] [leases]",
                "RoleBinding ops/mover-runs",
            ]
        );
    }

    #[test]
    fn who_may_see_all_namespaces_needs_no_rule_for_one() {
        let grant = Grant { script: "x", account: "a", namespace: "n", places: &[] };
        let made = manifests(&needs(&[("get", "", "namespaces")]), &grant);
        let rules = made[1]["rules"].as_array().expect("it has rules");
        assert_eq!(rules.iter().filter(|rule| rule["resources"] == json!(["namespaces"])).count(), 1, "{rules:?}");
    }
}
