//! What taking a run back consists of: pure, from its journal alone, newest first, unit by unit.
//!
//! It says what to do, not how: `stdlib/back.rhai` does it with the primitives that scripts have, so that every write
//! of a rollback is journaled, guarded and resumable like any other. What must stay true: the plan depends on nothing
//! that the rollback itself writes, so that a rollback that was broken off goes on where it was.

mod part;
mod state;

pub use part::{describe_to, plan_to};
pub use state::{Foreign, Now, foreign, may_be_forced, state_of, stranger, to_look_at};

use crate::cluster::ledger::Books;
use crate::cluster::{Fact, text, uid};
use crate::journal::{Class, Event, Journal, Phase, State, Step, StepId, T, Verb, Write};
pub use crate::journal::{ROLLBACK as BRANCH, is_of_rollback};
use crate::words::{Json, ObjectRef, Problem};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What takes it back.
pub const SCRIPT: &str = r#"//! Take a run back.
import "std/back" as back;
let units = arg("units", #{ many: true });
let opts = arg("opts");
let parallel = arg("parallel", #{ kind: "int" });
parallel_map(units, parallel, |u| back::take_back(u, opts));
"#;

/// The values of the script's options.
pub fn args(plan: &Plan, opts: &Json, parallel: u8) -> Json {
    let units: Vec<Json> =
        plan.units.iter().map(|unit| json!({"key": unit.key, "entries": unit.entries, "left": unit.left})).collect();
    json!({"units": units, "opts": opts, "parallel": parallel})
}

/// What is taken back, and what cannot be.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Each unit with its entries, newest first.
    pub units: Vec<Unit>,
    /// What stays as it is, for the person, by the number of its record.
    pub stays: Vec<(u64, String)>,
    /// Why some units stay where they are.
    pub kept: Vec<Problem>,
    /// What speaks against the whole.
    pub obstacles: Vec<Problem>,
    /// Branches that can be taken back whole only: a claim was switched in them, or a claim of theirs is gone.
    pub whole: BTreeSet<String>,
}

impl Plan {
    /// The objects that are changed, as messages name them.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.units.iter().flat_map(|unit| &unit.entries).map(|entry| text(entry, "/object"))
    }
}

/// The branches of a rollback that were begun and are not over.
pub fn open_units(journal: &Journal, plan: &Plan, branch: &str) -> Vec<String> {
    let paths = plan.units.iter().map(|unit| super::parallel::child(branch, 1, &unit.key));
    paths.filter(|path| journal.ended(path).is_none() && journal.is_past(&attempt(journal, path), 1)).collect()
}

/// Notes for each unit what its attempts before this one left: a pod that nobody waits for any more.
pub fn note_left(journal: &Journal, plan: &mut Plan, branch: &str) {
    for unit in &mut plan.units {
        let path = super::parallel::child(branch, 1, &unit.key);
        for attempt in (0..journal.given_up(&path)).map(|times| super::parallel::attempt(&path, times)) {
            let steps = journal.steps_in(&format!("{attempt}/"));
            let made = steps.iter().filter(|(_, step)| {
                let pod = step.write.as_ref().filter(|write| write.verb == Verb::Create && write.gvk.kind == "Pod");
                pod.is_some() && step.sent > 0 && is_possible(step)
            });
            let deleted = |id: &StepId| {
                let deletion = StepId::new(id.as_str().replace(".create-", ".delete-"));
                steps.iter().any(|(other, step)| *other == deletion && matches!(step.phase, Phase::Done { .. }))
            };
            unit.left.extend(made.filter(|(id, _)| !deleted(id)).map(|(id, _)| id.to_string()));
        }
    }
}

/// The branch that a unit is done in, this time.
fn attempt(journal: &Journal, path: &str) -> String {
    super::parallel::attempt(path, journal.given_up(path))
}

