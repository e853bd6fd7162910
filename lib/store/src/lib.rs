//! Where entities, alarms, metrics and accounts are kept: one trait per aggregate, two implementations.
//!
//! *Embedded* is SQLite, two files below `var/lib/store`: `engines.db`, written by the engines, and `control.db`, written
//! by the web server; each process reads both. *MongoDB* is a database on a server. Both pass the contract suite
//! in `tests`.

pub mod accounts;
pub mod alarms;
pub mod commit;
pub mod config;
mod dedup;
pub mod entities;
pub mod error;
pub mod metrics;
mod mongo;
pub mod open;
pub mod outbox;
pub mod page;
pub mod probe;
pub mod runs;
mod sqlite;
pub mod transfer;

pub use accounts::{Account, Accounts, ApiKey, Role, Session};
pub use alarms::{AlarmQuery, Alarms, Openness};
pub use commit::{AlarmWrite, Commit, Engines, Epoch, Outgoing, Point};
pub use config::{StoreConfig, StoreKind};
pub use entities::{Entities, EntityQuery};
pub use error::StoreError;
pub use metrics::{Aggregate, Bucket, MaintenanceReport, Metrics, RangeQuery, Retention, Series, SeriesQuery};
pub use open::{EngineSide, WebSide, open_engines, open_web};
pub use outbox::{Outbox, OutboxEntry};
pub use page::{Page, PageRequest};
pub use probe::{Probe, StoreInfo};
pub use runs::{EngineRun, EngineRuns};
