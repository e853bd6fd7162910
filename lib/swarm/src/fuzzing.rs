//! What the fuzz targets in `fuzz/` do with their input. Here, so that a test can replay their seeds without a fuzzer.
//!
//! Each panics if a promise of a decoder does not hold. Inputs are arbitrary bytes.

mod messages;

use crate::auth::{self, CODE, Credentials, NONCE};
use crate::batch::{self, Added, BatchBuilder, BatchError, Keys, Pairs, Refreshed};
use crate::lzo::{self, Work};
use crate::neo::frame::{self, FrameError, Kind, Step};

/// What a target does with an input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also that of its directory of seeds, and its body.
pub const TARGETS: &[(&str, Body)] = &[
    ("lzo_decompress", lzo_decompress),
    ("lzo_round_trip", lzo_round_trip),
    ("batch_decode", batch_decode),
    ("batch_round_trip", batch_round_trip),
    ("neo_frame", neo_frame),
    ("auth_messages", auth_messages),
    ("credentials", credentials),
    ("legacy_dht", messages::legacy_dht),
    ("legacy_dmq", messages::legacy_dmq),
    ("legacy_dls", messages::legacy_dls),
    ("legacy_replies", messages::legacy_replies),
    ("neo_dht", messages::neo_dht),
    ("neo_dmq", messages::neo_dmq),
    ("neo_dls", messages::neo_dls),
    ("neo_replies", messages::neo_replies),
];

/// Runs the target of this name; nothing happens if there is none.
pub fn run(name: &str, data: &[u8]) {
    if let Some((_, target)) = TARGETS.iter().find(|(target, _)| *target == name) {
        target(data);
    }
}

/// Takes a little-endian number below 65,536 from the front; 0 if there is none.
fn number(data: &[u8]) -> (usize, &[u8]) {
    data.split_first_chunk().map_or((0, data), |(number, rest)| (usize::from(u16::from_le_bytes(*number)), rest))
}

/// limit u16 | block
fn lzo_decompress(data: &[u8]) {
    let (limit, block) = number(data);
    let mut out = b"before".to_vec();
    let result = lzo::decompress(block, &mut out, limit);
    let (before, plain) = out.split_at(6);
    assert_eq!(before, b"before");
    assert!(plain.len() <= limit && (result.is_ok() || plain.is_empty()));
    if result.is_ok() {
        // The limit is exact, and what follows a block makes it wrong.
        let plain = plain.to_vec();
        let mut again = Vec::new();
        assert_eq!(lzo::decompress(block, &mut again, plain.len()), Ok(()));
        assert_eq!(again, plain);
        if let Some(less) = plain.len().checked_sub(1) {
            assert!(lzo::decompress(block, &mut again, less).is_err());
        }
        assert!(lzo::decompress(&[block, &[0]].concat(), &mut again, limit).is_err());
        lzo_round_trip(&plain);
    }
}

fn lzo_round_trip(plain: &[u8]) {
    let mut block = b"before".to_vec();
    lzo::compress(plain, &mut block, &mut Work::new());
    let block = block.strip_prefix(b"before").expect("what was there before");
    assert!(block.len() <= plain.len() + plain.len() / 16 + 67);
    let mut again = Vec::new();
    assert_eq!(lzo::decompress(block, &mut again, plain.len()), Ok(()));
    assert_eq!(again, plain);
}

/// limit u16 | batch
fn batch_decode(data: &[u8]) {
    let (limit, batch) = number(data);
    let mut plain = b"old".to_vec();
    let result = batch::decode(batch, limit, &mut plain);
    assert!(plain.len() <= limit && (result.is_ok() || plain.is_empty()));
    assert!(!matches!(result, Err(BatchError::TooLong { claimed, .. }) if claimed <= limit as u64));
    if result.is_err() {
        // The iterators are asked all the same.
        plain = batch.to_vec();
    }
    let pairs = Pairs::new(&plain).map(|pair| pair.map(|(key, value)| 16 + key.len() + value.len()));
    check_records(&plain, pairs);
    check_records(&plain, Keys::new(&plain).map(|key| key.map(|key| 8 + key.len())));
    check_records(&plain, Refreshed::new(&plain).map(|record| record.map(|(_, value)| 16 + value.len())));
}

/// Records fill the batch exactly, or end with one error.
fn check_records(plain: &[u8], lengths: impl Iterator<Item = Result<usize, BatchError>>) {
    let (mut total, mut failed) = (0, false);
    for length in lengths {
        assert!(!failed, "a record after an error");
        match length {
            Ok(length) => total += length,
            Err(error) => {
                assert_eq!(error, BatchError::Record);
                failed = true;
            }
        }
    }
    assert!(if failed { total < plain.len() } else { total == plain.len() });
}

