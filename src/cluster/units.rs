//! What is cut over together: connected components of claims and the workloads that use them. Pure, but for the reads
//! at the end.

use super::workload::{self, TEMPLATED, controller, names_claim};
use super::{Cluster, known, pvc::Pvc, text, uid};
use crate::words::{Json, ObjectRef, Problem, PvcRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything in some namespaces that may use a claim.
#[derive(Clone, Debug, Default)]
pub struct Population {
    pub pods: Vec<Json>,
    /// Objects with a pod template.
    pub templated: Vec<Json>,
    pub autoscalers: Vec<Json>,
    /// Argo CD's Applications of the whole cluster: each lists what it manages, however that is marked.
    pub applications: Vec<Json>,
}

/// Who uses a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Users {
    /// Pod objects that name it, in whatever phase.
    pub pods: Vec<Json>,
    /// The topmost owners that this version knows: Deployments, StatefulSets, DaemonSets, Jobs, CronJobs, …
    pub workloads: Vec<Json>,
    /// Pods without a controller.
    pub bare: Vec<Json>,
    /// Owners of kinds that we know nothing about, as `Kind:ns/name`.
    pub foreign: Vec<String>,
}

/// Claims that must be cut over together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The first claim as `ns/name`.
    pub key: String,
    pub namespace: String,
    pub claims: Vec<Json>,
    pub workloads: Vec<Json>,
    pub pods: Vec<Json>,
    pub bare: Vec<Json>,
    pub foreign: Vec<String>,
}

/// Finds who uses a claim.
pub fn users_of(claim: &PvcRef, all: &Population) -> Users {
    let mut users = Users::default();
    let mut seen = BTreeSet::new();
    let in_namespace = |object: &&Json| text(object, "/metadata/namespace") == claim.namespace;
    for pod in all.pods.iter().filter(in_namespace) {
        if !workload::claims_of_spec(&pod["spec"]).contains(&claim.name.as_str()) {
            continue;
        }
        users.pods.push(pod.clone());
        if ours(pod) {
            continue;
        }
        match top_owner(pod, all) {
            Top::Workload(owner) => {
                if seen.insert(uid(owner).to_owned()) {
                    users.workloads.push(owner.clone());
                }
            }
            Top::None => users.bare.push(pod.clone()),
            // The workload in between is found by its template.
            Top::Foreign(name, _) => users.foreign.push(name),
        }
    }
    for object in all.templated.iter().filter(in_namespace).filter(|object| names_claim(object, &claim.name)) {
        let top = match top_owner(object, all) {
            Top::Workload(owner) => owner,
            Top::None => object,
            Top::Foreign(name, workload) => {
                users.foreign.push(name);
                workload.unwrap_or(object)
            }
        };
        if seen.insert(uid(top).to_owned()) {
            users.workloads.push(top.clone());
        }
    }
    users.workloads.sort_by_key(workload::reference);
    users.foreign.sort();
    users.foreign.dedup();
    users
}

/// Pods that some run of ours made.
pub fn ours(pod: &Json) -> bool {
    !text(pod, "/metadata/labels/pvmigrate.io~1run").is_empty()
}

enum Top<'a> {
    Workload(&'a Json),
    None,
    /// Its name, and the topmost workload below it, if one is above the object.
    Foreign(String, Option<&'a Json>),
}

fn top_owner<'a>(object: &Json, all: &'a Population) -> Top<'a> {
    let Some(owner) = controller(object) else {
        return Top::None;
    };
    let owner_uid = text(owner, "/uid");
    match all.templated.iter().find(|candidate| uid(candidate) == owner_uid) {
        Some(found) => match top_owner(found, all) {
            Top::None => Top::Workload(found),
            Top::Foreign(name, above) => Top::Foreign(name, above.or(Some(found))),
            workload @ Top::Workload(_) => workload,
        },
        None => Top::Foreign(
            ObjectRef::new(text(owner, "/kind"), text(object, "/metadata/namespace"), text(owner, "/name")).to_string(),
            None,
        ),
    }
}

