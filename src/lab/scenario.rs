//! A cluster to begin with: YAML documents, applied in their order.
//!
//! Kubernetes objects as one would give them to kubectl, and `Files` documents of the lab's own, which fill a claim's
//! volume. Not a script: no waiting is written down; a `Files` document waits for its claim to be bound. What must stay
//! true: a document that is wrong is found before the first is applied, and named by file, line and reason.

mod files;

use super::Lab;
use super::access::User;
use super::handle::{Request, Verb};
use super::kind::{self, Kind};
use super::store::text;
use files::Files;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The example cluster.
pub const SHOP: &str = include_str!("../../tests/scenarios/shop.yaml");
/// What makes a trial worth looking at: bulk data and a writer.
pub const BULK: &str = include_str!("../../tests/scenarios/bulk.yaml");

/// The smallest that has everything: one claim, one workload that writes to it.
pub const SMALL: &str = include_str!("../../tests/scenarios/crash.yaml");

/// Documents that were read and checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    name: String,
    documents: Vec<Document>,
}

#[derive(Clone, Debug)]
struct Document {
    /// Where it begins, from 1.
    line: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Object(&'static Kind, Value),
    Files(Files),
}

/// What is wrong with a scenario, and where.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{scenario}:{line}: {why}")]
pub struct Wrong {
    pub scenario: String,
    pub line: usize,
    pub why: String,
}

/// A claim that a `Files` document waits for is bound after this time or never.
const BOUND_WITHIN: Duration = Duration::from_secs(30);

impl Scenario {
    /// Reads one; the name is for messages.
    ///
    /// # Errors
    /// The first document that is no object of a kind that the lab serves.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, Wrong> {
        let mut documents = Vec::new();
        let wrong = |line: usize, why: String| Wrong { scenario: name.to_owned(), line, why };
        for (start, document) in split(text) {
            let value: Value = serde_yaml_ng::from_str(document).map_err(|error| {
                let at = error.location().map_or(start, |location| start + location.line() - 1);
                // What is not closed is missed after the end.
                let at = at.min(text.lines().count().max(1));
                // The position within the document would only confuse.
                let why = error.to_string();
                wrong(at, why.split(" at line ").next().unwrap_or_default().to_owned())
            })?;
            if value.is_null() {
                continue;
            }
            let what = read(value).map_err(|why| wrong(first_line(start, document), why))?;
            documents.push(Document { line: first_line(start, document), what });
        }
        if documents.is_empty() {
            return Err(wrong(1, "it has no documents".to_owned()));
        }
        Ok(Scenario { name: name.to_owned(), documents })
    }

    /// The example cluster; with bulk data, or as small as tests want it.
    pub fn shop(with_bulk: bool) -> Scenario {
        let text = if with_bulk { format!("{SHOP}\n---\n{BULK}") } else { SHOP.to_owned() };
        Scenario::parse("shop", &text).expect("the example is tested")
    }

    /// One of those that need no file, for tests: `shop` or `small`.
    pub fn stock(name: &str) -> Option<Scenario> {
        match name {
            "shop" => Some(Scenario::shop(false)),
            "small" => Some(Scenario::parse("small", SMALL).expect("the example is tested")),
            _ => None,
        }
    }

    /// Puts it into a lab that is at work. Two nodes are made if the scenario has none.
    ///
    /// # Errors
    /// The first document that the lab refuses.
    pub fn apply(&self, lab: &Lab) -> Result<(), Wrong> {
        let has_nodes =
            self.documents.iter().any(|one| matches!(one.what, What::Object(kind, _) if kind.kind == "Node"));
        if !has_nodes {
            for name in ["node1", "node2"] {
                create(lab, kind::kind("Node"), node(name)).map_err(|why| self.wrong(1, why))?;
            }
        }
        for document in &self.documents {
            let outcome = match &document.what {
                What::Object(kind, object) => create(lab, kind, object.clone()),
                What::Files(files) => write(lab, files),
            };
            outcome.map_err(|why| self.wrong(document.line, why))?;
        }
        Ok(())
    }

    fn wrong(&self, line: usize, why: String) -> Wrong {
        Wrong { scenario: self.name.clone(), line, why }
    }
}

/// A node as the lab has them.
pub fn node(name: &str) -> Value {
    let number = name.bytes().last().filter(u8::is_ascii_digit).unwrap_or(b'1') - b'0';
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        }},
        "status": {
            "capacity": {"cpu": "8", "memory": "16Gi", "pods": "1000", "ephemeral-storage": "100Gi"},
            "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "1000", "ephemeral-storage": "100Gi"},
            "addresses": [
                {"type": "InternalIP", "address": format!("10.0.0.{number}")}, {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "kubeletVersion": super::VERSION, "osImage": "pvmigrate lab", "containerRuntimeVersion": "lab://1",
                "kernelVersion": "", "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "",
                "systemUUID": "", "kubeProxyVersion": super::VERSION,
            },
        },
    })
}

