//! What became of the things that a run saw before it was broken off: pure.
//!
//! A resumed run goes on with what it read then. Its writes check what they rely on anew; this tells the person what
//! else is different, before the first of them.

use super::view::is_object;
use crate::cluster::{text, uid, workload};
use crate::words::Json;
use std::collections::BTreeMap;

/// Compares two answers to one question. Objects that the run itself touched, and pods, which come and go, are left out.
pub fn changes(before: &Json, now: &Json, touched: impl Fn(&str) -> bool) -> Vec<String> {
    let (before, now) = (objects(before, &touched), objects(now, &touched));
    let mut found = Vec::new();
    for (key, was) in &before {
        match now.get(key) {
            None => found.push(format!("{key} is gone")),
            Some(is) if uid(is) != uid(was) => found.push(format!("{key} was deleted and made anew")),
            Some(is) if is["spec"] != was["spec"] => found.push(format!("{key} was changed")),
            Some(_) => {}
        }
    }
    found.extend(now.keys().filter(|key| !before.contains_key(*key)).map(|key| format!("{key} is new")));
    found
}

/// Every whole object in an answer, by key.
fn objects<'a>(json: &'a Json, touched: &impl Fn(&str) -> bool) -> BTreeMap<String, &'a Json> {
    let mut found = BTreeMap::new();
    collect(json, touched, &mut found);
    found
}

fn collect<'a>(json: &'a Json, touched: &impl Fn(&str) -> bool, found: &mut BTreeMap<String, &'a Json>) {
    match json {
        Json::Object(_) if is_object(json) => {
            let key = workload::reference(json).to_string();
            if text(json, "/kind") != "Pod" && !touched(&key) {
                found.insert(key, json);
            }
        }
        Json::Object(map) => map.values().for_each(|value| collect(value, touched, found)),
        Json::Array(items) => items.iter().for_each(|item| collect(item, touched, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_did_is_told_and_what_we_did_is_not() {
        let claim = |name: &str, uid: &str, class: &str| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "shop", "uid": uid}, "spec": {"c": class}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}});
        let before = json!([{"claims": [claim("a", "1", "x"), claim("b", "2", "x"), claim("c", "3", "x"), claim("mine", "4", "x")], "pods": [pod]}]);
        let now = json!([{"claims": [claim("a", "1", "y"), claim("b", "9", "x"), claim("d", "5", "x"), claim("mine", "8", "z")], "pods": []}]);
        let touched = |object: &str| object == "PersistentVolumeClaim:shop/mine";
        assert_eq!(
            changes(&before, &now, touched),
            [
                "PersistentVolumeClaim:shop/a was changed",
                "PersistentVolumeClaim:shop/b was deleted and made anew",
                "PersistentVolumeClaim:shop/c is gone",
                "PersistentVolumeClaim:shop/d is new",
            ]
        );
    }
}
