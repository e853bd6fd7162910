//! neo GetRange (protocol §2.6), from Started to its end.
//!
//! ```text
//! reading  ──Records──▶  sent        Continue: back to reading
//!    │                     │         Stop, at any time: Stopped, and it is over
//!    ▼
//! finished                           whatever comes is ignored until the client's Ack
//! ```
//!
//! A read that fails ends with Error, and so does one that left out records on which its pattern takes too many steps:
//! the client has all others, and learns that these may be missing.

use std::rc::Rc;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dls::{GetRangeControl, GetRangeMessage};

use super::core::{Action, Core};
use crate::read::{Next, Scan};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Sent,
    Finished,
}

/// A GetRange that was started.
pub(super) struct GetRange {
    core: Rc<Core>,
    /// Gone when it is finished.
    scan: Option<Scan>,
    state: State,
}

impl GetRange {
    pub(super) fn new(core: &Rc<Core>, scan: Scan) -> Self {
        Self { core: Rc::clone(core), scan: Some(scan), state: State::Reading }
    }
}

impl NeoStream for GetRange {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        match (self.state, GetRangeControl::decode(payload)) {
            (State::Finished, Ok(GetRangeControl::Ack)) => Ok(Flow::Done),
            (State::Finished, _) => Ok(Flow::Continue),
            (State::Sent, Ok(GetRangeControl::Continue)) => {
                self.state = State::Reading;
                Ok(Flow::Continue)
            }
            (_, Ok(GetRangeControl::Stop)) => {
                out.message(|out| GetRangeMessage::Stopped.encode(out));
                Ok(Flow::Done)
            }
            (State::Reading, Ok(GetRangeControl::Continue)) => {
                Err(Violation("a Continue to a GetRange that sent no batch"))
            }
            (_, Ok(GetRangeControl::Ack)) => Err(Violation("an acknowledgement of a GetRange that is not finished")),
            (_, Err(_)) => Err(Violation("an unknown control message to a GetRange")),
        }
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.state != State::Reading {
            return Produced::Idle;
        }
        match self.scan.as_mut().map_or(Next::End, Scan::poll) {
            Next::Batch(batch) => {
                out.bytes(&batch);
                self.core.count(Action::Handled, batch.records(), batch.value_bytes());
                self.state = State::Sent;
            }
            Next::Wait => {}
            Next::End if self.scan.as_ref().is_none_or(|scan| scan.undecided() == 0) => {
                out.message(|out| GetRangeMessage::Finished.encode(out));
                self.scan = None;
                self.state = State::Finished;
            }
            Next::End | Next::Failed => {
                out.message(|out| GetRangeMessage::Error.encode(out));
                return Produced::Done;
            }
        }
        Produced::Idle
    }
}
