//! Legacy replies that go on: GetAll and its kin, Listen.

use std::rc::Rc;

use overstory_node::engine::{LegacyStream, Produced};
use overstory_swarm::legacy::reply::{Record, put_array_with, put_record, put_records_end};
use overstory_swarm::wire::put_end;

use super::core::{Action, Core};
use super::iterate::Iteration;
use super::watch::{Change, Next, Watch};
use crate::storage::Scan;

/// A stream hands over about so much at a time.
pub(super) const TURN: usize = 64 << 10;

/// GetAll, GetAllKeys, GetAllFilter: batches, the last one maybe empty, then the end.
pub(super) struct Batches {
    core: Rc<Core>,
    iteration: Iteration,
}

impl Batches {
    pub(super) fn new(core: &Rc<Core>, iteration: Iteration) -> Self {
        Self { core: Rc::clone(core), iteration }
    }
}

impl LegacyStream for Batches {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        let mut builders = self.core.builders.borrow_mut();
        let batch = &mut builders.legacy;
        let scan = self.iteration.slice(&self.core, batch);
        if scan == Scan::End || !batch.is_empty() {
            put_array_with(out, |out| batch.finish(out));
        }
        if scan == Scan::Stopped {
            return Produced::More;
        }
        put_end(out);
        Produced::Done
    }
}

/// Listen: what is put from now on, until the channel is removed.
pub(super) struct Listen {
    core: Rc<Core>,
    watch: Watch,
}

impl Listen {
    pub(super) fn new(core: &Rc<Core>, watch: Watch) -> Self {
        Self { core: Rc::clone(core), watch }
    }
}

impl LegacyStream for Listen {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        if self.watch.queue().ended() {
            put_records_end(out);
            return Produced::Done;
        }
        let start = out.len();
        let store = self.core.store.borrow();
        while let Some(next) = self.watch.queue().next() {
            let Next::Change(Change::Put(key)) = next else { continue };
            // A record that was removed meanwhile is left out: removals are not reported.
            let Some(value) = store.get(self.watch.channel(), key) else { continue };
            put_record(out, &Record { key: &key.hex16(), value });
            self.core.count(Action::Forwarded, value.len());
            if out.len() - start >= TURN {
                return Produced::More;
            }
        }
        Produced::Idle
    }
}
