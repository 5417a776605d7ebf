//! What a crash would have cost, in words that a person understands.

use super::doom::{Effect, How};
use super::picture::{Noise, Picture};
use super::view::Beginning;
use crate::words::{Json, Problem};
use std::collections::BTreeSet;

/// Something that is wrong, and what it is about: the same in every run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub about: String,
    pub what: String,
}

impl Cost {
    pub fn new(about: impl Into<String>, what: impl Into<String>) -> Cost {
        Cost { about: about.into(), what: what.into() }
    }
}

/// `delete claim shop/data`
pub fn write(effect: &Effect, beginning: &Beginning) -> String {
    let object = &effect.object;
    let name =
        if object.namespace.is_empty() { object.name.clone() } else { format!("{}/{}", object.namespace, object.name) };
    let what = match &object.kind[..] {
        "PersistentVolumeClaim" => format!("claim {name}"),
        // The names of volumes say nothing to anybody.
        "PersistentVolume" => match beginning.claims.iter().find(|(_, first)| first.name == name) {
            Some((claim, _)) => format!("the volume of {claim}"),
            None => "a new volume".to_owned(),
        },
        "Pod" => format!("pod {name}"),
        "Event" => format!("event {}", name.split('.').next().unwrap_or(&name)),
        kind => format!("{kind} {name}"),
    };
    format!("{} {what}", effect.verb())
}

/// `std/unit:33`, `mine:12`: where the step of a write was called.
pub fn place(effect: &Effect) -> &str {
    effect.at.rsplit_once(':').map_or(&effect.at, |(line, _)| line)
}

/// What happened: `killed after `delete claim shop/data` (mine:12)`.
pub fn cause(effect: &Effect, how: How, beginning: &Beginning) -> String {
    let write = write(effect, beginning);
    let at = match place(effect) {
        "" => String::new(),
        place => format!(" ({place})"),
    };
    match how {
        How::BeforeStart => format!("killed before `{write}`{at} was noted"),
        How::AfterStart => format!("killed before `{write}`{at} was sent"),
        How::SentAndLost => format!("the request `{write}`{at} lost on its way"),
        How::AnswerLost => format!("the answer to `{write}`{at} lost"),
        How::BeforeDone => format!("killed after `{write}`{at}, before its answer was noted"),
        How::TornLine => format!("killed after `{write}`{at}, while its answer was noted"),
        How::AfterDone => format!("killed after `{write}`{at}"),
    }
}

/// A problem in one line.
pub fn problem(problem: &Problem) -> String {
    let at = problem.place.as_ref().map(|place| format!(" ({}:{})", place.script, place.line)).unwrap_or_default();
    format!("{}{at}", problem.message)
}

/// Workloads that ran at first and do not at the end.
pub fn stopped(beginning: &Beginning, end: &Picture) -> Vec<Cost> {
    let mut costs = Vec::new();
    for (workload, replicas) in beginning.workloads.iter().filter(|(_, replicas)| **replicas > 0) {
        let (number, ready) = match end.objects.get(workload) {
            Some(one) => (one["spec"]["replicas"].as_i64().unwrap_or(1), one["ready"].as_i64().unwrap_or(0)),
            None => (0, 0),
        };
        if number < *replicas {
            let what = format!("{workload} is left with {number} replicas; it had {replicas}");
            costs.push(Cost::new(format!("run of {workload}"), what));
        } else if ready < *replicas {
            let what = format!("{workload} has {ready} of {replicas} pods ready");
            costs.push(Cost::new(format!("run of {workload}"), what));
        }
    }
    costs
}

/// How many differences of one object are told.
const OF_ONE: usize = 3;

/// What is otherwise than it should be: `leaves Deployment shop/web with 0 replicas, not 1`.
pub fn differences(want: &Picture, is: &Picture, noise: &Noise) -> Vec<String> {
    let keys: BTreeSet<&String> = want.objects.keys().chain(is.objects.keys()).collect();
    let mut told = Vec::new();
    for key in keys {
        match (want.objects.get(key), is.objects.get(key)) {
            (Some(_), None) => told.push(format!("leaves no {key}")),
            (None, Some(_)) => told.push(format!("leaves {key}, which should not be there")),
            (Some(want), Some(is)) => {
                let mut lines = Vec::new();
                leaves("", want, is, &mut |path, want, is| {
                    if !noise.covers(key, path) {
                        lines.push((path.to_owned(), one(key, path, want, is)));
                    }
                });
                // Pods are missing because of the replicas.
                if lines.iter().any(|(path, _)| path == "/spec/replicas") {
                    lines.retain(|(path, _)| path != "/ready");
                }
                // Marks matter least.
                lines.sort_by_key(|(path, _)| path.starts_with("/annotations") || path.starts_with("/labels"));
                told.extend(lines.into_iter().take(OF_ONE).map(|(_, line)| line));
            }
            (None, None) => {}
        }
    }
    told
}

