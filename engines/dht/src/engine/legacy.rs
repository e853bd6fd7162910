//! The legacy requests (protocol §1.5), each with the published order of checks.

use std::rc::Rc;

use overstory_node::engine::LegacyStep;
use overstory_node::peer_node;
use overstory_node::replies::{ChannelNames, put_connections, put_size};
use overstory_node::stats::RequestSpec;
use overstory_node::wake::Waker;
use overstory_swarm::channel;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::dht::{Decoded, Request, TooLong, VERSION, decode};
use overstory_swarm::legacy::reply::{put_boolean, put_range};
use overstory_swarm::legacy::{Ranges, Status};
use overstory_swarm::wire::put_array;
use tokio::sync::oneshot;

use super::core::{Action, Core, Refused};
use super::iterate::{Filter, Iteration, Shape};
use super::legacy_streams::{Batches, Listen};
use super::put_batch::{self, Outcome};
use super::redistribution::{self, Target};

const fn spec(code: u8, name: &'static str, tracked: bool) -> RequestSpec {
    RequestSpec { code, name, tracked, timed: tracked }
}

/// The requests: first those that `stats.log` shows, in its order.
pub(super) const REQUESTS: &[RequestSpec] = &[
    spec(29, "GetAll", true),
    spec(33, "Redistribute", true),
    spec(30, "GetAllKeys", true),
    spec(12, "Remove", true),
    spec(34, "PutBatch", true),
    spec(25, "Listen", true),
    spec(7, "Get", true),
    spec(1, "Put", true),
    spec(11, "Exists", true),
    spec(31, "GetAllFilter", true),
    spec(17, "GetChannels", false),
    spec(18, "GetChannelSize", false),
    spec(19, "GetSize", false),
    spec(20, "GetResponsibleRange", false),
    spec(22, "RemoveChannel", false),
    spec(23, "GetNumConnections", false),
    spec(24, "GetVersion", false),
];

const PUT: usize = 7;

const fn index(request: &Request<'_>) -> usize {
    match request {
        Request::GetAll { .. } => 0,
        Request::Redistribute { .. } => 1,
        Request::GetAllKeys { .. } => 2,
        Request::Remove { .. } => 3,
        Request::PutBatch { .. } => 4,
        Request::Listen { .. } => 5,
        Request::Get { .. } => 6,
        Request::Put { .. } => PUT,
        Request::Exists { .. } => 8,
        Request::GetAllFilter { .. } => 9,
        Request::GetChannels => 10,
        Request::GetChannelSize { .. } => 11,
        Request::GetSize => 12,
        Request::GetResponsibleRange => 13,
        Request::RemoveChannel { .. } => 14,
        Request::GetNumConnections => 15,
        Request::GetVersion => 16,
    }
}

