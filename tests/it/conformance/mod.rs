//! Conformance: the same raw requests to a real Kubernetes and to any other server, answers made comparable, compared.
//!
//! The stories are data, `tests/conformance/*.yaml`; what the real server said is `tests/golden/api/*.json`, recorded
//! with `PVMIGRATE_RECORD=1 PVMIGRATE_TEST_CLUSTER=…/cluster cargo test --test it conformance -- --ignored record`.
//! `replay` tells another server by them. A difference is allowed by a line with a reason, refused by the server in
//! words, or wrong: there is no other kind. This knows nothing of pvmigrate.

mod compare;
mod golden;
mod lab;
mod normal;
mod random;
mod real;
mod replay;
mod report;
mod run;
mod server;
mod story;
mod volumes;

use std::path::PathBuf;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
