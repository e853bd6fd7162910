use super::*;

#[test]
fn a_slow_queue_beside_fast_ones_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.create(1, "slow").unwrap();
    journal.create(2, "fast").unwrap();
    let slow: Vec<_> = (0..100u32).map(|number| number.to_le_bytes().repeat(250)).collect();
    for record in &slow {
        push(&mut journal, 1, record).unwrap();
        push(&mut journal, 2, record).unwrap();
    }
    // Some of the middle are taken already: they are not moved.
    journal.release(1, 10, 20).unwrap();
    journal.release(2, 0, 100).unwrap();
    let mut fast = 100;
    for round in 0..400 {
        for _ in 0..20 {
            push(&mut journal, 2, &[5; 1000]).unwrap();
            fast += 1;
        }
        journal.settle().unwrap();
        journal.release(2, fast - 20, fast).unwrap();
        journal.settle().unwrap();
        finish(&journal);
        let bytes = journal.bytes_on_disk();
        let live = 90 * 1024;
        assert!(bytes <= (4 * SMALL.segment_bytes).max(2 * live) + 3 * SMALL.segment_bytes, "{round}: {bytes}");
    }
    assert_eq!(read_all(&mut journal, 1, 0, 5000).0[..10], slow[..10]);
    let rest: Vec<_> = slow[20..].to_vec();
    assert_eq!(read_all(&mut journal, 1, 20, 5000), (rest, 0));
    journal.driver().sync_now().unwrap();
    let files = std::fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert!(files <= 9, "{files}");
    drop(journal);
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.problems, Vec::<String>::new());
    let names: Vec<_> = recovered.queues.iter().map(|queue| (queue.name.as_str(), queue.records)).collect();
    assert_eq!(names, [("slow", 90), ("fast", 0)]);
    let left: Vec<_> = slow[..10].iter().chain(&slow[20..]).cloned().collect();
    assert_eq!(read_all(&mut journal, 1, 0, 5000), (left, 0));
}

#[test]
fn ten_thousand_queues_take_little() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    for queue in 1..=10_000 {
        journal.create(queue, &format!("channel-{queue}")).unwrap();
        for _ in 0..3 {
            push(&mut journal, queue, b"a record").unwrap();
        }
    }
    journal.settle().unwrap();
    finish(&journal);
    journal.driver().sync_now().unwrap();
    assert!(journal.driver().memory() < 10_000 * 1024, "{}", journal.driver().memory());
    drop(journal);
    let (mut journal, _, recovered) = open(dir.path());
    assert_eq!(recovered.queues.len(), 10_000);
    assert!(recovered.queues.iter().all(|queue| queue.records == 3));
    for queue in 1..=10_000 {
        journal.release(queue, 0, 3).unwrap();
    }
    journal.settle().unwrap();
    finish(&journal);
    journal.driver().sync_now().unwrap();
    drop(journal);
    let (_, _, recovered) = open(dir.path());
    assert_eq!(recovered.queues.len(), 10_000);
    assert!(
        recovered.queues.iter().all(|queue| queue.records == 0 && queue.name == format!("channel-{}", queue.queue))
    );
}

#[test]
fn the_index_takes_two_bytes_for_a_small_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.create(1, "a").unwrap();
    let before = journal.driver().memory();
    for _ in 0..100_000 {
        push(&mut journal, 1, &[1; 100]).unwrap();
        journal.settle().unwrap();
    }
    journal.driver().sync_now().unwrap();
    let log = journal.log.borrow();
    let index = log.queues[&1].index.memory();
    assert!(index < 300_000, "{before} {index}");
}
