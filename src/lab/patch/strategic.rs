//! Strategic merge patch: maps merge, lists merge where `strategies` names a key, directives say the rest.
//!
//! Every rule here is one that a real 1.20 server shows; `strategic_cases.json` holds its answers. Pure; the caller checks
//! the result's fields, and asks for the kind's name as the API has it.

use serde_json::{Map, Value};

use super::directives::{
    DELETE_FROM_PRIMITIVE_LIST, PATCH, SET_ELEMENT_ORDER, field_of, go_list, no_merge_key, not_a_list, retain_keys,
    unknown_patch_type,
};
use super::order::{arrange, identity};
use super::strategies::{ListRule, known, list_rule};
use super::{PatchError, settle};

/// The object with a strategic merge patch merged into it.
///
/// # Errors
/// If the kind has no merge rules, the patch is not an object, or a directive or a list cannot be understood.
pub fn strategic_merge(kind: &str, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !known(kind) {
        return Err(PatchError::UnknownKind);
    }
    let Value::Object(patch) = patch else {
        let what = match patch {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        let message = format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}");
        return Err(PatchError::Malformed(message));
    };
    let original = object.as_object().cloned().unwrap_or_else(Map::new);
    let merged = Merge { kind, path: Vec::new() }.map(original, patch.clone())?;
    let mut merged = Value::Object(merged);
    settle(&mut merged);
    Ok(merged)
}

/// A patch as Go prints it.
pub fn go(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut all: Vec<(&String, &Value)> = map.iter().collect();
            all.sort_by_key(|(key, _)| *key);
            let all: Vec<String> = all.into_iter().map(|(key, one)| format!("{key}:{}", go(one))).collect();
            format!("map[{}]", all.join(" "))
        }
        Value::Array(all) => format!("[{}]", all.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}

/// The walk: which kind, and the fields from its root to where we are.
struct Merge<'a> {
    kind: &'a str,
    path: Vec<String>,
}

