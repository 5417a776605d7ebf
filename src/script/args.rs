//! A script's own options, read from its syntax tree without running it.

use super::view::to_json;
use crate::words::{Json, Place, Problem, names, size};
use rhai::{AST, ASTNode, Expr, Position, Stmt};
use serde_json::{Map, json};

/// Names that the command line keeps for itself.
pub const GLOBAL: [&str; 16] = [
    "kubeconfig",
    "context",
    "lab",
    "yes",
    "output",
    "verbose",
    "state-dir",
    "run-namespace",
    "store",
    "on-failure",
    "in-cluster",
    "service-account",
    "job-image",
    "job-patch",
    "help",
    "version",
];

/// One option as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    /// `string`, `int`, `bool`, `size`, or a kind of the cluster.
    pub kind: String,
    pub required: bool,
    pub fallback: Json,
    pub choices: Vec<String>,
    /// May be given several times: the value is an array.
    pub many: bool,
    pub help: String,
    /// The value's name in --help.
    pub value: String,
}

/// Finds every call of `arg`.
///
/// # Errors
/// If one is not at the top level, not literal, or declares something impossible.
pub fn read(ast: &AST, script: &str) -> Result<Vec<Spec>, Problem> {
    let mut specs: Vec<Spec> = Vec::new();
    let mut wrong: Option<Problem> = None;
    let mut visit = |nodes: &[ASTNode], top: bool| {
        let (call, position) = match nodes.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                (call, *position)
            }
            _ => return true,
        };
        if call.name != "arg" || !call.namespace.is_empty() {
            return true;
        }
        let found =
            if top { spec(&call.args) } else { Err(Problem::usage("arg stands at the top level of a script only")) };
        match found {
            Ok(spec) if specs.iter().any(|other| other.name == spec.name) => {
                wrong =
                    Some(at(Problem::usage(format!("the option `{}` is declared twice", spec.name)), script, position));
            }
            Ok(spec) => specs.push(spec),
            Err(problem) => wrong = Some(at(problem, script, position)),
        }
        wrong.is_none()
    };
    let mut seen = Vec::new();
    for statement in ast.statements() {
        let mut path = Vec::new();
        statement.walk(&mut path, &mut |nodes: &[ASTNode]| {
            seen.extend(nodes.last().map(position_of));
            visit(nodes, !is_nested(nodes))
        });
    }
    // What is not among the statements stands in a function or a closure.
    ast.walk(&mut |nodes: &[ASTNode]| {
        let elsewhere = nodes.last().is_some_and(|node| !seen.contains(&position_of(node)));
        !elsewhere || visit(nodes, false)
    });
    match wrong {
        Some(problem) => Err(problem),
        None => Ok(specs),
    }
}

fn position_of(node: &ASTNode) -> Position {
    match node {
        ASTNode::Stmt(statement) => statement.position(),
        ASTNode::Expr(expr) => expr.position(),
        _ => Position::NONE,
    }
}

/// True inside blocks, loops and conditions: what stands there may never run.
fn is_nested(nodes: &[ASTNode]) -> bool {
    nodes.iter().any(|node| {
        matches!(
            node,
            ASTNode::Stmt(
                Stmt::If(..) | Stmt::For(..) | Stmt::While(..) | Stmt::Do(..) | Stmt::Switch(..) | Stmt::TryCatch(..)
            )
        )
    })
}

fn at(mut problem: Problem, script: &str, position: Position) -> Problem {
    problem.place = Some(Place {
        script: script.to_owned(),
        line: position.line().unwrap_or(0),
        column: position.position().unwrap_or(0),
        calls: Vec::new(),
    });
    problem
}

fn spec(args: &[Expr]) -> Result<Spec, Problem> {
    let literal = |expr: &Expr| expr.get_literal_value(None).map(|value| to_json(&value)).transpose();
    let not_literal =
        || Problem::usage("arg wants a name and a map of literals: it is read without running the script");
    let (name, opts) = match args {
        [name] => (literal(name)?, Some(json!({}))),
        [name, opts] => (literal(name)?, literal(opts)?),
        _ => return Err(not_literal()),
    };
    let (Some(Json::String(name)), Some(Json::Object(opts))) = (name, opts) else {
        return Err(not_literal());
    };
    if name.is_empty()
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        || name.starts_with('-')
    {
        return Err(Problem::usage(format!("`{}` cannot be an option: use a-z, 0-9 and `-`", names::plain(&name))));
    }
    if GLOBAL.contains(&name.as_str()) {
        return Err(Problem::usage(format!("`--{name}` is an option of pvmigrate itself")).hint("choose another name"));
    }
    let mut spec = Spec {
        name,
        kind: "string".into(),
        required: false,
        fallback: Json::Null,
        choices: Vec::new(),
        many: false,
        help: String::new(),
        value: String::new(),
    };
    for (key, value) in opts {
        let text = value.as_str().map(str::to_owned);
        match (key.as_str(), text, value.as_bool()) {
            ("kind", Some(kind), _) => spec.kind = kind,
            ("help", Some(help), _) => spec.help = help,
            ("value", Some(value), _) => spec.value = value,
            ("required", _, Some(required)) => spec.required = required,
            ("many", _, Some(many)) => spec.many = many,
            ("fallback", ..) => spec.fallback = value,
            ("choices", ..) if value.is_array() => {
                spec.choices =
                    value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect();
            }
            _ => {
                let known = ["kind", "required", "fallback", "choices", "many", "help", "value"];
                let mut problem = Problem::usage(format!("arg does not understand `{key}`"));
                if let Some(word) = names::did_you_mean(&key, known) {
                    problem = problem.hint(format!("did you mean `{word}`?"));
                }
                return Err(problem.hint(format!("it knows: {}", known.join(", "))));
            }
        }
    }
    if spec.required && !spec.fallback.is_null() {
        return Err(Problem::usage(format!("`--{}` is required and has a fallback: one of the two", spec.name)));
    }
    Ok(spec)
}

