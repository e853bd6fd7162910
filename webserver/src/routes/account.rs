//! Logging in and out.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Identity;
use crate::body::{self, BodyKind};
use crate::error::ApiError;
use crate::openapi::{ErrorBody, FieldErrors};
use crate::state::AppState;

/// A name and its password.
#[derive(Deserialize, ToSchema)]
pub struct LoginRequest {
    /// The account.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
}

/// A session.
#[derive(Serialize, ToSchema)]
pub struct LoginAnswer {
    /// Send it as `Authorization: Bearer`; it means nothing to anybody but this server.
    pub access_token: String,
}

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The account.
    #[serde(rename = "_id")]
    pub id: String,
    /// The same.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// What they allow: create 8, read 4, update 2, delete 1, or 1 for "can".
    pub permissions: BTreeMap<String, u8>,
}

#[utoipa::path(post, path = "/api/v4/login", tag = "account", summary = "Open a session", security(()),
    request_body = LoginRequest,
    responses((status = 200, description = "The session's token", body = LoginAnswer),
        (status = 400, description = "A field is missing or the body is malformed", body = FieldErrors),
        (status = 401, description = "Wrong name or password", body = ErrorBody),
        (status = 429, description = "Too many failed logins; Retry-After says when to try again", body = ErrorBody),
        (status = 503, description = "Too many logins at a time, or the store is away", body = ErrorBody)))]
pub(super) async fn login(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let time = state.settings.body_timeout;
    let login = match body::kind(&request) {
        BodyKind::Json => body::json::<LoginRequest>(&request, payload, time).await?,
        BodyKind::Form => {
            let bytes = body::read(&request, payload, body::SMALL_BODY_BYTES, time).await?;
            let text = std::str::from_utf8(&bytes).map_err(|_| ApiError::bad_request("The form is malformed"))?;
            let form = web::Query::<LoginRequest>::from_query(text);
            form.map_err(|_| ApiError::bad_request("The form is malformed"))?.into_inner()
        }
        BodyKind::Other => {
            return Err(ApiError::unsupported_media_type("application/json or application/x-www-form-urlencoded"));
        }
    };
    let mut missing = BTreeMap::new();
    for (name, value) in [("username", &login.username), ("password", &login.password)] {
        if value.as_ref().is_none_or(String::is_empty) {
            missing.insert(name.to_owned(), "Field is missing.".to_owned());
        }
    }
    let (Some(name), Some(password), true) = (login.username, login.password, missing.is_empty()) else {
        return Err(ApiError::fields(missing));
    };
    let address = request.peer_addr().map(|address| address.ip());
    let access_token = state.auth.login(&name, &password, address).await?;
    Ok(HttpResponse::Ok().json(LoginAnswer { access_token }))
}

#[utoipa::path(post, path = "/api/v4/logout", tag = "account", summary = "End the session",
    responses((status = 204, description = "It has ended; credentials of another kind stay valid"),
        (status = 401, description = "No or wrong credentials", body = ErrorBody)))]
pub(super) async fn logout(
    state: web::Data<AppState>,
    identity: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    state.auth.logout(&identity).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[utoipa::path(get, path = "/logout", tag = "account", summary = "End the session, by its older address",
    responses((status = 204, description = "It has ended"),
        (status = 401, description = "No or wrong credentials", body = ErrorBody)))]
pub(super) async fn logout_by_get(
    state: web::Data<AppState>,
    identity: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    logout(state, identity).await
}

#[utoipa::path(get, path = "/api/v4/account/me", tag = "account", summary = "Who is calling",
    responses((status = 200, description = "The caller", body = Me),
        (status = 401, description = "No or wrong credentials", body = ErrorBody)))]
pub(super) async fn me(identity: web::ReqData<Identity>) -> HttpResponse {
    let account = &identity.account;
    HttpResponse::Ok().json(Me {
        id: account.name.clone(),
        name: account.name.clone(),
        roles: account.roles.clone(),
        permissions: account.permissions.clone(),
    })
}
