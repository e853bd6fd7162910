//! PutBatch: what other nodes send when they give a part of their range away (protocol §1.5, §3.1).
//!
//! A record that is there already is kept. The node that sends has given its range away before it sends, and takes no
//! more values for it; so whatever this node was given by a client since then is newer than the batch, which was read
//! before. Were the batch to overwrite it, a put that was acknowledged during a redistribution would be lost. It also
//! makes it harmless to send a batch twice, as happens when its reply is lost.

use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;

use super::core::{Action, Core};

/// Bytes that a batch decodes to at most, unless one record of this node's own `batch_size` needs more. The published
/// nodes send 64 KiB.
const MAX_PLAIN: usize = 4 << 20;

/// The buffer that batches are decoded to is kept up to this size.
const KEEP_PLAIN: usize = 256 << 10;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer.
    Status(Status),
    /// It is no batch: the connection is dropped, nothing was stored.
    Broken(&'static str),
}

/// Stores the records of a batch up to the first that cannot be.
pub(super) fn store(core: &Core, channel: &str, payload: &[u8]) -> Outcome {
    let mut plain = core.plain.borrow_mut();
    plain.clear();
    let limit = MAX_PLAIN.max(core.settings.batch_size.saturating_add(32));
    let outcome = match batch::decode(payload, limit, &mut plain) {
        Ok(()) => store_plain(core, channel, &plain),
        Err(_) => Outcome::Broken("a batch that cannot be decompressed"),
    };
    plain.clear();
    plain.shrink_to(KEEP_PLAIN);
    outcome
}

fn store_plain(core: &Core, channel: &str, plain: &[u8]) -> Outcome {
    let whole = Pairs::new(plain).all(|pair| pair.is_ok_and(|(key, _)| Key::from_hex16(key).is_some()));
    if !whole {
        return Outcome::Broken("a batch whose records are cut or have no proper keys");
    }
    let mut store = core.store.borrow_mut();
    let mut total = store.totals().bytes;
    for (key, value) in Pairs::new(plain).flatten() {
        let Some(key) = Key::from_hex16(key) else { continue };
        if value.is_empty() {
            return Outcome::Status(Status::EmptyValue);
        }
        if !core.responsible(key) {
            return Outcome::Status(Status::WrongNode);
        }
        if value.len() > core.settings.batch_size {
            // It would not be loaded again after a restart.
            return Outcome::Status(Status::ValueTooBig);
        }
        if store.contains(channel, key) {
            continue;
        }
        total = total.saturating_add(value.len() as u64 + 8);
        if core.redistribution.refuses(total) || store.put(channel, key, value).is_err() {
            return Outcome::Status(Status::OutOfMemory);
        }
        core.count(Action::Written, value.len());
    }
    // An empty batch makes the channel, as any batch does.
    store.create_channel(channel);
    Outcome::Status(Status::Ok)
}
