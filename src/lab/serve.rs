//! The port: HTTPS on loopback for kubectl and everybody else, with a token.
//!
//! TLS, because kubectl sends no token without it. The certificate is made anew for each start and is in the kubeconfig.

use super::Lab;
use super::access::User;
use super::core::Core;
use super::http::{self, Response};
use super::status::Status;
use ::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Bodies that are larger are not read to their end.
const BODY_MAX: usize = 4 << 20;

/// A port that is open.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
    identity: Identity,
}

/// Who the server is, and whom it lets in: the same after it was closed and opened again.
#[derive(Clone)]
pub struct Identity {
    tls: TlsAcceptor,
    certificate: String,
    /// Of the one who may do everything.
    token: String,
}

impl Port {
    /// Opens the port; 0 takes any that is free.
    ///
    /// # Errors
    /// If it is taken.
    pub async fn open(port: u16) -> io::Result<Port> {
        Port::open_as(port, Identity::new()?).await
    }

    /// The same with a certificate and a token that clients know already.
    pub async fn open_as(port: u16, identity: Identity) -> io::Result<Port> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        Ok(Port { listener, address, identity })
    }

    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What kubectl needs to know.
    pub fn kubeconfig(&self) -> String {
        use base64::Engine;
        let certificate = base64::engine::general_purpose::STANDARD.encode(&self.identity.certificate);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab", "preferences": {},
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": certificate,
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "users": [{"name": "lab", "user": {"token": self.identity.token}}],
        });
        format!("{config:#}\n")
    }

    /// Writes the kubeconfig for its owner only.
    pub fn write_kubeconfig(&self, path: &Path) -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let fresh = path.with_added_extension("new");
        // A file of an earlier try may have another mode.
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(self.kubeconfig().as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&fresh, path)
    }

    /// Answers until it is dropped.
    pub async fn serve(self, lab: &Lab) -> io::Result<Infallible> {
        // Ended with this future: nobody is answered by a lab that is gone.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = self.listener.accept().await;
            while connections.try_join_next().is_some() {}
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                // Too many open files, or a client that went away: not the end of the others.
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let (identity, core) = (self.identity.clone(), lab.core().clone());
            connections.spawn(async move {
                let stream = match identity.tls.accept(stream).await {
                    Ok(stream) => stream,
                    Err(error) => return tracing::debug!("TLS: {error}"),
                };
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (core, token) = (core.clone(), identity.token.clone());
                    async move {
                        linger(core.pace()).await;
                        let response = match user(&request, &token, &core) {
                            Ok(user) => match whole(request).await {
                                Ok(request) => http::answer(&core, &user, request).await,
                                Err(status) => http::failure(&status),
                            },
                            Err(status) => http::failure(&status),
                        };
                        Ok::<Response, Infallible>(response)
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!("a connection ended: {error}");
                }
            });
        }
    }
}

impl Identity {
    fn new() -> io::Result<Identity> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let token = uuid::Uuid::new_v4().simple().to_string();
        let tls = TlsAcceptor::from(Arc::new(config));
        Ok(Identity { tls, certificate: made.cert.pem(), token })
    }
}

#[expect(clippy::disallowed_methods, reason = "to take time is what was asked for")]
async fn linger(pace: std::time::Duration) {
    if !pace.is_zero() {
        tokio::time::sleep(pace).await;
    }
}

/// Who asks.
fn user(request: &Request<Incoming>, admin: &str, core: &Core) -> Result<User, Status> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let user = match text("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or_default()) {
        None => User::anonymous(),
        Some(token) if token == admin => User::admin(),
        Some(token) => core
            .look(|state| super::act::tokens::account(state, token))
            .map(|(namespace, name)| User::account(&namespace, &name))
            .ok_or_else(|| Status::new(401, "Unauthorized", "Unauthorized"))?,
    };
    let Some(other) = text("impersonate-user") else { return Ok(user) };
    if !user.is_master() {
        let message = format!(
            "users \"{other}\" is forbidden: User \"{}\" cannot impersonate resource \"users\" in API group \"\" at the \
             cluster scope",
            user.name
        );
        return Err(Status::new(403, "Forbidden", message));
    }
    let groups = request.headers().get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    Ok(User::named(other, groups))
}

async fn whole(request: Request<Incoming>) -> Result<Request<Bytes>, Status> {
    let (parts, body) = request.into_parts();
    let bytes = Limited::new(body, BODY_MAX)
        .collect()
        .await
        .map_err(|_| Status::new(413, "RequestEntityTooLarge", "limit is 3145728"))?
        .to_bytes();
    Ok(Request::from_parts(parts, bytes))
}
