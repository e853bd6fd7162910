//! Legacy requests and replies.

use std::fmt::Debug;

use overstory_swarm::legacy::reply::{self, NodeConnections, NodeSize, Record};
use overstory_swarm::legacy::{Decoded, Limits, Need, NodeAddress, ProtocolError, Status, dht, dls, dmq};
use proptest::collection::vec;
use proptest::prelude::*;

use super::parts::{Lists, Parts, parts};

const LIMITS: &Limits = &Limits::DEFAULT;

/// The decoders in one form.
pub(crate) fn decode_dht(input: &[u8]) -> Result<Decoded<dht::Request<'_>>, ProtocolError> {
    dht::decode(input, LIMITS).map(|decoded| match decoded {
        dht::Decoded::Need(bytes) => Decoded::Need(bytes),
        dht::Decoded::Request { request, consumed } => Decoded::Request { request, consumed },
        dht::Decoded::TooLong(long) => panic!("{long:?}"),
    })
}

fn decode_dmq(input: &[u8]) -> Result<dmq::Decoded<'_>, ProtocolError> {
    dmq::decode(input, LIMITS)
}

fn decode_dls(input: &[u8]) -> Result<dls::Decoded<'_>, ProtocolError> {
    dls::decode(input, LIMITS)
}

/// The bytes of each request; checks that each comes back from them, that what follows makes no difference, and that a
/// part of them asks for more, but for no more than the whole.
macro_rules! round_trips {
    ($requests:expr, $decode:expr) => {{
        let mut all = Vec::new();
        for request in $requests {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            let whole = bytes.len();
            for cut in 0..whole {
                match $decode(&bytes[..cut]) {
                    Ok(Decoded::Need(need)) => assert!(cut < need && need <= whole, "{cut} < {need} <= {whole}"),
                    other => panic!("{other:?} of {cut} bytes of {request:?}"),
                }
            }
            bytes.extend_from_slice(b"next");
            assert_eq!($decode(&bytes), Ok(Decoded::Request { request, consumed: whole }));
            bytes.truncate(whole);
            all.push(bytes);
        }
        all
    }};
}

/// Feeds a stream in pieces, as a server does: decodes only when as much is there as was asked for. Returns how often it
/// decoded, and the requests encoded again.
macro_rules! feed {
    ($stream:expr, $pieces:expr, $decode:expr) => {{
        let (mut input, mut again, mut calls, mut need) = (Vec::new(), Vec::new(), 0, 1);
        let mut left: &[u8] = $stream;
        let mut pieces = $pieces.iter().copied().cycle();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(pieces.next().unwrap_or(1).min(left.len()));
            left = rest;
            input.extend_from_slice(piece);
            while input.len() >= need {
                calls += 1;
                match $decode(&input).unwrap() {
                    Decoded::Need(bytes) => need = bytes,
                    Decoded::Request { request, consumed } => {
                        request.encode(&mut again);
                        input.drain(..consumed);
                        need = 1;
                    }
                }
            }
        }
        assert!(input.is_empty());
        (calls, again)
    }};
}
pub(crate) use feed;

fn check<T: Debug + PartialEq>(
    value: T,
    write: impl FnOnce(&T, &mut Vec<u8>),
    read: impl Fn(&[u8]) -> Result<Need<T>, ProtocolError>,
) {
    let mut bytes = Vec::new();
    write(&value, &mut bytes);
    let whole = bytes.len();
    for cut in 0..whole {
        match read(&bytes[..cut]) {
            Ok(Need::More(need)) => assert!(cut < need && need <= whole, "{cut} < {need} <= {whole}"),
            other => panic!("{other:?} of {cut} bytes"),
        }
    }
    bytes.extend_from_slice(b"next");
    assert_eq!(read(&bytes), Ok(Need::Done { value, consumed: whole }));
}

