#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::golden::conversation;

#[test]
fn parity_is_the_published_one() {
    assert_eq!(header(Kind::Authentication, 8), [2, 8, 0, 0, 0, 0, 0, 0, 0, 0x0a]);
    assert_eq!(header(Kind::Request, 9), [1, 9, 0, 0, 0, 0, 0, 0, 0, 0x08]);
    for length in [0, 1, 0x0102_0304_0506_0708, u64::MAX] {
        assert_eq!(header(Kind::Request, length).into_iter().fold(0, |all, byte| all ^ byte), 0);
    }
}

#[test]
fn every_recorded_message_is_one_frame() {
    let mut seen = 0;
    for name in
        ["dht-neo-put-get", "dht-neo-mirror", "dmq-neo-consume", "dls-neo-put-getrange", "client-dht-neo-getall"]
    {
        for line in conversation(name) {
            if line.port != "neo" || line.bytes.len() < HEADER {
                continue;
            }
            let mut input = &line.bytes[..];
            while !input.is_empty() {
                let Step::Message { kind, body, consumed } = next(input, MAX_BODY).unwrap() else {
                    panic!("incomplete: {}", line.note);
                };
                let mut again = Vec::new();
                put(&mut again, kind, body);
                assert_eq!(again, input[..consumed], "{}", line.note);
                input = &input[consumed..];
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn recorded_violations_are_refused_with_the_header() {
    let lines = conversation("neo-protocol-errors");
    let mut errors = Vec::new();
    for line in lines.iter().filter(|line| line.from == "client" && line.bytes.len() >= HEADER) {
        if let Err(error) = next(&line.bytes, MAX_BODY) {
            errors.push((line.conn, error));
            assert_eq!(next(&line.bytes[..HEADER], MAX_BODY), Err(error));
        }
    }
    assert_eq!(
        errors,
        [
            // Version byte and message in one packet: read as a header, its parity is wrong.
            (3, FrameError::Parity),
            (5, FrameError::Parity),
            (6, FrameError::Kind(3)),
            (7, FrameError::Kind(0)),
            (8, FrameError::TooLong { length: 1000, limit: 999 }),
            (11, FrameError::NoRequestId(3)),
        ]
    );
}

#[test]
fn a_length_is_refused_before_anything_is_awaited() {
    for length in [MAX_BODY as u64 + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 9, u64::MAX] {
        let refused = Err(FrameError::TooLong { length, limit: MAX_BODY });
        assert_eq!(next(&header(Kind::Request, length), MAX_BODY), refused);
    }
    assert_eq!(next(&header(Kind::Request, MAX_BODY as u64), MAX_BODY), Ok(Step::Need(HEADER + MAX_BODY)));
    assert_eq!(
        next(&header(Kind::Authentication, u64::MAX), usize::MAX),
        Err(FrameError::TooLong { length: u64::MAX, limit: MAX_AUTHENTICATION })
    );
    assert_eq!(next(&header(Kind::Request, u64::MAX), usize::MAX), Ok(Step::Need(usize::MAX)));
}

#[test]
fn a_request_message_has_an_id() {
    for length in 0..8 {
        assert_eq!(next(&header(Kind::Request, length), MAX_BODY), Err(FrameError::NoRequestId(length)));
    }
    assert_eq!(next(&header(Kind::Request, 8), MAX_BODY), Ok(Step::Need(18)));
    assert_eq!(next(&header(Kind::Authentication, 0), MAX_BODY).unwrap(), {
        Step::Message { kind: Kind::Authentication, body: &[], consumed: HEADER }
    });
}

/// What a reader that gets the pieces one by one makes of them.
fn read_in_pieces(pieces: &[&[u8]]) -> (Vec<(Kind, Vec<u8>)>, Option<FrameError>) {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match next(&buffer, 300) {
                Err(error) => return (messages, Some(error)),
                Ok(Step::Need(need)) => {
                    assert!(need > buffer.len(), "a step needs more than there is");
                    break;
                }
                Ok(Step::Message { kind, body, consumed }) => {
                    messages.push((kind, body.to_vec()));
                    buffer.drain(..consumed);
                }
            }
        }
    }
    (messages, None)
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (any::<bool>(), prop::collection::vec(any::<u8>(), 8..301)).prop_map(|(request, body)| {
            let mut out = Vec::new();
            put(&mut out, if request { Kind::Request } else { Kind::Authentication }, &body);
            out
        }),
        1 => prop::collection::vec(any::<u8>(), 1..40),
        1 => any::<u64>().prop_map(|length| header(Kind::Request, length).to_vec()),
    ]
}

proptest! {
    #[test]
    fn any_split_of_the_stream_decodes_the_same(
        messages in prop::collection::vec(message(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream = messages.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.push(0);
        cuts.push(stream.len());
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        let single: Vec<_> = stream.chunks(1).collect();
        let whole = read_in_pieces(&[&stream]);
        prop_assert_eq!(&read_in_pieces(&pieces), &whole);
        prop_assert_eq!(&read_in_pieces(&single), &whole);
    }
}