/// Calls for every place at which the two differ.
pub fn leaves(path: &str, want: &Json, is: &Json, told: &mut dyn FnMut(&str, &Json, &Json)) {
    match (want, is) {
        (want, is) if want == is => {}
        (Json::Object(a), Json::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                let none = Json::Null;
                leaves(&path, a.get(key).unwrap_or(&none), b.get(key).unwrap_or(&none), told);
            }
        }
        (Json::Object(map), Json::Null) if !map.is_empty() => leaves(path, want, &empty(), told),
        (Json::Null, Json::Object(map)) if !map.is_empty() => leaves(path, &empty(), is, told),
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                leaves(&format!("{path}/{index}"), a, b, told);
            }
        }
        _ => told(path, want, is),
    }
}

fn empty() -> Json {
    Json::Object(serde_json::Map::new())
}

fn one(key: &str, path: &str, want: &Json, is: &Json) -> String {
    let (was, now) = (short(want), short(is));
    let name = |prefix: &str| path.strip_prefix(prefix).map(|name| name.replace("~1", "/").replace("~0", "~"));
    if let Some(label) =
        name("/labels/").map(|name| ("label", name)).or(name("/annotations/").map(|n| ("annotation", n)))
    {
        let (what, name) = label;
        return match (want.is_null(), is.is_null()) {
            (true, _) => format!("leaves the {what} {name}={now} on {key}"),
            (_, true) => format!("loses the {what} {name} of {key}"),
            _ => format!("leaves the {what} {name} of {key} as {now}, not {was}"),
        };
    }
    match path {
        "/spec/replicas" => format!("leaves {key} with {now} replicas, not {was}"),
        "/ready" => format!("leaves {key} with {now} ready pods, not {was}"),
        "/volume" => format!("leaves {key} on {now}, not on {was}"),
        "/spec/policy" => format!("leaves {key} with the reclaim policy {now}, not {was}"),
        "/phase" => format!("leaves {key} {now}, not {was}"),
        "/claim" => format!("leaves {key} reserved for {now}, not for {was}"),
        "/original" if is == false => format!("leaves another {key} than the one there was"),
        "/of_original" if is == false => format!("leaves {key} with another claim than the one there was"),
        "/going" => format!("leaves {key} while it is being deleted"),
        path => format!("leaves `{}` of {key} as {now}, not {was}", path.trim_start_matches('/').replace('/', ".")),
    }
}

fn short(value: &Json) -> String {
    let text = match value {
        Json::Null => "nothing".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn picture(objects: Json) -> Picture {
        let objects = objects.as_object().cloned().unwrap_or_default().into_iter().collect();
        Picture { objects, ..Picture::default() }
    }

    #[test]
    fn differences_are_sentences() {
        let want = picture(json!({
            "Deployment shop/web": {"spec": {"replicas": 1}, "ready": 1, "annotations": null},
            "claim shop/data": {"volume": "the new volume of shop/data", "phase": "Bound", "labels": {"a/b": "x"}},
        }));
        let is = picture(json!({
            "Deployment shop/web": {"spec": {"replicas": 0}, "ready": 0, "annotations": {"pvmigrate.io/run": "1"}},
            "claim shop/data": {"volume": null, "phase": "Pending", "labels": {}},
            "pod shop/x": {},
        }));
        assert_eq!(
            differences(&want, &is, &Noise::default()),
            [
                "leaves Deployment shop/web with 0 replicas, not 1",
                "leaves the annotation pvmigrate.io/run=1 on Deployment shop/web",
                "leaves claim shop/data Pending, not Bound",
                "leaves claim shop/data on nothing, not on the new volume of shop/data",
                "loses the label a/b of claim shop/data",
                "leaves pod shop/x, which should not be there",
            ]
        );
        let noise = want.noise(&is);
        assert_eq!(differences(&want, &is, &noise), ["leaves pod shop/x, which should not be there"]);
    }
}
