#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A store and what it should hold, by hash.
struct Pair {
    store: Store,
    model: BTreeMap<u64, Vec<u8>>,
}

impl Pair {
    fn new() -> Self {
        Self { store: Store::new(0), model: BTreeMap::new() }
    }

    fn put(&mut self, hash: u64, value: Vec<u8>) {
        self.store.put("c", mix::key(hash), &value).unwrap();
        self.model.insert(hash, value);
    }

    /// Stores records at once; none is refused.
    fn put_many(&mut self, records: &[(u64, Vec<u8>)]) {
        let mut bytes = Vec::new();
        let mut entries = Vec::new();
        for (hash, value) in records {
            entries.push(Entry::new(mix::key(*hash), bytes.len()..bytes.len() + value.len()));
            bytes.extend_from_slice(value);
            self.model.insert(*hash, value.clone());
        }
        assert_eq!(self.store.put_many("c", &entries, &bytes), 0);
    }

    fn remove(&mut self, hash: u64) {
        let removed = self.store.remove("c", mix::key(hash));
        assert_eq!(removed, self.model.remove(&hash).map(|value| value.len()));
    }

    fn check(&self) {
        let mut seen = Vec::new();
        self.store.scan("c", None, &mut |key, value| {
            seen.push((mix::hash(key), value.to_vec()));
            ControlFlow::Continue(())
        });
        assert!(seen.iter().map(|(hash, value)| (hash, value)).eq(self.model.iter()));
        let bytes = self.model.values().map(|value| value.len() as u64 + 8).sum();
        assert_eq!(self.store.totals(), Totals { records: self.model.len() as u64, bytes });
        check_memory(&self.store);
        for (&hash, value) in &self.model {
            assert_eq!(self.store.get("c", mix::key(hash)), Some(&**value));
        }
    }
}

fn check_memory(store: &Store) {
    let channels: u64 = store.channels.values().chain(&store.removed).map(|channel| channel.check(&store.heap)).sum();
    assert_eq!(store.memory(), channels + store.heap.kept());
    let sum: u64 = store.channels.values().map(Channel::memory).sum();
    if store.removed.is_empty() {
        assert_eq!(store.memory(), sum);
    }
}

#[derive(Debug, Clone)]
enum Action {
    Put(u64, usize),
    Remove(u64),
    /// Removes every record with a hash in the part of this number.
    RemovePart(u64),
    /// Stores so many records with hashes from here on, this far apart.
    Fill(u64, u64, usize, usize),
    /// The same at once, ordered.
    FillAtOnce(u64, u64, usize, usize),
    /// Resumes the scan that is going on, for so many records.
    Scan(usize),
}

/// Hashes that spread, that crowd at a few places, and the ends.
fn hashes() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u64..4, 0u64..300).prop_map(|(place, near)| place << 60 | near),
        (0u64..64).prop_map(|bit| 1 << bit),
        (0u64..3).prop_map(|near| u64::MAX - near),
    ]
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..40, 1usize..300, 1000usize..5000, 16_000usize..17_000, Just(70_000)]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (hashes(), sizes()).prop_map(|(hash, size)| Action::Put(hash, size)),
        3 => hashes().prop_map(Action::Remove),
        1 => (0u64..16).prop_map(Action::RemovePart),
        3 => (hashes(), prop_oneof![Just(1u64), Just(1 << 40), Just(0x9e37_79b9_7f4a_7c15)], 1usize..800, 1usize..200)
            .prop_map(|(from, step, count, size)| Action::Fill(from, step, count, size)),
        2 => (hashes(), prop_oneof![Just(1u64), Just(1 << 40), Just(0x9e37_79b9_7f4a_7c15)], 1usize..3000, prop_oneof![1usize..200, 15_000usize..17_000])
            .prop_map(|(from, step, count, size)| Action::FillAtOnce(from, step, if size > 200 { count / 50 } else { count }, size)),
        2 => (1usize..200).prop_map(Action::Scan),
    ]
}

fn value(hash: u64, size: usize) -> Vec<u8> {
    hash.to_le_bytes().into_iter().chain(size.to_le_bytes()).cycle().take(size).collect()
}

