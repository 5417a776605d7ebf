//! What the lab says about what it serves: `/api`, `/apis`, `/api/v1`, `/apis/<g>/<v>`, aggregated discovery, `/version`.
//!
//! Made from a table of resources that the caller gives; nothing is known here about single kinds. Pure. The version is
//! 1.20.2's, and `storageVersionHash` is left out, as clients do not read it.

use serde_json::{Value, json};

/// One served resource in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `persistentvolumeclaims`.
    pub plural: &'static str,
    /// `persistentvolumeclaim`; legacy discovery of 1.20 shows it empty, aggregated discovery shows it.
    pub singular: &'static str,
    /// `PersistentVolumeClaim`.
    pub kind: &'static str,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// In any order.
    pub verbs: &'static [&'static str],
    /// `pvc`.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// `status`, `scale`, `log`, …
    pub subresources: Vec<Subresource>,
}

/// A subresource; group and version are given if they are not the resource's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// `scale`.
    pub name: &'static str,
    /// `autoscaling`, or None.
    pub group: Option<&'static str>,
    /// `v1`, or None.
    pub version: Option<&'static str>,
    /// `Scale`.
    pub kind: &'static str,
    /// In any order.
    pub verbs: &'static [&'static str],
}

fn sorted(verbs: &[&str]) -> Vec<String> {
    let mut verbs: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    verbs.sort();
    verbs
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `/api`.
#[must_use]
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// Groups but the core one, with their versions, the preferred first; both in the order of the table.
fn groups(resources: &[Resource]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in resources.iter().filter(|resource| !resource.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, versions)) if versions.contains(&resource.version) => {}
            Some((_, versions)) => versions.push(resource.version),
            None => groups.push((resource.group, vec![resource.version])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| stability(version));
    }
    groups
}

/// v1 before v2beta1 before v1beta1 before v1alpha1.
fn stability(version: &str) -> (u8, std::cmp::Reverse<Vec<u32>>) {
    let rank = if version.contains("alpha") { 2 } else { u8::from(version.contains("beta")) };
    let numbers =
        version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    (rank, std::cmp::Reverse(numbers))
}

fn group(name: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({"groupVersion": group_version(name, version), "version": version});
    let all: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// `/apis`.
#[must_use]
pub fn api_group_list(resources: &[Resource]) -> Value {
    let groups: Vec<Value> = groups(resources).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`; None if the group is not served.
#[must_use]
pub fn api_group(resources: &[Resource], name: &str) -> Option<Value> {
    let groups = groups(resources);
    let (_, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut answer = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(answer), Value::Object(rest)) = (&mut answer, group(name, versions)) {
        answer.extend(rest);
    }
    Some(answer)
}

/// `/api/v1` and `/apis/<group>/<version>`; None if it is not served.
#[must_use]
pub fn api_resource_list(resources: &[Resource], group: &str, version: &str) -> Option<Value> {
    let mut served: Vec<&Resource> =
        resources.iter().filter(|resource| resource.group == group && resource.version == version).collect();
    if served.is_empty() {
        return None;
    }
    served.sort_by_key(|resource| resource.plural);
    let mut entries = Vec::new();
    for resource in served {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": sorted(resource.verbs),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        entries.push(entry);
        let mut subresources: Vec<&Subresource> = resource.subresources.iter().collect();
        subresources.sort_by_key(|subresource| subresource.name);
        for subresource in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.namespaced,
            });
            if let Some(group) = subresource.group {
                entry["group"] = json!(group);
            }
            if let Some(version) = subresource.version {
                entry["version"] = json!(version);
            }
            entry["kind"] = json!(subresource.kind);
            entry["verbs"] = json!(sorted(subresource.verbs));
            entries.push(entry);
        }
    }
    // The core list is older than its own apiVersion and goes without it.
    Some(if group.is_empty() {
        json!({"kind": "APIResourceList", "groupVersion": version, "resources": entries})
    } else {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version(group, version),
            "resources": entries,
        })
    })
}

/// Aggregated discovery v2 of `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(resources: &[Resource], core: bool) -> Value {
    let groups = if core { vec![("", vec!["v1"])] } else { groups(resources) };
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let mut served: Vec<&Resource> = resources
                        .iter()
                        .filter(|resource| resource.group == *name && resource.version == *version)
                        .collect();
                    served.sort_by_key(|resource| resource.plural);
                    let served: Vec<Value> = served.into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": served, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(resource.group, resource.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": sorted(resource.verbs),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|subresource| {
                let group = subresource.group.unwrap_or(resource.group);
                let version = subresource.version.unwrap_or(resource.version);
                json!({
                    "subresource": subresource.name,
                    "responseKind": kind(group, version, subresource.kind),
                    "verbs": sorted(subresource.verbs),
                })
            })
            .collect();
        entry["subresources"] = json!(subresources);
    }
    entry
}

