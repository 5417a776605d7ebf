//! What a request came to, as far as callers branch on it.

use crate::words::{Kind, ObjectRef, Problem};
use std::time::Duration;
use thiserror::Error;

/// What a `Retry-After` is believed at most: a longer one would be a wait without an end.
const BELIEVED: Duration = Duration::from_secs(30);

/// Why a request did not give what was asked for.
#[derive(Debug, Error)]
pub enum Error {
    /// An answer of the API server: it did not do it.
    #[error("the API server answered {code} {reason}")]
    Answer {
        code: u16,
        reason: String,
        message: String,
        /// How long it wants to be left alone, in seconds.
        retry_after: Option<u64>,
    },
    /// No answer, or none that says what happened: the request may have been carried out.
    #[error("{what}")]
    Unknown {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    pub fn unknown(what: impl Into<String>) -> Self {
        Error::Unknown { what: what.into(), source: None }
    }

    /// The HTTP status, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Answer { code, .. } => Some(*code),
            Error::Unknown { .. } => None,
        }
    }

    /// How long the server wants to be left alone, as far as that is believed.
    pub fn pause(&self) -> Duration {
        match self {
            Error::Answer { retry_after: Some(seconds), .. } => Duration::from_secs(*seconds).min(BELIEVED),
            _ => Duration::ZERO,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The API server's own word that the object does not exist; a 404 of anything in between is not.
    pub fn says_not_found(&self) -> bool {
        matches!(self, Error::Answer { code: 404, reason, .. } if reason == "NotFound")
    }

    /// 409: exists already, changed in between, or another uid.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// True if the server certainly did not carry the request out.
    pub fn is_definite(&self) -> bool {
        // 5xx says nothing: a 504 may still be at work, a 500 may come after the commit.
        matches!(self.code(), Some(code) if code < 500)
    }

    /// True if the same read may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self.code() {
            None => true,
            Some(code) => code == 429 || code >= 500,
        }
    }

    /// The failure as a person reads it.
    pub fn problem(&self, doing: &str, object: Option<&ObjectRef>) -> Problem {
        let mut problem = match self {
            Error::Answer { code, reason, message, .. } => {
                let kind = match code {
                    401 | 403 => Kind::Forbidden,
                    404 => Kind::NotFound,
                    409 => Kind::Conflict,
                    429 | 500.. => Kind::Unreachable,
                    _ => Kind::Rejected,
                };
                let mut problem = Problem::new(kind, format!("cannot {doing}"))
                    .code(*code)
                    .quote(format!("the API server answered {code} {reason}: {}", crate::words::names::plain(message)));
                if *code == 403 && !message.contains("admission") && !message.contains("quota") {
                    problem = problem.hint("grant the missing right, then go on");
                }
                if *code == 401 {
                    problem = problem.hint("the credentials of this kubeconfig were not accepted: renew them");
                }
                problem
            }
            Error::Unknown { .. } => Problem::new(Kind::Unreachable, format!("cannot {doing}"))
                .because(self)
                .hint("check that the server of this kubeconfig is reachable: kubectl get --raw /readyz"),
        };
        problem.retryable = self.is_passing();
        if let Some(object) = object {
            problem = problem.object(object);
        }
        problem
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code >= 400 => {
                let retry_after = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
                let (reason, message) = (status.reason.clone(), status.message.clone());
                Error::Answer { code: status.code, reason, message, retry_after: retry_after.filter(|s| *s > 0) }
            }
            other => {
                Error::Unknown { what: "no usable answer from the API server".into(), source: Some(Box::new(other)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_refusals_are_definite() {
        let answer =
            |code| Error::Answer { code, reason: String::new(), message: String::new(), retry_after: Some(3600) };
        for (code, definite, passing, kind) in [
            (400, true, false, Kind::Rejected),
            (401, true, false, Kind::Forbidden),
            (403, true, false, Kind::Forbidden),
            (404, true, false, Kind::NotFound),
            (409, true, false, Kind::Conflict),
            (422, true, false, Kind::Rejected),
            (429, true, true, Kind::Unreachable),
            (500, false, true, Kind::Unreachable),
            (503, false, true, Kind::Unreachable),
            (504, false, true, Kind::Unreachable),
        ] {
            let error = answer(code);
            assert_eq!((error.is_definite(), error.is_passing()), (definite, passing), "{code}");
            assert_eq!(error.problem("x", None).kind, kind, "{code}");
        }
        assert!(!Error::unknown("reset").is_definite());
        assert_eq!((answer(429).pause(), Error::unknown("reset").pause()), (BELIEVED, Duration::ZERO));
    }
}
