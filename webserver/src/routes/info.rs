//! About the server itself: alive, ready, its documentation, its version.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::state::AppState;

/// A word about the server's state.
#[derive(Debug, Serialize, ToSchema)]
pub struct Word {
    /// `true` when it is so.
    pub ok: bool,
}

/// What runs here.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppInfo {
    /// The product.
    pub title: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its edition.
    pub edition: &'static str,
    /// The time zone of times shown without one.
    pub timezone: &'static str,
    /// The store.
    pub store: &'static str,
    /// Whether events may be sent, and so on: the switches of the groups of routes.
    pub webservices: WebservicesView,
}

/// Which groups of routes there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebservicesView {
    /// Sending events.
    pub event: bool,
    /// Archived events.
    pub events: bool,
    /// Alarms.
    pub alarms: bool,
    /// Entities.
    pub entities: bool,
    /// Metrics.
    pub metrics: bool,
    /// Health.
    pub healthcheck: bool,
    /// Supervised services.
    pub services: bool,
}

#[utoipa::path(get, path = "/healthz", tag = "server", summary = "Whether the process answers", security(()),
    responses((status = 200, description = "It does", body = Word)))]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Word { ok: true })
}

#[utoipa::path(get, path = "/readyz", tag = "server", summary = "Whether requests can be served", security(()),
    responses((status = 200, description = "They can", body = Word),
        (status = 503, description = "The store does not answer, or the server is stopping", body = crate::openapi::ErrorBody)))]
pub(super) async fn readyz(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    if state.shutdown.is_requested() {
        return Err(ApiError::unavailable("The server is stopping", "stopping"));
    }
    if !state.ready.missing().is_empty() {
        return Err(ApiError::unavailable("The store is not available", "waiting for the store"));
    }
    Ok(HttpResponse::Ok().json(Word { ok: true }))
}

#[utoipa::path(get, path = "/openapi.json", tag = "server", summary = "This document", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(crate::openapi::document())
}

#[utoipa::path(get, path = "/api/v4/app-info", tag = "server", summary = "Version and switches",
    responses((status = 200, description = "What runs here", body = AppInfo),
        (status = 401, description = "No or wrong credentials", body = crate::openapi::ErrorBody)))]
pub(super) async fn app_info(state: web::Data<AppState>) -> HttpResponse {
    let switches = state.settings.webservices;
    HttpResponse::Ok().json(AppInfo {
        title: "Overstory",
        version: env!("CARGO_PKG_VERSION"),
        edition: "community",
        timezone: "UTC",
        store: state.ports.stores.name,
        webservices: WebservicesView {
            event: switches.event,
            events: switches.events,
            alarms: switches.alarms,
            entities: switches.entities,
            metrics: switches.metrics,
            healthcheck: switches.healthcheck,
            services: switches.services,
        },
    })
}