/// limit u16 | length u8, value | length u8, value | ...
fn batch_round_trip(data: &[u8]) {
    let (limit, mut rest) = number(data);
    let mut builder = BatchBuilder::new(limit);
    let mut kept = Vec::new();
    let mut at = 0u64;
    while let Some((&length, after)) = rest.split_first() {
        let (value, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        at += 1;
        let key = at.to_le_bytes();
        match builder.pair(&key, value) {
            Added::Yes => kept.push((key, value)),
            Added::Full => assert!(builder.plain_len() + 24 + value.len() > limit && !builder.is_empty()),
            Added::TooLarge => assert!(24 + value.len() > limit),
        }
    }
    let (mut batch, mut plain) = (Vec::new(), Vec::new());
    builder.finish(&mut batch);
    assert_eq!(batch::decode(&batch, limit, &mut plain), Ok(()));
    let mut pairs = Pairs::new(&plain);
    for (key, value) in kept {
        assert_eq!(pairs.next(), Some(Ok((&key[..], value))));
    }
    assert_eq!(pairs.next(), None);
}

/// cut u16 | stream
fn neo_frame(data: &[u8]) {
    const LIMIT: usize = 4096;
    let (cut, stream) = number(data);
    let whole = frames(&[stream], LIMIT);
    let (early, late) = stream.split_at(cut.min(stream.len()));
    assert_eq!(frames(&[early, late], LIMIT), whole);
    assert_eq!(frames(&stream.chunks(cut % 16 + 1).collect::<Vec<_>>(), LIMIT), whole);
}

/// The messages of a stream that arrives in pieces, written again, and the error that ends it.
fn frames(pieces: &[&[u8]], limit: usize) -> (Vec<u8>, Option<FrameError>) {
    let (mut buffer, mut again) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let input = &buffer[at..];
            match frame::next(input, limit) {
                Err(error) => return (again, Some(error)),
                Ok(Step::Need(need)) => {
                    assert!(need > input.len() && need <= frame::HEADER + limit);
                    break;
                }
                Ok(Step::Message { kind, body, consumed }) => {
                    assert!(body.len() <= limit && consumed == frame::HEADER + body.len());
                    let mark = frame::begin(&mut again, kind);
                    again.extend_from_slice(body);
                    frame::end(&mut again, mark);
                    assert!(again.ends_with(&input[..consumed]));
                    at += consumed;
                }
            }
        }
        buffer.drain(..at);
    }
    (again, None)
}

fn auth_messages(body: &[u8]) {
    if let Ok(timestamp) = auth::read_time(body) {
        check_body(body, |out| auth::put_time(out, timestamp));
    }
    if let Ok(nonce) = auth::read_nonce(body) {
        check_body(body, |out| auth::put_nonce(out, nonce));
    }
    if let Ok(accepted) = auth::read_verdict(body) {
        assert_eq!(accepted, body != [0]);
    }
    if let Ok((name, code)) = auth::read_proof(body) {
        check_body(body, |out| auth::put_proof(out, name, code));
        assert!(auth::printable(name).to_string().is_ascii());
        let mut credentials = Credentials::default();
        let key = auth::ClientKey([0x5a; auth::KEY]);
        let known = std::str::from_utf8(name).is_ok_and(|name| credentials.insert(name, key.clone()).is_ok());
        // Nobody finds the code for a key by chance; with the right one exactly a known name is accepted.
        let now = 1_800_000_000;
        assert!(auth::verify(&credentials, name, now, [0; NONCE], code, now).is_err());
        let right: [u8; CODE] = auth::code(&key, now, [0; NONCE]);
        assert_eq!(auth::verify(&credentials, name, now, [0; NONCE], &right, now).is_ok(), known);
    }
}

fn check_body(body: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    write(&mut out);
    if body.len() <= frame::MAX_AUTHENTICATION {
        let expected = Step::Message { kind: Kind::Authentication, body, consumed: out.len() };
        assert_eq!(frame::next(&out, frame::MAX_BODY), Ok(expected));
    }
}

fn credentials(file: &[u8]) {
    let lines = file.split(|&byte| byte == b'\n').count();
    let text = match Credentials::parse(file) {
        Ok(all) => {
            assert!(all.len() <= lines);
            format!("{all:?}")
        }
        Err(error) => {
            assert!(error.line >= 1 && error.line <= lines);
            error.to_string()
        }
    };
    assert!(text.is_ascii() && text.len() < 200);
    match Credentials::parse_single(file) {
        Ok((name, key)) => {
            let all = Credentials::parse(file).expect("what a client can use, a node can");
            assert_eq!((all.len(), all.get(name.as_bytes())), (1, Some(&key)));
        }
        Err(error) => assert!(error.line >= 1 && error.line <= lines),
    }
}
