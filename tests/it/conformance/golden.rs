//! What the real server said: `tests/golden/api/<topic>.json`, one line a step, so that a change of it can be read.

use super::normal::Answer;
use super::root;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Story → what was said.
pub type Said = BTreeMap<String, Vec<Answer>>;

fn file(topic: &str) -> PathBuf {
    root().join("tests/golden/api").join(format!("{topic}.json"))
}

pub fn write(topic: &str, version: &str, said: &Said) {
    let mut text = format!("{{\n\"server\": {},\n\"stories\": {{\n", json!(version));
    for (n, (story, answers)) in said.iter().enumerate() {
        let lines: Vec<String> = answers.iter().map(|answer| format!("  {}", line(answer))).collect();
        let comma = if n + 1 < said.len() { "," } else { "" };
        let inner = if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join(",\n")) };
        writeln!(text, "{}: [{inner}]{comma}", json!(story)).expect("a string can be written to");
    }
    text += "}\n}\n";
    let path = file(topic);
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn line(answer: &Answer) -> Value {
    let mut line = json!({"step": answer.step, "code": answer.code});
    if answer.content != plain(&line) {
        line["type"] = json!(answer.content);
    }
    if let Some(after) = &answer.retry_after {
        line["retryAfter"] = json!(after);
    }
    line["body"] = answer.body.clone();
    line
}

/// None if nothing is recorded for the topic.
pub fn read(topic: &str) -> Option<Said> {
    let path = file(topic);
    let text = std::fs::read_to_string(&path).ok()?;
    let whole: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let stories = whole["stories"].as_object().expect("the file has stories");
    Some(stories.iter().map(|(name, lines)| (name.clone(), answers(lines))).collect())
}

fn answers(lines: &Value) -> Vec<Answer> {
    let lines = lines.as_array().expect("a story is a list of lines");
    let one = |line: &Value| Answer {
        step: line["step"].as_str().unwrap_or_default().to_owned(),
        code: line["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default(),
        content: line["type"].as_str().map_or_else(|| plain(line), str::to_owned),
        retry_after: line["retryAfter"].as_str().map(str::to_owned),
        body: line["body"].clone(),
    };
    lines.iter().map(one).collect()
}

/// JSON is not said in each line; waits and events have no content type at all.
fn plain(line: &Value) -> String {
    let step = line["step"].as_str().unwrap_or_default();
    let is_request = ["GET ", "POST ", "PUT ", "PATCH ", "DELETE "].iter().any(|method| step.starts_with(method));
    if is_request { "application/json".to_owned() } else { String::new() }
}

#[test]
fn every_story_has_a_recorded_answer() {
    let mut missing = Vec::new();
    for topic in super::story::topics() {
        let said = read(&topic.name).unwrap_or_default();
        let names = topic.stories.iter().map(|story| &story.name);
        missing.extend(names.filter(|name| !said.contains_key(*name)).map(|name| format!("{}/{name}", topic.name)));
    }
    assert!(missing.is_empty(), "not recorded: {}", missing.join(", "));
}

#[test]
fn what_is_recorded_is_small_and_belongs_to_a_story() {
    let topics = super::story::topics();
    if std::env::var_os("PVMIGRATE_STORIES").is_some() {
        return;
    }
    let mut size = 0;
    for entry in std::fs::read_dir(root().join("tests/golden/api")).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        size += path.metadata().expect("it can be looked at").len();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let topic = topics.iter().find(|topic| topic.name == name);
        let topic = topic.unwrap_or_else(|| panic!("{}: there is no such topic", path.display()));
        for story in read(&name).unwrap_or_default().keys() {
            assert!(topic.stories.iter().any(|one| one.name == *story), "{name}/{story}: there is no such story");
        }
    }
    assert!(size < 2_000_000, "{size} bytes");
}
