//! Full disks, failing writes, many queues, space that is given back, and how long things take.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use super::{Options, Overflow, open, push};
use crate::disk::contract::{read_all, split};
use crate::disk::{Disk, DiskError};
use crate::overflow::files::seam;

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    for without_fallocate in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = open(dir.path());
        seam::set_without_fallocate(without_fallocate);
        seam::set_room(20_000);
        disk.create(1, "chan").unwrap();
        let mut pushed = 0_u64;
        loop {
            match disk.reserve(2, 200) {
                Ok(()) => {}
                Err(DiskError::Full(_)) => break,
                Err(error) => panic!("{error}"),
            }
            for _ in 0..2 {
                let record = format!("{pushed:0100}");
                disk.append(1, record.as_bytes()).unwrap();
                pushed += 1;
            }
            disk.settle().unwrap();
        }
        assert_eq!(pushed, (20_000 - 8) / 264 * 2, "all room is used");
        // Smaller ones fit, and consuming goes on.
        disk.reserve(1, 10).unwrap();
        let records = read_all(&mut disk, 1, 0, pushed);
        assert!(records.iter().enumerate().all(|(n, record)| *record == format!("{n:0100}").into_bytes()));
        disk.release(1, 0, 10).unwrap();
        disk.settle().unwrap();
        drop(disk);
        seam::set_room(u64::MAX);
        let (mut disk, recovered) = open(dir.path());
        seam::set_without_fallocate(false);
        assert_eq!((recovered.queues[0].records, recovered.problems.len()), (pushed - 10, 0));
        assert_eq!(read_all(&mut disk, 1, 0, 1), [format!("{:0100}", 10).into_bytes()]);
        disk.close().unwrap();
    }
}

#[test]
fn a_write_that_fails_is_told_and_made_good_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "chan").unwrap();
    push(&mut disk, 1, b"one");
    disk.settle().unwrap();
    push(&mut disk, 1, b"two");
    disk.release(1, 0, 1).unwrap();
    seam::set_broken(true);
    disk.settle().unwrap_err();
    assert!(matches!(disk.reserve(1, 1), Err(DiskError::Failed)));
    assert!(disk.read(1, 1, 100, &mut Vec::new()).is_err());
    disk.settle().unwrap_err();
    let mut findings = Vec::new();
    disk.findings(&mut findings);
    assert_eq!(findings.len(), 1);
    seam::set_broken(false);
    disk.settle().unwrap();
    push(&mut disk, 1, b"three");
    disk.settle().unwrap();
    drop(disk);
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.problems, [] as [String; 0]);
    assert_eq!(read_all(&mut disk, 1, 0, 2), [b"two".to_vec(), b"three".to_vec()]);
}

#[test]
fn ten_thousand_queues_keep_their_records() {
    const QUEUES: u32 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = Overflow::open(dir.path(), &Options::default()).unwrap();
    for queue in 1..=QUEUES {
        disk.create(queue, &format!("queue-{queue}")).unwrap();
    }
    for round in 0..5 {
        for queue in 1..=QUEUES {
            push(&mut disk, queue, format!("{queue}:{round}").as_bytes());
        }
        disk.settle().unwrap();
    }
    for queue in (1..=QUEUES).step_by(2) {
        assert_eq!(read_all(&mut disk, queue, 0, 2)[1], format!("{queue}:1").into_bytes());
        disk.release(queue, 0, 2).unwrap();
    }
    disk.settle().unwrap();
    disk.write_index(false).unwrap();
    drop(disk);
    let (mut disk, recovered) = Overflow::open(dir.path(), &Options::default()).unwrap();
    assert_eq!((recovered.queues.len(), recovered.problems.len()), (QUEUES as usize, 0));
    for queue in &recovered.queues {
        let consumed = if queue.queue % 2 == 1 { 2 } else { 0 };
        assert_eq!(queue.records, 5 - consumed);
        let records = read_all(&mut disk, queue.queue, 0, queue.records);
        let expected: Vec<_> = (consumed..5).map(|round| format!("{}:{round}", queue.queue).into_bytes()).collect();
        assert_eq!(records, expected);
    }
}

#[test]
fn space_before_the_first_record_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = Overflow::open(dir.path(), &Options { preallocate: 1 << 20 }).unwrap();
    disk.create(1, "chan").unwrap();
    for _ in 0..400 {
        push(&mut disk, 1, &[1; 100_000]);
    }
    disk.settle().unwrap();
    let before = disk.bytes_on_disk();
    for n in 0..300 {
        assert_eq!(read_all(&mut disk, 1, n, n + 1)[0].len(), 100_000);
        disk.release(1, n, n + 1).unwrap();
        disk.settle().unwrap();
    }
    assert!(disk.bytes_on_disk() < before / 3 * 2, "{} {before}", disk.bytes_on_disk());
    let taken = fs::metadata(dir.path().join("overflow.dat")).unwrap().blocks() * 512;
    assert!(taken < before / 3 * 2, "{taken} {before}");
    drop(disk);
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.problems, [] as [String; 0]);
    assert_eq!(recovered.queues[0].records, 100);
    assert!(read_all(&mut disk, 1, 0, 100).iter().all(|record| *record == [1; 100_000]));
    disk.release(1, 0, 100).unwrap();
    disk.settle().unwrap();
    assert_eq!(fs::metadata(dir.path().join("overflow.dat")).unwrap().len(), 0);
    // The positions are written anew when they grow long.
    for n in 100..60_000 {
        push(&mut disk, 1, b"x");
        disk.release(1, n, n + 1).unwrap();
        disk.settle().unwrap();
    }
    assert!(fs::metadata(dir.path().join("overflow.positions")).unwrap().len() < 3 << 20);
}

