//! `pvmigrate show NAME`

use super::{Failure, ui};
use crate::script::resolver::{STDLIB, STOCK, TESTS};
use crate::words::{Problem, names};

/// Print the text of a stock script or of a module of the stdlib
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a stock script, or std/MODULE
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn main(args: &Args) -> Result<(), Failure> {
    let all = || STOCK.iter().chain(TESTS).chain(STDLIB);
    match all().find(|(name, _)| *name == args.name) {
        Some((_, text)) => {
            ui::print(text.trim_end());
            Ok(())
        }
        None => {
            let mut problem =
                Problem::usage(format!("there is no stock script or module `{}`", names::plain(&args.name)));
            if let Some(word) = names::did_you_mean(&args.name, all().map(|(name, _)| *name)) {
                problem = problem.hint(format!("did you mean `{word}`?"));
            }
            let list = all().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            Err(problem.hint(format!("there are: {list}")).into())
        }
    }
}