impl Merge<'_> {
    fn map(
        &mut self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
    ) -> Result<Map<String, Value>, PatchError> {
        match patch.get(PATCH).map(Value::as_str) {
            None => {}
            Some(Some("replace")) => {
                patch.shift_remove(PATCH);
                return Ok(patch);
            }
            Some(Some("delete")) => return Ok(Map::new()),
            Some(_) => return Err(unknown_patch_type(&patch)),
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch)?;
        for (name, change) in patch {
            let deletes = name.starts_with(DELETE_FROM_PRIMITIVE_LIST);
            let field = if deletes { field_of(&name, DELETE_FROM_PRIMITIVE_LIST)?.to_owned() } else { name };
            if change.is_null() {
                original.shift_remove(&field);
                continue;
            }
            let Some(before) = original.get_mut(&field) else {
                self.refuse_lost_directives(&field, &change)?;
                original.insert(field, change);
                continue;
            };
            let before = std::mem::take(before);
            self.path.push(field.clone());
            let after = match (before, change) {
                (Value::Object(before), Value::Object(change)) => Value::Object(self.map(before, change)?),
                (Value::Array(before), Value::Array(change)) => Value::Array(self.list(before, change, deletes)?),
                (_, change) => change,
            };
            self.path.pop();
            original.insert(field, after);
        }
        Ok(original)
    }

    /// Merges every list whose order the patch gives, and takes both out of the patch.
    fn ordered_lists(
        &mut self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
        for directive in directives {
            let order = match patch.shift_remove(&directive) {
                Some(Value::Array(order)) => order,
                other => return Err(not_a_list(&other.unwrap_or_default())),
            };
            let field = field_of(&directive, SET_ELEMENT_ORDER)?.to_owned();
            let before = original.get(&field).map(as_list).transpose()?;
            let change = patch.get(&field).map(as_list).transpose()?;
            self.path.push(field.clone());
            let key = match list_rule(self.kind, &self.path) {
                ListRule::Maps(key) => Some(key),
                ListRule::Scalars => None,
                ListRule::Replace => return Err(self.no_rule(&directive)),
            };
            check_order(change.unwrap_or_default(), &order, key)?;
            let server = server_order(before.unwrap_or_default(), change.unwrap_or_default(), key);
            let merged = match (before, change) {
                (None, None) => {
                    self.path.pop();
                    continue;
                }
                (Some(before), None) => before.to_vec(),
                (None, Some(change)) => change.to_vec(),
                (Some(before), Some(change)) => self.list(before.to_vec(), change.to_vec(), false)?,
            };
            self.path.pop();
            for item in merged.iter().chain(&order) {
                has_key(item, key)?;
            }
            original.insert(field.clone(), Value::Array(arrange(merged, &order, &server, key)));
            patch.shift_remove(&field);
        }
        Ok(())
    }

    fn list(&mut self, before: Vec<Value>, change: Vec<Value>, deletes: bool) -> Result<Vec<Value>, PatchError> {
        match list_rule(self.kind, &self.path) {
            ListRule::Replace if change.iter().any(|item| item.get(PATCH).is_some()) => Err(self.no_rule(PATCH)),
            ListRule::Replace if deletes => Err(self.no_rule(DELETE_FROM_PRIMITIVE_LIST)),
            ListRule::Replace => Ok(change),
            _ if before.is_empty() && change.is_empty() => Ok(before),
            rule => {
                one_type(&before, &change)?;
                match rule {
                    ListRule::Maps(key) => self.maps(before, change, key),
                    _ if deletes => Ok(before.into_iter().filter(|item| !change.contains(item)).collect()),
                    _ => Ok(scalars(before, change)),
                }
            }
        }
    }

    fn maps(&mut self, before: Vec<Value>, change: Vec<Value>, key: &str) -> Result<Vec<Value>, PatchError> {
        let mut merged = before;
        let mut items = Vec::new();
        let mut replace = false;
        for item in change {
            let Value::Object(fields) = &item else { return Err(not_a_list(&item)) };
            match fields.get(PATCH).map(Value::as_str) {
                None => items.push(item),
                Some(Some("replace")) => replace = true,
                Some(Some("delete")) => {
                    let Some(id) = fields.get(key) else { return Err(no_merge_key(fields, key)) };
                    merged.retain(|own| identity(own, Some(key)) != id);
                }
                Some(Some("merge")) => {
                    return Err(PatchError::Unmergeable("merging lists cannot yet be specified in the patch".into()));
                }
                Some(_) => return Err(unknown_patch_type(fields)),
            }
        }
        if replace {
            return Ok(items);
        }
        let server = merged.clone();
        for item in &items {
            let Value::Object(fields) = item else { continue };
            let Some(id) = fields.get(key) else { return Err(no_merge_key(fields, key)) };
            match merged.iter_mut().find(|own| identity(own, Some(key)) == id) {
                Some(own) => {
                    let Value::Object(own_fields) = std::mem::take(own) else { continue };
                    *own = Value::Object(self.map(own_fields, fields.clone())?);
                }
                None => merged.push(item.clone()),
            }
        }
        for own in &merged {
            has_key(own, Some(key))?;
        }
        Ok(arrange(merged, &items, &server, Some(key)))
    }

    /// A list that is new is taken as it comes; directives in it would silently become items.
    fn refuse_lost_directives(&mut self, field: &str, change: &Value) -> Result<(), PatchError> {
        self.path.push(field.to_owned());
        let rule = list_rule(self.kind, &self.path);
        let lost = change.as_array().is_some_and(|list| list.iter().any(|item| item.get(PATCH).is_some()));
        let refused = if rule == ListRule::Replace && lost { Err(self.no_rule(PATCH)) } else { Ok(()) };
        self.path.pop();
        refused
    }

    fn no_rule(&self, directive: &str) -> PatchError {
        PatchError::Unsupported(format!(
            "{directive} is given for {}, which {} has no merge key for",
            self.path.join("."),
            self.kind
        ))
    }
}

/// The server's order for a list with a given order. Kubernetes deletes in place and appends into the room this leaves, so
/// as many new items as were deleted count as the server's own.
fn server_order(before: &[Value], change: &[Value], key: Option<&str>) -> Vec<Value> {
    let named = |list: &[Value], item: &Value| list.iter().any(|own| identity(own, key) == identity(item, key));
    let (deletions, additions): (Vec<Value>, Vec<Value>) =
        change.iter().cloned().partition(|item| item.get(PATCH).is_some());
    let mut order: Vec<Value> = before.iter().filter(|own| !named(&deletions, own)).cloned().collect();
    let room = before.len() - order.len();
    order.extend(additions.into_iter().filter(|item| !named(before, item)).take(room));
    order
}