/// True if a claim was deleted there, and does not stand on its old volume yet.
pub fn is_on_its_way(journal: &Journal, path: &str) -> bool {
    let inside = format!("{}/", attempt(journal, path));
    journal.steps_in(&inside).into_iter().any(|(id, step)| {
        let ends = |label: &str| id.as_str().ends_with(label) && step.sent > 0 && is_possible(&step);
        let whole = crate::journal::whole_step(&id);
        (ends(".delete-original") || ends(".reserve") || ends(".create"))
            && step.write.as_ref().is_some_and(|write| write.class == Class::Swap || write.verb == Verb::Create)
            && journal.recorded(&whole).is_some_and(|whole| {
                matches!(whole.op.as_str(), "rebind" | "restore_pvc" | "relabel" | "hand_over")
                    && !matches!(whole.phase, Phase::Done { .. })
            })
    })
}

/// What was done in one branch of the run, and in those inside of it.
#[derive(Debug, Default, PartialEq)]
pub struct Unit {
    pub key: String,
    pub entries: Vec<Json>,
    /// Steps of attempts that were given up whose pods may still be there.
    pub left: Vec<String>,
}

/// What stands of the run without the rollback that is under way.
///
/// # Errors
/// If they are no journal.
pub fn before_rollback(events: &[Event]) -> Result<(State, Books), Problem> {
    let state = State::fold(events[..begins(events)].to_vec()).map_err(|illegal| Problem::bug(illegal.to_string()))?;
    let mut books = Books::default();
    for fact in &state.facts {
        books.take(serde_json::from_value(fact.clone()).map_err(|e| {
            Problem::new(crate::words::Kind::Diverged, "the journal holds a fact that this version does not know")
                .because(&e)
        })?);
    }
    Ok((state, books))
}

/// Where the rollback that is not over begins; the end if there is none.
fn begins(events: &[Event]) -> usize {
    let branches = events.iter().filter(|event| event.t == T::End && is_of_rollback(event.id.as_str()));
    let over: BTreeSet<&str> = branches.map(|event| event.id.as_str()).filter(|branch| *branch != BRANCH).collect();
    let first = |event: &Event| {
        let id = event.id.as_str();
        is_of_rollback(id) && !over.contains(id.split('/').next().unwrap_or(id))
    };
    events.iter().position(first).unwrap_or(events.len())
}

/// True if a copy onto an old volume was begun: from then on the old volume is neither what it was nor what the new one is,
/// until that copy is finished.
pub fn has_copied_back(events: &[Event]) -> bool {
    let copies = |write: &Write| text(&write.body, "/metadata/labels/pvmigrate.io~1task") == "copy";
    events[begins(events)..]
        .iter()
        .any(|event| is_of_rollback(event.id.as_str()) && event.write.as_ref().is_some_and(copies))
}

/// What was done in one branch, before it is known what else was done to the same objects.
#[derive(Default)]
struct Group {
    key: String,
    /// Volumes, claims and workloads that it is about.
    about: BTreeSet<String>,
    /// By the number of their record.
    entries: Vec<(u64, Json)>,
    /// Why it is not taken back at all.
    never: Option<Problem>,
    /// The branches that it was done in.
    keys: BTreeSet<String>,
    /// It cannot be taken back to a point in the midst of it.
    whole: bool,
}

/// Plans it. `how` is what becomes of what was written since: `compare`, `reverse` or `discard`.
pub fn plan(state: &State, books: &Books, how: &str) -> Plan {
    plan_of(state, books, how, &|_, _| true)
}

