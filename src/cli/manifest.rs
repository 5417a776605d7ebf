//! Manifests for `kubectl apply`: several documents of YAML, or one List of JSON.

use super::{Global, Output, ui};
use crate::words::{Json, Problem};
use serde_json::json;

/// `notes` go above as comments; JSON has none.
///
/// # Errors
/// Never for what comes from JSON.
pub fn print(global: &Global, notes: &[String], manifests: &[Json]) -> Result<(), Problem> {
    if global.output == Output::Json {
        ui::print_json(&json!({"apiVersion": "v1", "kind": "List", "items": manifests}));
        return Ok(());
    }
    ui::print(yaml(notes, manifests)?.trim_end());
    Ok(())
}

fn yaml(notes: &[String], manifests: &[Json]) -> Result<String, Problem> {
    let mut text: String = notes.iter().map(|note| format!("# {note}\n")).collect();
    for manifest in manifests {
        let document = serde_yaml_ng::to_string(manifest)
            .map_err(|e| Problem::bug("a manifest cannot be written as YAML").because(&e))?;
        text += &format!("---\n{document}");
    }
    Ok(text)
}
