//! What operators are told.

use overstory_model::State;
use overstory_node::inspect::Finding;

use super::log::{Log, Trouble};

impl Log {
    pub(super) fn bytes_on_disk(&self) -> u64 {
        let next = self.next.as_ref().map_or(0, |fresh| fresh.size);
        self.segments.iter().map(|segment| segment.size).sum::<u64>() + next
    }

    pub(super) fn memory(&self) -> u64 {
        let queues: u64 = self.queues.values().map(|queue| queue.index.memory() + queue.name.capacity() as u64).sum();
        queues + (self.pending.capacity() + self.buffer.capacity()) as u64
    }

    pub(super) fn findings(&self, findings: &mut Vec<Finding>) {
        let mut add = |check, state, text| findings.push(Finding { check, state, text });
        let Trouble { failed, full, lost, damage, remove, .. } = &self.trouble;
        if let Some(text) = failed {
            add("journal_failed", State::Critical, format!("nothing is taken until the node is restarted: {text}"));
        }
        if let Some(text) = full {
            add("journal_full", State::Critical, format!("pushes are refused, no room for the journal: {text}"));
        }
        if *lost > 0 {
            add("journal_lost", State::Critical, format!("{lost} records could not be read from the journal"));
        }
        if let Some(text) = damage {
            add("journal_damaged", State::Major, text.clone());
        }
        if let Some(text) = remove {
            add("journal_remove", State::Minor, format!("an old segment cannot be removed: {text}"));
        }
    }
}
