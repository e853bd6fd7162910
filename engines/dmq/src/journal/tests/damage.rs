use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::journal::format::{Head, Salt};
use crate::journal::segment;

fn fill(dir: &Path) -> Vec<Vec<u8>> {
    let (mut journal, _, _) = open(dir);
    journal.create(1, "a").unwrap();
    let records: Vec<_> = (0..300u32).map(|number| number.to_le_bytes().repeat(150)).collect();
    for record in &records {
        push(&mut journal, 1, record).unwrap();
        journal.settle().unwrap();
    }
    finish(&journal);
    journal.driver().sync_now().unwrap();
    // The marks behind the last group say that all before it was durable.
    journal.create(2, "end").unwrap();
    journal.settle().unwrap();
    finish(&journal);
    records
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    paths.sort();
    paths
}

#[test]
fn a_damaged_entry_costs_its_record_alone_and_a_copy_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let records = fill(dir.path());
    let path = segments(dir.path())[1].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[20_000] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let (mut journal, _, recovered) = open(dir.path());
    let [problem] = &recovered.problems[..] else { panic!("{:?}", recovered.problems) };
    assert!(
        problem.contains(&format!("{}: damaged from ", path.display())) && problem.contains("kept as damaged/"),
        "{problem}"
    );
    let kept = fs::read_dir(dir.path().join("damaged")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(kept.path()).unwrap(), bytes);
    let (found, lost) = read_all(&mut journal, 1, 0, 10_000);
    assert_eq!((found.len(), lost), (299, 0));
    let mut all = records.iter();
    assert!(found.iter().all(|record| all.any(|one| one == record)));
}

#[test]
fn a_record_that_goes_bad_while_the_node_runs_is_lost_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.create(1, "a").unwrap();
    for number in 0..10u8 {
        push(&mut journal, 1, &[number; 500]).unwrap();
    }
    journal.driver().sync_now().unwrap();
    let path = segment::path(&dir.path().join("journal"), 1);
    let mut bytes = fs::read(&path).unwrap();
    // The first entry is the queue's creation.
    for record in [1, 5] {
        bytes[4128 + 25 + record * 524 + 100] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let mut out = Vec::new();
    let read = journal.read(1, 0, 100_000, &mut out).unwrap();
    assert_eq!((read.lost, read.records), (0, 1));
    let read = journal.read(1, 1, 100_000, &mut out).unwrap();
    assert_eq!((read.lost, read.records), (1, 3));
    assert_eq!(read_all(&mut journal, 1, 0, 100_000).0.len(), 8);
    journal.release(1, 0, 10).unwrap();
    journal.settle().unwrap();
    let mut findings = Vec::new();
    journal.findings(&mut findings);
    let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["journal_lost", "journal_damaged"]);
    assert!(dir.path().join("damaged").exists());
}

#[test]
fn a_segment_of_a_later_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let paths = segments(dir.path());
    let serial = segment::serial_of(paths[1].file_name().unwrap().to_str().unwrap()).unwrap();
    let head = Head { version: 9, serial, salt: Salt::new(serial) };
    let mut bytes = fs::read(&paths[1]).unwrap();
    bytes[..32].copy_from_slice(&head.encode());
    fs::write(&paths[1], &bytes).unwrap();
    let result = Journal::open(dir.path(), &SMALL, Rc::new(Commits::new()));
    assert!(matches!(result, Err(crate::journal::OpenError::Version { version: 9, .. })));
    assert_eq!(segments(dir.path()), paths);
}

#[test]
fn one_intact_head_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let records = fill(dir.path());
    for path in segments(dir.path()) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, &bytes).unwrap();
    }
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.problems, Vec::<String>::new());
    assert_eq!(read_all(&mut journal, 1, 0, 10_000), (records, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_are_reported(flips in proptest::collection::vec((any::<u16>(), any::<u32>(), 1..=255u8), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let records = fill(dir.path());
        let paths = segments(dir.path());
        for (file, at, xor) in flips {
            let path = &paths[usize::from(file) % paths.len()];
            let mut bytes = fs::read(path).unwrap();
            let at = at as usize % bytes.len();
            bytes[at] ^= xor;
            fs::write(path, &bytes).unwrap();
        }
        let (mut journal, _, recovered) = open(dir.path());
        let mut found = Vec::new();
        for queue in &recovered.queues {
            let (records, lost) = read_all(&mut journal, queue.queue, 0, 10_000);
            prop_assert_eq!((records.len() as u64, lost), (queue.records, 0));
            found.extend(records);
        }
        let mut all = records.iter();
        prop_assert!(found.iter().all(|record| all.any(|one| one == record)));
        // With the marks gone as well, the end looks like what a crash cuts short.
        let is_told = !recovered.problems.is_empty() || recovered.unfinished > 0;
        prop_assert!(found.len() == records.len() || is_told, "{:?}", recovered);
        // It is of use as before.
        push(&mut journal, recovered.queues.first().map_or(1, |queue| queue.queue), b"more").ok();
        drop(journal);
        let (_, _, again) = open(dir.path());
        prop_assert!(again.queues.len() >= recovered.queues.len());
    }
}

#[test]
fn after_an_orderly_stop_what_is_missing_is_told() {
    // A segment that was cut, emptied or deleted while the node did not run left no trace: the log just seemed to be shorter.
    for (what, damage) in [
        (
            "cut",
            (|path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(9000).unwrap()) as fn(&Path),
        ),
        ("emptied", |path| fs::write(path, "").unwrap()),
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("zeroed", |path| fs::write(path, vec![0; 65_536]).unwrap()),
    ] {
        for last in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path());
            let (journal, _, _) = open(dir.path());
            finish(&journal);
            let mut journal = journal;
            (0..20).for_each(|_| push(&mut journal, 1, &[1; 1000]).unwrap());
            journal.driver().close().unwrap();
            let log = journal.log.borrow();
            let serial = if last { log.last_serial() } else { log.segments[1].serial };
            drop(log);
            drop(journal);
            damage(&segment::path(&dir.path().join("journal"), serial));
            let (journal, _, recovered) = open(dir.path());
            let name = format!("{serial:08}.journal");
            assert!(recovered.problems.iter().any(|text| text.contains(&name)), "{what} {last}: {recovered:?}");
            drop(journal);
            // It is told once, unless what is left of the segment is still needed.
            let again = open(dir.path()).2.problems;
            assert!(again.is_empty() || what == "cut", "{what} {last}: {again:?}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.problems, [""; 0]);
    journal.driver().close().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).2.problems, [""; 0]);
}
