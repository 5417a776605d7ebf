//! Trials of scripts: runs on labs, cut off at any write, and what became of the cluster.
//!
//! Above `script` and the lab, used by the command line and by our own tests. What must stay true: nothing here is part
//! of a real run, and nothing here knows what a script is for.

pub mod doom;
pub mod picture;
pub mod stage;

pub use doom::{Doom, How};
pub use picture::Picture;
pub use stage::{Between, Play, Stage};
