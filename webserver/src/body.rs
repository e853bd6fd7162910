//! Reading bodies: bounded in size and in time.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The largest body of a route that does not take events, in bytes.
pub(crate) const SMALL_BODY_BYTES: usize = 64 * 1024;

/// What the `Content-Type` says; a body without one is taken for JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// `application/json` and everything that ends in `+json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Anything else.
    Other,
}

/// Tells what kind of body a request says it has.
pub(crate) fn kind(request: &HttpRequest) -> BodyKind {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else { return BodyKind::Json };
    let value = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match value.as_str() {
        "application/x-www-form-urlencoded" => BodyKind::Form,
        "application/json" => BodyKind::Json,
        other if other.starts_with("application/") && other.ends_with("+json") => BodyKind::Json,
        _ => BodyKind::Other,
    }
}

/// Reads a body of at most `limit` bytes that arrives within `time`.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
    time: Duration,
) -> Result<web::Bytes, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    match tokio::time::timeout(time, payload.to_bytes_limited(limit)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Ok(Err(_))) => Err(ApiError::bad_request("The body could not be read")),
        Ok(Err(_)) => Err(ApiError::too_large(limit)),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

/// Reads a small JSON document.
pub(crate) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
    time: Duration,
) -> Result<T, ApiError> {
    if kind(request) != BodyKind::Json {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    let bytes = read(request, payload, SMALL_BODY_BYTES, time).await?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("The body is malformed: {error}")))
}
