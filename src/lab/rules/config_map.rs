//! ConfigMaps: keys that are file names, and the promise not to change.
//!
//! The keys and sizes of Secrets are the same and are checked here too.

use super::Rules;
use super::field::{drop_empty, entries, is_empty, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::Value;

pub const RULES: Rules = Rules { default, validate, validate_update, ..super::PLAIN };

/// Of all values together.
pub const BYTES: usize = 1024 * 1024;

fn default(map: &mut Value) {
    drop_empty(map, &["data", "binaryData", "immutable"]);
}

fn validate(map: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bytes = 0;
    for (key, value) in entries(&map["data"]) {
        let field = format!("data[{key}]");
        causes.extend(wrong(&field, key, &key_problems(key)));
        if !map["binaryData"][key].is_null() {
            causes.push(Cause::invalid(field, &key.into(), "duplicate of key present in binaryData"));
        }
        bytes += text(value).len();
    }
    for (key, value) in entries(&map["binaryData"]) {
        causes.extend(wrong(&format!("binaryData[{key}]"), key, &key_problems(key)));
        bytes += text(value).len() / 4 * 3;
    }
    if bytes > BYTES {
        causes.push(meta::too_long("[]", BYTES));
    }
    causes
}

/// What is wrong with a key.
pub fn key_problems(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push("must be no more than 253 characters".into());
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .into(),
        );
    }
    match key {
        "." | ".." => problems.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => problems.push("must not start with '..'".into()),
        _ => {}
    }
    problems
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    frozen(new, old, &["data", "binaryData"])
}

/// The promise of `immutable`.
pub fn frozen(new: &Value, old: &Value, keys: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old["immutable"] != true {
        return causes;
    }
    let why = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", why));
    }
    for key in keys {
        if new[*key] != old[*key] && !(is_empty(&new[*key]) && is_empty(&old[*key])) {
            causes.push(Cause::forbidden(*key, why));
        }
    }
    causes
}
