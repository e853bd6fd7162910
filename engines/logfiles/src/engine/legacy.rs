//! The legacy requests (protocol §1.7), each with the published order of checks.

use std::rc::Rc;

use overstory_node::engine::{LegacyStep, LegacyStream, Peer};
use overstory_node::peer_node;
use overstory_node::replies::{ChannelNames, put_connections, put_size};
use overstory_node::stats::RequestSpec;
use overstory_node::wake::Waker;
use overstory_swarm::channel;
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dls::{Decoded, Interval, MAX_VALUE, Request, VERSION, decode, mode};
use overstory_swarm::legacy::reply::put_range;
use overstory_swarm::legacy::{Nodes, Status};
use overstory_swarm::wire::put_array;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::core::{Core, Refused};
use super::legacy_streams::{Batches, NoBatches};
use super::put_batch::{self, Outcome};
use super::redistribution;
use crate::bucket::{KeyRange, Ranges};
use crate::filter::{Filter, PatternError};
use crate::read::Shape;
use crate::storage::Storage;

const fn spec(code: u8, name: &'static str, tracked: bool) -> RequestSpec {
    RequestSpec { code, name, tracked, timed: tracked }
}

/// The requests: first those that `stats.log` shows, in its order.
pub(super) const REQUESTS: &[RequestSpec] = &[
    spec(29, "GetAll", true),
    spec(35, "Redistribute", true),
    spec(34, "GetRangeRegex", true),
    spec(32, "GetRangeFilter", true),
    spec(36, "PutBatch", true),
    spec(28, "GetRange", true),
    spec(3, "Put", true),
    spec(31, "GetAllFilter", true),
    spec(17, "GetChannels", false),
    spec(18, "GetChannelSize", false),
    spec(19, "GetSize", false),
    spec(20, "GetResponsibleRange", false),
    spec(22, "RemoveChannel", false),
    spec(23, "GetNumConnections", false),
    spec(24, "GetVersion", false),
];

const fn index(request: &Request<'_>) -> usize {
    match request {
        Request::GetAll { .. } => 0,
        Request::Redistribute { .. } => 1,
        Request::GetRangeRegex { .. } => 2,
        Request::GetRangeFilter { .. } => 3,
        Request::PutBatch { .. } => 4,
        Request::GetRange { .. } => 5,
        Request::Put { .. } => 6,
        Request::GetAllFilter { .. } => 7,
        Request::GetChannels => 8,
        Request::GetChannelSize { .. } => 9,
        Request::GetSize => 10,
        Request::GetResponsibleRange => 11,
        Request::RemoveChannel { .. } => 12,
        Request::GetNumConnections => 13,
        Request::GetVersion => 14,
    }
}

