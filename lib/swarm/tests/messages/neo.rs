//! Neo requests and messages.

use overstory_swarm::key::Key;
use overstory_swarm::neo::frame::{self, Kind, Step};
use overstory_swarm::neo::message::BadMessage;
use overstory_swarm::neo::{Replies, dht, dls, dmq, split_body};
use proptest::collection::vec;
use proptest::prelude::*;

use super::parts::{Lists, Parts, parts};

/// Checks that each request comes back from its bytes, that bytes behind it are ignored, and that a part of it is short.
macro_rules! round_trips {
    ($module:ident, $requests:expr) => {{
        let mut all = Vec::new();
        for request in $requests {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            let [code, version, payload @ ..] = &bytes[..] else { panic!("{request:?}") };
            assert_eq!((*code, Some(*version)), (request.code(), $module::version(*code)));
            assert!(!request.name().is_empty());
            for cut in 0..payload.len() {
                assert_eq!($module::Request::decode(*code, &payload[..cut]), Err(BadMessage::Short), "{request:?}");
            }
            assert_eq!($module::Request::decode(*code, payload), Ok(request));
            let longer = [payload, b"surplus"].concat();
            assert_eq!($module::Request::decode(*code, &longer), Ok(request));
            all.push(bytes);
        }
        all
    }};
}

/// Checks that each message comes back from its bytes, and from neither fewer nor more.
macro_rules! exact {
    ($($message:expr => $decode:expr),* $(,)?) => {$({
        let message = $message;
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!($decode(&bytes[..cut]).map_or_else(|_| true, |other| other != message), "{cut} of {message:?}");
        }
        assert_eq!($decode(&bytes), Ok(message));
        bytes.push(0);
        assert_eq!($decode(&bytes), Err(BadMessage::Surplus(1)), "{message:?}");
    })*};
}

fn all_requests(parts: &Parts) -> Vec<Vec<u8>> {
    let mut lists = Lists::default();
    let mut all = round_trips!(dht, parts.neo_dht());
    all.extend(round_trips!(dmq, parts.neo_dmq(&mut lists)));
    all.extend(round_trips!(dls, parts.neo_dls()));
    all
}

