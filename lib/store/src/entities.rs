//! Reading entities.

use async_trait::async_trait;
use overstory_model::{Entity, EntityId, EntityKind};

use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// By what a list of entities is sorted; ties by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntitySort {
    /// The identity.
    #[default]
    Id,
    /// The name.
    Name,
    /// The sort of entity.
    Kind,
    /// When it was last heard of.
    LastEvent,
}

/// A question for a list of entities.
#[derive(Debug, Clone, Default)]
pub struct EntityQuery {
    /// Only those whose id or name contains this text, letter case aside (ASCII).
    pub search: Option<String>,
    /// Only those of these sorts; empty = all.
    pub kinds: Vec<EntityKind>,
    /// Only those of this component.
    pub component: Option<String>,
    /// Only those about which the information of this name is known. Not by index: for lists that are asked for rarely.
    pub info: Option<String>,
    /// By what to sort.
    pub sort_by: EntitySort,
    /// Greatest first.
    pub descending: bool,
    /// Which part.
    pub page: PageRequest,
}

/// The entities.
#[async_trait]
pub trait Entities: Send + Sync {
    /// Those of `ids` that exist, in any order.
    ///
    /// # Errors
    /// The store is not available.
    async fn by_ids(&self, ids: &[EntityId]) -> Result<Vec<Entity>, StoreError>;

    /// A list.
    ///
    /// # Errors
    /// The store is not available.
    async fn list(&self, query: &EntityQuery) -> Result<Page<Entity>, StoreError>;
}
