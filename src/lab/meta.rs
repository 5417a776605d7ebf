//! What every object's metadata may say, and the texts with which the real server refuses the rest.
//!
//! Not the kinds' own fields (`rules`). Called by `handle`: `validate` on create and update, `validate_update` on
//! update besides. The real server says some causes of an update twice or four times; here each is said once.

use super::kind::Kind;
pub use super::names::{dns1123_label, dns1123_subdomain, label_value, path_segment, qualified_name};
use super::rules::field::{entries, go_list, immutable, invalid_go, is_empty, need, not_negative, wrong};
use super::status::Cause;
use super::store::{list_of, text};
use serde_json::Value;

const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// What is wrong with the name of an object of this kind.
fn name_problems(kind: &Kind, name: &str) -> Vec<String> {
    match kind.kind {
        "Namespace" => dns1123_label(name),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => path_segment(name),
        _ => dns1123_subdomain(name),
    }
}

/// Leaves out what is empty, as the real server does.
pub fn tidy(object: &mut Value) {
    let keys =
        ["labels", "annotations", "finalizers", "ownerReferences", "generateName", "selfLink", "managedFields", "uid"];
    let metadata = super::rules::field::sub(object, "metadata");
    super::rules::field::drop_nulls(metadata);
    super::rules::field::drop_empty(metadata, &keys);
}

/// All of it, of a new or changed object. The name is the one after generation.
pub fn validate(kind: &Kind, object: &Value) -> Vec<Cause> {
    let meta = &object["metadata"];
    let mut causes = Vec::new();
    let base = text(&meta["generateName"]);
    if !base.is_empty() {
        // A base may end in a dash: a letter stands for what will follow.
        let masked = match base.strip_suffix('-') {
            Some(rest) if !rest.is_empty() => format!("{rest}a"),
            _ => base.to_owned(),
        };
        causes.extend(wrong("metadata.generateName", base, &name_problems(kind, &masked)));
    }
    let name = text(&meta["name"]);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        causes.extend(wrong("metadata.name", name, &name_problems(kind, name)));
    }
    let namespace = text(&meta["namespace"]);
    if kind.namespaced {
        if namespace.is_empty() {
            causes.push(Cause::required("metadata.namespace", ""));
        } else {
            causes.extend(wrong("metadata.namespace", namespace, &dns1123_label(namespace)));
        }
    } else if !namespace.is_empty() {
        causes.push(Cause::forbidden("metadata.namespace", "not allowed on this type"));
    }
    not_negative("metadata.generation", &meta["generation"], &mut causes);
    causes.extend(labels("metadata.labels", &meta["labels"]));
    causes.extend(annotations("metadata.annotations", &meta["annotations"]));
    causes.extend(owners(&meta["ownerReferences"]));
    causes.extend(finalizers(&meta["finalizers"]));
    causes
}

/// What may not change.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let mut causes = Vec::new();
    if !old["deletionTimestamp"].is_null() {
        let before = list_of(&old["finalizers"]);
        let more: Vec<Value> =
            list_of(&new["finalizers"]).iter().filter(|one| !before.contains(one)).cloned().collect();
        if !more.is_empty() {
            let shown = go_list(&more.into());
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers {shown}"),
            ));
        }
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "clusterName",
    ] {
        if new[key] == old[key] || (is_empty(&new[key]) && is_empty(&old[key])) {
            continue;
        }
        let field = format!("metadata.{key}");
        causes.push(match key {
            "creationTimestamp" | "deletionTimestamp" => invalid_go(&field, &go_time(&new[key]), "field is immutable"),
            "deletionGracePeriodSeconds" if new[key].is_null() => invalid_go(&field, "\"null\"", "field is immutable"),
            _ => immutable(&field, &new[key]),
        });
    }
    causes
}

/// `2020-01-01 00:00:00 +0000 UTC`.
fn go_time(value: &Value) -> String {
    match value.as_str() {
        Some(time) => format!("{} +0000 UTC", time.trim_end_matches('Z').replace('T', " ")),
        None => "\"null\"".into(),
    }
}

/// Labels of an object or a template.
pub fn labels(field: &str, labels: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in entries(labels) {
        causes.extend(wrong(field, key, &qualified_name(key)));
        causes.extend(wrong(field, text(value), &label_value(text(value))));
    }
    causes
}

/// Annotations of an object or a template.
pub fn annotations(field: &str, annotations: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bytes = 0;
    for (key, value) in entries(annotations) {
        causes.extend(wrong(field, key, &qualified_name(&key.to_lowercase())));
        bytes += key.len() + text(value).len();
    }
    if bytes > ANNOTATIONS_BYTES {
        causes.push(too_long(field, ANNOTATIONS_BYTES));
    }
    causes
}

/// More bytes than there may be.
pub fn too_long(field: &str, most: usize) -> Cause {
    Cause {
        reason: "FieldValueTooLong",
        message: format!("Too long: must have at most {most} bytes"),
        field: field.to_owned(),
    }
}

fn owners(owners: &Value) -> Vec<Cause> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut causes = Vec::new();
    let mut controller: Option<&str> = None;
    for owner in list_of(owners) {
        let api_version = text(&owner["apiVersion"]);
        let version = match api_version.split('/').collect::<Vec<_>>()[..] {
            [version] | [_, version] => version,
            _ => "",
        };
        if version.is_empty() {
            causes.push(empty(&format!("{FIELD}.apiVersion"), &owner["apiVersion"], "version"));
        }
        for key in ["kind", "name", "uid"] {
            if is_empty(&owner[key]) {
                causes.push(empty(&format!("{FIELD}.{key}"), &owner[key], key));
            }
        }
        if api_version == "v1" && owner["kind"] == "Event" {
            causes.push(invalid_go(FIELD, &go_owner(owner), "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] != true {
            continue;
        }
        let name = text(&owner["name"]);
        match controller {
            None => controller = Some(name),
            Some(first) => {
                let all: Vec<String> = list_of(owners).iter().map(go_owner).collect();
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {name}"
                );
                causes.push(invalid_go(FIELD, &format!("[]v1.OwnerReference{{{}}}", all.join(", ")), &why));
            }
        }
    }
    causes
}

