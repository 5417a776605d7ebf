//! Where the lines of `pvmigrate repl` come from: a terminal with history and completion, or stdin as it is.

use super::session::Reached;
use super::ui;
use crate::journal::safe;
use crate::repl::complete::{self, Known};
use crate::repl::line::Reader;
use crate::repl::{Repl, meta};
use crate::words::{Problem, names};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

/// So many lines of history are kept.
const HISTORY: usize = 5000;
/// Contexts of clouds are long; their ends tell them apart.
const LONGEST_PROMPT: usize = 32;

/// What was typed.
pub enum Typed {
    Line(String),
    /// Ctrl-C at the prompt.
    Nothing,
    End,
}

pub enum Input {
    Terminal(Box<Terminal>),
    /// A pipe or a file.
    Plain(Box<Reader>),
}

pub struct Terminal {
    editor: Editor<Assistant, FileHistory>,
    history: PathBuf,
    prompt: String,
}

impl Input {
    /// Opens what stdin is.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn open(reached: &Reached, state_dir: &Path) -> Result<Self, Problem> {
        if !std::io::stdin().is_terminal() {
            return Ok(Input::Plain(Box::default()));
        }
        let unusable = |e: ReadlineError| Problem::local("the terminal cannot be used", &e);
        let config = Config::builder()
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(unusable)?
            .build();
        let mut editor = Editor::with_config(config).map_err(unusable)?;
        editor.set_helper(Some(Assistant::default()));
        let dir = state_dir.join("history");
        let history = dir.join(safe(&reached.uid));
        if let Err(e) = std::fs::create_dir_all(&dir) {
            ui::talk(&format!("warning: no history: {}: {e}", dir.display()));
        }
        // The first session of a cluster has none.
        let _ = editor.load_history(&history);
        Ok(Input::Terminal(Box::new(Terminal { editor, history, prompt: prompt(reached.cluster.context()) })))
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// Reads until a text is whole.
    ///
    /// # Errors
    /// If stdin cannot be read.
    pub fn read(&mut self, repl: &Repl) -> Result<Typed, Problem> {
        match self {
            Input::Terminal(terminal) => terminal.read(repl),
            Input::Plain(reader) => plain(reader),
        }
    }
}

impl Terminal {
    fn read(&mut self, repl: &Repl) -> Result<Typed, Problem> {
        if let Some(assistant) = self.editor.helper_mut() {
            assistant.known = repl.known();
        }
        match self.editor.readline(&self.prompt) {
            Ok(line) => {
                // Kept at once: a session that is killed has its history too.
                if self.editor.add_history_entry(&line).unwrap_or(false)
                    && let Err(e) = self.editor.append_history(&self.history)
                {
                    tracing::debug!("history: {e}");
                }
                Ok(Typed::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(e) => Err(Problem::local("the terminal cannot be read", &e)),
        }
    }
}

fn plain(reader: &Reader) -> Result<Typed, Problem> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        let read =
            std::io::stdin().lock().read_line(&mut line).map_err(|e| Problem::local("stdin cannot be read", &e))?;
        text.push_str(&line);
        match (read, text.trim().is_empty()) {
            (0, true) => return Ok(Typed::End),
            (0, false) => return Ok(Typed::Line(text)),
            _ if meta::is_word(&text) || !reader.goes_on(&text) => return Ok(Typed::Line(text)),
            _ => {}
        }
    }
}

fn prompt(context: &str) -> String {
    let context = names::plain(context).replace(['\n', '\t'], " ");
    let length = context.chars().count();
    if length <= LONGEST_PROMPT {
        return format!("{context}> ");
    }
    format!("…{}> ", context.chars().skip(length - LONGEST_PROMPT + 1).collect::<String>())
}

/// What rustyline asks while a line is typed. It answers from memory.
#[derive(Default, Helper, Hinter, Highlighter)]
struct Assistant {
    known: Known,
    reader: Reader,
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete::candidates(line, at, &self.known))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let whole = meta::is_word(text) || !self.reader.goes_on(text);
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_contexts_show_their_end() {
        assert_eq!(prompt("kind"), "kind> ");
        assert_eq!(prompt("arn:aws:eks:eu-central-1:123456789012:cluster/shop"), "…ral-1:123456789012:cluster/shop> ");
    }
}
