//! The owner of all buckets, on the node's thread.

mod damages;
mod options;

pub use damages::{Damage, Damages};
pub use options::{PutError, StorageOptions, SyncMode};
