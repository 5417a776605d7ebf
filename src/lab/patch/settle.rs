//! What reading a patched object into Kubernetes' own types does to it: null is the empty value, directives are no fields.
//!
//! In a map of strings null becomes the empty string, everywhere else the field is as if it had not been given. Called on
//! the result of a patch of a built-in kind; objects of custom resources keep their nulls and must not pass here.

use serde_json::Value;

/// Fields whose value is a map from strings to strings (or bytes), by name; their keys are the user's.
const STRING_MAPS: [&str; 13] = [
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "data",
    "stringData",
    "binaryData",
    "parameters",
    "volumeAttributes",
    "mountOptionsByName",
    "attachmentMetadata",
    "options",
    "overhead",
];

/// Makes nulls and leftover directives what Kubernetes makes of them.
pub fn settle(object: &mut Value) {
    match object {
        Value::Object(map) => {
            map.retain(|key, value| !value.is_null() && !is_directive(key) && !is_omitted(key, value));
            for (key, value) in map.iter_mut() {
                match value {
                    Value::Object(strings) if is_string_map(key, strings) => {
                        for text in strings.values_mut().filter(|text| text.is_null()) {
                            *text = Value::String(String::new());
                        }
                    }
                    other => settle(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(settle),
        _ => {}
    }
}

fn is_string_map(key: &str, map: &serde_json::Map<String, Value>) -> bool {
    // A Service's and a ReplicationController's selector is a map of strings, everybody else's is a LabelSelector.
    STRING_MAPS.contains(&key)
        || key == "selector"
            && !map.contains_key("matchLabels")
            && !map.contains_key("matchExpressions")
            && map.values().any(Value::is_string)
}

/// Fields that are left out when they are empty: lists, but for the few that must be given, and maps of strings.
fn is_omitted(key: &str, value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty() && !["containers", "rules", "items"].contains(&key),
        Value::Object(map) => map.is_empty() && STRING_MAPS.contains(&key),
        _ => false,
    }
}

fn is_directive(key: &str) -> bool {
    key.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_vanish_but_are_empty_strings_in_maps_of_strings() {
        let mut object = json!({
            "metadata": {"annotations": {"a": null, "b": "1"}, "labels": null, "$foo": 1},
            "spec": {"affinity": {"nodeAffinity": null}, "list": [{"$patch": "delete", "name": "x", "y": null}]},
            "data": {"$patch": "replace"},
        });
        settle(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"annotations": {"a": "", "b": "1"}},
                "spec": {"affinity": {}, "list": [{"name": "x"}]},
                "data": {"$patch": "replace"},
            })
        );
    }
}
