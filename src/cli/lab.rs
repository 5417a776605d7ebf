//! `pvmigrate lab up`, and the lab behind `--lab`.

use super::{Failure, Global, session, state_dir, ui};
use crate::lab::kubelet::{Image, Images};
use crate::lab::scenario::Scenario;
use crate::lab::serve::Port;
use crate::lab::{Lab, Options, keep::Unusable};
use crate::words::{Kind, Problem};
use clap::Subcommand;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A Kubernetes on this machine for trials: volumes are directories, pods are processes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve it on 127.0.0.1 until Ctrl-C, and write DIR/kubeconfig; kubectl works with it
    Up(UpArgs),
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    /// What a new cluster begins with: YAML of Kubernetes objects [default: the example shop with 200 MB of files]
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Where cluster and volumes are kept [default: lab in the state directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The port [default: any that is free]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// How long a cluster that was just filled may take to come to rest.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How long a lab that cannot keep anything any more says so to its clients.
const LAST_WORDS: Duration = Duration::from_millis(300);

pub fn main(global: &Global, args: Args) -> Result<(), Failure> {
    let Command::Up(args) = args.command;
    if global.lab.is_some() {
        return Err(Problem::usage(
            "`lab up` makes a cluster that stays, --lab one for this command: take one of them",
        )
        .hint("pvmigrate lab up --scenario FILE")
        .into());
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => state_dir(global)?.join("lab"),
    };
    // It is told to other terminals.
    let dir = std::path::absolute(&dir).map_err(|e| Problem::usage("--dir is no path").because(&e))?;
    // What cannot be read is refused before anything is made.
    let scenario = args.scenario.as_deref().map(read).transpose()?;
    let runtime = session::runtime()?;
    let port = runtime.block_on(Port::open(args.port)).map_err(|e| {
        Problem::new(Kind::Usage, format!("port {} of 127.0.0.1 cannot be opened", args.port))
            .because(&e)
            .hint("without --port any free one is taken")
    })?;
    let lab = open(&dir, true)?;
    let name = args.scenario.as_deref().map_or("the example".into(), |file| file.display().to_string());
    let lab = if lab.is_new() {
        ui::talk(&format!("making the cluster of {name} in {}", dir.display()));
        begin(lab, &scenario.unwrap_or_else(|| Scenario::shop(true)))?
    } else if scenario.is_some() {
        return Err(Problem::usage(format!("there is a cluster in {} already", dir.display()))
            .hint("--scenario is for a new one: name another --dir, or leave it out to go on with this one")
            .into());
    } else {
        lab
    };
    let kubeconfig = dir.join("kubeconfig");
    port.write_kubeconfig(&kubeconfig)
        .map_err(|e| Problem::local(format!("{} cannot be written", kubeconfig.display()), &e))?;
    let volumes = dir.join("volumes");
    ui::talk(&format!(
        "the lab is at https://{} until Ctrl-C; its volumes are in {}",
        port.address(),
        volumes.display()
    ));
    ui::talk("use it from another terminal with this, then for example `kubectl get pods,pvc -A`:");
    ui::print(&format!("export KUBECONFIG={}", session::quoted(&kubeconfig.display().to_string())));
    let ended = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let none = |e: std::io::Error| Problem::local("signals cannot be handled", &e);
        let (mut int, mut term) =
            (signal(SignalKind::interrupt()).map_err(none)?, signal(SignalKind::terminate()).map_err(none)?);
        let mut serving = std::pin::pin!(port.serve(&lab));
        tokio::select! {
            served = &mut serving => match served {
                Err(e) => Err(Problem::local("the port cannot be served", &e)),
                Ok(never) => match never {},
            },
            _ = int.recv() => Ok(()),
            _ = term.recv() => Ok(()),
            why = lab.broke() => {
                // Those who wait are told that nothing was kept.
                drop(tokio::time::timeout(LAST_WORDS, &mut serving).await);
                Err(Problem::new(Kind::Local, why)
                    .hint("what it answered until now is kept: make room, and the same command goes on with it"))
            }
        }
    });
    if let Err(error) = std::fs::remove_file(&kubeconfig) {
        tracing::debug!("{}: {error}", kubeconfig.display());
    }
    drop(lab);
    runtime.shutdown_background();
    ended?;
    ui::talk("the lab has ended; the same command goes on with it");
    Ok(())
}

