//! Copying a volume: whether its users may run meanwhile (hot), where (plan), with what pod (pod), seeing it through (run), and again if it died (end). The mover itself is `agent`.
//!
//! What must stay true: no user's text reaches a shell or a command line; a source is mounted read-only; a finished pod
//! is removed only after its report stands in the journal.

pub mod agent;
pub mod end;
pub mod hot;
pub mod job;
pub mod plan;
pub mod pod;
pub mod report;
pub mod run;
pub mod waive;
