#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::golden::{objects, unhex};

const LIMIT: usize = 1 << 20;

fn compressed(data: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    compress(data, &mut out, &mut Work::new());
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn decompressed(block: &[u8], limit: usize) -> Result<Vec<u8>, LzoError> {
    let mut out = b"before".to_vec();
    let result = decompress(block, &mut out, limit);
    assert_eq!(&out[..6], b"before");
    let data = out.split_off(6);
    assert!(data.len() <= limit);
    assert!(result.is_ok() || data.is_empty());
    result.map(|()| data)
}

/// Numbers that look like nothing, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

fn text(length: usize) -> Vec<u8> {
    let words = ["record", "channel", "hash", "range", "bucket", "the", "of", "and", "node", "1795240294", ": ", "\n"];
    noise(length).iter().flat_map(|&byte| words[usize::from(byte) % words.len()].bytes()).take(length).collect()
}

#[test]
fn every_recorded_block_decodes() {
    let vectors = objects("lzo-vectors");
    assert_eq!(vectors.len(), 23);
    let mut small = 0;
    for vector in vectors {
        let (plain, block) = (unhex(vector["plain_hex"].as_str().unwrap()), unhex(vector["lzo_hex"].as_str().unwrap()));
        assert_eq!(decompressed(&block, plain.len()).as_deref(), Ok(&plain[..]), "{}", vector["name"]);
        assert_eq!(decompressed(&block, LIMIT).as_deref(), Ok(&plain[..]), "{}", vector["name"]);
        if let Some(limit) = plain.len().checked_sub(1) {
            assert_eq!(decompressed(&block, limit), Err(LzoError::TooLong), "{}", vector["name"]);
        }
        for cut in (0..block.len()).step_by(block.len() / 50 + 1) {
            assert!(decompressed(&block[..cut], plain.len()).is_err(), "{} cut at {cut}", vector["name"]);
        }
        let longer = [&block[..], &[0]].concat();
        assert_eq!(decompressed(&longer, LIMIT), Err(LzoError::Trailing), "{}", vector["name"]);

        let again = compressed(&plain);
        assert_eq!(decompressed(&again, plain.len()).as_deref(), Ok(&plain[..]), "{}", vector["name"]);
        assert!(again.len() <= plain.len() + plain.len() / 255 + 8, "{}", vector["name"]);
        // What the published encoder makes very small is small with ours too.
        if block.len() * 3 < plain.len() {
            assert!(again.len() <= block.len() + block.len() / 4 + 8, "{}: {}", vector["name"], again.len());
            small += 1;
        }
    }
    assert!(small >= 5, "{small}");
}

#[test]
fn short_blocks_are_the_published_bytes() {
    for (plain, block) in [("", "110000"), ("a", "1261110000"), ("hello", "1668656c6c6f110000")] {
        assert_eq!(compressed(plain.as_bytes()), unhex(block));
    }
}

#[test]
fn literal_only_blocks_of_every_form_decode() {
    for length in [1, 3, 4, 18, 238, 239, 272, 273, 274, 528, 529, 5000] {
        let data = noise(length);
        let mut block = Vec::new();
        if length <= 238 {
            block.push(u8::try_from(length + 17).unwrap());
        } else {
            let mut left = length - 18;
            block.push(0);
            while left > 255 {
                block.push(0);
                left -= 255;
            }
            block.push(u8::try_from(left).unwrap());
        }
        block.extend_from_slice(&data);
        block.extend_from_slice(&[0x11, 0, 0]);
        assert_eq!(decompressed(&block, length).as_deref(), Ok(&data[..]), "{length}");
    }
}

#[test]
fn every_instruction_decodes() {
    let case = |block: &[u8]| decompressed(block, LIMIT).map(|data| String::from_utf8_lossy(&data).into_owned());
    // A long match of the middle kind, distance 3, one literal after it; then the match of two, distance 1.
    let repeated: String = "bcd".chars().cycle().take(34).collect();
    assert_eq!(case(b"\x15abcd\x20\x01\x09\x00x\x00\x00\x11\x00\x00"), Ok(["abcd", &repeated, "xxx"].concat()));
    // A match of eight, distance 4, which reaches into itself; two literals after it.
    assert_eq!(case(b"\x15abcd\xee\x00xy\x11\x00\x00"), Ok("abcdabcdabcdxy".into()));
    // A long match of the middle kind, distance 1.
    assert_eq!(case(b"\x12a\x20\x01\x00\x00\x11\x00\x00"), Ok("a".repeat(1 + 34)));
    // Far matches: distances 0x4001 and 0xbfff; the one of three after a run: distance 0x801.
    let data = noise(0xC000);
    let run = |length: usize| {
        let mut block = vec![0; (length - 18).div_ceil(255)];
        block.push(u8::try_from((length - 18) - (block.len() - 1) * 255).unwrap());
        block.extend_from_slice(&data[..length]);
        block
    };
    for (distance, instruction) in [
        (0x4001, vec![0x12, 0x04, 0x00]),
        (0xBFFF, vec![0x1A, 0xFC, 0xFF]),
        (0x801, vec![0x00, 0x00]),
        (0x800, vec![0x9C, 0xFF]),
        (0x4000, vec![0x23, 0xFC, 0xFF]),
    ] {
        let length = match distance {
            0x801 => 3,
            0x800 | 0x4000 => 5,
            _ => 4,
        };
        let block = [run(0xC000), instruction, vec![0x11, 0, 0]].concat();
        let from = data.len() - distance;
        let expected = [&data[..], &data[from..from + length]].concat();
        assert_eq!(decompressed(&block, LIMIT), Ok(expected), "{distance:#x}");
    }
}

#[test]
fn hostile_blocks_are_errors() {
    for (block, error) in [
        (&b""[..], LzoError::Cut),
        (b"\x11", LzoError::Cut),
        (b"\x11\x00", LzoError::Cut),
        (b"\x12", LzoError::Cut),
        (b"\xff", LzoError::Cut),
        (b"\x00\x00\x00", LzoError::Cut),
        // Nothing was written that could be repeated.
        (b"\x11\x04\x00\x11\x00\x00", LzoError::Distance),
        (b"\x12a\x18\x01\x00\x00\x11\x00\x00", LzoError::Distance),
        (b"\x12a\x44\x00\x11\x00\x00", LzoError::Distance),
        // Other lengths of the end instruction.
        (b"\x12\x61\x12\x00\x00", LzoError::End),
        (b"\x12\x61\x10\x00\x00", LzoError::Cut),
        (b"\x12a\x11\x00\x00\x00", LzoError::Trailing),
    ] {
        assert_eq!(decompressed(block, LIMIT), Err(error), "{block:x?}");
    }
    // A megabyte of zeroes announces a run of 255 megabytes.
    assert_eq!(decompressed(&vec![0; 1 << 20], LIMIT), Err(LzoError::TooLong));
    assert_eq!(decompressed(b"\x12a\x20\x00\x00\x00\x00\x01\x00\x00\x11\x00\x00", 100), Err(LzoError::TooLong));
}

#[test]
fn memory_is_bounded_by_block_and_limit() {
    let mut out = Vec::new();
    assert!(decompress(b"\x12", &mut out, usize::MAX).is_err());
    assert!(out.capacity() < 4096, "{}", out.capacity());
    assert!(decompress(&[0; 4096], &mut out, 1000).is_err());
    assert!(out.capacity() < 4096, "{}", out.capacity());
}

#[test]
fn what_repeats_gets_small_and_what_does_not_hardly_grows() {
    assert!(compressed(&vec![7; 65_536]).len() < 300);
    assert!(compressed(&text(65_536)).len() < 65_536 * 6 / 10);
    for length in [0, 1, 12, 13, 100, 65_536, 200_000] {
        assert!(compressed(&noise(length)).len() <= length + length / 255 + 8, "{length}");
    }
}

#[test]
fn a_used_encoder_makes_the_same_block() {
    let mut work = Work::new();
    let data = [text(50_000), noise(100)].concat();
    compress(&noise(70_000), &mut Vec::new(), &mut work);
    let mut block = Vec::new();
    compress(&data, &mut block, &mut work);
    assert_eq!(block, compressed(&data));
}

#[test]
fn data_longer_than_the_reach_of_a_match_comes_back() {
    for data in [
        [noise(0xBFFF), noise(0xBFFF)].concat(),
        [noise(0xC000), noise(0xC000)].concat(),
        [noise(65_536), noise(65_536)].concat(),
        [text(300_000), noise(100_000), text(300_000)].concat(),
        vec![0; 1 << 20],
    ] {
        assert_eq!(decompressed(&compressed(&data), data.len()), Ok(data));
    }
}

/// Pieces that repeat, run on or look like nothing.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..600usize).prop_map(|(byte, length)| vec![byte; length]),
        (prop::collection::vec(any::<u8>(), 1..12), 1..200usize).prop_map(|(bytes, times)| bytes.repeat(times)),
        (0..3000usize).prop_map(noise),
        (0..3000usize).prop_map(text),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_compressed_comes_back(data in data()) {
        prop_assert_eq!(decompressed(&compressed(&data), data.len()), Ok(data));
    }

    #[test]
    fn a_damaged_block_is_an_error_or_bounded_data(
        data in data(), at in any::<prop::sample::Index>(), with in any::<u8>(), limit in 0..20_000usize,
    ) {
        let mut block = compressed(&data);
        let at = at.index(block.len());
        block[at] = with;
        let _ = decompressed(&block, limit);
    }

    #[test]
    fn any_bytes_are_an_error_or_bounded_data(block in prop::collection::vec(any::<u8>(), 0..300), limit in 0..2000usize) {
        let _ = decompressed(&block, limit);
    }
}