proptest! {
    #[test]
    fn requests_come_back_from_their_bytes(parts in parts()) {
        all_requests(&parts);
    }

    #[test]
    fn requests_decode_the_same_however_they_arrive(parts in parts(), pieces in vec(1usize..60, 1..20)) {
        let sent = all_requests(&parts);
        let mut stream = Vec::new();
        for (id, request) in (1..).zip(&sent) {
            Replies::new(&mut stream, id).bytes(request);
        }
        let (mut input, mut found, mut need) = (Vec::new(), Vec::new(), 1);
        let (mut left, mut pieces) = (&stream[..], pieces.iter().copied().cycle());
        while !left.is_empty() {
            let (piece, rest) = left.split_at(pieces.next().unwrap_or(1).min(left.len()));
            left = rest;
            input.extend_from_slice(piece);
            while input.len() >= need {
                match frame::next(&input, 1 << 20) {
                    Ok(Step::Need(bytes)) => need = bytes,
                    Ok(Step::Message { kind: Kind::Request, body, consumed }) => {
                        let (id, payload) = split_body(body).unwrap();
                        prop_assert_eq!(id, found.len() as u64 + 1);
                        found.push(payload.to_vec());
                        input.drain(..consumed);
                        need = 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn messages_come_back_from_their_bytes(parts in parts()) {
        let Parts { channel, value, number, other, .. } = &parts;
        let (key, value, range) = (Key(*number), &value[..], dht::RangeLimits { min: *number, max: *other });
        exact! {
            range => dht::RangeLimits::decode,
            dht::HashRangeUpdate::NewNode { address: parts.address(), range } => dht::HashRangeUpdate::decode,
            dht::HashRangeUpdate::ChangeHashRange(range) => dht::HashRangeUpdate::decode,
            dht::ChannelsMessage::Name(channel) => dht::ChannelsMessage::decode,
            dht::GetAllMessage::RecordBatch(value) => dht::GetAllMessage::decode,
            dht::MirrorMessage::RecordChanged { key, value } => dht::MirrorMessage::decode,
            dht::MirrorMessage::RecordDeleted { key } => dht::MirrorMessage::decode,
            dht::MirrorMessage::RecordRefreshBatch(value) => dht::MirrorMessage::decode,
            dht::UpdateReply::RecordValue(value) => dht::UpdateReply::decode,
            dht::UpdateAnswer::UpdateRecord { original_hash: *other, value } => dht::UpdateAnswer::decode,
            dmq::PopReply::Popped(value) => dmq::PopReply::decode,
            dmq::ConsumeMessage::Records(value) => dmq::ConsumeMessage::decode,
            dls::GetRangeMessage::Records(dls::RecordsBlock { plain_len: *number, block: value })
                => dls::GetRangeMessage::decode,
        }
        let mut bytes = Vec::new();
        dht::put_value(&mut bytes, value);
        prop_assert_eq!(dht::value(&bytes), Ok(value));
        bytes.push(0);
        prop_assert_eq!(dht::value(&bytes), Err(BadMessage::Surplus(1)));

        let batch = [&number.to_le_bytes()[..], value].concat();
        let mut filled = Vec::new();
        dls::GetRangeMessage::encode_records(&mut filled, |out| out.extend_from_slice(&batch));
        let records = dls::RecordsBlock { plain_len: *number, block: value };
        prop_assert_eq!(dls::GetRangeMessage::decode(&filled), Ok(dls::GetRangeMessage::Records(records)));
    }

    #[test]
    fn a_batch_of_records_is_taken_apart(records in vec(vec(any::<u8>(), 0..9), 0..5)) {
        let mut message = Vec::new();
        dmq::ConsumeMessage::encode_records(&mut message, |out| {
            records.iter().for_each(|record| overstory_swarm::wire::put_array(out, record));
        });
        let Ok(dmq::ConsumeMessage::Records(batch)) = dmq::ConsumeMessage::decode(&message) else { panic!() };
        let found: Vec<_> = dmq::Records::new(batch).map(|record| record.unwrap().to_vec()).collect();
        prop_assert_eq!(&found, &records);
        if let Some((_, cut)) = batch.split_last() {
            prop_assert!(dmq::Records::new(cut).any(|record| record.is_err()));
            prop_assert!(dmq::Records::new(cut).count() <= records.len());
        }
    }
}

#[test]
fn messages_of_one_byte_have_their_published_codes() {
    use dht::{ChannelsMessage, GetAllMessage, MirrorMessage, UpdateAnswer, UpdateReply};
    use dls::GetRangeMessage;
    use dmq::{ConsumeMessage, PopReply};
    macro_rules! codes {
        ($($type:ident { $($variant:ident = $code:literal),* })*) => {$($({
            let mut bytes = Vec::new();
            $type::$variant.encode(&mut bytes);
            assert_eq!(bytes, [$code]);
            exact! { $type::$variant => $type::decode }
        })*)*};
    }
    codes! {
        ChannelsMessage { Error = 1, Finished = 3 }
        GetAllMessage { Ack = 4, Started = 5, Error = 6, Finished = 8 }
        MirrorMessage { Ack = 4, Started = 5, Error = 6, ChannelRemoved = 10, UpdateOverflow = 11 }
        UpdateAnswer { RemoveRecord = 3, LeaveRecord = 4 }
        UpdateReply { Ok = 6, NoRecord = 7, UpdateConflict = 8, WrongNode = 9, Error = 10 }
        PopReply { Empty = 2, Error = 3, Subscribed = 4 }
        ConsumeMessage { Started = 1, Error = 2, Stopped = 4, ChannelRemoved = 5 }
        GetRangeMessage { Started = 1, Stopped = 4, Finished = 5, Error = 7 }
    }
    let mut refused = Vec::new();
    GetRangeMessage::Refused.encode(&mut refused);
    assert_eq!((&refused[..], GetRangeMessage::decode(&refused)), (&[3][..], Ok(GetRangeMessage::Refused)));
}

#[test]
fn one_byte_messages_are_exactly_one_known_byte() {
    macro_rules! all {
        ($($type:path: $count:literal),* $(,)?) => {$({
            use $type as Message;
            assert_eq!(Message::ALL.len(), $count);
            for &message in Message::ALL {
                exact! { message => Message::decode }
            }
            let known = |code: &u8| Message::ALL.iter().any(|message| message.code() == *code);
            for code in (0..=u8::MAX).filter(|code| !known(code)) {
                assert_eq!(Message::decode(&[code]), Err(BadMessage::UnknownCode(code)));
            }
            assert_eq!(Message::decode(&[]), Err(BadMessage::Short));
        })*};
    }
    all!(
        dht::PutReply: 3, dht::GetReply: 4, dht::ExistsReply: 4, dht::RemoveReply: 4, dht::RemoveChannelReply: 3,
        dht::Control: 4, dmq::PushReply: 2, dmq::ConsumeControl: 2, dls::PutReply: 2, dls::GetRangeControl: 3,
    );
}

#[test]
fn only_published_codes_have_a_version() {
    for code in 0..=u8::MAX {
        assert_eq!(dht::version(code), (1..=10).contains(&code).then_some(0));
        assert_eq!(dmq::version(code), [(1, 3), (2, 1), (6, 4)].iter().find(|(c, _)| *c == code).map(|(_, v)| *v));
        assert_eq!(dls::version(code), [(1, 1), (2, 2), (64, 0)].iter().find(|(c, _)| *c == code).map(|(_, v)| *v));
        if dht::version(code).is_none() {
            assert_eq!(dht::Request::decode(code, &[0; 64]), Err(BadMessage::UnknownCode(code)));
        }
    }
}

#[test]
fn more_channels_than_a_byte_counts_are_no_push() {
    let mut buffer = Vec::new();
    let names = |count| (0..count).map(|_| &b"c"[..]);
    assert_eq!(dmq::Channels::new(names(255), &mut buffer).map(|channels| channels.len()), Some(255));
    assert_eq!(dmq::Channels::new(names(256), &mut buffer), None);
}
