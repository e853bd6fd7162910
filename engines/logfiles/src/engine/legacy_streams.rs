//! Legacy replies that go on: batches of records (protocol §1.4).

use std::rc::Rc;

use overstory_node::engine::{LegacyStream, Produced};
use overstory_swarm::wire::put_end;

use super::core::{Action, Core};
use crate::read::{EMPTY_BATCH, Next, Scan};

/// Batches, one of them empty if there are no records, then the end.
pub(super) struct Batches {
    core: Rc<Core>,
    scan: Scan,
    any: bool,
}

impl Batches {
    pub(super) fn new(core: &Rc<Core>, scan: Scan) -> Self {
        Self { core: Rc::clone(core), scan, any: false }
    }
}

impl LegacyStream for Batches {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        match self.scan.poll() {
            Next::Batch(batch) => {
                out.extend_from_slice(&batch);
                self.core.count(Action::Handled, batch.records(), batch.value_bytes());
                self.any = true;
                Produced::More
            }
            Next::Wait => Produced::Idle,
            Next::End if self.any => {
                put_end(out);
                Produced::Done
            }
            Next::End => NoBatches.produce(out),
            Next::Failed => Produced::Failed,
        }
    }
}

/// The answer without records.
pub(super) struct NoBatches;

impl LegacyStream for NoBatches {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        out.extend_from_slice(EMPTY_BATCH);
        put_end(out);
        Produced::Done
    }
}
