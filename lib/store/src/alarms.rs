//! Reading alarms.

use async_trait::async_trait;
use overstory_model::{Alarm, AlarmId, EntityId, Step, Timestamp};

use crate::error::StoreError;
use crate::page::{Page, PageRequest};

/// Which alarms a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Openness {
    /// Those that have not ended, and those that ended less than this many seconds before `now`.
    #[default]
    OpenAndRecent,
    /// Those that have not ended.
    Open,
    /// Those that have ended.
    Resolved,
}

/// By what a list of alarms is sorted; ties by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlarmSort {
    /// When it was made.
    #[default]
    T,
    /// The state.
    State,
    /// The status.
    Status,
    /// When the state last changed.
    LastUpdate,
    /// When an event last arrived.
    LastEvent,
    /// The component's name.
    Component,
    /// The resource's name.
    Resource,
    /// The connector's name.
    Connector,
    /// The output.
    Output,
}

/// A question for a list of alarms.
#[derive(Debug, Clone, Default)]
pub struct AlarmQuery {
    /// Open or ended ones.
    pub openness: Openness,
    /// The present time and how long an alarm counts as recently ended, for [`Openness::OpenAndRecent`].
    pub recent_since: Timestamp,
    /// Only those of which entity id, connector, connector name, component, resource, output or display name contains
    /// this text, letter case aside (ASCII).
    pub search: Option<String>,
    /// Only those of this entity.
    pub entity: Option<EntityId>,
    /// Only those in one of these states (numbers); empty = all.
    pub states: Vec<u8>,
    /// Only those made at or after.
    pub from: Option<Timestamp>,
    /// Only those made before or at.
    pub to: Option<Timestamp>,
    /// By what to sort.
    pub sort_by: AlarmSort,
    /// Greatest first.
    pub descending: bool,
    /// Which part.
    pub page: PageRequest,
}

/// The alarms.
#[async_trait]
pub trait Alarms: Send + Sync {
    /// The open alarms of `entities`, in any order; entities without one are left out.
    ///
    /// # Errors
    /// The store is not available.
    async fn open_of(&self, entities: &[EntityId]) -> Result<Vec<Alarm>, StoreError>;

    /// Open alarms in state 0 whose last step (state or status) is at or before `before`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The store is not available.
    async fn settled(&self, before: Timestamp, limit: u32) -> Result<Vec<Alarm>, StoreError>;

    /// One alarm.
    ///
    /// # Errors
    /// The store is not available.
    async fn get(&self, id: &AlarmId) -> Result<Option<Alarm>, StoreError>;

    /// Steps of an alarm, oldest first.
    ///
    /// # Errors
    /// The store is not available.
    async fn steps(&self, id: &AlarmId, page: PageRequest) -> Result<Page<Step>, StoreError>;

    /// A list, without steps.
    ///
    /// # Errors
    /// The store is not available.
    async fn list(&self, query: &AlarmQuery) -> Result<Page<Alarm>, StoreError>;
}
