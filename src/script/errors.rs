//! Problems on their way through the engine: thrown as maps that scripts can catch, caught again with their place.

use crate::words::{Json, Kind, Place, Problem};
use rhai::{Dynamic, EvalAltResult, ParseError, Position};
use std::sync::Arc;

/// A problem as scripts catch it: a map with `error, kind, code, object, hint, retryable`.
pub fn throw(problem: &Problem, position: Position) -> Box<EvalAltResult> {
    let mut json = serde_json::to_value(problem).expect("a problem is plain data");
    if let Some(map) = json.as_object_mut() {
        map.insert("hint".into(), problem.hints.first().map_or(Json::Null, |hint| Json::String(hint.clone())));
        map.entry("code").or_insert(Json::Null);
        map.entry("object").or_insert(Json::Null);
        map.remove("place");
    }
    Box::new(EvalAltResult::ErrorRuntime(super::view::to_dynamic(&json), position))
}

/// Ends the script: no `catch` sees it.
pub fn end(problem: &Problem, position: Position) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::from(Arc::new(problem.clone())), position))
}

/// What an error of the engine means, with the place where it arose and the calls that led there.
pub fn problem(error: &EvalAltResult, script: &str) -> Problem {
    let mut calls = Vec::new();
    let mut source = script.to_owned();
    let mut inner = error;
    loop {
        match inner {
            EvalAltResult::ErrorInFunctionCall(function, in_source, next, position) => {
                calls.push((function.clone(), source.clone(), line(*position), column(*position)));
                if !in_source.is_empty() {
                    source.clone_from(in_source);
                }
                inner = next;
            }
            EvalAltResult::ErrorInModule(path, next, position) => {
                calls.push((format!("import \"{path}\""), source.clone(), line(*position), column(*position)));
                if !path.is_empty() {
                    source.clone_from(path);
                }
                inner = next;
            }
            _ => break,
        }
    }
    let mut problem = meaning(inner);
    if problem.place.is_none() {
        let position = inner.position();
        calls.reverse();
        let place = Place { script: source, line: line(position), column: column(position), calls };
        // Natives without a position of their own: the nearest call that has one.
        problem.place = if place.line > 0 { Some(place) } else { nearest(place) };
    }
    problem
}

fn nearest(mut place: Place) -> Option<Place> {
    let index = place.calls.iter().position(|call| call.2 > 0)?;
    let (_, script, line, column) = place.calls[index].clone();
    place.calls.drain(..=index);
    Some(Place { script, line, column, calls: place.calls })
}

fn line(position: Position) -> usize {
    position.line().unwrap_or(0)
}

fn column(position: Position) -> usize {
    position.position().unwrap_or(0)
}

fn meaning(error: &EvalAltResult) -> Problem {
    match error {
        EvalAltResult::ErrorTerminated(token, _) => match token.clone().try_cast::<Arc<Problem>>() {
            Some(problem) => (*problem).clone(),
            None => crate::cluster::wait::interrupted(),
        },
        EvalAltResult::ErrorRuntime(value, _) => thrown(value),
        EvalAltResult::ErrorParsing(kind, position) => {
            let mut problem = Problem::usage(format!("the script cannot be read: {kind}"));
            problem.place = Some(Place {
                script: String::new(),
                line: line(*position),
                column: column(*position),
                calls: Vec::new(),
            });
            problem
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let name = signature.split(" (").next().unwrap_or(signature);
            let mut problem = Problem::usage(format!("there is no function `{signature}`"));
            if let Some(known) = super::primitives::find(name) {
                problem = problem.hint(format!("it is {}", known.signature()));
            } else if let Some(word) = crate::words::names::did_you_mean(name, super::primitives::names()) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            problem
        }
        EvalAltResult::ErrorDataRace(name, _) => {
            Problem::usage(format!("`{name}` is changed by several branches at once"))
                .hint("return values from parallel_map instead of writing to a captured variable")
        }
        other => Problem::new(Kind::Thrown, plain(other)),
    }
}

/// The engine's own words without the position, which is said elsewhere.
fn plain(error: &EvalAltResult) -> String {
    let mut bare = error.to_string();
    if let Some(at) = bare.rfind(" (line ") {
        bare.truncate(at);
    }
    let mut letters = bare.chars();
    letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

/// A thrown value: a map like ours is the problem that it says, anything else its text.
fn thrown(value: &Dynamic) -> Problem {
    let Ok(json) = super::view::to_json(value) else {
        return Problem::new(Kind::Thrown, format!("a {} was thrown", value.type_name()));
    };
    if let Json::Object(map) = &json {
        let mut copy = map.clone();
        let hint = copy.remove("hint").and_then(|hint| hint.as_str().map(str::to_owned));
        copy.retain(|_, value| !value.is_null());
        copy.entry("kind").or_insert_with(|| Json::String(Kind::Thrown.word()));
        if let Some(message) = copy.remove("message") {
            copy.entry("error").or_insert(message);
        }
        if let Ok(mut problem) = serde_json::from_value::<Problem>(Json::Object(copy)) {
            if let Some(hint) = hint
                && !problem.hints.contains(&hint)
            {
                problem.hints.push(hint);
            }
            return problem;
        }
    }
    Problem::new(Kind::Thrown, json.as_str().map_or_else(|| json.to_string(), str::to_owned))
}

/// A parse error as a problem.
pub fn parse_problem(error: &ParseError, script: &str) -> Problem {
    let mut problem = Problem::usage(error.0.to_string().trim_end_matches('.').to_owned());
    problem.message = {
        let mut letters = problem.message.chars();
        letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
    };
    problem.place =
        Some(Place { script: script.to_owned(), line: line(error.1), column: column(error.1), calls: Vec::new() });
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_being_thrown_and_caught() {
        let sent = Problem::new(Kind::Voided, "somebody wrote").hint("again").object("Pod:a/b").code(409).retryable();
        let got = problem(&throw(&sent, Position::new(3, 7)), "x.rhai");
        assert_eq!(got.place, Some(Place { script: "x.rhai".into(), line: 3, column: 7, calls: vec![] }));
        assert_eq!(Problem { place: None, ..got }, sent);
    }

    #[test]
    fn what_scripts_throw_is_understood() {
        for (script, kind, message) in [
            ("throw \"no\"", Kind::Thrown, "no"),
            ("throw #{kind: \"Conflict\", error: \"taken\"}", Kind::Conflict, "taken"),
            ("throw #{message: \"mine\", hint: \"do\"}", Kind::Thrown, "mine"),
            ("throw 42", Kind::Thrown, "42"),
            ("1 / 0", Kind::Thrown, "division by zero: 1 / 0"),
        ] {
            let error = rhai::Engine::new().run(script).unwrap_err();
            let got = problem(&error, "x");
            assert_eq!((got.kind, got.message.as_str()), (kind, message), "{script}");
        }
    }
}
