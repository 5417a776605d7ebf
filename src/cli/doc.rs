//! `pvmigrate doc [NAME]`

use super::{Failure, Global, Output, ui};
use crate::repl::help::{self, right};
use crate::script::primitives::{self, CONTROLS};
use crate::words::{Problem, names};
use serde_json::json;

/// Print what scripts can do: all primitives, or one in full
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a primitive
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The whole reference as Markdown
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    if args.markdown {
        ui::print(markdown().trim_end());
        return Ok(());
    }
    match &args.name {
        Some(name) => one(global, name),
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
    let Some(text) = help::primitive(name) else {
        let mut problem = Problem::usage(format!("there is no primitive `{}`", names::plain(name)));
        if let Some(word) = names::did_you_mean(name, primitives::names()) {
            problem = problem.hint(format!("did you mean `{word}`?"));
        }
        return Err(problem.hint("pvmigrate doc lists them all").into());
    };
    ui::print(text.trim_end());
    Ok(())
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