fn read(value: Value) -> Result<What, String> {
    let (version, word) = (text(&value["apiVersion"]), text(&value["kind"]));
    if version.starts_with("lab.pvmigrate.io/") {
        return match (version, word) {
            ("lab.pvmigrate.io/v1", "Files") => {
                serde_json::from_value(value).map(What::Files).map_err(|e| format!("Files: {e}"))
            }
            _ => Err(format!("the lab has no {word} of {version}: it knows Files of lab.pvmigrate.io/v1")),
        };
    }
    let kind = kind::find(word).filter(|kind| kind.api_version() == version).ok_or_else(|| {
        let what = if word.is_empty() { "a document without kind" } else { word };
        let known = kind::find(word).map(|kind| format!(": it is served as {}", kind.api_version()));
        format!("the lab does not serve {what} of {version:?}{}", known.unwrap_or_default())
    })?;
    let meta = &value["metadata"];
    if text(&meta["name"]).is_empty() && text(&meta["generateName"]).is_empty() {
        return Err(format!("{word} without metadata.name"));
    }
    Ok(What::Object(kind, value))
}

fn create(lab: &Lab, kind: &'static Kind, mut object: Value) -> Result<(), String> {
    let status = object.as_object_mut().and_then(|map| map.remove("status"));
    let name = text(&object["metadata"]["name"]).to_owned();
    let namespace = match (kind.namespaced, text(&object["metadata"]["namespace"])) {
        (false, _) => String::new(),
        (true, "") => "default".to_owned(),
        (true, namespace) => namespace.to_owned(),
    };
    let ask = |verb: Verb, name: &str, sub: &str, body: Value| Request {
        verb,
        kind,
        namespace: namespace.clone(),
        name: name.to_owned(),
        sub: sub.to_owned(),
        query: BTreeMap::new(),
        body,
        user: User::admin(),
    };
    let failed = |status: super::status::Status| format!("{} {name}: {}", kind.kind, status.message);
    let made = match lab.core().request(&ask(Verb::Create, "", "", object)) {
        // What every cluster has may be in a scenario too.
        Err(status) if status.reason == "AlreadyExists" && kind.kind == "Namespace" => return Ok(()),
        other => other.map_err(failed)?,
    };
    if let Some(status) = status
        && kind.subresources.contains(&"status")
    {
        let mut new = (*made.object).clone();
        new["status"] = status;
        // Nobody else is told apart from the maker here: a controller may have been faster.
        new["metadata"].as_object_mut().and_then(|meta| meta.remove("resourceVersion"));
        lab.core()
            .request(&ask(Verb::Update, text(&made.object["metadata"]["name"]), "status", new))
            .map_err(failed)?;
    }
    Ok(())
}

fn write(lab: &Lab, files: &Files) -> Result<(), String> {
    let (namespace, claim) = (&files.metadata.namespace, &files.metadata.name);
    let dir = lab.volume_of(namespace, claim, BOUND_WITHIN).ok_or_else(|| {
        format!(
            "Files: the claim {namespace}/{claim} is not bound: place the document after its claim and what binds it"
        )
    })?;
    files.write(&dir).map_err(|error| format!("Files: {}: {error}", dir.display()))
}

/// The documents with the lines on which they begin.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut begin, mut at) = (1, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            documents.push((start, &text[begin..at]));
            (start, begin) = (number + 2, at + line.len());
        }
        at += line.len();
    }
    documents.push((start, &text[begin..]));
    documents
}

/// The first line that says something.
fn first_line(start: usize, document: &str) -> usize {
    let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    start + document.lines().take_while(blank).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let said = |text: &str| Scenario::parse("s.yaml", text).unwrap_err().to_string();
        assert_eq!(said(""), "s.yaml:1: it has no documents");
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# a comment\nkind: Pod\n";
        assert_eq!(said(text), "s.yaml:6: the lab does not serve Pod of \"\": it is served as v1");
        assert!(said("apiVersion: v1\nkind: [\n").starts_with("s.yaml:"), "{}", said("apiVersion: v1\nkind: [\n"));
        assert_eq!(said("apiVersion: v1\nkind: Secret\n"), "s.yaml:1: Secret without metadata.name");
        let files = "apiVersion: lab.pvmigrate.io/v1\nkind: Files\nmetadata: {name: data}\nspec: {wrong: 1}\n";
        assert!(said(files).contains("unknown field"), "{}", said(files));
    }

    #[test]
    fn the_examples_are_right() {
        assert!(Scenario::stock("small").is_some() && Scenario::stock("none").is_none());
        assert!(Scenario::shop(true).documents.len() > Scenario::shop(false).documents.len());
    }
}
