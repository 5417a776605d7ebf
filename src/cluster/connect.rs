//! The one way to a cluster: kubeconfig by kubectl's rules, one client stack, reads.
//!
//! Reads are retried here and nowhere else; writes are not retried at all (see `send`). Every request ends within
//! [`REQUEST_S`] seconds, whatever the network does; watches have an idle deadline (see `wait`).

use super::seen::Seen;
use super::{Error, Resource};
use crate::words::{Json, Kind, Problem, clock::Clock};
use http::Request;
use http_body_util::BodyExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// After this many seconds a request without an answer is given up: for a write that means its outcome is unknown.
pub const REQUEST_S: u64 = 30;
/// How long reads are tried again while the server is away.
const READ_PATIENCE: Duration = Duration::from_secs(120);
/// Objects a page.
const PAGE: &str = "500";

/// Where to connect.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

/// A connection, cheap to clone. Reads need nothing; writes need a permit.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    server: String,
    context: String,
    default_namespace: String,
    resources: Mutex<HashMap<String, Option<Resource>>>,
    requests: Requests,
    seen: Seen,
}

/// How many requests were made.
#[derive(Debug, Default)]
pub struct Requests {
    pub reads: AtomicU64,
    pub watches: AtomicU64,
    pub writes: AtomicU64,
    /// Reads that guards made before writes; not in `reads`.
    pub guards: AtomicU64,
    /// Writes of our own records: journals and Leases.
    pub records: AtomicU64,
}

tokio::task_local! {
    /// Set while a guard reads.
    static GUARDING: ();
}

impl Requests {
    /// Counts the reads of `work` as the guards': they serve nothing but safety.
    pub async fn guarding<T>(&self, work: impl Future<Output = T>) -> T {
        GUARDING.scope((), work).await
    }

    fn count_read(&self) {
        let counter = if GUARDING.try_with(|()| ()).is_ok() { &self.guards } else { &self.reads };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connects to the cluster that kubectl would use with the same options.
///
/// # Errors
/// If the kubeconfig cannot be read or has no such context. Nothing is sent.
pub async fn connect(target: &Target) -> Result<Cluster, Problem> {
    let (config, context) = configure(target).await?;
    let server = config.cluster_url.to_string();
    let default_namespace = config.default_namespace.clone();
    let client = kube::Client::try_from(config).map_err(|e| {
        Problem::new(Kind::Usage, "the kubeconfig cannot be used").because(&e).hint("kubectl config view --minify")
    })?;
    Ok(Cluster {
        inner: Arc::new(Inner {
            client,
            server,
            context,
            default_namespace,
            resources: Mutex::default(),
            requests: Requests::default(),
            seen: Seen::default(),
        }),
    })
}

/// The namespace that the kubeconfig's context stands in. Nothing is sent.
///
/// # Errors
/// As [`connect`].
pub async fn default_namespace(target: &Target) -> Result<String, Problem> {
    Ok(configure(target).await?.0.default_namespace)
}

/// A connection over a transport of the caller's, such as an API server in this process. It may do everything.
pub fn over<S, B>(service: S, name: &str) -> Cluster
where
    S: tower_service::Service<Request<kube::client::Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Cluster {
        inner: Arc::new(Inner {
            client: kube::Client::new(service, "default"),
            server: name.to_owned(),
            context: name.to_owned(),
            default_namespace: "default".to_owned(),
            resources: Mutex::default(),
            requests: Requests::default(),
            seen: Seen::default(),
        }),
    }
}

async fn configure(target: &Target) -> Result<(kube::Config, String), Problem> {
    let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
    let unusable = |e: &dyn std::error::Error, path: &str| {
        Problem::usage(format!("the kubeconfig {path} cannot be used")).because(e).hint("kubectl config get-contexts")
    };
    let file = match &target.kubeconfig {
        Some(path) => Some((
            Kubeconfig::read_from(path).map_err(|e| unusable(&e, &path.display().to_string()))?,
            path.display().to_string(),
        )),
        None => match Kubeconfig::read() {
            Ok(file) => Some((file, "of KUBECONFIG or ~/.kube/config".to_owned())),
            Err(e) if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                tracing::debug!("no kubeconfig ({e}): using the pod's service account");
                None
            }
            Err(e) => {
                return Err(unusable(&e, "of KUBECONFIG or ~/.kube/config").hint("name one with --kubeconfig FILE"));
            }
        },
    };
    let (mut config, context) = match file {
        Some((file, path)) => {
            let context = target.context.clone().or_else(|| file.current_context.clone()).unwrap_or_default();
            if let Some(wanted) = &target.context
                && !file.contexts.iter().any(|known| known.name == *wanted)
            {
                let names: Vec<&str> = file.contexts.iter().map(|known| known.name.as_str()).collect();
                let mut problem = Problem::usage(format!("the kubeconfig {path} has no context `{wanted}`"));
                if let Some(word) = crate::words::names::did_you_mean(wanted, names.iter().copied()) {
                    problem = problem.hint(format!("did you mean `{word}`?"));
                }
                return Err(problem.hint(format!("it has: {}", names.join(", "))));
            }
            (kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| unusable(&e, &path))?, context)
        }
        None => {
            let config = kube::Config::incluster()
                .map_err(|e| Problem::usage("the pod's service account cannot be used").because(&e))?;
            (config, "in-cluster".to_owned())
        }
    };
    // kube retries 429, 503 and 504 of every verb by itself; a DELETE that is sent twice may hit a recreated object.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = None;
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(concat!("pvmigrate/", env!("CARGO_PKG_VERSION"))),
    ));
    Ok((config, context))
}

