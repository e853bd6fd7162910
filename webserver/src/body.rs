//! Reading bodies: bounded in size and in time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest, web};
use futures_util::Stream;
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

/// A chunked body that is kept until its answer is sent.
///
/// The HTTP library reads on, without a limit of time, what is left of a chunked body that nobody holds any more; of one
/// that is still held it closes the connection after the answer, within its disconnect timeout.
#[derive(Clone)]
pub(crate) struct Held(Rc<RefCell<Payload>>);

impl Stream for Held {
    type Item = Result<web::Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}

/// An answer's body that holds the request's.
struct HoldingBody {
    body: BoxBody,
    _held: Held,
}

impl MessageBody for HoldingBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// Takes hold of the body of a request that does not say how long it is.
pub(crate) fn hold(request: &mut ServiceRequest) -> Option<Held> {
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let held = Held(Rc::new(RefCell::new(request.take_payload())));
    request.set_payload(Payload::Stream { payload: Box::pin(held.clone()) });
    Some(held)
}

/// Lets go of it after the answer: after its head when that is all, else after its body.
pub(crate) fn hold_until_answered(mut response: ServiceResponse<BoxBody>, held: Held) -> ServiceResponse<BoxBody> {
    response.response_mut().extensions_mut().insert(held.clone());
    response.map_body(|_, body| BoxBody::new(HoldingBody { body, _held: held }))
}
