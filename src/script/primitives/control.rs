//! What scripts are written with: arguments, questions, talk, tables, time and closures.

use crate::script::enter::{self, Outcome, signature};
use crate::script::errors;
use crate::script::parallel;
use crate::script::session::Branch;
use crate::script::view::{to_dynamic, to_json};
use crate::words::{Json, Kind, Problem, clock::Clock, names};
use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, FuncRegistration, INT, Map, NativeCallContext};
use std::time::Duration;

/// One entry of the second table, for people: these take closures, or are no steps of the cluster.
pub struct Control {
    pub name: &'static str,
    pub signature: &'static str,
    pub doc: &'static str,
    /// As that of a primitive.
    pub example: &'static str,
}

pub const CONTROLS: &[Control] = &[
    Control {
        name: "arg",
        signature: "arg(name: string, opts?: map) -> value",
        doc: "Returns an option of the script. Calls stand at the top level with literals only: they are read without running \
              the script and become its --help.\nOptions: `kind` (\"string\", \"int\", \"bool\", \"size\", or a kind of the \
              cluster), `required`, `fallback`, `choices`, `many` (may be given several times), `help`, `value` (its name in \
              --help).",
        example: "let source = arg(\"source-sc\", #{ kind: \"StorageClass\", fallback: \"slow\", help: \"class to leave\" }); source == \"slow\"",
    },
    Control {
        name: "confirm",
        signature: "confirm(plan: string) -> ()",
        doc: "Shows a plan and asks; with --yes it goes on without asking. A no, or nobody to ask, ends the run before its \
              first change.",
        example: "confirm(\"move 2 claims\"); true",
    },
    Control {
        name: "log",
        signature: "log(text: string) -> ()",
        doc: "Says a line to the person watching. Silent while a resumed run passes what it did before.",
        example: "log(\"hello\"); true",
    },
    Control {
        name: "table",
        signature: "table(rows: array, opts?: map) -> ()",
        doc: "Prints rows, an array of maps, as the script's result: a table, or JSON with --output json.\nOption: `columns`, the \
              keys in order.",
        example: "table([#{ claim: \"shop/data\", files: 3 }], #{ columns: [\"claim\", \"files\"] }); true",
    },
    Control {
        name: "step",
        signature: "step(name: string, f: closure) -> value",
        doc: "Runs a closure as a named part of the run: once done it is not entered again.",
        example: "step(\"look\", || 1 + 1) == 2",
    },
    Control {
        name: "parallel_each",
        signature: "parallel_each(items: array, n: int, f: closure) -> ()",
        doc: "Calls the closure for every item, `n` at a time, each in a branch of its own. After a failure no further items are \
              begun; those that run are finished.",
        example: "parallel_each([\"a\", \"b\"], 2, |item| log(item)); true",
    },
    Control {
        name: "parallel_map",
        signature: "parallel_map(items: array, n: int, f: closure) -> array",
        doc: "Like parallel_each, and returns the results in the items' order.",
        example: "parallel_map([1, 2, 3], 2, |n| n * n) == [1, 4, 9]",
    },
    Control {
        name: "wait_until",
        signature: "wait_until(opts: map, f: closure) -> value",
        doc: "Calls the closure until it returns something true, and returns that. Reads inside are live; writes are refused.\n\
              Options: `what` (for messages), `timeout_s` (300), `every_s` (1).",
        example: "wait_until(#{ what: \"the claim is bound\", timeout_s: 10 }, || get_pvc(\"shop\", \"data\").phase == \"Bound\")",
    },
    Control {
        name: "now",
        signature: "now() -> int",
        doc: "Returns the seconds since the Unix epoch, the same after a resume as before.",
        example: "now() > 1_700_000_000",
    },
    Control {
        name: "is_rebound",
        signature: "is_rebound(namespace: string, name: string) -> bool",
        doc: "Whether this run has given the claim's name to its target. Looked up in the run's own books as they are now: it is no \
              step, so it may be asked where a failure is handled.",
        example: "!is_rebound(\"shop\", \"data\")",
    },
    Control {
        name: "sleep",
        signature: "sleep(seconds: int) -> ()",
        doc: "Lets time pass. To wait for something use wait_until.",
        example: "sleep(0); true",
    },
];

