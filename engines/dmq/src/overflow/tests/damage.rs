//! Files that are damaged, missing, or were changed by another program.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{GOLDEN_DATA, GOLDEN_INDEX, golden_queues, golden_records, open, push};
use crate::disk::contract::{read_all, split};
use crate::disk::{Disk, QueueId};
use crate::overflow::{Overflow, Recovered};

/// Everything a queue gives until it is empty, and how many are lost.
fn drain(disk: &mut Overflow, queue: QueueId, records: u64) -> (Vec<Vec<u8>>, u64) {
    let (mut at, mut out, mut lost) = (0, Vec::new(), 0);
    while at < records {
        let read = disk.read(queue, at, 1000, &mut out).unwrap();
        assert!(read.records + read.lost > 0);
        at += read.records + read.lost;
        lost += read.lost;
    }
    assert_eq!(at, records);
    disk.release(queue, 0, records).unwrap();
    disk.settle().unwrap();
    (split(&out), lost)
}

/// Three queues with 40 records each, some of them consumed, killed after the index was written.
fn sample(dir: &Path) {
    let (mut disk, _) = open(dir);
    for queue in 1..=3 {
        disk.create(queue, &format!("queue-{queue}")).unwrap();
    }
    for n in 0..40_u32 {
        for queue in 1..=3_u32 {
            push(&mut disk, queue, format!("{queue}:{n}:{}", "z".repeat(n as usize)).as_bytes());
        }
        disk.settle().unwrap();
        if n == 20 {
            disk.release(2, 0, 10).unwrap();
            disk.write_index(false).unwrap();
        }
    }
    disk.release(3, 0, 5).unwrap();
    disk.settle().unwrap();
}

/// Checks that what is there belongs to its queue and is in order; returns how many records there are.
fn check(disk: &mut Overflow, recovered: &Recovered) -> u64 {
    let mut all = 0;
    for queue in &recovered.queues {
        let (records, _) = drain(disk, queue.queue, queue.records);
        let mut last = None;
        for record in &records {
            let text = String::from_utf8_lossy(record);
            let mut parts = text.split(':');
            assert_eq!(parts.next().unwrap(), queue.queue.to_string(), "a record of another queue");
            let number: Option<u32> = parts.next().unwrap().parse().ok();
            assert!(number > last || number.is_none(), "order");
            last = number;
        }
        all += records.len() as u64;
    }
    all
}

#[test]
fn without_an_index_the_queues_are_rebuilt_from_the_data() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("overflow.dat"), GOLDEN_DATA).unwrap();
    let (mut disk, recovered) = open(dir.path());
    assert!(recovered.problems.iter().any(|problem| problem.contains("rebuilt")), "{recovered:?}");
    let mut expected = golden_queues();
    expected[0].name = "recovered-2".into();
    expected[1].name = "recovered-5".into();
    assert_eq!(recovered.queues, expected);
    let (q, r) = golden_records();
    assert_eq!((read_all(&mut disk, 2, 0, 4), read_all(&mut disk, 5, 0, 3)), (q, r));
}

#[test]
fn a_damaged_line_of_the_index_costs_a_name_and_no_record() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("overflow.dat"), GOLDEN_DATA).unwrap();
    fs::write(dir.path().join("ofchannels.csv"), b"small_r x 114 292 432\nsmall_q 4 156 8 221\n").unwrap();
    let (_disk, recovered) = open(dir.path());
    let names: Vec<_> = recovered.queues.iter().map(|queue| (queue.name.as_str(), queue.records)).collect();
    assert_eq!(names, [("small_q", 4), ("recovered-5", 3)]);
    assert!(recovered.problems.iter().any(|problem| problem.contains("line 1")));
    assert!(dir.path().join("damaged/ofchannels.csv.1").exists());
}

#[test]
fn an_index_that_another_program_wrote_holds() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let index = dir.path().join("ofchannels.csv");
    let text = fs::read_to_string(&index).unwrap();
    let kept: String =
        text.lines().filter(|line| line.starts_with("queue-1 ")).map(|line| format!("{line}\n")).collect();
    fs::write(&index, kept).unwrap();
    let (mut disk, recovered) = open(dir.path());
    assert!(recovered.problems.iter().any(|problem| problem.contains("another program")), "{recovered:?}");
    assert_eq!(recovered.queues.len(), 1);
    assert_eq!(check(&mut disk, &recovered), 40, "what was appended after the index is followed");
}

#[test]
fn without_positions_the_index_holds_and_the_chains_lead_on() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    fs::remove_file(dir.path().join("overflow.positions")).unwrap();
    let (mut disk, recovered) = open(dir.path());
    let records: Vec<_> = recovered.queues.iter().map(|queue| queue.records).collect();
    assert_eq!(records, [40, 30, 40], "what was consumed since comes back");
    assert_eq!(check(&mut disk, &recovered), 110);
}

#[test]
fn with_positions_nothing_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.problems, [] as [String; 0]);
    let records: Vec<_> = recovered.queues.iter().map(|queue| queue.records).collect();
    assert_eq!(records, [40, 30, 35]);
    assert_eq!(check(&mut disk, &recovered), 105);
}

