pub mod journal;
pub mod words;
