//! The second half of an Update that began with GetRecord, and of a Remove that has to wait.

use std::rc::Rc;

use overstory_node::engine::{Flow, NeoStream, Produced, Violation};
use overstory_swarm::key::Key;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dht::{RemoveReply, UpdateAnswer, UpdateReply};
use overstory_swarm::neo::message::BadMessage;

use super::core::Core;
use super::neo::replace;

/// An Update whose client was told the value and says what becomes of it.
pub(super) struct Update {
    core: Rc<Core>,
    channel: Box<str>,
    key: Key,
}

impl Update {
    pub(super) fn new(core: &Rc<Core>, channel: &str, key: Key) -> Self {
        Self { core: Rc::clone(core), channel: channel.into(), key }
    }
}

impl NeoStream for Update {
    fn message(&mut self, payload: &[u8], out: &mut Replies<'_>) -> Result<Flow, Violation> {
        let reply = match UpdateAnswer::decode(payload) {
            Ok(UpdateAnswer::UpdateRecord { original_hash, value }) => {
                match replace(&self.core, &self.channel, self.key, original_hash, value) {
                    // The key was given away meanwhile; the client does not know this answer here (protocol §2.4).
                    UpdateReply::WrongNode => UpdateReply::Error,
                    reply => reply,
                }
            }
            Ok(UpdateAnswer::RemoveRecord) => {
                self.core.remove(&self.channel, self.key);
                UpdateReply::Ok
            }
            Ok(UpdateAnswer::LeaveRecord) => UpdateReply::Ok,
            Err(BadMessage::UnknownCode(_)) => return Err(Violation("an unknown message to an Update")),
            Err(_) => UpdateReply::Error,
        };
        out.message(|out| reply.encode(out));
        Ok(Flow::Done)
    }

    fn produce(&mut self, _: &mut Replies<'_>) -> Produced {
        Produced::Idle
    }
}

/// A Remove of a record that is on its way to another node: answered once that node has answered.
pub(super) struct Removal {
    core: Rc<Core>,
    number: u64,
    reply: RemoveReply,
}

impl Removal {
    pub(super) fn new(core: &Rc<Core>, number: u64, reply: RemoveReply) -> Self {
        Self { core: Rc::clone(core), number, reply }
    }
}

impl NeoStream for Removal {
    fn message(&mut self, _: &[u8], _: &mut Replies<'_>) -> Result<Flow, Violation> {
        Err(Violation("a message to a Remove"))
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        if !self.core.redistribution.has_landed(self.number) {
            return Produced::Idle;
        }
        out.byte(self.reply.code());
        Produced::Done
    }
}