#[test]
fn damaged_positions_and_index_leave_the_data() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    fs::write(dir.path().join("overflow.positions"), b"nonsense").unwrap();
    fs::write(dir.path().join("ofchannels.csv"), b"\xff\xfe\nqueue").unwrap();
    let (mut disk, recovered) = open(dir.path());
    assert!(!recovered.problems.is_empty());
    assert_eq!(check(&mut disk, &recovered), 120);
    let names: Vec<_> = recovered.queues.iter().map(|queue| queue.name.clone()).collect();
    assert_eq!(names, ["recovered-1", "recovered-2", "recovered-3"]);
    for file in ["overflow.positions.1", "ofchannels.csv.1"] {
        assert!(dir.path().join("damaged").join(file).exists());
    }
}

#[test]
fn a_record_that_is_damaged_while_the_node_runs_is_passed_over_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "one").unwrap();
    disk.create(2, "two").unwrap();
    for n in 0..10_u32 {
        push(&mut disk, 1, format!("1:{n}").as_bytes());
        push(&mut disk, 2, format!("2:{n}").as_bytes());
    }
    disk.settle().unwrap();
    let path = dir.path().join("overflow.dat");
    let mut data = fs::read(&path).unwrap();
    // The header of the record number 4 of the first queue.
    data[8 + 8 * 35 + 3] ^= 0x40;
    fs::write(&path, data).unwrap();
    let (records, lost) = drain(&mut disk, 1, 10);
    assert_eq!((records.len(), lost), (9, 1));
    assert!(!records.contains(&b"1:4".to_vec()));
    let (records, lost) = drain(&mut disk, 2, 10);
    assert_eq!((records.len(), lost), (10, 0));
    let mut findings = Vec::new();
    disk.findings(&mut findings);
    assert_eq!(findings.len(), 1);
}

#[test]
fn what_a_record_contains_is_not_taken_for_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(dir.path());
    disk.create(1, "one").unwrap();
    disk.create(2, "two").unwrap();
    // A queue that carries overflow files, of which some records seem to be those of the other queue.
    for _ in 0..5 {
        push(&mut disk, 1, &GOLDEN_DATA[8..]);
        push(&mut disk, 2, b"2:own");
    }
    disk.settle().unwrap();
    drop(disk);
    fs::remove_file(dir.path().join("overflow.positions")).unwrap();
    let (mut disk, recovered) = open(dir.path());
    let records: Vec<_> = recovered.queues.iter().map(|queue| (queue.queue, queue.records)).collect();
    assert_eq!(records, [(1, 5), (2, 5)]);
    assert_eq!(read_all(&mut disk, 2, 0, 5), vec![b"2:own".to_vec(); 5]);
}

#[test]
fn a_file_that_is_no_overflow_is_reported_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("overflow.dat"), b"something else that is longer than a header of a record").unwrap();
    fs::write(dir.path().join("ofchannels.csv"), GOLDEN_INDEX).unwrap();
    let (_disk, recovered) = open(dir.path());
    assert_eq!(recovered.queues.iter().map(|queue| queue.records).sum::<u64>(), 0);
    assert!(recovered.problems.iter().any(|problem| problem.contains("does not begin")));
    assert!(dir.path().join("damaged/overflow.dat.1").exists());
}

#[test]
fn a_file_whose_head_was_cut_by_the_published_node_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = GOLDEN_DATA.to_vec();
    // A header of channel 0 reaches to the first record that is needed.
    let filler = super::super::header::Header { channel: 0, next: 0, length: 292 - 8 - 32 };
    data[8..40].copy_from_slice(&filler.encode());
    data[40..292].fill(0);
    fs::write(dir.path().join("overflow.dat"), data).unwrap();
    let (mut disk, recovered) = open(dir.path());
    assert_eq!(recovered.queues.len(), 1);
    assert_eq!(read_all(&mut disk, 5, 0, 3), golden_records().1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_are_survived(
        flips in prop::collection::vec((0..3_usize, any::<prop::sample::Index>(), 1..=u8::MAX), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let files = ["overflow.dat", "overflow.positions", "ofchannels.csv"].map(|name| dir.path().join(name));
        for (file, at, flip) in &flips {
            let mut content = fs::read(&files[*file]).unwrap();
            let at = at.index(content.len());
            content[at] ^= flip;
            fs::write(&files[*file], content).unwrap();
        }
        if let Some(cut) = cut {
            let data = fs::read(&files[0]).unwrap();
            fs::write(&files[0], &data[..cut.index(data.len())]).unwrap();
        }
        let (mut disk, recovered) = open(dir.path());
        let mut all = 0;
        for queue in &recovered.queues {
            let (records, lost) = drain(&mut disk, queue.queue, queue.records);
            for record in &records {
                // A flip within a record's own bytes shows in these.
                let own = record.first() == Some(&(b'0' + u8::try_from(queue.queue).unwrap()));
                prop_assert!(own || flips.iter().any(|(file, ..)| *file == 0), "{queue:?}: {record:?}");
            }
            all += records.len() as u64 + lost;
        }
        // At most what was there before, those that were consumed among it.
        prop_assert!(all <= 120);
        if cut.is_none() && flips.iter().all(|(file, ..)| *file != 0) {
            prop_assert!(all >= 105, "{all} {recovered:?}");
        }
    }
}
