//! JSON patch, RFC 6902, as the API server of Kubernetes 1.20 applies it.
//!
//! Its library is laxer than the RFC in a few places, each seen on a real server: `replace` of a missing key of a map adds
//! it, `test` for null holds where the key is missing, `copy` of a missing key gives null, `-1` is the last item of a list,
//! and what stands before the first slash of a pointer does not count. All or nothing: the given object is never changed.

use serde_json::Value;

use super::PatchError;

const MAX_OPERATIONS: usize = 10_000;

/// The object after all operations of the patch.
///
/// # Errors
/// [`PatchError::Malformed`] if the patch is not a list of objects, [`PatchError::TooLarge`] over 10 000 operations,
/// [`PatchError::Failed`] if an operation does not fit the object.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        let message = format!("json: cannot unmarshal {} into Go value of type jsonpatch.Patch", go_kind(patch));
        return Err(PatchError::Malformed(message));
    };
    if let Some(wrong) = operations.iter().find(|operation| !operation.is_object()) {
        let message = format!("json: cannot unmarshal {} into Go value of type jsonpatch.Operation", go_kind(wrong));
        return Err(PatchError::Malformed(message));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(operations.len()));
    }
    let mut patched = object.clone();
    for operation in operations {
        apply(&mut patched, operation).ok_or(PatchError::Failed)?;
    }
    Ok(patched)
}

/// None if the operation does not fit.
fn apply(object: &mut Value, operation: &Value) -> Option<()> {
    let pointer = |field: &str| operation.get(field).and_then(Value::as_str).map(Pointer::parse);
    let path = pointer("path")?;
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match operation.get("op")?.as_str()? {
        "add" => add(object, &path, value()),
        "remove" => remove(object, &path).map(drop),
        "replace" => replace(object, &path, value()),
        "move" => {
            let moved = remove(object, &pointer("from")?)?;
            add(object, &path, moved)
        }
        "copy" => {
            let copied = get(object, &pointer("from")?)?.clone();
            add(object, &path, copied)
        }
        "test" => (*get(object, &path)? == value()).then_some(()),
        _ => None,
    }
}

struct Pointer {
    parents: Vec<String>,
    /// None points at the whole object.
    last: Option<String>,
}

impl Pointer {
    fn parse(text: &str) -> Self {
        let mut parents: Vec<String> =
            text.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        let last = parents.pop();
        Self { parents, last }
    }
}

fn parent<'a>(object: &'a mut Value, pointer: &Pointer) -> Option<&'a mut Value> {
    pointer.parents.iter().try_fold(object, |at, token| match at {
        Value::Object(map) => map.get_mut(token),
        Value::Array(list) => {
            let index = existing(token, list.len())?;
            list.get_mut(index)
        }
        _ => None,
    })
}

fn existing(token: &str, len: usize) -> Option<usize> {
    let index: i64 = token.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    let index = if index < 0 { index.checked_add(len)? } else { index };
    (0..len).contains(&index).then(|| usize::try_from(index).ok()).flatten()
}

