//! `pvmigrate rbac SCRIPT`

use super::{Failure, Global, manifest, run, ui};
use crate::cluster::rbac::{Grant, manifests};
use crate::cluster::{self, Target};
use crate::repl::help::right;
use crate::script::Script;
use crate::script::rights::Open;
use crate::words::{Problem, names};
use tokio_util::sync::CancellationToken;

/// Print the roles that a script needs, and no more
///
/// They are read from what the script and its imports call, whatever its options are; nothing is run and no cluster is
/// asked. The ServiceAccount is in the namespace of the run's own records: --run-namespace.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path or name of the script
    #[arg(value_name = "SCRIPT")]
    script: String,
    /// Name of the ServiceAccount, and the beginning of the names of its roles
    #[arg(long, value_name = "NAME", default_value = "pvmigrate")]
    service_account: String,
    /// Grant what can be granted in a namespace in this one only; may be given several times
    #[arg(long, value_name = "NAMESPACE")]
    namespace_role: Vec<String>,
}

pub fn main(global: &Global, args: &Args) -> Result<(), Failure> {
    names::object_name(&args.service_account)?;
    let mut places = args.namespace_role.clone();
    places.sort();
    places.dedup();
    let namespace = namespace(global)?;
    for namespace in places.iter().chain([&namespace]) {
        names::label_name(namespace)?;
    }
    let script = Script::load(&args.script, &CancellationToken::new())
        .map_err(|problems| run::failed_to_load(&args.script, problems))?;
    let needs = script.needs();
    let grant = Grant { script: &script.name, account: &args.service_account, namespace: &namespace, places: &places };
    let mut notes = vec![format!("What {} needs, and no more: made by `pvmigrate rbac`.", script.name)];
    for open in &needs.open {
        let missing = told(open);
        notes.push(format!("TO BE COMPLETED: {missing}"));
        ui::talk(&format!("to be completed: {missing}"));
    }
    manifest::print(global, &notes, &manifests(&needs.known, &grant))?;
    Ok(())
}

/// `get, patch of a kind that is computed (patch_object, flux:12)`
fn told(open: &Open) -> String {
    let of = match &open.kind {
        Some(kind) => format!("{}, under the name that its server gives it", names::plain(kind)),
        None => "a kind that is computed".to_owned(),
    };
    format!("{} ({}, {}:{})", right(open.verbs, "", &format!("of {of}")), open.primitive, open.script, open.line)
}

/// Where the run's own records would be.
fn namespace(global: &Global) -> Result<String, Problem> {
    match &global.run_namespace {
        Some(namespace) => Ok(namespace.clone()),
        None if global.lab.is_some() => Ok("default".to_owned()),
        None => {
            let target = Target { kubeconfig: global.kubeconfig.clone(), context: global.context.clone() };
            let namespace = super::session::runtime()?.block_on(cluster::connect::default_namespace(&target));
            namespace.map_err(|problem| problem.hint("or name the namespace: --run-namespace NAMESPACE"))
        }
    }
}
