#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn payloads(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|number| format!("message number {number}").into_bytes()).collect()
}

fn read_all(spool: &mut Spool) -> Vec<Vec<u8>> {
    spool.rewind();
    std::iter::from_fn(|| Some(spool.read(3, 100).unwrap()).filter(|records| !records.is_empty()))
        .flatten()
        .map(|record| record.payload)
        .collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir).unwrap().into_iter().map(|first| segment::path(dir, first)).collect()
}

fn damaged_files(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("damaged-")).count()
}

#[test]
fn the_form_on_disk_is_fixed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(spool.append(&[b"ab", b"cd"], 7).unwrap(), 2);
    spool.release(1, 1).unwrap();
    let segment = fs::read(dir.path().join("00000000000000000001.seg")).unwrap();
    let mut golden = b"OVSPOOL1\x01\0\0\0\0\0\0\0".to_vec();
    for (sequence, sum, payload) in [(1u8, 0x54ad8f6au32, b"ab"), (2, 0x657e95bf, b"cd")] {
        golden.extend(b"\xf5REC");
        golden.extend(sum.to_le_bytes());
        golden.extend(b"\x02\0\0\0");
        golden.extend([sequence, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend(payload);
    }
    assert_eq!(segment, golden);
    let cursor = fs::read(dir.path().join("cursor")).unwrap();
    assert_eq!(cursor, b"\x01\0\0\0\0\0\0\0\xf7\xdf\x88\xa9");
}

#[test]
fn a_second_user_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let _spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let error = Spool::open(dir.path(), 1 << 20).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn the_bound_holds_and_room_comes_back_with_release() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 32 * 1024).unwrap();
    let payload = vec![0u8; 1000];
    let all: Vec<_> = std::iter::repeat_n(&payload, 100).collect();
    let taken = spool.append(&all, 0).unwrap();
    assert!((25..32).contains(&taken), "{taken}");
    assert_eq!(spool.append(&all, 0).unwrap(), 0);
    assert!(spool.bytes() <= 32 * 1024);
    assert!(segments(dir.path()).len() > 4, "the bound is shared by several segments");
    let read = spool.read(10, usize::MAX).unwrap();
    spool.release(read[9].sequence, 10).unwrap();
    assert!(spool.append(&all, 0).unwrap() >= 4);
}

#[test]
fn a_released_record_stays_released_and_numbers_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    spool.append(&payloads(0..5), 0).unwrap();
    let read = spool.read(3, usize::MAX).unwrap();
    spool.release(read[2].sequence, 3).unwrap();
    drop(spool);
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(spool.len(), 2);
    assert_eq!(read_all(&mut spool), payloads(3..5));
    spool.release(5, 2).unwrap();
    assert!(spool.is_empty() && segments(dir.path()).is_empty());
    drop(spool);
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    spool.append(&payloads(5..6), 0).unwrap();
    assert_eq!(spool.read(9, 999).unwrap()[0].sequence, 6);
}

#[test]
fn a_lost_cursor_means_reading_again_not_losing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    spool.append(&payloads(0..5), 0).unwrap();
    spool.release(2, 2).unwrap();
    drop(spool);
    fs::write(dir.path().join("cursor"), b"garbage garbage").unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(read_all(&mut spool), payloads(0..5));
}

#[test]
fn a_record_changed_while_the_spool_is_open_is_passed_over_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    spool.append(&payloads(0..3), 0).unwrap();
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let at = segment::HEADER + RECORD_OVERHEAD + payloads(0..1)[0].len() + RECORD_OVERHEAD + 3;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(read_all(&mut spool), [payloads(0..1), payloads(2..3)].concat());
    assert_eq!(spool.len(), 2);
    assert_eq!(damaged_files(dir.path()), 1);
}

