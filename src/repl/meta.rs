//! The words that begin with a colon: they are about the session, not about the cluster.

use crate::words::{Problem, names};

/// One entry of the table; help, completion and parsing are made from it.
pub struct Entry {
    pub name: &'static str,
    pub takes: &'static str,
    pub doc: &'static str,
}

pub const WORDS: &[Entry] = &[
    Entry { name: "help", takes: "[NAME]", doc: "List all words, or tell one in full" },
    Entry { name: "yaml", takes: "EXPR", doc: "Show a value whole, as YAML" },
    Entry { name: "json", takes: "EXPR", doc: "Show a value whole, as JSON" },
    Entry { name: "save", takes: "FILE", doc: "Write the lines that succeeded as a script; an existing file stays" },
    Entry { name: "quit", takes: "", doc: "End the session, as Ctrl-D does" },
];

impl Entry {
    /// `:save FILE`
    pub fn usage(&self) -> String {
        format!(":{} {}", self.name, self.takes).trim_end().to_owned()
    }
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub enum Word {
    Help(Option<String>),
    Yaml(String),
    Json(String),
    Save(String),
    Quit,
}

/// True for lines that are words of the prompt and no Rhai: these never go over several lines.
pub fn is_word(line: &str) -> bool {
    line.trim_start().starts_with(':')
}

/// Reads a line that begins with a colon.
///
/// # Errors
/// If there is no such word, or something is missing or too much.
pub fn parse(line: &str) -> Result<Word, Problem> {
    let line = line.trim().trim_start_matches(':');
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let Some(entry) = WORDS.iter().find(|entry| entry.name == name) else {
        let mut problem = Problem::usage(format!("there is no word `:{}`", names::plain(name)));
        if let Some(word) = names::did_you_mean(name, WORDS.iter().map(|entry| entry.name)) {
            problem = problem.hint(format!("did you mean `:{word}`?"));
        }
        return Err(problem.hint(":help lists them"));
    };
    let wrong = |what: &str| Problem::usage(format!("`:{name}` {what}")).hint(format!("it is {}", entry.usage()));
    match (name, rest) {
        ("help", "") => Ok(Word::Help(None)),
        ("help", name) => Ok(Word::Help(Some(name.to_owned()))),
        ("quit", "") => Ok(Word::Quit),
        ("quit", _) => Err(wrong("takes nothing")),
        ("save", "") => Err(wrong("wants a file")),
        ("save", file) => Ok(Word::Save(file.to_owned())),
        (_, "") => Err(wrong("wants an expression")),
        ("yaml", expr) => Ok(Word::Yaml(expr.to_owned())),
        (_, expr) => Ok(Word::Json(expr.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_or_refused_with_a_guess() {
        assert_eq!(parse(":help").unwrap(), Word::Help(None));
        assert_eq!(parse("  :help  scale ").unwrap(), Word::Help(Some("scale".into())));
        assert_eq!(parse(":save my move.rhai").unwrap(), Word::Save("my move.rhai".into()));
        assert_eq!(parse(":yaml get_sc(\"slow\")").unwrap(), Word::Yaml("get_sc(\"slow\")".into()));
        assert_eq!(parse(":quit").unwrap(), Word::Quit);
        for (line, message, hint) in [
            (":hlp", "there is no word `:hlp`", "did you mean `:help`?"),
            (":save", "`:save` wants a file", "it is :save FILE"),
            (":json", "`:json` wants an expression", "it is :json EXPR"),
            (":quit now", "`:quit` takes nothing", "it is :quit"),
        ] {
            let problem = parse(line).unwrap_err();
            assert_eq!((problem.message.as_str(), problem.hints[0].as_str()), (message, hint));
        }
    }
}
