//! Any other object. These pass the same guards as everything else.

use super::{Args, Effect, Param, Primitive, Type, option, param};
use crate::cluster::{text, uid};
use crate::journal::{Class, Precondition, Verb, Write};
use crate::script::enter::Step;
use crate::words::{Json, ObjectRef, Problem, names};
use serde_json::json;

const LIST_OPTIONS: &[Param] = &[
    option("namespace", Type::Text, "only objects of this namespace"),
    option("selector", Type::Text, "only objects with these labels"),
];
const NAMED: &[Param] = &[param("kind", Type::Text), param("namespace", Type::Text), param("name", Type::Text)];

pub const TABLE: &[Primitive] = &[
    Primitive {
        name: "get_object",
        params: NAMED,
        options: &[],
        returns: "object",
        doc: "Returns any object, which must exist. The namespace of cluster-scoped kinds is \"\". Kinds outside the core are written \
              with their group if need be: `Kind.group`.",
        example: r#"get_object("Deployment", "shop", "web").replicas == 1"#,
        effect: Effect::Read,
        rights: &[("get", "*", "*")],
        run: |step, args| Box::pin(get_object(step, args)),
    },
    Primitive {
        name: "find_object",
        params: NAMED,
        options: &[],
        returns: "object or ()",
        doc: "Returns any object, or () if there is none, or its kind is not served.",
        example: "find_object(\"ConfigMap\", \"shop\", \"no-such-map\") == ()",
        effect: Effect::Read,
        rights: &[("get", "*", "*")],
        run: |step, args| Box::pin(find_object(step, args)),
    },
    Primitive {
        name: "list_objects",
        params: &[param("kind", Type::Text)],
        options: LIST_OPTIONS,
        returns: "array",
        doc: "Returns objects of a kind, sorted by namespace and name.",
        example: "list_objects(\"Deployment\", #{ namespace: \"shop\" }).len() >= 1",
        effect: Effect::Read,
        rights: &[("list", "*", "*")],
        run: |step, args| Box::pin(list_objects(step, args)),
    },
    Primitive {
        name: "apply_object",
        params: &[param("object", Type::Map)],
        options: &[],
        returns: "object",
        doc: "Makes an object as the map says, or merges the map into the one that is there. An object that it makes carries the \
              annotation pvmigrate.io/run.",
        example: r#"let note = apply_object(#{
    apiVersion: "v1", kind: "ConfigMap",
    metadata: #{ namespace: "shop", name: "note" },
    data: #{ from: "slow", to: "fast" },
});
delete_object("ConfigMap", "shop", "note");
note.data.to == "fast""#,
        effect: Effect::Write,
        rights: &[("create get patch", "*", "*")],
        run: |step, args| Box::pin(apply_object(step, args)),
    },
    Primitive {
        name: "patch_object",
        params: &[
            param("kind", Type::Text),
            param("namespace", Type::Text),
            param("name", Type::Text),
            param("patch", Type::Map),
        ],
        options: &[],
        returns: "object",
        doc: "Merges a patch (RFC 7386: () removes a key) into an object that must exist.",
        example: r#"let labelled = patch_object("Deployment", "shop", "web", #{ metadata: #{ labels: #{ moving: "yes" } } });
let plain = patch_object("Deployment", "shop", "web", #{ metadata: #{ labels: #{ moving: () } } });
labelled.labels.moving == "yes" && plain.labels.moving == ()"#,
        effect: Effect::Write,
        rights: &[("get patch", "*", "*")],
        run: |step, args| Box::pin(patch_object(step, args)),
    },
    Primitive {
        name: "delete_object",
        params: NAMED,
        options: &[],
        returns: "()",
        doc: "Deletes an object that must exist, with its dependents in the background. Volumes, namespaces and nodes are refused.",
        example: r#"apply_object(#{ apiVersion: "v1", kind: "ConfigMap", metadata: #{ namespace: "shop", name: "note" } });
delete_object("ConfigMap", "shop", "note");
find_object("ConfigMap", "shop", "note") == ()"#,
        effect: Effect::Write,
        rights: &[("delete get", "*", "*")],
        run: |step, args| Box::pin(delete_object(step, args)),
    },
];

