//! Makes answers comparable: what no two runs share is replaced by what it stands for, and nothing else.
//!
//! uid → U1…, in the order of their appearance in the story; revisions → R1… of each object, in order; times → T;
//! generated endings → G; template hashes → H; addresses → IP; the words of the server back to `<word>`. Of a message
//! with a Go diff only the first line is kept. `managedFields`, `selfLink` and the prose of columns are dropped. Lists are sorted unless
//! their order is under test.

use super::run::{Heard, Told};
use super::server::Server;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a step brought, comparable.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub step: String,
    pub code: u16,
    pub content: String,
    pub retry_after: Option<String>,
    pub body: Value,
}

/// Kinds that no controller writes: their revisions are compared, by order.
const STILL: [&str; 5] = ["ConfigMap", "Lease", "StorageClass", "VolumeAttachment", "Scale"];
/// Values of these keys are hashes of templates, at their end after a dash.
const HASHES: [&str; 4] = ["pod-template-hash", "controller-revision-hash", "currentRevision", "updateRevision"];
const DROPPED: [&str; 2] = ["managedFields", "selfLink"];
/// A server's own, in every namespace.
const AUTHORITY: &str = "kube-root-ca.crt";
const MACHINES: [&str; 7] = ["containerID", "imageID", "image", "hostIP", "podIP", "ip", "podIPs"];
/// Table columns that show time or place.
const MOVING: [&str; 8] = ["Age", "Last Seen", "First Seen", "Duration", "IP", "Node", "Images", "Restarts"];

pub fn normal(_server: &Server, told: &Told) -> Vec<Answer> {
    let mut seen = Seen { words: told.words.clone(), ..Seen::default() };
    for heard in &told.heard {
        seen.collect(&heard.body);
    }
    told.heard.iter().map(|heard| seen.answer(heard)).collect()
}

#[derive(Default)]
struct Seen {
    words: BTreeMap<String, String>,
    uids: Vec<String>,
    hashes: Vec<String>,
    generated: Vec<(String, String)>,
    revisions: BTreeMap<String, Vec<u64>>,
}

