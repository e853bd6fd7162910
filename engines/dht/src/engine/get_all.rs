//! neo GetAll (protocol §2.4, §2.7).
//!
//! ```text
//! running <-> suspended        Suspend, Resume: Ack, then it is so
//!    |            |
//!    v            v            Stop: Ack, and it is over
//! finished                     the last batch, Finished; controls are ignored until the client's Ack
//! ```

use std::rc::Rc;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dht::{self, Control, GetAllMessage};

use super::core::Core;
use super::iterate::{Filter, Iteration, Shape};
use crate::storage::Scan;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Suspended,
    Finished,
}

/// A GetAll, from Started to the last acknowledgement.
pub(super) struct GetAll {
    core: Rc<Core>,
    iteration: Iteration,
    state: State,
}

impl GetAll {
    pub(super) fn new(core: &Rc<Core>, channel: &str, request: &dht::GetAll<'_>) -> Self {
        let shape = if request.keys_only { Shape::NeoKeys } else { Shape::NeoPairs };
        let filter = if request.filter.is_empty() { Filter::None } else { Filter::holds(request.filter) };
        Self {
            core: Rc::clone(core),
            iteration: Iteration::new(channel, request.after, shape, filter),
            state: if request.start_suspended { State::Suspended } else { State::Running },
        }
    }
}

impl NeoStream for GetAll {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        let control = Control::decode(payload).map_err(|_| Violation("an unknown control message to a GetAll"))?;
        let next = match (self.state, control) {
            (State::Finished, Control::Ack) => return Ok(Flow::Done),
            (State::Finished, _) => return Ok(Flow::Continue),
            (_, Control::Ack) => return Err(Violation("an acknowledgement of a GetAll that is not finished")),
            (_, Control::Suspend) => State::Suspended,
            (_, Control::Resume) => State::Running,
            (_, Control::Stop) => {
                out.byte(Control::Ack.code());
                return Ok(Flow::Done);
            }
        };
        self.state = next;
        out.byte(Control::Ack.code());
        Ok(Flow::Continue)
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if self.state != State::Running {
            return Produced::Idle;
        }
        let mut builders = self.core.builders.borrow_mut();
        let batch = &mut builders.neo;
        let scan = self.iteration.slice(&self.core, batch);
        if scan == Scan::End || !batch.is_empty() {
            out.message(|out| GetAllMessage::encode_batch(out, |out| batch.finish(out)));
        }
        if scan == Scan::Stopped {
            return Produced::More;
        }
        out.message(|out| GetAllMessage::Finished.encode(out));
        self.state = State::Finished;
        Produced::Idle
    }
}
