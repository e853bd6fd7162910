//! What is too long, and how often a long value is looked at.

use overstory_swarm::legacy::dht::{self, MAX_DISCARD, Request, TooLong};
use overstory_swarm::legacy::{Decoded, Limits, ProtocolError, dls, dmq};
use overstory_swarm::wire::{MAX_ARRAY, put_array};

use super::legacy::{decode_dht, feed};

const LIMITS: &Limits = &Limits::DEFAULT;
const KEY: &[u8] = b"0000000000000001";

#[test]
fn ten_mebibytes_are_fine_and_one_byte_more_is_not() {
    let long = vec![b'x'; MAX_ARRAY];
    let mut bytes = Vec::new();
    Request::Get { channel: &long, key: KEY }.encode(&mut bytes);
    let whole = dht::Decoded::Request { request: Request::Get { channel: &long, key: KEY }, consumed: bytes.len() };
    assert_eq!(dht::decode(&bytes, LIMITS), Ok(whole));

    for length in [MAX_ARRAY as u64 + 1, 1 << 32, 1 << 63, u64::MAX] {
        let announced = [&7i32.to_le_bytes()[..], &length.to_le_bytes()].concat();
        assert_eq!(dht::decode(&announced, LIMITS), Err(ProtocolError::ArrayTooLong(length)));
        let announced = [&2i32.to_le_bytes()[..], &length.to_le_bytes()].concat();
        assert_eq!(dmq::decode(&announced, LIMITS), Err(ProtocolError::ArrayTooLong(length)));
        let announced = [&29i32.to_le_bytes()[..], &length.to_le_bytes()].concat();
        assert_eq!(dls::decode(&announced, LIMITS), Err(ProtocolError::ArrayTooLong(length)));
    }
}

#[test]
fn several_long_arrays_are_too_much_for_one_request() {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&36i32.to_le_bytes());
    put_array(&mut bytes, &vec![b'x'; MAX_ARRAY]);
    bytes.extend_from_slice(&(MAX_ARRAY as u64).to_le_bytes());
    assert_eq!(dls::decode(&bytes, LIMITS), Err(ProtocolError::RequestTooLong(LIMITS.request)));
}

fn put(length: u64, there: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Request::Put { channel: b"c", key: KEY, value: &[] }.encode(&mut bytes);
    bytes.truncate(bytes.len() - 8);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.resize(bytes.len() + there, b'v');
    bytes
}

#[test]
fn the_value_of_a_put_that_is_too_long_is_thrown_away() {
    let limits = LIMITS.with_value(1024 - 32);
    let front = put(0, 0).len();
    let too_long = |consumed, more| Ok(dht::Decoded::TooLong(TooLong { channel: b"c", key: KEY, consumed, more }));

    assert!(matches!(dht::decode(&put(992, 992), &limits), Ok(dht::Decoded::Request { .. })));
    assert_eq!(dht::decode(&put(992, 0), &limits), Ok(dht::Decoded::Need(front + 992)));
    assert_eq!(dht::decode(&put(993, 0), &limits), too_long(front, 993));
    assert_eq!(dht::decode(&put(993, 100), &limits), too_long(front + 100, 893));
    assert_eq!(dht::decode(&put(993, 993), &limits), too_long(front + 993, 0));
    let next = [put(993, 993), put(1, 1)].concat();
    assert_eq!(dht::decode(&next, &limits), too_long(front + 993, 0), "the next request is not thrown away");
    assert_eq!(dht::decode(&put(MAX_ARRAY as u64 + 1, 0), &limits), too_long(front, MAX_ARRAY as u64 + 1));
    assert_eq!(dht::decode(&put(MAX_DISCARD, 0), &limits), too_long(front, MAX_DISCARD));
    let generous = LIMITS.with_value(usize::MAX);
    assert!(matches!(dht::decode(&put(MAX_ARRAY as u64, 0), &generous), Ok(dht::Decoded::Need(_))));
    assert_eq!(dht::decode(&put(MAX_ARRAY as u64 + 1, 0), &generous), too_long(front, MAX_ARRAY as u64 + 1));
    for length in [MAX_DISCARD + 1, 1 << 63, u64::MAX] {
        assert_eq!(dht::decode(&put(length, 50), &limits), Err(ProtocolError::ArrayTooLong(length)));
    }
}

