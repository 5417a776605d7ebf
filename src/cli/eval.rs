//! `pvmigrate eval 'EXPR'`

use super::session::{self, Start};
use super::{Failure, Global, Output, ui};
use crate::script::Script;
use crate::words::Json;
use tokio_util::sync::CancellationToken;

/// Evaluate an expression of the script language on the cluster and print its value
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For example: list_pvs().filter(|pv| pv.class == "slow").map(|pv| pv.name)
    #[arg(value_name = "EXPR")]
    expr: String,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    let global = &session::looking(global);
    let cancel = CancellationToken::new();
    let source = || vec![("typed".to_owned(), args.expr.clone())];
    let script = Script::typed(&args.expr, &cancel).map_err(|problems| Failure {
        problems,
        sources: source(),
        last: Vec::new(),
        code: 2,
    })?;
    let runtime = session::runtime()?;
    session::on_signals(global, &runtime, &cancel);
    let reached = session::reach(global, &runtime)?;
    let values = crate::script::args::otherwise(&script.options);
    let (mut file, journal) = session::open_run(global, &reached, &script, values, std::env::args().collect())?;
    file.script = "typed".into();
    let settled = session::settled(global, &file);
    let voice = ui::voice(global);
    let run = file.run.clone();
    let (cluster, trial) = reached.into_parts();
    let start = Start { script, runtime, cluster, journal, file, voice, cancel, yes: global.yes, trial };
    let mut ended = session::execute(start)?;
    ended.sources.extend(source());
    // A look leaves nothing behind; the runs of --lab are gone with it.
    if !ended.changed
        && global.lab.is_none()
        && let Err(problem) = session::forget(global, &run)
    {
        tracing::debug!("{problem}");
    }
    let value = ended.conclude(&settled)?;
    match (global.output, &value) {
        (Output::Json, _) => ui::print_json(&value),
        (Output::Text, Json::Null) => {}
        (Output::Text, Json::String(text)) => ui::print(&crate::words::names::plain(text)),
        (Output::Text, value) => ui::print(&ui::display(value)),
    }
    Ok(())
}
