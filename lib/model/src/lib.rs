//! What the platform speaks of: events, entities, alarms, perf data, their ids and the clock.
//!
//! Nothing here does I/O. The types are those of the documents that subscribers, the store and the REST API
//! exchange; the field names in JSON are those of the fourth version of the published API.

pub mod alarm;
pub mod archive;
pub mod clock;
pub mod collectd;
pub mod credential;
pub mod entity;
pub mod event;
pub mod ids;
pub mod metric;
pub mod node;
pub mod notice;
pub mod perf;
pub mod permission;
pub mod routing_key;
pub mod state;

pub use alarm::{Alarm, AlarmId, Step, StepKind};
pub use clock::{Clock, Millis, SystemClock, Timestamp};
pub use entity::{Entity, EntityId, EntityKind};
pub use event::{Event, EventKind, Source};
pub use metric::{MetricKind, Sample, SeriesKey};
pub use routing_key::RoutingKey;
pub use state::{State, Status};
