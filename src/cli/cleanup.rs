//! `pvmigrate cleanup RUN`

use super::{Failure, Global, session, ui};
use crate::cluster::{Fact, Ledger, pv::Pv};
use crate::journal::StepId;
use crate::script::{Script, undo};
use crate::words::Problem;
use serde_json::json;

/// Give up the source volumes that a run has replaced
///
/// Each is freed only if its claim stands on the verified target and nothing else needs its bytes. There is no way back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
}

/// What is done to each volume is a step of the run's own journal, in a branch of its own.
const SCRIPT: &str = r#"//! Give up the source volumes that a run has replaced.
let volumes = arg("volumes", #{ many: true });
let freed = [];
for name in volumes {
    let pv = find_pv(name);
    if pv == () {
        log(`${name} is gone already`);
    } else {
        freed.push(free_pv(pv));
    }
}
table(freed, #{ columns: ["pv", "handle", "freed"] });
"#;

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    let taken = session::take_up(global, Some(&args.run))?;
    let global = &taken.global.clone();
    let (run, journal) = (taken.run.clone(), &taken.journal);
    let books = Ledger::from_facts(&journal.facts())?.books();
    let volumes: Vec<String> = books.swapped.keys().filter(|source| !books.freed.contains(*source)).cloned().collect();
    if volumes.is_empty() {
        ui::talk(&format!("run {run} has nothing to free"));
        return Ok(());
    }
    if journal.is_past(undo::BRANCH, 1) && journal.ended(undo::BRANCH).is_none() {
        return Err(Failure::from(
            Problem::refused(format!("run {run} is being taken back"))
                .hint(session::line(global, &format!("rollback {run}"))),
        ));
    }
    if journal.ended("root").is_none() && journal.ended(undo::BRANCH).is_none() {
        return Err(Failure::from(
            Problem::refused(format!("run {run} is not over")).hint(session::resume_line(global, &run)),
        ));
    }
    let script = Script::typed(SCRIPT, &taken.cancel).map_err(|problems| Failure {
        problems,
        sources: vec![],
        last: vec![],
        code: 70,
    })?;
    let mut met = taken.reach("cleanup")?;
    let kind = crate::cluster::known("PersistentVolume");
    let is_discarded =
        |name: &str| books.verified.get(name).is_some_and(|verified| verified.mode == crate::cluster::guard::DISCARDED);
    let mut plan = vec![format!("volumes that run {run} has replaced, to be given up for good:")];
    for name in &volumes {
        let found = met
            .runtime
            .block_on(met.cluster.find(&kind, "", name))
            .map_err(|e| e.problem("look at the volumes", None))?;
        plan.push(match found {
            Some(volume) => {
                let only =
                    if is_discarded(name) { "  what was written on it after the move is nowhere else" } else { "" };
                format!("  {name}  {}  {}{only}", books.swapped[name].claim, Pv(&volume).handle())
            }
            None => format!("  {name}  is gone already"),
        });
    }
    let voice = ui::voice(global);
    if global.yes {
        ui::talk(&plan.join("\n"));
    } else {
        match voice.confirm(&plan.join("\n")) {
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
    for source in volumes.iter().filter(|name| is_discarded(name)) {
        let fact = Fact::Voided { source: source.clone(), why: "given up by cleanup".into() };
        met.journal.fact(&StepId::new("cleanup"), serde_json::to_value(&fact).expect("facts are plain data"))?;
    }
    met.file.args = json!({"volumes": volumes});
    // What is left of a list is another list: it remembers nothing of the first.
    let branch = format!("cleanup-{}", &blake3::hash(volumes.join(" ").as_bytes()).to_hex()[..8]);
    let again = format!("to go on: {}", session::line(global, &format!("cleanup {run}")));
    session::execute_in(met.start(script, voice, true), &branch)?.conclude_with(global, vec![again]).map(|_| ())
}