/// The same of those steps only that `takes` says.
fn plan_of(state: &State, books: &Books, how: &str, takes: &dyn Fn(&StepId, &Step) -> bool) -> Plan {
    let mut plan = Plan::default();
    let mut swaps = BTreeSet::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key = HashMap::<String, usize>::new();
    let users = users(state);
    for (id, step) in state.steps.iter().filter(|(_, step)| !step.undone && is_possible(step)) {
        if !takes(id, step) {
            continue;
        }
        let Some(write) = &step.write else { continue };
        let taken = entry(id, step, write, state, books);
        let (entry, never) = match taken {
            Taken::Back(entry) => (Some(entry), None),
            Taken::Nothing => continue,
            Taken::Stays(what) => {
                plan.stays.push((step.first, what));
                continue;
            }
            Taken::Never(problem) => (None, Some(problem)),
        };
        let key = unit_of(id);
        let at = *by_key.entry(key).or_insert_with_key(|key| {
            groups.push(Group { keys: [key.clone()].into(), key: key.clone(), ..Group::default() });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.whole |= goes_whole(write);
        group.about.insert(write.object().to_string());
        group.never = group.never.take().or(never);
        let Some(entry) = entry else { continue };
        group.about.extend(about(&entry));
        group.about.extend(users.get(text(&entry, "/object")).into_iter().flatten().cloned());
        // All writes of one swap are taken back together.
        if !makes_anew(&entry) || swaps.insert(entry["step"].to_string()) {
            group.entries.push((step.first, entry));
        }
    }
    let mut groups = joined(groups);
    groups.sort_by_key(|group| std::cmp::Reverse(group.entries.iter().map(|(first, _)| *first).max()));
    for mut group in groups {
        plan.whole.extend(group.keys.iter().filter(|_| group.whole).cloned());
        if let Some(problem) = group.never {
            plan.kept.push(problem);
            continue;
        }
        group.entries.sort_by_key(|(first, _)| std::cmp::Reverse(*first));
        let entries: Vec<Json> = group.entries.into_iter().map(|(_, entry)| entry).collect();
        if !entries.is_empty() {
            plan.units.push(Unit { key: group.key, entries, left: Vec::new() });
        }
    }
    if plan.units.is_empty() {
        plan.obstacles.append(&mut plan.kept.clone());
    }
    if how == "compare" {
        plan.obstacles.extend(plan.units.iter().filter_map(ran_on_the_new));
    }
    plan.stays.sort_by_key(|(first, _)| std::cmp::Reverse(*first));
    plan
}

/// After which there is no way back to a point in the midst of a unit: a claim does not get its uid again, and the
/// bytes of a temporary one are gone.
fn goes_whole(write: &Write) -> bool {
    write.class == Class::Swap || (write.verb == Verb::Delete && write.gvk.kind == "PersistentVolumeClaim")
}

/// A write that was refused for certain changed nothing.
fn is_possible(step: &Step) -> bool {
    !matches!(step.phase, Phase::Failed(_))
}

/// Which claims each workload uses that was stopped.
fn users(state: &State) -> BTreeMap<String, Vec<String>> {
    let mut users = BTreeMap::<String, Vec<String>>::new();
    for fact in &state.facts {
        if let Ok(Fact::Stopped { workload, claims, .. }) = serde_json::from_value(fact.clone()) {
            let claims = claims.iter().map(|claim| format!("PersistentVolumeClaim:{claim}"));
            users.entry(workload.to_string()).or_default().extend(claims);
        }
    }
    users
}

/// A claim was made anew: on another volume, or on its own.
fn makes_anew(entry: &Json) -> bool {
    matches!(text(entry, "/what"), "swap" | "relabel")
}

/// The objects of a swap.
fn about(entry: &Json) -> Vec<String> {
    if !makes_anew(entry) {
        return Vec::new();
    }
    let volume = |at: &str| ObjectRef::new("PersistentVolume", "", text(entry, at)).to_string();
    [vec![volume("/source"), volume("/target")], claims(entry)].concat()
}

/// The claim of a swap, a relabelling or a hand-over, by each name that it has.
fn claims(entry: &Json) -> Vec<String> {
    let claim = |at: &str| {
        let of = |field: &str| text(entry, &format!("{at}/{field}"));
        ObjectRef::new("PersistentVolumeClaim", of("namespace"), of("name")).to_string()
    };
    let mut claims = vec![claim("/original/metadata")];
    if entry["to"].is_object() {
        claims.push(claim("/to"));
    }
    claims
}

/// The names of a claim that stays on its volume: it is there under one of them, or on its way to it.
fn claims_made_anew(entry: &Json) -> Vec<String> {
    if entry["what"] == "relabel" { claims(entry) } else { Vec::new() }
}

/// Units are taken back side by side: those that are about the same object are one.
fn joined(groups: Vec<Group>) -> Vec<Group> {
    let mut whole: Vec<Group> = Vec::new();
    for mut group in groups {
        let (same, others): (Vec<Group>, Vec<Group>) =
            whole.into_iter().partition(|other| !other.about.is_disjoint(&group.about));
        whole = others;
        for other in same {
            group.about.extend(other.about);
            group.entries.extend(other.entries);
            group.never = group.never.or(other.never);
            group.keys.extend(other.keys);
            group.whole |= other.whole;
            group.key = group.key.min(other.key);
        }
        whole.push(group);
    }
    whole
}

/// A workload that was started on its new volume has written there.
fn ran_on_the_new(unit: &Unit) -> Option<Problem> {
    let is = |what: &'static str| move |entry: &&Json| entry["what"] == what;
    let started = unit.entries.iter().find(is("stop"))?;
    unit.entries.iter().filter(is("swap")).find(|swap| swap["deleted"] == true)?;
    Some(
        Problem::refused(format!(
            "{} was started on the new volume: what it wrote there is not on the old one",
            text(started, "/object")
        ))
        .hint("--reverse-sync copies it back first, --discard-new-data goes back without it"),
    )
}

enum Taken {
    Back(Json),
    Nothing,
    Stays(String),
    Never(Problem),
}

fn entry(id: &StepId, step: &Step, write: &Write, state: &State, books: &Books) -> Taken {
    let object = write.object();
    let about = json!({"step": id.as_str(), "kind": write.gvk.kind, "namespace": write.namespace, "name": write.name,
        "object": object.to_string(), "uid": write.precondition.uid()});
    let back = |what: &str, more: Json| {
        let mut entry = about.clone();
        entry["what"] = what.into();
        json_patch::merge(&mut entry, &more);
        Taken::Back(entry)
    };
    match (step.op.as_str(), write.verb, write.class) {
        (_, _, Class::Free) => Taken::Never(
            Problem::refused(format!("volume `{}` was given up: its bytes are gone", write.name))
                .hint("what stands on the new volumes stays there"),
        ),
        (_, _, Class::Swap) if let Some(relabel) = relabel(id, state, books) => back("relabel", relabel),
        (_, _, Class::Swap) => match swap(id, state, books) {
            Some(swap) => back("swap", swap),
            None => Taken::Nothing,
        },
        ("stop", Verb::Patch, _) => {
            let noted =
                write.body.pointer("/metadata/annotations").and_then(|all| all[crate::cluster::REPLICAS].as_str());
            match noted.and_then(|count| count.parse::<i64>().ok()) {
                Some(replicas) => back("start", json!({"replicas": replicas})),
                None => Taken::Nothing,
            }
        }
        ("start", Verb::Patch, _) => back("stop", json!({})),
        ("retain", Verb::Patch, _) => {
            let was = write.body.pointer("/metadata/annotations").map_or("", |all| text(all, "/pvmigrate.io~1policy"));
            back("policy", json!({"policy": was}))
        }
        (_, Verb::Create, _) if object.kind == "Event" => Taken::Nothing,
        (_, Verb::Create, Class::Reversible)
            if matches!(
                object.kind.as_str(),
                "PersistentVolumeClaim" | "PersistentVolume" | "Namespace" | "CustomResourceDefinition"
            ) =>
        {
            Taken::Stays(format!("{object} stays: it may hold data by now"))
        }
        (_, Verb::Create, _) => back("made", json!({"uid": step.made})),
        (_, Verb::Delete, Class::Own) => Taken::Nothing,
        (_, Verb::Delete, _) if is_temporary(&object, books) => Taken::Nothing,
        (_, Verb::Delete, _) => Taken::Stays(format!("{object} stays deleted")),
        (_, Verb::Patch, _) if !write.inverse.is_empty() => back("write", json!({})),
        // Our own marks, taken off.
        (_, Verb::Patch, _) => Taken::Nothing,
    }
}

fn is_temporary(object: &ObjectRef, books: &Books) -> bool {
    object.kind == "PersistentVolumeClaim"
        && books.temporary.keys().any(|claim| claim.namespace == object.namespace && claim.name == object.name)
}

/// A swap as a whole: the claim as it was, both volumes, and how far it came.
fn swap(part: &StepId, state: &State, books: &Books) -> Option<Json> {
    let (branch, counter) = part.split()?;
    let whole = StepId::in_branch(branch, counter);
    let original = state.steps.get(&whole)?.beat.as_ref()?.get("original")?.clone();
    let sent = |label: &str| state.steps.get(&whole.part(label)).filter(|step| step.sent > 0 && is_possible(step));
    let target =
        ["reserve", "reserve-again"].iter().find_map(|label| sent(label)?.write.as_ref().map(|w| w.name.clone()));
    let source = text(&original, "/spec/volumeName").to_owned();
    let target = target.or_else(|| books.swapped.get(&source).map(|swapped| swapped.target.clone()))?;
    let temporary = books.temporary.iter().find(|(_, (_, _, like_uid))| like_uid == uid(&original));
    let source = source.as_str();
    Some(json!({
        "step": whole.as_str(), "source": source, "target": target, "original": original,
        "temporary": temporary.map(|(claim, _)| json!({"namespace": claim.namespace, "name": claim.name})),
        "temporary_uid": temporary.map(|(_, (uid, ..))| uid),
        "source_uid": volume_uid(source, books), "target_uid": volume_uid(&target, books),
        "deleted": sent("delete-original").is_some(),
        "swapped": books.swapped.get(source).is_some_and(|swapped| swapped.target == target),
    }))
}

/// A claim that was made anew on its own volume: as it was, what the volume was called, and the name that it got if that is
/// another.
fn relabel(part: &StepId, state: &State, books: &Books) -> Option<Json> {
    let (branch, counter) = part.split()?;
    let whole = state.steps.get(&StepId::in_branch(branch, counter))?;
    if !matches!(whole.op.as_str(), "relabel" | "hand_over") {
        return None;
    }
    let beat = whole.beat.as_ref()?;
    let volume = text(beat, "/original/spec/volumeName");
    let options = if beat["had"].is_array() { beat["had"].clone() } else { json!([]) };
    Some(json!({
        "step": StepId::in_branch(branch, counter).as_str(), "original": beat["original"], "source": volume, "target": volume,
        "source_uid": volume_uid(volume, books), "class": beat["class"], "mount_options": options, "to": beat["to"],
    }))
}

/// The uid of a volume as this run knows it.
fn volume_uid(name: &str, books: &Books) -> Json {
    let compared = books.verified.iter().find_map(|(source, verified)| match name {
        _ if source == name => Some(verified.source_uid.clone()),
        _ if verified.target == name => Some(verified.target_uid.clone()),
        _ => None,
    });
    books.retained.get(name).map(|(uid, _)| uid.clone()).or(compared).map_or(Json::Null, Json::from)
}

/// `root/3~shop/data/7.stop` → `root/3~shop/data`: the outermost branch below the run's own.
fn unit_of(id: &StepId) -> String {
    let text = id.as_str();
    let Some((_, at)) = text.match_indices('~').next().map(|(at, _)| ((), at)) else {
        return text.split('/').next().unwrap_or_default().to_owned();
    };
    let key = &text[at + 1..];
    // Inside of the branch everything is steps: `/7`, `/7.stop`, `/7~key`.
    let end = key.match_indices('/').map(|(at, _)| at).find(|at| is_step(&key[at + 1..])).unwrap_or(key.len());
    text[..at + 1 + end].to_owned()
}

fn is_step(rest: &str) -> bool {
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    after.len() < rest.len() && (after.is_empty() || after.starts_with(['.', '~']))
}

/// For each unit what will be done, for programs.
pub fn lines(plan: &Plan, how: &str) -> Vec<Json> {
    let told = plan.units.iter().map(|unit| told_of(unit, how));
    told.map(|(name, lines)| json!({"unit": name, "does": lines})).collect()
}

/// A unit's name, and what will be done.
fn told_of(unit: &Unit, how: &str) -> (String, Vec<String>) {
    let name = unit.key.split_once('~').map_or("by the script itself", |(_, name)| name);
    let mut lines = Vec::new();
    let running = how == "reverse" && unit.entries.iter().any(|entry| entry["what"] == "stop");
    let swaps = || unit.entries.iter().filter(|entry| entry["what"] == "swap" && entry["deleted"] == true);
    // Of a claim that was moved on only the last volume is used.
    let is_last = |swap: &&Json| !swaps().any(|other| other["source"] == swap["target"]);
    for swap in swaps().filter(is_last).filter(|_| running) {
        let (source, target) = (text(swap, "/source"), text(swap, "/target"));
        lines.push(format!("copy {target} back to {source} while it is used"));
    }
    for line in unit.entries.iter().flat_map(|entry| lines_of(entry, how)) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    (name.split("~again-").next().unwrap_or(name).to_owned(), lines)
}

/// The plan for a person.
pub fn describe(plan: &Plan, how: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, does) in plan.units.iter().map(|unit| told_of(unit, how)) {
        lines.push(format!("  {name}"));
        lines.extend(does.iter().map(|line| format!("    {line}")));
    }
    lines.extend(plan.stays.iter().map(|(_, what)| format!("  {what}")));
    lines.extend(plan.kept.iter().map(|problem| format!("  not taken back: {}", problem.message)));
    lines
}

fn lines_of(entry: &Json, how: &str) -> Vec<String> {
    let object = text(entry, "/object");
    let line = match text(entry, "/what") {
        "stop" => format!("stop {object}"),
        "start" => format!("start {object} with {} replicas", entry["replicas"]),
        "policy" => format!("{object}: policy {} again", text(entry, "/policy")),
        "relabel" => {
            let claim = ["namespace", "name"].map(|field| text(entry, &format!("/original/metadata/{field}")));
            let class = text(entry, "/class");
            if entry["to"].is_object() {
                let now = ["namespace", "name"].map(|field| text(entry, &format!("/to/{field}")));
                return vec![format!("claim {} instead of {}, on the same volume", claim.join("/"), now.join("/"))];
            }
            format!("claim {} of class {class} again, on the volume that it has", claim.join("/"))
        }
        "swap" => {
            let claim = ["namespace", "name"].map(|field| text(entry, &format!("/original/metadata/{field}")));
            let (source, target) = (text(entry, "/source"), text(entry, "/target"));
            let back = format!("claim {} back on {source}", claim.join("/"));
            let first = match how {
                "reverse" => format!("copy {target} back to {source}, and verify it"),
                "discard" => format!("{target} is kept, with what was written on it"),
                _ => format!("compare {target} with {source}"),
            };
            return match (entry["deleted"] == true, how) {
                (false, _) => Vec::new(),
                (true, "discard") => vec![first, back],
                (true, _) => vec![first, back, format!("give {target} up, when all runs again")],
            };
        }
        "made" if text(entry, "/kind") == "Pod" => return Vec::new(),
        "made" => format!("delete {object}, if it is there"),
        _ => format!("{object}: as it was before"),
    };
    vec![line]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Gvk, Precondition};

    #[test]
    fn units_are_the_outermost_branches() {
        for (id, unit) in [
            ("root/3.patch", "root"),
            ("root/3~PersistentVolumeClaim:shop/data/7.stop", "root/3~PersistentVolumeClaim:shop/data"),
            ("root/3~shop/data/12~shop/data/1.create", "root/3~shop/data"),
            ("root/3~shop/7/1.stop", "root/3~shop/7"),
        ] {
            assert_eq!(unit_of(&StepId::new(id)), unit, "{id}");
        }
    }

    fn write(verb: Verb, kind: &str, class: Class) -> Write {
        Write {
            verb,
            gvk: Gvk { group: String::new(), version: "v1".into(), kind: kind.into() },
            namespace: "shop".into(),
            name: "x".into(),
            body: Json::Null,
            precondition: Precondition::Uid("u".into()),
            inverse: Vec::new(),
            class,
        }
    }

    /// The plan after these writes, each carried out.
    fn plan_of(writes: Vec<(&str, Write)>) -> Plan {
        let mut state = State::default();
        for (n, (op, write)) in writes.into_iter().enumerate() {
            let id = StepId::new(format!("root/{}.{op}", n + 1));
            for (t, write) in [(T::Start, Some(write)), (T::Done, None)] {
                state.next(&Event { n: n as u64, write, ..Event::new(t, &id, op) }).unwrap();
            }
        }
        plan(&state, &Books::default(), "compare")
    }

    #[test]
    fn what_cannot_be_taken_back_is_told_before_anything_is() {
        let freed = plan_of(vec![("free", write(Verb::Patch, "PersistentVolume", Class::Free))]);
        assert!(freed.obstacles[0].message.contains("was given up"), "{freed:?}");
        let plan = plan_of(vec![
            ("create", write(Verb::Create, "PersistentVolumeClaim", Class::Reversible)),
            ("delete", write(Verb::Delete, "Pod", Class::Reversible)),
            ("event", write(Verb::Create, "Event", Class::Own)),
            ("delete-1", write(Verb::Delete, "Pod", Class::Own)),
        ]);
        assert_eq!(plan.units, []);
        let stays = ["Pod:shop/x stays deleted", "PersistentVolumeClaim:shop/x stays: it may hold data by now"];
        assert_eq!(plan.stays.iter().map(|(_, what)| what.as_str()).collect::<Vec<_>>(), stays);
    }

    #[test]
    fn what_is_about_the_same_object_is_one_unit() {
        let group = |key: &str, about: &[&str], first: u64| Group {
            key: key.into(),
            about: about.iter().map(|one| (*one).to_owned()).collect(),
            entries: vec![(first, Json::Null)],
            ..Group::default()
        };
        let units = joined(vec![
            group("a", &["PersistentVolume:x"], 1),
            group("b", &["Deployment:shop/web"], 2),
            group("c", &["PersistentVolume:y"], 3),
            group("d", &["PersistentVolume:x", "Deployment:shop/web"], 4),
        ]);
        let mut keys: Vec<(String, usize)> = units.iter().map(|unit| (unit.key.clone(), unit.entries.len())).collect();
        keys.sort();
        assert_eq!(keys, [("a".to_owned(), 3), ("c".to_owned(), 1)]);
    }

    #[test]
    fn the_newest_is_taken_back_first() {
        let patch = Write {
            inverse: vec![write(Verb::Patch, "ConfigMap", Class::Reversible)],
            ..write(Verb::Patch, "ConfigMap", Class::Reversible)
        };
        let plan = plan_of(vec![("patch", patch), ("create", write(Verb::Create, "ConfigMap", Class::Reversible))]);
        let what: Vec<&str> = plan.units[0].entries.iter().map(|entry| text(entry, "/what")).collect();
        assert_eq!(what, ["made", "write"]);
        assert_eq!(describe(&plan, "compare").len(), 3);
    }
}
