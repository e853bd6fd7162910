//! The neo requests (protocol §2.5). What is wrong is answered with the request's own error, never with silence.

use std::rc::Rc;

use overstory_node::engine::{Begun, NeoRequest, Support};
use overstory_node::stats::RequestSpec;
use overstory_swarm::channel;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dmq::{self, Channels, ConsumeMessage, PopReply, PushReply, Request, code};
use overstory_swarm::wire::MAX_ARRAY;

use super::consume::Consume;
use super::core::{Action, Core};
use crate::store::Popped;
use crate::store::names::check_subscriber;

const fn spec(code: u8, name: &'static str, timed: bool) -> RequestSpec {
    RequestSpec { code, name, tracked: true, timed }
}

/// The requests, in the order of `stats.log`.
pub(super) const REQUESTS: &[RequestSpec] =
    &[spec(code::PUSH, "push", true), spec(code::CONSUME, "consume", false), spec(code::POP, "pop", true)];

/// Whether a request is known.
#[inline]
pub(super) fn supports(code: u8, version: u8) -> Support {
    let index = match code {
        code::PUSH => 0,
        code::CONSUME => 1,
        code::POP => 2,
        _ => return Support::UnknownCode,
    };
    if dmq::version(code) == Some(version) { Support::Yes(index) } else { Support::UnknownVersion }
}

/// Begins a request that is supported.
#[inline]
pub(super) fn begin(core: &Rc<Core>, request: &NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
    match Request::decode(request.code, request.payload) {
        Ok(Request::Push { channels, value }) => out.byte(push(core, channels, value).code()),
        Ok(Request::Pop { channel }) => pop(core, channel, out),
        Ok(Request::Consume { channel, subscriber }) => return consume(core, request, channel, subscriber, out),
        Err(_) => malformed(request.code, out),
    }
    Begun::Done
}

#[inline]
fn push(core: &Core, channels: Channels<'_>, value: &[u8]) -> PushReply {
    // A legacy client could not take it out again.
    if value.len() > MAX_ARRAY {
        return PushReply::Error;
    }
    let pushed = if channels.len() == 1 {
        let channel = channels.iter().next().unwrap_or_default();
        let Ok(channel) = channel::check(channel) else { return PushReply::Error };
        core.push(channel, value)
    } else {
        let mut names = [""; 255];
        for (place, channel) in names.iter_mut().zip(channels.iter()) {
            let Ok(channel) = channel::check(channel) else { return PushReply::Error };
            *place = channel;
        }
        core.push_all(names.get(..channels.len()).unwrap_or_default(), value)
    };
    pushed.map_or(PushReply::Error, |()| PushReply::Pushed)
}

#[inline]
fn pop(core: &Core, channel: &[u8], out: &mut Replies<'_>) {
    /// The code of [`PopReply::Popped`], which is encoded here without a copy in between.
    const POPPED: u8 = 1;
    let reply = match channel::check(channel) {
        Err(_) => PopReply::Error,
        Ok(channel) => {
            let popped = core.store.borrow_mut().pop(channel, &mut |value| {
                let length = (value.len() as u64).to_le_bytes();
                out.concat(&[&[POPPED], &length, value]);
                core.count(Action::Popped, 1, value.len() as u64);
            });
            match popped {
                Popped::Taken => return,
                Popped::Empty | Popped::Missing => PopReply::Empty,
                Popped::Subscribed => PopReply::Subscribed,
            }
        }
    };
    out.message(|out| reply.encode(out));
}

fn consume(
    core: &Rc<Core>,
    request: &NeoRequest<'_>,
    channel: &[u8],
    subscriber: &[u8],
    out: &mut Replies<'_>,
) -> Begun {
    let names = channel::check(channel).and_then(|channel| Ok((channel, check_subscriber(channel, subscriber)?)));
    let subscribed = names.ok().and_then(|(channel, subscriber)| core.subscribe(channel, subscriber));
    match subscribed {
        Some(queue) => {
            out.message(|out| ConsumeMessage::Started.encode(out));
            Begun::Stream(Box::new(Consume::new(core, queue, request.waker)))
        }
        None => {
            out.message(|out| ConsumeMessage::Error.encode(out));
            Begun::Done
        }
    }
}

/// Answers a request whose first message cannot be read.
fn malformed(code: u8, out: &mut Replies<'_>) {
    match code {
        code::PUSH => out.byte(PushReply::Error.code()),
        code::POP => out.message(|out| PopReply::Error.encode(out)),
        _ => out.message(|out| ConsumeMessage::Error.encode(out)),
    }
}
