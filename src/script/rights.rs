//! What a script may need of a cluster, read from its text and from those that it imports: nothing is run.
//!
//! Every primitive declares its rights in its table; this adds up those of the primitives that are called. A primitive
//! that takes any kind needs rights on the kind that its arguments name: where that is written out it is resolved, where
//! it is computed it is told. The same table says what `preflight` asks for.

use super::check::imports;
use super::primitives::{self, Primitive, Right};
use super::resolver::{Sources, compile};
use crate::cluster::{kinds, rbac::Need};
use rhai::{AST, ASTNode, Engine, Expr, Position, Stmt};
use std::collections::BTreeSet;

/// What a script may need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    pub known: BTreeSet<Need>,
    pub open: BTreeSet<Open>,
}

/// Rights on a kind that its text does not tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    pub script: String,
    pub line: usize,
    pub primitive: &'static str,
    pub verbs: &'static str,
    /// The kind, where it is written out: only a server knows under which name it serves it.
    pub kind: Option<String>,
}

/// Without these a run goes on: it tells less.
pub const OPTIONAL: [Right; 2] = [("create list", "", "events"), ("list", "", "resourcequotas")];

pub fn is_optional(need: &Need) -> bool {
    OPTIONAL.iter().flat_map(all_of).any(|optional| optional == *need)
}

/// One need for each verb.
pub fn all_of(right: &Right) -> impl Iterator<Item = Need> + use<> {
    let (verbs, group, resource) = *right;
    Need::all_of(verbs, group, resource)
}

/// Reads a script and everything that it imports.
pub fn needs(engine: &Engine, sources: &Sources, name: &str, ast: &AST) -> Needs {
    let mut needs = Needs::default();
    let mut seen = BTreeSet::from([name.to_owned()]);
    read(sources, engine, name, ast, &mut seen, &mut needs);
    needs
}

fn read(sources: &Sources, engine: &Engine, name: &str, ast: &AST, seen: &mut BTreeSet<String>, needs: &mut Needs) {
    ast.walk(&mut |nodes: &[ASTNode]| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, at)) | ASTNode::Stmt(Stmt::FnCall(call, at)))
                if call.namespace.is_empty() || call.namespace.root() == "global" =>
            {
                // `Fn("get_pv")` calls it too, sooner or later.
                let named = call.args.first().filter(|_| call.name == "Fn").and_then(text);
                match named {
                    Some(function) => add(needs, name, &function, None, *at),
                    None => add(needs, name, &call.name, Some(&call.args), *at),
                }
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, at))) => add(needs, name, &call.name, None, *at),
            Some(ASTNode::Expr(Expr::DynamicConstant(value, at))) => {
                if let Some(function) = value.read_lock::<rhai::FnPtr>() {
                    add(needs, name, function.fn_name(), None, *at);
                }
            }
            _ => {}
        }
        true
    });
    for (path, ..) in imports(ast) {
        // What is wrong with an import was told when the script was checked.
        if let Ok((module, text)) = sources.import(name, &path)
            && seen.insert(module.clone())
            && let Ok(tree) = compile(engine, &module, &text)
        {
            read(sources, engine, &module, &tree, seen, needs);
        }
    }
}

fn add(needs: &mut Needs, script: &str, function: &str, args: Option<&[Expr]>, at: Position) {
    let Some(primitive) = primitives::find(function) else { return };
    for right in primitive.rights {
        let (verbs, group, resource) = *right;
        if resource != "*" {
            needs.known.extend(Need::all_of(verbs, group, resource));
            continue;
        }
        let kind = args.and_then(|args| kind(primitive, args));
        match kind.as_deref().and_then(kinds::named) {
            Some((group, resource)) => needs.known.extend(Need::all_of(verbs, group, resource)),
            None => {
                let (script, line) = (script.to_owned(), at.line().unwrap_or(0));
                needs.open.insert(Open { script, line, primitive: primitive.name, verbs, kind });
            }
        }
    }
}

