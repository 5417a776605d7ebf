//! What a request wants to get and what it brings: the Accept and Content-Type headers. Pure.
//!
//! The lab speaks JSON only. A clause that asks for something else is passed over, as Kubernetes passes over what it does
//! not know; if none is left the answer is 406.

/// The shape of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Plain JSON.
    Json,
    /// `Table` of meta.k8s.io in this version.
    Table(&'static str),
    /// `PartialObjectMetadata` (of an object) or `PartialObjectMetadataList` (of a list) in this version.
    Partial {
        /// `v1` or `v1beta1`.
        version: &'static str,
        /// Whether the list form was asked for; the other one is a 406, see [`wrong_partial`].
        list: bool,
    },
    /// `APIGroupDiscoveryList` in version v2; only asked for on `/api` and `/apis`.
    AggregatedDiscovery,
}

/// What the path can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Objects and lists: tables and partial metadata too.
    Objects,
    /// `/api` and `/apis`.
    DiscoveryRoots,
    /// Everything else.
    Plain,
}

/// The text of a 406 when a media type is known but not in the wanted shape.
pub const NOT_ACCEPTABLE: &str = "only the following media types are accepted: application/json";
/// The text of a 406 when nothing that is wanted is a media type of Kubernetes; its Status has empty `details`.
pub const UNKNOWN_MEDIA: &str = "406: Not Acceptable";
/// The text of a 415 for a body that is no patch.
pub const UNSUPPORTED_BODY: &str =
    "the body of the request was in an unknown format - accepted media types include: application/json";
/// The same for what kubectl from 1.32 on sends when it makes an object itself, with what to do about it.
pub const PROTOBUF_BODY: &str = "the body of the request was in an unknown format - accepted media types include: \
     application/json (the lab does not simulate protobuf: add --dry-run=client -o yaml, and send that with kubectl \
     create -f -)";
/// The text of a 415 for a patch.
pub const UNSUPPORTED_PATCH: &str = "415: Unsupported Media Type";

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MEDIA_OF_KUBERNETES: [&str; 5] = ["application/json", "*/*", "application/yaml", PROTOBUF, "application/cbor"];

struct Clause<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> =
                parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect();
            let quality =
                parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
            Clause { media, quality, parameters }
        })
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// What to answer.
///
/// # Errors
/// The text of the 406.
pub fn accept(header: Option<&str>, offer: Offer) -> Result<Answer, &'static str> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(Answer::Json);
    }
    let clauses = clauses(header);
    let known = clauses.iter().any(|clause| MEDIA_OF_KUBERNETES.contains(&clause.media));
    let refused = if known { NOT_ACCEPTABLE } else { UNKNOWN_MEDIA };
    clauses.iter().find_map(|clause| shape(clause, offer)).ok_or(refused)
}

fn shape(clause: &Clause<'_>, offer: Offer) -> Option<Answer> {
    if !["application/json", "*/*"].contains(&clause.media) || clause.quality <= 0.0 {
        return None;
    }
    let parameter = |name: &str| clause.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| *value);
    let version = match parameter("v") {
        "v1" => Some("v1"),
        "v1beta1" => Some("v1beta1"),
        _ => None,
    };
    match (offer, parameter("g"), parameter("as"), parameter("v"), version) {
        (_, "", "", "", _) => Some(Answer::Json),
        (Offer::Objects, "meta.k8s.io", "Table", _, Some(version)) => Some(Answer::Table(version)),
        (Offer::Objects, "meta.k8s.io", "PartialObjectMetadata", _, Some(version)) => {
            Some(Answer::Partial { version, list: false })
        }
        (Offer::Objects, "meta.k8s.io", "PartialObjectMetadataList", _, Some(version)) => {
            Some(Answer::Partial { version, list: true })
        }
        (Offer::DiscoveryRoots, "apidiscovery.k8s.io", "APIGroupDiscoveryList", "v2", _) => {
            Some(Answer::AggregatedDiscovery)
        }
        _ => None,
    }
}

/// The text of the 406 when the partial form does not fit what is answered; None if it fits.
#[must_use]
pub fn wrong_partial(wants_list: bool, is_list: bool, kind: &str) -> Option<String> {
    match (wants_list, is_list) {
        (true, false) => Some(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.{kind})"
        )),
        (false, true) => {
            Some(format!("you requested PartialObjectMetadata, but the requested object is a list (*core.{kind}List)"))
        }
        _ => None,
    }
}

/// The Content-Type of an answer.
#[must_use]
pub const fn content_type(answer: &Answer) -> &'static str {
    match answer {
        // Clients look at these parameters to know that they got what they asked for.
        Answer::AggregatedDiscovery => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json",
    }
}