fn empty(field: &str, value: &Value, what: &str) -> Cause {
    Cause::invalid(field, &text(value).into(), &format!("{what} must not be empty"))
}

fn go_owner(owner: &Value) -> String {
    let pointer = |value: &Value| if value.is_null() { "(*bool)(nil)" } else { "(*bool)(0xc000000000)" };
    format!(
        "v1.OwnerReference{{APIVersion:\"{}\", Kind:\"{}\", Name:\"{}\", UID:\"{}\", Controller:{}, \
         BlockOwnerDeletion:{}}}",
        text(&owner["apiVersion"]),
        text(&owner["kind"]),
        text(&owner["name"]),
        text(&owner["uid"]),
        pointer(&owner["controller"]),
        pointer(&owner["blockOwnerDeletion"])
    )
}

/// Names of finalizers. The real server checks their form first, then that each is qualified or one of the known.
fn finalizers(finalizers: &Value) -> Vec<Cause> {
    const FIELD: &str = "metadata.finalizers";
    let names: Vec<&str> = list_of(finalizers).iter().map(text).collect();
    let mut causes = Vec::new();
    for name in &names {
        causes.extend(wrong(FIELD, name, &qualified_name(name)));
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(invalid_go(FIELD, &go_list(finalizers), why));
    }
    for (at, name) in names.iter().enumerate() {
        if !is_known_finalizer(name) {
            causes.push(unqualified(&format!("{FIELD}[{at}]"), name));
        }
    }
    causes
}

/// One of Kubernetes' own, or with a prefix.
pub fn is_known_finalizer(name: &str) -> bool {
    name.contains('/') || ["kubernetes", "orphan", "foregroundDeletion"].contains(&name)
}

pub fn unqualified(field: &str, name: &str) -> Cause {
    Cause::invalid(field, &name.into(), "name is neither a standard finalizer name nor is it fully qualified")
}

/// A label that a template must have.
pub fn has_label(field: &str, labels: &Value, key: &str, expected: &str, causes: &mut Vec<Cause>) {
    let field = format!("{field}.labels[{key}]");
    match labels[key].as_str() {
        None => {
            causes.push(Cause::required(field, &format!("must be '{expected}'")));
        }
        Some(found) if found != expected => {
            causes.push(Cause::invalid(field, &found.into(), &format!("must be '{expected}'")));
        }
        Some(_) => {}
    }
}

/// A field that must name something by a subdomain.
pub fn need_subdomain(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if need(field, value, causes) {
        causes.extend(wrong(field, text(value), &dns1123_subdomain(text(value))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::kind::kind;
    use serde_json::json;

    fn fields(causes: &[Cause]) -> Vec<&str> {
        causes.iter().map(|one| one.field.as_str()).collect()
    }

    #[test]
    fn names_fit_their_kind() {
        let wrong = |name: &str, object: &str| {
            let meta = json!({"metadata": {"name": object, "namespace": "shop"}});
            let mut meta = meta;
            if !kind(name).namespaced {
                super::super::rules::field::drop_key(&mut meta["metadata"], "namespace");
            }
            !validate(kind(name), &meta).is_empty()
        };
        for (name, object, expected) in [
            ("Namespace", "shop", false),
            ("Namespace", "a.b", true),
            ("ConfigMap", "a.b", false),
            ("ConfigMap", "A", true),
            ("ConfigMap", "a-", true),
            ("ConfigMap", "a..b", true),
            ("Role", "system:a", false),
            ("Role", "a/b", true),
        ] {
            assert_eq!(wrong(name, object), expected, "{name} {object}");
        }
        assert!(wrong("ConfigMap", &"x".repeat(254)) && !wrong("ConfigMap", &"x".repeat(253)));
        assert!(wrong("Namespace", &"x".repeat(64)) && !wrong("Namespace", &"x".repeat(63)));
    }

    #[test]
    fn a_base_for_names_may_end_in_a_dash() {
        let of = |base: &str| {
            let object = json!({"metadata": {"generateName": base, "name": "x", "namespace": "shop"}});
            fields(&validate(kind("Pod"), &object)).join(" ")
        };
        assert_eq!((of("web-").as_str(), of("A_").as_str()), ("", "metadata.generateName"));
        let nameless = validate(kind("ConfigMap"), &json!({"metadata": {"namespace": "shop"}}));
        assert_eq!(nameless[0].message, "Required value: name or generateName is required");
    }

    #[test]
    fn what_goes_gets_no_new_finalizer() {
        let old = json!({"metadata": {"finalizers": ["y.io/f"], "deletionTimestamp": "2026-11-21T00:00:00Z"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["y.io/f", "y.io/g"]);
        assert_eq!(
            validate_update(&new, &old)[0].message,
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{\"y.io/g\"}"
        );
        new["metadata"]["finalizers"] = json!([]);
        assert_eq!(validate_update(&new, &old), []);
    }

    #[test]
    fn annotations_have_a_size() {
        let of = |bytes: usize| fields(&annotations("f", &json!({"a": "x".repeat(bytes)}))).len();
        assert_eq!((of(ANNOTATIONS_BYTES - 1), of(ANNOTATIONS_BYTES)), (0, 1));
    }
}
