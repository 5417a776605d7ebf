//! What is wrong with a script, found before it runs: unknown functions, wrong numbers of arguments, modules that are
//! not there, writes to captured variables in parallel closures, closures handed to other modules.

use super::primitives;
use super::resolver::{Sources, compile};
use crate::words::{Place, Problem, names};
use rhai::{AST, ASTNode, Engine, Expr, Position, Stmt};
use std::collections::{BTreeMap, BTreeSet};

/// Checks a script and everything that it imports.
pub fn check(engine: &Engine, sources: &Sources, name: &str, ast: &AST) -> Vec<Problem> {
    let mut faults = Vec::new();
    let mut seen = BTreeMap::new();
    check_one(engine, sources, name, ast, &mut Vec::new(), &mut seen, &mut faults);
    faults
}

/// Function names with the numbers of parameters that they take.
type Functions = BTreeMap<String, BTreeSet<usize>>;

fn check_one(
    engine: &Engine,
    sources: &Sources,
    name: &str,
    ast: &AST,
    open: &mut Vec<String>,
    seen: &mut BTreeMap<String, Functions>,
    faults: &mut Vec<Problem>,
) -> Functions {
    let mut own = Functions::new();
    for function in ast.iter_functions() {
        own.entry(function.name.to_owned()).or_default().insert(function.params.len());
    }
    seen.insert(name.to_owned(), own.clone());
    open.push(name.to_owned());
    let mut modules: BTreeMap<String, Functions> = BTreeMap::new();
    for (path, alias, position) in imports(ast) {
        let place = |problem: Problem| at(problem, name, position);
        let imported = match sources.import(name, &path) {
            Ok((module, _)) if open.contains(&module) => {
                let first = open.iter().position(|other| *other == module).unwrap_or(0);
                let cycle = open[first..].iter().chain([&module]).cloned().collect::<Vec<_>>().join(" -> ");
                faults.push(place(Problem::usage(format!("the modules import each other: {cycle}"))));
                continue;
            }
            Ok((module, _)) if seen.contains_key(&module) => seen[&module].clone(),
            Ok((module, text)) => match compile(engine, &module, &text) {
                Ok(tree) => check_one(engine, sources, &module, &tree, open, seen, faults),
                Err(problem) => {
                    faults.push(problem);
                    continue;
                }
            },
            Err(problem) => {
                faults.push(place(problem));
                continue;
            }
        };
        modules.insert(alias, imported);
    }
    open.pop();
    let natives = natives(engine);
    let mut calls = Vec::new();
    ast.walk(&mut |nodes: &[ASTNode]| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                calls.push((call.clone(), *position, false));
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, position))) => calls.push((call.clone(), *position, true)),
            Some(ASTNode::Stmt(Stmt::TryCatch(flow, position))) if flow.branch.is_empty() => {
                faults.push(at(
                    Problem::usage("an empty catch hides what went wrong").hint("rethrow what is not expected: throw;"),
                    name,
                    *position,
                ));
            }
            _ => {}
        }
        true
    });
    for (call, position, is_method) in calls {
        if call.op_token.is_some() || call.name.is_empty() {
            continue;
        }
        let arity = call.args.len() + usize::from(is_method);
        let function = call.name.as_str();
        if call.namespace.is_empty() {
            // A variable that holds a closure is called like a function; only the run knows what it holds.
            if let Some(problem) = unknown(function, arity, is_method, &own, &natives) {
                faults.push(at(problem, name, position));
            }
        } else {
            let alias = call.namespace.root().to_owned();
            if let Some(functions) = modules.get(&alias)
                && let Some(problem) = missing(&alias, function, arity, functions)
            {
                faults.push(at(problem, name, position));
            }
            if call.args.iter().any(is_closure) && alias != "global" {
                faults.push(at(
                    Problem::usage(format!(
                        "a closure is handed to the module `{alias}`: rhai would resolve its names there"
                    ))
                    .hint("call it here, or hand over values"),
                    name,
                    position,
                ));
            }
        }
    }
    own
}

/// Path, alias and place of every import.
pub(super) fn imports(ast: &AST) -> Vec<(String, String, Position)> {
    let mut found = Vec::new();
    ast.walk(&mut |nodes: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, position))) = nodes.last()
            && let Expr::StringConstant(path, _) = &import.0
        {
            found.push((path.to_string(), import.1.name.to_string(), *position));
        }
        true
    });
    found
}

/// Everything that the engine knows by itself.
fn natives(engine: &Engine) -> Functions {
    let mut functions = Functions::new();
    for signature in engine.gen_fn_signatures(true) {
        let bare = signature.split(" -> ").next().unwrap_or(&signature);
        if let Some((name, rest)) = bare.split_once('(') {
            let inside = rest.trim_end_matches(')').trim();
            let count = if inside.is_empty() { 0 } else { count_params(inside) };
            functions.entry(name.trim().to_owned()).or_default().insert(count);
        }
    }
    functions
}