fn add(object: &mut Value, pointer: &Pointer, value: Value) -> Option<()> {
    // A pointer without a slash names the whole document, which this server does not set: it says yes and does nothing
    // if the text is not empty, and no if it is. Nobody means either, so both are refused.
    let key = pointer.last.as_ref()?;
    match parent(object, pointer)? {
        Value::Object(map) => {
            map.insert(key.clone(), value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            // One more place than there are items: the end.
            let index = existing(key, list.len() + 1)?;
            list.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, pointer: &Pointer) -> Option<Value> {
    let key = pointer.last.as_ref()?;
    match parent(object, pointer)? {
        Value::Object(map) => map.shift_remove(key),
        Value::Array(list) => {
            let index = existing(key, list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

fn replace(object: &mut Value, pointer: &Pointer, value: Value) -> Option<()> {
    let key = pointer.last.as_ref()?;
    match parent(object, pointer)? {
        Value::Object(map) => {
            map.insert(key.clone(), value);
        }
        Value::Array(list) => {
            let index = existing(key, list.len())?;
            list[index] = value;
        }
        _ => return None,
    }
    Some(())
}

/// What stands there; null for a missing key of a map that exists.
fn get<'a>(object: &'a mut Value, pointer: &Pointer) -> Option<&'a Value> {
    let key = pointer.last.as_ref()?;
    match parent(object, pointer)? {
        Value::Object(map) => Some(map.get(key).unwrap_or(&Value::Null)),
        Value::Array(list) => list.get(existing(key, list.len())?),
        _ => None,
    }
}

const fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x.io/a", "x.io/b"]}, "data": {"k": "v", "l": "w"}})
    }

    #[test]
    fn operations_as_a_real_server_answers_them() {
        for (patch, pointer, want) in [
            (json!([]), "/data", json!({"k": "v", "l": "w"})),
            (json!([{"op": "add", "path": "/data/n", "value": "1"}]), "/data/n", json!("1")),
            (json!([{"op": "replace", "path": "/data/zz", "value": "1"}]), "/data/zz", json!("1")),
            (json!([{"op": "test", "path": "/data/zz", "value": null}]), "/data", json!({"k": "v", "l": "w"})),
            (json!([{"op": "test", "path": "/data/k", "value": "v"}]), "/data/k", json!("v")),
            (json!([{"op": "test", "path": "/metadata/labels", "value": {"b": "2", "a": "1"}}]), "/data/k", json!("v")),
            (
                json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "x.io/c"}]),
                "/metadata/finalizers",
                json!(["x.io/a", "x.io/b", "x.io/c"]),
            ),
            (
                json!([{"op": "add", "path": "/metadata/finalizers/0", "value": "x.io/c"}]),
                "/metadata/finalizers",
                json!(["x.io/c", "x.io/a", "x.io/b"]),
            ),
            (json!([{"op": "remove", "path": "/metadata/finalizers/-1"}]), "/metadata/finalizers", json!(["x.io/a"])),
            (json!([{"op": "move", "from": "/data/k", "path": "/data/q"}]), "/data", json!({"l": "w", "q": "v"})),
            (json!([{"op": "copy", "from": "/data/k", "path": "/data/q"}]), "/data/q", json!("v")),
            (json!([{"op": "copy", "from": "/data/zz", "path": "/data/q"}]), "/data/q", json!(null)),
            (
                json!([{"op": "add", "path": "/metadata/labels/x~1y", "value": "1"}]),
                "/metadata/labels/x~1y",
                json!("1"),
            ),
            (json!([{"op": "remove", "path": "/metadata/labels/a"}]), "/metadata/labels", json!({"b": "2"})),
            (json!([{"op": "add", "path": "/data/n"}]), "/data/n", json!(null)),
        ] {
            let patched = json_patch(&object(), &patch).expect("the real server takes it");
            assert_eq!(patched.pointer(pointer), Some(&want), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_422_and_changes_nothing() {
        for patch in [
            json!([{"op": "foo", "path": "/data/n", "value": "1"}]),
            json!([{"op": "add", "path": "/nope/n", "value": "1"}]),
            json!([{"op": "remove", "path": "/data/zz"}]),
            json!([{"op": "test", "path": "/data/zz", "value": "1"}]),
            json!([{"op": "test", "path": "/data/k"}]),
            json!([{"op": "test", "path": "/metadata/labels/zz/yy", "value": null}]),
            json!([{"op": "remove"}]),
            json!([{"path": "/data/k"}]),
            json!([{"op": "remove", "path": "/metadata/finalizers/5"}]),
            json!([{"op": "add", "path": "/metadata/finalizers/9", "value": "x.io/c"}]),
            json!([{"op": "add", "path": "", "value": {}}]),
        ] {
            assert_eq!(json_patch(&object(), &patch), Err(PatchError::Failed), "{patch}");
        }
    }

    #[test]
    fn what_is_no_patch_is_400_and_too_many_operations_are_413() {
        for (patch, want) in [
            (json!({}), "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
            (json!("x"), "json: cannot unmarshal string into Go value of type jsonpatch.Patch"),
            (json!([1]), "json: cannot unmarshal number into Go value of type jsonpatch.Operation"),
        ] {
            assert_eq!(json_patch(&object(), &patch), Err(PatchError::Malformed(want.into())));
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/data/k", "value": "v"}); MAX_OPERATIONS + 1]);
        let refused = json_patch(&object(), &many).expect_err("one too many");
        assert_eq!(refused.code(), 413);
        assert_eq!(
            refused.to_string(),
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
    }
}