proptest! {
    #[test]
    fn requests_come_back_from_their_bytes(parts in parts()) {
        let mut lists = Lists::default();
        round_trips!(parts.legacy_dht(&mut lists), decode_dht);
        round_trips!(parts.legacy_dmq(&mut lists), decode_dmq);
        round_trips!(parts.legacy_dls(&mut lists), decode_dls);
    }

    #[test]
    fn requests_decode_the_same_however_they_arrive(parts in vec(parts(), 1..4), pieces in vec(1usize..100, 1..20)) {
        let mut lists = Lists::default();
        let stream = |all: Vec<Vec<u8>>| all.concat();
        let dht = stream(parts.iter().flat_map(|p| round_trips!(p.legacy_dht(&mut lists), decode_dht)).collect());
        prop_assert_eq!(feed!(&dht, pieces, decode_dht).1, dht);
        let dmq = stream(parts.iter().flat_map(|p| round_trips!(p.legacy_dmq(&mut lists), decode_dmq)).collect());
        prop_assert_eq!(feed!(&dmq, pieces, decode_dmq).1, dmq);
        let dls = stream(parts.iter().flat_map(|p| round_trips!(p.legacy_dls(&mut lists), decode_dls)).collect());
        prop_assert_eq!(feed!(&dls, pieces, decode_dls).1, dls);
    }

    #[test]
    fn replies_come_back_from_their_bytes(parts in parts()) {
        let Parts { channel, key, value, number, other, flag, .. } = &parts;
        let node = NodeAddress { address: channel, port: 21_000 };
        check(&value[..], |v, out| reply::put_value(out, v), |input| shorten(reply::array(input, LIMITS), value));
        check(*flag, |v, out| reply::put_boolean(out, *v), reply::boolean);
        check((*number, *other), |v, out| reply::put_range(out, v.0, v.1), reply::range);
        let size = NodeSize { node, records: *number, bytes: *other };
        let mut bytes = Vec::new();
        reply::put_size(&mut bytes, &size);
        prop_assert_eq!(reply::size(&bytes, LIMITS), Ok(Need::Done { value: size, consumed: bytes.len() }));
        let connections = NodeConnections { node, connections: *other };
        bytes.clear();
        reply::put_connections(&mut bytes, &connections);
        let done = Need::Done { value: connections, consumed: bytes.len() };
        prop_assert_eq!(reply::connections(&bytes, LIMITS), Ok(done));
        for cut in 0..bytes.len() {
            prop_assert!(matches!(reply::connections(&bytes[..cut], LIMITS), Ok(Need::More(need)) if need > cut));
            prop_assert!(matches!(reply::size(&bytes[..cut], LIMITS), Ok(Need::More(need)) if need > cut));
        }

        bytes.clear();
        let record = Record { key: b"0000000000000001", value: key };
        reply::put_record(&mut bytes, &record);
        let first = bytes.len();
        reply::put_records_end(&mut bytes);
        prop_assert_eq!(reply::record(&bytes, LIMITS), Ok(Need::Done { value: Some(record), consumed: first }));
        prop_assert_eq!(reply::record(&bytes[first..], LIMITS), Ok(Need::Done { value: None, consumed: 16 }));
    }

    #[test]
    fn lists_of_replies_end(names in vec(vec(any::<u8>(), 1..9), 0..5)) {
        let mut bytes = Vec::new();
        names.iter().for_each(|name| reply::put_value(&mut bytes, name));
        reply::put_end(&mut bytes);
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        loop {
            let Ok(Need::Done { value, consumed }) = reply::item(rest, LIMITS) else { panic!("{rest:?}") };
            rest = &rest[consumed..];
            match value {
                Some(name) => found.push(name.to_vec()),
                None => break,
            }
        }
        prop_assert_eq!(found, names);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_status_is_one_of_few(code in prop_oneof![any::<i32>(), 195..505i32]) {
        let read = reply::status(&code.to_le_bytes());
        match Status::from_code(code) {
            Some(value) => prop_assert_eq!(read, Ok(Need::Done { value, consumed: 4 })),
            None => prop_assert_eq!(read, Err(ProtocolError::UnknownStatus(code))),
        }
    }
}

/// Gives an array that was read the lifetime of the one that was written, if they are the same.
fn shorten<'a>(read: Result<Need<&[u8]>, ProtocolError>, written: &'a [u8]) -> Result<Need<&'a [u8]>, ProtocolError> {
    read.map(|need| match need {
        Need::More(bytes) => Need::More(bytes),
        Need::Done { value, consumed } => {
            assert_eq!(value, written);
            Need::Done { value: written, consumed }
        }
    })
}
