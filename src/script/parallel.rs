//! parallel_each, parallel_map, step and wait_until: the functions that call closures.
//!
//! Every item runs in a branch of its own, named by the item and not by time or thread, so that a resumed run finds
//! its steps again whatever the interleaving was. Closures are called with a runtime state of their own (rhai 1.27).

use super::enter::{self, Outcome, signature};
use super::errors;
use super::session::{Branch, Mode, Session};
use super::view::{to_dynamic, to_json};
use crate::cluster::wait;
use crate::words::clock::Clock;
use crate::words::{Json, Kind, Problem};
use rhai::{Array, Dynamic, FnPtr, NativeCallContext};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Deep enough for the call levels that the engine allows.
const STACK_BYTES: usize = 32 << 20;

/// Calls `f` for every item, `n` at a time, and returns the results in the items' order.
///
/// When an item fails no further ones are begun; those that run are finished; then the failures are thrown.
pub fn parallel(op: &'static str, ctx: &NativeCallContext, items: Array, n: i64, f: &FnPtr) -> Outcome {
    let position = ctx.call_position();
    let thrown = |problem: Problem| errors::throw(&problem, position);
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(thrown)?.clone();
    refuse_inside_wait(&branch, op).map_err(thrown)?;
    if !(1..=256).contains(&n) {
        return Err(thrown(Problem::usage(format!("{op} runs 1 to 256 items at once, not {n}"))));
    }
    let keys = keys(&items).map_err(thrown)?;
    let (number, id) = branch.next();
    let sig = signature(&[Json::from(keys.clone())]);
    let out = enter::step(&session, &id, op, &sig, &enter::place(ctx), true, position, || {
        let children: Vec<String> = keys.iter().map(|key| child(&branch.path, number, key)).collect();
        fan_out(ctx, &branch, &session, &items, &children, usize::try_from(n).unwrap_or(1), f)
    })?;
    Ok(to_dynamic(&out))
}

fn fan_out(
    ctx: &NativeCallContext,
    branch: &Branch,
    session: &Arc<Session>,
    items: &Array,
    children: &[String],
    at_once: usize,
    f: &FnPtr,
) -> Result<Json, Problem> {
    let results: Vec<Mutex<Option<Result<Json, Problem>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::SeqCst);
            if index >= items.len() || failed.load(Ordering::SeqCst) || session.door.cancel.is_cancelled() {
                return;
            }
            let result = in_branch(ctx, branch, session, &children[index], f, vec![items[index].clone()]);
            if result.is_err() {
                failed.store(true, Ordering::SeqCst);
            }
            *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for number in 0..at_once.min(items.len()) {
            let thread = std::thread::Builder::new().name(format!("branch-{number}")).stack_size(STACK_BYTES);
            if thread.spawn_scoped(scope, work).is_err() && number == 0 {
                // Not even one thread is to be had: the items are done one by one right here.
                work();
            }
        }
    });
    let mut done = Vec::new();
    let mut problems = Vec::new();
    let mut left_out = 0;
    for result in results {
        match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(value)) => done.push(value),
            Some(Err(problem)) => problems.push(problem),
            None => left_out += 1,
        }
    }
    if problems.is_empty() && left_out == 0 {
        return Ok(Json::Array(done));
    }
    // What ends a run goes before what one item met.
    let graver = |problem: &Problem| {
        problem.fatal || matches!(problem.kind, Kind::Interrupted | Kind::Diverged | Kind::Local | Kind::Bug)
    };
    let first = problems.iter().position(graver).unwrap_or(0);
    if problems.is_empty() {
        return Err(wait::interrupted());
    }
    let mut problem = problems.remove(first);
    for other in &problems {
        problem = problem.quote(format!("another one failed too: {other}"));
    }
    if left_out > 0 {
        problem = problem.quote(format!("{left_out} of {} were not begun", items.len()));
    }
    Err(problem)
}

/// Calls a closure in a branch, or returns what the branch came to before.
fn in_branch(
    ctx: &NativeCallContext,
    branch: &Branch,
    session: &Arc<Session>,
    path: &str,
    f: &FnPtr,
    args: Vec<Dynamic>,
) -> Result<Json, Problem> {
    let journal = &session.door.journal;
    if let Some(out) = journal.ended(path) {
        return Ok(out);
    }
    // Begun anew after it was given up: none of its steps of then says anything of now.
    let value = match call(ctx, &branch.child(attempt(path, journal.given_up(path)), Mode::Steps), f, args) {
        Ok(value) => value,
        Err(problem) => {
            if problem.restart {
                journal.give_up(path, &problem)?;
            }
            return Err(problem);
        }
    };
    let out = to_json(&value).map_err(|p| Problem::usage("the result of a branch must be plain values").because(&p))?;
    journal.end(path, out.clone())?;
    Ok(out)
}

/// The branch that is entered under a path that was given up so often.
pub(super) fn attempt(path: &str, given_up: u32) -> String {
    match given_up {
        0 => path.to_owned(),
        times => format!("{path}~again-{times}"),
    }
}