/// What a request comes to, its input aside.
enum Answer {
    /// The reply is in the output.
    Done,
    Stream(Box<dyn overstory_node::engine::LegacyStream>),
    Later(oneshot::Receiver<Status>),
    Close(&'static str),
}

/// Takes the request at the front of `input`.
pub(super) fn handle(core: &Rc<Core>, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
    let (request, consumed) = match decode(input, &core.limits) {
        Ok(Decoded::Need(bytes)) => return LegacyStep::Need(bytes),
        Ok(Decoded::Request { request, consumed }) => (request, consumed),
        Ok(Decoded::TooLong(put)) => return too_long(core, &put, out),
        Err(error) => return LegacyStep::Close { reason: error.reason() },
    };
    let index = index(&request);
    match answer(core, waker, &request, out) {
        Answer::Done => LegacyStep::Done { consumed, request: index },
        Answer::Stream(stream) => LegacyStep::Stream { consumed, request: index, stream },
        Answer::Later(status) => {
            let reply = Box::pin(async move {
                // The sender is dropped when the node stops.
                status.await.unwrap_or(Status::Error).code().to_le_bytes().to_vec()
            });
            LegacyStep::Later { consumed, request: index, reply }
        }
        Answer::Close(reason) => LegacyStep::Close { reason },
    }
}

/// Answers a Put whose value was too long to be kept; the value itself is thrown away first.
fn too_long(core: &Core, put: &TooLong<'_>, out: &mut Vec<u8>) -> LegacyStep {
    let status = if channel::check(put.channel).is_err() {
        Status::BadChannelName
    } else {
        match Key::from_hex16(put.key) {
            None => return LegacyStep::Close { reason: BAD_KEY },
            Some(key) if !core.responsible(key) => Status::WrongNode,
            Some(_) => Status::ValueTooBig,
        }
    };
    status.encode(out);
    LegacyStep::Discard { consumed: put.consumed, more: put.more, request: PUT }
}

const BAD_KEY: &str = "a key that is not 16 hexadecimal digits";

fn answer(core: &Rc<Core>, waker: &Waker, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let name = match *request {
        Request::Put { channel, .. }
        | Request::Get { channel, .. }
        | Request::Exists { channel, .. }
        | Request::Remove { channel, .. }
        | Request::GetChannelSize { channel }
        | Request::RemoveChannel { channel }
        | Request::Listen { channel }
        | Request::GetAll { channel }
        | Request::GetAllKeys { channel }
        | Request::GetAllFilter { channel, .. }
        | Request::PutBatch { channel, .. } => match channel::check(channel) {
            Ok(name) => name,
            Err(_) => return status(Status::BadChannelName, out),
        },
        _ => "",
    };
    match *request {
        Request::Put { key, value, .. } => {
            let Some(key) = Key::from_hex16(key) else { return Answer::Close(BAD_KEY) };
            let stored = core.put(name, key, value, core.limits.value);
            status(stored.map_or_else(Status::from, |()| Status::Ok), out)
        }
        Request::Get { key, .. } => get(core, name, key, out),
        Request::Exists { key, .. } => {
            let found = Key::from_hex16(key).is_some_and(|key| core.store.borrow().contains(name, key));
            Status::Ok.encode(out);
            put_boolean(out, found);
            Answer::Done
        }
        Request::Remove { key, .. } => {
            let Some(key) = Key::from_hex16(key) else { return Answer::Close(BAD_KEY) };
            if !core.responsible(key) {
                return status(Status::WrongNode, out);
            }
            core.remove(name, key);
            status(Status::Ok, out)
        }
        Request::GetChannelSize { .. } => {
            let (records, bytes) =
                core.store.borrow().channel(name).map_or((0, 0), |channel| (channel.len(), channel.bytes()));
            put_size(core.settings.address, records, bytes, out);
            Answer::Done
        }
        Request::GetSize => {
            let totals = core.store.borrow().totals();
            put_size(core.settings.address, totals.records, totals.bytes, out);
            Answer::Done
        }
        Request::RemoveChannel { .. } => {
            core.remove_channel(name);
            status(Status::Ok, out)
        }
        Request::Listen { .. } => {
            core.store.borrow_mut().create_channel(name);
            Status::Ok.encode(out);
            Answer::Stream(Box::new(Listen::new(core, core.watchers.listen(name, waker))))
        }
        Request::GetAll { .. } => batches(core, name, Shape::LegacyPairs, Filter::None, out),
        Request::GetAllKeys { .. } => batches(core, name, Shape::LegacyKeys, Filter::None, out),
        Request::GetAllFilter { filter, .. } => {
            let filter = if filter.is_empty() { Filter::Nothing } else { Filter::holds(filter) };
            batches(core, name, Shape::LegacyPairs, filter, out)
        }
        Request::PutBatch { batch, .. } => match put_batch::store(core, name, batch) {
            Outcome::Status(code) => status(code, out),
            Outcome::Broken(reason) => Answer::Close(reason),
        },
        Request::Redistribute { min, max, nodes } => redistribute(core, min, max, &nodes, out),
        Request::GetChannels => {
            Status::Ok.encode(out);
            Answer::Stream(Box::new(ChannelNames::new(Rc::clone(core))))
        }
        Request::GetResponsibleRange => {
            let range = core.range.get();
            Status::Ok.encode(out);
            put_range(out, range.min(), range.max());
            Answer::Done
        }
        Request::GetNumConnections => {
            put_connections(core.settings.address, core.stats.legacy_connections.get(), out);
            Answer::Done
        }
        Request::GetVersion => {
            Status::Ok.encode(out);
            put_array(out, VERSION);
            Answer::Done
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::WrongNode => Self::WrongNode,
            Refused::TooLong => Self::ValueTooBig,
            Refused::Empty => Self::EmptyValue,
            Refused::Full => Self::OutOfMemory,
        }
    }
}

fn status(status: Status, out: &mut Vec<u8>) -> Answer {
    status.encode(out);
    Answer::Done
}

fn get(core: &Core, channel: &str, key: &[u8], out: &mut Vec<u8>) -> Answer {
    let store = core.store.borrow();
    let value = Key::from_hex16(key).and_then(|key| store.get(channel, key));
    if let Some(value) = value {
        core.count(Action::Read, value.len());
    }
    Status::Ok.encode(out);
    put_array(out, value.unwrap_or_default());
    Answer::Done
}

fn batches(core: &Rc<Core>, channel: &str, shape: Shape, filter: Filter, out: &mut Vec<u8>) -> Answer {
    Status::Ok.encode(out);
    Answer::Stream(Box::new(Batches::new(core, Iteration::new(channel, None, shape, filter))))
}

fn redistribute(core: &Rc<Core>, min: u64, max: u64, nodes: &Ranges<'_>, out: &mut Vec<u8>) -> Answer {
    let target = |node: overstory_swarm::legacy::NodeRange<'_>| {
        let range = HashRange::new(node.min, node.max).ok()?;
        Some(Target { address: peer_node::address(&node.node)?, range })
    };
    let targets: Option<Vec<Target>> = nodes.iter().map(target).collect();
    let started = match (HashRange::new(min, max), targets) {
        (Ok(range), Some(targets)) => redistribution::start(core, range, targets),
        _ => Err("the hash ranges or addresses are not valid"),
    };
    match started {
        Ok(done) => Answer::Later(done),
        Err(reason) => {
            tracing::warn!(target: "dhtnode.request.RedistributeRequest", reason, "redistribution refused");
            status(Status::Error, out)
        }
    }
}
