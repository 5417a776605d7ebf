//! Taking back: that a rollback was begun, and what of a journal stands after a part of it was taken back.
//!
//! A part is taken back in a branch of its own, `rollback-1`, `rollback-2`. It counts when that branch has closed: what came
//! after its step is then as if it had never been, and a resumed run does it anew. No record is removed from the journal.

use super::state::begins_with_a_step;
use super::{Event, StepId, T};
use crate::words::Json;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The branch that a whole run is taken back in.
pub const ROLLBACK: &str = "rollback";

/// A rollback that was begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Back {
    pub branch: String,
    /// What came after this step is taken back; without it, the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<StepId>,
    /// The last record that stands.
    #[serde(default)]
    pub cut: u64,
    /// Branches that are taken back whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<String>,
    /// How: another way begins anew what was not finished.
    #[serde(default)]
    pub how: Json,
}

impl Back {
    /// Reads a fact, if it is this one.
    pub fn of(fact: &Json) -> Option<Back> {
        if fact["fact"] != "taking_back" {
            return None;
        }
        serde_json::from_value(fact.clone()).ok()
    }

    /// True if nothing of the step is left: it came after the cut, was not over then, or is of a branch that goes whole.
    /// `over` is the record that it ended with.
    pub fn takes(&self, id: &StepId, first: u64, over: Option<u64>) -> bool {
        first > self.cut || over.is_none_or(|over| over > self.cut) || self.is_whole(id.as_str())
    }

    pub fn is_whole(&self, id: &str) -> bool {
        self.whole.iter().any(|branch| is_in(id, branch))
    }
}

/// True of the records of a rollback, of the whole run or of a part.
pub fn is_of_rollback(id: &str) -> bool {
    let Some(rest) = id.strip_prefix(ROLLBACK) else { return false };
    let rest = rest.strip_prefix('-').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.is_empty() || rest.starts_with('/')
}

/// True of the branch itself, its steps, and the branches inside of it.
fn is_in(id: &str, branch: &str) -> bool {
    let rest = id.strip_prefix(branch);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/').is_some_and(begins_with_a_step))
}

/// What stands of a journal.
#[derive(Debug, Default)]
pub struct Standing {
    pub events: Vec<Event>,
    /// How many parts were taken back.
    pub parts: u32,
    /// Claims that a rollback made anew: the uid of before, and the one since.
    pub remade: BTreeMap<String, String>,
    /// Objects of writes that stand no more.
    pub touched: BTreeSet<String>,
}

/// The step that a record belongs to, without the label of a write.
pub fn whole_step(id: &StepId) -> StepId {
    id.split().map_or_else(|| id.clone(), |(branch, counter)| StepId::in_branch(branch, counter))
}

/// For each step the record that ended it last, as the events tell it.
pub fn ends(events: &[Event]) -> HashMap<StepId, u64> {
    let over = |event: &&Event| matches!(event.t, T::Done | T::Fail | T::End) && whole_step(&event.id) == event.id;
    events.iter().filter(over).map(|event| (event.id.clone(), event.n)).collect()
}

/// Leaves out what was taken back in parts.
pub fn standing(events: Vec<Event>) -> Standing {
    let mut standing = Standing::default();
    let mut begun: Vec<Back> = Vec::new();
    for event in events {
        if event.t == T::Fact
            && let Some(back) = event.out.as_ref().and_then(Back::of).filter(|back| back.to.is_some())
        {
            begun.retain(|other| other.branch != back.branch);
            begun.push(back);
        }
        let ended = (event.t == T::End && event.err.is_none()).then(|| event.id.as_str().to_owned());
        let of = ended.and_then(|branch| begun.iter().position(|back| back.branch == branch));
        let out = of.and_then(|_| event.out.clone()).unwrap_or_default();
        standing.events.push(event);
        if let Some(at) = of {
            let back = begun.swap_remove(at);
            standing.take(&back, &out);
        }
    }
    let remade = standing.remade.clone();
    if !remade.is_empty() {
        for event in &mut standing.events {
            if event.t == T::Fact
                && let Some(fact) = &mut event.out
            {
                renamed(fact, &remade);
            }
        }
    }
    standing
}

impl Standing {
    fn take(&mut self, back: &Back, out: &Json) {
        let over = ends(&self.events);
        let mut first: HashMap<StepId, u64> = HashMap::new();
        for event in &self.events {
            first.entry(whole_step(&event.id)).or_insert(event.n);
        }
        let stands = |event: &Event| {
            // Where a claim was used stays true.
            if event.t == T::Fact && event.out.as_ref().is_some_and(|fact| fact["fact"] == "used") {
                return true;
            }
            let id = event.id.as_str();
            if is_in(id, &back.branch) || event.n > back.cut || back.is_whole(id) {
                return false;
            }
            let step = whole_step(&event.id);
            // Branches have no beginning of their own, and notes of the run's own no step.
            event.id.split().is_none() || !back.takes(&step, first[&step], over.get(&step).copied())
        };
        let (kept, gone) = std::mem::take(&mut self.events).into_iter().partition(stands);
        self.events = kept;
        let gone: Vec<Event> = gone;
        self.touched
            .extend(gone.iter().filter_map(|event| event.write.as_ref()).map(|write| write.object().to_string()));
        self.parts += 1;
        let mut found = BTreeMap::new();
        collect(out, &mut found);
        for now in self.remade.values_mut() {
            if let Some(newer) = found.get(now) {
                now.clone_from(newer);
            }
        }
        self.remade.extend(found);
    }
}

