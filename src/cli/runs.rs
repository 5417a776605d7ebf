//! `pvmigrate runs [list|show RUN|forget RUN]`

use super::{Failure, Global, Output, state_dir, ui};
use crate::journal::{Event, RunStatus, Runs, T};
use crate::words::{Json, RunId, names};
use clap::Subcommand;
use serde_json::json;

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
    let runs = Runs::new(&state_dir(global)?);
    match args.command.unwrap_or(Command::List) {
        Command::List => list(global, &runs),
        Command::Show { run } => show(global, &runs, &RunId::parse(&run)?),
        Command::Forget { run, force } => {
            let run = RunId::parse(&run)?;
            runs.forget(&run, force)?;
            ui::talk(&format!("run {run} is forgotten"));
            Ok(())
        }
    }
}

fn list(global: &Global, runs: &Runs) -> Result<(), Failure> {
    let all = runs.list()?;
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
                "writes": run.writes, "context": run.context, "why": run.last})
        })
        .collect();
    ui::print_table(&rows, &["run", "script", "status", "began", "steps", "writes", "context", "why"]);
    if let Some(stopped) = all.iter().find(|run| run.status == RunStatus::Stopped) {
        ui::talk(&format!("to go on: pvmigrate resume {}", stopped.run));
    }
    Ok(())
}

fn show(global: &Global, runs: &Runs, run: &RunId) -> Result<(), Failure> {
    let (file, events) = runs.show(run)?;
    if global.output == Output::Json {
        ui::print_json(&json!({"run": file, "events": events}));
        return Ok(());
    }
    ui::print(&format!("run {run}: {} on {} ({}), began {}", file.script, file.context, file.server, file.began));
    ui::print(&format!("options: {}", file.args));
    for event in &events {
        ui::print(&line(event));
    }
    Ok(())
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
