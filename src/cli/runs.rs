//! `pvmigrate runs [list|show RUN|forget RUN]`

use super::session::{self, Kept};
use super::{Failure, Global, Output, Place, in_cluster, place, state_dir, ui};
use crate::cluster::store::tail::Tail;
use crate::cluster::wait;
use crate::cluster::{proof, store};
use crate::journal::{Event, RunFile, RunListing, Runs, State, T};
use crate::words::clock::human_seconds;
use crate::words::size::human_bytes;
use crate::words::{Json, names};
use clap::Subcommand;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// List runs, look into one, or forget it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all runs, newest first
    List,
    /// Show what a run did, step by step
    Show {
        /// The run
        run: String,
        /// Go on until nobody executes it any more
        #[arg(long, short = 'f')]
        follow: bool,
    },
    /// Remove a run's journal
    Forget {
        /// The run
        run: String,
        /// Even if it would have to be resumed
        #[arg(long)]
        force: bool,
    },
}

pub fn main(global: &Global, args: Args) -> Result<(), Failure> {
    match args.command.unwrap_or(Command::List) {
        Command::List => list(global),
        Command::Show { run, follow: false } => show(global, &run),
        Command::Show { run, follow: true } => follow(global, &run),
        Command::Forget { run, force } => forget(global, &run, force),
    }
}

fn list(global: &Global) -> Result<(), Failure> {
    let in_cluster = place(global) == Place::Cluster;
    // Without a home directory nothing is kept here.
    let mut all = match state_dir(global) {
        Ok(dir) => Runs::new(&dir).list()?,
        Err(_) if in_cluster => Vec::new(),
        Err(problem) => return Err(problem.into()),
    };
    if in_cluster {
        session::needs_a_cluster_that_stays(global)?;
        let runtime = session::runtime()?;
        let reached = session::reach(global, &runtime)?;
        all.extend(runtime.block_on(store::runs::list(&reached.cluster, global.run_namespace.as_deref()))?);
        all.sort_by(|a, b| b.began.cmp(&a.began));
    }
    if global.output == Output::Json {
        ui::print_json(&json!(all));
        return Ok(());
    }
    if all.is_empty() {
        ui::talk("no runs yet");
        return Ok(());
    }
    let rows: Vec<Json> = all
        .iter()
        .map(|run| {
            json!({"run": run.run, "script": run.script, "status": run.status, "began": run.began, "steps": run.steps,
                "writes": run.writes, "context": run.context, "kept": kept(run), "why": run.last})
        })
        .collect();
    let columns = ["run", "script", "status", "began", "steps", "writes", "context", "kept", "why"];
    let asked: Vec<&str> = columns.into_iter().filter(|column| in_cluster || *column != "kept").collect();
    ui::print_table(&rows, &asked);
    if let Some(stopped) = all.iter().find(|run| run.is_to_be_resumed()) {
        let place = if stopped.namespace.is_empty() {
            String::new()
        } else {
            format!(" --store cluster --run-namespace {}", stopped.namespace)
        };
        ui::talk(&format!("to go on: pvmigrate resume {}{place}", stopped.run));
    }
    Ok(())
}

/// Where a run is kept, in a word or two.
fn kept(run: &RunListing) -> String {
    if run.namespace.is_empty() { "here".into() } else { format!("namespace {}", run.namespace) }
}

fn forget(global: &Global, run: &str, force: bool) -> Result<(), Failure> {
    let run = match session::find(global, Some(run))? {
        Kept::Dir(run) => {
            let runs = Runs::new(&state_dir(global)?);
            runs.may_forget(&run, force)?;
            // A journal that cannot be read has nothing to say.
            if let Ok((file, journal, _)) = runs.open(&run) {
                session::sweep(global, &file, &journal)?;
            }
            runs.forget(&run, force)?;
            run
        }
        Kept::Cluster(run, there) => {
            let job = in_cluster::finished_job(&there, &run)?;
            let (cluster, cancel) = (&there.shelf.cluster, CancellationToken::new());
            let file = RunFile { namespace: there.shelf.namespace.clone(), ..RunFile::new(run.clone(), "") };
            // A process that is at work keeps its journal.
            let lease = session::fence(cluster, &file, None, &ui::voice(global), &cancel)?;
            there.runtime.block_on(async {
                store::runs::may_forget(&there.shelf, &run, force).await?;
                lease.clear().await?;
                store::runs::forget(&there.shelf, &run).await
            })?;
            job.map(|job| in_cluster::remove(&there, &job)).transpose()?;
            run
        }
    };
    ui::talk(&format!("run {run} is forgotten"));
    Ok(())
}

fn show(global: &Global, run: &str) -> Result<(), Failure> {
    let (file, events) = match session::find(global, Some(run))? {
        Kept::Dir(run) => Runs::new(&state_dir(global)?).show(&run)?,
        Kept::Cluster(run, there) => there.runtime.block_on(store::runs::show(&there.shelf, &run))?,
    };
    if global.output == Output::Json {
        ui::print_json(&json!({"run": file, "claims": claims(&events), "events": events}));
        return Ok(());
    }
    say_head(&file);
    events.iter().for_each(|event| ui::print(&line(event)));
    claims(&events).iter().for_each(|claim| ui::print(&report(claim)));
    Ok(())
}

/// What the run has proven, claim by claim.
fn claims(events: &[Event]) -> Vec<Json> {
    proof::claims(events.iter().filter(|event| event.t == T::Fact).filter_map(|event| event.out.as_ref()))
}