#[test]
fn a_value_is_looked_at_when_it_begins_and_when_it_is_there() {
    let value = vec![b'v'; MAX_ARRAY];
    let mut bytes = Vec::new();
    Request::PutBatch { channel: b"channel", batch: &value }.encode(&mut bytes);
    for pieces in [[1usize], [1000], [16 << 10]] {
        let (calls, again) = feed!(&bytes, pieces, decode_dht);
        assert!(again == bytes && calls <= 6, "{calls} calls for pieces of {pieces:?} bytes");
    }
}

#[test]
fn the_length_of_a_request_is_bounded_however_it_arrives() {
    let mut bytes = Vec::new();
    Request::GetAllFilter { channel: &[b'c'; 100], filter: &[b'f'; 100] }.encode(&mut bytes);
    let whole = Limits { request: bytes.len(), ..Limits::DEFAULT };
    let less = Limits { request: bytes.len() - 1, ..Limits::DEFAULT };
    assert!(matches!(dht::decode(&bytes, &whole), Ok(dht::Decoded::Request { .. })));
    for there in [bytes.len(), 150] {
        assert_eq!(dht::decode(&bytes[..there], &less), Err(ProtocolError::RequestTooLong(less.request)));
    }
}

#[test]
fn lists_are_bounded() {
    let limits = Limits { list_items: 3, list_bytes: 100, ..Limits::DEFAULT };
    let produce = |names: &[&[u8]], end: bool| {
        let mut bytes = 11i32.to_le_bytes().to_vec();
        names.iter().for_each(|name| put_array(&mut bytes, name));
        bytes.resize(bytes.len() + if end { 8 } else { 0 }, 0);
        bytes
    };
    let decode = |bytes: &[u8]| dmq::decode(bytes, &limits).map(|decoded| matches!(decoded, Decoded::Request { .. }));
    assert_eq!(decode(&produce(&[b"a", b"b", b"c"], true)), Ok(true));
    assert_eq!(decode(&produce(&[b"a", b"b", b"c"], false)), Ok(false));
    assert_eq!(decode(&produce(&[b"a", b"b", b"c", b"d"], false)), Err(ProtocolError::ListTooLong(3)));
    assert_eq!(decode(&produce(&[&[b'x'; 101]], false)), Err(ProtocolError::ListTooLong(100)));
    assert_eq!(decode(&produce(&[&[b'x'; 92], &[b'y'; 1]], false)), Err(ProtocolError::ListTooLong(100)));

    let announced = [&11i32.to_le_bytes()[..], &(MAX_ARRAY as u64).to_le_bytes()].concat();
    assert!(matches!(dmq::decode(&announced, LIMITS), Err(ProtocolError::ListTooLong(_))));
}

#[test]
fn codes_that_no_node_has_are_errors_of_their_own() {
    let dht = [1, 7, 11, 12, 17, 18, 19, 20, 22, 23, 24, 25, 29, 30, 31, 33, 34];
    let dmq = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12];
    let dls = [3, 17, 18, 19, 20, 22, 23, 24, 28, 29, 31, 32, 34, 35, 36];
    for code in (-2..300).chain([i32::MIN, i32::MAX, 1 << 24]) {
        let input = code.to_le_bytes();
        let unknown = ProtocolError::UnknownCode(code);
        assert_eq!(dht::decode(&input, LIMITS).err(), (!dht.contains(&code)).then_some(unknown));
        assert_eq!(dmq::decode(&input, LIMITS).err(), (!dmq.contains(&code)).then_some(unknown));
        assert_eq!(dls::decode(&input, LIMITS).err(), (!dls.contains(&code)).then_some(unknown));
        assert_eq!(unknown.reason(), "unknown request code");
    }
}
