//! The neo requests (protocol §2.4). What is wrong is answered with the request's own error, never with silence.

use std::rc::Rc;

use overstory_node::engine::{Begun, NeoRequest, NeoStream, Produced, Support};
use overstory_node::stats::RequestSpec;
use overstory_swarm::channel;
use overstory_swarm::key::{Key, fnv1a};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dht::{
    self, ChannelsMessage, ExistsReply, GetAllMessage, GetReply, MirrorMessage, PutReply, RangeLimits,
    RemoveChannelReply, RemoveReply, Request, UpdateReply, UpdateStart, code,
};

use super::core::{Action, Core, Refused};
use super::get_all::GetAll;
use super::mirror::Mirror;
use super::update::{Removal, Update};

/// The client that may remove channels.
const ADMIN: &str = "admin";

const fn spec(code: u8, name: &'static str, timed: bool) -> RequestSpec {
    RequestSpec { code, name, tracked: true, timed }
}

/// The requests, in the order of `stats.log`.
pub(super) const REQUESTS: &[RequestSpec] = &[
    spec(code::GET_ALL, "GetAll", false),
    spec(code::UPDATE, "Update", true),
    spec(code::REMOVE, "Remove", true),
    spec(code::GET, "Get", true),
    spec(code::PUT, "Put", true),
    spec(code::REMOVE_CHANNEL, "RemoveChannel", false),
    spec(code::MIRROR, "Mirror", false),
    spec(code::EXISTS, "Exists", true),
    spec(code::GET_CHANNELS, "GetChannels", false),
    spec(code::GET_HASH_RANGE, "GetHashRange", false),
];

/// Whether a request is known.
pub(super) fn supports(code: u8, version: u8) -> Support {
    let index = match code {
        code::GET_HASH_RANGE => 9,
        code::PUT => 4,
        code::GET => 3,
        code::MIRROR => 6,
        code::GET_ALL => 0,
        code::GET_CHANNELS => 8,
        code::EXISTS => 7,
        code::REMOVE => 2,
        code::REMOVE_CHANNEL => 5,
        code::UPDATE => 1,
        _ => return Support::UnknownCode,
    };
    if version == dht::VERSION { Support::Yes(index) } else { Support::UnknownVersion }
}

/// Begins a request that is supported.
#[inline]
pub(super) fn begin(core: &Rc<Core>, request: &NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
    match Request::decode(request.code, request.payload) {
        Ok(Request::Put { channel, key, value }) => {
            out.byte(put(core, channel, key, value).code());
            Begun::Done
        }
        Ok(Request::Get { channel, key }) => {
            get(core, channel, key, out);
            Begun::Done
        }
        Ok(other) => begin_other(core, request, &other, out),
        Err(_) => {
            malformed(request.code, out);
            Begun::Done
        }
    }
}

fn put(core: &Core, channel: &[u8], key: Key, value: &[u8]) -> PutReply {
    let Ok(channel) = channel::check(channel) else { return PutReply::Error };
    match core.put(channel, key, value, core.neo_value_limit()) {
        Ok(()) => PutReply::Put,
        Err(Refused::WrongNode) => PutReply::WrongNode,
        Err(Refused::Empty | Refused::TooLong | Refused::Full) => PutReply::Error,
    }
}

/// Answers a Get. A record that is here is served even if the node gave its key away: it may still be on its way.
fn get(core: &Core, channel: &[u8], key: Key, out: &mut Replies<'_>) {
    let Ok(channel) = channel::check(channel) else { return out.byte(GetReply::Error.code()) };
    match core.store.borrow().get(channel, key) {
        Some(value) => {
            core.count(Action::Read, value.len());
            out.byte(GetReply::Got.code());
            out.array(value);
        }
        None if core.responsible(key) => out.byte(GetReply::NoRecord.code()),
        None => out.byte(GetReply::WrongNode.code()),
    }
}

fn begin_other(core: &Rc<Core>, request: &NeoRequest<'_>, what: &Request<'_>, out: &mut Replies<'_>) -> Begun {
    match *what {
        Request::Exists { channel, key } => {
            let reply = match channel::check(channel) {
                Err(_) => ExistsReply::Error,
                Ok(channel) if core.store.borrow().contains(channel, key) => ExistsReply::Exists,
                Ok(_) if core.responsible(key) => ExistsReply::NoRecord,
                Ok(_) => ExistsReply::WrongNode,
            };
            out.byte(reply.code());
            Begun::Done
        }
        Request::Remove { channel, key } => remove(core, request, channel, key, out),
        Request::RemoveChannel { channel } => {
            let reply = match channel::check(channel) {
                _ if &*request.peer.name != ADMIN => RemoveChannelReply::NotPermitted,
                Ok(channel) => {
                    core.remove_channel(channel);
                    RemoveChannelReply::ChannelRemoved
                }
                Err(_) => RemoveChannelReply::Error,
            };
            out.byte(reply.code());
            Begun::Done
        }
        Request::GetChannels => begun(Channels { names: core.store.borrow().channel_names().into_iter() }, out),
        Request::GetHashRange => {
            let (range, events) = core.redistribution.story().unwrap_or_else(|| (core.range.get(), Vec::new()));
            out.message(|out| RangeLimits { min: range.min(), max: range.max() }.encode(out));
            events.into_iter().for_each(|event| out.message(|out| event.encode(out)));
            Begun::Stream(Box::new(core.range_watchers.watch(request.waker)))
        }
        Request::GetAll(get_all) => match channel::check(get_all.channel) {
            Ok(channel) => {
                out.message(|out| GetAllMessage::Started.encode(out));
                Begun::Stream(Box::new(GetAll::new(core, channel, &get_all)))
            }
            Err(_) => {
                out.message(|out| GetAllMessage::Error.encode(out));
                Begun::Done
            }
        },
        Request::Mirror { start_suspended, channel, initial_refresh, periodic_refresh_s } => {
            match channel::check(channel) {
                Ok(channel) => {
                    core.store.borrow_mut().create_channel(channel);
                    out.message(|out| MirrorMessage::Started.encode(out));
                    let watch = core.watchers.mirror(channel, request.waker);
                    let mirror = Mirror::new(core, watch, start_suspended, initial_refresh);
                    Begun::Stream(Box::new(mirror.refresh_every(periodic_refresh_s, request.waker)))
                }
                Err(_) => {
                    out.message(|out| MirrorMessage::Error.encode(out));
                    Begun::Done
                }
            }
        }
        Request::Update { channel, key, start } => update(core, channel, key, start, out),
        Request::Put { .. } | Request::Get { .. } => Begun::Done,
    }
}

