//! The one test binary: `cargo test` runs what needs no cluster; with one,
//! `PVMIGRATE_TEST_CLUSTER=…/cluster cargo test -- --ignored real --test-threads 6` runs the rest.

mod cli_repl;
mod scenarios;
mod world;
mod world_test;
