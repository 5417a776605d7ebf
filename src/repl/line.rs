//! Reading what is typed: whether it goes on in the next line, and `_` as a name.

use crate::script::engine;
use crate::script::resolver::Sources;
use rhai::{Engine, LexError, ParseErrorType, Position, Token};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Tells whether a text is whole. It knows no cluster and no session.
pub struct Reader {
    engine: Engine,
    underscore: Underscore,
}

impl Default for Reader {
    fn default() -> Self {
        let mut engine = engine::new(Arc::new(Sources::typed()), &CancellationToken::new());
        // A name that is not known yet says nothing about where the text ends.
        engine.set_strict_variables(false);
        let underscore = Underscore::allow(&mut engine);
        Reader { engine, underscore }
    }
}

impl Reader {
    /// True if the text breaks off in the middle of something: the next line belongs to it. What is wrong in any
    /// other way is whole, and will be refused.
    pub fn goes_on(&self, text: &str) -> bool {
        let text = text.trim_end();
        self.underscore.open(text);
        let error = self.engine.compile(text).err();
        self.underscore.close();
        let Some(error) = error else {
            return false;
        };
        match error.err_type() {
            ParseErrorType::UnexpectedEOF | ParseErrorType::MissingToken(..) | ParseErrorType::PropertyExpected => {
                is_past(text, error.position())
            }
            ParseErrorType::BadInput(LexError::UnterminatedString) => {
                offset(text, error.position()).is_some_and(|at| text[at..].starts_with('`'))
            }
            _ => false,
        }
    }
}

/// True if a position lies behind the last character.
fn is_past(text: &str, position: Position) -> bool {
    let last = text.rsplit('\n').next().unwrap_or_default().chars().count();
    let lines = text.matches('\n').count() + 1;
    match (position.line(), position.position()) {
        (Some(line), column) => line > lines || line == lines && column.unwrap_or(0) > last,
        (None, _) => true,
    }
}

/// The byte at a position.
fn offset(text: &str, position: Position) -> Option<usize> {
    let begin = match position.line()? {
        1 => 0,
        line => text.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    let line = text[begin..].split('\n').next().unwrap_or_default();
    line.char_indices().nth(position.position()?.checked_sub(1)?).map(|(at, _)| begin + at)
}

/// Makes `_` a name at the prompt. In Rhai it is the last arm of a switch and nothing else; there it stays that.
#[derive(Clone, Default)]
pub struct Underscore(Arc<Mutex<Option<Typed>>>);

struct Typed {
    text: String,
    /// The bytes at which it was used as a name.
    used: Vec<usize>,
}

impl Underscore {
    pub fn allow(engine: &mut Engine) -> Self {
        let underscore = Underscore::default();
        let mapper = underscore.clone();
        #[expect(deprecated, reason = "rhai marks what may change; the version is pinned")]
        engine.on_parse_token(move |token, position, _| match token {
            Token::Underscore if mapper.is_name(position) => Token::Identifier(Box::new("_".into())),
            token => token,
        });
        underscore
    }

    /// From here on this text is compiled: in anything else, such as modules, nothing is changed.
    pub fn open(&self, text: &str) {
        *self.lock() = Some(Typed { text: text.to_owned(), used: Vec::new() });
    }

    /// Returns where `_` was used as a name.
    pub fn close(&self) -> Vec<usize> {
        let mut used = self.lock().take().map(|typed| typed.used).unwrap_or_default();
        used.sort_unstable();
        used.dedup();
        used
    }

    fn is_name(&self, position: Position) -> bool {
        let mut open = self.lock();
        let Some(typed) = open.as_mut() else {
            return false;
        };
        let Some(at) = offset(&typed.text, position) else {
            return false;
        };
        let rest = typed.text[at..].trim_start_matches('_').trim_start();
        let is_arm =
            rest.starts_with("=>") || rest.strip_prefix("if").is_some_and(|rest| rest.starts_with(char::is_whitespace));
        if !is_arm {
            typed.used.push(at);
        }
        !is_arm
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Typed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_off_goes_on_and_what_is_wrong_does_not() {
        let reader = Reader::default();
        for (text, goes_on) in [
            ("fn f(x) {", true),
            ("[1,", true),
            ("foo(", true),
            ("a.b.", true),
            ("1 +", true),
            ("`open", true),
            ("let m = #{ a: 1,", true),
            ("if x {\n  log(\"a\");", true),
            ("parallel_each(xs, 2, |x| {", true),
            ("scale(\"a\" 1)", false),
            ("#{ a: 1 } b", false),
            ("x +* 2", false),
            ("\"open", false),
            ("1 + 2", false),
            ("fn f(x) { x }", false),
            ("`whole ${1 + 1}`", false),
            // Beyond the sixteen: what the prompt adds.
            ("_ + (", true),
            ("_.filter(|x| x > 1)", false),
            ("switch _ { 1 => 2, _ => 3 }", false),
            ("foo(\n", true),
            ("", false),
        ] {
            assert_eq!(reader.goes_on(text), goes_on, "{text}");
        }
    }
}
