//! Reading the event archive: the records that the engine *archive* keeps in logfiles nodes, a channel per day, found by
//! time and by what they are about, in order of time, page by page.
//!
//! The nodes filter by a piece of text that each wanted record must hold, so that little travels; what arrives is looked at
//! exactly here. A page is read in windows of time, whose width follows how much there is, and of each window only as many
//! of the first records are kept as the page has room for.

pub mod filters;
pub(crate) mod nodes;
pub mod search;

use std::net::SocketAddrV4;
use std::sync::Arc;

use async_trait::async_trait;

pub use filters::Filters;
pub use search::{Page, Position, Query, search};

/// A node whose records are missing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub node: SocketAddrV4,
    /// What is wrong with it.
    pub trouble: Trouble,
    /// Why.
    pub why: String,
}

/// What is wrong with a node whose records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It does not answer, or has broken off. It may be back soon.
    Away,
    /// It does not let this program in. That stays so until somebody mends it.
    Refused,
    /// It is another kind of node. That stays so, too.
    NoNode,
    /// It has answered, and could not read all.
    Failed,
}

/// A part of a channel.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The channel.
    pub channel: &'a str,
    /// From this second on.
    pub low: i64,
    /// To this second, which belongs to it.
    pub high: i64,
    /// What the records hold; empty for all.
    pub needle: &'a str,
}

/// Gets the second and the bytes of each record.
pub type Each<'a> = &'a mut (dyn FnMut(i64, &[u8]) + Send);

/// Gives the archive as it is set up at the moment, or says why there is none. It is called on [`crate::state::Shared`]'s
/// runtime.
pub type ArchiveNow = Arc<dyn Fn() -> Result<Arc<dyn EventArchive>, String> + Send + Sync>;

/// Where archived events are; the nodes, or a test.
#[async_trait]
pub trait EventArchive: Send + Sync {
    /// The nodes that do not answer now.
    async fn away(&self) -> Vec<Missing>;

    /// Reads a part of a channel from all nodes but `without`, in any order; says whose records are missing or not complete.
    async fn read(&self, part: Part<'_>, without: &[SocketAddrV4], each: Each<'_>) -> Vec<Missing>;
}
