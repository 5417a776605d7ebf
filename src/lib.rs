//! pvmigrate moves Kubernetes storage by script. This is the map; there is no code here.
//!
//! Layers, each using only those before it:
//! [`words`] ← [`journal`] ← [`cluster`] ← [`copy`] ← [`script`] ← [`repl`], [`trial`] ← [`cli`].
//!
//! [`lab`] stands beside: an embedded Kubernetes that knows [`words`] only, and that only [`trial`], [`cli`] and tests know.
//!
//! * kube is used in `cluster` only, rhai in `script`, `repl` and `trial` only, clap and printing in `cli` only.
//! * No write of the cluster without a [`journal::Permit`]; only [`journal::Journal::permit`] makes one, durably.
//! * [`cluster::send`] is the only place that writes; [`cluster::guard::admit`] stands on every write.
//! * Policy is Rhai (`scripts/`, `stdlib/`), mechanism is Rust: nothing here knows the order of a migration.
//! * Nothing below `cli` prints, ends the process or reads the environment.

pub mod cli;
pub mod cluster;
pub mod copy;
pub mod journal;
pub mod lab;
pub mod repl;
pub mod script;
pub mod trial;
pub mod words;
