//! What every [`Disk`] does, as tests that run on each of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::{Disk, QueueId, Read, RecoveredQueue};

/// Opens the disk in a directory; it is dropped, not closed, before it is opened again.
pub(crate) type Open<'a> = &'a dyn Fn(&Path) -> (Box<dyn Disk>, Vec<RecoveredQueue>);

/// Runs all tests.
pub(crate) fn run(open: Open<'_>) {
    let tests: [fn(&Path, Open<'_>); 8] = [
        records_come_back_in_order,
        a_read_gives_what_fits_and_at_least_one,
        what_was_settled_is_there_after_a_kill,
        what_was_released_does_not_come_back,
        names_and_removals_survive,
        queues_do_not_mix,
        records_of_all_sizes,
        a_queue_that_was_emptied_goes_on,
    ];
    for test in tests {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path(), open);
    }
}

fn push(disk: &mut dyn Disk, queue: QueueId, record: &[u8]) {
    disk.reserve(1, record.len() as u64).unwrap();
    disk.append(queue, record).unwrap();
}

/// The records from number `from` on.
pub(crate) fn read_all(disk: &mut dyn Disk, queue: QueueId, from: u64, to: u64) -> Vec<Vec<u8>> {
    let (mut at, mut records) = (from, Vec::new());
    while at < to {
        let mut out = Vec::new();
        let read = disk.read(queue, at, 64 * 1024, &mut out).unwrap();
        assert_eq!(read.lost, 0);
        assert!(read.records > 0, "records {at}..{to} of queue {queue} are missing");
        records.append(&mut split(&out));
        at += read.records;
    }
    // The last read may give more than was asked for.
    records.truncate(usize::try_from(to - from).unwrap());
    records
}

/// Takes apart what [`Disk::read`] gives.
pub(crate) fn split(mut out: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((len, rest)) = out.split_first_chunk() {
        let (record, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*len)).unwrap());
        records.push(record.to_vec());
        out = rest;
    }
    records
}

fn number(n: u64) -> Vec<u8> {
    format!("record {n}").into_bytes()
}

fn find<'a>(found: &'a [RecoveredQueue], name: &str) -> Option<&'a RecoveredQueue> {
    found.iter().find(|queue| queue.name == name)
}

fn records_come_back_in_order(dir: &Path, open: Open<'_>) {
    let (mut disk, found) = open(dir);
    assert!(found.is_empty());
    disk.create(1, "chan").unwrap();
    for n in 0..1000 {
        push(&mut *disk, 1, &number(n));
        if n % 7 == 0 {
            disk.settle().unwrap();
        }
    }
    // Whether settled or not.
    assert_eq!(read_all(&mut *disk, 1, 0, 1000), (0..1000).map(number).collect::<Vec<_>>());
    disk.release(1, 0, 500).unwrap();
    disk.settle().unwrap();
    assert_eq!(read_all(&mut *disk, 1, 500, 1000), (500..1000).map(number).collect::<Vec<_>>());
    assert_eq!(read_all(&mut *disk, 1, 777, 780), (777..780).map(number).collect::<Vec<_>>());
}

fn a_read_gives_what_fits_and_at_least_one(dir: &Path, open: Open<'_>) {
    let (mut disk, _) = open(dir);
    disk.create(1, "chan").unwrap();
    for _ in 0..10 {
        push(&mut *disk, 1, &[7; 100]);
    }
    disk.settle().unwrap();
    for (max, records) in [(0, 1), (107, 1), (108, 1), (215, 1), (216, 2), (100_000, 10)] {
        let mut out = b"before".to_vec();
        let read = disk.read(1, 0, max, &mut out).unwrap();
        assert_eq!(read, Read { lost: 0, records }, "{max}");
        assert_eq!(out.len() as u64, 6 + records * 108);
        assert!(out.starts_with(b"before"));
    }
}

fn what_was_settled_is_there_after_a_kill(dir: &Path, open: Open<'_>) {
    let (mut disk, _) = open(dir);
    disk.create(1, "one").unwrap();
    disk.create(2, "sub@two").unwrap();
    for n in 0..300 {
        push(&mut *disk, 1 + u32::from(n % 3 == 0), &number(n));
    }
    disk.settle().unwrap();
    drop(disk);
    for _ in 0..2 {
        let (mut disk, found) = open(dir);
        let two = find(&found, "sub@two").unwrap();
        assert_eq!((find(&found, "one").unwrap().records, two.records), (200, 100));
        let expected: Vec<_> = (0..300).step_by(3).map(number).collect();
        assert_eq!(two.bytes, expected.iter().map(|record| record.len() as u64).sum::<u64>());
        assert_eq!(read_all(&mut *disk, two.queue, 0, 100), expected);
    }
}

