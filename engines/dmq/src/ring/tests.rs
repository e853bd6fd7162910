#![allow(clippy::cast_possible_truncation, reason = "tests")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn wire<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        out.extend_from_slice(&(record.len() as u64).to_le_bytes());
        out.extend_from_slice(record);
    }
    out
}

/// What the head of the module promises.
fn assert_bounds(ring: &Ring) {
    let chunks = ring.full.capacity() as u64 * 24;
    let most = ring.bytes() + ring.bytes() / 16 + 2 * CHUNK as u64 + chunks;
    assert!(ring.memory() <= most, "{} for {} bytes", ring.memory(), ring.bytes());
    if ring.is_empty() {
        assert!(ring.memory() <= KEPT as u64);
    }
    let held: usize = ring.full.iter().chain([&ring.last]).map(Vec::capacity).sum();
    assert_eq!(held as u64 + chunks, ring.memory());
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    PushChunk(Vec<usize>),
    Pop,
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![4 => 1..200_usize, 1 => 1..20_000_usize, 1 => Just(100_000_usize)];
    prop_oneof![
        6 => length().prop_map(Step::Push),
        1 => prop::collection::vec(1..12_000_usize, 0..5).prop_map(Step::PushChunk),
        1 => Just(Step::PushChunk(vec![200_000])),
        4 => Just(Step::Pop),
        2 => prop_oneof![Just(0), 1..1000_usize, Just(100_000)].prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn it_is_a_queue_and_keeps_its_bounds(steps in prop::collection::vec(step(), 0..300)) {
        let (mut ring, mut model, mut number) = (Ring::new(), VecDeque::<Vec<u8>>::new(), 0_u8);
        for step in steps {
            let mut record = |length| { number = number.wrapping_add(1); vec![number; length] };
            match step {
                Step::Push(length) => {
                    let record = record(length);
                    ring.push(&record);
                    model.push_back(record);
                }
                Step::PushChunk(lengths) => {
                    let records: Vec<_> = lengths.into_iter().map(&mut record).collect();
                    ring.push_chunk(wire(records.iter().map(Vec::as_slice)), records.len() as u64);
                    model.extend(records);
                }
                Step::Pop => {
                    let cost = model.pop_front().map(|record| record.len() as u64 + RECORD_OVERHEAD);
                    prop_assert_eq!(ring.pop(), cost);
                }
                Step::Take(max) => {
                    let (mut out, mut expected) = (vec![7], vec![7]);
                    let moved = ring.take(max, &mut out);
                    for _ in 0..moved.records {
                        let record = model.pop_front().unwrap();
                        expected.extend(wire([record.as_slice()]));
                    }
                    prop_assert_eq!(moved.bytes as usize, out.len() - 1);
                    prop_assert_eq!(&out, &expected);
                    if moved.records > 1 {
                        prop_assert!(out.len() - 1 <= max);
                    }
                    // No more would have fitted.
                    if let Some(next) = model.front() {
                        prop_assert!(moved.records > 0 && out.len() - 1 + 8 + next.len() > max);
                    }
                }
            }
            prop_assert_eq!(ring.front(), model.front().map(Vec::as_slice));
            prop_assert_eq!(ring.len(), model.len() as u64);
            prop_assert_eq!(ring.bytes(), model.iter().map(|record| 8 + record.len() as u64).sum::<u64>());
            assert_bounds(&ring);
        }
        let held: Vec<_> = ring.iter().map(<[u8]>::to_vec).collect();
        prop_assert_eq!(held, Vec::from(model));
    }

    #[test]
    fn damaged_pieces_end_where_they_are_not_whole(piece in prop::collection::vec(any::<u8>(), 0..64), max in 0..100_usize) {
        let whole: usize = records(&piece).map(|record| record.len() + 8).sum();
        prop_assert!(whole <= piece.len());
        prop_assert!(whole_records(&piece, max, true).1 <= piece.len());
    }
}

#[test]
fn a_small_queue_takes_little_memory() {
    let mut ring = Ring::new();
    assert_eq!(ring.memory(), 0);
    ring.push(b"one small record");
    assert_eq!(ring.memory(), FIRST as u64);
}

#[test]
fn chunks_double_and_are_given_back() {
    let mut ring = Ring::new();
    for _ in 0..100_000 {
        ring.push(&[1; 92]);
    }
    assert_eq!(ring.full.len(), 10_000_000 / CHUNK + 9);
    assert_bounds(&ring);
    while ring.pop().is_some() {
        assert_bounds(&ring);
    }
    assert!(ring.memory() <= KEPT as u64);
}
