//! Two answers, and what their difference is worth: equal, allowed by a line of `allowed.yaml`, refused by the server in
//! words, or wrong.

use super::normal::Answer;
use super::root;
use serde::Deserialize;
use serde_json::Value;

/// One line of `tests/conformance/allowed.yaml`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// `topic/story`; `*` at the end stands for any.
    pub story: String,
    /// The step's number, from 0, or none for each.
    pub step: Option<usize>,
    /// Pointer into `{code, type, retryAfter, body}`; all below it is allowed; a part `*` is any part.
    pub pointer: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Equal,
    /// By the reasons of these.
    Allowed(Vec<Allowed>),
    /// What is not simulated, in the server's words.
    Refused(String),
    Wrong(Vec<Difference>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub pointer: String,
    pub expected: Value,
    pub got: Value,
}

/// With these words a server says no for itself rather than for Kubernetes.
const REFUSAL: &str = "lab does not simulate";
const REFUSING: [u16; 7] = [400, 403, 405, 406, 415, 422, 501];

pub fn table() -> Vec<Allowed> {
    let path = root().join("tests/conformance/allowed.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines: Option<Vec<Allowed>> = serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("allowed.yaml: {e}"));
    lines.unwrap_or_default()
}

/// Judges one step of `story` (as `topic/story`).
pub fn judge(story: &str, step: usize, expected: &Answer, got: &Answer, allowed: &[Allowed]) -> Verdict {
    let mut differences = Vec::new();
    let (whole, other) = (as_value(expected), as_value(got));
    differ("", &whole, &other, &mut differences);
    if differences.is_empty() {
        return Verdict::Equal;
    }
    if let Some(words) = refusal(got) {
        return Verdict::Refused(words);
    }
    let here = |line: &&Allowed| matches(&line.story, story) && line.step.is_none_or(|only| only == step);
    let lines: Vec<&Allowed> = allowed.iter().filter(here).collect();
    let (mut reasons, mut wrong) = (Vec::new(), Vec::new());
    for difference in differences {
        match lines.iter().find(|line| covers(&line.pointer, &difference.pointer)) {
            Some(line) if !reasons.contains(*line) => reasons.push((*line).clone()),
            Some(_) => {}
            None => wrong.push(difference),
        }
    }
    if wrong.is_empty() { Verdict::Allowed(reasons) } else { Verdict::Wrong(wrong) }
}

/// The server's words, if it said no because it does not simulate something.
pub fn refusal(got: &Answer) -> Option<String> {
    let causes = got.body["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut said = causes
        .iter()
        .map(|cause| &cause["message"])
        .chain([&got.body["message"], &got.body["/message"]])
        .filter_map(Value::as_str);
    let words = said.find(|words| words.contains(REFUSAL))?;
    REFUSING.contains(&got.code).then(|| words.to_owned())
}

fn as_value(answer: &Answer) -> Value {
    serde_json::json!({
        "code": answer.code, "type": answer.content, "retryAfter": answer.retry_after, "body": answer.body,
    })
}

/// Where two values differ. Objects have no order, lists do.
pub fn differ(pointer: &str, expected: &Value, got: &Value, found: &mut Vec<Difference>) {
    match (expected, got) {
        (Value::Object(one), Value::Object(two)) => {
            let added = two.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(added) {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                let pointer = format!("{pointer}/{escaped}");
                match (one.get(key), two.get(key)) {
                    (Some(one), Some(two)) => differ(&pointer, one, two, found),
                    (Some(one), None) => found.push(one_sided(pointer, Some(one), None)),
                    (None, Some(two)) => found.push(one_sided(pointer, None, Some(two))),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            for (n, (one, two)) in one.iter().zip(two).enumerate() {
                differ(&format!("{pointer}/{n}"), one, two, found);
            }
        }
        _ if expected == got => {}
        _ => found.push(Difference { pointer: pointer.to_owned(), expected: expected.clone(), got: got.clone() }),
    }
}

/// A key that is on one side only. Null that is there is not the same as no key: a client can tell.
fn one_sided(pointer: String, expected: Option<&Value>, got: Option<&Value>) -> Difference {
    let shown = |value: Option<&Value>| value.cloned().unwrap_or_else(|| Value::String("(none)".to_owned()));
    Difference { pointer, expected: shown(expected), got: shown(got) }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern == name || pattern.strip_suffix('*').is_some_and(|start| name.starts_with(start))
}

fn covers(pattern: &str, pointer: &str) -> bool {
    let mut parts = pointer.split('/');
    pattern.split('/').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(code: u16, body: Value) -> Answer {
        Answer { step: "GET /".into(), code, content: "application/json".into(), retry_after: None, body }
    }

    #[test]
    fn the_same_is_equal_in_any_order_of_keys() {
        let one = answer(200, json!({"a": 1, "b": [1, 2]}));
        let two = answer(200, json!({"b": [1, 2], "a": 1}));
        assert_eq!(judge("t/s", 0, &one, &two, &[]), Verdict::Equal);
    }

    #[test]
    fn a_difference_is_wrong_unless_a_line_allows_it() {
        let one = answer(200, json!({"status": {"phase": "Bound"}}));
        let two = answer(200, json!({"status": {"phase": "Lost"}}));
        let Verdict::Wrong(differences) = judge("t/s", 0, &one, &two, &[]) else { panic!("not wrong") };
        assert_eq!(differences[0].pointer, "/body/status/phase");
        for (story, step, pointer, is_allowed) in [
            ("t/s", None, "/body/status", true),
            ("t/*", Some(0), "/body/*/phase", true),
            ("t/s", Some(1), "/body/status", false),
            ("t/other", None, "/body/status", false),
            ("t/s", None, "/body/spec", false),
        ] {
            let line = Allowed { story: story.into(), step, pointer: pointer.into(), reason: "r".into() };
            let verdict = judge("t/s", 0, &one, &two, std::slice::from_ref(&line));
            assert_eq!(verdict == Verdict::Allowed(vec![line.clone()]), is_allowed, "{line:?}");
        }
    }

    #[test]
    fn only_the_words_make_a_refusal() {
        let one = answer(201, json!({}));
        let silent = answer(501, json!({"message": "no"}));
        assert!(matches!(judge("t/s", 0, &one, &silent, &[]), Verdict::Wrong(_)));
        let cause = "pvmigrate lab does not simulate server-side apply";
        let spoken = answer(415, json!({"details": {"causes": [{"message": cause}]}}));
        assert_eq!(judge("t/s", 0, &one, &spoken, &[]), Verdict::Refused(cause.into()));
    }
}