impl Cluster {
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    pub fn context(&self) -> &str {
        &self.inner.context
    }

    pub fn default_namespace(&self) -> &str {
        &self.inner.default_namespace
    }

    pub fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    pub(super) fn client(&self) -> &kube::Client {
        &self.inner.client
    }

    pub(super) fn cached_resource(&self, text: &str) -> Option<Option<Resource>> {
        self.inner.resources.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned()
    }

    pub(super) fn cache_resource(&self, text: &str, found: Option<Resource>) {
        self.inner.resources.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), found);
    }

    /// The identity of the cluster: the uid of `kube-system`. One try: this is the first contact.
    ///
    /// # Errors
    /// If the server is away, or does not let us look.
    pub async fn uid(&self) -> Result<String, Problem> {
        let object = self
            .once("GET", "/api/v1/namespaces/kube-system", &[], Vec::new(), None)
            .await
            .map_err(|e| e.problem(&format!("reach the cluster at {}", self.server()), None))?;
        object["metadata"]["uid"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Problem::new(Kind::Unreachable, format!("{} is not a Kubernetes API server", self.server())))
    }

    /// One GET with retries. An answer that is older than what was seen of the same object before is none.
    pub(super) async fn read(&self, path: &str, query: &[(&str, &str)]) -> Result<Json, Error> {
        self.repeat("GET", path, query, &[]).await
    }

    /// A request that changes nothing, asked again while the server is away or busy.
    async fn repeat(&self, method: &str, path: &str, query: &[(&str, &str)], body: &[u8]) -> Result<Json, Error> {
        let deadline = Clock.deadline(READ_PATIENCE);
        let mut pause = Duration::from_millis(100);
        let content_type = (!body.is_empty()).then_some("application/json");
        loop {
            self.inner.requests.count_read();
            let answer = match self.once(method, path, query, body.to_vec(), content_type).await {
                // The rest of a list is as old as its beginning.
                Ok(answer) if query.iter().any(|(key, _)| *key == "continue") || self.inner.seen.is_news(&answer) => {
                    return Ok(answer);
                }
                Ok(_) => Err(Error::unknown("the API server shows an older state than it did before")),
                Err(e) => Err(e),
            };
            match answer {
                Err(e) if e.is_passing() && deadline.left() > pause.max(e.pause()) => {
                    tracing::debug!("asking {method} {path} again after {e}");
                    super::wait::pause(pause.max(e.pause())).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                other => return other,
            }
        }
    }

    /// What a write or a watch showed: no read may be older.
    pub(super) fn has_seen(&self, object: &Json) {
        self.inner.seen.note(object);
    }

    /// One request, once. The only other callers are `send`, and `keep` for our own records.
    pub(super) async fn once(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Vec<u8>,
        content_type: Option<&str>,
    ) -> Result<Json, Error> {
        tracing::trace!("{method} {}", url(path, query));
        let mut request = Request::builder().method(method).uri(url(path, query));
        if let Some(content_type) = content_type {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(body)
            .map_err(|e| Error::Unknown { what: format!("the path {path} is not valid"), source: Some(Box::new(e)) })?;
        match tokio::time::timeout(Duration::from_secs(REQUEST_S), self.answer(request)).await {
            Err(_) => Err(Error::unknown(format!("no answer from {} within {REQUEST_S} s", self.server()))),
            Ok(answer) => answer,
        }
    }

    /// The answer to one request, whole. Not kube's own way, which drops the header that says when to come back.
    async fn answer(&self, request: Request<Vec<u8>>) -> Result<Json, Error> {
        let (head, body) = self.client().send(request.map(kube::client::Body::from)).await?.into_parts();
        let bytes = body.collect().await?.to_bytes();
        if head.status.is_client_error() || head.status.is_server_error() {
            let header = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let asked = header.and_then(|seconds| seconds.parse().ok());
            let status: Json = match serde_json::from_slice(&bytes) {
                Err(e) if is_json(&head.headers) => return Err(not_json(e)),
                status => status.unwrap_or_default(),
            };
            let is_status = status["kind"] == "Status";
            let said = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
            // What is no Status is a proxy's, or one of the server's filters': its text says what it is.
            let message = if is_status { said("message") } else { String::from_utf8_lossy(&bytes).trim().to_owned() };
            let reason = if is_status { said("reason") } else { String::new() };
            let retry_after = asked.or_else(|| status["details"]["retryAfterSeconds"].as_u64());
            return Err(Error::Answer { code: head.status.as_u16(), reason, message, retry_after });
        }
        serde_json::from_slice(&bytes).map_err(not_json)
    }

    /// Returns the object, or `None` if there is none.
    pub async fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Json>, Error> {
        match self.read(&resource.path(namespace, name), &[]).await {
            Ok(object) => Ok(Some(slim(object))),
            Err(e) if e.says_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns every object that matches, sorted by namespace and name, with the list's resourceVersion. A list that
    /// expires half-way is begun again: nobody acts on half a list.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &[(&str, &str)],
    ) -> Result<(Vec<Json>, String), Error> {
        let path = resource.path(namespace, "");
        'again: for attempt in 1..=5 {
            let mut items = Vec::new();
            let mut token = String::new();
            loop {
                let mut query = query.to_vec();
                query.push(("limit", PAGE));
                if !token.is_empty() {
                    query.push(("continue", &token));
                }
                let mut page = match self.read(&path, &query).await {
                    Err(e) if e.code() == Some(410) => {
                        super::wait::pause((Duration::from_millis(100) * attempt).max(e.pause())).await;
                        continue 'again;
                    }
                    other => other?,
                };
                for mut item in page["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                    // Items of a list do not say what they are.
                    item["apiVersion"] = Value::String(resource.gvk.api_version());
                    item["kind"] = Value::String(resource.gvk.kind.clone());
                    items.push(slim(item));
                }
                let version = page["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
                if token.is_empty() {
                    items.sort_by(|a, b| key(a).cmp(&key(b)));
                    return Ok((items, version));
                }
            }
        }
        Err(Error::unknown(format!("the list of {} expired five times while it was read", resource.plural)))
    }

    /// The objects only.
    pub async fn list_all(&self, resource: &Resource, namespace: &str) -> Result<Vec<Json>, Error> {
        Ok(self.list(resource, namespace, &[]).await?.0)
    }

    /// The last bytes of a container's log.
    pub async fn log_tail(&self, namespace: &str, pod: &str, lines: u32) -> Result<String, Error> {
        let lines = lines.to_string();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log");
        let request = Request::get(url(&path, &[("tailLines", &lines)])).body(Vec::new()).map_err(|e| {
            Error::Unknown { what: "the path of the log is not valid".into(), source: Some(Box::new(e)) }
        })?;
        self.inner.requests.count_read();
        match tokio::time::timeout(Duration::from_secs(REQUEST_S), self.client().request_text(request)).await {
            Err(_) => Err(Error::unknown("no answer for the log")),
            Ok(answer) => Ok(answer?),
        }
    }

    /// A container's log as it grows.
    pub async fn log_stream(&self, namespace: &str, pod: &str) -> Result<impl futures::AsyncBufRead + use<>, Error> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log");
        let request = Request::get(url(&path, &[("follow", "true")])).body(Vec::new()).map_err(|e| Error::Unknown {
            what: "the path of the log is not valid".into(),
            source: Some(Box::new(e)),
        })?;
        self.inner.requests.watches.fetch_add(1, Ordering::Relaxed);
        Ok(self.client().request_stream(request).await?)
    }

    /// Asks whether we may do it.
    pub async fn may(&self, verb: &str, resource: Reviewed<'_>, namespace: &str) -> Result<bool, Error> {
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb, "group": resource.0, "resource": resource.1, "subresource": resource.2, "namespace": namespace,
            }},
        });
        Ok(self.review("selfsubjectaccessreviews", &review).await?["status"]["allowed"] == Value::Bool(true))
    }

    /// An access review changes nothing: it may be asked again like a read.
    pub(super) async fn review(&self, plural: &str, review: &Json) -> Result<Json, Error> {
        let path = format!("/apis/authorization.k8s.io/v1/{plural}");
        self.repeat("POST", &path, &[], review.to_string().as_bytes()).await
    }

    /// Sends a create with `dryRun=All`: the server does everything but keep it.
    pub async fn dry_create(&self, resource: &Resource, namespace: &str, body: &Json) -> Result<(), Error> {
        let query = [("dryRun", "All"), ("fieldManager", "pvmigrate")];
        self.repeat("POST", &resource.path(namespace, ""), &query, body.to_string().as_bytes()).await.map(|_| ())
    }
}