impl Seen {
    /// What must be known before the first value is replaced.
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                if let (Some(base), Some(name)) = (map.get("generateName"), map.get("name"))
                    && let (Some(base), Some(name)) = (base.as_str(), name.as_str())
                    && name.len() > base.len()
                    && name.starts_with(base)
                    // Pods of a StatefulSet have a number there, which is no ending; an ending may be digits, too.
                    && (name.len() == base.len() + 5 || !name[base.len()..].chars().all(|c| c.is_ascii_digit()))
                {
                    let pair = (name[base.len()..].to_owned(), name.to_owned());
                    if !self.generated.contains(&pair) {
                        self.generated.push(pair);
                    }
                }
                for (key, value) in map {
                    if HASHES.contains(&key.as_str())
                        && let Some(hash) = value.as_str().and_then(|value| value.rsplit('-').next())
                        && !hash.is_empty()
                        && !self.hashes.iter().any(|known| known == hash)
                    {
                        self.hashes.push(hash.to_owned());
                    }
                    self.collect(value);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            _ => {}
        }
    }

    fn answer(&mut self, heard: &Heard) -> Answer {
        let mut body = heard.body.clone();
        let wish = &heard.wish;
        let is_still =
            STILL.iter().any(|kind| body["kind"].as_str().is_some_and(|is| is.trim_end_matches("List") == *kind))
                || wish.revisions;
        table(&mut body);
        if let Some(pointers) = &wish.see {
            body = watched(&body, &|object| projection(object, pointers));
        }
        self.prune(&mut body);
        if !wish.ordered {
            self.sort(&mut body);
        }
        self.replace(&mut body, &mut None, is_still);
        for pointer in &wish.mask {
            let parts: Vec<&str> = pointer.split('/').skip(1).collect();
            mask(&mut body, &parts);
        }
        if body["watch"].is_array() && !wish.ordered {
            body = per_object(&body);
        }
        if let (false, Some(events)) = (wish.ordered, body.get_mut("events").and_then(Value::as_array_mut)) {
            events.sort_by_key(Value::to_string);
            events.dedup();
        }
        Answer {
            step: heard.step.clone(),
            code: heard.code,
            content: heard.content.clone(),
            retry_after: heard.retry_after.clone(),
            body,
        }
    }

    fn prune(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in DROPPED {
                    map.shift_remove(key);
                }
                if let Some(labels) = map.get_mut("labels").and_then(Value::as_object_mut) {
                    // The sweep's, of either server.
                    let sweeps: Vec<String> =
                        labels.keys().filter(|key| key.starts_with("world.test/")).cloned().collect();
                    for key in &sweeps {
                        labels.shift_remove(key);
                    }
                    if !sweeps.is_empty() && labels.is_empty() {
                        map.shift_remove("labels");
                    }
                }
                if let Some(items) = map.get_mut("items").and_then(Value::as_array_mut) {
                    items.retain(|item| item["metadata"]["name"] != AUTHORITY);
                }
                if let Some(events) = map.get_mut("watch").and_then(Value::as_array_mut) {
                    events.retain(|event| event["object"]["metadata"]["name"] != AUTHORITY);
                }
                if let Some(columns) = map.get_mut("columnDefinitions").and_then(Value::as_array_mut) {
                    // Prose for people.
                    for column in columns.iter_mut().filter_map(Value::as_object_mut) {
                        column.shift_remove("description");
                    }
                }
                map.values_mut().for_each(|value| self.prune(value));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.prune(value)),
            _ => {}
        }
    }

    fn sort(&self, body: &mut Value) {
        if let Some(events) = body.get_mut("watch").and_then(Value::as_array_mut) {
            // The order of one object's events stays.
            events.sort_by_cached_key(|event| {
                let object = &event["object"];
                let name = object["metadata"]["name"].as_str().or(object["metadata.name"].as_str());
                name.map(|name| self.shown(name))
            });
        }
        for key in ["items", "rows"] {
            if let Some(items) = body.get_mut(key).and_then(Value::as_array_mut) {
                items.sort_by_cached_key(|item| {
                    let mut blind = item.clone();
                    let mut nobody = Seen { words: self.words.clone(), hashes: self.hashes.clone(), ..Seen::default() };
                    nobody.generated.clone_from(&self.generated);
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    let name = nobody.text(name);
                    nobody.replace(&mut blind, &mut None, false);
                    (name, blind.to_string())
                });
            }
        }
    }

    /// A name as it will be shown: for sorting before anything is numbered.
    fn shown(&self, name: &str) -> String {
        let mut nobody = Seen { words: self.words.clone(), hashes: self.hashes.clone(), ..Seen::default() };
        nobody.generated.clone_from(&self.generated);
        nobody.text(name)
    }

    fn replace(&mut self, value: &mut Value, object: &mut Option<String>, is_still: bool) {
        match value {
            Value::Object(map) => {
                let own = map.get("uid").and_then(Value::as_str).map(str::to_owned);
                let mut inner = own.or_else(|| object.clone());
                for (key, value) in map.iter_mut() {
                    self.member(key, value, &mut inner, is_still);
                }
                let renamed: Vec<(String, String)> =
                    map.keys().map(|key| (key.clone(), self.text(key))).filter(|(old, new)| old != new).collect();
                for (old, new) in renamed {
                    let value = map.shift_remove(&old).unwrap_or_default();
                    map.insert(new, value);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.replace(value, object, is_still)),
            Value::String(text) => *text = self.text(text),
            _ => {}
        }
    }

    fn member(&mut self, key: &str, value: &mut Value, object: &mut Option<String>, is_still: bool) {
        match (key, value.as_str()) {
            ("resourceVersion", Some(text)) => {
                let rank = match (text.parse(), &object) {
                    (Ok(revision), Some(uid)) if is_still => self.rank(uid.clone(), revision),
                    (Ok(0) | Err(_), _) => return,
                    _ => "R".to_owned(),
                };
                *value = json!(rank);
            }
            ("continue", Some(text)) if !text.is_empty() => *value = json!("<continue>"),
            (key, Some(text)) if MACHINES.contains(&key) && !text.is_empty() => {
                let is_agent = self.words.get("agent").is_some_and(|agent| text.ends_with(agent.as_str()));
                if key != "image" || is_agent || text.starts_with("sha256:") {
                    *value = json!(format!("<{key}>"));
                }
            }
            ("podIPs", None) => *value = json!("<podIPs>"),
            _ => self.replace(value, object, is_still),
        }
    }

    fn rank(&mut self, uid: String, revision: u64) -> String {
        let ranks = self.revisions.entry(uid).or_default();
        if let Some(n) = ranks.iter().position(|known| *known == revision) {
            return format!("R{}", n + 1);
        }
        if ranks.last().is_some_and(|last| *last > revision) {
            return "R-back".to_owned();
        }
        ranks.push(revision);
        format!("R{}", ranks.len())
    }

    fn text(&mut self, text: &str) -> String {
        // The picture of a difference that some messages end with: indented with common or no-break spaces, by a coin that
        // is tossed when the server starts.
        let text = &text.replace('\u{a0}', " ");
        let first = text.split("\n  ").next().unwrap_or_default();
        let mut new = printed(if text.contains("\n  ") { first.trim_end_matches('\n') } else { text });
        for (word, value) in &self.words {
            let takes = ["ns", "dir", "agent", "provisioner"].contains(&word.as_str());
            if value.is_empty() {
                continue;
            }
            if takes {
                new = new.replace(value.as_str(), &format!("<{word}>"));
            } else if ["class", "late"].contains(&word.as_str()) {
                if new == *value {
                    new = format!("<{word}>");
                }
                new = new.replace(&format!("\"{value}\""), &format!("\"<{word}>\""));
            }
        }
        new = self.ids(&new);
        for (ending, name) in &self.generated {
            let masked = format!("{}G", &name[..name.len() - ending.len()]);
            new = new.replace(name.as_str(), &masked);
        }
        for hash in &self.hashes {
            new = whole_word(&new, hash, "H");
        }
        times(&revisions_in(&addresses(&endings(&new))))
    }

    /// Uids, wherever they stand.
    fn ids(&mut self, text: &str) -> String {
        let mut new = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = (0..rest.len()).find(|at| is_uid(rest.as_bytes().get(*at..at + 36))) {
            let uid = &rest[at..at + 36];
            let n = self.uids.iter().position(|known| known == uid).unwrap_or_else(|| {
                self.uids.push(uid.to_owned());
                self.uids.len() - 1
            });
            new += &rest[..at];
            new += &format!("U{}", n + 1);
            rest = &rest[at + 36..];
        }
        new + rest
    }
}

