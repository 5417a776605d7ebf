//! The engine: rhai with what scripts may use and nothing else, explicit limits, and a way to be stopped.

use super::resolver::{Resolver, Sources};
use super::session::Branch;
use super::{primitives, view};
use rhai::packages::{Package, StandardPackage};
use rhai::{Dynamic, Engine, OptimizationLevel};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Makes an engine for one run. The same limits hold in every build.
pub fn new(sources: Arc<Sources>, cancel: &CancellationToken) -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(StandardPackage::new().as_shared_module());
    // What the optimiser drops would not be checked either, and has been dropped wrongly.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_strict_variables(true);
    engine.disable_symbol("eval");
    engine.set_max_call_levels(64);
    engine.set_max_expr_depths(64, 32);
    engine.set_max_modules(64);
    engine.set_max_functions(2000);
    engine.set_max_variables(2000);
    engine.set_max_string_size(16 << 20);
    engine.set_max_array_size(1 << 20);
    engine.set_max_map_size(1 << 16);
    engine.set_module_resolver(Resolver::new(sources));
    engine.set_default_tag(Branch::nowhere().tag());
    let cancel = cancel.clone();
    // Ending a run is not an error that a script could catch.
    engine.on_progress(move |_| cancel.is_cancelled().then_some(Dynamic::UNIT));
    engine.on_print(|_| {});
    engine.on_debug(|_, _, _| {});
    view::register(&mut engine);
    primitives::register(&mut engine);
    primitives::register_controls(&mut engine);
    engine
}