/// Names of objects become parts of paths: they are checked like any other input.
fn checked(args: &Args, first: usize) -> Result<(&str, &str), Problem> {
    let (namespace, name) = (args.text(first), args.text(first + 1));
    if !namespace.is_empty() {
        names::label_name(namespace)?;
    }
    check_name(name)?;
    Ok((namespace, name))
}

fn check_name(name: &str) -> Result<(), Problem> {
    // RBAC names may have colons; nothing may have a slash.
    if name.is_empty()
        || name.contains(['/', '%', '?', '#'])
        || name == ".."
        || name == "."
        || name.chars().any(char::is_control)
    {
        return Err(Problem::usage(format!("`{}` is not the name of an object", names::plain(name))));
    }
    Ok(())
}

async fn get_object(step: Step, args: Args) -> Result<Json, Problem> {
    let (namespace, name) = checked(&args, 1)?;
    step.get(args.text(0), namespace, name).await
}

async fn find_object(step: Step, args: Args) -> Result<Json, Problem> {
    let (namespace, name) = checked(&args, 1)?;
    if step.cluster().find_resource(args.text(0)).await?.is_none() {
        return Ok(Json::Null);
    }
    Ok(step.find(args.text(0), namespace, name).await?.unwrap_or(Json::Null))
}

async fn list_objects(step: Step, args: Args) -> Result<Json, Problem> {
    let resource = step.cluster().resource(args.text(0)).await?;
    let namespace = args.option_text("namespace").unwrap_or_default().to_owned();
    if !namespace.is_empty() {
        names::label_name(&namespace)?;
    }
    let selector = args.option_text("selector").unwrap_or_default().to_owned();
    let query: Vec<(&str, &str)> = if selector.is_empty() { vec![] } else { vec![("labelSelector", &selector)] };
    let (objects, _) = step
        .cluster()
        .list(&resource, &namespace, &query)
        .await
        .map_err(|e| e.problem(&format!("list {}", resource.plural), None))?;
    Ok(Json::Array(objects))
}

async fn apply_object(step: Step, args: Args) -> Result<Json, Problem> {
    let body = args.json(0).clone();
    let (api, kind, name) = (text(&body, "/apiVersion"), text(&body, "/kind"), text(&body, "/metadata/name"));
    if api.is_empty() || kind.is_empty() || name.is_empty() {
        return Err(Problem::usage("an object needs apiVersion, kind and metadata.name"));
    }
    no_marks(&body)?;
    let resource = step.cluster().resource(&format!("{api}/{kind}")).await?;
    let namespace = if resource.namespaced {
        match text(&body, "/metadata/namespace") {
            "" => return Err(Problem::usage(format!("{kind} `{name}` needs metadata.namespace"))),
            namespace => names::label_name(namespace)?,
        }
    } else {
        ""
    };
    check_name(name)?;
    let object = ObjectRef::new(kind, namespace, name);
    let existing = step
        .cluster()
        .find(&resource, namespace, name)
        .await
        .map_err(|e| e.problem(&format!("read {object}"), Some(&object)))?;
    let ours = |there: &Json| text(there, "/metadata/annotations/pvmigrate.io~1step").starts_with(step.id.as_str());
    let write = |verb: Verb, body: Json, precondition: Precondition| Write {
        verb,
        gvk: resource.gvk.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body,
        precondition,
        inverse: Vec::new(),
        class: Class::Reversible,
    };
    match existing {
        Some(there) if !ours(&there) && !step.is_done("create") => {
            step.write("patch", merge(&there, &body, &write)).await
        }
        _ => step.write("create", write(Verb::Create, body.clone(), Precondition::Absent)).await,
    }
}

