//! Admission: what a request meets besides the rules of its own kind, because of other objects.
//!
//! Not the rules of a kind (`rules`), and not who may do what (`access`). Called by `handle` on every write: `mutate`
//! before `prepare` and `validate`, `check` after them. What must stay true: the order of the real server.

mod limit_ranger;
pub mod quota;

use super::kind::Kind;
use super::quantity::Quantity;
use super::rules::field::{fill, is_empty, set, sub};
use super::status::Status;
use super::store::{State, list_of, text};
use serde_json::{Value, json};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

const PROTECTED: [&str; 3] = ["default", "kube-system", "kube-public"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Both halves at once, for callers that have nothing to do between them.
pub fn admit(
    state: &State,
    kind: &'static Kind,
    operation: Operation,
    namespace: &str,
    object: &mut Value,
    old: Option<&Value>,
    user: &str,
) -> Result<(), Status> {
    mutate(state, kind, operation, namespace, object, old, user)?;
    check(state, kind, operation, namespace, object, old)
}

/// The first half, before `prepare` and `validate`: refuses what has no place and adds what others decide.
pub fn mutate(
    state: &State,
    kind: &'static Kind,
    operation: Operation,
    namespace: &str,
    object: &mut Value,
    _old: Option<&Value>,
    _user: &str,
) -> Result<(), Status> {
    namespace_lifecycle(state, kind, operation, namespace, object)?;
    match (kind.kind, operation) {
        ("Pod", Operation::Create) => {
            limit_ranger::mutate(state, namespace, object);
            service_account(state, kind, namespace, object)?;
            priority(kind, object)?;
            default_tolerations(object);
        }
        ("Pod", Operation::Update) => default_tolerations(object),
        ("PersistentVolumeClaim", Operation::Create) => {
            default_class(state, kind, object)?;
            add_finalizer(object, "kubernetes.io/pvc-protection");
        }
        ("Node", Operation::Create) => taint_until_ready(object),
        ("PersistentVolume", Operation::Create) => add_finalizer(object, "kubernetes.io/pv-protection"),
        _ => {}
    }
    Ok(())
}

/// The second half, after `validate`: refuses what is right by itself but too much.
pub fn check(
    state: &State,
    kind: &'static Kind,
    operation: Operation,
    namespace: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    limit_ranger::check(state, kind, operation, namespace, object)?;
    if let (true, Operation::Update, Some(old)) = (kind.kind == "PersistentVolumeClaim", operation, old) {
        resize(state, kind, object, old)?;
    }
    match operation {
        Operation::Delete => Ok(()),
        _ => quota::check(state, kind, operation, namespace, object, old),
    }
}

/// As admission names an object in its refusals: its name may not be made yet.
fn name_of(object: &Value) -> &str {
    let meta = &object["metadata"];
    match (text(&meta["name"]), text(&meta["generateName"])) {
        ("", "") => "Unknown",
        ("", base) => base,
        (name, _) => name,
    }
}

fn forbidden(kind: &Kind, object: &Value, why: impl std::fmt::Display) -> Status {
    Status::forbidden(kind, name_of(object), why)
}

fn namespace_lifecycle(
    state: &State,
    kind: &'static Kind,
    operation: Operation,
    namespace: &str,
    object: &Value,
) -> Result<(), Status> {
    let name = text(&object["metadata"]["name"]);
    if kind.kind == "Namespace" && operation == Operation::Delete && PROTECTED.contains(&name) {
        return Err(Status::forbidden(kind, name, "this namespace may not be deleted"));
    }
    if !kind.namespaced || operation != Operation::Create {
        return Ok(());
    }
    let Some(home) = state.get("Namespace", "", namespace) else {
        return Err(Status::not_found(super::kind::kind("Namespace"), namespace));
    };
    if home["status"]["phase"] != "Terminating" && home["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = forbidden(kind, object, why);
    if let Some(details) = &mut status.details {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    Err(status)
}

/// Tokens are not mounted: nothing in the lab's pods talks to the API.
fn service_account(state: &State, kind: &Kind, namespace: &str, pod: &mut Value) -> Result<(), Status> {
    let spec = sub(pod, "spec");
    if is_empty(&spec["serviceAccountName"]) {
        set(spec, "serviceAccountName", "default");
    }
    let account = text(&spec["serviceAccountName"]).to_owned();
    set(spec, "serviceAccount", account.clone());
    let Some(found) = state.get("ServiceAccount", namespace, &account) else {
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        return Err(forbidden(kind, pod, why));
    };
    if is_empty(&spec["imagePullSecrets"]) && !is_empty(&found["imagePullSecrets"]) {
        set(spec, "imagePullSecrets", found["imagePullSecrets"].clone());
    }
    Ok(())
}

/// There are no priority classes: every pod is as important as any other.
fn priority(kind: &Kind, pod: &mut Value) -> Result<(), Status> {
    if let Some(wanted) = pod["spec"]["priority"].as_i64().filter(|wanted| *wanted != 0) {
        let why = format!(
            "the integer value of priority ({wanted}) must not be provided in pod spec; priority admission controller \
             computed 0 from the given PriorityClass name"
        );
        return Err(forbidden(kind, pod, why));
    }
    let spec = sub(pod, "spec");
    fill(spec, "priority", 0);
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

/// Pods stay five minutes on a node that is lost, unless they say otherwise.
fn default_tolerations(pod: &mut Value) {
    let spec = sub(pod, "spec");
    let mut all = list_of(&spec["tolerations"]).to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = all.iter().any(|one| {
            let (own, effect) = (text(&one["key"]), text(&one["effect"]));
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerates {
            all.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    if !all.is_empty() {
        set(spec, "tolerations", all);
    }
}

/// Whether a class is marked as the default one.
pub fn is_default_class(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|key| annotations[*key] == "true")
}

/// The class of a claim or volume: the old annotation wins over the field.
pub fn class_of(object: &Value) -> &str {
    match text(&object["metadata"]["annotations"][CLASS_ANNOTATION]) {
        "" => text(&object["spec"]["storageClassName"]),
        class => class,
    }
}

fn default_class(state: &State, kind: &Kind, claim: &mut Value) -> Result<(), Status> {
    let said =
        !claim["spec"]["storageClassName"].is_null() || !claim["metadata"]["annotations"][CLASS_ANNOTATION].is_null();
    if said {
        return Ok(());
    }
    let defaults: Vec<&str> = state
        .list("StorageClass", "")
        .filter(|(_, class)| is_default_class(class))
        .map(|(key, _)| key.name.as_str())
        .collect();
    match defaults[..] {
        [] => Ok(()),
        [only] => {
            let only = only.to_owned();
            set(sub(claim, "spec"), "storageClassName", only);
            Ok(())
        }
        _ => {
            let why = format!("Internal error occurred: {} default StorageClasses were found", defaults.len());
            Err(forbidden(kind, claim, why))
        }
    }
}

/// A node that has just come is not ready: nothing is assigned to it until it says that it is.
fn taint_until_ready(node: &mut Value) {
    const KEY: &str = "node.kubernetes.io/not-ready";
    let spec = sub(node, "spec");
    let mut all = list_of(&spec["taints"]).to_vec();
    if !all.iter().any(|taint| taint["key"] == KEY && taint["effect"] == "NoSchedule") {
        all.push(json!({"key": KEY, "effect": "NoSchedule"}));
        set(spec, "taints", all);
    }
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = sub(object, "metadata");
    let mut all = list_of(&metadata["finalizers"]).to_vec();
    if !all.contains(&finalizer.into()) {
        all.push(finalizer.into());
        set(metadata, "finalizers", all);
    }
}

fn resize(state: &State, kind: &Kind, claim: &Value, old: &Value) -> Result<(), Status> {
    let size = |claim: &Value| Quantity::of(&claim["spec"]["resources"]["requests"]["storage"]);
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(forbidden(kind, claim, "Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(claim);
    let grows = !class.is_empty()
        && class == class_of(old)
        && state.get("StorageClass", "", class).is_some_and(|class| class["allowVolumeExpansion"] == true);
    if grows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(forbidden(kind, claim, why))
}

#[cfg(test)]
mod tests;
