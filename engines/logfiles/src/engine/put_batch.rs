//! PutBatch: what other nodes send when they give records away (protocol §1.7).

use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::MAX_BATCH;

use super::core::Core;

/// The buffer that batches are decoded to is kept up to this size.
const KEEP_PLAIN: usize = 1 << 20;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer.
    Status(Status),
    /// There was nothing in it: what came before it is to be made durable.
    Empty,
    /// It is no batch: the connection is dropped, nothing was stored.
    Broken(&'static str),
}

/// Stores the records of a batch up to the first that has no value (published) or for which there is no room; none if one
/// is not for this node.
pub(super) fn store(core: &Core, channel: &str, payload: &[u8]) -> Outcome {
    let mut plain = core.plain.borrow_mut();
    plain.clear();
    let outcome = match batch::decode(payload, MAX_BATCH, &mut plain) {
        Ok(()) => store_plain(core, channel, &plain),
        Err(_) => Outcome::Broken("a batch that cannot be decompressed"),
    };
    plain.clear();
    plain.shrink_to(KEEP_PLAIN);
    outcome
}

fn store_plain(core: &Core, channel: &str, plain: &[u8]) -> Outcome {
    if plain.is_empty() {
        return Outcome::Empty;
    }
    let mut ours = true;
    for pair in Pairs::new(plain) {
        let Some(Key(key)) = pair.ok().and_then(|(key, _)| Key::from_hex16(key)) else {
            return Outcome::Broken("a batch whose records are cut or have no proper keys");
        };
        ours &= core.settings.range.holds(key);
    }
    // It would be refused again, however often it comes, and what stands in front of the record stored each time.
    if !ours {
        return Outcome::Status(Status::WrongNode);
    }
    for (key, value) in Pairs::new(plain).flatten() {
        let Some(Key(key)) = Key::from_hex16(key) else { continue };
        if value.is_empty() {
            return Outcome::Status(Status::EmptyValue);
        }
        if let Err(refused) = core.put(channel, key, value) {
            return Outcome::Status(refused.into());
        }
    }
    Outcome::Status(Status::Ok)
}
