//! Pod templates: which are the same, and the short names made of them.
//!
//! The real server hashes its in-memory form; the hashes here are others, of the same look. What must stay true: the
//! same template gives the same hash in any process, whatever the order of its fields.

use super::Value;
use serde_json::Map;

/// `5c486d9695`, from any part of an object. `collisions` makes another.
pub fn hash(value: &Value, collisions: i64) -> String {
    let mut hash = 0x811c_9dc5_u32;
    let mut feed = |text: &str| {
        for byte in text.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    };
    feed(&plain(value).to_string());
    if collisions > 0 {
        feed(&collisions.to_string());
    }
    // Digits are mapped so that no word can come out by chance.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// Whether two templates mean the same.
pub fn is_same(one: &Value, other: &Value) -> bool {
    plain(one) == plain(other)
}

/// Sorted, without nulls and without what is empty.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, Value)> =
                fields.iter().map(|(key, value)| (key, plain(value))).filter(|(_, value)| !is_empty(value)).collect();
            sorted.sort_by_key(|(key, _)| *key);
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_follows_the_meaning() {
        let one = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "creationTimestamp": null}, "spec": {"x": {}}});
        let same = json!({"spec": {}, "metadata": {"labels": {"b": "2", "a": "1"}}});
        let other = json!({"metadata": {"labels": {"a": "1", "b": "3"}}});
        assert!(is_same(&one, &same) && !is_same(&one, &other));
        assert_eq!(hash(&one, 0), hash(&same, 0));
        assert_ne!(hash(&one, 0), hash(&other, 0));
        assert_ne!(hash(&one, 0), hash(&one, 1));
        assert!(hash(&one, 0).bytes().all(|byte| b"456789bcdf".contains(&byte)), "{}", hash(&one, 0));
    }
}
