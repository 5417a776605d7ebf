//! A problem as a person reads it: the message, the place in the script with an excerpt, the causes, what to type next.

use super::ui::talk;
use crate::words::{Place, Problem, names};
use ariadne::{Color, Config, IndexType, Label, Report, ReportKind, Source};
use std::io::IsTerminal;

/// Says a problem on stderr.
pub fn problem(problem: &Problem, sources: &[(String, String)]) {
    let excerpt = problem.place.as_ref().and_then(|place| {
        let (_, text) = sources.iter().find(|(name, _)| *name == place.script)?;
        excerpt(problem, place, text)
    });
    match excerpt {
        Some(text) => talk(text.trim_end()),
        None => {
            talk(&format!("error: {}", names::plain(&problem.message)));
            if let Some(place) = &problem.place
                && place.line > 0
            {
                talk(&format!("  at {}:{}:{}", place.script, place.line, place.column));
            }
        }
    }
    for (function, script, line, column) in problem.place.iter().flat_map(|place| &place.calls) {
        if !function.starts_with("anon$") {
            talk(&format!("  in {function}, called at {script}:{line}:{column}"));
        }
    }
    for cause in &problem.source {
        talk(&format!("cause: {}", names::plain(cause)));
    }
    for hint in &problem.hints {
        talk(&format!("hint: {hint}"));
    }
}

fn excerpt(problem: &Problem, place: &Place, text: &str) -> Option<String> {
    let start = offset(text, place)?;
    // rhai's positions are points: the label goes to the end of the word.
    let word =
        text[start..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum::<usize>();
    let end = (start + word.max(1)).min(text.len());
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let config = Config::default().with_color(colour).with_index_type(IndexType::Byte);
    let span = (place.script.clone(), start..end);
    let report = Report::build(ReportKind::Custom("error", Color::Red), span.clone())
        .with_config(config)
        .with_message(names::plain(&problem.message))
        .with_label(Label::new(span).with_color(Color::Red).with_message("here"))
        .finish();
    let mut out = Vec::new();
    report.write((place.script.clone(), Source::from(text)), &mut out).ok()?;
    let text = String::from_utf8(out).ok()?;
    // The kind of a report is coloured whatever the configuration says.
    Some(if colour { text } else { without_colour(&text) })
}

/// Drops escape sequences that set colours.
fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

/// The byte at which a line and column, both counted from 1, begin.
fn offset(text: &str, place: &Place) -> Option<usize> {
    let line_start = match place.line {
        0 => return None,
        1 => 0,
        line => text.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = line.char_indices().nth(place.column.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    Some(line_start + column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_text_of_any_letters() {
        let text = "let é = 1;\nscal(2);\n";
        for (line, column, want) in
            [(1, 1, Some("let")), (1, 5, Some("é")), (2, 1, Some("scal")), (9, 1, None), (0, 0, None)]
        {
            let place = Place { script: "t".into(), line, column, calls: vec![] };
            let got = offset(text, &place).map(|at| &text[at..]);
            assert_eq!(
                got.map(|rest| rest.starts_with(want.unwrap_or_default())),
                want.map(|_| true),
                "{line}:{column}"
            );
        }
    }

    #[test]
    fn colour_can_be_left_out() {
        assert_eq!(without_colour("\u{1b}[31merror:\u{1b}[0m no"), "error: no");
        assert_eq!(without_colour("plain"), "plain");
    }

    #[test]
    fn an_excerpt_points_at_the_word() {
        let place = Place { script: "move".into(), line: 2, column: 1, calls: vec![] };
        let text = excerpt(&Problem::usage("there is no function `scal`"), &place, "let a = 1;\nscal(2);\n").unwrap();
        assert!(
            text.contains("move:2:1") && text.contains("scal(2);") && text.contains("there is no function"),
            "{text}"
        );
    }
}
