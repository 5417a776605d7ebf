//! What a process said and how it ended, and the judgements that a test passes on it.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Mutex;

/// What a process said, kept for the report of a failure.
pub struct Talk {
    pub command: String,
    pub pid: u32,
    pub stdout: Mutex<Vec<u8>>,
    pub stderr: Mutex<Vec<u8>>,
    pub ended: Mutex<Option<ExitStatus>>,
}

/// How a process ended.
#[must_use = "an outcome is to be judged: .succeeds(), .exits(code)"]
#[derive(Clone)]
pub struct Outcome {
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

impl Talk {
    pub fn outcome(&self) -> Outcome {
        let status = *self.ended.lock().unwrap();
        Outcome {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stdout: lossy(&self.stdout),
            stderr: lossy(&self.stderr),
            command: self.command.clone(),
        }
    }
}

impl Outcome {
    #[track_caller]
    pub fn succeeds(self) -> Outcome {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Outcome {
        assert!(self.code == Some(code), "expected exit code {code}: {self}");
        self
    }

    /// On stdout or stderr.
    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(found, "expected it to say {text:?}: {self}");
        self
    }

    #[track_caller]
    pub fn does_not_say(self, text: &str) -> Outcome {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!found, "expected it not to say {text:?}: {self}");
        self
    }

    /// Ends a chain of judgements.
    pub fn done(self) {}
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { code, signal, stdout, stderr, command } = self;
        write!(f, "{command}\nexit code {code:?}, signal {signal:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub fn lossy(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}