/// Every `{was, uid}` in what a rollback returned.
fn collect(out: &Json, found: &mut BTreeMap<String, String>) {
    match out {
        Json::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Json::Object(map) => match (out["was"].as_str(), out["uid"].as_str()) {
            (Some(was), Some(uid)) if was != uid => {
                found.insert(was.to_owned(), uid.to_owned());
            }
            _ => map.values().for_each(|value| collect(value, found)),
        },
        _ => {}
    }
}

/// What is known by the uid of a claim that was made anew is known by the uid that it has now.
pub fn renamed(json: &mut Json, remade: &BTreeMap<String, String>) {
    match json {
        Json::String(text) => {
            if let Some(now) = remade.get(text.as_str()) {
                text.clone_from(now);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| renamed(item, remade)),
        Json::Object(map) => map.values_mut().for_each(|value| renamed(value, remade)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::State;
    use serde_json::json;

    fn event(n: u64, t: T, id: &str, out: Json) -> Event {
        Event { n, out: Some(out), ..Event::new(t, &StepId::new(id), "x") }
    }

    fn journal() -> Vec<Event> {
        let part = json!({"fact": "taking_back", "branch": "rollback-1", "to": "root/2~a/1", "cut": 5,
            "whole": ["root/2~b"], "how": null});
        [
            (T::Done, "root/1", json!("units")),
            (T::Start, "root/2", json!(null)),
            (T::Done, "root/2~b/1", json!("b1")),
            (T::Fact, "root/2~b/1", json!({"fact": "retained", "pv": "b"})),
            (T::Start, "root/2~c/1", json!(null)),
            (T::Done, "root/2~a/1", json!("a1")),
            (T::Done, "root/2~c/1", json!("c1")),
            (T::Done, "root/2~a/2", json!("a2")),
            (T::Fact, "root/2~a/2", json!({"fact": "used", "claim": "x"})),
            (T::End, "root/2~b", json!("b")),
            (T::Fact, "rollback-1", part),
            (T::Done, "rollback-1/1~x/1", json!("back")),
            (T::End, "rollback-1", json!([[{"was": "u1", "uid": "u2"}]])),
        ]
        .into_iter()
        .enumerate()
        .map(|(n, (t, id, out))| event(n as u64, t, id, out))
        .collect()
    }

    #[test]
    fn what_came_after_the_step_is_as_if_it_had_never_been() {
        let standing = standing(journal());
        let left: Vec<(u64, &str)> = standing.events.iter().map(|event| (event.n, event.id.as_str())).collect();
        // Nothing of b, which goes whole; nothing of c, which was not over; of what followed a's first step only where
        // its claim was used.
        assert_eq!(left, [(0, "root/1"), (5, "root/2~a/1"), (8, "root/2~a/2")]);
        assert_eq!((standing.parts, standing.remade["u1"].as_str()), (1, "u2"));
        let state = State::fold(journal()).unwrap();
        assert_eq!(state.last.get("root/2~b"), None);
        assert!(state.back.is_none() && state.parts == 1);
    }

    #[test]
    fn until_it_is_finished_everything_stands() {
        let mut events = journal();
        events.pop();
        let state = State::fold(events.clone()).unwrap();
        assert_eq!(state.back.as_ref().map(|back| back.branch.as_str()), Some("rollback-1"));
        assert!(state.ended.contains_key("root/2~b") && state.parts == 0);
        assert_eq!(standing(events.clone()).events, events);
    }

    #[test]
    fn a_second_part_goes_by_what_the_first_left() {
        let mut events = journal();
        let part = json!({"fact": "taking_back", "branch": "rollback-2", "to": "root/1", "cut": 0, "how": null});
        events.extend([
            event(13, T::Done, "root/2~b/1", json!("again")),
            event(14, T::Fact, "root/2~b/1", json!({"fact": "temporary", "like_uid": "u1"})),
            event(15, T::Fact, "rollback-2", part),
            event(16, T::End, "rollback-2", json!([{"was": "u2", "uid": "u3"}])),
            event(17, T::Fact, "root/2~b/1", json!({"fact": "temporary", "like_uid": "u1"})),
        ]);
        let standing = standing(events);
        let left: Vec<u64> = standing.events.iter().map(|event| event.n).collect();
        assert_eq!(left, [0, 8, 17]);
        assert_eq!(standing.events[2].out.as_ref().unwrap()["like_uid"], "u3");
        assert_eq!((standing.remade["u1"].as_str(), standing.remade["u2"].as_str()), ("u3", "u3"));
    }

    #[test]
    fn records_of_a_rollback_are_told_by_their_branch() {
        for id in ["rollback", "rollback/1", "rollback-1", "rollback-12/1~x/2"] {
            assert!(is_of_rollback(id), "{id}");
        }
        for id in ["root/1", "rollback-x/1", "rollbacks", "root/1~rollback"] {
            assert!(!is_of_rollback(id), "{id}");
        }
    }
}