/// A claim's report as a person reads it.
fn report(claim: &Json) -> String {
    let said = |pointer: &str| match claim.pointer(pointer) {
        Some(Json::String(text)) => names::plain(text),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let list = |pointer: &str, one: &dyn Fn(&Json) -> String| {
        let all = claim.pointer(pointer).and_then(Json::as_array).into_iter().flatten();
        all.map(one).collect::<Vec<_>>().join(", ")
    };
    let word = |value: &Json| names::plain(value.as_str().unwrap_or_default());
    let became = match (claim["swapped"] == true, claim["voided"].as_str()) {
        (_, Some(why)) => format!("voided: {}", names::plain(why)),
        (true, None) => "the claim is on the target".to_owned(),
        (false, None) => "not swapped".to_owned(),
    };
    let stopped = list("/report/workloads", &|one| {
        let generation = &one["generation"];
        format!("{} (uid {}, generation {generation})", word(&one["workload"]), word(&one["uid"]))
    });
    let waived = claim["report"]["waived"].as_object().into_iter().flatten();
    let waived: Vec<String> =
        waived.map(|(kind, count)| format!("{} of {count} entries", names::plain(kind))).collect();
    let bytes = human_bytes(claim["report"]["bytes"].as_u64().unwrap_or(0));
    let or = |text: String, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text };
    let downtime = claim["report"]["downtime_s"].as_f64().map_or("not known".to_owned(), human_seconds);
    let fits = match claim["fits"] == true {
        true => "it fits",
        false => "IT DOES NOT FIT: the report was changed after it was signed",
    };
    [
        format!("claim {}: {became}", said("/report/claim")),
        format!("  source    {} ({})", said("/report/source/volume"), said("/report/source/handle")),
        format!("            read at {}, digest {}", said("/report/source/read_at"), said("/report/source/digest")),
        format!("  target    {} ({})", said("/report/target/volume"), said("/report/target/handle")),
        format!("            read at {}, digest {}", said("/report/target/read_at"), said("/report/target/digest")),
        format!(
            "  compared  {}: {} files, {bytes}, at {}",
            said("/report/mode"),
            said("/report/files"),
            said("/report/verified_at")
        ),
        format!("  without   {}", or(waived.join(", "), "nothing was waived")),
        format!("  stopped   {}", or(stopped, "nothing")),
        format!("  let go    by {}", or(list("/report/nodes", &word), "no node: nobody used it")),
        format!("  watched   from version {} of the pods on", said("/report/watched_from")),
        format!("  downtime  {downtime}"),
        format!("  signed    {}: {fits}", said("/digest")),
    ]
    .join("\n")
}

fn say_head(file: &RunFile) {
    let RunFile { run, script, context, server, began, args, .. } = file;
    ui::print(&format!("run {run}: {script} on {context} ({server}), began {began}"));
    ui::print(&format!("options: {args}"));
}

/// How often a journal in a directory is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

/// Tells the records of a run as they come, until no process has it any more.
fn follow(global: &Global, run: &str) -> Result<(), Failure> {
    let cancel = CancellationToken::new();
    let mut told = Told { json: global.output == Output::Json, state: State::default() };
    let run = match session::find(global, Some(run))? {
        Kept::Dir(run) => {
            let runs = Runs::new(&state_dir(global)?);
            let runtime = session::runtime()?;
            ends_on_signals(&runtime);
            if !told.json {
                say_head(&runs.show(&run)?.0);
            }
            let mut offset = 0;
            loop {
                let (events, end, held) = runs.since(&run, offset)?;
                offset = end;
                told.tell(&events);
                if !held {
                    break;
                }
                runtime.block_on(wait::sleep(LOOKS_EVERY, &cancel))?;
            }
            run
        }
        Kept::Cluster(run, there) => {
            ends_on_signals(&there.runtime);
            let (file, mut tail) = there.runtime.block_on(Tail::begin(there.shelf.clone(), &run))?;
            if !told.json {
                say_head(&file);
            }
            while let Some(events) = there.runtime.block_on(tail.next(&cancel))? {
                told.tell(&events);
            }
            run
        }
    };
    let State { steps, writes, .. } = &told.state;
    let status = json!(told.state.status());
    let status = status.as_str().unwrap_or_default();
    ui::talk(&format!("run {run}: {status}, {} steps, {writes} writes; nobody executes it", steps.len()));
    Ok(())
}

/// What was told of a run so far.
struct Told {
    json: bool,
    state: State,
}

impl Told {
    fn tell(&mut self, events: &[Event]) {
        for event in events {
            if self.json {
                ui::print_json(&json!(event));
            } else {
                ui::print(&line(event));
            }
            // What is damaged is told as it is; resume refuses it.
            if let Err(illegal) = self.state.next(event) {
                ui::talk(&illegal.to_string());
            }
        }
    }
}

/// Looking on can be ended at any time.
fn ends_on_signals(runtime: &tokio::runtime::Runtime) {
    runtime.spawn(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        ui::leave(130);
    });
}

fn line(event: &Event) -> String {
    let what = match event.t {
        T::Start => "begins",
        T::Done => "done",
        T::Fail => "failed",
        T::Beat => "notes",
        T::End => "closed",
        T::Fact => "fact",
        T::Undone => "undone",
    };
    let detail = match (&event.write, &event.err, event.t) {
        (Some(write), ..) => write.to_string(),
        (_, Some(problem), _) => names::plain(&problem.message),
        // What was typed at the prompt.
        (_, _, T::Done) if event.op == "line" => {
            names::plain(event.out.as_ref().and_then(Json::as_str).unwrap_or_default()).replace('\n', "\n       ")
        }
        (_, _, T::Fact) => event.out.as_ref().map(Json::to_string).unwrap_or_default(),
        _ => event.at.clone(),
    };
    format!(
        "{:>5}  {}  {:<6}  {:<16}  {}  {detail}",
        event.n,
        event.time,
        what,
        event.op,
        names::plain(event.id.as_str())
    )
    .trim_end()
    .to_owned()
}