/// Fills a new lab; if that fails the directory is left empty.
fn begin(lab: Lab, scenario: &Scenario) -> Result<Lab, Problem> {
    let local = |e: std::io::Error| Problem::local("the lab's directory cannot be written", &e);
    lab.home().fills().map_err(local)?;
    let filled = fill(&lab, scenario).and_then(|()| lab.home().is_filled().map_err(local));
    let Err(problem) = filled else { return Ok(lab) };
    let mut lab = lab;
    // Its processes write to it.
    lab.end();
    if let Err(error) = lab.home().clear() {
        tracing::warn!("{}: {error}", lab.dir().display());
    }
    Err(problem)
}

/// A lab that lives as long as this process, for `--lab`.
pub struct Trial {
    pub lab: Lab,
    dir: PathBuf,
}

impl Trial {
    /// Where its runs are kept: they end with it.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // The processes end first; the directory is removed when nothing writes to it any more.
        self.lab.end();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!("{}: {error}", self.dir.display());
        }
    }
}

/// Opens the lab for `--lab[=SCENARIO]`; an empty name is the example.
///
/// # Errors
/// If the scenario or the state directory cannot be used.
pub fn trial(global: &Global, scenario: &str) -> Result<Trial, Problem> {
    let name = if scenario.is_empty() { "the example" } else { scenario };
    let scenario = if scenario.is_empty() { Scenario::shop(true) } else { read(Path::new(scenario))? };
    let all = state_dir(global)?.join("trials");
    sweep(&all);
    let dir = all.join(format!("{}", std::process::id()));
    let lab = open(&dir, false)?;
    let trial = Trial { lab, dir };
    ui::talk(&format!("making the cluster of {name} in this process (lab)"));
    fill(&trial.lab, &scenario)?;
    Ok(trial)
}

/// Removes what killed processes left.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let dir = entry.path();
        // Whoever lives holds its lock.
        if crate::lab::keep::Home::open(&dir).is_ok()
            && let Err(error) = std::fs::remove_dir_all(&dir)
        {
            tracing::debug!("{}: {error}", dir.display());
        }
    }
}

/// Reads a scenario's file.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn read(path: &Path) -> Result<Scenario, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Problem::usage(format!("the scenario {} cannot be read", path.display())).because(&e))?;
    Scenario::parse(&path.display().to_string(), &text).map_err(|e| Problem::usage("the scenario is wrong").because(&e))
}

fn fill(lab: &Lab, scenario: &Scenario) -> Result<(), Problem> {
    scenario.apply(lab).map_err(|e| Problem::usage("the scenario cannot be applied").because(&e))?;
    lab.settle(SETTLES_WITHIN);
    Ok(())
}

/// What runs in the pods of labs: this program.
///
/// # Errors
/// If it cannot be found.
pub fn images() -> Result<Images, Problem> {
    let program =
        std::env::current_exe().map_err(|e| Problem::local("the path of this program cannot be found", &e))?;
    let image = Image { programs: vec![("pvmigrate".into(), program)] };
    let names = ["pvmigrate/agent*", "docker.io/pvmigrate/agent*"];
    let by_name: BTreeMap<String, Image> = names.iter().map(|name| ((*name).to_owned(), image.clone())).collect();
    Ok(Images { by_name })
}

fn open(dir: &Path, keep: bool) -> Result<Lab, Problem> {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let options = Options { dir: dir.to_owned(), images: images()?, shared: Vec::new(), seed, keep };
    Lab::open(options).map_err(|error| {
        let hint = match &error {
            Unusable::Foreign(_) => "name an empty or a new directory with --dir",
            Unusable::Newer { .. } => "use the pvmigrate that made it, or another --dir",
            Unusable::InUse(_) => "end the other one, or name another --dir",
            Unusable::Damaged { .. } => "the line says what; name another --dir to begin anew",
            Unusable::Io { error, .. } if error.kind() == std::io::ErrorKind::StorageFull => {
                "make room; what was kept is as it was"
            }
            Unusable::Io { .. } => "name a directory that can be written with --dir",
        };
        Problem::usage("the lab's directory cannot be used").because(&error).hint(hint)
    })
}
