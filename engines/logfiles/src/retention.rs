//! What happens to buckets in the background: old ones are compressed or deleted, archives of a published system's cron
//! are taken in, buckets that nobody has looked into are counted, and all files are compared with the catalogue.
//!
//! What to do is decided by [`plan`], which only looks; the [`Keeper`] does it. Work on files is done in small pieces on a
//! thread of its own that rests three times as long as it works. Whoever takes a bucket's place is read back before.

mod archive;
mod count;
mod keeper;
mod plan;
mod rewrite;
#[cfg(test)]
mod tests;
mod trust;
mod worker;

pub use keeper::Keeper;
pub use plan::{Action, Ages, Policy, plan};