/// Groups claims into units, sorted by key.
pub fn units(claims: &[Json], all: &Population) -> Vec<Unit> {
    let users: Vec<Users> = claims.iter().map(|claim| users_of(&Pvc(claim).reference(), all)).collect();
    // A claim joins the group of the first claim that shares a user with it.
    let mut group: Vec<usize> = (0..claims.len()).collect();
    let mut by_user: BTreeMap<String, usize> = BTreeMap::new();
    for (index, users) in users.iter().enumerate() {
        for user in
            users.workloads.iter().chain(&users.bare).map(|object| uid(object).to_owned()).chain(users.foreign.clone())
        {
            let first = *by_user.entry(user).or_insert(index);
            let (a, b) = (root(&group, first), root(&group, index));
            group[a.max(b)] = a.min(b);
        }
    }
    let mut units: BTreeMap<usize, Unit> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        let unit = units.entry(root(&group, index)).or_insert_with(|| Unit {
            key: String::new(),
            namespace: Pvc(claim).namespace().to_owned(),
            claims: Vec::new(),
            workloads: Vec::new(),
            pods: Vec::new(),
            bare: Vec::new(),
            foreign: Vec::new(),
        });
        unit.claims.push(claim.clone());
        merge(&mut unit.workloads, &users[index].workloads);
        merge(&mut unit.pods, &users[index].pods);
        merge(&mut unit.bare, &users[index].bare);
        unit.foreign.extend(users[index].foreign.clone());
    }
    let mut units: Vec<Unit> = units.into_values().collect();
    for unit in &mut units {
        unit.claims.sort_by_key(|claim| Pvc(claim).reference());
        unit.workloads.sort_by_key(workload::reference);
        unit.foreign.sort();
        unit.foreign.dedup();
        unit.key = unit.claims.first().map(|claim| Pvc(claim).reference().to_string()).unwrap_or_default();
    }
    units.sort_by(|a, b| a.key.cmp(&b.key));
    units
}

fn root(group: &[usize], mut index: usize) -> usize {
    while group[index] != index {
        index = group[index];
    }
    index
}

fn merge(into: &mut Vec<Json>, from: &[Json]) {
    for object in from {
        if !into.iter().any(|have| uid(have) == uid(object)) {
            into.push(object.clone());
        }
    }
}

