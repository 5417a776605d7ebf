//! Selectors: labels from a query, LabelSelector objects, node selector terms, and field selectors per kind.
//!
//! Parsing answers with the sentences of Kubernetes (always 400 BadRequest); matching is pure.

use serde_json::{Map, Value};

use super::names;
use super::store::{list_of, text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let named = |value: &str| self.values.iter().any(|own| own == value);
        match self.operator {
            Operator::In => value.is_some_and(named),
            // A label that is missing is none of the values.
            Operator::NotIn => !value.is_some_and(named),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt | Operator::Lt => {
                let bound = self.values.first().and_then(|bound| bound.parse::<i64>().ok());
                let (Some(value), Some(bound)) = (value.and_then(|value| value.parse::<i64>().ok()), bound) else {
                    return false;
                };
                if self.operator == Operator::Gt { value > bound } else { value < bound }
            }
        }
    }
}

/// Requirements on labels, all of which must hold; none holds for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Reads the `labelSelector` of a query.
    ///
    /// # Errors
    /// The message of the 400 that Kubernetes answers.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: tokens(text), at: 0 }.selector().map(Self)
    }

    /// Reads `{matchLabels, matchExpressions}`. An object without either holds for everything, as in Kubernetes.
    ///
    /// # Errors
    /// If an operator is unknown.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let mut requirements: Vec<Requirement> = labels.map(|(key, value)| equals(key, value)).collect();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let requirement = expression_of(expression)?;
            if matches!(requirement.operator, Operator::Gt | Operator::Lt) {
                let name = expression["operator"].as_str().unwrap_or_default();
                return Err(format!("\"{name}\" is not a valid pod selector operator"));
            }
            requirements.push(requirement);
        }
        Ok(Self(requirements))
    }

    /// A plain map of labels, as the selector of a Service or a pod's nodeSelector.
    #[must_use]
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        Self(labels.iter().map(|(key, value)| equals(key, value)).collect())
    }

    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: Option<&Value>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.0.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether it holds for everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn equals(key: &str, value: &Value) -> Requirement {
    let value = value.as_str().unwrap_or_default().to_owned();
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value] }
}

fn expression_of(expression: &Value) -> Result<Requirement, String> {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let operator =
        Operator::named(text("operator")).ok_or_else(|| format!("{:?} is not a valid operator", text("operator")))?;
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Requirement { key: text("key").to_owned(), operator, values })
}

/// Whether a LabelSelector object picks these labels: none picks nothing, an empty one everything, and what cannot be read
/// nothing.
#[must_use]
pub fn picks(selector: &Value, labels: &Value) -> bool {
    selector.is_object() && LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(Some(labels)))
}

