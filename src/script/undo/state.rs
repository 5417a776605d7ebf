//! How an object stands to a write that is to be taken back: pure, by looking at it. And the same for a whole plan, before
//! anything is done.

use super::Plan;
use crate::cluster::ledger::Books;
use crate::cluster::{RUN, STEP, text, uid};
use crate::journal::{Phase, State, StepId, Verb, Write};
use crate::words::{Json, RunId};
use std::collections::BTreeMap;

/// What there is to do about one write.
#[derive(Clone, Debug, PartialEq)]
pub enum Now {
    /// As the write left it: its inverse is sent.
    Ours,
    /// As it was before: nothing is to be done.
    Old,
    /// Somebody else has changed it since.
    Foreign { message: String, differences: Vec<String> },
}

/// Compares the object as it is with what the write made of it and with what was before.
pub fn state_of(write: &Write, inverse: &Write, now: Option<&Json>, books: &Books) -> Now {
    let object = write.object();
    let foreign = |message: String, differences| Now::Foreign { message, differences };
    let Some(now) = now else {
        // A volume that is gone needs no policy.
        return match object.kind.as_str() {
            "PersistentVolume" => Now::Old,
            _ => foreign(format!("{object} is gone: it cannot be put back"), Vec::new()),
        };
    };
    if write.precondition.uid().is_some_and(|meant| !books.is_same(meant, uid(now))) {
        return foreign(format!("{object} was deleted and made anew by somebody else"), Vec::new());
    }
    if stands(now, &inverse.body) {
        return Now::Old;
    }
    if !stands(now, &write.body) {
        let differences = differences("", &write.body, &inverse.body, now);
        return foreign(format!("{object} was changed by somebody else since"), differences);
    }
    Now::Ours
}

/// Why the object of that name is not the one that the step made, if it is not.
pub fn stranger(run: &RunId, id: &StepId, answer: Option<&Phase>, there: &Json) -> Option<String> {
    let mark = |mark: &str| there["metadata"]["annotations"][mark].as_str().unwrap_or_default();
    // Later writes of the run take the marks off again: then the answer says which one it was.
    let made = match answer {
        Some(Phase::Done { out, .. }) => uid(out),
        _ => "",
    };
    let is_it = (mark(RUN) == run.as_str() && mark(STEP) == id.as_str()) || (!made.is_empty() && made == uid(there));
    (!is_it).then(|| format!("this run made uid {made}, now it is uid {}", uid(there)))
}

/// One object of a plan that somebody else has changed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    pub object: String,
    pub message: String,
    pub differences: Vec<String>,
}

/// Goes through a plan with the objects as they are, in its order, and tells what somebody else has changed. `objects` are by
/// their names; what is not among them is not judged.
pub fn foreign(plan: &Plan, state: &State, books: &Books, objects: &BTreeMap<String, Option<Json>>) -> Vec<Foreign> {
    let mut found: Vec<Foreign> = Vec::new();
    let mut objects = objects.clone();
    for entry in plan.units.iter().flat_map(|unit| &unit.entries) {
        let object = text(entry, "/object");
        let Some(now) = objects.get_mut(object) else { continue };
        match (text(entry, "/what"), &now) {
            ("stop", Some(_)) => set(now, "/spec", "replicas", 0.into()),
            ("start", Some(_)) => set(now, "/spec", "replicas", entry["replicas"].clone()),
            ("policy", Some(_)) => set(now, "/spec", "persistentVolumeReclaimPolicy", entry["policy"].clone()),
            ("write", _) => {
                let step = StepId::new(text(entry, "/step"));
                let Some(write) = state.steps.get(&step).and_then(|step| step.write.as_ref()) else { continue };
                for inverse in &write.inverse {
                    if let Now::Foreign { message, differences } = state_of(write, inverse, now.as_ref(), books)
                        && !found.iter().any(|one| one.object == object)
                    {
                        found.push(Foreign { object: object.to_owned(), message, differences });
                    }
                    if let Some(now) = now.as_mut() {
                        json_patch::merge(now, &inverse.body);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn set(object: &mut Option<Json>, at: &str, field: &str, value: Json) {
    if let Some(map) = object.as_mut().and_then(|object| object.pointer_mut(at)).and_then(Json::as_object_mut) {
        map.insert(field.to_owned(), value);
    }
}

/// The objects that a plan changes by inverse writes, with what names their kind.
pub fn to_look_at(plan: &Plan, state: &State) -> BTreeMap<String, Write> {
    let entries = plan.units.iter().flat_map(|unit| &unit.entries).filter(|entry| entry["what"] == "write");
    let write = |entry: &Json| state.steps.get(&StepId::new(text(entry, "/step")))?.write.clone();
    let patches = entries.filter_map(|entry| Some((text(entry, "/object").to_owned(), write(entry)?)));
    patches.filter(|(_, write)| write.verb == Verb::Patch).collect()
}

/// True if the merge patch would change nothing of the object, our own marks aside.
fn stands(object: &Json, patch: &Json) -> bool {
    match (object, patch) {
        (_, Json::Object(fields)) => fields
            .iter()
            .filter(|(key, _)| !key.starts_with("pvmigrate.io/"))
            .all(|(key, value)| stands(object.get(key).unwrap_or(&Json::Null), value)),
        _ => object == patch,
    }
}

/// `spec.replicas: we wrote 0, it was 2, it is 5`
fn differences(path: &str, ours: &Json, before: &Json, now: &Json) -> Vec<String> {
    let Json::Object(fields) = ours else {
        return match now == ours {
            true => Vec::new(),
            false => vec![format!("{path}: this run wrote {ours}, before it was {before}, now it is {now}")],
        };
    };
    let ours = fields.iter().filter(|(key, _)| !key.starts_with("pvmigrate.io/"));
    ours.flat_map(|(key, value)| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        differences(&path, value, &before[key.as_str()], now.get(key).unwrap_or(&Json::Null))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_foreign_change_is_told_field_by_field() {
        let ours = json!({"metadata": {"annotations": {"pvmigrate.io/run": "x", "a": "1"}}, "spec": {"replicas": 0}});
        let before =
            json!({"metadata": {"annotations": {"pvmigrate.io/run": null, "a": null}}, "spec": {"replicas": 2}});
        let now = json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"replicas": 5}});
        assert!(!stands(&now, &ours) && !stands(&now, &before));
        assert!(stands(&json!({"spec": {"replicas": 2}}), &before), "what is absent is null");
        assert_eq!(
            differences("", &ours, &before, &now),
            ["spec.replicas: this run wrote 0, before it was 2, now it is 5"]
        );
    }

    #[test]
    fn what_this_run_made_is_known_by_its_marks_or_by_its_uid() {
        let (run, id) = (RunId::parse("0123abcd").unwrap(), StepId::new("root/1.create"));
        let done = Phase::Done { out: json!({"metadata": {"uid": "u1"}}), blob: None };
        let object = |uid: &str, run: &str, step: &str| json!({"metadata": {"uid": uid, "annotations": {"pvmigrate.io/run": run, "pvmigrate.io/step": step}}});
        for (answer, there, ours) in [
            (Some(&done), object("u1", "", ""), true),
            (Some(&done), object("u1", "0123abcd", "root/2.stop"), true),
            (Some(&done), object("u2", "", ""), false),
            (Some(&Phase::Started), object("u1", "0123abcd", "root/1.create"), true),
            (Some(&Phase::Started), object("u1", "", ""), false),
            (None, object("", "", ""), false),
        ] {
            assert_eq!(stranger(&run, &id, answer, &there).is_none(), ours, "{there}");
        }
    }
}
