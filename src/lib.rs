pub mod cluster;
pub mod journal;
pub mod words;