/// Makes them callable.
pub fn register(engine: &mut Engine) {
    let entry = |name: &'static str| {
        let control = CONTROLS.iter().find(|control| control.name == name).expect("every control is in the table");
        let comments: Vec<String> = control.doc.lines().map(|line| format!("/// {line}")).collect();
        FuncRegistration::new(name).in_global_namespace().with_comments(comments)
    };
    type C<'a> = NativeCallContext<'a>;
    entry("arg").register_into_engine(engine, |ctx: C, name: &str| arg(&ctx, name));
    entry("arg").register_into_engine(engine, |ctx: C, name: &str, _: Map| arg(&ctx, name));
    entry("confirm").register_into_engine(engine, |ctx: C, plan: &str| confirm(&ctx, plan));
    entry("log").register_into_engine(engine, |ctx: C, text: Dynamic| log(&ctx, &text));
    entry("table").register_into_engine(engine, |ctx: C, rows: Array| table(&ctx, &rows, &Map::new()));
    entry("table").register_into_engine(engine, |ctx: C, rows: Array, opts: Map| table(&ctx, &rows, &opts));
    entry("step").register_into_engine(engine, |ctx: C, name: &str, f: FnPtr| parallel::named_step(&ctx, name, &f));
    entry("parallel_each").register_into_engine(engine, |ctx: C, items: Array, n: INT, f: FnPtr| {
        parallel::parallel("parallel_each", &ctx, items, n, &f).map(|_| Dynamic::UNIT)
    });
    entry("parallel_map").register_into_engine(engine, |ctx: C, items: Array, n: INT, f: FnPtr| {
        parallel::parallel("parallel_map", &ctx, items, n, &f)
    });
    entry("wait_until")
        .register_into_engine(engine, |ctx: C, opts: Map, f: FnPtr| parallel::wait_until(&ctx, &opts, &f));
    entry("now").register_into_engine(engine, |ctx: C| now(&ctx));
    entry("is_rebound")
        .register_into_engine(engine, |ctx: C, namespace: &str, name: &str| is_rebound(&ctx, namespace, name));
    entry("sleep").register_into_engine(engine, |ctx: C, seconds: INT| sleep(&ctx, seconds));
}

fn arg(ctx: &NativeCallContext, name: &str) -> Outcome {
    let thrown = |problem: Problem| errors::throw(&problem, ctx.call_position());
    let branch = Branch::of(ctx);
    let args = &branch.session().map_err(thrown)?.args;
    match args.get(name) {
        Some(value) => Ok(to_dynamic(value)),
        None => Err(thrown(
            Problem::usage(format!("`{name}` was not read as an option of this script"))
                .hint("calls of arg stand at the top level of the script, with literals"),
        )),
    }
}

/// Runs what is a step without being a primitive of the cluster.
fn step(
    ctx: &NativeCallContext,
    op: &str,
    args: &[Json],
    work: impl FnOnce(&Branch) -> Result<Json, Problem>,
) -> Outcome {
    let position = ctx.call_position();
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(|problem| errors::throw(&problem, position))?.clone();
    if branch.mode == crate::script::session::Mode::Looking {
        return work(&branch).map(|out| to_dynamic(&out)).map_err(|problem| errors::throw(&problem, position));
    }
    let (_, id) = branch.next();
    let out = enter::step(&session, &id, op, &signature(args), &enter::place(ctx), false, position, || work(&branch))?;
    Ok(to_dynamic(&out))
}

fn confirm(ctx: &NativeCallContext, plan: &str) -> Outcome {
    step(ctx, "confirm", &[Json::from(plan)], |branch| {
        let session = branch.session()?;
        if session.yes {
            session.voice.status(&names::plain(plan));
            return Ok(Json::Null);
        }
        match session.voice.confirm(&names::plain(plan)) {
            Some(true) => Ok(Json::Null),
            Some(false) => Err(Problem::refused("not confirmed")),
            None => {
                Err(Problem::refused("nobody is here to confirm the plan").hint("add --yes to go on without asking"))
            }
        }
    })
}