fn is_uid(bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| {
        // Uids that a story invents are of one digit; they stay.
        let is_made = bytes.iter().any(|byte| *byte != bytes[0] && *byte != b'-');
        is_made
            && bytes.iter().enumerate().all(|(n, byte)| match n {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
            })
    })
}

/// What a message prints of the server's insides: pointers, whole objects, and what stands around a fault in a body.
fn printed(text: &str) -> String {
    let mut new = text.to_owned();
    while let Some(at) = new.find("(0xc") {
        let end = new[at..].find(')').map_or(new.len(), |end| at + end);
        new.replace_range(at + 1..end, "pointer");
    }
    if let (Some(from), Some(to)) = (new.find("Invalid value: \"{\\\""), new.rfind("}\": "))
        && from < to
    {
        new.replace_range(from + "Invalid value: \"".len()..=to, "<object>");
    }
    for intro in [", error found in #", ", bigger context "] {
        if let Some(at) = new.find(intro) {
            new.truncate(at);
        }
    }
    new
}

/// Replaces a word that is not a part of a longer one.
fn whole_word(text: &str, word: &str, by: &str) -> String {
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let before = rest[..at].chars().next_back().or_else(|| new.chars().next_back());
        let after = rest[at + word.len()..].chars().next();
        let is_whole = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
        new += &rest[..at];
        new += if is_whole(before) && is_whole(after) { by } else { word };
        rest = &rest[at + word.len()..];
    }
    new + rest
}

