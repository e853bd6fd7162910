//! The OpenAPI document, made from the handlers. `openapi.json` beside this crate's manifest is its golden copy.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::routes::{account, alarms, entities, event, events, health, info, metrics, nodes, services};

/// What is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// A sentence.
    pub error: String,
}

/// What is wrong with each field or parameter.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldErrors {
    /// A sentence for each.
    pub errors: BTreeMap<String, String>,
}

/// Describes [`overstory_model::Step`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepSchema {
    /// stateinc, statedec, statusinc, statusdec, statecounter, resolve.
    pub _t: String,
    /// When.
    pub t: i64,
    /// Who did it.
    pub a: String,
    /// The message.
    pub m: String,
    /// The new state or status number.
    pub val: i64,
    /// user, system or external.
    pub initiator: String,
}

/// Describes [`overstory_model::alarm::AlarmValue`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AlarmValue)]
pub struct AlarmValueSchema {
    /// The step that set the present state: 0 ok, 1 minor, 2 major, 3 critical.
    pub state: StepSchema,
    /// The step that set the present status: 0 off, 1 ongoing, 2 stealthy, 3 flapping, 4 cancelled, 5 no events.
    pub status: StepSchema,
    /// The source.
    pub connector: String,
    /// The source's instance.
    pub connector_name: String,
    /// The component.
    pub component: String,
    /// The resource, for a resource's alarm.
    pub resource: Option<String>,
    /// A short name for talking about the alarm.
    pub display_name: String,
    /// When the alarm was made.
    pub creation_date: i64,
    /// When an event last changed the state.
    pub last_update_date: i64,
    /// When an event was last received.
    pub last_event_date: i64,
    /// The first output.
    pub initial_output: String,
    /// The latest output.
    pub output: String,
    /// The first long output.
    pub initial_long_output: String,
    /// The latest long output.
    pub long_output: String,
    /// Distinct long outputs, the latest last.
    pub long_output_history: Vec<String>,
    /// How many events arrived while it was open.
    pub events_count: u64,
    /// How many times the state changed.
    pub total_state_changes: u64,
    /// How many times the state changed since the status last did.
    pub state_changes_since_status_update: u64,
    /// When it ended; `null` while it is open.
    pub resolved: Option<i64>,
    /// Seconds from creation to the end, once it ended.
    pub duration: Option<i64>,
    /// Seconds the present state has lasted at the end.
    pub current_state_duration: Option<i64>,
    /// Alarms that contain this one.
    pub parents: Vec<String>,
    /// Alarms that this one contains.
    pub children: Vec<String>,
    /// Information attached by rules.
    #[schema(value_type = Object)]
    pub infos: (),
    /// The versions of the rules that attached it.
    #[schema(value_type = Object)]
    pub infos_rule_version: (),
}

/// Describes [`overstory_model::Entity`].
#[derive(Debug, Serialize, ToSchema)]
pub struct EntitySchema {
    /// `resource/component`, `component` or `connector/connector_name`.
    pub _id: String,
    /// The name.
    pub name: String,
    /// connector, component, resource or service.
    pub r#type: String,
    /// Whether its events are turned into alarms.
    pub enabled: bool,
    /// How much depends on it, 1 to 10.
    pub impact_level: u8,
    /// The component it belongs to.
    pub component: Option<String>,
    /// The connector that spoke of it first.
    pub connector: Option<String>,
    /// What is known about it.
    #[schema(value_type = Object)]
    pub infos: (),
    /// When it was first heard of.
    pub created: i64,
    /// When it was last heard of.
    pub last_event_date: i64,
}

/// An event. Further fields are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventSchema {
    /// check, perf, log, ...
    pub event_type: String,
    /// The kind of source.
    pub connector: String,
    /// The source's instance.
    pub connector_name: String,
    /// The component.
    pub component: Option<String>,
    /// The resource of the component.
    pub resource: Option<String>,
    /// 0 ok, 1 minor, 2 major, 3 critical; a check has to have it. A number in text is fine.
    pub state: Option<u8>,
    /// One line for operators.
    pub output: Option<String>,
    /// More for operators.
    pub long_output: Option<String>,
    /// When it happened, Unix seconds; now if not given.
    pub timestamp: Option<i64>,
    /// Perf data as monitoring plugins write it.
    pub perf_data: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Overstory", description = "The REST API of Overstory. All times are Unix seconds.", license(name = "Apache-2.0")),
    paths(
        info::healthz, info::readyz, info::openapi, info::app_info,
        account::login, account::logout, account::logout_by_get, account::me,
        event::send,
        events::list,
        alarms::list, alarms::get, alarms::steps, alarms::details,
        entities::list,
        nodes::list,
        metrics::query,
        health::check,
        services::list, services::start, services::stop, services::restart,
    ),
    security(("bearer" = []), ("basic" = []), ("key" = [])),
    modifiers(&SecuritySchemes)
)]
struct Document;

struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let http = |scheme| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
        components.add_security_scheme("bearer", http(HttpAuthScheme::Bearer));
        components.add_security_scheme("basic", http(HttpAuthScheme::Basic));
        let key = ApiKey::Header(ApiKeyValue::new(crate::auth::KEY_HEADER));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    }
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let document = Document::openapi().to_pretty_json();
    document.unwrap_or_else(|error| unreachable!("the document is made of plain values: {error}")) + "\n"
});

/// The document as JSON.
#[must_use]
pub fn document() -> &'static str {
    &DOCUMENT
}