/// What a scan in parts has to give: the records that are there from its beginning to its end, each once.
#[derive(Default)]
struct Parts {
    after: Option<u64>,
    gone_or_new: std::collections::BTreeSet<u64>,
    seen: Vec<u64>,
    at_begin: Vec<u64>,
    running: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_holds_what_a_map_holds(actions in vec(actions(), 1..60)) {
        let mut pair = Pair::new();
        let mut parts = Parts::default();
        for action in actions {
            match action {
                Action::Put(hash, size) => {
                    parts.gone_or_new.extend((!pair.model.contains_key(&hash)).then_some(hash));
                    pair.put(hash, value(hash, size));
                }
                Action::Remove(hash) => {
                    // One that is there, as a rule.
                    let near = pair.model.range(hash..).next().map_or(hash, |(&hash, _)| hash);
                    parts.gone_or_new.insert(near);
                    pair.remove(near);
                }
                Action::RemovePart(part) => {
                    let all: Vec<u64> = pair.model.keys().copied().filter(|hash| hash >> 60 == part).collect();
                    for hash in all {
                        parts.gone_or_new.insert(hash);
                        pair.remove(hash);
                    }
                }
                Action::Fill(from, step, count, size) => {
                    for index in 0..count as u64 {
                        let hash = from.wrapping_add(step.wrapping_mul(index));
                        parts.gone_or_new.extend((!pair.model.contains_key(&hash)).then_some(hash));
                        pair.put(hash, value(hash, size));
                    }
                }
                Action::FillAtOnce(from, step, count, size) => {
                    let hash = |index| from.wrapping_add(step.wrapping_mul(index));
                    let mut records: Vec<_> = (0..count as u64).map(|index| (hash(index), value(hash(index), size))).collect();
                    records.sort();
                    for (hash, _) in &records {
                        parts.gone_or_new.extend((!pair.model.contains_key(hash)).then_some(*hash));
                    }
                    pair.put_many(&records);
                    check_memory(&pair.store);
                }
                Action::Scan(count) => scan_part(&pair, &mut parts, count),
            }
        }
        pair.check();
        if parts.running {
            scan_part(&pair, &mut parts, usize::MAX);
        }
    }
}