#[test]
fn what_an_append_and_a_read_cost() {
    const GROUPS: u64 = if cfg!(debug_assertions) { 50 } else { 20_000 };
    for queues in [1, 64] {
        let dir = tempfile::tempdir().unwrap();
        let (mut disk, _) = Overflow::open(dir.path(), &Options::default()).unwrap();
        for queue in 1..=queues {
            disk.create(queue, &format!("queue-{queue}")).unwrap();
        }
        let begin = Instant::now();
        for _ in 0..GROUPS {
            for n in 0..64 {
                push(&mut disk, 1 + n % queues, &[7; 100]);
            }
            disk.settle().unwrap();
        }
        let appended = begin.elapsed() / u32::try_from(GROUPS).unwrap();
        let (begin, records) = (Instant::now(), GROUPS * 64 / u64::from(queues));
        let (mut out, mut at, mut reads) = (Vec::new(), 0, 0_u64);
        while at < records {
            for queue in 1..=queues {
                out.clear();
                let read = disk.read(queue, at, 64 * 108, &mut out).unwrap();
                let wanted = 64.min(records - at);
                assert_eq!((read.records, out.len() as u64), (wanted, 108 * wanted));
                disk.release(queue, at, at + read.records).unwrap();
                disk.settle().unwrap();
                reads += 1;
            }
            at += 64.min(records - at);
        }
        let read = begin.elapsed() / u32::try_from(reads).unwrap();
        println!("{queues} queues: append and settle of 64: {appended:?}, read, release and settle of 64: {read:?}");
        assert!(split(&out).iter().all(|record| *record == [7; 100]));
    }
}

#[test]
fn without_room_for_the_positions_records_leave_and_the_node_starts() {
    // Settling failed: no reply was sent, and what was popped was gone. A node did not start.
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "chan").unwrap();
    (0..50).for_each(|number: u32| push(&mut disk, 1, &number.to_le_bytes()));
    disk.settle().unwrap();
    drop(disk);
    seam::set_positions_full(true);
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.queues[0].records, 50);
    for number in 0..20 {
        disk.release(1, number, number + 1).unwrap();
        disk.settle().unwrap();
    }
    let mut findings = Vec::new();
    disk.findings(&mut findings);
    assert_eq!(findings[0].check, "overflow_write");
    assert!(disk.reserve(1, 1).is_err());
    seam::set_positions_full(false);
    disk.settle().unwrap();
    findings.clear();
    disk.findings(&mut findings);
    assert_eq!(findings, []);
    push(&mut disk, 1, b"new");
    disk.settle().unwrap();
    drop(disk);
    let (_disk, recovered) = open(dir.path());
    assert_eq!((recovered.queues[0].records, recovered.problems.len()), (31, 0));
}

#[test]
fn much_space_is_given_back_in_pieces_and_what_keeps_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "forgotten").unwrap();
    disk.create(2, "busy").unwrap();
    push(&mut disk, 1, b"first");
    let (record, records) = (vec![7; 1 << 20], 280);
    let mut out = Vec::new();
    for number in 0..records {
        push(&mut disk, 2, &record);
        disk.settle().unwrap();
        out.clear();
        disk.read(2, number, 1, &mut out).unwrap();
        disk.release(2, number, number + 1).unwrap();
    }
    push(&mut disk, 2, b"last");
    disk.settle().unwrap();
    let mut findings = Vec::new();
    disk.findings(&mut findings);
    assert!(findings.len() == 1 && findings[0].check == "overflow_space", "{findings:?}");
    assert!(findings[0].text.contains("forgotten"), "{findings:?}");
    seam::record();
    disk.release(1, 0, 1).unwrap();
    disk.settle().unwrap();
    // A stalled thread stops all requests: no piece is large, and each settle gives back one.
    for _ in 0..10 {
        disk.settle().unwrap();
    }
    let punched: Vec<u64> = (seam::recorded().into_iter())
        .filter_map(|op| if let seam::Op::Punch { from, to, .. } = op { Some(to - from) } else { None })
        .collect();
    assert!(punched.len() >= 4 && punched.iter().all(|bytes| *bytes <= 64 << 20), "{punched:?}");
    findings.clear();
    disk.findings(&mut findings);
    assert_eq!(findings, []);
    assert_eq!(read_all(&mut disk, 2, records, records + 1), [b"last".to_vec()]);
    disk.release(2, records, records + 1).unwrap();
    disk.settle().unwrap();
    disk.close().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