fn remove(core: &Rc<Core>, request: &NeoRequest<'_>, channel: &[u8], key: Key, out: &mut Replies<'_>) -> Begun {
    let reply = match channel::check(channel) {
        Err(_) => RemoveReply::Error,
        Ok(channel) => {
            let removed = core.remove(channel, key);
            if let Some(number) = core.redistribution.on_its_way(channel, key, request.waker) {
                let reply = if removed { RemoveReply::Removed } else { RemoveReply::NoRecord };
                return Begun::Stream(Box::new(Removal::new(core, number, reply)));
            }
            match removed {
                true => RemoveReply::Removed,
                false if core.responsible(key) => RemoveReply::NoRecord,
                false => RemoveReply::WrongNode,
            }
        }
    };
    out.byte(reply.code());
    Begun::Done
}

fn update(core: &Rc<Core>, channel: &[u8], key: Key, start: UpdateStart<'_>, out: &mut Replies<'_>) -> Begun {
    let Ok(channel) = channel::check(channel) else {
        out.message(|out| UpdateReply::Error.encode(out));
        return Begun::Done;
    };
    match start {
        UpdateStart::GetRecord => {
            let store = core.store.borrow();
            let reply = match store.get(channel, key) {
                Some(value) => {
                    core.count(Action::Read, value.len());
                    out.message(|out| UpdateReply::RecordValue(value).encode(out));
                    return Begun::Stream(Box::new(Update::new(core, channel, key)));
                }
                None if core.responsible(key) => UpdateReply::NoRecord,
                None => UpdateReply::WrongNode,
            };
            out.message(|out| reply.encode(out));
        }
        UpdateStart::UpdateRecord { original_hash, value } => {
            let reply = replace(core, channel, key, original_hash, value);
            out.message(|out| reply.encode(out));
        }
    }
    Begun::Done
}

/// Replaces a value if it still is the one that the client knows, or is not there.
pub(super) fn replace(core: &Core, channel: &str, key: Key, original_hash: u64, value: &[u8]) -> UpdateReply<'static> {
    if !core.responsible(key) {
        return UpdateReply::WrongNode;
    }
    if core.store.borrow().get(channel, key).is_some_and(|stored| fnv1a(stored) != original_hash) {
        return UpdateReply::UpdateConflict;
    }
    match core.put(channel, key, value, core.neo_value_limit()) {
        Ok(()) => UpdateReply::Ok,
        Err(Refused::WrongNode) => UpdateReply::WrongNode,
        Err(Refused::Empty | Refused::TooLong | Refused::Full) => UpdateReply::Error,
    }
}

/// Answers a request whose first message cannot be read.
fn malformed(code: u8, out: &mut Replies<'_>) {
    match code {
        code::PUT => out.byte(PutReply::Error.code()),
        code::GET => out.byte(GetReply::Error.code()),
        code::EXISTS => out.byte(ExistsReply::Error.code()),
        code::REMOVE => out.byte(RemoveReply::Error.code()),
        code::REMOVE_CHANNEL => out.byte(RemoveChannelReply::Error.code()),
        code::UPDATE => out.message(|out| UpdateReply::Error.encode(out)),
        code::GET_ALL => out.message(|out| GetAllMessage::Error.encode(out)),
        code::MIRROR => out.message(|out| MirrorMessage::Error.encode(out)),
        // GetChannels and GetHashRange have nothing to read.
        _ => out.message(|out| ChannelsMessage::Error.encode(out)),
    }
}

/// Lets a stream that is likely to be short run at once.
fn begun(mut stream: Channels, out: &mut Replies<'_>) -> Begun {
    match stream.produce(out) {
        Produced::Done => Begun::Done,
        Produced::More | Produced::Idle | Produced::Failed => Begun::Stream(Box::new(stream)),
    }
}

/// GetChannels: the names there were when it came, a message each.
struct Channels {
    names: std::vec::IntoIter<String>,
}

impl NeoStream for Channels {
    fn message(
        &mut self,
        _: &[u8],
        _: &mut Replies<'_>,
    ) -> Result<overstory_node::engine::Flow, overstory_node::engine::Violation> {
        Err(overstory_node::engine::Violation("a message to a GetChannels"))
    }

    fn produce(&mut self, out: &mut Replies<'_>) -> Produced {
        let start = out.queued();
        for name in self.names.by_ref() {
            out.message(|out| ChannelsMessage::Name(name.as_bytes()).encode(out));
            if out.queued() - start >= super::legacy_streams::TURN {
                return Produced::More;
            }
        }
        out.message(|out| ChannelsMessage::Finished.encode(out));
        Produced::Done
    }
}
