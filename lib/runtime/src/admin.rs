//! The admin listener of a program: `/metrics`, `/healthz`, `/readyz` on a loopback port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::shutdown::Shutdown;

/// So many connections are served at a time; more wait.
const MAX_CONNECTIONS: usize = 32;
/// A request's head arrives within this time or its connection is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What must be in place before a program can do its work. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ready {
    conditions: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Ready {
    /// Makes one that is not ready before each of `conditions` was set.
    #[must_use]
    pub fn new(conditions: &[&'static str]) -> Self {
        let conditions = conditions.iter().map(|name| (*name, false)).collect();
        Self { conditions: Arc::new(Mutex::new(conditions)) }
    }

    /// Says whether `condition` holds now.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, holds);
    }

    /// The conditions that do not hold, none when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter(|(_, holds)| !**holds).map(|(name, _)| *name).collect()
    }
}

/// Serves `listener` until the program ends, so that a program that drains can still be watched.
///
/// `/readyz` answers 503 with the missing conditions while not ready, and while stopping.
pub async fn serve(listener: TcpListener, registry: Registry, ready: Ready, shutdown: Shutdown) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (registry, ready, shutdown) = (registry.clone(), ready.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = answer(&request, &registry, &ready, &shutdown);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended early");
            }
        });
    }
}

/// Listens on `address` and serves in the background.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    registry: Registry,
    ready: Ready,
    shutdown: Shutdown,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address} (admin): {error}")))?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, registry, ready, shutdown));
    Ok(address)
}

fn answer(
    request: &Request<Incoming>,
    registry: &Registry,
    ready: &Ready,
    shutdown: &Shutdown,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(metrics) => text(StatusCode::OK, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if shutdown.is_requested() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        "/readyz" => match ready.missing().as_slice() {
            [] => text(StatusCode::OK, "ready\n".to_owned()),
            missing => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", "))),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn readiness_follows_the_conditions_and_the_wish_to_stop() {
        let (ready, shutdown, registry) = (Ready::new(&["store"]), Shutdown::new(), Registry::new());
        let counter = prometheus::IntCounter::new("overstory_test_total", "help").unwrap();
        registry.register(Box::new(counter)).unwrap();
        let address = start(([127, 0, 0, 1], 0).into(), registry, ready.clone(), shutdown.clone()).await.unwrap();
        assert!(get(address, "/readyz").await.contains("503"));
        assert!(get(address, "/readyz").await.ends_with("waiting for store\n"));
        ready.set("store", true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("overstory_test_total 0"));
        assert!(get(address, "/other").await.contains("404"));
        shutdown.request();
        assert!(get(address, "/readyz").await.ends_with("stopping\n"));
    }
}
