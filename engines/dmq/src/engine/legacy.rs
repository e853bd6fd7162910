//! The legacy requests (protocol §1.6), each with the published order of checks.

use std::rc::Rc;

use overstory_node::engine::{LegacySink, LegacyStep, LegacyStream};
use overstory_node::replies::{ChannelNames, put_connections, put_size};
use overstory_node::stats::RequestSpec;
use overstory_node::wake::Waker;
use overstory_swarm::channel;
use overstory_swarm::legacy::dmq::{Decoded, Request, decode};
use overstory_swarm::legacy::{Names, Status};
use overstory_swarm::wire::{put_array, put_end};

use super::core::{Action, Core, Refused};
use super::legacy_streams::{Consume, Produce};
use crate::store::Popped;

const fn spec(code: u8, name: &'static str, tracked: bool) -> RequestSpec {
    RequestSpec { code, name, tracked, timed: tracked }
}

/// The requests: first those that `stats.log` shows, in its order.
pub(super) const REQUESTS: &[RequestSpec] = &[
    spec(10, "Produce", true),
    spec(6, "Consume", true),
    spec(9, "PushMulti", true),
    spec(11, "ProduceMulti", true),
    spec(1, "Push", true),
    spec(2, "Pop", true),
    spec(12, "RemoveChannel", false),
    spec(3, "GetChannels", false),
    spec(4, "GetChannelSize", false),
    spec(5, "GetSize", false),
    spec(8, "GetNumConnections", false),
];

const fn index(request: &Request<'_>) -> usize {
    match request {
        Request::Produce { .. } => 0,
        Request::Consume { .. } => 1,
        Request::PushMulti { .. } => 2,
        Request::ProduceMulti { .. } => 3,
        Request::Push { .. } => 4,
        Request::Pop { .. } => 5,
        Request::RemoveChannel { .. } => 6,
        Request::GetChannels => 7,
        Request::GetChannelSize { .. } => 8,
        Request::GetSize => 9,
        Request::GetNumConnections => 10,
    }
}

/// What a request comes to, its input aside.
enum Answer {
    /// The reply is in the output.
    Done,
    Stream(Box<dyn LegacyStream>),
    Sink(Box<dyn LegacySink>),
}

/// Takes the request at the front of `input`.
#[inline]
pub(super) fn handle(core: &Rc<Core>, waker: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
    let (request, consumed) = match decode(input, &core.limits) {
        Ok(Decoded::Need(bytes)) => return LegacyStep::Need(bytes),
        Ok(Decoded::Request { request, consumed }) => (request, consumed),
        Err(error) => return LegacyStep::Close { reason: error.reason() },
    };
    let index = index(&request);
    match answer(core, waker, &request, out) {
        Answer::Done => LegacyStep::Done { consumed, request: index },
        Answer::Stream(stream) => LegacyStep::Stream { consumed, request: index, stream },
        Answer::Sink(sink) => LegacyStep::Sink { consumed, request: index, sink },
    }
}

#[inline]
fn answer(core: &Rc<Core>, waker: &Waker, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    match *request {
        Request::Push { channel, value } => {
            let pushed = match channel::check(channel) {
                Ok(name) => core.push(name, value).map_or_else(Status::from, |()| Status::Ok),
                Err(_) => Status::BadChannelName,
            };
            status(pushed, out)
        }
        Request::Pop { channel } => match channel::check(channel) {
            Ok(name) => pop(core, name, out),
            Err(_) => status(Status::BadChannelName, out),
        },
        _ => answer_other(core, waker, request, out),
    }
}

fn answer_other(core: &Rc<Core>, waker: &Waker, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    match *request {
        Request::PushMulti { channels, value } => match checked(&channels) {
            Some(names) => status(core.push_all(&names, value).map_or_else(Status::from, |()| Status::Ok), out),
            None => status(Status::BadChannelName, out),
        },
        Request::ProduceMulti { channels } => match checked(&channels) {
            Some(names) => produce(core, &names, waker, out),
            None => status(Status::BadChannelName, out),
        },
        Request::Produce { channel } => match channel::check(channel) {
            Ok(name) => produce(core, &[name], waker, out),
            Err(_) => status(Status::BadChannelName, out),
        },
        Request::Consume { channel } => match channel::check(channel).map(|name| core.subscribe(name, "")) {
            Ok(Some(queue)) => {
                Status::Ok.encode(out);
                Answer::Stream(Box::new(Consume::new(core, queue, waker)))
            }
            Ok(None) => status(Status::Error, out),
            Err(_) => status(Status::BadChannelName, out),
        },
        Request::RemoveChannel { channel } => match channel::check(channel) {
            Ok(name) => {
                core.store.borrow_mut().remove_channel(name);
                status(Status::Ok, out)
            }
            Err(_) => status(Status::BadChannelName, out),
        },
        Request::GetChannels => {
            Status::Ok.encode(out);
            Answer::Stream(Box::new(ChannelNames::new(Rc::clone(core))))
        }
        Request::GetChannelSize { channel } => match channel::check(channel) {
            Ok(name) => {
                let totals = core.store.borrow().channel_totals(name).unwrap_or_default();
                put_size(core.settings.address, totals.records, totals.bytes, out);
                Answer::Done
            }
            Err(_) => status(Status::BadChannelName, out),
        },
        Request::GetSize => {
            let totals = core.totals();
            put_size(core.settings.address, totals.records, totals.bytes, out);
            Answer::Done
        }
        Request::GetNumConnections => {
            put_connections(core.settings.address, core.stats.legacy_connections.get(), out);
            Answer::Done
        }
        Request::Push { .. } | Request::Pop { .. } => Answer::Done,
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Empty => Self::EmptyValue,
            Refused::Full => Self::OutOfMemory,
            Refused::Failed => Self::Error,
        }
    }
}

fn status(status: Status, out: &mut Vec<u8>) -> Answer {
    status.encode(out);
    Answer::Done
}

/// The names of several channels; nothing if one of them is bad.
fn checked<'a>(channels: &Names<'a>) -> Option<Vec<&'a str>> {
    channels.iter().map(|name| channel::check(name).ok()).collect()
}

#[inline]
fn pop(core: &Core, channel: &str, out: &mut Vec<u8>) -> Answer {
    let start = out.len();
    Status::Ok.encode(out);
    let popped = core.store.borrow_mut().pop(channel, &mut |value| {
        put_array(out, value);
        core.count(Action::Popped, 1, value.len() as u64);
    });
    match popped {
        Popped::Taken => {}
        // The published node answers 500 for a channel that is not there, and its client then drops the connection.
        Popped::Empty | Popped::Missing => put_end(out),
        Popped::Subscribed => {
            out.truncate(start);
            Status::Error.encode(out);
        }
    }
    Answer::Done
}

fn produce(core: &Rc<Core>, channels: &[&str], waker: &Waker, out: &mut Vec<u8>) -> Answer {
    Status::Ok.encode(out);
    Answer::Sink(Box::new(Produce::new(core, channels, waker)))
}