fn scan_part(pair: &Pair, parts: &mut Parts, count: usize) {
    if !parts.running {
        *parts = Parts { running: true, at_begin: pair.model.keys().copied().collect(), ..Parts::default() };
    }
    let mut left = count;
    let scan = pair.store.scan("c", parts.after.map(mix::key), &mut |key, value| {
        let hash = mix::hash(key);
        assert_eq!(pair.model[&hash], value);
        parts.seen.push(hash);
        parts.after = Some(hash);
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if scan == Scan::End {
        assert!(parts.seen.is_sorted_by(|one, other| one < other), "a record came twice");
        for hash in &parts.at_begin {
            let there_all_the_time = !parts.gone_or_new.contains(hash);
            assert!(!there_all_the_time || parts.seen.binary_search(hash).is_ok(), "a record was lost");
        }
        parts.running = false;
    }
}

#[test]
fn a_scan_goes_on_behind_any_key() {
    let mut pair = Pair::new();
    for index in 0..5000u64 {
        pair.put(index << 50 | 1 << 20, value(index, 50));
    }
    for from in [0, 1, 1 << 20, (1 << 20) + 1, 77 << 50, 77 << 50 | 1 << 20, 4999 << 50 | 1 << 20, u64::MAX] {
        let mut first = None;
        pair.store.scan("c", Some(mix::key(from)), &mut |key, _| {
            first = Some(mix::hash(key));
            ControlFlow::Break(())
        });
        let expected = pair.model.range((Bound::Excluded(from), Bound::Unbounded)).next().map(|(&hash, _)| hash);
        assert_eq!(first, expected, "behind {from:#x}");
    }
}

#[test]
fn crafted_keys_make_nothing_slow_or_big() {
    // All but one share their high bits, so that only the low ones tell them apart; and outliers spoil each range.
    let mut pair = Pair::new();
    pair.put(u64::MAX, value(1, 10));
    for index in 0..30_000u64 {
        pair.put(0x5555_0000_0000_0000 + index, value(index, 20));
    }
    for bit in 0..63 {
        pair.put(1 << bit, value(bit, 20));
    }
    pair.check();
    let payload = pair.store.totals().bytes;
    assert!(pair.store.memory() < payload * 2, "{} for {payload}", pair.store.memory());
}

#[test]
fn memory_comes_back_when_records_go() {
    let mut pair = Pair::new();
    let hash = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for index in 0..50_000 {
        pair.put(hash(index), value(index, 100));
    }
    let full = pair.store.memory();
    assert!(full < 50_000 * 130, "{full} bytes for 50,000 records");
    for index in 0..49_000 {
        pair.remove(hash(index));
    }
    pair.check();
    assert!(pair.store.memory() < full / 8, "{} of {full}", pair.store.memory());
    for index in 49_000..50_000 {
        pair.remove(hash(index));
    }
    pair.check();
    assert_eq!(pair.store.memory(), 0);
    assert!(pair.store.channel("c").is_some());
}

#[test]
fn overwriting_with_other_lengths_collects_its_garbage() {
    let mut pair = Pair::new();
    for round in 0..40usize {
        for index in 0..2000usize {
            let size = 20 + (index * 7 + round * 31) % 200;
            pair.put((index as u64) << 53, value(index as u64, size));
        }
    }
    pair.check();
    assert!(pair.store.memory() < pair.store.totals().bytes * 16 / 10, "{}", pair.store.memory());
}

#[test]
fn a_removed_channel_gives_its_memory_back_bit_by_bit() {
    let mut store = Store::new(0);
    for index in 0..100_000u64 {
        store.put("big", Key(index), &[1; 100]).unwrap();
    }
    store.put("big", Key(1), &[1; 100_000]).unwrap();
    store.put("small", Key(1), b"value").unwrap();
    let full = store.memory();
    assert!(store.remove_channel("big"));
    assert!(!store.remove_channel("big"));
    assert_eq!(store.get("big", Key(1)), None);
    assert_eq!(store.totals(), Totals { records: 1, bytes: 13 });
    assert!(store.memory() > full / 4, "not all at once");
    let mut calls = 0;
    while store.tidy() {
        calls += 1;
        check_memory(&store);
    }
    assert!(calls > 1);
    assert_eq!(store.memory(), store.channel("small").unwrap().memory());
    assert_eq!(store.channel_names(), ["small"]);
}

#[test]
fn the_limit_holds_and_frees_what_is_removed_first() {
    const LIMIT: u64 = 3_000_000;
    let mut store = Store::new(LIMIT);
    let mut stored = 0;
    while store.put("c", Key(stored), &[7; 100]).is_ok() {
        stored += 1;
        assert!(store.memory() <= LIMIT);
    }
    assert!(stored > LIMIT / 140, "{stored}");
    assert_eq!(store.put("c", Key(stored), &[7; 100]), Err(Full { limit: LIMIT }));
    assert_eq!(store.put("d", Key(stored), &[7; 200_000]), Err(Full { limit: LIMIT }));
    assert_eq!(store.totals().records, stored);
    // The same length, a shorter one, and after that still no room for a new one.
    store.put("c", Key(5), &[8; 100]).unwrap();
    store.put("c", Key(5), &[8; 10]).unwrap();
    assert!(store.put("c", Key(6), &[8; 10_000_000]).is_err());
    assert_eq!(store.get("c", Key(6)), Some(&[7u8; 100][..]));
    store.remove_channel("c");
    for key in 0..stored {
        store.put("e", Key(key), &[7; 100]).unwrap();
        assert!(store.memory() <= LIMIT);
    }
    check_memory(&store);
}

#[test]
fn many_records_in_their_order_fill_segments_and_leave_room() {
    let mut pair = Pair::new();
    let hash = |index: u64| index << 46 | 77;
    let records: Vec<_> = (1..200_000).map(|index| (hash(index), value(index, 100))).collect();
    for part in records.chunks(7000) {
        pair.put_many(part);
    }
    pair.check();
    assert!(pair.store.memory() < 200_000 * 125, "{}", pair.store.memory());
    // Below, between and above them, and the same ones again.
    pair.put_many(&[(5, value(5, 100)), (hash(1) + 1, value(6, 100)), (u64::MAX, value(7, 20_000))]);
    pair.put_many(&records[50_000..60_000]);
    for index in (1..200_000).step_by(3) {
        pair.put(hash(index) + 9, value(index, 90));
    }
    pair.check();
    for index in 1..200_000 {
        pair.remove(hash(index));
    }
    // What is left lies below the base of its segment, and records between do not go behind it.
    let left: Vec<_> = pair.model.keys().copied().filter(|hash| *hash != 5).collect();
    left.into_iter().for_each(|hash| pair.remove(hash));
    pair.put_many(&(6..2000).map(|hash| (hash, value(hash, 100))).collect::<Vec<_>>());
    pair.check();
    (6..2000).chain([5]).for_each(|hash| pair.remove(hash));
    assert_eq!(pair.store.memory(), 0);
}

#[test]
fn what_was_stored_before_finds_room_above_the_limit() {
    const LIMIT: u64 = 3_000_000;
    let mut store = Store::new(LIMIT);
    let bytes = [7; 100];
    let entries: Vec<_> = (1..50_000u64).map(|index| Entry::new(mix::key(index << 48), 0..100)).collect();
    assert_eq!(store.put_many("c", &entries, &bytes), 0);
    assert_eq!(store.totals().records, 49_999);
    assert!(store.memory() > LIMIT);
    assert_eq!(store.put_many("c", &entries[..10_000], &bytes), 0, "those that are there are written again");
    check_memory(&store);
    // Puts find the room that there is, and no more until records go.
    let before = store.memory();
    let put = (0..10_000).take_while(|key| store.put("c", Key(*key), &[1; 100]).is_ok()).count();
    assert!(put < 5000, "{put}");
    assert_eq!(store.put("d", Key(1), &[1; 100]), Err(Full { limit: LIMIT }));
    assert_eq!(store.put("c", mix::key(1 << 48), &[1; 100]), Ok(()), "no longer than before");
    assert_eq!(store.memory(), before);
    for index in 1..40_000u64 {
        assert_eq!(store.remove("c", mix::key(index << 48)), Some(100));
    }
    assert!(store.memory() < LIMIT);
    assert_eq!(store.put("d", Key(1), &[1; 100]), Ok(()));
    check_memory(&store);
}

#[test]
fn values_of_every_length_come_back() {
    let mut pair = Pair::new();
    for size in (1..200).chain(16_300..16_400).chain(65_400..65_540).chain([1 << 20]) {
        pair.put((size as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), value(size as u64, size));
    }
    pair.check();
    // Long ones become short and the other way round.
    for size in (16_300..16_400).chain([1 << 20]) {
        pair.put((size as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), value(7, 3));
        pair.put((size as u64 - 16_200).wrapping_mul(0x9e37_79b9_7f4a_7c15), value(7, 20_000));
    }
    pair.check();
}

#[test]
fn channels_are_apart() {
    let mut store = Store::new(0);
    store.put("one", Key(1), b"a").unwrap();
    store.put("two", Key(1), b"bb").unwrap();
    store.create_channel("three");
    assert_eq!(store.get("one", Key(1)), Some(&b"a"[..]));
    assert_eq!(store.get("two", Key(1)), Some(&b"bb"[..]));
    assert_eq!(store.get("none", Key(1)), None);
    assert!(!store.contains("three", Key(1)));
    assert_eq!(store.remove("three", Key(1)), None);
    assert_eq!(store.scan("three", None, &mut |_, _| ControlFlow::Continue(())), Scan::End);
    assert_eq!(store.channel_names(), ["one", "three", "two"]);
    assert_eq!(store.names_after(None).collect::<Vec<_>>(), ["one", "three", "two"]);
    assert_eq!(store.names_after(Some("one")).collect::<Vec<_>>(), ["three", "two"]);
    assert_eq!(store.names_after(Some("quite")).collect::<Vec<_>>(), ["three", "two"]);
    assert_eq!(store.names_after(Some("two")).count(), 0);
    assert_eq!(store.channel("two").map(|channel| (channel.len(), channel.bytes())), Some((1, 10)));
    assert_eq!(store.channel("three").map(Channel::memory), Some(0));
}
