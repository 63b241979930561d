//! `GET /metrics` for Prometheus, on a listener of its own.

mod exposition;
mod host_header;
mod page;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::bounded_listener::{self, AsyncAnswer};
use super::status::watched::Watched;
use crate::config::domain_name::DomainName;
use crate::process::message::say;
use host_header::AskedHosts;

/// The path of the metrics.
const PATH: &str = "/metrics";
/// Limit of the bytes read of a request.
const REQUEST: usize = 8192;

/// Why the metrics listener cannot start.
#[derive(Debug, Error)]
#[error(
    "cannot listen at {address} for metrics: {source}; name another address in [metrics], or with --metrics"
)]
pub struct MetricsError {
    /// The address.
    pub address: SocketAddr,
    /// The kernel's reason.
    pub source: io::Error,
}

/// The listener; it answers until it is dropped.
#[derive(Debug)]
pub struct MetricsListener {
    address: SocketAddr,
    task: JoinHandle<Infallible>,
}

impl MetricsError {
    /// Fails if nothing can listen at `address`, which is free again after the call.
    pub async fn check(address: SocketAddr) -> Result<(), Self> {
        let bound = TcpListener::bind(address).await;
        bound
            .map(drop)
            .map_err(|source| MetricsError { address, source })
    }
}

impl MetricsListener {
    /// Listens at `address` and answers requests that use an address or one of `names`. Warns
    /// if other hosts can connect, since the metrics name users and keys.
    pub async fn start(
        address: SocketAddr,
        names: &[DomainName],
        watched: Arc<Watched>,
    ) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().to_canonical().is_loopback() {
            say(format_args!(
                "warning: the metrics at {address} show users and keys to every host that can connect to it"
            ));
        }
        let metrics = Metrics {
            hosts: Arc::new(AskedHosts::new(names)),
            watched,
        };
        let task = tokio::spawn(bounded_listener::serve(listener, metrics));
        Ok(Self { address, task })
    }

    /// Stops the listener, and waits until its address is free.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Metrics {
    hosts: Arc<AskedHosts>,
    watched: Arc<Watched>,
}

impl AsyncAnswer<(TcpStream, SocketAddr)> for Metrics {
    fn answer(
        &self,
        (stream, _): (TcpStream, SocketAddr),
    ) -> impl Future<Output = ()> + Send + 'static {
        let (hosts, watched) = (Arc::clone(&self.hosts), Arc::clone(&self.watched));
        let service = service_fn(move |request| {
            let response = respond(&request, &hosts, &watched);
            async move { Ok::<_, Infallible>(response) }
        });
        async move {
            let served = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(REQUEST)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a request for metrics was not answered");
            }
        }
    }
}

fn respond<B>(
    request: &Request<B>,
    hosts: &AskedHosts,
    watched: &Watched,
) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if !hosts.permit(request) {
        let text =
            "the request does not name this host; add the name to [metrics] names in serve.toml\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    // hyper leaves out the body of an answer to HEAD.
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let mut response = Response::new(Full::from(page::render(watched, Instant::now())));
    let kind = HeaderValue::from_static(exposition::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
