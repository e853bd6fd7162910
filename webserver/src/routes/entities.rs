//! Entities.

use actix_web::{HttpRequest, HttpResponse, web};
use overstory_model::{Entity, EntityKind};
use overstory_store::EntityQuery;
use overstory_store::entities::EntitySort;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::openapi::{EntitySchema, ErrorBody, FieldErrors};
use crate::paging::{Listing, Meta};
use crate::query::Parameters;
use crate::state::AppState;

/// An entity as the API shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct EntityView(Entity);

impl EntityView {
    /// Shows `entity`.
    #[must_use]
    pub const fn new(entity: Entity) -> Self {
        Self(entity)
    }
}

impl utoipa::PartialSchema for EntityView {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        EntitySchema::schema()
    }
}

impl ToSchema for EntityView {
    fn name() -> std::borrow::Cow<'static, str> {
        "Entity".into()
    }
}

/// A page of entities.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntityListing {
    /// The entities.
    pub data: Vec<EntityView>,
    /// Where they are in the list.
    pub meta: Meta,
}

#[utoipa::path(get, path = "/api/v4/entities", tag = "entities", summary = "List entities",
    params(
        ("search" = Option<String>, Query, description = "Text that the id or the name contains"),
        ("type" = Option<Vec<String>>, Query, description = "connector, component, resource, service", style = Form, explode = false),
        ("component" = Option<String>, Query, description = "Only those of this component"),
        ("sort_by" = Option<String>, Query, description = "_id, name, type, last_event_date"),
        ("sort" = Option<String>, Query, description = "asc or desc"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("limit" = Option<u32>, Query, description = "Per page, 1 to 1000, 10 if not given"),
        ("paginate" = Option<bool>, Query, description = "false: up to 10,000 at once")),
    responses((status = 200, description = "A page of them", body = EntityListing),
        (status = 400, description = "Wrong parameters", body = FieldErrors),
        (status = 401, description = "No or wrong credentials", body = ErrorBody),
        (status = 403, description = "api_entity is missing", body = ErrorBody),
        (status = 503, description = "The store is away", body = ErrorBody)))]
pub(super) async fn list(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let query = list_query(request.query_string())?;
    let page = query.page;
    let _turn = state.turn_to_list(page).await?;
    let entities = state.ports.stores.entities.clone();
    let found = state.shared.store(async move { entities.list(&query).await }).await?;
    let data: Vec<_> = found.items.into_iter().map(EntityView::new).collect();
    Ok(HttpResponse::Ok().json(Listing { data, meta: Meta::new(page, found.total) }))
}

fn list_query(text: &str) -> Result<EntityQuery, ApiError> {
    let mut query = Parameters::new(text)?;
    let mut kinds = Vec::new();
    for word in query.list("type") {
        let all = [EntityKind::Connector, EntityKind::Component, EntityKind::Resource, EntityKind::Service];
        match all.into_iter().find(|kind| kind.name() == word) {
            Some(kind) => kinds.push(kind),
            None => query.refuse("type", "has to be connector, component, resource or service"),
        }
    }
    let sorts = [
        ("_id", EntitySort::Id),
        ("name", EntitySort::Name),
        ("type", EntitySort::Kind),
        ("last_event_date", EntitySort::LastEvent),
    ];
    let entity_query = EntityQuery {
        search: query.text("search"),
        kinds,
        component: query.text("component"),
        info: None,
        sort_by: query.choice("sort_by", &sorts).unwrap_or_default(),
        descending: query.descending(false),
        page: query.page(),
    };
    query.finish()?;
    Ok(entity_query)
}
