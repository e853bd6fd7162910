//! What happens around every request: its id, the access log, counters, security headers, authentication, panics.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use futures_util::FutureExt;
use overstory_model::ids::random_id;

use crate::auth::Identity;
use crate::body;
use crate::error::ApiError;
use crate::routes::Access;
use crate::state::AppState;

/// Ties an answer to its line in the log. A client may send its own.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// The longest path that is logged, in bytes.
const MAX_LOGGED_PATH_BYTES: usize = 256;
/// Routes that probes ask all the time; they are logged at debug level.
const QUIET: [&str; 2] = ["/healthz", "/readyz"];

/// Wraps the whole application.
pub(crate) async fn observe(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let state = request.app_data::<web::Data<AppState>>().cloned();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = logged_path(request.path());
    let route = request.match_pattern();
    let address = peer(&request);
    if let Some(state) = &state {
        state.ports.metrics.in_flight.inc();
    }
    let held = body::hold(&mut request);
    let mut response = next.call(request).await;
    let (status, log, account) = match &response {
        Ok(response) => {
            let error = response.response().error().and_then(|error| error.as_error::<ApiError>());
            let log = error.and_then(ApiError::log_message).map(str::to_owned);
            let account = response.request().extensions().get::<Identity>().map(|i| i.account.name.clone());
            (response.status(), log, account)
        }
        Err(error) => (error.as_response_error().status_code(), Some(error.to_string()), None),
    };
    if let Some(state) = &state {
        state.ports.metrics.in_flight.dec();
        // A path that matches no route is made up by the client; so may be a method.
        let route = route.as_deref().unwrap_or("none");
        let labels = [route, method_label(&method), status.as_str()];
        state.ports.metrics.requests.with_label_values(&labels).inc();
        state.ports.metrics.seconds.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    }
    let milliseconds = started.elapsed().as_millis();
    let (status_code, address) = (status.as_u16(), address.map(tracing::field::display));
    if status.is_server_error() {
        tracing::error!(%method, path, status = status_code, milliseconds, address, account, id, log, "request failed");
    } else if QUIET.contains(&path.as_str()) {
        tracing::debug!(%method, path, status = status_code, milliseconds, address, account, id, log, "request");
    } else {
        tracing::info!(%method, path, status = status_code, milliseconds, address, account, id, log, "request");
    }
    if let Ok(response) = &mut response {
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    match held {
        Some(held) => response.map(|response| body::hold_until_answered(response, held)),
        None => response,
    }
}

/// Wraps a route: lets in who may, and turns whatever goes wrong inside into an answer.
pub(crate) async fn guard(
    access: Access,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let http = request.request().clone();
    let answer = AssertUnwindSafe(async {
        authorise(access, &request).await?;
        next.call(request).await
    });
    Ok(match answer.catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => ServiceResponse::from_err(error, http),
        Err(_) => ServiceResponse::from_err(ApiError::internal("a handler panicked"), http),
    })
}

async fn authorise(access: Access, request: &ServiceRequest) -> Result<(), ApiError> {
    if access == Access::Public {
        return Ok(());
    }
    let state = request.app_data::<web::Data<AppState>>().ok_or_else(|| ApiError::internal("no state"))?;
    let identity = state.auth.identify(request.headers(), request.query_string(), peer(request)).await?;
    // Kept even when the next line refuses: the access log names who was refused.
    request.extensions_mut().insert(identity.clone());
    match access {
        Access::Public | Access::Authenticated => Ok(()),
        Access::Permission(name, bits) => identity.require(name, bits),
    }
}

/// The address of the peer; what proxies claim is not believed.
fn peer(request: &ServiceRequest) -> Option<IpAddr> {
    request.peer_addr().map(|address| address.ip())
}

fn request_id(request: &ServiceRequest) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match given {
        Some(id) if (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(fine) => id.to_owned(),
        _ => random_id(),
    }
}

/// Without the query, which may hold a key.
fn logged_path(path: &str) -> String {
    path.get(..path.floor_char_boundary(MAX_LOGGED_PATH_BYTES)).unwrap_or_default().to_owned()
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Answers where no route is.
pub(crate) async fn nowhere() -> Result<&'static str, ApiError> {
    Err(ApiError::not_found())
}