/// Whether a node fits `{nodeSelectorTerms: […]}`: one term must hold; an empty one never does, nor one with an operator
/// or a field that there is not.
#[must_use]
pub fn picks_node(selector: &Value, node: &Value) -> bool {
    let meta = &node["metadata"];
    list_of(&selector["nodeSelectorTerms"]).iter().any(|term| {
        let (labels, fields) = (list_of(&term["matchExpressions"]), list_of(&term["matchFields"]));
        let holds = |one: &Value, value: &Value| {
            expression_of(one).is_ok_and(|requirement| requirement.matches(value.as_str()))
        };
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|one| holds(one, &meta["labels"][text(&one["key"])]))
            && fields.iter().all(|one| one["key"] == "metadata.name" && holds(one, &meta["name"]))
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Sign(sign) => sign,
            Self::End => "",
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
    let special = |letter: char| letter.is_ascii_whitespace() || "=!(),><".contains(letter);
    let mut rest = text.trim_start();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (token, length) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)).map_or_else(
            || {
                let end = rest.find(special).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            },
            |sign| (Token::Sign(sign), sign.len()),
        );
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn look(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.look().clone();
        self.at += 1;
        token
    }

    fn selector(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.look() {
                Token::Word(_) | Token::Sign("!") => {
                    let requirement =
                        self.requirement().map_err(|wrong| format!("unable to parse requirement: {wrong}"))?;
                    requirements.push(requirement);
                    match self.take() {
                        Token::End => return Ok(requirements),
                        Token::Sign(",") => match self.look() {
                            Token::Word(_) | Token::Sign("!") => {}
                            other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
                        },
                        other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
                    }
                }
                Token::End => return Ok(requirements),
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = *self.look() == Token::Sign("!");
        if absent {
            self.at += 1;
        }
        let key = match self.take() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let Some(wrong) = names::qualified_name(&key).first() {
            // Only this one sentence; Kubernetes joins several with a semicolon, which no key of a selector can cause twice.
            return Err(format!("invalid label key {key:?}: {wrong}"));
        }
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: vec![] });
        }
        if matches!(self.look(), Token::End | Token::Sign(",")) {
            return Ok(Requirement { key, operator: Operator::Exists, values: vec![] });
        }
        let (operator, values) = match self.take() {
            Token::Sign("=" | "==") => (Operator::In, vec![self.exact()?]),
            Token::Sign("!=") => (Operator::NotIn, vec![self.exact()?]),
            Token::Sign(">") => (Operator::Gt, vec![self.exact()?]),
            Token::Sign("<") => (Operator::Lt, vec![self.exact()?]),
            Token::Word(word) if word == "in" => (Operator::In, self.values()?),
            Token::Word(word) if word == "notin" => (Operator::NotIn, self.values()?),
            other => return Err(format!("found '{}', expected: '=', '!=', '==', 'in', notin'", other.text())),
        };
        if matches!(operator, Operator::Gt | Operator::Lt) && values.iter().any(|bound| bound.parse::<i64>().is_err()) {
            return Err("for 'Gt', 'Lt' operators, the value must be an integer".into());
        }
        for value in &values {
            if let Some(wrong) = names::label_value(value).first() {
                return Err(format!("invalid label value: {value:?}: at key: {key:?}: {wrong}"));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    fn exact(&mut self) -> Result<String, String> {
        match self.look().clone() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(value) => {
                self.at += 1;
                Ok(value)
            }
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            Token::Sign("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        match self.look() {
            Token::Word(_) | Token::Sign("," | ")") => {}
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        let mut values = Vec::new();
        let mut word = None;
        loop {
            match self.take() {
                Token::Word(value) if word.is_none() => word = Some(value),
                Token::Sign(",") => values.push(word.take().unwrap_or_default()),
                Token::Sign(")") => {
                    values.push(word.take().unwrap_or_default());
                    return Ok(values);
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

/// Field selectors beyond `metadata.name` and `metadata.namespace`, by kind.
const FIELDS: [(&str, &[&str]); 7] = [
    (
        "Pod",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("Node", &["spec.unschedulable"]),
    (
        "Event",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("Secret", &["type"]),
    ("Namespace", &["status.phase"]),
    ("ReplicationController", &["status.replicas"]),
    ("Job", &["status.successful"]),
];

/// Conditions on fields, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads the `fieldSelector` of a query for objects of the kind.
    ///
    /// # Errors
    /// The message of the 400 that Kubernetes answers.
    pub fn parse(kind: &str, text: &str) -> Result<Self, String> {
        let mut conditions = Vec::new();
        for term in terms(text) {
            if term.is_empty() {
                continue;
            }
            let wrong = || format!("invalid selector: '{text}'; can't understand '{term}'");
            let at = term.find(['=', '!']).ok_or_else(wrong)?;
            let (field, rest) = term.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                (true, value)
            } else {
                return Err(wrong());
            };
            conditions.push((field.to_owned(), equal, unescape(value)?));
        }
        let extra = FIELDS.iter().find_map(|(of, fields)| (*of == kind).then_some(*fields));
        let known = |field: &str| {
            ["metadata.name", "metadata.namespace"].contains(&field)
                || extra.is_some_and(|extra| extra.contains(&field))
        };
        match conditions.iter().find(|(field, ..)| !known(field)) {
            None => Ok(Self(conditions)),
            Some((field, ..)) => Err(match kind {
                "Job" => format!("field label \"{field}\" not supported for batchv1.Job"),
                "CronJob" => format!("field label \"{field}\" not supported for \"CronJob\""),
                _ if extra.is_some() => format!("field label not supported: {field}"),
                _ => {
                    format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                }
            }),
        }
    }

    /// Whether the object is meant.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, value)| (field_of(object, field) == *value) == *equal)
    }

    /// The name that is asked for, if it is asked for by `metadata.name=`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find_map(|(field, equal, value)| (field == "metadata.name" && *equal).then_some(value.as_str()))
    }

    /// Whether it holds for everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn field_of(object: &Value, field: &str) -> String {
    match field {
        // The first address stands for all, as in Kubernetes.
        "status.podIPs" => {
            let first = object.pointer("/status/podIPs/0/ip").or_else(|| object.pointer("/status/podIP"));
            return first.and_then(Value::as_str).unwrap_or_default().to_owned();
        }
        "source" => {
            let component = object.pointer("/source/component").or_else(|| object.get("reportingComponent"));
            return component.and_then(Value::as_str).unwrap_or_default().to_owned();
        }
        "spec.unschedulable" => {
            return object.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false).to_string();
        }
        "status.successful" => {
            return object.pointer("/status/succeeded").and_then(Value::as_i64).unwrap_or(0).to_string();
        }
        "status.replicas" => {
            return object.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or(0).to_string();
        }
        _ => {}
    }
    match object.pointer(&format!("/{}", field.replace('.', "/"))) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Splits at commas that are not escaped.
fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid field selector: invalid escape sequence: \\{other}"));
                }
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", letter as u32));
            }
            _ => plain.push(letter),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_label_selectors_in_the_words_of_a_real_server() {
        for (text, want) in [
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: '=', '!=', '==', 'in', notin'"),
            ("a>x", "unable to parse requirement: for 'Gt', 'Lt' operators, the value must be an integer"),
            ("a>", "unable to parse requirement: for 'Gt', 'Lt' operators, the value must be an integer"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("(a)", "found '(', expected: !, identifier, or 'end of string'"),
            ("a!", "unable to parse requirement: found '!', expected: '=', '!=', '==', 'in', notin'"),
            ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
            ("a><b", "unable to parse requirement: found '<', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(text), Err(want.to_owned()), "{text}");
        }
        let key = LabelSelector::parse("-a").expect_err("a bad key");
        assert!(
            key.starts_with("unable to parse requirement: invalid label key \"-a\": name part must consist"),
            "{key}"
        );
        let value = LabelSelector::parse("a=-b").expect_err("a bad value");
        assert!(value.starts_with("unable to parse requirement: invalid label value: \"-b\": at key: \"a\": a valid"));
    }

    #[test]
    fn label_selectors_match() {
        let labels = json!({"app": "web", "n": "5", "empty": ""});
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==db", false),
            ("app!=db", true),
            ("gone!=x", true),
            ("app in (db, web)", true),
            ("app notin (db)", true),
            ("gone notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("n>4", true),
            ("n<5", false),
            ("gone>1", false),
            ("empty=", true),
            ("empty in ()", true),
            ("app=web,n<4", false),
            ("in", false),
        ] {
            assert_eq!(LabelSelector::parse(text).map(|selector| selector.matches(Some(&labels))), Ok(want), "{text}");
        }
        let object =
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]});
        assert_eq!(LabelSelector::from_object(&object).map(|selector| selector.matches(Some(&labels))), Ok(true));
    }

    #[test]
    fn node_selector_terms_are_alternatives() {
        let node = json!({"metadata": {"name": "node1", "labels": {"zone": "a", "cores": "8"}}});
        let expression =
            |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        for (terms, want) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{"matchExpressions": [expression("zone", "In", json!(["a", "b"]))]}]), true),
            (json!([{"matchExpressions": [expression("zone", "NotIn", json!(["a"]))]}]), false),
            (json!([{"matchExpressions": [expression("cores", "Gt", json!(["4"]))]}]), true),
            (json!([{"matchFields": [expression("metadata.name", "In", json!(["node1"]))]}]), true),
            (
                json!([{"matchFields": [expression("metadata.name", "In", json!(["node2"]))]}, {"matchExpressions": [expression("zone", "Exists", json!([]))]}]),
                true,
            ),
        ] {
            assert_eq!(picks_node(&json!({"nodeSelectorTerms": terms}), &node), want, "{terms}");
        }
    }

    #[test]
    fn field_selectors_per_kind() {
        for (kind, text, want) in [
            ("ConfigMap", "a=b", "\"a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
            ("ConfigMap", "=x", "\"\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
            ("ConfigMap", "metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("ConfigMap", "metadata.name=x\\y", "invalid field selector: invalid escape sequence: \\y"),
            ("ConfigMap", "metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
            (
                "PersistentVolumeClaim",
                "name=b",
                "\"name\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            ("Pod", "a=b", "field label not supported: a"),
            ("Namespace", "name=x", "field label not supported: name"),
            ("Job", "a=b", "field label \"a\" not supported for batchv1.Job"),
            ("CronJob", "a=b", "field label \"a\" not supported for \"CronJob\""),
        ] {
            assert_eq!(FieldSelector::parse(kind, text), Err(want.to_owned()), "{kind} {text}");
        }
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"nodeName": "node1"}});
        for (text, want) in [
            ("metadata.name=web-1,metadata.namespace=shop", true),
            (",spec.nodeName==node1", true),
            ("spec.nodeName!=node1", false),
            ("status.phase!=Running", true),
            ("status.podIPs=", true),
        ] {
            assert_eq!(FieldSelector::parse("Pod", text).map(|selector| selector.matches(&pod)), Ok(want), "{text}");
        }
        assert_eq!(
            FieldSelector::parse("Node", "spec.unschedulable=false").map(|one| one.matches(&json!({}))),
            Ok(true)
        );
    }
}
