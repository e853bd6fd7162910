//! The health of the platform.

use actix_web::{HttpResponse, web};

use crate::health::Health;
use crate::openapi::ErrorBody;
use crate::state::AppState;

#[utoipa::path(get, path = "/api/v4/healthcheck", tag = "health", summary = "Broker, store, engines and queues",
    responses((status = 200, description = "What runs and what does not; a few seconds old at most", body = Health),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_healthcheck is missing", body = ErrorBody)))]
pub(super) async fn check(state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(state.health.get(&state).await.as_ref())
}
