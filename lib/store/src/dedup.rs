//! The message ids that commits have seen, held in memory beside the store's own record.
//!
//! The store keeps one record per commit (its number, its time, its ids). A process that asks reads the records that
//! it does not know yet and then answers from memory: a commit of 300 messages writes 5 KB instead of touching 300 places
//! of an index of random keys.

use std::collections::HashMap;

use overstory_model::ids::MessageId;

use crate::commit::DEDUP_LIMIT;

/// Ids and the number of the latest commit that held each.
#[derive(Debug, Default)]
pub(crate) struct SeenIndex {
    ids: HashMap<MessageId, u64>,
    /// All records up to this number are in `ids`.
    last: u64,
}

impl SeenIndex {
    /// The records that are missing are those with higher numbers.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Takes in the record of commit `number`. Records come in ascending order.
    pub(crate) fn add(&mut self, number: u64, ids: impl IntoIterator<Item = MessageId>) {
        self.ids.extend(ids.into_iter().map(|id| (id, number)));
        self.last = self.last.max(number);
    }

    /// Takes in what this process wrote, unless there may be records in between that it has not read.
    pub(crate) fn add_next(&mut self, number: u64, ids: Vec<MessageId>) {
        if number == self.last + 1 {
            self.add(number, ids);
        }
    }

    /// Forgets ids whose latest record has at most this number.
    pub(crate) fn forget_through(&mut self, number: u64) {
        self.ids.retain(|_, latest| *latest > number);
        self.ids.shrink_to(0);
    }

    /// Whether another process' forgetting went past this memory, so that it has to be read anew.
    pub(crate) fn is_bloated(&self) -> bool {
        self.ids.len() as u64 > 2 * DEDUP_LIMIT
    }

    pub(crate) fn contains(&self, id: &MessageId) -> bool {
        self.ids.contains_key(id)
    }
}

/// The bytes of a record: ids one after the other.
pub(crate) fn encode(ids: &[MessageId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

/// The ids of a record; bytes beyond a multiple of sixteen are ignored.
pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = MessageId> {
    bytes.as_chunks::<16>().0.iter().map(|id| MessageId(*id))
}

/// Where the window ends: given records newest first, the first number that may be forgotten with all below it.
///
/// A record stays while it is among the latest `window` ids or younger than the time limit, and goes in any case
/// beyond `limit` ids.
#[derive(Debug)]
pub(crate) struct WindowEnd {
    pub(crate) window: u64,
    pub(crate) limit: u64,
    /// Records made before this time may go.
    pub(crate) before: i64,
    kept: u64,
}

impl WindowEnd {
    pub(crate) const fn new(window: u64, limit: u64, before: i64) -> Self {
        Self { window, limit, before, kept: 0 }
    }

    /// Whether a record of `count` ids made at `at`, the next older one, is beyond the window.
    pub(crate) const fn is_beyond(&mut self, count: u64, at: i64) -> bool {
        let beyond = self.kept >= self.limit || (self.kept >= self.window && at < self.before);
        self.kept += count;
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MessageId {
        MessageId([n; 16])
    }

    #[test]
    fn an_id_seen_again_lives_as_long_as_its_later_record() {
        let mut index = SeenIndex::default();
        index.add(1, [id(1), id(2)]);
        index.add(2, [id(1)]);
        index.forget_through(1);
        assert!(index.contains(&id(1)) && !index.contains(&id(2)));
        assert_eq!(index.last(), 2);
    }

    #[test]
    fn records_survive_encoding() {
        let ids = [id(7), id(9)];
        assert!(decode(&encode(&ids)).eq(ids));
    }

    #[test]
    fn the_window_is_kept_by_count_and_by_age_up_to_the_limit() {
        let mut end = WindowEnd::new(10, 30, 100);
        assert!(!end.is_beyond(10, 50), "the latest ten stay whatever their age");
        assert!(!end.is_beyond(10, 100), "young ones stay beyond the ten");
        assert!(!end.is_beyond(10, 100));
        assert!(end.is_beyond(10, 100), "not beyond thirty");
        let mut end = WindowEnd::new(10, 30, 100);
        assert!(!end.is_beyond(10, 50));
        assert!(end.is_beyond(1, 99));
    }
}
