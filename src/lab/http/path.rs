//! What a path asks for.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Health,
    Version,
    Discovery(String),
    OpenApi(String),
    /// Plural and namespace of an access review.
    Review(String, String),
    Resource(Place),
    Nothing,
}

/// A resource's place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub group: String,
    pub version: String,
    pub plural: String,
    /// Empty: none, or all.
    pub namespace: String,
    pub name: String,
    pub sub: String,
}

pub fn route(path: &str) -> Route {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match &parts[..] {
        ["healthz" | "livez" | "readyz", ..] => Route::Health,
        ["version"] => Route::Version,
        ["openapi", ..] => Route::OpenApi(format!("/{}", parts.join("/"))),
        ["api" | "apis"] | ["api", _] | ["apis", _] | ["apis", _, _] => {
            Route::Discovery(format!("/{}", parts.join("/")))
        }
        ["api", version, rest @ ..] => place("", version, rest),
        ["apis", group, version, rest @ ..] => place(group, version, rest),
        _ => Route::Nothing,
    }
}

fn place(group: &str, version: &str, rest: &[&str]) -> Route {
    let (namespace, rest) = match rest {
        // The namespaces themselves, and their subresources.
        ["namespaces"] => ("", rest),
        ["namespaces", _] if group.is_empty() => ("", rest),
        ["namespaces", _, "status" | "finalize"] if group.is_empty() => ("", rest),
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, sub] => (*plural, *name, *sub),
        _ => return Route::Nothing,
    };
    if group == "authorization.k8s.io" && plural.ends_with("reviews") {
        return Route::Review(plural.to_owned(), namespace.to_owned());
    }
    Route::Resource(Place {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        sub: sub.to_owned(),
    })
}

/// The parameters; of one that comes twice the first.
pub fn query(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        out.entry(decoded(&key.replace('+', " "))).or_insert_with(|| decoded(&value.replace('+', " ")));
    }
    out
}

/// Percent decoding; what is no valid escape stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_places() {
        let told = |path: &str| match route(path) {
            Route::Resource(p) => {
                [p.group, p.version, p.plural, p.namespace, p.name, p.sub].join(" ").trim_end().to_owned()
            }
            other => format!("{other:?}"),
        };
        for (path, wanted) in [
            ("/api/v1/namespaces", " v1 namespaces"),
            ("/api/v1/namespaces/shop", " v1 namespaces  shop"),
            ("/api/v1/namespaces/shop/finalize", " v1 namespaces  shop finalize"),
            ("/api/v1/namespaces/shop/pods", " v1 pods shop"),
            ("/api/v1/namespaces/shop/pods/web-0/log", " v1 pods shop web-0 log"),
            ("/api/v1/pods", " v1 pods"),
            ("/apis/apps/v1/namespaces/shop/deployments/web/scale", "apps v1 deployments shop web scale"),
            ("/api/v1/persistentvolumes/a%20b", " v1 persistentvolumes  a b"),
            ("/apis/apps/v1", "Discovery(\"/apis/apps/v1\")"),
            ("/readyz/ping", "Health"),
            ("/nowhere", "Nothing"),
            ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "Review(\"selfsubjectaccessreviews\", \"\")"),
        ] {
            assert_eq!(told(path), wanted, "{path}");
        }
        let query = query("labelSelector=a%3Db%2Cc&watch=1&x+y=1+2&watch=0");
        assert_eq!(query["labelSelector"], "a=b,c");
        assert_eq!((&query["watch"][..], &query["x y"][..]), ("1", "1 2"));
    }
}