/// Commas at the top level only: types may have some of their own.
fn count_params(inside: &str) -> usize {
    let mut depth = 0;
    1 + inside
        .chars()
        .filter(|c| {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' | ')' | ']' => depth -= 1,
                _ => {}
            }
            *c == ',' && depth == 0
        })
        .count()
}

/// Words of the language that look like calls.
const KEYWORDS: [&str; 8] = ["call", "curry", "is_shared", "Fn", "is_def_var", "is_def_fn", "type_of", "print"];

fn unknown(function: &str, arity: usize, is_method: bool, own: &Functions, natives: &Functions) -> Option<Problem> {
    if KEYWORDS.contains(&function) || function.starts_with("anon$") {
        return None;
    }
    let takes = own.get(function).or_else(|| natives.get(function));
    match takes {
        // A script's function called as a method has its object as `this`.
        Some(counts) if counts.contains(&arity) || (is_method && counts.contains(&(arity - 1))) => None,
        Some(counts) => {
            let list = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
            let mut problem = Problem::usage(format!("`{function}` takes {list} arguments, {arity} are given"));
            if let Some(primitive) = primitives::find(function) {
                problem = problem.hint(format!("it is {}", primitive.signature()));
            }
            Some(problem)
        }
        None => {
            let what = if is_method { "method" } else { "function" };
            let mut problem = Problem::usage(format!("there is no {what} `{function}`"));
            let mut known: Vec<&str> = own.keys().chain(natives.keys()).map(String::as_str).collect();
            for word in primitives::names() {
                known.push(word);
            }
            if let Some(word) = names::did_you_mean(function, known) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            Some(problem)
        }
    }
}

fn missing(alias: &str, function: &str, arity: usize, functions: &Functions) -> Option<Problem> {
    match functions.get(function) {
        Some(counts) if counts.contains(&arity) => None,
        Some(counts) => {
            let list = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
            Some(Problem::usage(format!("`{alias}::{function}` takes {list} arguments, {arity} are given")))
        }
        None => {
            let mut problem = Problem::usage(format!("the module `{alias}` has no function `{function}`"));
            if let Some(word) = names::did_you_mean(function, functions.keys().map(String::as_str)) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            Some(problem)
        }
    }
}

/// A closure literal, curried or not.
fn is_closure(expr: &Expr) -> bool {
    match expr {
        Expr::DynamicConstant(value, _) => value.is::<rhai::FnPtr>(),
        Expr::FnCall(call, _) => call.name == "curry" && call.args.first().is_some_and(is_closure) || call.name == "Fn",
        Expr::Stmt(block) => block.iter().any(|statement| match statement {
            Stmt::Expr(inner) => is_closure(inner),
            Stmt::FnCall(call, _) => call.name == "curry" && call.args.first().is_some_and(is_closure),
            _ => false,
        }),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use crate::script::Script;
    use tokio_util::sync::CancellationToken;

    fn faults(text: &str) -> Vec<String> {
        match Script::typed(text, &CancellationToken::new()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|p| {
                    let place =
                        p.place.as_ref().map(|place| format!("{}:{} ", place.line, place.column)).unwrap_or_default();
                    format!(
                        "{place}{}{}",
                        p.message,
                        p.hints.first().map(|hint| format!(" | {hint}")).unwrap_or_default()
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn faults_are_found_with_place_and_guess() {
        for (script, want) in [
            ("scal(1, 2);", "1:1 there is no function `scal` | did you mean `scale`?"),
            ("let a = [1];\na.pussh(2);", "2:3 there is no method `pussh` | did you mean `push`?"),
            ("fn f(a) { a }\nf(1, 2);", "2:1 `f` takes 1 arguments, 2 are given"),
            (
                "get_pv();",
                "1:1 `get_pv` takes 1 arguments, 0 are given | it is get_pv(name: string) -> PersistentVolume",
            ),
            ("import \"std/unitt\" as u;", "1:1 there is no module `std/unitt` | did you mean `std/unit`?"),
            (
                "try { log(\"x\"); } catch {}",
                "1:1 an empty catch hides what went wrong | rethrow what is not expected: throw;",
            ),
            ("let x = y;", "1:9 undefined variable: y"),
        ] {
            assert!(faults(script).iter().any(|fault| fault == want), "{script}: {:?}", faults(script));
        }
    }

    #[test]
    fn closures_do_not_cross_modules() {
        let found = faults("import \"std/choose\" as c;\nc::claims(|x| x);");
        assert!(found.iter().any(|fault| fault.contains("a closure is handed to the module `c`")), "{found:?}");
    }

    #[test]
    fn sound_scripts_pass() {
        for script in [
            "let n = 0; for p in list_pvs() { n += 1; } n",
            "let f = |x| x + 1; f.call(2)",
            "parallel_each([1], 1, |x| log(x));",
            "let names = list_pvcs().map(|c| c.name).filter(|n| n != \"x\"); names.len()",
            "try { get_pv(\"x\"); } catch (e) { if e.kind != \"NotFound\" { throw; } }",
        ] {
            assert_eq!(faults(script), Vec::<String>::new(), "{script}");
        }
    }
}
