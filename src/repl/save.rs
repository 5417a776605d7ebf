//! `:save`: the lines that succeeded as a script of its own.
//!
//! Scripts have no `_`: a result that was used so gets a name where it was made.

use super::lines::Kept;
use crate::script::Script;
use crate::words::Problem;
use tokio_util::sync::CancellationToken;

/// The text of the script. `about` is its first line.
///
/// # Errors
/// If a line uses the result of one that cannot be given a name.
pub fn script(lines: &[Kept], about: &str) -> Result<String, Problem> {
    let mut text = format!("//! {about}\n\n");
    for (index, line) in lines.iter().enumerate() {
        let mut own = line.text.clone();
        if let (Some(from), false) = (line.of, line.uses.is_empty()) {
            if !lines[from].is_expression {
                let typed = lines[from].text.replace('\n', " ");
                return Err(Problem::usage(format!(
                    "a script has no `_`, and the result of this line has no name: {typed}"
                ))
                .hint("type it again as `let NAME = …;` and use the name"));
            }
            for at in line.uses.iter().rev() {
                own.replace_range(*at..*at + 1, &name(from));
            }
        }
        if lines.iter().any(|other| other.of == Some(index) && !other.uses.is_empty()) {
            own = format!("let {} = {own}", name(index));
        }
        text.push_str(&own);
        text.push_str(end(&own));
    }
    // What is written must be what `pvmigrate run` takes.
    match Script::typed(&text, &CancellationToken::new()) {
        Ok(_) => Ok(text),
        Err(mut problems) => {
            let problem = problems.swap_remove(0);
            Err(Problem::usage("these lines do not make a script")
                .because(&problem)
                .hint("lines that belong together can be typed as one"))
        }
    }
}

fn name(index: usize) -> String {
    format!("result_{}", index + 1)
}

/// What a line needs behind it, so that the next one is one of its own.
fn end(line: &str) -> &'static str {
    let last = line.lines().last().unwrap_or_default();
    match line.trim_end().chars().last() {
        Some(';') => "\n",
        Some('}') if line.trim_start().starts_with("fn ") => "\n",
        // A comment would swallow the semicolon.
        _ if last.contains("//") => "\n;\n",
        _ => ";\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str, of: Option<usize>, uses: &[usize], is_expression: bool) -> Kept {
        Kept { text: text.into(), uses: uses.to_vec(), of, is_expression }
    }

    #[test]
    fn results_that_were_used_get_a_name() {
        let lines = [
            kept("let n = 2", None, &[], false),
            kept("[1, n]", None, &[], true),
            kept("_.len() + _[0] // both", Some(1), &[0, 10], true),
            kept("fn f(x) { x }", Some(2), &[], false),
        ];
        let text = script(&lines, "Typed.").unwrap();
        assert_eq!(
            text,
            "//! Typed.\n\nlet n = 2;\nlet result_2 = [1, n];\nresult_2.len() + result_2[0] // both\n;\nfn f(x) { x }\n"
        );
    }

    #[test]
    fn what_cannot_be_named_is_said() {
        let lines = [kept("let a = 1; a", None, &[], false), kept("_ + 1", Some(0), &[0], true)];
        assert!(script(&lines, "Typed.").unwrap_err().message.ends_with("let a = 1; a"));
    }
}
