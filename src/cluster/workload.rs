//! What runs pods: owner chains, the claims that a template names, stopping and starting.

use super::{REPLICAS, RUN, STEP, text, uid};
use crate::journal::{Class, Gvk, Precondition, Verb, Write};
use crate::words::{Json, Kind, ObjectRef, Problem, RunId};
use serde_json::json;

/// Kinds with a pod template, and where it is.
pub const TEMPLATED: [(&str, &str); 7] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// True if this version can stop and start the kind.
pub fn is_scalable(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet")
}

/// `apps/v1`-style group and version of an object.
pub fn gvk_of(object: &Json) -> Gvk {
    let api = text(object, "/apiVersion");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    Gvk { group: group.into(), version: version.into(), kind: text(object, "/kind").into() }
}

pub fn reference(object: &Json) -> ObjectRef {
    ObjectRef::new(text(object, "/kind"), text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

/// The owner that controls an object.
pub fn controller(object: &Json) -> Option<&Json> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == json!(true))
}

/// Replicas as declared; the default is 1.
pub fn replicas(object: &Json) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

pub fn ready_replicas(object: &Json) -> i64 {
    object["status"]["readyReplicas"].as_i64().unwrap_or(0)
}

/// The claims that a pod spec names, with the names of generic ephemeral volumes left out.
pub fn claims_of_spec(spec: &Json) -> Vec<&str> {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str()).collect()
}

/// The pod template of an object, if its kind has one.
pub fn template(object: &Json) -> Option<&Json> {
    let kind = text(object, "/kind");
    TEMPLATED.iter().find(|(known, _)| *known == kind).and_then(|(_, path)| object.pointer(path))
}

/// True if pods of this object use the claim: by its template, or by the claim templates of a StatefulSet, whatever
/// the number of its pods is now.
pub fn names_claim(object: &Json, claim: &str) -> bool {
    let by_template = template(object).is_some_and(|t| claims_of_spec(&t["spec"]).contains(&claim));
    by_template || statefulset_claim(object, claim).is_some()
}

/// The ordinal of the pod whose claim this is, if it follows a claim template of this StatefulSet.
pub fn statefulset_claim(object: &Json, claim: &str) -> Option<u64> {
    if text(object, "/kind") != "StatefulSet" {
        return None;
    }
    let set = text(object, "/metadata/name");
    object["spec"]["volumeClaimTemplates"].as_array()?.iter().find_map(|template| {
        let prefix = format!("{}-{set}-", text(template, "/metadata/name"));
        let ordinal = claim.strip_prefix(&prefix)?;
        // `007` is not an ordinal that the controller would write.
        ordinal.parse().ok().filter(|number: &u64| number.to_string() == ordinal)
    })
}

/// True if the pod is one of the workload's own: by its controller, for Deployments through a ReplicaSet.
pub fn owns_pod(workload: &Json, pod: &Json, replica_sets: &[Json]) -> bool {
    let owner_uid = controller(pod).map_or("", |owner| text(owner, "/uid"));
    if owner_uid.is_empty() {
        return false;
    }
    owner_uid == uid(workload)
        || replica_sets.iter().any(|set| {
            uid(set) == owner_uid && controller(set).is_some_and(|owner| text(owner, "/uid") == uid(workload))
        })
}

/// The label selector as a query.
pub fn selector(workload: &Json) -> String {
    let mut parts = Vec::new();
    for (key, value) in workload["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for rule in workload["spec"]["selector"]["matchExpressions"].as_array().into_iter().flatten() {
        let values: Vec<&str> = rule["values"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let (key, list) = (text(rule, "/key"), values.join(","));
        match text(rule, "/operator") {
            "In" => parts.push(format!("{key} in ({list})")),
            "NotIn" => parts.push(format!("{key} notin ({list})")),
            "Exists" => parts.push(key.to_owned()),
            _ => parts.push(format!("!{key}")),
        }
    }
    parts.join(",")
}

/// Plans stopping: no replicas, and how many there were noted on the object itself, in one write.
pub fn plan_stop(workload: &Json) -> Write {
    let was = replicas(workload);
    let inverse = json!({"metadata": {"annotations": unmarked()}, "spec": {"replicas": was}});
    Write {
        inverse: vec![patch(workload, inverse)],
        ..patch(workload, json!({"metadata": {"annotations": {REPLICAS: was.to_string()}}, "spec": {"replicas": 0}}))
    }
}

/// Plans starting: the replicas from before, our notes gone.
pub fn plan_start(workload: &Json, was: i64) -> Write {
    patch(workload, json!({"metadata": {"annotations": unmarked()}, "spec": {"replicas": was}}))
}

/// Plans any other number of replicas; nothing is noted on the object.
pub fn plan_scale(workload: &Json, to: i64) -> Write {
    let was = replicas(workload);
    Write {
        inverse: vec![patch(workload, json!({"spec": {"replicas": was}}))],
        ..patch(workload, json!({"spec": {"replicas": to}}))
    }
}

/// Plans taking our notes off an object that a controller copied them to.
pub fn plan_clean(object: &Json) -> Write {
    patch(object, json!({"metadata": {"annotations": unmarked()}}))
}

/// The other run that has a workload in its hands, if one does. What a Deployment's ReplicaSets carry is a copy.
pub fn other_holder<'a>(object: &'a Json, run: &RunId) -> Option<&'a str> {
    let holder = text(object, "/metadata/annotations/pvmigrate.io~1run");
    let is_held = is_scalable(text(object, "/kind")) && !holder.is_empty() && holder != run.as_str();
    is_held.then_some(holder)
}

