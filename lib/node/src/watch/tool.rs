//! Watches a tool.

use std::rc::Rc;

use overstory_model::Millis;

use super::{Interval, Snapshot, Subject};
use crate::inspect::ToolInspect;
use crate::stats::Fields;

/// What a tool tells.
pub(crate) struct ToolSubject<S> {
    pub(crate) state: Rc<S>,
}

impl<S: ToolInspect> Subject for ToolSubject<S> {
    fn snapshot(&mut self, at: Millis, with_console: bool) -> Snapshot {
        let (mut findings, mut console) = (Vec::new(), Vec::new());
        self.state.checks(&mut findings);
        if with_console {
            self.state.console(&mut console);
        }
        let (totals, facts) = (self.state.totals(), self.state.facts());
        Snapshot { at, totals, facts, findings, console, ..Snapshot::default() }
    }

    async fn interval(&mut self, at: Millis) -> Interval {
        let mut head = Fields::default();
        self.state.stats(&mut head);
        Interval { at, head, ..Interval::default() }
    }
}
