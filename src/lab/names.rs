//! What names, and the keys and values of labels, may look like, with the sentences Kubernetes has for each.
//!
//! Every function gives the list of complaints, empty if the text is fine; the caller (`meta`, `rules`) puts them into
//! causes. Pure.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_qualified(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn check(text: &str, max: usize, fits: bool, sentence: &str) -> Vec<String> {
    let long = (text.len() > max).then(|| too_long(max));
    long.into_iter().chain((!fits).then(|| sentence.to_owned())).collect()
}

/// A DNS-1123 label: names of namespaces, nodes' pods of a StatefulSet, container names.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    check(text, 63, is_label(text), LABEL)
}

/// A DNS-1123 subdomain: names of almost everything.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    check(text, 253, text.split('.').all(is_label), SUBDOMAIN)
}

/// A name that only has to fit into a URL.
#[must_use]
pub fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ['/', '%']
            .into_iter()
            .filter(|wrong| name.contains(*wrong))
            .map(|wrong| format!("may not contain '{wrong}'"))
            .collect(),
    }
}

/// A qualified name such as `example.com/name`: keys of labels and annotations, finalizers.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(dns1123_subdomain(prefix).into_iter().map(|wrong| format!("prefix part {wrong}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        complaints.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified(name) {
        complaints.push(format!("name part {QUALIFIED}"));
    }
    complaints
}

/// The value of a label.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    check(text, 63, text.is_empty() || is_qualified(text), LABEL_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys() {
        let long = "a".repeat(254);
        let bad = format!("-{}", "A".repeat(254));
        for (name, complaints) in
            [("data", 0), ("a.b-c.d", 0), ("A_b", 1), ("a..b", 1), ("a/b", 1), (&long[..], 1), (&bad[..], 2)]
        {
            assert_eq!(dns1123_subdomain(name).len(), complaints, "{name}");
        }
        assert_eq!(
            (dns1123_label("shop").len(), dns1123_label("a.b").len(), dns1123_label(&long[..64]).len()),
            (0, 1, 1)
        );
        assert_eq!(
            (path_segment("system:node").len(), path_segment("..").len(), path_segment("a/b%").len()),
            (0, 1, 2)
        );
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(
            (qualified_name("a/").len(), qualified_name("a/b/c").len(), qualified_name("A.b/c").len()),
            (2, 1, 1)
        );
        assert_eq!((label_value("").len(), label_value("b c").len()), (0, 1));
    }
}