/// What a test does to a spool.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u16>),
    Read(usize),
    ReleaseRead,
    Rewind,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(0u16..3000, 1..6).prop_map(Step::Append),
        (1usize..6).prop_map(Step::Read),
        Just(Step::ReleaseRead),
        Just(Step::Rewind),
        Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The spool does what a queue in memory does, whatever is done to it and whenever it is opened again.
    #[test]
    fn it_is_a_queue(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let (mut position, mut next) = (0, 1);
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let payloads: Vec<Vec<u8>> =
                        sizes.iter().map(|size| (0..*size).map(|at| (at ^ size).to_le_bytes()[0]).collect()).collect();
                    let taken = spool.append(&payloads, 0).unwrap();
                    for payload in payloads.into_iter().take(taken) {
                        model.push_back((next, payload));
                        next += 1;
                    }
                }
                Step::Read(count) => {
                    let read = spool.read(count, usize::MAX).unwrap();
                    let wanted: Vec<_> = model.iter().skip(position).take(count).cloned().collect();
                    position += read.len();
                    prop_assert_eq!(read.into_iter().map(|r| (r.sequence, r.payload)).collect::<Vec<_>>(), wanted);
                }
                Step::ReleaseRead => {
                    if position > 0 {
                        spool.release(model[position - 1].0, position as u64).unwrap();
                        model.drain(..position);
                        position = 0;
                    }
                }
                Step::Rewind => {
                    spool.rewind();
                    position = 0;
                }
                Step::Reopen => {
                    drop(spool);
                    spool = Spool::open(dir.path(), 1 << 20).unwrap();
                    position = 0;
                }
            }
            prop_assert_eq!(spool.len(), model.len() as u64);
            prop_assert_eq!(spool.is_empty(), model.is_empty());
        }
    }

    /// kill -9 and power loss cut the last write anywhere: every record whose end was written is kept, and the spool
    /// takes new ones.
    #[test]
    fn a_truncation_keeps_every_whole_record(sizes in proptest::collection::vec(0usize..200, 1..12), cut in 0.0f64..1.0) {
        let dir = tempfile::tempdir().unwrap();
        let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![u8::try_from(n).unwrap(); *size]).collect();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        spool.append(&payloads, 0).unwrap();
        drop(spool);
        let path = segments(dir.path()).remove(0);
        let bytes = fs::read(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a fraction of a length")]
        let kept = (bytes.len() as f64 * cut) as usize;
        fs::write(&path, &bytes[..kept]).unwrap();
        let mut end = segment::HEADER;
        let whole = sizes.iter().take_while(|size| { end += RECORD_OVERHEAD + **size; end <= kept }).count();

        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        prop_assert_eq!(read_all(&mut spool), payloads[..whole].to_vec());
        prop_assert_eq!(spool.append(&[b"new"], 0).unwrap(), 1);
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        prop_assert_eq!(read_all(&mut spool), [payloads[..whole].to_vec(), vec![b"new".to_vec()]].concat());
        prop_assert_eq!(damaged_files(dir.path()), 0);
    }

    /// One changed bit costs at most the record that it is in.
    #[test]
    fn a_bit_flip_costs_one_record(sizes in proptest::collection::vec(0usize..200, 1..12), at in 0.0f64..1.0, bit in 0u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, size)| vec![u8::try_from(n).unwrap(); *size]).collect();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        spool.append(&payloads, 0).unwrap();
        drop(spool);
        let path = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a fraction of a length")]
        let at = segment::HEADER + ((bytes.len() - segment::HEADER) as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let mut end = segment::HEADER;
        let hit = sizes.iter().take_while(|size| { end += RECORD_OVERHEAD + **size; end <= at }).count();
        let mut wanted = payloads.clone();
        wanted.remove(hit);

        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        prop_assert_eq!(spool.len(), wanted.len() as u64);
        prop_assert_eq!(read_all(&mut spool), wanted.clone());
        prop_assert_eq!(spool.append(&[b"new"], 0).unwrap(), 1);
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        wanted.push(b"new".to_vec());
        prop_assert_eq!(read_all(&mut spool), wanted);
    }
}
