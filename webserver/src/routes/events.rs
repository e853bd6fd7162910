//! The archived events: `GET /api/v4/events`.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use overstory_model::Timestamp;
use overstory_model::archive::Body;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::archive::search::{Found, SearchError};
use crate::archive::{Filters, Missing, Page, Position, Query, Trouble, search};
use crate::error::ApiError;
use crate::openapi::{ErrorBody, FieldErrors};
use crate::query::Parameters;
use crate::state::AppState;

/// Where a range begins that is not said, in seconds before its end.
const DEFAULT_RANGE_S: i64 = 3600;
/// The longest range, in seconds: 366 days.
const MAX_RANGE_S: i64 = 366 * 86_400;
/// A time beyond the year 9999 is a mistake.
const LATEST_S: f64 = 253_402_300_799.0;
/// The most events on a page.
const MAX_LIMIT: usize = 1000;
/// Events on a page, unless told otherwise.
const DEFAULT_LIMIT: usize = 100;

/// An event as it came. What it does not have is `null`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchivedView {
    /// The second that it is filed under: its timestamp, or when it arrived if that cannot be.
    pub t: i64,
    /// When the archive took it.
    pub received: f64,
    /// The entity that it is about; null for a message that is no valid event.
    pub entity: Option<String>,
    /// The entity of its connector.
    pub connector: Option<String>,
    /// The component that it is about, or that its resource belongs to.
    pub component: Option<String>,
    /// Its type, as its source wrote it.
    pub event_type: Option<String>,
    /// The key that it was published with.
    pub routing_key: String,
    /// Its publisher's name for it.
    pub message_id: Option<String>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body, byte for byte, if that is a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub event: Option<Box<RawValue>>,
    /// Its body, if that is another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its body in base64, if that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// A node whose events are missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct MissingView {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// Where in the archive a page is.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsMeta {
    /// What to give as `cursor` for the next page; null when nothing is left. A page may have fewer events than `limit`, or
    /// none, although there is a next one.
    pub next: Option<String>,
    /// The most events on a page.
    pub limit: usize,
    /// Whether all nodes answered. Only with `partial=true` it can be false.
    pub complete: bool,
    /// The nodes that did not.
    pub missing: Vec<MissingView>,
}

/// A page of archived events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsListing {
    /// The events, in order of time.
    pub data: Vec<ArchivedView>,
    /// Where they are.
    pub meta: EventsMeta,
}

#[utoipa::path(get, path = "/api/v4/events", tag = "events", summary = "Read archived events as they came",
    params(
        ("from" = Option<f64>, Query, description = "From this second on, Unix seconds; an hour before `to` if not given"),
        ("to" = Option<f64>, Query, description = "Up to but not including this second, Unix seconds; now if not given; at most 366 days after `from`"),
        ("entity" = Option<String>, Query, description = "Events about this entity, or of this connector: `resource/component`, `component` or `connector/connector_name`"),
        ("component" = Option<String>, Query, description = "Events about this component and its resources"),
        ("event_type" = Option<String>, Query, description = "Events of this type"),
        ("contains" = Option<String>, Query, description = "Events whose body holds this text"),
        ("limit" = Option<usize>, Query, description = "Events on a page, 1 to 1000; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "`meta.next` of the page before; everything else has to be as for that one"),
        ("partial" = Option<bool>, Query, description = "Answer though nodes are missing, and name them"),
    ),
    responses((status = 200, description = "A page", body = EventsListing),
        (status = 400, description = "Parameters are wrong", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_entity is missing", body = ErrorBody),
        (status = 502, description = "A node refuses the web server's key, or is none: the sentence says which", body = ErrorBody),
        (status = 503, description = "There is no archive, or a node does not answer: the sentence says which", body = ErrorBody)))]
pub(super) async fn list(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let mut parameters = Parameters::new(request.query_string())?;
    let query = read(&mut parameters, state.ports.clock.now().secs());
    parameters.finish()?;
    let Some(archive) = state.ports.archive.clone() else {
        let what = "There is no archive of events: [archive] in etc/webserver.conf is not enabled";
        return Err(ApiError::unavailable(what, "no archive"));
    };
    let turn = state.turn_to_search().await?;
    let limit = query.limit;
    let time = search_time(state.settings.answer_timeout);
    let page = async move {
        let _turn = turn;
        Ok(search(archive()?.as_ref(), &query, time).await)
    };
    let page = state.shared.run_while_wanted("The archive does not answer in time", page).await?;
    let page =
        page.map_err(|reason: String| ApiError::unavailable(format!("The archive has no nodes: {reason}"), reason))?;
    let page = page.map_err(refused)?;
    Ok(HttpResponse::Ok().json(listing(page, limit)))
}