/// What the real server's reader says of a body that is no object; `what` is the value's type.
#[must_use]
pub fn not_an_object(what: &str) -> String {
    format!(
        "json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

/// What the real server's reader says of a text that is no JSON.
#[must_use]
pub fn not_json(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start();
    let word = [("n", "null"), ("t", "true"), ("f", "false")].into_iter().find(|(first, _)| text.starts_with(first));
    if let Some((_, word)) = word {
        let wrong = text.chars().zip(word.chars()).find(|(one, wanted)| one != wanted);
        if let Some((one, wanted)) = wrong {
            return format!("invalid character '{one}' in literal {word} (expecting '{wanted}')");
        }
    }
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Err(error) if !error.is_eof() => {
            let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
            let wrong = line.chars().nth(error.column().saturating_sub(1)).unwrap_or(' ');
            format!("invalid character '{wrong}' looking for beginning of value")
        }
        _ => "unexpected end of JSON input".to_owned(),
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// An object.
    Json,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// Strategic merge patch.
    StrategicMergePatch,
    /// Server-side apply; the body may be YAML.
    ApplyPatch,
}

/// What the body of a write is; `patch` tells PATCH from the other methods.
///
/// # Errors
/// The text of the 415.
pub fn body(header: Option<&str>, patch: bool) -> Result<Body, &'static str> {
    let media = header.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match (patch, media) {
        (false, "" | "application/json" | "*/*") => Ok(Body::Json),
        (false, PROTOBUF) => Err(PROTOBUF_BODY),
        (false, _) => Err(UNSUPPORTED_BODY),
        (true, "application/json-patch+json") => Ok(Body::JsonPatch),
        (true, "application/merge-patch+json") => Ok(Body::MergePatch),
        (true, "application/strategic-merge-patch+json") => Ok(Body::StrategicMergePatch),
        (true, "application/apply-patch+yaml") => Ok(Body::ApplyPatch),
        (true, _) => Err(UNSUPPORTED_PATCH),
    }
}

/// Whether the answer is indented: asked for, or a person's tool asks without saying.
#[must_use]
pub fn pretty(query: Option<&str>, user_agent: &str) -> bool {
    match query {
        Some(value) => !matches!(value, "" | "0" | "f" | "F" | "false" | "FALSE" | "False"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|agent| user_agent.starts_with(agent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        for (header, offer, want) in [
            ("", Offer::Objects, Ok(Answer::Json)),
            ("*/*", Offer::Plain, Ok(Answer::Json)),
            ("application/json, */*", Offer::Objects, Ok(Answer::Json)),
            ("application/vnd.kubernetes.protobuf,application/json", Offer::Objects, Ok(Answer::Json)),
            ("application/vnd.kubernetes.protobuf", Offer::Objects, Err(NOT_ACCEPTABLE)),
            ("application/yaml", Offer::Objects, Err(NOT_ACCEPTABLE)),
            ("text/html", Offer::Objects, Err(UNKNOWN_MEDIA)),
            ("application/*", Offer::Objects, Err(UNKNOWN_MEDIA)),
            ("garbage", Offer::Objects, Err(UNKNOWN_MEDIA)),
            ("application/json;charset=utf-8", Offer::Objects, Ok(Answer::Json)),
            ("application/json;stream=watch", Offer::Objects, Ok(Answer::Json)),
            (table, Offer::Objects, Ok(Answer::Table("v1"))),
            (table, Offer::Plain, Err(NOT_ACCEPTABLE)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Offer::Objects, Ok(Answer::Table("v1beta1"))),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", Offer::Objects, Err(NOT_ACCEPTABLE)),
            ("application/json;as=Table", Offer::Objects, Err(NOT_ACCEPTABLE)),
            ("application/json;v=v1", Offer::Objects, Err(NOT_ACCEPTABLE)),
            ("application/json;as=Foo;v=v1;g=meta.k8s.io,application/json", Offer::Objects, Ok(Answer::Json)),
            ("text/html,application/json;q=0.5", Offer::Objects, Ok(Answer::Json)),
            (aggregated, Offer::DiscoveryRoots, Ok(Answer::AggregatedDiscovery)),
            (old, Offer::DiscoveryRoots, Ok(Answer::Json)),
        ] {
            assert_eq!(accept(Some(header), offer), want, "{header}");
        }
        assert_eq!(accept(None, Offer::Objects), Ok(Answer::Json));
    }

    #[test]
    fn bodies() {
        for (header, patch, want) in [
            (None, false, Ok(Body::Json)),
            (Some("application/json; charset=utf-8"), false, Ok(Body::Json)),
            (Some("application/vnd.kubernetes.protobuf"), false, Err(PROTOBUF_BODY)),
            (Some("application/cbor"), false, Err(UNSUPPORTED_BODY)),
            (Some("application/json-patch+json"), false, Err(UNSUPPORTED_BODY)),
            (Some("application/json"), true, Err(UNSUPPORTED_PATCH)),
            (None, true, Err(UNSUPPORTED_PATCH)),
            (Some("application/merge-patch+json; charset=utf-8"), true, Ok(Body::MergePatch)),
            (Some("application/apply-patch+yaml"), true, Ok(Body::ApplyPatch)),
        ] {
            assert_eq!(body(header, patch), want, "{header:?} {patch}");
        }
    }
}