/// Why nothing is done to it.
pub fn in_other_hands(object: &Json, holder: &str) -> Problem {
    let object = reference(object);
    Problem::new(Kind::Conflict, format!("{object} is in the hands of run {holder}"))
        .object(&object)
        .hint(format!("end that run first: pvmigrate resume {holder}, or pvmigrate rollback {holder}"))
}

pub fn is_marked(object: &Json) -> bool {
    object["metadata"]["annotations"]
        .as_object()
        .is_some_and(|map| map.keys().any(|key| key.starts_with("pvmigrate.io/")))
}

fn unmarked() -> Json {
    json!({REPLICAS: null, RUN: null, STEP: null})
}

fn patch(object: &Json, body: Json) -> Write {
    Write {
        verb: Verb::Patch,
        gvk: gvk_of(object),
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        body,
        precondition: Precondition::Uid(uid(object).to_owned()),
        inverse: Vec::new(),
        class: Class::Reversible,
    }
}

/// Reports whether a rollout is complete and every replica Ready; `Err` says what is missing.
pub fn is_ready(workload: &Json) -> Result<(), String> {
    let want = replicas(workload);
    let status = &workload["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if status["observedGeneration"].as_i64() < workload["metadata"]["generation"].as_i64() {
        return Err("its controller has not seen the change yet".into());
    }
    if ready_replicas(workload) < want || count("replicas") != want {
        return Err(format!("{} of {want} replicas ready, {} there", ready_replicas(workload), count("replicas")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> Json {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "shop", "uid": "s"},
            "spec": {"replicas": 2, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
                "template": {"spec": {"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "logs"}}]}}}})
    }

    #[test]
    fn a_statefulset_owns_the_claims_of_all_its_ordinals() {
        for (claim, is) in [
            ("data-db-0", true),
            ("data-db-17", true),
            ("logs", true),
            ("data-db-007", false),
            ("data-db-", false),
            ("data-db", false),
            ("data-dbx-0", false),
            ("x-data-db-0", false),
        ] {
            assert_eq!(names_claim(&db(), claim), is, "{claim}");
        }
    }

    #[test]
    fn stopping_notes_the_replicas_and_starting_takes_the_note_away() {
        let stop = plan_stop(&db());
        assert_eq!(
            stop.body,
            json!({"metadata": {"annotations": {"pvmigrate.io/replicas": "2"}}, "spec": {"replicas": 0}})
        );
        assert_eq!(stop.inverse[0].body, plan_start(&db(), 2).body);
    }

    #[test]
    fn a_pod_belongs_to_the_uid_not_to_the_name() {
        let pod = |owner: &str| json!({"metadata": {"ownerReferences": [{"uid": owner, "controller": true}]}});
        let set = json!({"metadata": {"uid": "rs", "ownerReferences": [{"uid": "s", "controller": true}]}});
        assert!(owns_pod(&db(), &pod("s"), &[]));
        assert!(owns_pod(&db(), &pod("rs"), std::slice::from_ref(&set)));
        assert!(!owns_pod(&db(), &pod("other"), std::slice::from_ref(&set)));
        assert!(!owns_pod(&db(), &json!({"metadata": {}}), &[set]));
    }

    #[test]
    fn selectors_are_written_as_queries() {
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector(&workload), "app=web,tier in (a,b),!old");
    }
}