/// How long a page may be put together, so that it is answered in time.
pub(crate) fn search_time(answer_timeout: Duration) -> Duration {
    answer_timeout.mul_f64(0.8)
}

fn read(parameters: &mut Parameters, now: Timestamp) -> Query {
    let given = |parameters: &mut Parameters, name| parameters.number(name, 0.0..=LATEST_S);
    let to = given(parameters, "to").map_or(now.0 + 1, |to| whole(to.ceil()));
    let from = given(parameters, "from").map_or((to - DEFAULT_RANGE_S).max(0), |from| whole(from.floor()));
    if from >= to {
        parameters.refuse("from", "has to be before to");
    } else if to - from > MAX_RANGE_S {
        parameters.refuse("from", "has to be at most 366 days before to");
    }
    let after = parameters.text("cursor").and_then(|cursor| {
        let position = cursor.parse::<Position>().ok();
        if position.is_none() {
            parameters.refuse("cursor", "has to be what the page before gave as next");
        }
        position
    });
    Query {
        from,
        to,
        after,
        limit: parameters.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT),
        filters: Filters {
            entity: parameters.text("entity"),
            component: parameters.text("component"),
            event_type: parameters.text("event_type"),
            contains: parameters.text("contains"),
        },
        partial: parameters.boolean("partial").unwrap_or(false),
    }
}

/// Seconds that were checked to lie between 0 and the year 9999.
#[expect(clippy::cast_possible_truncation, reason = "a checked range")]
const fn whole(seconds: f64) -> i64 {
    seconds as i64
}

fn refused(error: SearchError) -> ApiError {
    match error {
        SearchError::TooSlow => ApiError::unavailable(
            "The archive could not be read in time: ask for a shorter range, or filter by entity",
            "the first window was not read in time",
        ),
        SearchError::Missing(missing) => {
            let each: Vec<_> = missing.iter().map(trouble).collect();
            let why: Vec<_> = missing.iter().map(|missing| missing.why.as_str()).collect();
            let what =
                format!("The archive is not complete: {}; partial=true shows what the others have", each.join(", "));
            let stays = |missing: &Missing| matches!(missing.trouble, Trouble::Refused | Trouble::NoNode);
            if missing.iter().any(stays) {
                return ApiError::bad_gateway(what, why.join("; "));
            }
            ApiError::unavailable(what, why.join("; "))
        }
    }
}

/// What is wrong with a node, for the client.
fn trouble(Missing { node, trouble, .. }: &Missing) -> String {
    match trouble {
        Trouble::Away => format!("{node} does not answer"),
        Trouble::Refused => format!("{node} refuses the name and key that [archive] of etc/webserver.conf names"),
        Trouble::NoNode => format!("{node} is no logfiles node"),
        Trouble::Failed => format!("{node} could not read all of its records"),
    }
}

fn listing(page: Page, limit: usize) -> EventsListing {
    let missing = |missing: Missing| MissingView { node: missing.node.to_string(), reason: missing.why };
    EventsListing {
        meta: EventsMeta {
            next: page.next.map(|next| next.to_string()),
            limit,
            complete: page.missing.is_empty(),
            missing: page.missing.into_iter().map(missing).collect(),
        },
        data: page.events.into_iter().map(view).collect(),
    }
}

fn view(Found { second, event: archived }: Found) -> ArchivedView {
    let (mut event, mut text, mut base64) = (None, None, None);
    match archived.body {
        Body::Json(json) => event = Some(json),
        Body::Text(body) => text = Some(body),
        Body::Base64(body) => base64 = Some(body),
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of any real time fit 53 bits")]
    let received = archived.received as f64 / 1e6;
    ArchivedView {
        t: second,
        received,
        entity: archived.entity,
        connector: archived.connector,
        component: archived.component,
        event_type: archived.event_type,
        routing_key: archived.routing_key,
        message_id: archived.message_id,
        content_type: archived.content_type,
        headers: archived.headers,
        event,
        text,
        base64,
    }
}
