//! The table of routes: method, path, group and who may. The application, the switches of `[webservices]`, the answers
//! of 405 and the test of the OpenAPI document are all made from it.

pub mod account;
pub mod alarms;
pub mod entities;
pub mod event;
pub mod events;
pub mod health;
pub mod info;
pub mod metrics;
pub mod nodes;
pub mod services;

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, Route, guard, web};
use overstory_model::permission::{ALARM_READ, CAN, ENTITY, EVENT, HEALTHCHECK, METRICS_READ, READ, SERVICES, UPDATE};

use crate::access;
use crate::config::Webservices;
use crate::error::ApiError;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever has credentials.
    Authenticated,
    /// Whoever has these bits of this permission.
    Permission(&'static str, u8),
}

/// What `[webservices]` switches on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Always there.
    Always,
    /// Sending events.
    Event,
    /// Archived events.
    Events,
    /// Alarms.
    Alarms,
    /// Entities.
    Entities,
    /// Metrics.
    Metrics,
    /// Health of the platform.
    Healthcheck,
    /// Supervised services.
    Services,
}

impl Group {
    const fn is_on(self, switches: Webservices) -> bool {
        match self {
            Self::Always => true,
            Self::Event => switches.event,
            Self::Events => switches.events,
            Self::Alarms => switches.alarms,
            Self::Entities => switches.entities,
            Self::Metrics => switches.metrics,
            Self::Healthcheck => switches.healthcheck,
            Self::Services => switches.services,
        }
    }
}

/// A route.
pub struct Endpoint {
    /// The method; `GET` answers `HEAD` too.
    pub method: Method,
    /// The path as a pattern.
    pub path: &'static str,
    /// What switches it off.
    pub group: Group,
    /// Who may.
    pub access: Access,
    handler: fn(Route) -> Route,
}

/// Every route there is.
#[must_use]
pub fn table() -> Vec<Endpoint> {
    use Access::{Authenticated, Permission, Public};
    use Group::{Alarms, Always, Entities, Event, Events, Healthcheck, Metrics, Services};
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let end = |method: &Method, path, group, access, handler| Endpoint {
        method: method.clone(),
        path,
        group,
        access,
        handler,
    };
    let (read, steer) = (Permission(SERVICES, READ), Permission(SERVICES, UPDATE));
    let alarms = Permission(ALARM_READ, CAN);
    vec![
        end(&get, "/healthz", Always, Public, |r| r.to(info::healthz)),
        end(&get, "/readyz", Always, Public, |r| r.to(info::readyz)),
        end(&get, "/openapi.json", Always, Public, |r| r.to(info::openapi)),
        end(&post, "/api/v4/login", Always, Public, |r| r.to(account::login)),
        end(&post, "/api/v4/logout", Always, Authenticated, |r| r.to(account::logout)),
        end(&get, "/logout", Always, Authenticated, |r| r.to(account::logout_by_get)),
        end(&get, "/api/v4/account/me", Always, Authenticated, |r| r.to(account::me)),
        end(&get, "/api/v4/app-info", Always, Authenticated, |r| r.to(info::app_info)),
        end(&post, "/api/v4/event", Event, Permission(EVENT, CAN), |r| r.to(event::send)),
        end(&get, "/api/v4/events", Events, Permission(ENTITY, READ), |r| r.to(events::list)),
        end(&get, "/api/v4/alarms", Alarms, alarms, |r| r.to(alarms::list)),
        end(&get, "/api/v4/alarms/{id}", Alarms, alarms, |r| r.to(alarms::get)),
        end(&get, "/api/v4/alarms/{id}/steps", Alarms, alarms, |r| r.to(alarms::steps)),
        end(&post, "/api/v4/alarm-details", Alarms, alarms, |r| r.to(alarms::details)),
        end(&get, "/api/v4/entities", Entities, Permission(ENTITY, READ), |r| r.to(entities::list)),
        end(&get, "/api/v4/nodes", Entities, Permission(ENTITY, READ), |r| r.to(nodes::list)),
        end(&get, "/api/v4/metrics", Metrics, Permission(METRICS_READ, CAN), |r| r.to(metrics::query)),
        end(&get, "/api/v4/healthcheck", Healthcheck, Permission(HEALTHCHECK, CAN), |r| r.to(health::check)),
        end(&get, "/api/v4/services", Services, read, |r| r.to(services::list)),
        end(&put, "/api/v4/services/{name}/start", Services, steer, |r| r.to(services::start)),
        end(&put, "/api/v4/services/{name}/stop", Services, steer, |r| r.to(services::stop)),
        end(&put, "/api/v4/services/{name}/restart", Services, steer, |r| r.to(services::restart)),
    ]
}

/// Adds the routes that are switched on to an application.
pub fn configure(config: &mut web::ServiceConfig, switches: Webservices) {
    let table: Vec<_> = table().into_iter().filter(|endpoint| endpoint.group.is_on(switches)).collect();
    let mut paths: Vec<&'static str> = table.iter().map(|endpoint| endpoint.path).collect();
    paths.dedup();
    for path in paths {
        let mut resource = web::resource(path);
        let mut allowed = Vec::new();
        for endpoint in table.iter().filter(|endpoint| endpoint.path == path) {
            allowed.push(endpoint.method.as_str());
            let access = endpoint.access;
            let route = if endpoint.method == Method::GET {
                allowed.push("HEAD");
                web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
            } else {
                web::method(endpoint.method.clone())
            };
            let wrapped = from_fn(move |request, next| access::guard(access, request, next));
            resource = resource.route((endpoint.handler)(route).wrap(wrapped));
        }
        let allowed = allowed.join(", ");
        config.service(resource.default_service(web::to(move |_: HttpRequest| {
            let allowed = allowed.clone();
            async move { Err::<&'static str, _>(ApiError::method_not_allowed(allowed)) }
        })));
    }
    config.default_service(web::to(access::nowhere));
}
