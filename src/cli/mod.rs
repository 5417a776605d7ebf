//! The command line: one file per word typed. Only here is anything printed, the environment read, an exit code made.
//!
//! stdout is data, stderr is talk.

pub mod agent;
mod check;
mod cleanup;
mod completions;
mod doc;
mod eval;
mod in_cluster;
mod lab;
mod manifest;
mod rbac;
mod repl;
mod repl_input;
mod report;
mod resume;
mod rollback;
mod run;
mod runs;
mod scripts;
mod session;
mod show;
mod test;
mod ui;

use crate::words::{Kind, Problem};
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Move Kubernetes storage by script
///
/// Copies volumes while their workloads run, stops each only for the last delta, verifies every byte, and can be resumed
/// after any interruption.
#[derive(Debug, Parser)]
#[command(name = "pvmigrate", version, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The kubeconfig to use, instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it, instead of the current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// Use an example cluster in this process, or one of a scenario's, instead of a real one
    #[arg(
        long,
        global = true,
        value_name = "SCENARIO",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = "Global options"
    )]
    pub lab: Option<String>,
    /// Answer every question with yes
    #[arg(long, short = 'y', global = true, help_heading = "Global options")]
    pub yes: bool,
    /// How results are printed
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT", help_heading = "Global options")]
    pub output: Output,
    /// Say more
    #[arg(long, short = 'v', global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Where runs are kept [default: ~/.local/state/pvmigrate]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub state_dir: Option<PathBuf>,
    /// The namespace of the run's own records: its Lease, and its journal if that is kept in the cluster [default: the
    /// context's]
    #[arg(long, global = true, value_name = "NAMESPACE", help_heading = "Global options")]
    pub run_namespace: Option<String>,
    /// What keeps the runs [default: dir; in a pod: cluster]
    #[arg(long, global = true, value_enum, value_name = "PLACE", help_heading = "Global options")]
    pub store: Option<Place>,
    /// Of `run` and `resume`.
    #[arg(skip)]
    pub on_failure: OnFailure,
}

/// What keeps runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// The state directory of this machine
    Dir,
    /// ConfigMaps in the cluster: any machine can go on with the run
    Cluster,
}

/// What becomes of a run that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// It stays as it is: `resume` goes on, `rollback` takes it back
    #[default]
    Stop,
    /// It is taken back at once
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people
    Text,
    /// One JSON value a line for programs
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(run::Args),
    Resume(resume::Args),
    Runs(runs::Args),
    Rollback(rollback::Args),
    Test(test::Args),
    Cleanup(cleanup::Args),
    Check(check::Args),
    Scripts(scripts::Args),
    Show(show::Args),
    Rbac(rbac::Args),
    Doc(doc::Args),
    Eval(eval::Args),
    Repl(repl::Args),
    Lab(lab::Args),
    Completions(completions::Args),
    Agent(agent::Args),
}

/// Runs the program and returns its exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help goes to stdout and is no failure; clap knows which is which.
            let _ = e.print();
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    ui::log(cli.global.verbose);
    let global = cli.global;
    let ended = match cli.command {
        Command::Run(args) => run::main(&global, args),
        Command::Resume(args) => resume::main(&global, &args),
        Command::Runs(args) => runs::main(&global, args),
        Command::Rollback(args) => rollback::main(&global, &args),
        Command::Test(args) => test::main(&global, &args),
        Command::Cleanup(args) => cleanup::main(&global, &args),
        Command::Check(args) => check::main(&args),
        Command::Scripts(args) => scripts::main(&global, &args),
        Command::Show(args) => show::main(&args),
        Command::Rbac(args) => rbac::main(&global, &args),
        Command::Doc(args) => doc::main(&global, &args),
        Command::Eval(args) => eval::main(&global, &args),
        Command::Repl(_) => repl::main(&global),
        Command::Lab(args) => lab::main(&global, args),
        Command::Completions(args) => completions::main(&args),
        Command::Agent(args) => return agent::main(args),
    };
    match ended {
        Ok(()) => 0,
        Err(failure) => {
            for problem in &failure.problems {
                report::problem(problem, &failure.sources);
            }
            for line in &failure.last {
                ui::talk(line);
            }
            failure.code
        }
    }
}

/// Why a command did not do what was asked, ready to be said.
pub struct Failure {
    pub problems: Vec<Problem>,
    /// Name and text of the sources that places point into.
    pub sources: Vec<(String, String)>,
    pub last: Vec<String>,
    pub code: u8,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = exit_code(problem.kind, false);
        Failure { problems: vec![problem], sources: Vec::new(), last: Vec::new(), code }
    }
}

/// The exit code of a kind of problem; `changed`: after the first change of the cluster.
pub fn exit_code(kind: Kind, changed: bool) -> u8 {
    match (kind, changed) {
        (Kind::Bug, _) => 70,
        (Kind::Interrupted, _) => 130,
        (Kind::Diverged, _) => 5,
        (Kind::Conflict, true) => 5,
        (Kind::Usage, false) => 2,
        (_, false) => 3,
        (_, true) => 4,
    }
}

/// What keeps runs, if nobody says: a pod and its files are gone tomorrow.
pub fn place(global: &Global) -> Place {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let kubeconfig = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        is_set("KUBECONFIG") || home.join(".kube/config").is_file()
    };
    let in_pod = || global.kubeconfig.is_none() && is_set("KUBERNETES_SERVICE_HOST") && !kubeconfig();
    match global.store {
        Some(place) => place,
        None if global.lab.is_none() && in_pod() => Place::Cluster,
        None => Place::Dir,
    }
}

/// Where runs are kept.
///
/// # Errors
/// If no place is given and there is no home directory.
pub fn state_dir(global: &Global) -> Result<PathBuf, Problem> {
    if let Some(dir) = &global.state_dir {
        return Ok(dir.clone());
    }
    if let Some(dir) = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("pvmigrate"));
    }
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/pvmigrate")),
        None => {
            Err(Problem::usage("there is no home directory to keep runs in").hint("name a place with --state-dir DIR"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_say_what_they_promise() {
        for (kind, changed, code) in [
            (Kind::Usage, false, 2),
            (Kind::Refused, false, 3),
            (Kind::Unreachable, false, 3),
            (Kind::Forbidden, false, 3),
            (Kind::Thrown, false, 3),
            (Kind::Thrown, true, 4),
            (Kind::Timeout, true, 4),
            (Kind::Forbidden, true, 4),
            (Kind::Conflict, true, 5),
            (Kind::Conflict, false, 3),
            (Kind::Diverged, false, 5),
            (Kind::Interrupted, true, 130),
            (Kind::Bug, true, 70),
            (Kind::Usage, true, 4),
        ] {
            assert_eq!(exit_code(kind, changed), code, "{kind:?} {changed}");
        }
    }
}