/// Calls a closure with the state of its own that a thread needs, and catches what it must not bring down.
fn call(ctx: &NativeCallContext, branch: &Arc<Branch>, f: &FnPtr, args: Vec<Dynamic>) -> Result<Dynamic, Problem> {
    let mut state = ctx.global_runtime_state().clone();
    state.tag = branch.tag();
    let own = NativeCallContext::new_with_all_fields(
        ctx.engine(),
        ctx.fn_name(),
        ctx.fn_source(),
        &state,
        ctx.call_position(),
    );
    let run = std::panic::AssertUnwindSafe(|| f.call_within_context::<Dynamic>(&own, args));
    let script = ctx.call_source().unwrap_or("script");
    match std::panic::catch_unwind(run) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(errors::problem(&error, script)),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Problem::bug(format!("a branch panicked: {}", text.unwrap_or("no message"))))
        }
    }
}

/// Each item's identity; two alike could not be told apart after a crash.
/// The path of a branch. What a script calls its items cannot look like a branch inside of another one.
pub(super) fn child(path: &str, number: u64, key: &str) -> String {
    format!("{path}/{number}~{}", key.replace('%', "%25").replace('~', "%7E"))
}

fn keys(items: &Array) -> Result<Vec<String>, Problem> {
    let mut seen = BTreeSet::new();
    items
        .iter()
        .map(|item| {
            let json = to_json(item)?;
            let key = if super::view::is_object(&json) {
                crate::cluster::workload::reference(&json).to_string()
            } else if let Some(text) = json.as_str() {
                text.to_owned()
            } else if let Some(key) = json["key"].as_str() {
                key.to_owned()
            } else if json.is_number() {
                json.to_string()
            } else {
                return Err(Problem::usage(
                    "an item must be an object of the cluster, a string, or a map with a `key`",
                ));
            };
            if !seen.insert(key.clone()) {
                return Err(
                    Problem::usage(format!("two items are called `{key}`")).hint("give maps a `key` of their own")
                );
            }
            Ok(key)
        })
        .collect()
}

/// Runs a closure as a named part of the run.
pub fn named_step(ctx: &NativeCallContext, name: &str, f: &FnPtr) -> Outcome {
    let position = ctx.call_position();
    let thrown = |problem: Problem| errors::throw(&problem, position);
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(thrown)?.clone();
    refuse_inside_wait(&branch, "step").map_err(thrown)?;
    let (number, id) = branch.next();
    if !branch.is_replaying() {
        session.voice.status(name);
    }
    let out = enter::step(
        &session,
        &id,
        "step",
        &signature(&[Json::from(name)]),
        &enter::place(ctx),
        true,
        position,
        || in_branch(ctx, &branch, &session, &child(&branch.path, number, name), f, vec![]),
    )?;
    Ok(to_dynamic(&out))
}

/// Calls `f` until it returns something true.
pub fn wait_until(ctx: &NativeCallContext, opts: &rhai::Map, f: &FnPtr) -> Outcome {
    let position = ctx.call_position();
    let thrown = |problem: Problem| errors::throw(&problem, position);
    let branch = Branch::of(ctx);
    let session = branch.session().map_err(thrown)?.clone();
    refuse_inside_wait(&branch, "wait_until").map_err(thrown)?;
    let wanted = Wanted::parse(opts).map_err(thrown)?;
    let (number, id) = branch.next();
    let sig = signature(&[Json::from(wanted.what.as_str())]);
    let out = enter::step(&session, &id, "wait_until", &sig, &enter::place(ctx), false, position, || {
        let looking = branch.child(format!("{}/{number}~wait", branch.path), Mode::Looking);
        let deadline = Clock.deadline(wanted.timeout);
        loop {
            let value = call(ctx, &looking, f, vec![])?;
            if is_true(&value) {
                return to_json(&value);
            }
            if deadline.passed() {
                return Err(Problem::new(
                    Kind::Timeout,
                    format!("gave up waiting until {} after {} s", wanted.what, wanted.timeout.as_secs()),
                ));
            }
            session.runtime.block_on(wait::sleep(wanted.every.min(deadline.left()), &session.door.cancel))?;
        }
    })?;
    Ok(to_dynamic(&out))
}

struct Wanted {
    what: String,
    timeout: Duration,
    every: Duration,
}

impl Wanted {
    fn parse(opts: &rhai::Map) -> Result<Self, Problem> {
        let mut wanted = Wanted {
            what: "a condition holds".into(),
            timeout: Duration::from_secs(300),
            every: Duration::from_secs(1),
        };
        for (key, value) in opts {
            let json = to_json(value)?;
            let seconds = json.as_f64().filter(|s| (0.0..=7.0 * 86400.0).contains(s));
            match (key.as_str(), seconds, json.as_str()) {
                ("timeout_s", Some(s), _) => wanted.timeout = Duration::from_secs_f64(s),
                ("every_s", Some(s), _) => wanted.every = Duration::from_secs_f64(s.max(0.1)),
                ("what", _, Some(what)) => wanted.what = what.to_owned(),
                _ => {
                    return Err(Problem::usage(format!("wait_until does not understand `{key}`"))
                        .hint("wait_until(#{what: \"…\", timeout_s: 300, every_s: 1}, || …)"));
                }
            }
        }
        Ok(wanted)
    }
}

fn is_true(value: &Dynamic) -> bool {
    !value.is_unit() && value.as_bool().unwrap_or(true)
}

fn refuse_inside_wait(branch: &Branch, op: &str) -> Result<(), Problem> {
    if branch.mode == Mode::Looking {
        return Err(Problem::usage(format!("`{op}` has no place inside wait_until")));
    }
    Ok(())
}
