#![allow(clippy::unwrap_used, reason = "tests")]

use super::frame::{MAX_BODY, Step};
use super::*;

fn sent(write: impl FnOnce(&mut Replies<'_>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut Replies::new(&mut out, 1));
    out.split_off(6)
}

#[test]
fn a_status_is_the_recorded_nineteen_bytes() {
    let supported = [1, 9, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0xfd];
    assert_eq!(sent(|replies| replies.supported()), supported);
    assert_eq!(sent(|replies| replies.bytes(&[SUPPORTED])), supported);
    assert_eq!(sent(|replies| replies.message(|out| out.push(SUPPORTED))), supported);
    let mut put = supported;
    put[18] = 1;
    assert_eq!(sent(|replies| replies.byte(1)), put);
}

#[test]
fn all_ways_to_send_a_payload_make_the_same_message() {
    for length in [0, 1, 100, 255, 256, 65_535, 65_536, 1 << 20] {
        let value = vec![0x5a; length];
        let expected = sent(|replies| replies.message(|out| crate::wire::put_array(out, &value)));
        assert_eq!(sent(|replies| replies.array(&value)), expected);
        assert_eq!(sent(|replies| replies.concat(&[&(length as u64).to_le_bytes(), &value])), expected);
        let Step::Message { kind, body, consumed } = frame::next(&expected, MAX_BODY).unwrap() else {
            panic!("incomplete");
        };
        assert_eq!((kind, consumed), (Kind::Request, expected.len()));
        let (id, payload) = split_body(body).unwrap();
        assert_eq!((id, Reader::new(payload).array()), (1, Ok(&value[..])));
    }
}

#[test]
fn a_message_that_is_not_written_leaves_nothing() {
    let write = |wanted| {
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(b"payload");
            wanted
        }
    };
    assert_eq!(sent(|replies| replies.message_if(write(true))), sent(|replies| replies.bytes(b"payload")));
    assert_eq!(sent(|replies| replies.message_if(write(false))), b"");
}

#[test]
fn a_body_without_an_id_is_not_taken_apart() {
    assert_eq!(split_body(&[0; 7]), Err(Short));
    assert_eq!(split_body(&7u64.to_le_bytes()), Ok((7, &b""[..])));
}
