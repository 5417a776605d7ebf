//! StorageClasses: nothing of them changes but whether claims may grow.

use super::Rules;
use super::field::{fill_text, immutable, need, one_of, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::text;
use serde_json::Value;

pub const RULES: Rules = Rules { unsimulated, default, validate, validate_update, ..super::PLAIN };

fn unsimulated(class: &Value) -> Vec<Cause> {
    match super::field::is_empty(&class["allowedTopologies"]) {
        true => Vec::new(),
        false => vec![Cause::unsimulated("allowedTopologies", "topologies of classes")],
    }
}

fn default(class: &mut Value) {
    fill_text(class, "reclaimPolicy", "Delete");
    fill_text(class, "volumeBindingMode", "Immediate");
    super::field::drop_empty(class, &["parameters", "mountOptions", "allowedTopologies", "allowVolumeExpansion"]);
}

fn validate(class: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if need("provisioner", &class["provisioner"], &mut causes) {
        let name = text(&class["provisioner"]);
        causes.extend(wrong("provisioner", name, &lower(name)));
    }
    if !class["parameters"][""].is_null() {
        causes.push(Cause::invalid("parameters", &"".into(), "field can not be empty."));
    }
    one_of("reclaimPolicy", &class["reclaimPolicy"], &["Delete", "Retain"], &mut causes);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of("volumeBindingMode", &class["volumeBindingMode"], &modes, &mut causes);
    causes
}

/// Provisioners are qualified names, written in whatever case.
fn lower(name: &str) -> Vec<String> {
    meta::qualified_name(&name.to_lowercase())
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for key in ["parameters", "provisioner", "reclaimPolicy"] {
        if new[key] != old[key] {
            causes.push(Cause::forbidden(key, format!("updates to {key} are forbidden.")));
        }
    }
    if new["volumeBindingMode"] != old["volumeBindingMode"] {
        causes.push(immutable("volumeBindingMode", &new["volumeBindingMode"]));
    }
    causes
}
