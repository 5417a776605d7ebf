//! The part of OpenAPI v3 that clients of the lab need: kubectl from 1.27 on looks for PATCH operations that know
//! `fieldValidation`. No schemas; `kubectl explain` finds nothing. `/openapi/v2` exists as protobuf only and is refused.

use serde_json::{Map, Value, json};

use super::discovery::Resource;

/// The text of the 406 for `/openapi/v2`: kubectl up to 1.26 wants protobuf there, and goes on with `--validate=false`.
pub const V2_REFUSED: &str = "only the following media types are accepted: application/json";

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: where the documents are.
#[must_use]
pub fn index(resources: &[Resource]) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let path = document_path(resource.group, resource.version);
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document at a path of the index, such as `apis/apps/v1`; None if there is none.
#[must_use]
pub fn document(resources: &[Resource], path: &str) -> Option<Value> {
    let mut paths = Map::new();
    for resource in resources.iter().filter(|resource| document_path(resource.group, resource.version) == path) {
        let place = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let url = format!("/{path}/{place}{}/{{name}}", resource.plural);
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": {
                    "group": resource.group,
                    "kind": resource.kind,
                    "version": resource.version,
                },
                "parameters": [query("fieldManager"), query("fieldValidation"), query("dryRun")],
                "responses": {"200": {"description": "OK"}},
            })
        };
        let mut operations = Map::new();
        for (verb, method) in [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")] {
            if resource.verbs.contains(&verb) {
                operations.insert(method.to_owned(), operation(method));
            }
        }
        paths.insert(url, Value::Object(operations));
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.20.2"},
        "paths": paths,
        "components": {"schemas": {}},
    }))
}

fn query(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_operations_know_field_validation() {
        let claims = Resource {
            group: "",
            version: "v1",
            plural: "persistentvolumeclaims",
            singular: "persistentvolumeclaim",
            kind: "PersistentVolumeClaim",
            namespaced: true,
            verbs: &["get", "patch"],
            short_names: &["pvc"],
            categories: &[],
            subresources: vec![],
        };
        let served = [claims];
        assert_eq!(index(&served).to_string(), r#"{"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1"}}}"#);
        let document = document(&served, "api/v1").expect("served");
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "PersistentVolumeClaim");
        assert_eq!(patch["parameters"][1]["name"], "fieldValidation");
        assert!(super::document(&served, "apis/apps/v1").is_none());
    }
}
