//! `fieldValidation`: what happens to fields that there are not. 1.20 drops them and says nothing; clients that know the
//! parameter, which came later, are answered as by servers that know it too.

use super::{Request, Verb, bad_option};
use crate::lab::rules::known;
use crate::lab::status::{Cause, Status};
use serde_json::{Value, json};

/// Looks at an object as it was sent, or as a patch left it, and returns what to warn of.
///
/// # Errors
/// `Strict` and a field that is not known.
pub fn unknown_fields(request: &Request, sent: &Value) -> Result<Vec<String>, Status> {
    let wish = request.query.get("fieldValidation").map_or("", String::as_str);
    if matches!(wish, "" | "Ignore") {
        return Ok(Vec::new());
    }
    if !matches!(wish, "Warn" | "Strict") {
        let options = match request.verb {
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            _ => "PatchOptions",
        };
        let supported = ["Ignore", "Strict", "Warn"];
        return Err(bad_option(options, Cause::unsupported("fieldValidation", &wish.into(), &supported)));
    }
    let said: Vec<String> =
        known::unknown(request.kind, sent).iter().map(|path| format!("unknown field \"{path}\"")).collect();
    if wish == "Warn" || said.is_empty() {
        return Ok(said);
    }
    let why = format!("strict decoding error: {}", said.join(", "));
    if matches!(request.verb, Verb::Patch(_)) {
        let detail = format!("Invalid value: \"{}\": {why}", request.body);
        let cause = json!({"reason": "FieldValueInvalid", "message": detail, "field": "patch"});
        return Err(Status::new(422, "Invalid", format!(" \"\" is invalid: patch: {detail}"))
            .details(json!({"causes": [cause]})));
    }
    let (kind, version) = (request.kind.kind, request.kind.version);
    Err(Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}")))
}
