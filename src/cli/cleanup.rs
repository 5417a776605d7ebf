//! `pvmigrate cleanup RUN`

use super::{Failure, Global, Output, session, ui};
use crate::cluster::ledger::Books;
use crate::cluster::{Fact, Ledger, guard, pv::Pv};
use crate::journal::{Event, StepId, T};
use crate::script::{Script, undo};
use crate::words::clock::{self, Clock, human_seconds};
use crate::words::{Json, Problem};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Give up the source volumes that a run has replaced
///
/// Each is freed only if its claim stands on the verified target and nothing else needs its bytes: no snapshot, no clone, no
/// other volume on the same backend. Volumes that were made by hand are never freed. There is no way back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
    /// Only say what would become of each volume
    #[arg(long)]
    plan: bool,
    /// Only volumes that were replaced at least so long ago: 90m, 72h, 7d
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// Only this volume (may be given several times)
    #[arg(long, value_name = "NAME")]
    pv: Vec<String>,
}

/// What is done to each volume is a step of the run's own journal, in a branch of its own.
const SCRIPT: &str = r#"//! Give up the source volumes that a run has replaced.
let volumes = arg("volumes", #{ many: true });
let rows = arg("rows", #{ many: true });
for name in volumes {
    let pv = find_pv(name);
    let row = #{ pv: name, claim: "", handle: if pv == () { "" } else { pv.handle }, freed: pv == (), why: "" };
    if pv != () {
        try {
            row.freed = free_pv(pv).freed;
        } catch (e) {
            if e.kind != "Refused" { throw; }
            row.why = e.error;
        }
    }
    rows.push(row);
}
table(rows, #{ columns: ["pv", "handle", "freed", "why"] });
"#;

/// What becomes of one volume.
struct Fate {
    name: String,
    claim: String,
    handle: String,
    /// Why it is kept; nothing if it is freed.
    why: Vec<String>,
    /// There is no such volume any more.
    gone: bool,
    /// Kept only because it was replaced too short a time ago.
    young: bool,
    /// What was written on it after the move is nowhere else.
    only: bool,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    let least = args.older_than.as_deref().map(clock::parse_duration).transpose()?;
    let taken = session::take_up(global, Some(&args.run))?;
    let global = &taken.global.clone();
    let (run, journal) = (taken.run.clone(), &taken.journal);
    let books = Ledger::from_facts(&journal.facts())?.books();
    let replaced: Vec<String> = books.swapped.keys().filter(|source| !books.freed.contains(*source)).cloned().collect();
    if let Some(other) = args.pv.iter().find(|name| !replaced.contains(name)) {
        let mut problem =
            Problem::usage(format!("run {run} has not replaced a volume `{other}`, or it is freed already"));
        if !replaced.is_empty() {
            problem = problem.hint(format!("replaced and kept: {}", replaced.join(", ")));
        }
        return Err(problem.into());
    }
    let volumes: Vec<String> =
        replaced.into_iter().filter(|name| args.pv.is_empty() || args.pv.contains(name)).collect();
    if volumes.is_empty() {
        ui::talk(&format!("run {run} has nothing to free"));
        return Ok(());
    }
    let is_over = |branch: &str| journal.ended(branch).is_some();
    if journal.taking_back().is_some() || (journal.is_past(undo::BRANCH, 1) && !is_over(undo::BRANCH)) {
        let begun = journal.taking_back().unwrap_or_default();
        return Err(Failure::from(
            Problem::refused(format!("run {run} is being taken back"))
                .hint(session::line(global, &super::rollback::typed(&run, &begun))),
        ));
    }
    if !is_over("root") && !is_over(undo::BRANCH) {
        return Err(Failure::from(
            Problem::refused(format!("run {run} is not over")).hint(session::resume_line(global, &run)),
        ));
    }
    let times = replaced_at(&taken.events()?);
    let script = Script::typed(SCRIPT, &taken.cancel).map_err(|problems| Failure {
        problems,
        sources: vec![],
        last: vec![],
        code: 70,
    })?;
    let mut met = taken.reach("cleanup")?;
    let mut fates = Vec::new();
    for name in &volumes {
        let age = times.get(name).map(|at| age_s(*at));
        fates.push(met.runtime.block_on(fate(&met.cluster, name, &books, age, least))?);
    }
    let told = told(&fates, &run.to_string());
    if args.plan {
        match global.output {
            Output::Json => ui::print_json(&json!(fates.iter().map(Fate::row).collect::<Vec<_>>())),
            Output::Text => ui::print(&told.join("\n")),
        }
        return Ok(());
    }
    let (go, stay): (Vec<&Fate>, Vec<&Fate>) = fates.iter().partition(|fate| fate.why.is_empty());
    if go.is_empty() {
        ui::talk(&told.join("\n"));
        if stay.iter().all(|fate| fate.young) {
            return Ok(());
        }
        let mut problem = Problem::refused("nothing is given up: each volume is needed");
        for fate in stay {
            problem = problem.quote(format!("{}: {}", fate.name, fate.why.join("; ")));
        }
        return Err(problem.into());
    }
    let voice = ui::voice(global);
    if global.yes {
        ui::talk(&told.join("\n"));
    } else {
        match voice.confirm(&told.join("\n")) {
            Some(true) => {}
            Some(false) => return Err(Problem::refused("not confirmed").into()),
            None => {
                return Err(Problem::refused("nobody is here to confirm")
                    .hint("add --yes to go on without asking")
                    .into());
            }
        }
    }
    // The person has read it, and gives these bytes up too.
    for fate in go.iter().filter(|fate| fate.only) {
        let fact = Fact::Voided { source: fate.name.clone(), why: "given up by cleanup".into() };
        met.journal.fact(&StepId::new("cleanup"), serde_json::to_value(&fact).expect("facts are plain data"))?;
    }
    let go: Vec<&str> = go.iter().map(|fate| fate.name.as_str()).collect();
    met.file.args = json!({"volumes": go, "rows": stay.iter().map(|fate| fate.row()).collect::<Vec<_>>()});
    // What is left of a list is another list: it remembers nothing of the first.
    let branch = format!("cleanup-{}", &blake3::hash(go.join(" ").as_bytes()).to_hex()[..8]);
    let mut again = format!("cleanup {run}");
    for name in &args.pv {
        again.push_str(&format!(" --pv {}", session::quoted(name)));
    }
    if let Some(least) = &args.older_than {
        again.push_str(&format!(" --older-than {}", session::quoted(least)));
    }
    let again = format!("to go on: {}", session::line(global, &again));
    session::execute_in(met.start(script, voice, true), &branch)?.conclude_with(global, vec![again]).map(|_| ())
}

impl Fate {
    fn row(&self) -> Json {
        json!({"pv": self.name, "claim": self.claim, "handle": self.handle, "freed": self.gone,
            "why": self.why.join("; "), "new_data": self.only})
    }
}

/// When each volume was replaced, by the journal's own clock: this one.
fn replaced_at(events: &[Event]) -> BTreeMap<String, jiff::Timestamp> {
    let swaps = events.iter().filter(|event| event.t == T::Fact).filter_map(|event| {
        let fact: Fact = serde_json::from_value(event.out.clone()?).ok()?;
        let Fact::Swapped { source, .. } = fact else { return None };
        Some((source, event.time.parse().ok()?))
    });
    swaps.collect()
}

fn age_s(at: jiff::Timestamp) -> u64 {
    u64::try_from(Clock.unix_s() - at.as_second()).unwrap_or(0)
}

async fn fate(
    cluster: &crate::cluster::Cluster,
    name: &str,
    books: &Books,
    age: Option<u64>,
    least: Option<Duration>,
) -> Result<Fate, Problem> {
    let swapped = &books.swapped[name];
    let only = books.verified.get(name).is_some_and(|verified| verified.mode == guard::DISCARDED);
    let mut fate = Fate {
        name: name.to_owned(),
        claim: swapped.claim.to_string(),
        handle: String::new(),
        why: Vec::new(),
        gone: false,
        young: false,
        only,
    };
    let found = cluster.find(&crate::cluster::known("PersistentVolume"), "", name).await;
    let Some(volume) = found.map_err(|e| e.problem("look at the volumes", None))? else {
        fate.gone = true;
        return Ok(fate);
    };
    fate.handle = Pv(&volume).handle();
    let last = books.last_of(swapped);
    let fresh = crate::cluster::before_free(cluster, &volume, last).await?;
    fate.why = guard::why_kept(Pv(&volume), last, &fresh);
    if let Some(least) = least
        && age.is_none_or(|age| age < least.as_secs())
    {
        fate.young = fate.why.is_empty();
        let ago =
            age.map_or_else(|| "at an unknown time".to_owned(), |age| format!("{} ago", human_seconds(age as f64)));
        fate.why.push(format!("it was replaced {ago}"));
    }
    Ok(fate)
}

/// Every volume with its handle, whatever becomes of it.
fn told(fates: &[Fate], run: &str) -> Vec<String> {
    let mut lines = vec![format!("volumes that run {run} has replaced:")];
    for fate in fates {
        let becomes = match (fate.gone, fate.why.is_empty(), fate.only) {
            (true, ..) => "is gone already".to_owned(),
            (_, false, _) => format!("is kept: {}", fate.why.join("; ")),
            (_, true, false) => "is given up for good".to_owned(),
            (_, true, true) => {
                "is given up for good, with what was written on it after the move and is nowhere else".to_owned()
            }
        };
        lines.push(format!("  {}  {}  {}  {becomes}", fate.name, fate.claim, fate.handle));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_volume_was_replaced_is_in_the_journal() {
        let fact = json!({"fact": "swapped", "claim": {"namespace": "shop", "name": "data"}, "was_uid": "u1", "uid": "u2",
            "source": "old", "target": "new"});
        let event = |time: &str| Event {
            out: Some(fact.clone()),
            time: time.into(),
            ..Event::new(T::Fact, &StepId::new("root/1"), "fact")
        };
        let found = replaced_at(&[event("2026-03-01T00:00:00.000Z"), event("2026-03-02T00:00:00.000Z")]);
        assert_eq!(found["old"].to_string(), "2026-03-02T00:00:00Z", "the last time counts");
        assert_eq!(replaced_at(&[event("yesterday")]).len(), 0);
    }
}
