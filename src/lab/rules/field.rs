//! Reading and filling fields of objects that may be of any shape.
//!
//! Not the rules: those are in the file of each noun. What must stay true: nothing here panics, whatever a client sent.

use crate::lab::quantity::{NOT_A_QUANTITY, Quantity};
use crate::lab::status::Cause;
use crate::lab::store::{list_of, text};
use serde_json::{Map, Value, json};

/// The value of a key, made an empty object if there is none. A value of another type is left for what it is.
pub fn sub<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if value.is_null() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => {
            let entry = map.entry(key).or_insert(Value::Null);
            if entry.is_null() {
                *entry = json!({});
            }
            entry
        }
        other => other,
    }
}

/// Says what was not said.
pub fn fill(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let entry = map.entry(key).or_insert(Value::Null);
        if entry.is_null() {
            *entry = default.into();
        }
    }
}

/// The same for texts, where the empty one says nothing either.
pub fn fill_text(value: &mut Value, key: &str, default: &str) {
    if is_empty(&value[key]) {
        set(value, key, default);
    }
}

pub fn set(value: &mut Value, key: &str, new: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), new.into());
    }
}

pub fn drop_key(value: &mut Value, key: &str) {
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(key);
    }
}

/// Drops what the real server leaves out when it says nothing.
pub fn drop_empty(value: &mut Value, keys: &[&str]) {
    for key in keys {
        if is_empty(&value[*key]) {
            drop_key(value, key);
        }
    }
}

/// Keeps only these keys: the real server drops silently what it does not know.
pub fn keep(value: &mut Value, keys: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| keys.contains(&key.as_str()));
    }
}

/// Null, or empty of its type.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Takes nulls out, as a server does that knows the types. Those in arrays stay.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, one| !one.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The elements of a list, to change them.
pub fn each<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The entries of an object by name; none for anything else.
pub fn entries(value: &Value) -> Vec<(&str, &Value)> {
    let mut all: Vec<_> =
        value.as_object().into_iter().flat_map(Map::iter).map(|(key, one)| (key.as_str(), one)).collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

/// `status := old status`, and on create the one given.
pub fn keep_status(new: &mut Value, old: Option<&Value>, fresh: Value) {
    let status = old.map_or(fresh, |old| old["status"].clone());
    if status.is_null() { drop_key(new, "status") } else { set(new, "status", status) }
}

pub fn required(field: &str) -> Cause {
    Cause::required(field, "")
}

pub fn immutable(field: &str, value: &Value) -> Cause {
    Cause::invalid(field, value, "field is immutable")
}

/// A cause whose value is shown in Go's syntax.
pub fn invalid_go(field: &str, go: &str, detail: &str) -> Cause {
    let colon = if detail.is_empty() { "" } else { ": " };
    Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {go}{colon}{detail}"),
        field: field.to_owned(),
    }
}

/// One cause for each thing that is wrong with a text.
pub fn wrong(field: &str, value: &str, problems: &[String]) -> Vec<Cause> {
    problems.iter().map(|problem| Cause::invalid(field, &value.into(), problem)).collect()
}

/// A number that is there may not be negative.
pub fn not_negative(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|number| number < 0) {
        causes.push(Cause::invalid(field, value, "must be greater than or equal to 0"));
    }
}

/// One of these texts.
pub fn one_of(field: &str, value: &Value, supported: &[&str], causes: &mut Vec<Cause>) {
    if !supported.contains(&text(value)) {
        causes.push(Cause::unsupported(field, &text(value).into(), supported));
    }
}

/// A text that must be there.
pub fn need(field: &str, value: &Value, causes: &mut Vec<Cause>) -> bool {
    let missing = is_empty(value);
    if missing {
        causes.push(required(field));
    }
    !missing
}

/// The amount, or a cause.
pub fn quantity(field: &str, value: &Value, causes: &mut Vec<Cause>) -> Option<Quantity> {
    let found = Quantity::of(value);
    if found.is_none() {
        causes.push(Cause::invalid(field, value, NOT_A_QUANTITY));
    }
    found
}

pub fn not_found(field: &str, value: &Value) -> Cause {
    Cause { reason: "FieldValueNotFound", message: format!("Not found: {value}"), field: field.to_owned() }
}

/// The path parts may not be `..`.
pub fn no_back_steps(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if text(value).split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(field, value, "must not contain '..'"));
    }
}

/// `map[string]string{"a":"b"}`, as Go shows it.
pub fn go_map(value: &Value) -> String {
    if value.is_null() {
        return "map[string]string(nil)".into();
    }
    let all: Vec<String> = entries(value).iter().map(|(key, one)| format!("\"{key}\":{one}")).collect();
    format!("map[string]string{{{}}}", all.join(", "))
}

/// `[]string{"a"}`.
pub fn go_list(value: &Value) -> String {
    if value.is_null() {
        return "[]string(nil)".into();
    }
    let all: Vec<String> = list_of(value).iter().map(Value::to_string).collect();
    format!("[]string{{{}}}", all.join(", "))
}

/// `intstr.IntOrString{…}`.
pub fn go_int_or_string(value: &Value) -> String {
    let kind = u8::from(value.is_string());
    let number = value.as_i64().unwrap_or(0);
    format!("intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:\"{}\"}}", text(value))
}

/// A name that must be there and be a label.
pub fn need_named(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if need(field, value, causes) {
        causes.extend(wrong(field, text(value), &crate::lab::meta::dns1123_label(text(value))));
    }
}

/// A value in Go's syntax that is none of those supported.
pub fn unsupported_go(field: &str, go: &str, supported: &[&str]) -> Cause {
    let list: Vec<String> = supported.iter().map(|one| format!("\"{one}\"")).collect();
    Cause {
        reason: "FieldValueNotSupported",
        message: format!("Unsupported value: {go}: supported values: {}", list.join(", ")),
        field: field.to_owned(),
    }
}
