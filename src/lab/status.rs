//! The answer that is no object: code, reason, message and details, as the real server words them.
//!
//! Not a decision: callers say what is wrong, this says it in the API's form. Used by every part of the lab.

use super::kind::Kind;
use serde_json::{Value, json};

/// A `Status` with `status: Failure`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    /// Empty where the real server leaves it out.
    pub reason: &'static str,
    pub message: String,
    /// `details`, if there are any.
    pub details: Option<Value>,
    /// The `Retry-After` header and `details.retryAfterSeconds`, in seconds.
    pub retry_after: Option<u64>,
    /// `metadata.continue` of an expired page.
    pub list_continue: Option<String>,
}

/// One reason of several, in `details.causes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueNotSupported`, `FieldValueDuplicate`, ….
    pub reason: &'static str,
    /// Without the field's path.
    pub message: String,
    /// Path of the field: `spec.accessModes`.
    pub field: String,
}

/// What the lab says of everything it knows of and does not do.
pub const UNSIMULATED: &str = "the lab does not simulate";

impl Cause {
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Cause { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// The value is shown as the real server shows it: strings quoted, numbers and objects as they are.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        let message = format!("Invalid value: {value}: {detail}");
        Cause { reason: "FieldValueInvalid", message, field: field.into() }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl std::fmt::Display) -> Cause {
        Cause { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }

    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Cause {
        let list: Vec<String> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        Cause { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Cause { reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}"), field: field.into() }
    }

    /// A field that changes behaviour and that the lab would silently ignore.
    pub fn unsimulated(field: impl Into<String>, what: impl std::fmt::Display) -> Cause {
        let message = format!("Forbidden: {UNSIMULATED} {what}");
        Cause { reason: "FieldValueForbidden", message, field: field.into() }
    }
}

impl Status {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: None, retry_after: None, list_continue: None }
    }

    #[must_use]
    pub fn details(mut self, details: Value) -> Status {
        self.details = Some(details);
        self
    }

    pub fn not_found(kind: &Kind, name: &str) -> Status {
        Status::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).details(kind.details(name))
    }

    pub fn already_exists(kind: &Kind, name: &str, going: bool) -> Status {
        let before = if going { "object is being deleted: " } else { "" };
        Status::new(409, "AlreadyExists", format!("{before}{} \"{name}\" already exists", kind.qualified()))
            .details(kind.details(name))
    }

    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Status::new(409, "Conflict", message).details(kind.details(name))
    }

    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Status {
        let name_part = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        Status::new(403, "Forbidden", format!("{}{name_part} is forbidden: {why}", kind.qualified()))
            .details(kind.details(name))
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message)
    }

    /// 422 with all causes; at least one is needed.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Status {
        // The message says each once, the causes as often as they came up.
        let mut texts: Vec<String> = Vec::new();
        for one in causes {
            let text = format!("{}: {}", one.field, one.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let all = if let [only] = &texts[..] { only.clone() } else { format!("[{}]", texts.join(", ")) };
        let listed: Vec<Value> = causes
            .iter()
            .map(|one| json!({"reason": one.reason, "message": one.message, "field": one.field}))
            .collect();
        let mut details = json!({});
        for (key, value) in [("name", name), ("group", kind.group), ("kind", kind.kind)] {
            if !value.is_empty() {
                details[key] = value.into();
            }
        }
        details["causes"] = listed.into();
        let full = if kind.group.is_empty() { kind.kind.to_owned() } else { format!("{}.{}", kind.kind, kind.group) };
        Status::new(422, "Invalid", format!("{full} \"{name}\" is invalid: {all}")).details(details)
    }

    /// What the lab knows of and does not do.
    pub fn unsimulated(what: impl std::fmt::Display) -> Status {
        let message = format!("{UNSIMULATED} {what}");
        Status::new(501, "NotImplemented", message.clone())
            .details(json!({"causes": [{"reason": "NotSimulated", "message": message}]}))
    }

    /// As the API sends it.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
        });
        if let Some(token) = &self.list_continue {
            status["metadata"]["continue"] = token[..].into();
        }
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(seconds) = self.retry_after {
            if status["details"].is_null() {
                status["details"] = json!({});
            }
            status["details"]["retryAfterSeconds"] = seconds.into();
        }
        status["code"] = self.code.into();
        status
    }
}
