#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::golden::{conversation, unhex};

fn finished(builder: &mut BatchBuilder) -> Vec<u8> {
    let mut out = b"before".to_vec();
    builder.finish(&mut out);
    assert_eq!(&out[..6], b"before");
    assert!(builder.is_empty());
    out.split_off(6)
}

fn decoded(batch: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut plain = b"old".to_vec();
    let result = decode(batch, limit, &mut plain);
    assert!(result.is_ok() || plain.is_empty());
    result.map(|()| plain)
}

#[test]
fn an_empty_batch_is_the_published_eleven_bytes() {
    let mut builder = BatchBuilder::new(DEFAULT_LIMIT);
    assert_eq!(finished(&mut builder), unhex("0000000000000000110000"));
    assert_eq!(decoded(&unhex("0000000000000000110000"), 0), Ok(Vec::new()));
    let mut out = Vec::new();
    builder.finish_array(&mut out);
    assert_eq!(out, unhex("0b000000000000000000000000000000110000"));
}

#[test]
fn a_neo_pair_is_the_recorded_batch() {
    let mut builder = BatchBuilder::new(DEFAULT_LIMIT);
    assert_eq!(builder.pair(&1u64.to_le_bytes(), b"v"), Added::Yes);
    assert_eq!(builder.plain_len(), 25);
    let recorded = unhex("19000000000000002a08000000000000000100000000000000010000000000000076110000");
    let mine = decoded(&finished(&mut builder), 100).unwrap();
    assert_eq!(decoded(&recorded, 100).as_ref(), Ok(&mine));
    assert_eq!(Pairs::new(&mine).collect::<Vec<_>>(), [Ok((&1u64.to_le_bytes()[..], &b"v"[..]))]);
}

#[test]
fn recorded_batches_of_every_kind_decode() {
    // Legacy GetAll and GetAllKeys of 120 records: status, then arrays until an empty one.
    let (mut pairs, mut keys) = (0, 0);
    let mut plain = Vec::new();
    let mut of_keys = false;
    for line in conversation("dht-legacy-getall-batches") {
        if line.from == "client" {
            of_keys = line.bytes.first() == Some(&30);
            continue;
        }
        let mut reader = Reader::new(&line.bytes);
        if line.bytes.len() == 4 {
            continue;
        }
        while let Ok(batch) = reader.array() {
            if batch.is_empty() {
                break;
            }
            decode(batch, DEFAULT_LIMIT, &mut plain).unwrap();
            if of_keys {
                keys += Keys::new(&plain).map(Result::unwrap).filter(|key| key.len() == 16).count();
            } else {
                pairs += Pairs::new(&plain).map(Result::unwrap).filter(|(key, _)| key.len() == 16).count();
            }
        }
    }
    assert_eq!((pairs, keys), (120, 120));

    // The initial refresh of a Mirror: messages of type 9.
    let mut refreshed = Vec::new();
    for line in conversation("dht-neo-mirror-refresh-batches") {
        if let Some([9, payload @ ..]) = line.bytes.get(18..)
            && line.from == "node"
        {
            decode(Reader::new(payload).array().unwrap(), DEFAULT_LIMIT * 2, &mut plain).unwrap();
            refreshed.extend(Refreshed::new(&plain).map(|record| record.unwrap().0));
        }
    }
    refreshed.sort_unstable();
    refreshed.dedup();
    assert_eq!(refreshed.len(), 200);
}

#[test]
fn a_record_fits_exactly_or_not_at_all() {
    let mut builder = BatchBuilder::new(DEFAULT_LIMIT);
    let key = [0; 8];
    assert_eq!(builder.pair(&key, &vec![1; 65_512 + 1]), Added::TooLarge);
    assert_eq!(builder.pair(&key, &vec![1; 65_512]), Added::Yes);
    assert_eq!(builder.plain_len(), 65_536);
    assert_eq!(builder.key_only(&key), Added::Full);
    builder.clear();
    assert_eq!(builder.refresh(7, &vec![1; 65_520 + 1]), Added::TooLarge);
    assert_eq!(builder.refresh(7, &vec![1; 65_520]), Added::Yes);
    assert_eq!(builder.refresh(7, b""), Added::Full);
    builder.clear();
    assert_eq!(builder.key_only(&vec![1; 65_529]), Added::TooLarge);
    assert_eq!(builder.pair(b"0123456789abcdef", &vec![1; 65_504]), Added::Yes);
    assert_eq!(builder.plain_len(), 65_536);
}

#[test]
fn a_claim_is_checked_before_it_is_believed() {
    let block = [0x11, 0, 0];
    for claimed in [101, 1 << 31, 1 << 63, u64::MAX] {
        let batch = [&claimed.to_le_bytes()[..], &block].concat();
        let mut plain = Vec::new();
        assert_eq!(decode(&batch, 100, &mut plain), Err(BatchError::TooLong { claimed, limit: 100 }));
        assert_eq!(plain.capacity(), 0);
    }
    // Even a claim that is allowed takes no more memory than the block could fill.
    let mut plain = Vec::new();
    let batch = [&(16u64 << 20).to_le_bytes()[..], &block].concat();
    assert_eq!(decode(&batch, 16 << 20, &mut plain), Err(BatchError::Length { claimed: 16 << 20, actual: 0 }));
    assert!(plain.capacity() < 4096, "{}", plain.capacity());
}

