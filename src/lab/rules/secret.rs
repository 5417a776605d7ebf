//! Secrets: as ConfigMaps, in base64, with types that want certain keys.

use super::Rules;
use super::config_map::{BYTES, frozen, key_problems};
use super::field::{drop_empty, drop_key, entries, fill_text, immutable, set, sub, wrong};
use crate::lab::meta;
use crate::lab::status::Cause;
use crate::lab::store::text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub const RULES: Rules = Rules { default, validate, validate_update, ..super::PLAIN };

fn default(secret: &mut Value) {
    let plain = secret["stringData"].clone();
    for (key, value) in entries(&plain) {
        set(sub(secret, "data"), key, STANDARD.encode(text(value)));
    }
    drop_key(secret, "stringData");
    fill_text(secret, "type", "Opaque");
    drop_empty(secret, &["data", "immutable"]);
}

fn validate(secret: &Value) -> Vec<Cause> {
    let data = &secret["data"];
    let mut causes = Vec::new();
    let mut bytes = 0;
    for (key, value) in entries(data) {
        let field = format!("data[{key}]");
        causes.extend(wrong(&field, key, &key_problems(key)));
        bytes += text(value).len() / 4 * 3;
    }
    if bytes > BYTES {
        causes.push(meta::too_long("data", BYTES));
    }
    let account = "kubernetes.io/service-account.name";
    let keys: &[(&str, &str)] = match text(&secret["type"]) {
        "kubernetes.io/service-account-token" if text(&secret["metadata"]["annotations"][account]).is_empty() => {
            causes.push(Cause::required(format!("metadata.annotations[{account}]"), ""));
            &[]
        }
        "kubernetes.io/dockercfg" => &[(".dockercfg", "data[.dockercfg]")],
        "kubernetes.io/dockerconfigjson" => &[(".dockerconfigjson", "data[.dockerconfigjson]")],
        "kubernetes.io/tls" => &[("tls.crt", "data[tls.crt]"), ("tls.key", "data[tls.key]")],
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            &[("username", "data[%s][username]"), ("password", "data[%s][password]")]
        }
        "kubernetes.io/ssh-auth" => &[("ssh-privatekey", "data[%s][ssh-privatekey]")],
        _ => &[],
    };
    for (key, field) in keys {
        if data[*key].is_null() {
            causes.push(Cause::required(*field, ""));
        }
    }
    causes
}

fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if new["type"] != old["type"] {
        causes.push(immutable("type", &new["type"]));
    }
    causes.extend(frozen(new, old, &["data"]));
    causes
}

/// Whether a text is base64.
pub fn is_base64(text: &str) -> bool {
    STANDARD.decode(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_base64() {
        assert!(is_base64("") && is_base64("YQ==") && !is_base64("###") && !is_base64("YQ") && !is_base64("Y==="));
    }
}