/// A merge patch with what would undo it.
fn merge(there: &Json, body: &Json, write: &dyn Fn(Verb, Json, Precondition) -> Write) -> Write {
    let precondition = Precondition::Uid(uid(there).to_owned());
    let inverse = write(Verb::Patch, reverse(there, body), precondition.clone());
    Write { inverse: vec![inverse], ..write(Verb::Patch, body.clone(), precondition) }
}

/// The merge patch that takes `patch` back from an object that was `before`.
fn reverse(before: &Json, patch: &Json) -> Json {
    match patch {
        Json::Object(map) => {
            let back = map.iter().map(|(key, value)| {
                let had = &before[key.as_str()];
                let undo = if had.is_object() && value.is_object() { reverse(had, value) } else { had.clone() };
                (key.clone(), undo)
            });
            Json::Object(back.collect())
        }
        _ => before.clone(),
    }
}

/// Our own marks say who made what: the guards go by them, so no script writes or removes one.
fn no_marks(body: &Json) -> Result<(), Problem> {
    match body {
        Json::Object(map) => map.iter().try_for_each(|(key, value)| {
            if key.starts_with("pvmigrate.io/") {
                return Err(Problem::refused(format!("`{key}` is a mark of pvmigrate: scripts do not write it")));
            }
            no_marks(value)
        }),
        Json::Array(items) => items.iter().try_for_each(no_marks),
        _ => Ok(()),
    }?;
    let is_map = |value: Option<&Json>| value.is_none_or(Json::is_object);
    let metadata = body.get("metadata");
    if !is_map(metadata) || !["labels", "annotations"].iter().all(|map| is_map(body["metadata"].get(*map))) {
        return Err(Problem::refused("metadata, labels and annotations are not replaced whole")
            .hint("name each key; () removes one"));
    }
    Ok(())
}

async fn patch_object(step: Step, args: Args) -> Result<Json, Problem> {
    let (namespace, name) = checked(&args, 1)?;
    no_marks(args.json(3))?;
    let resource = step.cluster().resource(args.text(0)).await?;
    let there = step.get(args.text(0), namespace, name).await?;
    let patch = args.json(3);
    for field in ["uid", "resourceVersion", "deletionTimestamp", "generation"] {
        if patch["metadata"].get(field).is_some() {
            return Err(Problem::usage(format!("metadata.{field} is the server's to write")));
        }
    }
    let write = |verb: Verb, body: Json, precondition: Precondition| Write {
        verb,
        gvk: resource.gvk.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body,
        precondition,
        inverse: Vec::new(),
        class: Class::Reversible,
    };
    step.write("patch", merge(&there, patch, &write)).await
}

async fn delete_object(step: Step, args: Args) -> Result<Json, Problem> {
    let (namespace, name) = checked(&args, 1)?;
    let resource = step.cluster().resource(args.text(0)).await?;
    let there = match step.session.door.journal.recorded(&step.id.part("delete")).and_then(|s| s.write) {
        // After a crash it may be gone: the recorded write says which object was meant.
        Some(recorded) => json!({"metadata": {"uid": recorded.precondition.uid()}}),
        None => step.get(args.text(0), namespace, name).await?,
    };
    let write = Write {
        verb: Verb::Delete,
        gvk: resource.gvk.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        body: json!({"propagationPolicy": "Background"}),
        precondition: Precondition::Uid(uid(&there).to_owned()),
        inverse: Vec::new(),
        class: Class::Reversible,
    };
    step.write("delete", write).await?;
    Ok(Json::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_taken_back_by_its_reverse() {
        let before = json!({"a": 1, "m": {"x": "y", "keep": true}, "l": [1, 2]});
        for patch in
            [json!({"a": 2}), json!({"m": {"x": null, "new": 3}}), json!({"l": [3]}), json!({"m": 7, "n": {"o": 1}})]
        {
            let mut object = before.clone();
            json_patch::merge(&mut object, &patch);
            json_patch::merge(&mut object, &reverse(&before, &patch));
            assert_eq!(object, before, "{patch}");
        }
    }
}
