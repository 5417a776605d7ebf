//! How an object stands to a write that is to be taken back: pure, by looking at it. And the same for a whole plan, before
//! anything is done.

use super::Plan;
use crate::cluster::ledger::Books;
use crate::cluster::{RUN, STEP, text, uid};
use crate::journal::{State, StepId, Write};
use crate::words::{Json, PvcRef, RunId};
use std::collections::{BTreeMap, BTreeSet};

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
        let handed = || {
            let is_it = |claim: &PvcRef| claim.namespace == object.namespace && claim.name == object.name;
            books.relabels.values().any(|one| is_it(&one.claim) || is_it(&one.from))
        };
        return match object.kind.as_str() {
            "PersistentVolume" => Now::Old,
            // Nor does the other name of a claim that has its volume again.
            "PersistentVolumeClaim" if handed() => Now::Old,
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
pub fn stranger(run: &RunId, id: &StepId, made: Option<&str>, there: &Json) -> Option<String> {
    let mark = |mark: &str| there["metadata"]["annotations"][mark].as_str().unwrap_or_default();
    // Later writes of the run take the marks off again: then the answer says which one it was.
    let made = made.unwrap_or_default();
    let is_it = (mark(RUN) == run.as_str() && mark(STEP) == id.as_str()) || (!made.is_empty() && made == uid(there));
    (!is_it).then(|| format!("this run made uid {made}, now it is uid {}", uid(there)))
}

/// What holds bytes, or stands for them, is nobody's to override.
pub fn may_be_forced(object: &str) -> bool {
    !["PersistentVolumeClaim:", "PersistentVolume:"].iter().any(|kind| object.starts_with(kind))
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
pub fn foreign(
    run: &RunId,
    plan: &Plan,
    state: &State,
    books: &Books,
    objects: &BTreeMap<String, Option<Json>>,
) -> Vec<Foreign> {
    let mut found: Vec<Foreign> = Vec::new();
    let mut objects = objects.clone();
    let remade: BTreeSet<String> =
        plan.units.iter().flat_map(|unit| &unit.entries).flat_map(super::claims_made_anew).collect();
    for entry in plan.units.iter().flat_map(|unit| &unit.entries) {
        let object = text(entry, "/object");
        // It is not there before its turn comes.
        if remade.contains(object) {
            continue;
        }
        let Some(now) = objects.get_mut(object) else { continue };
        match (text(entry, "/what"), &now) {
            ("stop", Some(_)) => set(now, "/spec", "replicas", 0.into()),
            ("start", Some(_)) => set(now, "/spec", "replicas", entry["replicas"].clone()),
            ("policy", Some(_)) => set(now, "/spec", "persistentVolumeReclaimPolicy", entry["policy"].clone()),
            ("made", Some(there)) => {
                let id = StepId::new(text(entry, "/step"));
                let made = state.steps.get(&id).and_then(|step| step.made.as_deref());
                if let Some(why) = stranger(run, &id, made, there) {
                    let message = format!("{object} is not what this run made");
                    found.push(Foreign { object: object.to_owned(), message, differences: vec![why] });
                }
                *now = None;
            }
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

/// The objects that a plan changes by inverse writes or deletes, with what names their kind. Our own pods and claims are
/// looked at when their turn comes.
pub fn to_look_at(plan: &Plan, state: &State) -> BTreeMap<String, Write> {
    let is_own = |kind: &str| matches!(kind, "Pod" | "PersistentVolumeClaim");
    let looks = |entry: &&Json| match text(entry, "/what") {
        "write" => true,
        "made" => !is_own(text(entry, "/kind")),
        _ => false,
    };
    let write = |entry: &Json| state.steps.get(&StepId::new(text(entry, "/step")))?.write.clone();
    let entries = plan.units.iter().flat_map(|unit| &unit.entries).filter(looks);
    entries.filter_map(|entry| Some((text(entry, "/object").to_owned(), write(entry)?))).collect()
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
    use crate::journal::{Class, Event, Gvk, Precondition, T, Verb};
    use crate::script::undo::plan;
    use serde_json::json;

    /// Two labels written one after the other, each with its inverse.
    fn labelled() -> State {
        let write = |body: Json, inverse: Vec<Write>| Write {
            verb: Verb::Patch,
            gvk: Gvk { group: "apps".into(), version: "v1".into(), kind: "Deployment".into() },
            namespace: "shop".into(),
            name: "web".into(),
            body,
            precondition: Precondition::Uid("u1".into()),
            inverse,
            class: Class::Reversible,
        };
        let label = |value: Json| json!({"metadata": {"labels": {"tier": value}}});
        let steps = [(json!("one"), json!(null)), (json!("two"), json!("one"))];
        let events = steps.into_iter().enumerate().map(|(n, (to, from))| Event {
            n: n as u64,
            write: Some(write(label(to), vec![write(label(from), vec![])])),
            ..Event::new(T::Start, &StepId::new(format!("root/{}.patch", n + 1)), "patch")
        });
        State::fold(events.collect()).unwrap()
    }

    #[test]
    fn a_plan_is_judged_in_its_order_before_anything_is_done() {
        let (state, books, run) = (labelled(), Books::default(), RunId::parse("0123abcd").unwrap());
        let plan = plan(&state, &books, "compare");
        let with = |uid: &str, tier: Json| {
            let web = json!({"metadata": {"uid": uid, "labels": {"tier": tier}}});
            let objects = [("Deployment:shop/web".to_owned(), Some(web))].into();
            foreign(&run, &plan, &state, &books, &objects)
        };
        assert_eq!(with("u1", json!("two")), [], "the older write is judged after the newer one is taken back");
        assert_eq!(with("u1", json!("one")), [], "the newer one is taken back already");
        let other = with("u1", json!("three"));
        assert_eq!(
            other[0].differences,
            [r#"metadata.labels.tier: this run wrote "two", before it was "one", now it is "three""#]
        );
        assert_eq!(other.len(), 1, "once for each object");
        assert!(with("u2", json!("two"))[0].message.contains("made anew"));
        assert!(may_be_forced("Deployment:shop/web") && !may_be_forced("PersistentVolumeClaim:shop/data"));
    }

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
        let object = |uid: &str, run: &str, step: &str| json!({"metadata": {"uid": uid, "annotations": {"pvmigrate.io/run": run, "pvmigrate.io/step": step}}});
        for (made, there, ours) in [
            (Some("u1"), object("u1", "", ""), true),
            (Some("u1"), object("u1", "0123abcd", "root/2.stop"), true),
            (Some("u1"), object("u2", "", ""), false),
            (None, object("u1", "0123abcd", "root/1.create"), true),
            (None, object("u1", "", ""), false),
            (None, object("", "", ""), false),
        ] {
            assert_eq!(stranger(&run, &id, made, &there).is_none(), ours, "{there}");
        }
    }
}