/// The kind that the arguments name, if they do so in writing.
fn kind(primitive: &Primitive, args: &[Expr]) -> Option<String> {
    let first = args.first()?;
    match primitive.params.first()?.name {
        "kind" => text(first),
        "object" => Some(format!("{}/{}", property(first, "apiVersion")?, property(first, "kind")?)),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::StringConstant(text, _) => Some(text.to_string()),
        _ => None,
    }
}

fn property(expr: &Expr, key: &str) -> Option<String> {
    match expr {
        Expr::Map(map, _) => map.0.iter().find(|(name, _)| name.as_str() == key).and_then(|(_, value)| text(value)),
        Expr::DynamicConstant(value, _) => {
            let map = value.read_lock::<rhai::Map>()?;
            map.get(key)?.clone().into_string().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::script::Script;
    use tokio_util::sync::CancellationToken;

    fn needs(text: &str) -> (Vec<String>, Vec<String>) {
        let script = Script::typed(text, &CancellationToken::new()).map_err(|p| p[0].message.clone()).unwrap();
        let needs = script.needs();
        let known = needs.known.iter().map(|n| format!("{} {}.{}", n.verb, n.resource, n.group)).collect();
        let open = needs.open.iter().map(|o| format!("{}:{} {} {:?}", o.line, o.primitive, o.verbs, o.kind)).collect();
        (known, open)
    }

    #[test]
    fn rights_are_read_from_the_text() {
        let patch = ["get configmaps.", "patch configmaps."];
        for (text, known) in [
            ("1 + 1", &[][..]),
            ("get_pv(\"pv-1\")", &["get persistentvolumes."]),
            ("if false { get_pv(\"pv-1\") } else { () }", &["get persistentvolumes."]),
            ("fn f() { set_retain(()) }", &["get persistentvolumes.", "patch persistentvolumes."]),
            ("[1].map(|x| find_pv(`${x}`))", &["get persistentvolumes."]),
            ("[1].map(Fn(\"find_pv\"))", &["get persistentvolumes."]),
            ("global::get_pv(\"pv-1\")", &["get persistentvolumes."]),
            ("patch_object(\"ConfigMap\", \"shop\", \"note\", #{})", &patch),
            ("patch_object(\"v1/ConfigMap\", \"shop\", \"note\", #{})", &patch),
            (
                "apply_object(#{ apiVersion: \"batch/v1\", kind: \"CronJob\", metadata: #{ namespace: \"shop\", name: \"x\" } })",
                &["create cronjobs.batch", "get cronjobs.batch", "patch cronjobs.batch"],
            ),
            (
                "let n = \"x\"; apply_object(#{ apiVersion: \"v1\", kind: \"Secret\", metadata: #{ namespace: n, name: n } })",
                &["create secrets.", "get secrets.", "patch secrets."],
            ),
        ] {
            assert_eq!(needs(text), (known.iter().map(|&s| s.to_owned()).collect(), vec![]), "{text}");
        }
    }

    #[test]
    fn a_kind_that_is_computed_is_told() {
        for (text, open) in [
            ("let k = \"Pod\";\nget_object(k, \"shop\", \"web\")", "2:get_object get None"),
            ("let o = #{};\napply_object(o)", "2:apply_object create get patch None"),
            (
                "delete_object(\"Widget.example.org\", \"\", \"x\")",
                "1:delete_object delete get Some(\"Widget.example.org\")",
            ),
            ("[\"Pod\"].map(Fn(\"list_objects\"))", "1:list_objects list None"),
        ] {
            assert_eq!(needs(text), (vec![], vec![open.to_owned()]), "{text}");
        }
    }

    #[test]
    fn the_imports_count_and_stock_scripts_leave_nothing_open() {
        for (name, _) in crate::script::resolver::STOCK {
            let script = Script::load(name, &CancellationToken::new()).map_err(|p| p[0].message.clone()).unwrap();
            let needs = script.needs();
            assert_eq!(needs.open, std::collections::BTreeSet::new(), "{name}");
            assert!(needs.known.iter().any(|need| need.verb == "delete" && need.resource == "persistentvolumeclaims"));
            assert!(needs.known.iter().all(|need| need.resource != "*" && need.verb != "*"));
        }
    }
}
