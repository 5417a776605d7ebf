//! The words of a strategic merge patch that are orders, not fields, and the sentences Kubernetes has for wrong ones.

use serde_json::{Map, Value};

use super::PatchError;

pub const PATCH: &str = "$patch";
pub const RETAIN_KEYS: &str = "$retainKeys";
pub const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
pub const SET_ELEMENT_ORDER: &str = "$setElementOrder";

pub fn unknown_patch_type(patch: &Map<String, Value>) -> PatchError {
    let word = patch.get(PATCH).map(go).unwrap_or_default();
    PatchError::Unmergeable(format!("unknown patch type: {word} in map: {}", go_map(patch)))
}

pub fn no_merge_key(item: &Map<String, Value>, key: &str) -> PatchError {
    PatchError::Unmergeable(format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}

pub fn not_a_list(value: &Value) -> PatchError {
    PatchError::Unmergeable(format!("expected a []interface {{}}, but received a {}", go_type(value)))
}

/// The field that a directive such as `$setElementOrder/containers` is about.
///
/// # Errors
/// If the directive names none.
pub fn field_of<'a>(name: &'a str, directive: &str) -> Result<&'a str, PatchError> {
    name.strip_prefix(directive).and_then(|rest| rest.strip_prefix('/')).ok_or_else(|| {
        let list = if directive == DELETE_FROM_PRIMITIVE_LIST { "primitive" } else { "setElementOrder" };
        PatchError::Malformed(format!("invalid patch format of {list} list"))
    })
}

/// Takes `$retainKeys` out of the patch and drops every key of the original that it does not name.
///
/// # Errors
/// If it is not a list or lacks a key that the patch sets.
pub fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(retained) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || PatchError::Malformed("invalid patch format of retainKeys".into());
    let Value::Array(retained) = retained else { return Err(wrong()) };
    let named = |key: &str| retained.iter().any(|retained| retained.as_str() == Some(key));
    let complete = patch.iter().all(|(key, value)| {
        value.is_null()
            || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || key.starts_with(SET_ELEMENT_ORDER)
            || named(key)
    });
    if !complete {
        return Err(wrong());
    }
    original.retain(|key, _| named(key));
    Ok(())
}

const fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Kubernetes writes it into messages: maps sorted by key, nothing quoted.
pub fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => go_list(list),
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

pub fn go_list(list: &[Value]) -> String {
    format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" "))
}

pub fn go_map(map: &Map<String, Value>) -> String {
    let mut fields: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go(value))).collect();
    fields.sort();
    format!("map[{}]", fields.join(" "))
}
