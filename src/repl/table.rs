//! How a result is shown to people: one object by its name, many as a table with the columns of their kind, maps as
//! YAML with the objects in them by name.

use crate::cluster::{pv::Pv, pvc::Pvc, text, workload};
use crate::script::primitives::render_table;
use crate::script::view::is_object;
use crate::words::size::human_bytes;
use crate::words::{Json, names};
use serde_json::{Map, json};

/// A result as text; `None` if there is nothing to show.
pub fn show(value: &Json) -> Option<String> {
    Some(match value {
        Json::Null => return None,
        Json::String(text) => names::plain(text),
        Json::Array(items) if items.is_empty() => "[]".into(),
        Json::Array(items) if items.iter().all(is_object) => objects(items),
        Json::Array(items) if items.iter().all(Json::is_object) => {
            let rows: Vec<Json> = items.iter().map(row).collect();
            let columns = filled(&rows);
            render_table(&Json::Array(rows), Some(&columns))
        }
        Json::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().filter_map(|item| show(item).or(Some("()".into()))).collect::<Vec<_>>().join("\n")
        }
        Json::Object(_) if is_object(value) => workload::reference(value).to_string(),
        Json::Object(map) if map.is_empty() => "#{}".into(),
        Json::Object(_) | Json::Array(_) => names::plain(yaml(&brief(value)).trim_end()),
        other => other.to_string(),
    })
}

/// A value whole.
pub fn yaml(value: &Json) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default()
}

/// Objects of one kind with the columns of that kind; of several kinds by name.
fn objects(items: &[Json]) -> String {
    let kind = text(&items[0], "/kind");
    let kind = if items.iter().all(|item| text(item, "/kind") == kind) { kind } else { "" };
    let rows: Vec<Json> = items.iter().map(|item| columns(item, kind)).collect();
    render_table(&Json::Array(rows), None)
}

/// The columns of an object; those of the namespaced kinds begin with the namespace.
fn columns(object: &Json, kind: &str) -> Json {
    let mut row = Map::new();
    let mut put = |column: &str, value: Json| {
        row.insert(column.to_owned(), if value == "" { Json::Null } else { value });
    };
    if kind.is_empty() {
        put("kind", text(object, "/kind").into());
    }
    let namespace = text(object, "/metadata/namespace");
    if kind.is_empty() || !namespace.is_empty() {
        put("namespace", namespace.into());
    }
    put("name", text(object, "/metadata/name").into());
    match kind {
        "PersistentVolume" => {
            let pv = Pv(object);
            put("class", pv.class().into());
            put("size", human_bytes(pv.capacity_bytes()).into());
            put("phase", pv.phase().into());
            put("policy", pv.policy().into());
            put("claim", pv.claim().map_or(Json::Null, |claim| claim.to_string().into()));
        }
        "PersistentVolumeClaim" => {
            let pvc = Pvc(object);
            put("class", pvc.class().into());
            put("size", human_bytes(pvc.capacity_bytes().max(pvc.request_bytes())).into());
            put("phase", pvc.phase().into());
            put("modes", pvc.modes().join(",").into());
            put("volume", pvc.volume().into());
        }
        "StorageClass" => {
            let default = text(object, "/metadata/annotations/storageclass.kubernetes.io~1is-default-class") == "true";
            put("default", if default { "yes" } else { "" }.into());
            put("provisioner", text(object, "/provisioner").into());
            put(
                "policy",
                match text(object, "/reclaimPolicy") {
                    "" => "Delete",
                    policy => policy,
                }
                .into(),
            );
            put("binding", text(object, "/volumeBindingMode").into());
        }
        "Deployment" | "StatefulSet" | "ReplicaSet" => {
            put("ready", format!("{}/{}", workload::ready_replicas(object), workload::replicas(object)).into());
        }
        "Pod" => {
            put("phase", text(object, "/status/phase").into());
            put("node", text(object, "/spec/nodeName").into());
        }
        _ => {}
    }
    Json::Object(row)
}

/// A map as a row: lists in one cell, objects by name.
fn row(map: &Json) -> Json {
    let cell = |value: &Json| match brief(value) {
        Json::Array(items) => {
            let words: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            if words.is_empty() { Json::Null } else { words.join(", ").into() }
        }
        other => other,
    };
    Json::Object(map.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), cell(value))).collect())
}

/// The columns of maps: what names a row comes first; a column with nothing in it is left out.
fn filled(rows: &[Json]) -> Json {
    let mut columns: Vec<&str> = Vec::new();
    let fields = rows.iter().filter_map(Json::as_object).flatten();
    for (key, _) in fields.filter(|(_, value)| !value.is_null()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    const FIRST: [&str; 4] = ["key", "kind", "namespace", "name"];
    columns.sort_by_key(|column| FIRST.iter().position(|first| first == column).unwrap_or(FIRST.len()));
    Json::from(columns)
}

/// The same value with every object in it replaced by its name.
fn brief(value: &Json) -> Json {
    match value {
        Json::Object(_) if is_object(value) => json!(workload::reference(value).to_string()),
        Json::Object(map) => Json::Object(map.iter().map(|(key, value)| (key.clone(), brief(value))).collect()),
        Json::Array(items) => Json::Array(items.iter().map(brief).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str) -> Json {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"storageClassName": "slow", "volumeName": "pv-1", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}})
    }

    fn words(value: &Json) -> Vec<Vec<String>> {
        show(value).unwrap().lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn objects_of_one_kind_get_its_columns() {
        let table = words(&json!([claim("data"), claim("logs")]));
        assert_eq!(table[0], ["NAMESPACE", "NAME", "CLASS", "SIZE", "PHASE", "MODES", "VOLUME"]);
        assert_eq!((table[1][1].as_str(), table[1][2].as_str(), table[2][1].as_str()), ("data", "slow", "logs"));
    }

    #[test]
    fn objects_of_several_kinds_are_named() {
        let web =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
        let table = words(&json!([claim("data"), web]));
        assert_eq!(
            table,
            [["KIND", "NAMESPACE", "NAME"], ["PersistentVolumeClaim", "shop", "data"], ["Deployment", "shop", "web"]]
        );
    }

    #[test]
    fn values_are_shown_by_their_shape() {
        for (value, want) in [
            (json!(null), None),
            (json!("a\u{1b}[31m"), Some("a\\u{1b}[31m")),
            (json!(3), Some("3")),
            (json!([]), Some("[]")),
            (json!({}), Some("#{}")),
            (json!(["a", 1, null]), Some("a\n1\n()")),
            (claim("data"), Some("PersistentVolumeClaim:shop/data")),
            (json!({"claims": [claim("data")], "n": 1}), Some("claims:\n- PersistentVolumeClaim:shop/data\nn: 1")),
        ] {
            assert_eq!(show(&value).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn maps_become_rows_with_lists_in_one_cell() {
        let table = words(&json!([{"claims": [claim("data"), claim("logs")], "key": "u", "pods": []}]));
        assert_eq!(table[0], ["KEY", "CLAIMS"]);
        assert_eq!(table[1], ["u", "PersistentVolumeClaim:shop/data,", "PersistentVolumeClaim:shop/logs"]);
    }
}
