//! `pvmigrate doc [NAME]`

use super::{Failure, Global, Output, ui};
use crate::repl::help::{self, right};
use crate::script::primitives::{self, CONTROLS};
use crate::trial::words::{self, WORDS};
use crate::words::{Problem, names};
use serde_json::json;

/// Print what scripts can do: all primitives, or one in full
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a primitive, or of a word of tests
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The whole reference as Markdown
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
    /// The words that only tests have, instead of the primitives
    #[arg(long, conflicts_with = "name")]
    tests: bool,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    if args.markdown {
        ui::print(if args.tests { words_markdown() } else { markdown() }.trim_end());
        return Ok(());
    }
    match &args.name {
        Some(name) => one(global, name),
        None if args.tests => tests(global),
        None => all(global),
    }
}

fn all(global: &Global) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for p in primitives::all() {
        rows.push(json!({"name": p.name, "effect": p.effect.word(), "what": p.doc.lines().next().unwrap_or_default(), "signature": p.signature(), "example": p.example}));
    }
    for c in CONTROLS {
        rows.push(json!({"name": c.name, "effect": "controls", "what": c.doc.lines().next().unwrap_or_default(), "signature": c.signature, "example": c.example}));
    }
    if global.output == Output::Json {
        ui::print_json(&json!(rows));
    } else {
        ui::print_table(&rows, &["name", "effect", "what"]);
        ui::talk("more of one: pvmigrate doc NAME");
    }
    Ok(())
}

fn tests(global: &Global) -> Result<(), Failure> {
    let rows: Vec<_> = WORDS.iter().map(|word| {
        json!({"name": word.name, "what": first(word.doc), "signature": word.signature, "example": word.example})
    }).collect();
    if global.output == Output::Json {
        ui::print_json(&json!(rows));
    } else {
        ui::print_table(&rows, &["name", "what"]);
        ui::talk("more of one: pvmigrate doc NAME · how to write tests: docs/testing.md");
    }
    Ok(())
}

/// The first sentence.
fn first(doc: &str) -> &str {
    let line = doc.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(sentence, _)| sentence).trim_end_matches('.')
}

fn one(global: &Global, name: &str) -> Result<(), Failure> {
    if let Some(p) = primitives::find(name)
        && global.output == Output::Json
    {
        ui::print_json(
            &json!({"name": p.name, "signature": p.signature(), "doc": p.doc, "effect": p.effect.word(), "example": p.example,
            "options": p.options.iter().map(|o| json!({"name": o.name, "type": o.ty.word(), "doc": o.doc})).collect::<Vec<_>>(),
            "rights": p.rights}),
        );
        return Ok(());
    }
    if let Some(c) = CONTROLS.iter().find(|c| c.name == name)
        && global.output == Output::Json
    {
        ui::print_json(
            &json!({"name": c.name, "signature": c.signature, "doc": c.doc, "effect": "controls", "example": c.example}),
        );
        return Ok(());
    }
    if let Some(word) = words::find(name) {
        if global.output == Output::Json {
            let words::Word { name, signature, doc, example } = word;
            ui::print_json(
                &json!({"name": name, "signature": signature, "doc": doc, "effect": "tests", "example": example}),
            );
        } else {
            let example = word.example.replace('\n', "\n  ");
            ui::print(&format!("{}\n\n{}\n\nA word of tests. Example:\n  {example}", word.signature, word.doc));
        }
        return Ok(());
    }
    let Some(text) = help::primitive(name) else {
        let mut problem = Problem::usage(format!("there is no primitive `{}`", names::plain(name)));
        if let Some(word) = names::did_you_mean(name, primitives::names().chain(WORDS.iter().map(|word| word.name))) {
            problem = problem.hint(format!("did you mean `{word}`?"));
        }
        return Err(problem.hint("pvmigrate doc lists them all").into());
    };
    ui::print(text.trim_end());
    Ok(())
}

/// The second half of docs/testing.md
fn words_markdown() -> String {
    let mut text = String::new();
    for word in WORDS {
        let doc = word.doc.replace('\n', "\n\n");
        text.push_str(&format!(
            "### {}\n\n`{}`\n\n{doc}\n\n```rhai\n{}\n```\n\n",
            word.name, word.signature, word.example
        ));
    }
    text
}

/// docs/primitives.md
pub fn markdown() -> String {
    let mut text = String::from(
        "# Primitives\n\nMade by `pvmigrate doc --markdown`; a test holds it. Each example runs as it stands where a\nDeployment `web` uses the claims `data` and `logs` of class `slow` in the namespace `shop`, and a StatefulSet `db` its own;\nits value is true, and it leaves nothing of ours behind. A test runs them all.\n",
    );
    for (title, effect) in [
        ("Reads", primitives::Effect::Read),
        ("Writes", primitives::Effect::Write),
        ("Giving data up", primitives::Effect::Free),
    ] {
        text.push_str(&format!("\n## {title}\n"));
        for p in primitives::all().filter(|p| p.effect == effect) {
            text.push_str(&format!("\n### {}\n\n`{}`\n\n{}\n", p.name, p.signature(), p.doc.replace('\n', "\n\n")));
            if !p.options.is_empty() {
                text.push_str("\n| option | type | |\n|---|---|---|\n");
                for option in p.options {
                    text.push_str(&format!("| `{}` | {} | {} |\n", option.name, option.ty.word(), option.doc));
                }
            }
            let rights: Vec<String> =
                p.rights.iter().map(|(verb, group, resource)| right(verb, group, resource)).collect();
            text.push_str(&format!("\nRights: {}.\n\n```rhai\n{}\n```\n", rights.join("; "), p.example));
        }
    }
    text.push_str("\n## Control\n");
    for c in CONTROLS {
        text.push_str(&format!(
            "\n### {}\n\n`{}`\n\n{}\n\n```rhai\n{}\n```\n",
            c.name,
            c.signature,
            c.doc.replace('\n', "\n\n"),
            c.example
        ));
    }
    text
}