#[test]
fn a_false_claim_is_refused_either_way() {
    let mut builder = BatchBuilder::new(100);
    assert_eq!(builder.pair(b"key", b"value"), Added::Yes);
    let batch = finished(&mut builder);
    assert_eq!(batch[0], 24);
    let claiming = |claimed: u8| [&[claimed], &batch[1..]].concat();
    assert_eq!(decoded(&claiming(23), 100), Err(BatchError::Block(LzoError::TooLong)));
    assert_eq!(decoded(&claiming(25), 100), Err(BatchError::Length { claimed: 25, actual: 24 }));
    for cut in 0..8 {
        assert_eq!(decoded(&batch[..cut], 100), Err(BatchError::Short));
    }
    for cut in 8..batch.len() {
        assert!(matches!(decoded(&batch[..cut], 100), Err(BatchError::Block(_))));
    }
}

/// The published node crashes on each of these.
#[test]
fn the_recorded_malformed_batches_are_refused() {
    let mut refused = 0;
    for line in conversation("dht-legacy-putbatch-malformed").iter().filter(|line| line.from == "client") {
        let mut reader = Reader::new(&line.bytes);
        let (command, channel, batch) = (reader.i32(), reader.array(), reader.array());
        if command != Ok(34) || channel.is_err() {
            continue;
        }
        let mut plain = Vec::new();
        let result = decode(batch.unwrap(), 1 << 20, &mut plain)
            .and_then(|()| Pairs::new(&plain).collect::<Result<Vec<_>, _>>());
        assert!(result.is_err(), "{}: {result:?}", line.note);
        refused += 1;
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn records_end_at_the_first_that_is_cut_short() {
    let mut builder = BatchBuilder::new(1000);
    assert_eq!((builder.pair(b"a", b"1"), builder.pair(b"b", b"2")), (Added::Yes, Added::Yes));
    let plain = decoded(&finished(&mut builder), 1000).unwrap();
    for cut in 19..plain.len() {
        let mut pairs = Pairs::new(&plain[..cut]);
        assert_eq!(pairs.next(), Some(Ok((&b"a"[..], &b"1"[..]))));
        assert_eq!(pairs.next(), Some(Err(BatchError::Record)));
        assert_eq!(pairs.next(), None);
    }
    let hostile = u64::MAX.to_le_bytes();
    assert_eq!(Keys::new(&hostile).collect::<Vec<_>>(), [Err(BatchError::Record)]);
    assert_eq!(Refreshed::new(&hostile).collect::<Vec<_>>(), [Err(BatchError::Record)]);
}

proptest! {
    #[test]
    fn records_come_back(
        records in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..300)), 0..60),
        legacy in any::<bool>(),
    ) {
        let (mut pairs, mut keys, mut mirror) = (BatchBuilder::new(4096), BatchBuilder::new(4096), BatchBuilder::new(4096));
        let key_of = |key: u64| match legacy {
            true => crate::key::Key(key).hex16().to_vec(),
            false => key.to_le_bytes().to_vec(),
        };
        let mut kept = Vec::new();
        for (key, value) in &records {
            if pairs.pair(&key_of(*key), value) != Added::Yes {
                break;
            }
            prop_assert_eq!(keys.key_only(&key_of(*key)), Added::Yes);
            prop_assert_eq!(mirror.refresh(*key, value), Added::Yes);
            kept.push((*key, value.clone()));
        }
        let plain = decoded(&finished(&mut pairs), 4096).unwrap();
        let back: Vec<_> = Pairs::new(&plain).map(|pair| pair.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        prop_assert_eq!(back, kept.iter().map(|(k, v)| (key_of(*k), v.clone())).collect::<Vec<_>>());
        let plain = decoded(&finished(&mut keys), 4096).unwrap();
        prop_assert_eq!(
            Keys::new(&plain).map(|key| key.unwrap().to_vec()).collect::<Vec<_>>(),
            kept.iter().map(|(k, _)| key_of(*k)).collect::<Vec<_>>()
        );
        let plain = decoded(&finished(&mut mirror), 4096).unwrap();
        let back: Vec<_> = Refreshed::new(&plain).map(|record| record.unwrap()).map(|(k, v)| (k, v.to_vec())).collect();
        prop_assert_eq!(back, kept);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_bounded_batch(batch in prop::collection::vec(any::<u8>(), 0..200), limit in 0..3000usize) {
        if let Ok(plain) = decoded(&batch, limit) {
            prop_assert!(plain.len() <= limit);
            prop_assert!(Pairs::new(&plain).count() <= plain.len());
        }
    }
}
