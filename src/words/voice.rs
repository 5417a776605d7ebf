//! How the inside speaks without a terminal. The command line prints; tests listen.

/// How far a copy is. Bytes and files are of this pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// `shop/data`
    pub claim: String,
    /// `hot 1`, `final`, `verify`
    pub phase: String,
    pub files: u64,
    pub files_total: u64,
    pub bytes: u64,
    pub bytes_total: u64,
    /// Bytes per second.
    pub rate_bytes_s: f64,
    pub eta_s: Option<f64>,
    /// The phase ended: the bar may go.
    pub over: bool,
}

/// Receives what a run has to say. Called from many threads.
pub trait Voice: Send + Sync {
    /// One line about what is happening.
    fn status(&self, text: &str);
    /// Something that needs a person's eye, but does not stop the run.
    fn warn(&self, text: &str);
    /// Data of the script: a finished table or a printed value.
    fn data(&self, text: &str, json: &crate::words::Json);
    fn progress(&self, progress: &Progress);
    /// Shows `plan` and asks; `None` if nobody can be asked.
    fn confirm(&self, plan: &str) -> Option<bool>;
}

/// Says nothing and confirms nothing.
#[derive(Debug, Default)]
pub struct Mute;

impl Voice for Mute {
    fn status(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn data(&self, _: &str, _: &crate::words::Json) {}
    fn progress(&self, _: &Progress) {}
    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }
}
