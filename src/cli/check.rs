//! `pvmigrate check SCRIPT…`

use super::{Failure, run, ui};
use crate::script::Script;
use tokio_util::sync::CancellationToken;

/// Check scripts without running them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Paths or names of scripts
    #[arg(value_name = "SCRIPT", required = true)]
    scripts: Vec<String>,
}

pub fn main(args: &Args) -> Result<(), Failure> {
    let mut all = Failure { problems: Vec::new(), sources: Vec::new(), last: Vec::new(), code: 2 };
    for name in &args.scripts {
        match Script::load(name, &CancellationToken::new()) {
            Ok(_) => ui::print(&format!("{name}: no faults found")),
            Err(problems) => {
                let failure = run::failed_to_load(name, problems);
                all.problems.extend(failure.problems);
                all.sources.extend(failure.sources);
            }
        }
    }
    if all.problems.is_empty() { Ok(()) } else { Err(all) }
}
