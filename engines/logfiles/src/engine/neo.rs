//! The neo requests (protocol §2.6). What is wrong is answered with the request's own error, never with silence.

use std::rc::Rc;

use overstory_node::engine::{Begun, NeoRequest, Support};
use overstory_node::stats::RequestSpec;
use overstory_swarm::channel;
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dls::{self, GetRangeMessage, PutReply, RangeLimits, Request, code, mode};

use super::core::Core;
use super::get_range::GetRange;
use crate::bucket::Ranges;
use crate::filter::Filter;
use crate::read::{Scan, Shape};

const fn spec(code: u8, name: &'static str, tracked: bool) -> RequestSpec {
    RequestSpec { code, name, tracked, timed: tracked }
}

/// The requests: first those that `stats.log` shows, in its order.
pub(super) const REQUESTS: &[RequestSpec] = &[
    spec(code::PUT, "Put", true),
    spec(code::GET_RANGE, "GetRange", true),
    spec(code::GET_TIMESTAMP_RANGE, "GetTimestampRange", false),
];

/// Whether a request is known.
#[inline]
pub(super) fn supports(code: u8, version: u8) -> Support {
    let index = match code {
        code::PUT => 0,
        code::GET_RANGE => 1,
        code::GET_TIMESTAMP_RANGE => 2,
        _ => return Support::UnknownCode,
    };
    if dls::version(code) == Some(version) { Support::Yes(index) } else { Support::UnknownVersion }
}

/// Begins a request that is supported.
#[inline]
pub(super) fn begin(core: &Rc<Core>, request: &NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
    match Request::decode(request.code, request.payload) {
        Ok(Request::Put { channel, timestamp, value }) => out.byte(put(core, channel, timestamp, value).code()),
        Ok(Request::GetRange { channel, low, high, filter, mode }) => {
            let scan = Ranges::signed(low, high).and_then(|ranges| read(core, request, channel, ranges, filter, mode));
            if let Some(scan) = scan {
                out.message(|out| GetRangeMessage::Started.encode(out));
                return Begun::Stream(Box::new(GetRange::new(core, scan)));
            }
            out.message(|out| GetRangeMessage::Refused.encode(out));
        }
        Ok(Request::GetTimestampRange) => {
            let range = core.settings.range;
            out.message(|out| RangeLimits { min: range.low, max: range.high }.encode(out));
        }
        // Its first message cannot be read.
        Err(_) if request.code == code::PUT => out.byte(PutReply::Error.code()),
        Err(_) => out.message(|out| GetRangeMessage::Refused.encode(out)),
    }
    Begun::Done
}

#[inline]
fn put(core: &Core, channel: &[u8], timestamp: i64, value: &[u8]) -> PutReply {
    let Ok(name) = channel::check(channel) else { return PutReply::Error };
    core.put(name, timestamp.cast_unsigned(), value).map_or(PutReply::Error, |()| PutReply::Put)
}

fn read(core: &Core, request: &NeoRequest<'_>, channel: &[u8], ranges: Ranges, filter: &[u8], of: u8) -> Option<Scan> {
    let channel = channel::check(channel).ok()?;
    let filter = match of {
        mode::NONE => Filter::none(),
        mode::STRING_MATCH => Filter::substring(filter).ok()?,
        mode::PCRE => Filter::pcre(filter, false).ok()?,
        mode::PCRE_CASE_INSENSITIVE => Filter::pcre(filter, true).ok()?,
        _ => return None,
    };
    Some(core.read(channel, ranges, filter, Shape::Neo, request.peer, request.waker))
}
