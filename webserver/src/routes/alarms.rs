//! Alarms and their steps.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use overstory_model::alarm::AlarmValue;
use overstory_model::{Alarm, AlarmId, Entity, EntityId, Step, Timestamp};
use overstory_store::alarms::AlarmSort;
use overstory_store::{AlarmQuery, Openness, PageRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::entities::EntityView;
use crate::body;
use crate::error::ApiError;
use crate::openapi::{AlarmValueSchema, ErrorBody, FieldErrors, StepSchema};
use crate::paging::{Listing, Meta};
use crate::query::Parameters;
use crate::state::AppState;

/// The most alarms whose details are asked for at once.
const MAX_DETAILS: usize = 100;
/// The longest alarm id that is looked up, in bytes.
const MAX_ID_BYTES: usize = 64;
/// A time beyond the year 9999 is a mistake.
const LATEST: i64 = 253_402_300_799;

/// An alarm as lists show it: without its steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmView {
    /// The identity.
    #[serde(rename = "_id")]
    pub id: String,
    /// When it was made.
    pub t: i64,
    /// The entity, `null` if it is gone.
    pub entity: Option<EntityView>,
    /// The body.
    #[schema(value_type = AlarmValueSchema)]
    pub v: AlarmValue,
    /// Labels.
    pub tags: Vec<String>,
    /// Information attached by rules.
    #[schema(value_type = Object)]
    pub infos: serde_json::Map<String, serde_json::Value>,
    /// State times impact level, 0 to 30.
    pub impact_state: u8,
    /// Links by category.
    #[schema(value_type = Object)]
    pub links: serde_json::Map<String, serde_json::Value>,
    /// How many alarms it contains.
    pub children: usize,
    /// How many of them are open.
    pub opened_children: usize,
    /// How many of them have ended.
    pub closed_children: usize,
    /// How many alarms contain it.
    pub parents: usize,
    /// Whether it was made by a correlation rule.
    pub is_meta_alarm: bool,
    /// Whether the caller marked it.
    pub bookmark: bool,
    /// How many steps it has.
    pub steps_count: u32,
}

/// A page of alarms.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmListing {
    /// The alarms.
    pub data: Vec<AlarmView>,
    /// Where they are in the list.
    pub meta: Meta,
}

/// A page of steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepListing {
    /// The steps, oldest first.
    #[schema(value_type = Vec<StepSchema>)]
    pub data: Vec<Step>,
    /// Where they are in the list.
    pub meta: Meta,
}

/// Asks for the details of one alarm.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DetailsRequest {
    /// The alarm.
    #[serde(rename = "_id", default)]
    pub id: String,
    /// Which of its steps, if any.
    pub steps: Option<StepsRequest>,
}

/// Which steps are wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub struct StepsRequest {
    /// The page, from 1.
    pub page: Option<u32>,
    /// Steps per page, 10 if not given.
    pub limit: Option<u32>,
    /// Whether the newest come first.
    #[serde(default)]
    pub reversed: bool,
}

/// The answer about one alarm.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetailsAnswer {
    /// 200, or what a single request would have been answered with.
    pub status: u16,
    /// The alarm asked for.
    #[serde(rename = "_id")]
    pub id: String,
    /// Its details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Details>,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Details {
    /// The steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepListing>,
}

