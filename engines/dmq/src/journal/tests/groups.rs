use overstory_model::State;

use super::seam::Watched;
use super::*;

#[test]
fn pushes_of_many_connections_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, commits, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    journal.settle().unwrap();
    finish(&journal);
    let before = watched.with(|seen| {
        seen.hold = true;
        seen.syncs
    });
    let writes = watched.with(|seen| seen.writes);
    for connection in 0u8..100 {
        push(&mut journal, 1, &[connection]).unwrap();
        journal.settle().unwrap();
    }
    assert_eq!(commits.durable(), 1);
    // The first push began a group; the others wait in memory for the next one.
    assert_eq!(watched.with(|seen| seen.writes) - writes, 1);
    // What a reply takes away is written at once, behind everything before.
    journal.release(1, 0, 1).unwrap();
    journal.settle().unwrap();
    assert_eq!(watched.with(|seen| seen.writes) - writes, 2);
    watched.with(|seen| seen.hold = false);
    finish(&journal);
    assert_eq!(commits.durable(), 101);
    assert_eq!(watched.with(|seen| seen.syncs) - before, 2);
}

#[test]
fn the_task_tells_what_is_durable_and_begins_the_next_group() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, commits, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let task = tokio::task::spawn_local(crate::journal::run(journal.driver()));
        let journal = Rc::new(RefCell::new(journal));
        let connections: Vec<_> = (0..64u8)
            .map(|connection| {
                let (journal, commits) = (Rc::clone(&journal), Rc::clone(&commits));
                tokio::task::spawn_local(async move {
                    for _ in 0..50 {
                        push(&mut journal.borrow_mut(), 1, &[connection; 100]).unwrap();
                        journal.borrow_mut().settle().unwrap();
                        let number = commits.made();
                        while commits.durable() < number {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for connection in connections {
            tokio::time::timeout(Duration::from_secs(60), connection).await.unwrap().unwrap();
        }
        task.abort();
    });
    let syncs = watched.with(|seen| seen.syncs);
    assert!(syncs < 64 * 50 / 8, "{syncs} syncs");
}

#[test]
fn after_a_failed_sync_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, commits, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    push(&mut journal, 1, b"kept").unwrap();
    journal.settle().unwrap();
    finish(&journal);
    watched.with(|seen| seen.fail_sync = true);
    push(&mut journal, 1, b"never acknowledged").unwrap();
    journal.settle().unwrap();
    let durable = commits.durable();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !commits.has_failed() {
        assert!(Instant::now() < deadline);
        let mut log = journal.log.borrow_mut();
        while let Ok(done) = log.done.try_recv() {
            log.finished(done);
        }
    }
    // The system may say that a second sync went well: it is not believed.
    watched.with(|seen| seen.fail_sync = false);
    assert!(matches!(push(&mut journal, 1, b"more"), Err(DiskError::Failed)));
    assert!(matches!(journal.settle(), Err(DiskError::Failed)));
    assert!(matches!(journal.release(1, 0, 1), Err(DiskError::Failed)));
    assert!(matches!(journal.driver().sync_now(), Err(DiskError::Failed)));
    assert_eq!(commits.durable(), durable);
    let mut findings = Vec::new();
    journal.findings(&mut findings);
    assert!(findings.iter().any(|finding| finding.check == "journal_failed" && finding.state == State::Critical));
    assert_eq!(read_all(&mut journal, 1, 0, 1).0[0], b"kept");
}

#[test]
fn a_full_disk_refuses_pushes_and_lets_records_go() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, _, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    finish(&journal);
    watched.with(|seen| seen.fail_allocate = true);
    let mut taken = 0;
    while push(&mut journal, 1, &[3; 1000]).is_ok() {
        taken += 1;
        journal.settle().unwrap();
    }
    assert!(taken > 100, "{taken}");
    assert!(matches!(journal.reserve(1, 1000), Err(DiskError::Full(_))));
    let mut findings = Vec::new();
    journal.findings(&mut findings);
    assert!(findings.iter().any(|finding| finding.check == "journal_full"));
    // Many small steps: each of them is an entry, for which there is room.
    for place in 0..30 {
        journal.release(1, place, place + 1).unwrap();
        journal.settle().unwrap();
    }
    journal.release(1, 30, taken).unwrap();
    journal.settle().unwrap();
    watched.with(|seen| seen.fail_allocate = false);
    finish(&journal);
    // A second later.
    journal.log.borrow_mut().full_since = None;
    push(&mut journal, 1, b"again").unwrap();
    journal.driver().sync_now().unwrap();
    findings.clear();
    journal.findings(&mut findings);
    assert_eq!(findings, []);
}

#[test]
fn a_full_disk_is_drained_record_by_record_and_the_node_starts_on_it() {
    // Each pop needs an entry longer than the record. When no room was left for them settling failed: connections were
    // closed, what was popped was gone, and no segment was ever freed. A node that was restarted did not start.
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, _, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    finish(&journal);
    watched.with(|seen| seen.fail_allocate = true);
    let mut pushed = 0;
    while push(&mut journal, 1, b"x").is_ok() {
        pushed += 1;
        journal.settle().unwrap();
        finish(&journal);
    }
    assert!(pushed > 1000, "{pushed}");
    let before = watched.with(|seen| seen.allocations);
    assert!((0..1000).all(|_| push(&mut journal, 1, b"x").is_err()));
    assert!(watched.with(|seen| seen.allocations) < before + 100, "a refused push costs no attempt to make a segment");
    journal.driver().close().unwrap();
    drop(journal);

    watched.with(|seen| (seen.fail_allocate, seen.largest) = (false, Some(20 * 1024)));
    let (mut journal, _, recovered) = open_with(dir.path(), Box::new(watched.clone()));
    assert_eq!((recovered.problems.len(), recovered.queues[0].records), (0, pushed));
    watched.with(|seen| seen.fail_allocate = true);
    for place in 0..pushed - 10 {
        journal.release(1, place, place + 1).unwrap();
        journal.settle().unwrap();
    }
    assert_eq!(read_all(&mut journal, 1, pushed - 10, 1000).0.len(), 10);
    watched.with(|seen| (seen.fail_allocate, seen.largest) = (false, None));
    journal.log.borrow_mut().full_since = None;
    journal.log.borrow_mut().idle();
    finish(&journal);
    push(&mut journal, 1, b"again").unwrap();
    journal.settle().unwrap();
    finish(&journal);
    drop(journal);
    let (_journal, _, recovered) = open(dir.path());
    assert_eq!((recovered.problems.len(), recovered.queues[0].records), (0, 11), "what was taken stays away");
}

#[test]
fn what_was_released_out_of_order_without_room_is_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Watched::default();
    let (mut journal, _, _) = open_with(dir.path(), Box::new(watched.clone()));
    journal.create(1, "a").unwrap();
    finish(&journal);
    (0..200).for_each(|_| push(&mut journal, 1, b"x").unwrap());
    journal.settle().unwrap();
    watched.with(|seen| seen.fail_allocate = true);
    // Everything is used up.
    while journal.log.borrow_mut().tell_name(1, "a".to_owned()).is_ok() {}
    for place in (0..200).step_by(2) {
        journal.release(1, place, place + 1).unwrap();
    }
    journal.settle().unwrap();
    watched.with(|seen| seen.fail_allocate = false);
    journal.log.borrow_mut().full_since = None;
    journal.driver().sync_now().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).2.queues[0].records, 100);
}

#[test]
fn what_a_push_and_a_pop_cost_the_thread_of_the_node() {
    const TURNS: u32 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = open(dir.path());
    journal.log.borrow_mut().segment_bytes = 64 << 20;
    journal.create(1, "a").unwrap();
    finish(&journal);
    let begin = Instant::now();
    for _ in 0..TURNS {
        (0..64).for_each(|_| push(&mut journal, 1, &[7; 100]).unwrap());
        journal.settle().unwrap();
        journal.log.borrow_mut().take_done();
    }
    let pushed = begin.elapsed() / TURNS;
    journal.driver().sync_now().unwrap();
    let (begin, mut out, mut at) = (Instant::now(), Vec::new(), 0);
    while at < u64::from(TURNS) * 64 {
        out.clear();
        let read = journal.read(1, at, 64 * 108, &mut out).unwrap();
        assert_eq!((read.records, read.lost), (64, 0));
        journal.release(1, at, at + 64).unwrap();
        journal.settle().unwrap();
        at += 64;
    }
    println!(
        "64 records of 100 bytes: push and settle {pushed:?}, read, release and settle {:?}",
        begin.elapsed() / TURNS
    );
}
