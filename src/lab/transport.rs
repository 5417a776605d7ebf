//! The lab as a client's transport: the same requests and answers without a port.

use super::access::User;
use super::core::Core;
use super::http::{self, Body};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A client's way in, cheap to clone; whoever has it may do everything.
#[derive(Clone)]
pub struct Transport {
    pub(super) core: Arc<Core>,
}

impl<B> tower_service::Service<::http::Request<B>> for Transport
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = ::http::Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<B>) -> Self::Future {
        let core = self.core.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.map_err(|e| io::Error::other(e.to_string()))?.to_bytes();
            Ok(http::answer(&core, &User::admin(), ::http::Request::from_parts(parts, bytes)).await)
        })
    }
}