#[utoipa::path(get, path = "/api/v4/alarms", tag = "alarms", summary = "List alarms",
    params(
        ("opened" = Option<bool>, Query, description = "true: open ones; false: ended ones; absent: open and recently ended"),
        ("search" = Option<String>, Query, description = "Text that the entity's id, connector, component, resource, output or display name contains"),
        ("entity" = Option<String>, Query, description = "Only alarms of this entity"),
        ("state" = Option<Vec<u8>>, Query, description = "Only these states, 0 to 3", style = Form, explode = false),
        ("tstart" = Option<i64>, Query, description = "Made at or after, Unix seconds"),
        ("tstop" = Option<i64>, Query, description = "Made before or at, Unix seconds"),
        ("time_field" = Option<String>, Query, description = "What tstart and tstop compare: t or v.creation_date, which are the same"),
        ("sort_by" = Option<String>, Query, description = "t, v.creation_date, v.state.val, v.status.val, v.last_update_date, v.last_event_date, v.component, v.resource, v.connector, v.output"),
        ("sort" = Option<String>, Query, description = "asc or desc; without sort_by the newest come first"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("limit" = Option<u32>, Query, description = "Per page, 1 to 1000, 10 if not given"),
        ("paginate" = Option<bool>, Query, description = "false: up to 10,000 at once")),
    responses((status = 200, description = "A page of them", body = AlarmListing),
        (status = 400, description = "Wrong parameters", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_alarm_read is missing", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn list(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = list_query(request.query_string(), &state)?;
    let page = query.page;
    let _turn = state.turn_to_list(page).await?;
    let stores = state.ports.stores.clone();
    let (alarms, entities) = state
        .shared
        .store(async move {
            let alarms = stores.alarms.list(&query).await?;
            let entities = stores.entities.by_ids(&entities_of(&alarms.items)).await?;
            Ok((alarms, entities))
        })
        .await?;
    let meta = Meta::new(page, alarms.total);
    Ok(HttpResponse::Ok().json(Listing { data: views(alarms.items, entities), meta }))
}

fn list_query(text: &str, state: &AppState) -> Result<AlarmQuery, ApiError> {
    let mut query = Parameters::new(text)?;
    let openness = match query.boolean("opened") {
        None => Openness::OpenAndRecent,
        Some(true) => Openness::Open,
        Some(false) => Openness::Resolved,
    };
    let states = query.list("state");
    let states: Vec<u8> = states
        .into_iter()
        .filter_map(|text| match text.parse() {
            Ok(state @ 0..=3) => Some(state),
            _ => {
                query.refuse("state", "has to be 0, 1, 2 or 3");
                None
            }
        })
        .collect();
    query.choice("time_field", &[("t", ()), ("v.creation_date", ())]);
    let sort_by = query.choice("sort_by", SORTS);
    let alarm_query = AlarmQuery {
        openness,
        recent_since: state.ports.clock.now().secs().plus(-state.settings.recent_s),
        search: query.text("search"),
        entity: query.text("entity").map(EntityId),
        states,
        from: query.number("tstart", 0..=LATEST).map(Timestamp),
        to: query.number("tstop", 0..=LATEST).map(Timestamp),
        sort_by: sort_by.unwrap_or_default(),
        descending: query.descending(sort_by.is_none()),
        page: query.page(),
    };
    if let (Some(from), Some(to)) = (alarm_query.from, alarm_query.to)
        && from > to
    {
        query.refuse("tstop", "has to be at or after tstart");
    }
    query.finish()?;
    Ok(alarm_query)
}

const SORTS: &[(&str, AlarmSort)] = &[
    ("t", AlarmSort::T),
    ("v.creation_date", AlarmSort::T),
    ("v.state.val", AlarmSort::State),
    ("v.status.val", AlarmSort::Status),
    ("v.last_update_date", AlarmSort::LastUpdate),
    ("v.last_event_date", AlarmSort::LastEvent),
    ("v.component", AlarmSort::Component),
    ("v.resource", AlarmSort::Resource),
    ("v.connector", AlarmSort::Connector),
    ("v.output", AlarmSort::Output),
];

#[utoipa::path(get, path = "/api/v4/alarms/{id}", tag = "alarms", summary = "One alarm",
    params(("id" = String, Path, description = "The alarm's _id")),
    responses((status = 200, description = "The alarm", body = AlarmView),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_alarm_read is missing", body = ErrorBody),
        (status = 404, description = "There is no such alarm", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn get(id: web::Path<String>, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let id = checked_id(id.into_inner())?;
    let stores = state.ports.stores.clone();
    let found = state
        .shared
        .store(async move {
            let Some(alarm) = stores.alarms.get(&id).await? else { return Ok(None) };
            let entities = stores.entities.by_ids(std::slice::from_ref(&alarm.entity)).await?;
            Ok(Some((alarm, entities)))
        })
        .await?;
    let (alarm, entities) = found.ok_or_else(ApiError::not_found)?;
    let view = views(vec![alarm], entities).pop().ok_or_else(ApiError::not_found)?;
    Ok(HttpResponse::Ok().json(view))
}

#[utoipa::path(get, path = "/api/v4/alarms/{id}/steps", tag = "alarms", summary = "The steps of an alarm, oldest first",
    params(("id" = String, Path, description = "The alarm's _id"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("limit" = Option<u32>, Query, description = "Per page, 1 to 1000, 10 if not given"),
        ("paginate" = Option<bool>, Query, description = "false: all at once")),
    responses((status = 200, description = "A page of them", body = StepListing),
        (status = 400, description = "Wrong parameters", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_alarm_read is missing", body = ErrorBody),
        (status = 404, description = "There is no such alarm", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn steps(
    request: HttpRequest,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Parameters::new(request.query_string())?;
    let page = query.page();
    query.finish()?;
    let id = checked_id(id.into_inner())?;
    let found = steps_of(&state, id, page, false).await?;
    Ok(HttpResponse::Ok().json(found.ok_or_else(ApiError::not_found)?))
}

#[utoipa::path(post, path = "/api/v4/alarm-details", tag = "alarms", summary = "Details of several alarms",
    request_body = Vec<DetailsRequest>,
    responses((status = 207, description = "An answer for each", body = Vec<DetailsAnswer>),
        (status = 400, description = "The body is malformed", body = ErrorBody),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_alarm_read is missing", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn details(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let asked: Vec<DetailsRequest> = body::json(&request, payload, state.settings.body_timeout).await?;
    if asked.len() > MAX_DETAILS {
        return Err(ApiError::bad_request(format!("There are more than {MAX_DETAILS} items")));
    }
    let mut answers = Vec::with_capacity(asked.len());
    for request in asked {
        answers.push(details_of(&state, request).await?);
    }
    Ok(HttpResponse::build(StatusCode::MULTI_STATUS).json(answers))
}

async fn details_of(state: &AppState, request: DetailsRequest) -> Result<DetailsAnswer, ApiError> {
    let DetailsRequest { id, steps } = request;
    let refused = |id: String, status: u16, error: &str| {
        Ok(DetailsAnswer { status, id, data: None, error: Some(error.to_owned()) })
    };
    let Ok(alarm) = checked_id(id.clone()) else { return refused(id, 404, "Not found") };
    let wanted = steps.unwrap_or(StepsRequest { page: None, limit: Some(1), reversed: false });
    let page = PageRequest { page: wanted.page.unwrap_or(1), limit: wanted.limit.unwrap_or(10), paginate: true };
    if page.page == 0 || !(1..=1000).contains(&page.limit) {
        return refused(id, 400, "steps.page counts from 1, steps.limit is 1 to 1000");
    }
    match steps_of(state, alarm, page, wanted.reversed).await? {
        Some(steps) => Ok(DetailsAnswer { status: 200, id, data: Some(Details { steps: Some(steps) }), error: None }),
        None => refused(id, 404, "Not found"),
    }
}

/// Steps of an alarm, or nothing when there is no such alarm.
async fn steps_of(
    state: &AppState,
    id: AlarmId,
    page: PageRequest,
    reversed: bool,
) -> Result<Option<StepListing>, ApiError> {
    let alarms = Arc::clone(&state.ports.stores.alarms);
    let found = state
        .shared
        .store(async move {
            if alarms.get(&id).await?.is_none() {
                return Ok(None);
            }
            if !reversed {
                return alarms.steps(&id, page).await.map(Some);
            }
            // Steps are capped at two thousand: the page is cut out of all of them.
            let mut all = alarms.steps(&id, PageRequest { paginate: false, ..page }).await?;
            let (skip, take) = page.offset_and_limit();
            let (skip, take) = (usize::try_from(skip).unwrap_or(usize::MAX), usize::try_from(take).unwrap_or(0));
            all.items = all.items.into_iter().rev().skip(skip).take(take).collect();
            Ok(Some(all))
        })
        .await?;
    Ok(found.map(|found| StepListing { meta: Meta::new(page, found.total), data: found.items }))
}

fn checked_id(id: String) -> Result<AlarmId, ApiError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES { Err(ApiError::not_found()) } else { Ok(AlarmId(id)) }
}

fn entities_of(alarms: &[Alarm]) -> Vec<EntityId> {
    let mut ids: Vec<_> = alarms.iter().map(|alarm| alarm.entity.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn views(alarms: Vec<Alarm>, entities: Vec<Entity>) -> Vec<AlarmView> {
    let entities: HashMap<EntityId, Entity> = entities.into_iter().map(|entity| (entity.id.clone(), entity)).collect();
    alarms.into_iter().map(|alarm| view(entities.get(&alarm.entity), alarm)).collect()
}

fn view(entity: Option<&Entity>, alarm: Alarm) -> AlarmView {
    let state = u8::from(alarm.state());
    let impact = entity.map_or(1, |entity| entity.impact_level);
    AlarmView {
        entity: entity.map(|entity| EntityView::new(entity.clone())),
        impact_state: state.saturating_mul(impact),
        id: alarm.id.0,
        t: alarm.t.0,
        tags: alarm.tags,
        infos: alarm.v.infos.clone(),
        links: serde_json::Map::new(),
        children: alarm.v.children.len(),
        // Which of them are open is not known without correlation rules; there are none.
        opened_children: alarm.v.children.len(),
        closed_children: 0,
        parents: alarm.v.parents.len(),
        is_meta_alarm: false,
        bookmark: false,
        steps_count: alarm.steps_count,
        v: alarm.v,
    }
}
