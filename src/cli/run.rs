//! `pvmigrate run SCRIPT [the script's own options]`

use super::session::{self, Start};
use super::{Failure, Global, OnFailure, in_cluster, rollback, ui};
use crate::script::Script;
use crate::script::args::Spec;
use crate::words::{Json, Problem};
use clap::{Arg, ArgAction, Args as _, Command, FromArgMatches as _};
use tokio_util::sync::CancellationToken;

/// Run a script
///
/// SCRIPT is a path, or the name of a stock script (pvmigrate scripts). What follows it are the script's own options:
/// `pvmigrate run SCRIPT --help` lists them.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[command(flatten)]
    in_cluster: in_cluster::Options,
    /// Path or name of the script
    #[arg(value_name = "SCRIPT", allow_hyphen_values = true)]
    script: Option<String>,
    /// What becomes of the run if it fails; exit code 6: it failed, and everything is as it was before
    #[arg(long, value_enum, default_value_t = OnFailure::Stop, value_name = "WHAT")]
    on_failure: OnFailure,
    /// The script's own options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub fn main(global: &Global, args: Args) -> Result<(), Failure> {
    let Some(script) = args.script.filter(|word| !matches!(word.as_str(), "--help" | "-h")) else {
        ui::print_help("run");
        return Ok(());
    };
    let cancel = CancellationToken::new();
    let script = Script::load(&script, &cancel).map_err(|problems| failed_to_load(&script, problems))?;
    let global = &Global { on_failure: args.on_failure, ..global.clone() };
    let (global, values, after) = match parse(global, &script, &args.options) {
        Ok(parsed) => parsed,
        Err(Parsed::Said(0)) => return Ok(()),
        Err(Parsed::Said(code)) => {
            return Err(Failure { problems: vec![], sources: vec![], last: vec![], code });
        }
        Err(Parsed::Wrong(problem)) => return Err(problem.into()),
    };
    if global.on_failure == OnFailure::Rollback && global.lab.is_some() {
        return Err(Problem::usage("--lab ends with this process: nothing of a run in it is left to be taken back")
            .hint("`pvmigrate lab up` makes one that stays")
            .into());
    }
    let options = args.in_cluster.and(after);
    if options.are_meant()? {
        return in_cluster::submit(&global, &script, values, &options);
    }
    let runtime = session::runtime()?;
    session::on_signals(&global, &runtime, &cancel);
    let reached = session::reach(&global, &runtime)?;
    let argv = std::env::args().collect();
    let (file, journal) = session::open_run(&global, &reached, &script, values, argv)?;
    let global = session::settled(&global, &file);
    ui::talk(&format!("run {} of {} on {} ({})", file.run, script.name, file.context, file.server));
    let voice = ui::voice(&global);
    let yes = global.yes;
    let (cluster, trial) = reached.into_parts();
    let start = Start { script, runtime, cluster, journal, file, voice, cancel, yes, trial };
    rollback::conclude(&global, session::execute(start)?)
}

/// What is wrong with a script, with the text that it points into.
pub fn failed_to_load(script: &str, problems: Vec<Problem>) -> Failure {
    let sources = match crate::script::resolver::Sources::find(script) {
        Ok((sources, _)) => {
            // Modules that parse were read; their texts are wanted for excerpts.
            for problem in &problems {
                if let Some(place) = &problem.place {
                    let _ = sources.import("", &place.script);
                }
            }
            sources.all().into_iter().map(|source| (source.name, source.text)).collect()
        }
        Err(_) => Vec::new(),
    };
    Failure { problems, sources, last: Vec::new(), code: 2 }
}

/// Why there are no values: something was said (help or clap's own error), or a value is wrong.
pub enum Parsed {
    Said(u8),
    Wrong(Problem),
}

/// Parses the script's own options, and global ones among them.
pub fn parse(
    global: &Global,
    script: &Script,
    options: &[String],
) -> Result<(Global, Json, in_cluster::Options), Parsed> {
    let command = command(script);
    let words = std::iter::once("pvmigrate run".to_owned()).chain(options.iter().cloned());
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return Err(Parsed::Said(if e.use_stderr() { 2 } else { 0 }));
        }
    };
    let mut values = serde_json::Map::new();
    for spec in &script.options {
        values.insert(spec.name.clone(), value(spec, &matches).map_err(Parsed::Wrong)?);
    }
    let mut global = global.clone();
    take_global(&mut global, &matches);
    let options = in_cluster::Options::from_arg_matches(&matches).unwrap_or_default();
    Ok((global, Json::Object(values), options))
}

fn value(spec: &Spec, matches: &clap::ArgMatches) -> Result<Json, Problem> {
    if spec.kind == "bool" {
        return Ok(if matches.get_flag(&spec.name) { Json::Bool(true) } else { spec.otherwise() });
    }
    let typed: Vec<&String> = matches.get_many::<String>(&spec.name).into_iter().flatten().collect();
    match (typed.as_slice(), spec.many) {
        ([], _) => Ok(spec.otherwise()),
        (all, true) => all.iter().map(|word| one(spec, word)).collect::<Result<Vec<_>, _>>().map(Json::Array),
        ([.., last], false) => one(spec, last),
    }
}

fn one(spec: &Spec, typed: &str) -> Result<Json, Problem> {
    if spec.kind != "yaml" {
        return spec.parse(typed);
    }
    // A script never reads files: what it is to know of one is read here and kept with the run.
    yaml(&spec.name, typed)
}

