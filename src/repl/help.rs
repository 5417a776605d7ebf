//! What `:help` says, made from the tables of the primitives; `pvmigrate doc NAME` says the same.

use super::meta::WORDS;
use crate::script::primitives::{self, CONTROLS, Control, Primitive};
use crate::words::{Problem, names};

/// The list of all words, by what they do.
pub fn overview() -> String {
    let mut text =
        String::from("What is typed is Rhai, as in a script: list_pvs().filter(|pv| pv.class == \"slow\")\n");
    text.push_str("`_` is the last result. Tab completes; Ctrl-C stops what runs; Ctrl-D ends.\n");
    for (title, effect) in [
        ("These read", primitives::Effect::Read),
        ("These change the cluster, at once", primitives::Effect::Write),
        ("These give data up", primitives::Effect::Free),
    ] {
        section(&mut text, title, primitives::all().filter(|p| p.effect == effect).map(|p| (p.name, first(p.doc))));
    }
    section(&mut text, "Language", CONTROLS.iter().map(|c| (c.name, first(c.doc))));
    let words: Vec<(String, &str)> = WORDS.iter().map(|word| (word.usage(), word.doc)).collect();
    section(&mut text, "Words of the prompt", words.iter().map(|(usage, doc)| (usage.as_str(), *doc)));
    text.push_str("\nMore of one: :help NAME");
    text
}

fn section<'a>(text: &mut String, title: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    text.push_str(&format!("\n{title}:\n"));
    for (name, what) in entries {
        text.push_str(&format!("  {name:<20} {what}\n"));
    }
}

/// The first sentence.
fn first(doc: &str) -> &str {
    let line = doc.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(sentence, _)| sentence).trim_end_matches('.')
}

/// Everything about one name. `builtins` are the signatures of the language's own functions.
///
/// # Errors
/// If nothing has this name, with a guess.
pub fn of(name: &str, builtins: &[String]) -> Result<String, Problem> {
    let name = name.trim().trim_end_matches("()");
    if let Some(text) = primitive(name) {
        return Ok(text.trim_end().to_owned());
    }
    if let Some(word) = WORDS.iter().find(|word| word.name == name.trim_start_matches(':')) {
        return Ok(format!("{}\n\n{}.", word.usage(), word.doc));
    }
    let mut found: Vec<&str> = builtins
        .iter()
        .map(String::as_str)
        .filter(|one| one.split_once('(').is_some_and(|(own, _)| own.trim() == name))
        .collect();
    if !found.is_empty() {
        found.sort_unstable();
        found.dedup();
        return Ok(format!("{}\n\n`{name}` is part of the language: https://rhai.rs/book", found.join("\n")));
    }
    let mut problem = Problem::usage(format!("there is no `{}`", names::plain(name)));
    if let Some(word) = names::did_you_mean(name, primitives::names().chain(WORDS.iter().map(|word| word.name))) {
        problem = problem.hint(format!("did you mean `{word}`?"));
    }
    Err(problem.hint(":help lists everything"))
}

/// Signature, doc, options and example of a primitive or a control function.
pub fn primitive(name: &str) -> Option<String> {
    let control = || CONTROLS.iter().find(|control| control.name == name).map(one_control);
    primitives::find(name).map(one_primitive).or_else(control)
}

fn one_primitive(p: &Primitive) -> String {
    let mut text = format!("{}\n\n{}\n", p.signature(), p.doc);
    if !p.options.is_empty() {
        text.push_str("\nOptions:\n");
        for option in p.options {
            text.push_str(&format!("  {:<14} {:<8} {}\n", option.name, option.ty.word(), option.doc));
        }
    }
    let rights: Vec<String> = p.rights.iter().map(|(verb, group, resource)| right(verb, group, resource)).collect();
    text.push_str(&format!("\nIt {}. Rights: {}\n\n{}", p.effect.word(), rights.join("; "), example(p.example)));
    text
}

fn one_control(c: &Control) -> String {
    format!("{}\n\n{}\n\n{}", c.signature, c.doc, example(c.example))
}

fn example(text: &str) -> String {
    format!("Example:\n  {}\n", text.replace('\n', "\n  "))
}

/// `get, patch deployments.apps`
pub fn right(verbs: &str, group: &str, resource: &str) -> String {
    let verbs = verbs.replace(' ', ", ");
    if group.is_empty() { format!("{verbs} {resource}") } else { format!("{verbs} {resource}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_names_everything() {
        let text = overview();
        for name in primitives::names().chain(WORDS.iter().map(|word| word.name)) {
            assert!(text.contains(name), "{name}");
        }
    }

    #[test]
    fn one_word_is_told_whole_and_a_slip_is_guessed() {
        let text = of("scale", &[]).unwrap();
        for part in ["scale(", "Rights:", "Example:"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(of(":save", &[]).unwrap().starts_with(":save FILE"));
        assert!(of("filter", &["filter(array: &mut Array, f: FnPtr) -> Array".into()]).unwrap().contains("FnPtr"));
        assert_eq!(of("scal", &[]).unwrap_err().hints[0], "did you mean `scale`?");
    }
}
