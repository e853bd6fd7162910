//! GetAll: nothing twice, nothing left out, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::key::Key;
use overstory_swarm::neo::dht::{Control, GetAll, GetAllMessage, Request as Neo};
use proptest::prelude::*;

use crate::rig::{NeoClient, Node, Setup};

const CHANNEL: &[u8] = b"c";

fn get_all(after: Option<Key>) -> Neo<'static> {
    Neo::GetAll(GetAll { start_suspended: false, channel: CHANNEL, after, keys_only: false, filter: b"" })
}

fn pairs(batch: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut plain = Vec::new();
    batch::decode(batch, 1 << 20, &mut plain).unwrap();
    let pair = |(key, value): (&[u8], &[u8])| (u64::from_le_bytes(key.try_into().unwrap()), value.to_vec());
    Pairs::new(&plain).map(|record| pair(record.unwrap())).collect()
}

/// Reads one batch; nothing at the end, which is acknowledged.
fn next_batch(client: &mut NeoClient, id: u64) -> Option<Vec<(u64, Vec<u8>)>> {
    let message = client.read(id);
    match GetAllMessage::decode(&message).unwrap() {
        GetAllMessage::RecordBatch(batch) => Some(pairs(batch)),
        GetAllMessage::Finished => {
            client.message(id, &[Control::Ack.code()]);
            None
        }
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
enum Change {
    Put(u64, usize),
    Remove(u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let key = 0..400u64;
    let change = prop_oneof![
        (key.clone(), 1..3000usize).prop_map(|(key, length)| Change::Put(key, length)),
        key.prop_map(Change::Remove),
    ];
    prop::collection::vec(change, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Records that are there all the time come exactly once over all parts of an iteration, though others come and go
    /// between the parts, the key at which a part ended among them.
    #[test]
    fn an_iteration_in_parts_sees_what_is_there_all_the_time(
        stored in prop::collection::btree_map(0..400u64, 1..3000usize, 1..300),
        rounds in prop::collection::vec(changes(), 0..6),
    ) {
        let value = |key: u64, length: usize| vec![u8::try_from(key % 251).unwrap(); length];
        let records = stored.iter().map(|(key, length)| ("c".to_owned(), *key, value(*key, *length))).collect();
        let node = Node::start(Setup { records, ..Setup::default() });
        let mut client = NeoClient::open(&node, "test");
        let mut untouched: BTreeSet<u64> = stored.keys().copied().collect();
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let (mut after, mut id, mut rounds) = (None, 0, rounds.into_iter());
        loop {
            id += 1;
            prop_assert_eq!(client.ask(id, &get_all(after)), [5]);
            // One batch, then the client stops, changes things, and comes back with the last key.
            let Some(records) = next_batch(&mut client, id) else { break };
            let empty = records.is_empty();
            for (key, found) in records {
                *seen.entry(key).or_default() += 1;
                prop_assert_eq!(found[0], u8::try_from(key % 251).unwrap());
                after = Some(Key(key));
            }
            if empty {
                prop_assert!(next_batch(&mut client, id).is_none());
                break;
            }
            client.message(id, &[Control::Stop.code()]);
            loop {
                match client.read(id)[..] {
                    [4] => break,
                    // Finished before the Stop came: it is ignored, and the end acknowledged.
                    [8] => {
                        client.message(id, &[Control::Ack.code()]);
                        break;
                    }
                    _ => {}
                }
            }
            for change in rounds.next().unwrap_or_default() {
                id += 1;
                let (key, request, length);
                match change {
                    Change::Put(of, bytes) => {
                        (key, length) = (of, bytes);
                        let put = value(key, length);
                        prop_assert_eq!(client.ask(id, &Neo::Put { channel: CHANNEL, key: Key(key), value: &put }), [1]);
                    }
                    Change::Remove(of) => {
                        key = of;
                        request = Neo::Remove { channel: CHANNEL, key: Key(key) };
                        let _ = client.ask(id, &request);
                        untouched.remove(&key);
                    }
                }
            }
        }
        for key in untouched {
            prop_assert_eq!(seen.get(&key), Some(&1), "key {}", key);
        }
    }
}

/// Continuing after any key, stored or not, gives exactly what lies behind it: two parts make the whole.
#[test]
fn an_iteration_continues_after_any_key() {
    let records = (0..500u64).map(|key| ("c".to_owned(), key * 2, b"value".to_vec())).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &get_all(None)), [5]);
    let whole = next_batch(&mut client, 1).unwrap();
    assert_eq!(next_batch(&mut client, 1), None);
    assert_eq!(whole.len(), 500);
    for id in 2..300u64 {
        assert_eq!(client.ask(id, &get_all(Some(Key(id)))), [5]);
        let rest = next_batch(&mut client, id).unwrap();
        assert_eq!(next_batch(&mut client, id), None);
        assert!(whole.ends_with(&rest));
        if let Some(position) = whole.iter().position(|(key, _)| *key == id) {
            assert_eq!(rest, whole[position + 1..]);
        }
    }
}

/// §2.7: a Suspend that is sent right after Started takes effect before the end, for a channel of 1000 x 8 KB.
#[test]
fn a_suspend_takes_effect_between_batches() {
    let records = (0..1000u64).map(|key| ("c".to_owned(), key, vec![b'x'; 8192])).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    assert_eq!(client.ask(1, &get_all(None)), [5]);
    client.message(1, &[Control::Suspend.code()]);
    let mut before = 0;
    loop {
        let message = client.read(1);
        match GetAllMessage::decode(&message).unwrap() {
            GetAllMessage::Ack => break,
            GetAllMessage::RecordBatch(batch) => before += pairs(batch).len(),
            other => panic!("{other:?} before the acknowledgement"),
        }
    }
    assert!(client.connection.is_silent());
    assert_eq!(client.ask(2, &Neo::Exists { channel: CHANNEL, key: Key(1) }), [1]);
    client.message(1, &[Control::Resume.code()]);
    assert_eq!(client.read(1), [4]);
    let mut after = 0;
    while let Some(records) = next_batch(&mut client, 1) {
        after += records.len();
    }
    assert_eq!(before + after, 1000);
}

/// A filter without a hit over much data: the other requests of the connection are answered meanwhile.
#[test]
fn a_long_search_lets_other_requests_through() {
    let records = (0..40_000u64).map(|key| ("c".to_owned(), key, vec![b'x'; 1000])).collect();
    let node = Node::start(Setup { records, ..Setup::default() });
    let mut client = NeoClient::open(&node, "test");
    let search = GetAll { start_suspended: false, channel: CHANNEL, after: None, keys_only: false, filter: b"needle" };
    client.begin(1, &Neo::GetAll(search));
    assert_eq!((client.read(1), client.read(1)), (vec![0xfd], vec![5]));
    client.begin(2, &Neo::Exists { channel: CHANNEL, key: Key(1) });
    assert_eq!((client.read(2), client.read(2)), (vec![0xfd], vec![1]));
    assert_eq!(next_batch(&mut client, 1), Some(Vec::new()));
    assert_eq!(next_batch(&mut client, 1), None);
}
