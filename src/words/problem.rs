//! What a person is told when something stops, and the code that a script may branch on.
//!
//! Not an error type to pass around inside a layer: each layer has a small enum of its own, and turns it
//! into a [`Problem`] at its door. The text never contains the cause; the cause is in `source`.

use serde::{Deserialize, Serialize};

/// Whose fault it is and what may be done about it. The words are part of the script API (`e.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The command line, a script or an argument is wrong.
    Usage,
    /// A guard or a check refused; nothing was changed by the refused act.
    Refused,
    /// The object does not exist.
    NotFound,
    /// The object exists, or changed under us, or belongs to somebody else.
    Conflict,
    /// The cluster does not allow it (401, 403).
    Forbidden,
    /// The API server cannot be reached, or did not answer.
    Unreachable,
    /// The API server said no for good (admission, validation, quota).
    Rejected,
    /// A wait reached its deadline.
    Timeout,
    /// A final pass or its verification can no longer be trusted: make both again.
    Voided,
    /// The two sides of a copy differ.
    Mismatch,
    /// The copy failed (no space, permission, input/output).
    Copy,
    /// The journal and the script, or the journal and the cluster, do not belong together.
    Diverged,
    /// Somebody pressed Ctrl-C or sent SIGTERM.
    Interrupted,
    /// Thrown by a script.
    Thrown,
    /// The local machine: state directory, disk, files.
    Local,
    /// A fault of pvmigrate itself.
    Bug,
}

impl Kind {
    /// The word as scripts and JSON see it.
    pub fn word(self) -> String {
        format!("{self:?}")
    }

    /// Parses a word that a script threw.
    pub fn parse(word: &str) -> Option<Kind> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }
}

/// A failure as a person reads it and as a script catches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub kind: Kind,
    /// Lower case, no full stop, the fact before the guess.
    #[serde(rename = "error")]
    pub message: String,
    /// `Kind:namespace/name` of the object that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The HTTP status or the exit code behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// True if doing the same again may succeed without anybody changing anything.
    #[serde(default)]
    pub retryable: bool,
    /// True if everything is as it was found: a resumed run begins this part anew instead of repeating its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// True if the run cannot go on, whatever its script does: no `catch` sees it, and it is no step's result.
    #[serde(skip)]
    pub fatal: bool,
    /// What to type or to do next, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// What others said, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// Where in which script, filled in on the way through the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// A place in a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub script: String,
    pub line: usize,
    pub column: usize,
    /// The calls that led there, innermost first: function, script, line, column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<(String, String, usize, usize)>,
}

impl Problem {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Problem {
            kind,
            message: message.into(),
            object: None,
            code: None,
            retryable: false,
            restart: false,
            fatal: false,
            hints: Vec::new(),
            source: Vec::new(),
            place: None,
        }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message).hint("this is a fault of pvmigrate: please report it with the run's journal")
    }

    pub fn local(message: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        Self::new(Kind::Local, message).because(cause)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub fn object(mut self, object: impl ToString) -> Self {
        self.object = Some(object.to_string());
        self
    }

    pub fn code(mut self, code: impl Into<i64>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// Appends the cause and its causes, each once.
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries repeat their source in their own text: a line that says nothing new is dropped.
            if !self.source.iter().any(|said| said.contains(&text)) {
                self.source.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Appends somebody else's words.
    pub fn quote(mut self, text: impl Into<String>) -> Self {
        self.source.push(text.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
