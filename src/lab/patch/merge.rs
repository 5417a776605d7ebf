//! JSON merge patch, RFC 7386. Pure; the caller has seen to it that the patch is an object.

use serde_json::{Map, Value};

/// The object with the patch merged into it: null removes, objects merge, everything else replaces.
#[must_use]
pub fn merge_patch(object: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut merged = object.as_object().cloned().unwrap_or_else(Map::new);
    for (key, change) in changes {
        if change.is_null() {
            merged.shift_remove(key);
        } else {
            let before = merged.get(key).unwrap_or(&Value::Null);
            let after = merge_patch(before, change);
            merged.insert(key.clone(), after);
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_of_rfc_7386() {
        for (object, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merge_patch(&object, &patch), want, "{object} with {patch}");
        }
    }

    #[test]
    fn the_other_keys_keep_their_order() {
        let merged = merge_patch(&json!({"a": 1, "b": 2, "c": 3, "d": 4}), &json!({"a": null, "c": 5}));
        assert_eq!(merged.to_string(), r#"{"b":2,"c":5,"d":4}"#);
    }
}
