//! The requests and replies of the nodes.

use crate::legacy::{self, Limits, Need, ProtocolError, reply};
use crate::neo::message::BadMessage;
use crate::neo::{dht, dls, dmq};

/// Small, so that the fuzzer meets them.
const LIMITS: Limits = Limits { array: 200, request: 500, value: 50, list_items: 4, list_bytes: 150 };

/// What the three decoders of legacy requests have in common.
enum Step {
    Need(usize),
    /// The request written again, and the bytes that it took.
    Request(Vec<u8>, usize),
    /// The bytes of a Put that is too long to be stored, and how many are to come.
    TooLong(usize, u64),
    Error(ProtocolError),
}

fn check_legacy(input: &[u8], decode: impl Fn(&[u8], &Limits) -> Step) {
    for limits in [&LIMITS, &Limits::DEFAULT] {
        match decode(input, limits) {
            Step::Need(need) => {
                assert!(need > input.len() && need <= limits.request);
            }
            Step::Request(again, consumed) => {
                assert!(consumed <= limits.request);
                assert_eq!(Some(&again[..]), input.get(..consumed), "a request is what it was decoded from");
                // A part of it asks for no more than all of it.
                for cut in [consumed - 1, consumed / 2, 3] {
                    match decode(&input[..cut.min(consumed - 1)], limits) {
                        Step::Need(need) => assert!(need <= consumed),
                        _ => panic!("a part of a request is one"),
                    }
                }
            }
            Step::TooLong(consumed, more) => {
                assert!(consumed <= input.len() && (more == 0 || consumed == input.len()));
                assert!(more <= legacy::dht::MAX_DISCARD);
            }
            Step::Error(error) => assert!(!error.to_string().is_empty() && !error.reason().is_empty()),
        }
    }
}

macro_rules! legacy_requests {
    ($node:ident) => {
        |input: &[u8], limits: &Limits| match legacy::$node::decode(input, limits) {
            Ok(legacy::$node::Decoded::Need(need)) => Step::Need(need),
            Ok(legacy::$node::Decoded::Request { request, consumed }) => {
                let mut again = Vec::new();
                request.encode(&mut again);
                assert_eq!(i32::from_le_bytes(*again.first_chunk().expect("a code")), request.code());
                Step::Request(again, consumed)
            }
            #[allow(unreachable_patterns, reason = "only the dht has more")]
            Ok(other) => too_long(&other),
            Err(error) => Step::Error(error),
        }
    };
}

trait MayBeTooLong {
    fn parts(&self) -> Option<(usize, u64)>;
}

impl MayBeTooLong for legacy::dht::Decoded<'_> {
    fn parts(&self) -> Option<(usize, u64)> {
        match self {
            Self::TooLong(put) => Some((put.consumed, put.more)),
            _ => None,
        }
    }
}

impl<R> MayBeTooLong for legacy::Decoded<R> {
    fn parts(&self) -> Option<(usize, u64)> {
        None
    }
}

fn too_long(decoded: &impl MayBeTooLong) -> Step {
    let (consumed, more) = decoded.parts().expect("nothing else is left");
    Step::TooLong(consumed, more)
}

pub(super) fn legacy_dht(input: &[u8]) {
    check_legacy(input, legacy_requests!(dht));
}

pub(super) fn legacy_dmq(input: &[u8]) {
    check_legacy(input, legacy_requests!(dmq));
}

pub(super) fn legacy_dls(input: &[u8]) {
    check_legacy(input, legacy_requests!(dls));
}

pub(super) fn legacy_replies(input: &[u8]) {
    check_reply(input, reply::status);
    check_reply(input, reply::boolean);
    check_reply(input, reply::range);
    check_reply(input, |input| reply::array(input, &LIMITS));
    check_reply(input, |input| reply::item(input, &LIMITS));
    check_reply(input, |input| reply::record(input, &LIMITS));
    check_reply(input, |input| reply::size(input, &LIMITS));
    check_reply(input, |input| reply::connections(input, &LIMITS));
}

fn check_reply<'a, T>(input: &'a [u8], decode: impl Fn(&'a [u8]) -> Result<Need<T>, ProtocolError>) {
    match decode(input) {
        Ok(Need::More(need)) => assert!(need > input.len() && need <= 2 * LIMITS.array + 64),
        Ok(Need::Done { consumed, .. }) => {
            assert!(consumed >= 1 && consumed <= input.len());
            match decode(&input[..consumed - 1]) {
                Ok(Need::More(need)) => assert!(need <= consumed),
                _ => panic!("a part of a reply is one"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// code u8 | what follows the version of a first message
macro_rules! neo_requests {
    ($node:ident, $input:ident) => {
        let Some((&code, payload)) = $input.split_first() else { return };
        match $node::Request::decode(code, payload) {
            Ok(request) => {
                assert_eq!(request.code(), code);
                let mut again = Vec::new();
                request.encode(&mut again);
                assert_eq!(again.first_chunk(), Some(&[code, $node::version(code).expect("it was decoded")]));
                let body = &again[2..];
                assert!(body.len() <= payload.len());
                assert_eq!($node::Request::decode(code, body), Ok(request));
                if let Some(cut) = body.len().checked_sub(1) {
                    assert_eq!($node::Request::decode(code, &body[..cut]), Err(BadMessage::Short));
                }
            }
            Err(BadMessage::UnknownCode(_) | BadMessage::Short) => {}
            Err(other) => panic!("{other}"),
        }
    };
}

pub(super) fn neo_dht(input: &[u8]) {
    neo_requests!(dht, input);
}

pub(super) fn neo_dmq(input: &[u8]) {
    neo_requests!(dmq, input);
    if let Ok(dmq::Request::Push { channels, .. }) = dmq::Request::decode(input[0], &input[1..]) {
        assert_eq!(channels.iter().count(), channels.len());
    }
}

pub(super) fn neo_dls(input: &[u8]) {
    neo_requests!(dls, input);
}

/// All messages but the first of a request, of both sides: each is read as every type.
pub(super) fn neo_replies(payload: &[u8]) {
    macro_rules! exact {
        ($($message:ty),* $(,)?) => {$(
            if let Ok(message) = <$message>::decode(payload) {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!(again, payload, "a message is what it was decoded from");
            }
        )*};
    }
    exact! {
        dht::PutReply, dht::GetReply, dht::ExistsReply, dht::RemoveReply, dht::RemoveChannelReply,
        dht::ChannelsMessage<'_>, dht::Control, dht::GetAllMessage<'_>, dht::MirrorMessage<'_>, dht::RangeLimits,
        dht::HashRangeUpdate, dht::UpdateAnswer<'_>, dht::UpdateReply<'_>,
        dmq::PushReply, dmq::ConsumeControl, dmq::PopReply<'_>, dmq::ConsumeMessage<'_>,
        dls::PutReply, dls::GetRangeControl, dls::GetRangeMessage<'_>,
    }
    if let Ok(value) = dht::value(payload) {
        assert_eq!(value.len() + 8, payload.len());
    }
    let whole: usize = dmq::Records::new(payload).map_while(Result::ok).map(|record| 8 + record.len()).sum();
    assert!(whole <= payload.len());
}
