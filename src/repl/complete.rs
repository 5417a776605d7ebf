//! What Tab offers. From memory only: nothing here asks the cluster, whatever is typed.

use super::meta::{WORDS, is_word};
use crate::script::primitives;

const KEYWORDS: [&str; 22] = [
    "let", "const", "fn", "if", "else", "switch", "for", "in", "while", "loop", "do", "until", "break", "continue",
    "return", "throw", "try", "catch", "import", "as", "true", "false",
];

/// What arrays are mostly asked.
pub const OF_ARRAYS: [&str; 14] = [
    "all", "contains", "filter", "find", "for_each", "index_of", "is_empty", "len", "map", "push", "reduce", "reverse",
    "some", "sort",
];

/// What the session has named so far.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Each variable with what may stand after its dot.
    pub variables: Vec<(String, Vec<String>)>,
    pub functions: Vec<String>,
}

/// Where the word under the cursor begins (in bytes), and what it may become.
pub fn candidates(line: &str, at: usize, known: &Known) -> (usize, Vec<String>) {
    let typed = &line[..at];
    let begin = typed.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + letter(typed, i));
    let (before, word) = typed.split_at(begin);
    let offer = |all: Vec<String>| {
        let mut fitting: Vec<String> = all.into_iter().filter(|one| one.starts_with(word)).collect();
        fitting.sort_unstable();
        fitting.dedup();
        (begin, fitting)
    };
    if is_word(line) {
        let head = before.trim();
        if head == ":" {
            return offer(WORDS.iter().map(|entry| entry.name.to_owned()).collect());
        }
        match head.split_whitespace().next() {
            Some(":help") => return offer(primitives::names().map(str::to_owned).collect()),
            Some(":yaml" | ":json") => {}
            _ => return (at, Vec::new()),
        }
    }
    let open = open_at(before);
    if open.in_string {
        return (at, Vec::new());
    }
    if let Some(owner) = before.strip_suffix("?.").or_else(|| before.strip_suffix('.')) {
        return offer(fields(owner, known));
    }
    if let Some(call) = open.options_of
        && matches!(before.trim_end().chars().last(), Some('{' | ','))
    {
        let options = primitives::find(&call).into_iter().flat_map(|primitive| primitive.options);
        return offer(options.map(|option| format!("{}: ", option.name)).collect());
    }
    let mut all: Vec<String> = primitives::names().map(|name| format!("{name}(")).collect();
    all.extend(known.functions.iter().map(|name| format!("{name}(")));
    all.extend(known.variables.iter().map(|(name, _)| name.clone()));
    all.extend(KEYWORDS.iter().map(|word| (*word).to_owned()));
    offer(all)
}

fn letter(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

/// What is known of the variable that ends the text; of longer paths nothing is.
fn fields(owner: &str, known: &Known) -> Vec<String> {
    let begin = owner.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + letter(owner, i));
    if owner[..begin].ends_with('.') {
        return Vec::new();
    }
    let named = known.variables.iter().rev().find(|(name, _)| name == &owner[begin..]);
    match named {
        Some((_, fields)) => fields.clone(),
        None if owner.ends_with(')') || owner.ends_with(']') => {
            OF_ARRAYS.iter().map(|name| (*name).to_owned()).collect()
        }
        None => Vec::new(),
    }
}

struct Open {
    in_string: bool,
    /// The function whose options map is open.
    options_of: Option<String>,
}

/// Which brackets and quotes are open at the end of a text.
fn open_at(text: &str) -> Open {
    let mut stack: Vec<(char, String)> = Vec::new();
    let mut quote: Option<char> = None;
    let mut word = String::new();
    let mut before = ' ';
    let mut escaped = false;
    for c in text.chars() {
        if let Some(open) = quote {
            if !escaped && c == open {
                quote = None;
            }
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' | '`' => quote = Some(c),
            '(' => stack.push(('(', std::mem::take(&mut word))),
            '{' if before == '#' => stack.push(('#', String::new())),
            '{' | '[' => stack.push((c, String::new())),
            ')' | '}' | ']' => drop(stack.pop()),
            _ => {}
        }
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else if !c.is_whitespace() {
            word.clear();
        }
        before = c;
    }
    let options_of = match stack.as_slice() {
        [.., ('(', function), ('#', _)] => Some(function.clone()),
        _ => None,
    };
    Open { in_string: quote.is_some(), options_of }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            variables: vec![
                ("claim".into(), vec!["name".into(), "namespace".into(), "spec".into()]),
                ("_".into(), vec![]),
            ],
            functions: vec!["clean_up".into()],
        }
    }

    #[test]
    fn words_are_completed_where_they_make_sense() {
        for (line, want) in [
            ("list_pv", vec!["list_pvcs(", "list_pvs("]),
            ("let x = get_sc", vec!["get_sc("]),
            ("cla", vec!["claim"]),
            ("cle", vec!["clean_up("]),
            ("ret", vec!["return", "return_pv("]),
            ("claim.na", vec!["name", "namespace"]),
            ("claim?.sp", vec!["spec"]),
            ("claim.spec.na", vec![]),
            ("list_pvs().fi", vec!["filter", "find"]),
            (":he", vec!["help"]),
            (":", vec!["help", "json", "quit", "save", "yaml"]),
            (":help get_pvc", vec!["get_pvc"]),
            (":yaml get_pvc", vec!["get_pvc("]),
            (":save li", vec![]),
            ("log(\"list_pv", vec![]),
            ("list_pvcs(#{ na", vec!["namespace: "]),
            ("list_pvcs(#{ namespace: \"shop\", cl", vec!["class: "]),
            ("list_pvcs(#{ namespace: cla", vec!["claim"]),
            ("zzz", vec![]),
        ] {
            assert_eq!(candidates(line, line.len(), &known()).1, want, "{line}");
        }
    }

    #[test]
    fn the_word_under_the_cursor_is_replaced_and_letters_of_any_kind_are_whole() {
        assert_eq!(
            candidates("é; list_pvs", 8, &known()),
            (4, vec!["list_objects(".into(), "list_pvcs(".into(), "list_pvs(".into(), "list_scs(".into()])
        );
    }
}