fn as_list(value: &Value) -> Result<&[Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| not_a_list(value))
}

fn has_key(item: &Value, key: Option<&str>) -> Result<(), PatchError> {
    match (item, key) {
        (Value::Object(fields), Some(key)) if !fields.contains_key(key) => Err(no_merge_key(fields, key)),
        _ => Ok(()),
    }
}

/// The union: what was there first, then what is new, ordered by the patch where it names them.
fn scalars(before: Vec<Value>, change: Vec<Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(before.len() + change.len());
    for item in before.iter().chain(&change) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    arrange(merged, &change, &before, None)
}

fn one_type(before: &[Value], change: &[Value]) -> Result<(), PatchError> {
    let mut types = before.iter().chain(change).map(std::mem::discriminant);
    let first = types.next();
    if types.any(|one| Some(one) != first) {
        let lists = format!("[{} {}]", go_list(before), go_list(change));
        return Err(PatchError::Unmergeable(format!("list element types are not identical: {lists}")));
    }
    Ok(())
}

/// The patch's items must stand in the given order in the same sequence; deletions do not count.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in change.iter().filter(|item| item.get(PATCH).is_none()) {
        let found = loop {
            let Some(place) = places.next() else { break false };
            has_key(item, key)?;
            has_key(place, key)?;
            if identity(place, key) == identity(item, key) {
                break true;
            }
        };
        if !found {
            return Err(PatchError::Unmergeable(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                go_list(change),
                go_list(order)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The answers of a real API server, 1.20.2: objects by name, and for each case the patch and what came of it.
    const CASES: &str = include_str!("strategic_cases.json");

    /// Kubernetes takes these patches for something that nobody can have meant; the lab says no.
    const REFUSED_HERE: [&str; 3] = [
        "a list without rule that has a directive",
        "a list without rule that has a replace directive",
        "$setElementOrder of an unknown field",
    ];

    #[test]
    fn patches_as_a_real_server_merges_them() {
        let all: Value = serde_json::from_str(CASES).expect("the cases are JSON");
        let mut wrong = Vec::new();
        for case in all["cases"].as_array().expect("a list") {
            let name = case["name"].as_str().expect("a name");
            let kind = case["kind"].as_str().expect("a kind");
            let object = &all["objects"][case["on"].as_str().expect("an object's name")];
            let ours = strategic_merge(kind, object, &case["patch"]);
            if REFUSED_HERE.contains(&name) {
                assert!(matches!(ours, Err(PatchError::Unsupported(_))), "{name}: {ours:?}");
                continue;
            }
            match (&case["refused"], ours) {
                // The merge is done, and the object that came out was found invalid by what comes after it.
                (refused, Ok(_)) if refused["code"] == 422 => {}
                (refused, Ok(_)) if refused["message"].as_str().is_some_and(|text| text.contains("undeterminable")) => {
                }
                (Value::Null, Ok(ours)) => {
                    for (pointer, want) in case["want"].as_object().expect("a map") {
                        let got = ours.pointer(pointer).unwrap_or(&Value::Null);
                        // An empty list or map that is left over is omitted when the object is written.
                        let empty = *got == json!([]) || *got == json!({});
                        if got != want && !(want.is_null() && empty) {
                            wrong.push(format!("{name}: {pointer} is {got}\n  not {want}"));
                        }
                    }
                }
                (refused, Err(error)) => {
                    if (refused["code"].as_u64(), refused["message"].as_str())
                        != (Some(error.code().into()), Some(error.to_string().as_str()))
                        || refused["reason"].as_str() != error.reason()
                    {
                        wrong.push(format!("{name}: {error}\n  not {refused}"));
                    }
                }
                (refused, Ok(ours)) => wrong.push(format!("{name}: {ours}\n  not {refused}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn kinds_without_rules_and_patches_that_are_no_objects() {
        assert_eq!(strategic_merge("Widget", &json!({}), &json!({})), Err(PatchError::UnknownKind));
        let refused = strategic_merge("Pod", &json!({}), &json!([1])).expect_err("a list");
        assert_eq!(refused.to_string(), "json: cannot unmarshal array into Go value of type map[string]interface {}");
        assert_eq!(refused.code(), 400);
    }
}