fn what_was_released_does_not_come_back(dir: &Path, open: Open<'_>) {
    let (mut first, mut last) = (0, 0);
    for round in 0..5 {
        let (mut disk, found) = open(dir);
        let queue = found.first().map_or(1, |queue| queue.queue);
        if round == 0 {
            disk.create(queue, "chan").unwrap();
        } else {
            assert_eq!(find(&found, "chan").unwrap().records, last - first);
        }
        let base = first;
        for _ in 0..300 {
            push(&mut *disk, queue, &number(last));
            last += 1;
        }
        for step in [1, 1, 100, 23, 120] {
            let expected: Vec<_> = (first..first + step).map(number).collect();
            assert_eq!(read_all(&mut *disk, queue, first - base, first + step - base), expected);
            disk.release(queue, first - base, first + step - base).unwrap();
            first += step;
            disk.settle().unwrap();
        }
    }
}

fn names_and_removals_survive(dir: &Path, open: Open<'_>) {
    let (mut disk, _) = open(dir);
    for (queue, name) in [(1, "chan"), (2, "gone"), (3, "kept")] {
        disk.create(queue, name).unwrap();
        push(&mut *disk, queue, name.as_bytes());
    }
    disk.settle().unwrap();
    disk.rename(1, "sub@chan").unwrap();
    disk.remove(2).unwrap();
    disk.settle().unwrap();
    drop(disk);
    let (mut disk, found) = open(dir);
    assert!(find(&found, "chan").is_none() && find(&found, "gone").is_none());
    let renamed = find(&found, "sub@chan").unwrap().queue;
    assert_eq!(read_all(&mut *disk, renamed, 0, 1), [b"chan"]);
    assert_eq!(read_all(&mut *disk, find(&found, "kept").unwrap().queue, 0, 1), [b"kept"]);
    // A new queue has nothing of the old one of that name.
    let new = found.iter().map(|queue| queue.queue).max().unwrap() + 1;
    disk.create(new, "gone").unwrap();
    push(&mut *disk, new, b"new");
    disk.settle().unwrap();
    drop(disk);
    let (mut disk, found) = open(dir);
    let gone = find(&found, "gone").unwrap();
    assert_eq!(gone.records, 1);
    assert_eq!(read_all(&mut *disk, gone.queue, 0, 1), [b"new"]);
}

fn queues_do_not_mix(dir: &Path, open: Open<'_>) {
    let (mut disk, _) = open(dir);
    for queue in 1..=200 {
        disk.create(queue, &format!("queue-{queue}")).unwrap();
    }
    for n in 0..20_u64 {
        for queue in 1..=200 {
            push(&mut *disk, queue, format!("{queue}:{n}").as_bytes());
        }
        disk.settle().unwrap();
    }
    drop(disk);
    let (mut disk, found) = open(dir);
    assert_eq!(found.iter().filter(|queue| queue.records == 20).count(), 200);
    for queue in found {
        let own = queue.name.strip_prefix("queue-").unwrap();
        let expected: Vec<_> = (0..20).map(|n| format!("{own}:{n}").into_bytes()).collect();
        assert_eq!(read_all(&mut *disk, queue.queue, 0, 20), expected);
    }
}

fn records_of_all_sizes(dir: &Path, open: Open<'_>) {
    let sizes = [1, 2, 31, 100, 4_000, 4_096, 70_000, 1, 300_000, 2_500_000, 5];
    let (mut disk, _) = open(dir);
    disk.create(1, "chan").unwrap();
    let record = |n: usize| vec![u8::try_from(n).unwrap(); sizes[n]];
    for n in 0..sizes.len() {
        push(&mut *disk, 1, &record(n));
    }
    disk.settle().unwrap();
    let expected: Vec<_> = (0..sizes.len()).map(record).collect();
    assert!(read_all(&mut *disk, 1, 0, sizes.len() as u64) == expected);
    drop(disk);
    let (mut disk, found) = open(dir);
    assert_eq!(found[0].bytes, sizes.iter().sum::<usize>() as u64);
    assert!(read_all(&mut *disk, found[0].queue, 0, sizes.len() as u64) == expected);
}

fn a_queue_that_was_emptied_goes_on(dir: &Path, open: Open<'_>) {
    let (mut disk, _) = open(dir);
    disk.create(1, "chan").unwrap();
    for n in 0..50 {
        push(&mut *disk, 1, &number(n));
        assert_eq!(read_all(&mut *disk, 1, n, n + 1), [number(n)]);
        disk.release(1, n, n + 1).unwrap();
        if n % 3 == 0 {
            disk.settle().unwrap();
        }
    }
    push(&mut *disk, 1, b"last");
    disk.settle().unwrap();
    drop(disk);
    let (mut disk, found) = open(dir);
    let queue = find(&found, "chan").unwrap();
    assert_eq!(queue.records, 1);
    assert_eq!(read_all(&mut *disk, queue.queue, 0, 1), [b"last"]);
}