/// Endings that servers make: of events (16 hexadecimal digits after a dot) and of tokens' secrets.
fn endings(text: &str) -> String {
    if let Some((head, tail)) = text.rsplit_once('.')
        && tail.len() == 16
        && tail.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return format!("{head}.G");
    }
    match text.split_once("-token-") {
        Some((head, tail)) if tail.len() == 5 => format!("{head}-token-G"),
        _ => text.to_owned(),
    }
}

fn addresses(text: &str) -> String {
    let is_address =
        |word: &str| word.split('.').count() == 4 && word.split('.').all(|part| part.parse::<u8>().is_ok());
    let words: Vec<&str> = text.split(' ').collect();
    words.iter().map(|word| if is_address(word) { "IP" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Revisions in messages: each after the words that introduce it.
fn revisions_in(text: &str) -> String {
    let mut new = text.to_owned();
    let intros = ["does not match the ResourceVersion in record (", ", current: ", "too old resource version: 1 ("];
    for intro in intros.iter().chain(&["resourceVersion: "]) {
        if let Some(at) = new.find(intro).map(|at| at + intro.len()) {
            let digits = new[at..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                new.replace_range(at..at + digits, "R");
            }
        }
    }
    new
}

/// `2026-11-21T02:28:32Z`, with or without a fraction.
fn times(text: &str) -> String {
    let is_time = |bytes: &[u8]| {
        bytes.iter().enumerate().all(|(n, byte)| match n {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
    };
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = (0..rest.len()).find(|at| rest.as_bytes().get(*at..at + 19).is_some_and(is_time)) {
        let tail = &rest[at + 19..];
        // A story's own times are of the year 2000; they stay.
        let Some(end) = tail.find('Z').filter(|_| !rest[at..].starts_with("2000-")) else {
            new += &rest[..at + 19];
            rest = tail;
            continue;
        };
        new += &rest[..at];
        new += "T";
        rest = &tail[end + 1..];
    }
    new + rest
}

/// Cells that show time or place.
fn table(body: &mut Value) {
    if let Some(events) = body.get_mut("watch").and_then(Value::as_array_mut) {
        let columns = events.iter().find_map(|event| event["object"].get("columnDefinitions")).cloned();
        for event in events {
            if let Some(object) = event.get_mut("object") {
                cells(object, columns.as_ref());
            }
        }
    } else {
        let columns = body.get("columnDefinitions").cloned();
        cells(body, columns.as_ref());
    }
}

fn cells(table: &mut Value, columns: Option<&Value>) {
    let names: Vec<String> = columns
        .and_then(Value::as_array)
        .map(|columns| columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect())
        .unwrap_or_default();
    let Some(rows) = table.get_mut("rows").and_then(Value::as_array_mut) else { return };
    for row in rows {
        let Some(cells) = row.get_mut("cells").and_then(Value::as_array_mut) else { continue };
        for (cell, name) in cells.iter_mut().zip(&names) {
            if MOVING.contains(&name.as_str()) {
                *cell = json!("<moving>");
            }
        }
    }
}

/// The pointers' values of an object, of each item of a list, or of the object of each watch event.
fn watched(body: &Value, project: &impl Fn(&Value) -> Value) -> Value {
    if let Some(events) = body["watch"].as_array() {
        let events = events.iter().map(|event| {
            let mut shown = project(&event["object"]);
            if let Some(name) = event["object"]["metadata"]["name"].as_str() {
                shown["metadata.name"] = json!(name);
            }
            json!({"type": event["type"], "object": shown})
        });
        return json!({"watch": events.collect::<Vec<_>>()});
    }
    if let Some(items) = body["items"].as_array() {
        return json!({"items": items.iter().map(project).collect::<Vec<_>>()});
    }
    project(body)
}

fn projection(object: &Value, pointers: &[String]) -> Value {
    let mut shown = Map::new();
    for pointer in pointers {
        if let Some(value) = object.pointer(pointer) {
            shown.insert(pointer.clone(), value.clone());
        }
    }
    Value::Object(shown)
}

fn mask(value: &mut Value, parts: &[&str]) {
    let Some((first, rest)) = parts.split_first() else {
        *value = json!("<masked>");
        return;
    };
    if *first == "*" {
        if let Some(values) = value.as_array_mut() {
            values.iter_mut().for_each(|value| mask(value, rest));
        }
    } else if let Some(inner) = value.pointer_mut(&format!("/{first}")) {
        mask(inner, rest);
    }
}

/// The events of a watch, by object; the same thing said twice in a row is said once.
fn per_object(body: &Value) -> Value {
    let mut objects: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in body["watch"].as_array().into_iter().flatten() {
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().or(object["metadata.name"].as_str());
        let list = objects.entry(name.unwrap_or("-").to_owned()).or_default();
        if list.last() != Some(event) {
            list.push(event.clone());
        }
    }
    json!({"watch": objects})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_two_runs_share_is_replaced() {
        let mut seen = Seen::default();
        seen.words.insert("ns".into(), "story-ghjklm".into());
        seen.collect(&json!({"pod-template-hash": "5967c74c68"}));
        seen.collect(&json!({"generateName": "d-5967c74c68-", "name": "d-5967c74c68-x7k2p"}));
        seen.collect(&json!({"generateName": "x-", "name": "x-86854"}));
        seen.collect(&json!({"generateName": "db-", "name": "db-0"}));
        for (text, want) in [
            ("pvc-119d4bc6-eefe-4998-b921-d2740a58e44d", "pvc-U1"),
            ("119d4bc6-eefe-4998-b921-d2740a58e44d", "U1"),
            ("11111111-1111-1111-1111-111111111111", "11111111-1111-1111-1111-111111111111"),
            ("2026-11-21T02:28:32Z", "T"),
            ("at 2026-11-21T02:28:32.123456Z.", "at T."),
            ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
            ("d-5967c74c68-x7k2p", "d-H-G"),
            ("x-86854", "x-G"),
            ("db-0", "db-0"),
            ("/registry/configmaps/story-ghjklm/a", "/registry/configmaps/<ns>/a"),
            ("j.18e9eebef29b5180", "j.G"),
            ("default-token-x7k2p", "default-token-G"),
            ("10.244.1.7", "IP"),
            ("Too large resource version: 99999999, current: 205", "Too large resource version: 99999999, current: R"),
            ("spec is immutable\n  core.Spec{\n", "spec is immutable"),
            ("spec is immutable\n\u{a0}\u{a0}core.Spec{\n", "spec is immutable"),
            ("core.A{B:(*bool)(0xc014558618)}: no", "core.A{B:(*bool)(pointer)}: no"),
            (r#"patch: Invalid value: "{\"a\":{\"b\":1}}": no"#, r#"patch: Invalid value: "<object>": no"#),
            ("expects \" or n, error found in #10 byte of ...|x", "expects \" or n"),
            ("two lines\n", "two lines\n"),
        ] {
            assert_eq!(seen.text(text), want);
        }
    }

    #[test]
    fn revisions_keep_their_order_object_by_object() {
        let mut seen = Seen::default();
        let mut said = Vec::new();
        for revision in ["199", "205", "199", "300"] {
            let mut body = json!({"metadata": {"uid": "u", "resourceVersion": revision}});
            seen.replace(&mut body, &mut None, true);
            said.push(super::super::run::text(&body["metadata"]["resourceVersion"]));
        }
        assert_eq!(said, ["R1", "R2", "R1", "R3"]);
    }
}