/// `/version`; `platform` is where the lab runs.
#[must_use]
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "20",
        "gitVersion": "v1.20.2",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &["list", "get", "create", "update", "patch", "delete", "deletecollection", "watch"];

    fn served() -> Vec<Resource> {
        let status =
            |kind| Subresource { name: "status", group: None, version: None, kind, verbs: &["get", "patch", "update"] };
        let scale = Subresource {
            name: "scale",
            group: Some("autoscaling"),
            version: Some("v1"),
            kind: "Scale",
            verbs: &["get", "patch", "update"],
        };
        let resource = |group, version, plural, singular, kind, short_names, categories, subresources| Resource {
            group,
            version,
            plural,
            singular,
            kind,
            namespaced: true,
            verbs: ALL,
            short_names,
            categories,
            subresources,
        };
        vec![
            resource("", "v1", "configmaps", "configmap", "ConfigMap", &["cm"], &[], vec![]),
            resource("batch", "v1beta1", "cronjobs", "cronjob", "CronJob", &["cj"], &["all"], vec![status("CronJob")]),
            resource("batch", "v1", "jobs", "job", "Job", &[], &["all"], vec![status("Job")]),
            resource(
                "apps",
                "v1",
                "deployments",
                "deployment",
                "Deployment",
                &["deploy"],
                &["all"],
                vec![scale, status("Deployment")],
            ),
        ]
    }

    #[test]
    fn legacy_discovery_has_the_shape_of_a_real_server() {
        let apps = api_resource_list(&served(), "apps", "v1").expect("served");
        assert_eq!(
            apps.to_string(),
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"apps/v1","resources":[{"name":"deployments","singularName":"","namespaced":true,"kind":"Deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["deploy"],"categories":["all"]},{"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]},{"name":"deployments/status","singularName":"","namespaced":true,"kind":"Deployment","verbs":["get","patch","update"]}]}"#
        );
        let groups = api_group_list(&served());
        assert_eq!(
            groups["groups"][0].to_string(),
            r#"{"name":"batch","versions":[{"groupVersion":"batch/v1","version":"v1"},{"groupVersion":"batch/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"batch/v1","version":"v1"}}"#
        );
        assert_eq!(api_group(&served(), "apps").expect("served")["kind"], "APIGroup");
        assert_eq!(api_resource_list(&served(), "", "v1").expect("served").get("apiVersion"), None);
        assert!(api_group(&served(), "nope").is_none() && api_resource_list(&served(), "apps", "v2").is_none());
    }

    #[test]
    fn aggregated_discovery_names_kinds_and_subresources() {
        let core = aggregated(&served(), true);
        assert_eq!(core["items"][0]["versions"][0]["resources"][0]["responseKind"]["kind"], "ConfigMap");
        let groups = aggregated(&served(), false);
        assert_eq!(groups["items"][1]["metadata"]["name"], "apps");
        let scale = &groups["items"][1]["versions"][0]["resources"][0]["subresources"][0];
        assert_eq!(scale["responseKind"]["group"], "autoscaling");
    }
}
