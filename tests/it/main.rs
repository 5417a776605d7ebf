//! The one test binary: `cargo test` runs what needs no cluster; with one,
//! `PVMIGRATE_TEST_CLUSTER=…/cluster cargo test -- --ignored real --test-threads 6` runs the rest.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what they see, and panic"
)]

mod cli;
mod cli_repl;
mod conformance;
mod crash;
mod docs;
mod faults;
mod lab_up;
mod matrix;
mod mutants;
mod scenarios;
mod store;
mod tidy;
mod trials;
mod world;
mod world_test;
