//! The one form of errors: what the client is told, and what the log is told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use overstory_runtime::program::chain;
use overstory_store::StoreError;
use serde::Serialize;

/// What a client may do about an answer of 503: come back after this many seconds.
const RETRY_AFTER_S: u32 = 5;

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<u32>,
    allow: Option<String>,
    log: Option<String>,
}

#[derive(Debug, Serialize)]
enum ErrorBody {
    #[serde(rename = "error")]
    Message(Cow<'static, str>),
    #[serde(rename = "errors")]
    Fields(BTreeMap<String, String>),
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let body = ErrorBody::Message(message.into());
        Self { status, body, retry_after: None, allow: None, log: None }
    }

    /// 400 with a sentence about the whole request.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 with a sentence for each wrong parameter or field.
    pub fn fields(errors: BTreeMap<String, String>) -> Self {
        let body = ErrorBody::Fields(errors);
        Self { status: StatusCode::BAD_REQUEST, body, retry_after: None, allow: None, log: None }
    }

    /// 401: who is it?
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized")
    }

    /// 403: the caller may not do that; `permission` goes to the log.
    pub fn forbidden(permission: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden").log(format!("permission {permission} is missing"))
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found")
    }

    /// 405 with the methods there are.
    pub fn method_not_allowed(allow: String) -> Self {
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed") }
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")
    }

    /// 409: not possible in the present state.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body has more than {limit} bytes"))
    }

    /// 415: the body's type is not one of `expected`.
    pub fn unsupported_media_type(expected: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("The body has to be {expected}"))
    }

    /// 429: too many attempts; the next one counts after `seconds`.
    pub fn too_many_attempts(seconds: u32) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many failed logins, try again later");
        Self { retry_after: Some(seconds.max(1)), ..error }
    }

    /// 500; `log` is not shown to the client.
    pub fn internal(log: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error").log(log)
    }

    /// 502: what the answer is made from is set up wrongly, so that trying again does not help; `log` is not shown to the
    /// client.
    pub fn bad_gateway(what: impl Into<Cow<'static, str>>, log: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, what).log(log)
    }

    /// 503: `what` cannot be used now; `log` is not shown to the client.
    pub fn unavailable(what: impl Into<Cow<'static, str>>, log: impl fmt::Display) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, what).log(log);
        Self { retry_after: Some(RETRY_AFTER_S), ..error }
    }

    fn log(mut self, log: impl fmt::Display) -> Self {
        self.log = Some(log.to_string());
        self
    }

    /// What the log is told besides the status, if anything.
    pub fn log_message(&self) -> Option<&str> {
        self.log.as_deref()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let log = chain(&error);
        match error {
            StoreError::Full(_) => Self::unavailable("The disk is full", log),
            error if error.is_retryable() => Self::unavailable("The store is not available", log),
            StoreError::Conflict(_) => Self::conflict("Conflicts with what is stored").log(log),
            _ => Self::internal(log),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            ErrorBody::Message(message) => f.write_str(message),
            ErrorBody::Fields(fields) => {
                let mut first = true;
                for (field, message) in fields {
                    write!(f, "{}{field}: {message}", if first { "" } else { ", " })?;
                    first = false;
                }
                Ok(())
            }
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Not Basic: browsers would ask for a password in a window of their own.
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        response.json(&self.body)
    }
}