/// Group, plural, subresource.
pub type Reviewed<'a> = (&'a str, &'a str, &'a str);

pub(super) fn url(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (number, (key, value)) in query.iter().enumerate() {
        out.push(if number == 0 { '?' } else { '&' });
        out += key;
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
                _ => out += &format!("%{byte:02X}"),
            }
        }
    }
    out
}

/// What nobody decides by and what nobody should see is dropped: managed fields go, values of Secrets become digests.
pub(super) fn slim(mut object: Json) -> Json {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    if object["kind"] == "Secret" {
        // kubectl apply keeps all of the values a second time.
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        for field in ["data", "stringData"] {
            for value in object[field].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
                let digest = blake3::hash(value.as_str().unwrap_or_default().as_bytes()).to_hex();
                *value = Value::String(format!("blake3:{}", &digest[..16]));
            }
        }
    }
    object
}

fn key(object: &Json) -> (&str, &str) {
    let metadata = &object["metadata"];
    (metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default())
}

/// Whether an answer says of itself that it is JSON: then one that is not was cut off on its way.
fn is_json(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

fn not_json(e: serde_json::Error) -> Error {
    Error::Unknown { what: "the answer of the API server is not JSON".into(), source: Some(Box::new(e)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            url("/api/v1/pods", &[("labelSelector", "a=b,c!=d"), ("limit", "5")]),
            "/api/v1/pods?labelSelector=a%3Db%2Cc%21%3Dd&limit=5"
        );
    }

    #[test]
    fn secrets_are_digested_and_managed_fields_dropped() {
        let seen =
            slim(json!({"kind": "Secret", "metadata": {"managedFields": [], "name": "s"}, "data": {"k": "canary"}}));
        assert!(!seen.to_string().contains("canary"), "{seen}");
        assert_eq!(seen["metadata"], json!({"name": "s"}));
        let applied = "kubectl.kubernetes.io/last-applied-configuration";
        let seen = slim(json!({"kind": "Secret", "metadata": {"annotations": {applied: "canary", "a": "b"}}}));
        assert_eq!(seen["metadata"], json!({"annotations": {"a": "b"}}));
    }
}
