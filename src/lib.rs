//! See ARCHITECTURE.md.
pub mod cli;
pub mod cluster;
pub mod copy;
pub mod journal;
pub mod repl;
pub mod script;
pub mod words;
