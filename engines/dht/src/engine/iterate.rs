//! Passes over a channel in slices that fit between the requests of others.

use std::ops::ControlFlow;

use memchr::memmem::Finder;
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::key::Key;
use tracing::warn;

use super::core::{Action, Core};
use crate::storage::Scan;

/// Bytes that one slice looks at, at most: what a filter rejects counts as well.
const SLICE_BYTES: usize = 256 << 10;

/// What one slice costs besides its bytes, counted for each record.
const RECORD_COST: usize = 32;

/// How keys and values go into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Key of 16 digits, value.
    LegacyPairs,
    /// Key of 16 digits.
    LegacyKeys,
    /// Key of 8 bytes, value.
    NeoPairs,
    /// Key of 8 bytes.
    NeoKeys,
}

/// Which records are passed over.
pub(super) enum Filter {
    /// All.
    None,
    /// None at all: what an empty legacy filter finds (protocol §10.1.2).
    Nothing,
    /// Those whose value holds these bytes.
    Holds(Box<Finder<'static>>),
}

impl Filter {
    /// Makes one of bytes that are not empty.
    pub(super) fn holds(bytes: &[u8]) -> Self {
        Self::Holds(Box::new(Finder::new(bytes).into_owned()))
    }

    #[inline]
    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::None => true,
            Self::Nothing => false,
            Self::Holds(finder) => finder.find(value).is_some(),
        }
    }
}

/// Where a pass over a channel is.
pub(super) struct Iteration {
    channel: Box<str>,
    after: Option<Key>,
    shape: Shape,
    filter: Filter,
}

impl Iteration {
    /// Begins behind `after`, which need not be stored.
    pub(super) fn new(channel: &str, after: Option<Key>, shape: Shape, filter: Filter) -> Self {
        Self { channel: channel.into(), after, shape, filter }
    }

    /// Goes on until the batch is full, the slice is used up, or the channel ends.
    pub(super) fn slice(&mut self, core: &Core, batch: &mut BatchBuilder) -> Scan {
        if matches!(self.filter, Filter::Nothing) {
            return Scan::End;
        }
        let store = core.store.borrow();
        let (mut left, mut records, mut bytes) = (SLICE_BYTES, 0u64, 0u64);
        let mut after = self.after;
        let (shape, filter, channel) = (self.shape, &self.filter, &*self.channel);
        let scan = store.scan(channel, after, &mut |key, value| {
            let added = if filter.passes(value) { add(batch, shape, key, value) } else { Added::Yes };
            match added {
                Added::Yes => {}
                Added::Full => return ControlFlow::Break(()),
                Added::TooLarge => skipped(core, channel, key, value.len()),
            }
            after = Some(key);
            records += 1;
            bytes += value.len() as u64;
            left = left.saturating_sub(value.len() + RECORD_COST);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.after = after;
        core.count_many(Action::Iterated, records, bytes);
        scan
    }
}

#[inline]
fn add(batch: &mut BatchBuilder, shape: Shape, key: Key, value: &[u8]) -> Added {
    match shape {
        Shape::LegacyPairs => batch.pair(&key.hex16(), value),
        Shape::LegacyKeys => batch.key_only(&key.hex16()),
        Shape::NeoPairs => batch.pair(&key.0.to_le_bytes(), value),
        Shape::NeoKeys => batch.key_only(&key.0.to_le_bytes()),
    }
}

#[cold]
fn skipped(core: &Core, channel: &str, key: Key, bytes: usize) {
    if core.skip_warnings.allows() {
        warn!(target: "dhtnode.request.GetAll", channel, %key, bytes, "large record skipped: it fits no batch");
    }
}