impl Cluster {
    /// Reads everything in these namespaces that may use a claim.
    ///
    /// # Errors
    /// If any list fails: half a picture would hide a user.
    pub async fn population(&self, namespaces: &BTreeSet<String>) -> Result<Population, Problem> {
        let mut all = Population::default();
        // Few namespaces are asked one by one, many with one question.
        let places: Vec<String> =
            if namespaces.len() > 4 { vec![String::new()] } else { namespaces.iter().cloned().collect() };
        for place in &places {
            let doing = "see who uses the claims";
            all.pods.extend(self.list_all(&known("Pod"), place).await.map_err(|e| e.problem(doing, None))?);
            for (kind, _) in TEMPLATED {
                // With its group, so that a server that cannot be asked is an error and not a kind that nobody has.
                let kind = if kind == "CronJob" { "CronJob.batch" } else { kind };
                if let Some(resource) = self.find_resource(kind).await? {
                    all.templated.extend(self.list_all(&resource, place).await.map_err(|e| e.problem(doing, None))?);
                }
            }
            if let Some(resource) = self.find_resource("HorizontalPodAutoscaler.autoscaling").await? {
                all.autoscalers.extend(self.list_all(&resource, place).await.map_err(|e| e.problem(doing, None))?);
            }
            if let Some(resource) = self.find_resource("ScaledObject.keda.sh").await? {
                all.autoscalers.extend(self.list_all(&resource, place).await.map_err(|e| e.problem(doing, None))?);
            }
        }
        if let Some(resource) = self.find_resource("Application.argoproj.io").await? {
            let doing = "see what Argo CD manages";
            all.applications = self.list_all(&resource, "").await.map_err(|e| e.problem(doing, None))?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(name: &str) -> Json {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop", "uid": name}})
    }

    fn pod(name: &str, owner: Option<(&str, &str)>, claims: &[&str]) -> Json {
        let volumes: Vec<Json> =
            claims.iter().map(|claim| json!({"persistentVolumeClaim": {"claimName": claim}})).collect();
        let mut pod = json!({"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"volumes": volumes}});
        if let Some((kind, owner)) = owner {
            pod["metadata"]["ownerReferences"] =
                json!([{"kind": kind, "name": owner, "uid": owner, "controller": true}]);
        }
        pod
    }

    fn deployment(name: &str, claims: &[&str]) -> Json {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"template": pod("", None, claims)}})
    }

    fn replica_set(name: &str, owner: &str, claims: &[&str]) -> Json {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "shop", "uid": name,
            "ownerReferences": [{"kind": "Deployment", "name": owner, "uid": owner, "controller": true}]},
            "spec": {"template": pod("", None, claims)}})
    }

    #[test]
    fn shared_claims_and_shared_workloads_make_one_unit() {
        let all = Population {
            pods: vec![pod("web-1", Some(("ReplicaSet", "web-rs")), &["data", "logs"]), pod("lone", None, &["other"])],
            templated: vec![
                deployment("web", &["data", "logs"]),
                replica_set("web-rs", "web", &["data", "logs"]),
                deployment("report", &["logs", "archive"]),
                deployment("else", &["cache"]),
            ],
            ..Population::default()
        };
        let claims: Vec<Json> = ["archive", "cache", "data", "logs", "other", "unused"].map(claim).into();
        let made = units(&claims, &all);
        let names = |objects: &[Json]| objects.iter().map(|o| text(o, "/metadata/name").to_owned()).collect::<Vec<_>>();
        let picture: Vec<_> = made
            .iter()
            .map(|unit| (unit.key.as_str(), names(&unit.claims), names(&unit.workloads), names(&unit.bare)))
            .collect();
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            picture,
            vec![
                ("shop/archive", strings(&["archive", "data", "logs"]), strings(&["report", "web"]), strings(&[])),
                ("shop/cache", strings(&["cache"]), strings(&["else"]), strings(&[])),
                ("shop/other", strings(&["other"]), strings(&[]), strings(&["lone"])),
                ("shop/unused", strings(&["unused"]), strings(&[]), strings(&[])),
            ]
        );
    }

    #[test]
    fn an_owner_of_an_unknown_kind_is_named() {
        let all = Population { pods: vec![pod("pg-1", Some(("Postgres", "pg")), &["data"])], ..Population::default() };
        let users = users_of(&PvcRef::new("shop", "data"), &all);
        assert_eq!(users.foreign, vec!["Postgres:shop/pg"]);
        // A workload of ours that an operator made is the operator's.
        let mut set = deployment("pg", &["data"]);
        set["metadata"]["ownerReferences"] =
            json!([{"kind": "Postgres", "name": "pg", "uid": "x", "controller": true}]);
        let templated = vec![set, replica_set("pg-1", "pg", &["data"])];
        let all = Population { templated, ..Population::default() };
        let users = users_of(&PvcRef::new("shop", "data"), &all);
        let kinds: Vec<&str> = users.workloads.iter().map(|object| text(object, "/kind")).collect();
        assert_eq!((kinds, users.foreign), (vec!["Deployment"], vec!["Postgres:shop/pg".to_owned()]));
    }

    #[test]
    fn our_own_pods_are_not_users() {
        let mut copy = pod("pvmigrate-copy", None, &["data"]);
        copy["metadata"]["labels"] = json!({"pvmigrate.io/run": "0123abcd"});
        let users = users_of(&PvcRef::new("shop", "data"), &Population { pods: vec![copy], ..Population::default() });
        assert_eq!((users.pods.len(), users.bare.len()), (1, 0));
    }
}
