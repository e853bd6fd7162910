//! What the node tells of itself.

use std::ops::ControlFlow;

use overstory_model::State;
use overstory_node::inspect::{ChannelTotals, DumpFacts, Facts, Finding, Inspect, Totals};

use super::DhtEngine;

impl Inspect for DhtEngine {
    fn totals(&self) -> Totals {
        let totals = self.core.store.borrow().totals();
        Totals { records: totals.records, bytes: totals.bytes }
    }

    fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        let store = self.core.store.borrow();
        for name in store.names_after(after) {
            let Some(channel) = store.channel(name) else { continue };
            if visit(name, ChannelTotals { bytes: channel.bytes(), records: channel.len() }).is_break() {
                return;
            }
        }
    }

    fn facts(&self) -> Facts {
        let store = self.core.store.borrow();
        let range = self.core.range.get();
        Facts {
            range: Some((range.min(), range.max())),
            of_timestamps: false,
            memory: store.memory(),
            memory_limit: Some(store.size_limit()).filter(|limit| *limit > 0),
            channels: store.channel_count() as u64,
            load_rejected: self.load_rejected.get(),
            dump: Some(self.dump_facts.borrow().clone()),
        }
    }

    fn checks(&self, findings: &mut Vec<Finding>) {
        if let Some(problem) = &*self.backup_problem.borrow() {
            findings.push(Finding { check: "backup", state: State::Major, text: format!("backup failed: {problem}") });
        }
    }

    fn console(&self, lines: &mut Vec<String>) {
        if self.redistributing() {
            lines.push(format!("redistributing; range {}", self.core.range.get()));
        }
    }
}

impl DhtEngine {
    /// Says how many records were rejected when the data was loaded.
    pub fn set_load_rejected(&self, records: u64) {
        self.load_rejected.set(records);
    }

    /// Changes what is known about dumps.
    pub fn note_dump(&self, change: impl FnOnce(&mut DumpFacts)) {
        change(&mut self.dump_facts.borrow_mut());
    }

    /// Says what is wrong with the last backup, or that nothing is.
    pub fn note_backup(&self, problem: Option<String>) {
        self.backup_problem.replace(problem);
    }
}
