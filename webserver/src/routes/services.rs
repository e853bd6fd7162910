//! The supervised services.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Identity;
use crate::error::ApiError;
use crate::openapi::ErrorBody;
use crate::state::AppState;
use crate::supervised::{Action, ProcessView, ServiceControl, ServiceError};

/// The longest name of a service, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// How long the answer gets a head start before the web server stops itself.
const HEAD_START: Duration = Duration::from_millis(300);

/// The processes of the services.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProcessListing {
    /// A line for each process.
    pub data: Vec<ProcessView>,
}

/// The state after an action.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActionAnswer {
    /// Whether the action has ended; if not it goes on.
    pub done: bool,
    /// The processes of the service.
    pub data: Vec<ProcessView>,
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Unknown => Self::not_found(),
            ServiceError::Away(log) => Self::unavailable("supervisord does not answer", log),
            ServiceError::Failed(reason) => Self::conflict(reason),
        }
    }
}

#[utoipa::path(get, path = "/api/v4/services", tag = "services", summary = "The supervised services",
    responses((status = 200, description = "The state of every process", body = ProcessListing),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_services is missing", body = ErrorBody),
        (status = 503, description = "supervisord does not answer", body = ErrorBody)))]
pub(super) async fn list(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let services = Arc::clone(&state.ports.services);
    let data = state.shared.run("supervisord does not answer", async move { services.list().await }).await??;
    Ok(HttpResponse::Ok().json(ProcessListing { data }))
}

#[utoipa::path(put, path = "/api/v4/services/{name}/start", tag = "services", summary = "Start a service",
    params(("name" = String, Path, description = "A service, or one of its processes as service:process")),
    responses((status = 200, description = "It runs", body = ActionAnswer),
        (status = 202, description = "It is being started", body = ActionAnswer),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_services is missing", body = ErrorBody),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "It failed: why", body = ErrorBody),
        (status = 503, description = "supervisord does not answer", body = ErrorBody)))]
pub(super) async fn start(
    name: web::Path<String>,
    state: web::Data<AppState>,
    caller: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    act(&state, &caller, name.into_inner(), Action::Start).await
}

#[utoipa::path(put, path = "/api/v4/services/{name}/stop", tag = "services", summary = "Stop a service",
    params(("name" = String, Path, description = "A service, or one of its processes as service:process")),
    responses((status = 200, description = "It is stopped", body = ActionAnswer),
        (status = 202, description = "It is being stopped; the web server itself is stopped after this answer", body = ActionAnswer),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_services is missing", body = ErrorBody),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "It failed: why", body = ErrorBody),
        (status = 503, description = "supervisord does not answer", body = ErrorBody)))]
pub(super) async fn stop(
    name: web::Path<String>,
    state: web::Data<AppState>,
    caller: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    act(&state, &caller, name.into_inner(), Action::Stop).await
}

#[utoipa::path(put, path = "/api/v4/services/{name}/restart", tag = "services", summary = "Stop and start a service",
    params(("name" = String, Path, description = "A service, or one of its processes as service:process")),
    responses((status = 200, description = "It runs", body = ActionAnswer),
        (status = 202, description = "It is being restarted; the web server itself is restarted after this answer", body = ActionAnswer),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_services is missing", body = ErrorBody),
        (status = 404, description = "There is no such service", body = ErrorBody),
        (status = 409, description = "It failed: why", body = ErrorBody),
        (status = 503, description = "supervisord does not answer", body = ErrorBody)))]
pub(super) async fn restart(
    name: web::Path<String>,
    state: web::Data<AppState>,
    caller: web::ReqData<Identity>,
) -> Result<HttpResponse, ApiError> {
    act(&state, &caller, name.into_inner(), Action::Restart).await
}

async fn act(state: &AppState, caller: &Identity, name: String, action: Action) -> Result<HttpResponse, ApiError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(ApiError::not_found());
    }
    let before = status(state, &name).await?;
    tracing::info!(service = name, ?action, account = caller.account.name, "service action");
    let own_pid = i32::try_from(std::process::id()).ok();
    if action != Action::Start && before.iter().any(|process| process.pid.is_some() && process.pid == own_pid) {
        return Ok(act_on_ourselves(state, name, action, before));
    }
    let services = Arc::clone(&state.ports.services);
    let wanted = name.clone();
    // Goes on when the client has gone or the answer has to be given before the end.
    let mut task = state.shared.runtime().spawn(async move { services.act(&wanted, action).await });
    let done = tokio::time::timeout(state.settings.answer_timeout, &mut task).await;
    let (status_code, done) = match done {
        Ok(result) => {
            result.map_err(ApiError::internal)??;
            (StatusCode::OK, true)
        }
        Err(_) => (StatusCode::ACCEPTED, false),
    };
    let data = status(state, &name).await?;
    Ok(HttpResponse::build(status_code).json(ActionAnswer { done, data }))
}

async fn status(state: &AppState, name: &str) -> Result<Vec<ProcessView>, ApiError> {
    let (services, name) = (Arc::clone(&state.ports.services), name.to_owned());
    let found = state.shared.run("supervisord does not answer", async move { services.status(&name).await });
    Ok(found.await??)
}

/// Answers first, then stops: supervisord sends the signal, or, for a restart, starts the program that has ended anew.
fn act_on_ourselves(state: &AppState, name: String, action: Action, data: Vec<ProcessView>) -> HttpResponse {
    let services: Arc<dyn ServiceControl> = Arc::clone(&state.ports.services);
    let shutdown = state.shutdown.clone();
    state.shared.runtime().spawn(async move {
        tokio::time::sleep(HEAD_START).await;
        if action == Action::Restart {
            shutdown.request();
        } else if let Err(error) = services.signal_stop(&name).await {
            tracing::error!(?error, "cannot have this program stopped");
        }
    });
    HttpResponse::Accepted().json(ActionAnswer { done: false, data })
}