/// Reads a file for an option.
///
/// # Errors
/// If it cannot be read, or is not YAML.
pub fn yaml(option: &str, path: &str) -> Result<Json, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Problem::usage(format!("`--{option}`: {path} cannot be read")).because(&e))?;
    serde_yaml_ng::from_str(&text).map_err(|e| Problem::usage(format!("`--{option}`: {path} is not YAML")).because(&e))
}

/// The script as a command of its own.
pub fn command(script: &Script) -> Command {
    let about = script.about();
    let (first, rest) = about.split_once('\n').unwrap_or((&about, ""));
    let name = format!("pvmigrate run {}", script.name);
    let mut command =
        Command::new(name.clone()).bin_name(name).about(first.trim_end_matches('.').to_owned()).max_term_width(110);
    if !rest.trim().is_empty() {
        command = command.long_about(format!("{first}\n{rest}"));
    }
    for spec in &script.options {
        let mut arg = Arg::new(spec.name.clone()).long(spec.name.clone()).help(help(spec)).required(spec.required);
        arg = match spec.kind.as_str() {
            "bool" => arg.action(ArgAction::SetTrue),
            kind => arg
                .value_name(if spec.value.is_empty() { placeholder(kind, &spec.name) } else { spec.value.clone() })
                .action(if spec.many { ArgAction::Append } else { ArgAction::Set }),
        };
        if !spec.choices.is_empty() {
            arg = arg.value_parser(clap::builder::PossibleValuesParser::new(spec.choices.clone()));
            if spec.many {
                arg = arg.value_delimiter(',');
            }
        }
        command = command.arg(arg);
    }
    command = in_cluster::Options::augment_args(command);
    for (name, short, takes, help) in GLOBALS {
        let mut arg = Arg::new(format!("global-{name}")).long(name).help(help).help_heading("Global options");
        if let Some(short) = short {
            arg = arg.short(short);
        }
        arg = if takes.is_empty() {
            arg.action(ArgAction::SetTrue)
        } else {
            arg.value_name(takes).action(ArgAction::Set)
        };
        if name == "lab" {
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("");
        }
        if name == "on-failure" {
            arg = arg.value_parser(["stop", "rollback"]);
        }
        if name == "output" {
            arg = arg.value_parser(["text", "json"]);
        }
        if name == "store" {
            arg = arg.value_parser(["dir", "cluster"]);
        }
        command = command.arg(arg);
    }
    command
}

type GlobalOption = (&'static str, Option<char>, &'static str, &'static str);

/// Global options may stand after the script's name too.
const GLOBALS: [GlobalOption; 10] = [
    ("kubeconfig", None, "FILE", "The kubeconfig to use, instead of KUBECONFIG or ~/.kube/config"),
    ("context", None, "NAME", "The context in it, instead of the current one"),
    ("lab", None, "SCENARIO", "Use an example cluster in this process, or one of a scenario's, instead of a real one"),
    ("yes", Some('y'), "", "Answer every question with yes"),
    ("output", Some('o'), "FORMAT", "How results are printed"),
    ("verbose", Some('v'), "", "Say more"),
    ("state-dir", None, "DIR", "Where runs are kept [default: ~/.local/state/pvmigrate]"),
    (
        "on-failure",
        None,
        "WHAT",
        "What becomes of the run if it fails: stop, or rollback (exit code 6: it failed and is taken back)",
    ),
    ("run-namespace", None, "NAMESPACE", "The namespace of the run's own records [default: the context's]"),
    ("store", None, "PLACE", "What keeps the run [default: dir; in a pod: cluster]"),
];

fn take_global(global: &mut Global, matches: &clap::ArgMatches) {
    let text = |name: &str| matches.get_one::<String>(&format!("global-{name}")).cloned();
    if let Some(path) = text("kubeconfig") {
        global.kubeconfig = Some(path.into());
    }
    if let Some(scenario) = text("lab") {
        global.lab = Some(scenario);
    }
    if let Some(context) = text("context") {
        global.context = Some(context);
    }
    if let Some(dir) = text("state-dir") {
        global.state_dir = Some(dir.into());
    }
    if let Some(namespace) = text("run-namespace") {
        global.run_namespace = Some(namespace);
    }
    match text("store").as_deref() {
        Some("cluster") => global.store = Some(super::Place::Cluster),
        Some(_) => global.store = Some(super::Place::Dir),
        None => {}
    }
    match text("on-failure").as_deref() {
        Some("rollback") => global.on_failure = OnFailure::Rollback,
        Some(_) => global.on_failure = OnFailure::Stop,
        None => {}
    }
    if text("output").as_deref() == Some("json") {
        global.output = super::Output::Json;
    }
    global.yes |= matches.get_flag("global-yes");
    if matches.get_flag("global-verbose") && !global.verbose {
        global.verbose = true;
        ui::log(true);
    }
}

fn placeholder(kind: &str, name: &str) -> String {
    match kind {
        "int" => "N".into(),
        "size" => "SIZE".into(),
        "yaml" => "FILE".into(),
        "PersistentVolumeClaim" => "NS/NAME".into(),
        "StorageClass" => "CLASS".into(),
        "Namespace" => "NAMESPACE".into(),
        _ => name.to_uppercase(),
    }
}

fn help(spec: &Spec) -> String {
    let mut help = spec.help.clone();
    match &spec.fallback {
        Json::Null => {}
        Json::String(text) => help.push_str(&format!(" [default: {text}]")),
        other => help.push_str(&format!(" [default: {other}]")),
    }
    if spec.many {
        help.push_str(" (may be given several times)");
    }
    help.trim().to_owned()
}