/// What a request comes to, its input aside.
enum Answer {
    /// The reply is in the output.
    Done,
    Stream(Box<dyn LegacyStream>),
    Later(oneshot::Receiver<Status>),
    Close(&'static str),
}

/// Takes the request at the front of `input`.
#[inline]
pub(super) fn handle(core: &Rc<Core>, peer: &Peer, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
    let (request, consumed) = match decode(input, &core.limits) {
        Ok(Decoded::Need(bytes)) => return LegacyStep::Need(bytes),
        Ok(Decoded::Request { request, consumed }) => (request, consumed),
        Err(error) => return LegacyStep::Close { reason: error.reason() },
    };
    let index = index(&request);
    let answer = match request {
        Request::Put { channel, key, value } => put(core, channel, key, value, out),
        _ => answer(core, peer, waker, &request, out),
    };
    match answer {
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

#[inline]
fn put(core: &Core, channel: &[u8], key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Answer {
    let Ok(name) = channel::check(channel) else { return status(Status::BadChannelName, out) };
    let Some(Key(key)) = Key::from_hex16(key) else {
        return Answer::Close("a key that is not 16 hexadecimal digits");
    };
    let stored = match value.len() {
        0 => Status::EmptyValue,
        1..=MAX_VALUE => core.put(name, key, value).map_or_else(Status::from, |()| Status::Ok),
        _ => Status::OutOfMemory,
    };
    status(stored, out)
}

fn answer(core: &Rc<Core>, peer: &Peer, waker: &Waker, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let channel = match *request {
        Request::Put { channel, .. }
        | Request::GetChannelSize { channel }
        | Request::RemoveChannel { channel }
        | Request::GetRange { channel, .. }
        | Request::GetAll { channel }
        | Request::GetAllFilter { channel, .. }
        | Request::GetRangeFilter { channel, .. }
        | Request::GetRangeRegex { channel, .. }
        | Request::PutBatch { channel, .. } => match channel::check(channel) {
            Ok(name) => name,
            Err(_) => return status(Status::BadChannelName, out),
        },
        _ => "",
    };
    let mut batches = |range: Result<Limited, Status>, filter: Result<Filter, Status>| {
        let (range, filter) = match (range, filter) {
            (Ok(range), Ok(filter)) => (range, filter),
            (Err(refused), _) | (_, Err(refused)) => return status(refused, out),
        };
        Status::Ok.encode(out);
        Answer::Stream(match range {
            Limited::Some(range) => {
                let scan = core.read(channel, Ranges::one(range), filter, Shape::Legacy, peer, waker);
                Box::new(Batches::new(core, scan))
            }
            Limited::Nothing => Box::new(NoBatches),
        })
    };
    match *request {
        Request::Put { channel, key, value } => put(core, channel, key, value, out),
        Request::GetAll { .. } => batches(Ok(Limited::Some(KeyRange::ALL)), Ok(Filter::none())),
        Request::GetAllFilter { filter, .. } => batches(Ok(Limited::Some(KeyRange::ALL)), substring(filter)),
        Request::GetRange { range, .. } => batches(limits(&range), Ok(Filter::none())),
        Request::GetRangeFilter { range, filter, .. } => batches(limits(&range), substring(filter)),
        Request::GetRangeRegex { range, mode, pattern, .. } => batches(limits(&range), filter(mode, pattern)),
        Request::PutBatch { batch, .. } => match put_batch::store(core, channel, batch) {
            Outcome::Status(code) => status(code, out),
            Outcome::Empty => settle(core, channel),
            Outcome::Broken(reason) => Answer::Close(reason),
        },
        Request::Redistribute { fraction, nodes } => redistribute(core, fraction, &nodes, out),
        Request::RemoveChannel { .. } => remove(core, channel, out),
        Request::GetChannels => {
            Status::Ok.encode(out);
            Answer::Stream(Box::new(ChannelNames::new(Rc::clone(core))))
        }
        Request::GetChannelSize { .. } => {
            let totals = core.storage.channel_totals(channel).unwrap_or_default();
            put_size(core.settings.address, totals.records, totals.bytes, out);
            Answer::Done
        }
        Request::GetSize => {
            let totals = core.totals();
            put_size(core.settings.address, totals.records, totals.bytes, out);
            Answer::Done
        }
        Request::GetResponsibleRange => {
            let range = core.settings.range;
            Status::Ok.encode(out);
            put_range(out, range.low, range.high);
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
            Refused::Invalid => Self::ValueTooBig,
            Refused::NoRoom => Self::OutOfMemory,
            Refused::Failed => Self::Error,
        }
    }
}

fn status(status: Status, out: &mut Vec<u8>) -> Answer {
    status.encode(out);
    Answer::Done
}

/// Keys from one to another, or none at all.
enum Limited {
    Some(KeyRange),
    Nothing,
}

/// What is between two limits. The published node finds nothing between limits that are no keys: it does not say so.
fn limits(range: &Interval<'_>) -> Result<Limited, Status> {
    let key = |text| Key::from_hex16(text).map(|Key(key)| key).ok_or(Status::InvalidRequest);
    let (low, high) = (key(range.low)?, key(range.high)?);
    Ok(KeyRange::new(low, high).map_or(Limited::Nothing, Limited::Some))
}

fn substring(bytes: &[u8]) -> Result<Filter, Status> {
    Filter::substring(bytes).map_err(refused)
}

fn filter(of: u8, pattern: &[u8]) -> Result<Filter, Status> {
    match of {
        mode::STRING_MATCH => substring(pattern),
        mode::PCRE => Filter::pcre(pattern, false).map_err(refused),
        mode::PCRE_CASE_INSENSITIVE => Filter::pcre(pattern, true).map_err(refused),
        // The published node dies of it.
        _ => Err(Status::Error),
    }
}

fn refused(_: PatternError) -> Status {
    Status::Error
}

fn remove(core: &Core, channel: &str, out: &mut Vec<u8>) -> Answer {
    if !core.storage.has_channel(channel) {
        return status(Status::Ok, out);
    }
    let (done, removed) = oneshot::channel();
    let (storage, channel) = (Rc::<Storage>::clone(&core.storage), channel.to_owned());
    // It goes on when the client has gone.
    tokio::task::spawn_local(async move {
        let status = match storage.remove_channel(&channel).await {
            Ok(_) => Status::Ok,
            Err(problem) => {
                error!(target: "node.storage", channel, %problem, "files of a removed channel are still there");
                Status::Error
            }
        };
        // The client may have gone.
        let _ = done.send(status);
    });
    Answer::Later(removed)
}

/// Answers when everything that came before is durable: by an empty batch another node asks for that, before it removes
/// what it has sent. The published node answers one with Ok as well.
fn settle(core: &Core, channel: &str) -> Answer {
    let (done, settled) = oneshot::channel();
    let (storage, channel) = (Rc::<Storage>::clone(&core.storage), channel.to_owned());
    tokio::task::spawn_local(async move {
        let status = match storage.settle(&channel).await {
            Ok(()) => Status::Ok,
            Err(problem) => {
                error!(target: "node.storage", channel, %problem, "records that another node has sent are not durable");
                Status::Error
            }
        };
        // The client may have gone.
        let _ = done.send(status);
    });
    Answer::Later(settled)
}

fn redistribute(core: &Rc<Core>, fraction: f32, nodes: &Nodes<'_>, out: &mut Vec<u8>) -> Answer {
    let targets: Option<Vec<_>> = nodes.iter().map(|node| peer_node::address(&node)).collect();
    let started =
        targets.ok_or("an address is none").and_then(|targets| redistribution::start(core, fraction, targets));
    match started {
        Ok(done) => Answer::Later(done),
        Err(reason) => {
            warn!(target: "node.request", reason, "redistribution refused");
            status(Status::Error, out)
        }
    }
}