impl Spec {
    /// A typed word as the value that the script gets.
    ///
    /// # Errors
    /// If it is not of the option's kind.
    pub fn parse(&self, typed: &str) -> Result<Json, Problem> {
        let wrong =
            |what: &str| Problem::usage(format!("`--{}` wants {what}, not `{}`", self.name, names::plain(typed)));
        if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == typed) {
            return Err(wrong(&format!("one of {}", self.choices.join(", "))));
        }
        match self.kind.as_str() {
            "int" => typed.parse::<i64>().map(Json::from).map_err(|_| wrong("a whole number")),
            "bool" => typed.parse::<bool>().map(Json::from).map_err(|_| wrong("true or false")),
            "size" => match size::parse_bytes(typed).map_err(|problem| wrong("a size").because(&problem))? {
                0 => Err(wrong("a size above 0")),
                _ => Ok(Json::from(typed)),
            },
            "Namespace" => names::label_name(typed).map(Json::from),
            "PersistentVolumeClaim" => crate::words::PvcRef::parse(typed).map(|claim| Json::from(claim.to_string())),
            kind if kind.starts_with(|c: char| c.is_ascii_uppercase()) => names::object_name(typed).map(Json::from),
            _ => Ok(Json::from(typed)),
        }
    }

    /// What the script gets if nothing was typed.
    pub fn otherwise(&self) -> Json {
        match (&self.fallback, self.many, self.kind.as_str()) {
            (Json::Null, true, _) => json!([]),
            (Json::Null, false, "bool") => json!(false),
            (fallback, ..) => fallback.clone(),
        }
    }
}

/// All options at their fallbacks.
pub fn otherwise(specs: &[Spec]) -> Json {
    Json::Object(specs.iter().map(|spec| (spec.name.clone(), spec.otherwise())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(script: &str) -> Result<Vec<Spec>, Problem> {
        let sources = std::sync::Arc::new(crate::script::resolver::Sources::typed());
        let engine = crate::script::engine::new(sources, &tokio_util::sync::CancellationToken::new());
        read(&crate::script::resolver::compile(&engine, "t", script)?, "t")
    }

    #[test]
    fn options_are_read_without_running_anything() {
        let specs = read_text(
            "let a = arg(\"source-sc\", #{ kind: \"StorageClass\", required: true, help: \"from\" });\nlet n = arg(\"parallel\", #{ kind: \"int\", fallback: 4 });\nthrow \"never run\";",
        )
        .unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!((specs[0].kind.as_str(), specs[0].required), ("StorageClass", true));
        assert_eq!(specs[1].otherwise(), json!(4));
    }

    #[test]
    fn what_cannot_be_an_option_is_refused_with_its_place() {
        for (script, message) in [
            (
                "let x = 1;\nlet a = arg(\"a\", #{ help: `${x}` });",
                "arg wants a name and a map of literals: it is read without running the script",
            ),
            ("fn f() { arg(\"a\") }", "arg stands at the top level of a script only"),
            ("if true { let a = arg(\"a\"); }", "arg stands at the top level of a script only"),
            ("let f = || arg(\"a\");", "arg stands at the top level of a script only"),
            ("let a = arg(\"yes\");", "`--yes` is an option of pvmigrate itself"),
            ("let a = arg(\"a\"); let b = arg(\"a\");", "the option `a` is declared twice"),
            ("let a = arg(\"a\", #{ requird: true });", "arg does not understand `requird`"),
            ("let a = arg(\"A b\");", "`A b` cannot be an option: use a-z, 0-9 and `-`"),
        ] {
            let problem = read_text(script).unwrap_err();
            assert_eq!(problem.message, message, "{script}");
            assert!(problem.place.is_some(), "{script}");
        }
        let problem = read_text("let a = arg(\"a\", #{ default: 1 });").unwrap_err();
        assert!(problem.message.contains("default"), "{problem}");
    }

    #[test]
    fn typed_words_become_values() {
        let spec = |kind: &str| Spec { kind: kind.into(), ..read_text("let a = arg(\"a\");").unwrap().remove(0) };
        for (kind, typed, want) in [
            ("string", "x", Some(json!("x"))),
            ("int", "4", Some(json!(4))),
            ("int", "x", None),
            ("size", "1Gi", Some(json!("1Gi"))),
            ("size", "big", None),
            ("size", "0Mi", None),
            ("PersistentVolumeClaim", "shop/data", Some(json!("shop/data"))),
            ("PersistentVolumeClaim", "data", None),
            ("StorageClass", "fast", Some(json!("fast"))),
            ("StorageClass", "Fast!", None),
        ] {
            assert_eq!(spec(kind).parse(typed).ok(), want, "{kind} {typed}");
        }
    }
}
