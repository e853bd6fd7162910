//! Bytes that nobody has made on purpose, and requests with a few bytes changed.

use overstory_swarm::legacy::{self, Limits, Need, ProtocolError, reply};
use overstory_swarm::neo;
use overstory_swarm::neo::message::BadMessage;
use proptest::collection::vec;
use proptest::prelude::*;

use super::parts::{Lists, parts};

const LIMITS: &Limits = &Limits::DEFAULT;

fn check_legacy(input: &[u8]) {
    let need = |bytes: usize| assert!(input.len() < bytes && bytes <= LIMITS.request, "{bytes}");
    match legacy::dht::decode(input, LIMITS) {
        Ok(legacy::dht::Decoded::Need(bytes)) => need(bytes),
        Ok(legacy::dht::Decoded::Request { request, consumed }) => {
            let mut again = Vec::new();
            request.encode(&mut again);
            assert_eq!(again, input[..consumed]);
        }
        Ok(legacy::dht::Decoded::TooLong(put)) => {
            assert!(put.consumed <= input.len() && put.more <= legacy::dht::MAX_DISCARD);
            assert!(put.more == 0 || put.consumed == input.len());
        }
        Err(error) => assert!(!error.reason().is_empty()),
    }
    macro_rules! check {
        ($($module:ident)*) => {$(
            match legacy::$module::decode(input, LIMITS) {
                Ok(legacy::Decoded::Need(bytes)) => need(bytes),
                Ok(legacy::Decoded::Request { request, consumed }) => {
                    let mut again = Vec::new();
                    request.encode(&mut again);
                    assert_eq!(again, input[..consumed]);
                }
                Err(error) => assert!(!error.reason().is_empty()),
            }
        )*};
    }
    check!(dmq dls);
}

fn check_reply<T>(input: &[u8], read: Result<Need<T>, ProtocolError>) {
    match read {
        Ok(Need::More(bytes)) => assert!(input.len() < bytes && bytes <= LIMITS.request),
        Ok(Need::Done { consumed, .. }) => assert!(consumed <= input.len()),
        Err(error) => assert!(!error.reason().is_empty()),
    }
}

/// A message that decodes has no other form.
macro_rules! canonical {
    ($payload:ident: $($decode:path),* $(,)?) => {$(
        if let Ok(message) = $decode($payload) {
            let mut again = Vec::new();
            message.encode(&mut again);
            assert_eq!(again, $payload);
        }
    )*};
}

fn check_neo(code: u8, payload: &[u8]) {
    let outcomes = [
        (neo::dht::version(code), neo::dht::Request::decode(code, payload).err()),
        (neo::dmq::version(code), neo::dmq::Request::decode(code, payload).err()),
        (neo::dls::version(code), neo::dls::Request::decode(code, payload).err()),
    ];
    for (version, error) in outcomes {
        assert!(!matches!(error, Some(BadMessage::Surplus(_))));
        assert!(version.is_some() || error == Some(BadMessage::UnknownCode(code)));
    }
    canonical! { payload:
        neo::dht::Control::decode, neo::dht::RangeLimits::decode, neo::dht::HashRangeUpdate::decode,
        neo::dht::ChannelsMessage::decode, neo::dht::GetAllMessage::decode, neo::dht::MirrorMessage::decode,
        neo::dht::UpdateReply::decode, neo::dht::UpdateAnswer::decode, neo::dht::GetReply::decode,
        neo::dmq::PopReply::decode, neo::dmq::ConsumeMessage::decode, neo::dmq::ConsumeControl::decode,
        neo::dls::GetRangeMessage::decode, neo::dls::GetRangeControl::decode,
    }
    assert!(neo::dmq::Records::new(payload).count() <= payload.len() / 8 + 1);
}

/// Mostly small numbers, so that lengths are sometimes right.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![6 => Just(0u8), 3 => 1u8..40, 1 => any::<u8>()], 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_request_or_not(code in 0i32..40, rest in bytes(), raw in vec(any::<u8>(), 0..60)) {
        check_legacy(&raw);
        check_legacy(&[&code.to_le_bytes()[..], &rest].concat());
        check_neo(raw.first().copied().unwrap_or_default(), &raw);
        check_neo(u8::try_from(code).unwrap() % 12, &rest);
    }

    #[test]
    fn any_bytes_are_a_reply_or_not(input in bytes()) {
        check_reply(&input, reply::status(&input));
        check_reply(&input, reply::array(&input, LIMITS));
        check_reply(&input, reply::item(&input, LIMITS));
        check_reply(&input, reply::record(&input, LIMITS));
        check_reply(&input, reply::boolean(&input));
        check_reply(&input, reply::size(&input, LIMITS));
        check_reply(&input, reply::connections(&input, LIMITS));
        check_reply(&input, reply::range(&input));
    }
}

proptest! {
    #[test]
    fn requests_with_changed_bytes_are_requests_or_not(
        parts in parts(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut lists = Lists::default();
        let mut all = Vec::new();
        macro_rules! encoded {
            ($requests:expr) => {
                for request in $requests {
                    let mut bytes = Vec::new();
                    request.encode(&mut bytes);
                    all.push(bytes);
                }
            };
        }
        encoded!(parts.legacy_dht(&mut lists));
        encoded!(parts.legacy_dmq(&mut lists));
        encoded!(parts.legacy_dls(&mut lists));
        encoded!(parts.neo_dht());
        encoded!(parts.neo_dmq(&mut lists));
        encoded!(parts.neo_dls());
        for bytes in &mut all {
            for (index, byte) in &changes {
                let length = bytes.len();
                bytes[index.index(length)] = *byte;
            }
            check_legacy(bytes);
            check_neo(bytes[0], &bytes[1..]);
        }
    }
}