fn log(ctx: &NativeCallContext, text: &Dynamic) -> Outcome {
    let branch = Branch::of(ctx);
    if let Some(session) = &branch.session
        && !branch.is_replaying()
    {
        session.voice.status(&names::plain(&text.to_string()));
    }
    Ok(Dynamic::UNIT)
}

fn table(ctx: &NativeCallContext, rows: &Array, opts: &Map) -> Outcome {
    let thrown = |problem: Problem| errors::throw(&problem, ctx.call_position());
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(thrown)?;
    if let Some(key) = opts.keys().find(|key| *key != "columns") {
        return Err(thrown(
            Problem::usage(format!("table has no option `{key}`")).hint("table(rows, #{columns: [\"a\", \"b\"]})"),
        ));
    }
    let json = to_json(&rows.clone().into()).map_err(thrown)?;
    let columns = opts.get("columns").map(to_json).transpose().map_err(thrown)?;
    let text = render(&json, columns.as_ref());
    if !branch.is_replaying() {
        session.voice.data(&text, &json);
    }
    Ok(Dynamic::UNIT)
}

/// Rows as a table for people; numbers to the right.
pub fn render(rows: &Json, columns: Option<&Json>) -> String {
    let rows: Vec<&Json> = rows.as_array().into_iter().flatten().collect();
    let columns: Vec<String> = match columns.and_then(Json::as_array) {
        Some(list) => list.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        None => {
            let mut seen = Vec::new();
            for key in rows.iter().filter_map(|row| row.as_object()).flat_map(|row| row.keys()) {
                if !seen.contains(key) {
                    seen.push(key.clone());
                }
            }
            seen
        }
    };
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    for row in &rows {
        table.add_row(columns.iter().map(|column| match &row[column.as_str()] {
            Json::Null => "-".to_owned(),
            Json::String(text) => names::plain(text),
            other => names::plain(&other.to_string()),
        }));
    }
    for (column, name) in table.column_iter_mut().zip(&columns) {
        let mut cells = rows.iter().map(|row| &row[name.as_str()]).filter(|cell| !cell.is_null()).peekable();
        if cells.peek().is_some() && cells.all(Json::is_number) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    table
        .to_string()
        .lines()
        .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()).to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn now(ctx: &NativeCallContext) -> Outcome {
    step(ctx, "now", &[], |_| Ok(Clock.unix_s().into()))
}

fn is_rebound(ctx: &NativeCallContext, namespace: &str, name: &str) -> Result<bool, Box<EvalAltResult>> {
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(|problem| errors::throw(&problem, ctx.call_position()))?;
    let books = session.door.ledger.books();
    Ok(books.swapped.values().any(|swap| swap.claim.namespace == namespace && swap.claim.name == name))
}

fn sleep(ctx: &NativeCallContext, seconds: INT) -> Outcome {
    step(ctx, "sleep", &[seconds.into()], |branch| {
        let session = branch.session()?;
        let seconds = u64::try_from(seconds)
            .map_err(|_| Problem::new(Kind::Usage, "sleep wants seconds, not less than nothing"))?;
        session.runtime.block_on(crate::cluster::wait::sleep(Duration::from_secs(seconds), &session.door.cancel))?;
        Ok(Json::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_keep_the_order_of_their_columns() {
        let rows = json!([{"files": 3, "claim": "shop/data"}, {"claim": "shop/logs"}]);
        let text = render(&rows, Some(&json!(["claim", "files"])));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, vec![vec!["CLAIM", "FILES"], vec!["shop/data", "3"], vec!["shop/logs", "-"]]);
    }

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = json!([{"claim": "a", "files": 3, "size": "3"}, {"claim": "b", "files": 12345, "size": "12345"}]);
        assert_eq!(
            render(&rows, None).lines().collect::<Vec<_>>(),
            ["CLAIM  FILES  SIZE", "a          3  3", "b      12345  12345"]
        );
    }
}
