//! Taking a part of a run back: what came after one of its steps. The run goes on from there.

use super::{Plan, before_rollback, begins, describe, plan_of, unit_of};
use crate::cluster::store::DROPPED;
use crate::journal::{Back, Event, State, StepId, T, ends, standing, whole_step};
use crate::words::Problem;
use std::collections::HashMap;

/// Plans it, and says what the journal is to know of it before anything is done. A unit in which a claim was switched since
/// goes back whole: there is no way to the midst of it.
///
/// # Errors
/// If there is no such step, or it did not end.
pub fn plan_to(events: &[Event], how: &str, to: &StepId) -> Result<(Plan, Back), Problem> {
    let (state, books) = before_rollback(events)?;
    let standing = standing(events[..begins(events)].to_vec()).events;
    let (over, to) = (ends(&standing), whole_step(to));
    let Some(cut) = over.get(&to).copied() else {
        let message = match state.steps.contains_key(&to) {
            true => format!("step `{to}` did not end: a run is taken back to a step that did"),
            false => format!("this run has no step `{to}`"),
        };
        return Err(Problem::usage(message).hint("pvmigrate runs show RUN lists them"));
    };
    let mut first: HashMap<StepId, u64> = HashMap::new();
    for event in &standing {
        first.entry(whole_step(&event.id)).or_insert(event.n);
    }
    let branch = format!("{}-{}", super::BRANCH, state.parts + 1);
    let mut back = Back { branch, to: Some(to), cut, whole: without_results(&standing, cut), ..Back::default() };
    loop {
        let takes = |id: &StepId| {
            let step = whole_step(id);
            back.takes(&step, first.get(&step).copied().unwrap_or_default(), over.get(&step).copied())
        };
        let mut plan = plan_of(&state, &books, how, &|id, _| takes(id));
        let mut whole: Vec<String> = plan.whole.iter().cloned().collect();
        // The script itself is no branch beside the others: if it switched a claim, all goes.
        if whole.iter().any(|key| !key.contains('~')) {
            whole = vec!["root".to_owned()];
        }
        whole.extend(back.whole.iter().filter(|key| !whole.contains(key)).cloned().collect::<Vec<_>>());
        if whole.len() == back.whole.len() {
            // A run that is to go on must find what it had: nothing may be kept back.
            plan.obstacles.append(&mut plan.kept);
            return Ok((plan, back));
        }
        back.whole = whole;
    }
}

/// Units of which steps would stand whose results are kept no more: in the cluster those go when a branch ends.
fn without_results(standing: &[Event], cut: u64) -> Vec<String> {
    let mut units = Vec::new();
    for ended in standing.iter().filter(|event| event.t == T::End && event.err.is_none() && event.n > cut) {
        let branch = ended.id.as_str();
        let dropped = |event: &&Event| {
            event.n <= cut && event.blob.as_deref() == Some(DROPPED) && State::is_inside(branch, event.id.as_str())
        };
        for event in standing.iter().filter(dropped) {
            let unit = unit_of(&event.id);
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
    }
    units
}

/// The plan for a person, with what goes back further than was asked for.
pub fn describe_to(plan: &Plan, back: &Back, how: &str) -> Vec<String> {
    let mut lines = describe(plan, how);
    let name = |key: &String| key.split_once('~').map_or("everything", |(_, name)| name).replace("%7E", "~");
    let further = |key| {
        format!("  {} goes back whole: its claims were switched since, or its results are not kept any more", name(key))
    };
    lines.extend(back.whole.iter().map(further));
    lines
}
