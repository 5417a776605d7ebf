//! Tokens of ServiceAccounts: a Secret for each account, as Kubernetes made them until 1.23.

use super::{Controller, Turn, Write};
use crate::lab::store::{Commit, Key, State, list_of, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub static TOKENS: Controller = Controller { name: "token-controller", wakes, act };

const TYPE: &str = "kubernetes.io/service-account-token";

fn wakes(_: &State, commit: &Commit) -> Vec<Key> {
    if commit.key.kind == "ServiceAccount" { vec![commit.key.clone()] } else { Vec::new() }
}

fn act(state: &State, key: &Key) -> Turn {
    let Some(account) = state.at(key) else { return Turn::rest() };
    let meta = &account["metadata"];
    if !meta["deletionTimestamp"].is_null() || !list_of(&account["secrets"]).is_empty() {
        return Turn::rest();
    }
    let uid = text(&meta["uid"]);
    // The uid is as unguessable as a token must be, and the same account gets the same name again.
    let short: String = uid.chars().filter(char::is_ascii_alphanumeric).rev().take(5).collect();
    let name = format!("{}-token-{short}", key.name);
    let token = STANDARD.encode(token_of(account));
    let owner = json!({"kubernetes.io/service-account.name": key.name, "kubernetes.io/service-account.uid": uid});
    let secret = json!({
        "kind": "Secret", "apiVersion": "v1", "type": TYPE,
        "metadata": {"name": name, "namespace": key.namespace, "annotations": owner},
        "data": {"token": token, "namespace": STANDARD.encode(&key.namespace)},
    });
    let mut new = (**account).clone();
    new["secrets"] = json!([{"name": name}]);
    Turn::of(vec![Write::Create(secret), Write::Update(new)])
}

fn token_of(account: &Value) -> String {
    format!("lab-{}", text(&account["metadata"]["uid"]))
}

/// Namespace and name of the account that a token is of.
pub fn account(state: &State, token: &str) -> Option<(String, String)> {
    let wanted = STANDARD.encode(token);
    let (key, secret) = state
        .list("Secret", "")
        .find(|(_, secret)| secret["type"] == TYPE && secret["data"]["token"] == wanted.as_str())?;
    let name = text(&secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]);
    let account = state.get("ServiceAccount", &key.namespace, name)?;
    (token_of(account) == token).then(|| (key.namespace.clone(), name.to_owned()))
}
