//! `pvmigrate scripts`

use super::{Failure, Global, Output, ui};
use crate::script::Script;
use crate::script::resolver::STOCK;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// List the stock scripts
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn main(global: &Global, _: &Args) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (name, _) in STOCK {
        let script = Script::load(name, &CancellationToken::new())
            .map_err(|problems| super::run::failed_to_load(name, problems))?;
        let about = script.about();
        rows.push(json!({"script": name, "what": about.lines().next().unwrap_or_default()}));
    }
    if global.output == Output::Json {
        ui::print_json(&json!(rows));
    } else {
        ui::print_table(&rows, &["script", "what"]);
        ui::talk("its options: pvmigrate run SCRIPT --help · its text, to copy and change: pvmigrate show SCRIPT");
    }
    Ok(())
}
