//! A server to ask: any base address with a token or certificates. Knows HTTP and no kinds.

use http::{Method, Request};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[derive(Clone)]
pub struct Server {
    client: kube::Client,
    /// What the stories may name, as `<word>`: `class` (provisions at once, policy Delete), `late` (provisions for the
    /// first consumer), `provisioner`, `agent` (the image of the test agent), `dir` (a directory of the nodes).
    pub words: BTreeMap<String, String>,
    /// Put on all that stories make outside of their namespace, and on the namespace, so that it can be swept.
    pub labels: Value,
    /// How long a condition may take to come.
    pub patience: Duration,
    /// How long nothing must change until a server is believed to be at rest.
    pub rest: Duration,
}

/// One answer, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub code: u16,
    pub content: String,
    pub retry_after: Option<String>,
    pub body: Vec<u8>,
}

/// What is sent beside method and path.
#[derive(Debug, Clone, Default)]
pub struct Letter {
    pub content: String,
    pub accept: Option<String>,
    pub user: Option<String>,
    pub body: Vec<u8>,
}

impl Server {
    /// From a kubeconfig file.
    pub async fn of(kubeconfig: &Path, words: &[(&str, &str)], labels: Value) -> Server {
        let read = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
        Self::with(config.expect("the kubeconfig is right"), words, labels)
    }

    /// It never asks twice: a 503 is an answer too.
    fn with(mut config: Config, words: &[(&str, &str)], labels: Value) -> Server {
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client can be made");
        let words = words.iter().map(|(word, value)| ((*word).to_owned(), (*value).to_owned())).collect();
        Server { client, words, labels, patience: Duration::from_secs(30), rest: Duration::from_secs(3) }
    }

    pub async fn send(&self, method: &str, path: &str, letter: Letter) -> Raw {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(method.clone()).uri(path);
        if !letter.content.is_empty() {
            request = request.header("Content-Type", &letter.content);
        }
        if let Some(accept) = &letter.accept {
            request = request.header("Accept", accept);
        }
        if let Some(user) = &letter.user {
            request = request.header("Impersonate-User", user);
        }
        let request = request.body(Body::from(letter.body)).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let whole = async {
            let answer = self.client.send(request).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
            let (head, body) = answer.into_parts();
            let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let content = header("content-type").unwrap_or_default();
            let (code, retry_after) = (head.status.as_u16(), header("retry-after"));
            let body = body.collect_bytes().await.unwrap_or_else(|e| panic!("{method} {path}: {e}")).to_vec();
            Raw { code, content, retry_after, body }
        };
        let limited = tokio::time::timeout(Duration::from_secs(60), whole).await;
        limited.unwrap_or_else(|_| panic!("{method} {path}: no whole answer in 60 s"))
    }

    /// With a JSON body; PATCH is a merge patch. Code and body, for the harness itself.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let raw = self.send(method, path, Letter { content: content.to_owned(), accept: None, user: None, body }).await;
        (raw.code, serde_json::from_slice(&raw.body).unwrap_or_default())
    }
}
