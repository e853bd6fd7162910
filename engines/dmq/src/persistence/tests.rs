#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod killed;

use std::time::Duration;

use super::*;
use crate::config::Thresholds;
use crate::store::Popped;

const LIMIT: u64 = 200;

fn settings(durability: Durability, limit: u64) -> DmqSettings {
    DmqSettings {
        cpu: None,
        channel_size: limit,
        channel_sizes: Vec::new(),
        durability,
        redeliver: false,
        write_index: Duration::from_secs(60),
        segment_bytes: 1 << 20,
        thresholds: Thresholds::default(),
    }
}

const MODES: [Durability; 3] = [Durability::Memory, Durability::Overflow, Durability::Journal];

fn opened(durability: Durability, limit: u64, dir: &Path) -> Opened {
    let opened = open(&settings(durability, limit), dir).unwrap();
    assert_eq!(opened.damaged, [""; 0]);
    opened
}

fn push(store: &mut Store, channel: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        store.push(channel, format!("{channel} {number:05}").as_bytes()).unwrap();
    }
    store.settle().unwrap();
}

fn pop(store: &mut Store, channel: &str) -> Option<String> {
    let mut record = None;
    let popped = store.pop(channel, &mut |bytes| record = Some(String::from_utf8(bytes.to_vec()).unwrap()));
    assert_eq!(popped == Popped::Taken, record.is_some());
    record
}

fn pop_all(store: &mut Store, channel: &str) -> Vec<String> {
    let all = std::iter::from_fn(|| pop(store, channel)).collect();
    store.settle().unwrap();
    all
}

fn expected(channel: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{channel} {number:05}")).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn close(mut opened: Opened) {
    opened.persistence.close(&mut opened.store).unwrap();
}

#[test]
fn each_mode_finds_again_what_it_saved() {
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let count = if durability == Durability::Memory { 8 } else { 100 };
        let mut node = opened(durability, LIMIT, dir.path());
        push(&mut node.store, "a", 0..count);
        push(&mut node.store, "b", 0..3);
        assert_eq!(pop(&mut node.store, "a"), Some("a 00000".to_owned()));
        close(node);
        let mut node = opened(durability, LIMIT, dir.path());
        assert_eq!(pop_all(&mut node.store, "a"), expected("a", 1..count), "{durability:?}");
        assert_eq!(pop_all(&mut node.store, "b"), expected("b", 0..3), "{durability:?}");
        close(node);
        let node = opened(durability, LIMIT, dir.path());
        assert_eq!(node.store.totals().records_memory + node.store.totals().records_overflow, 0);
    }
}

#[test]
fn records_move_from_each_mode_to_each_other_in_their_order() {
    for from in MODES {
        for to in MODES {
            let dir = tempfile::tempdir().unwrap();
            let count = if from == Durability::Memory { 8 } else { 100 };
            let mut node = opened(from, LIMIT, dir.path());
            push(&mut node.store, "a", 0..count);
            push(&mut node.store, "b", 0..2);
            node.store.subscribe("b", "sub").unwrap();
            close(node);
            // All of it has to fit where there is nothing but memory.
            let limit = if to == Durability::Memory { 1 << 20 } else { LIMIT };
            let mut node = opened(to, limit, dir.path());
            push(&mut node.store, "a", count..count + 5);
            assert_eq!(pop_all(&mut node.store, "a"), expected("a", 0..count + 5), "{from:?} to {to:?}");
            let queue = node.store.subscribe("b", "sub").unwrap();
            let consumer = node.store.join(queue, overstory_node::wake::Waker::noop());
            let mut out = Vec::new();
            let taken = node.store.take(queue, consumer, 1000, &mut out).unwrap();
            assert_eq!((taken.to - taken.from, out.len()), (2, 2 * (8 + 7)), "{from:?} to {to:?}");
            node.store.accept(taken);
            node.store.leave(queue, consumer);
            close(node);
            // What was taken over is not found a second time, and nothing of the other mode stays.
            let node = opened(to, limit, dir.path());
            let totals = node.store.totals();
            assert_eq!(totals.records_memory + totals.records_overflow, 0, "{from:?} to {to:?}");
            drop(node);
            let files = names(dir.path());
            assert_eq!(files.iter().any(|name| name == "journal"), to == Durability::Journal, "{files:?}");
            assert!(files.iter().all(|name| !name.ends_with(".rq")), "{files:?}");
        }
    }
}

#[test]
fn memory_does_not_start_with_more_records_on_disk_than_fit_and_changes_nothing() {
    for from in [Durability::Overflow, Durability::Journal] {
        let dir = tempfile::tempdir().unwrap();
        let mut node = opened(from, LIMIT, dir.path());
        push(&mut node.store, "a", 0..100);
        close(node);
        let error = open(&settings(Durability::Memory, LIMIT), dir.path()).err().unwrap().to_string();
        let file = if from == Durability::Journal { "journal" } else { "overflow.dat" };
        for part in ["durability = memory", file, "a: ", "of at most 200", "channel_size_limit"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let mut node = opened(from, LIMIT, dir.path());
        assert_eq!(pop_all(&mut node.store, "a"), expected("a", 0..100), "{from:?}");
        close(node);
    }
}

#[test]
fn a_damaged_file_is_reported_and_kept_and_the_others_are_loaded() {
    for durability in MODES {
        let dir = tempfile::tempdir().unwrap();
        let mut node = opened(Durability::Memory, LIMIT, dir.path());
        push(&mut node.store, "a", 0..5);
        push(&mut node.store, "b", 0..5);
        close(node);
        let file = dir.path().join("a.rq");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        fs::write(dir.path().join("stranger.txt"), "left alone").unwrap();
        let mut node = open(&settings(durability, LIMIT), dir.path()).unwrap();
        assert!(node.damaged.len() == 1 && node.damaged[0].contains("a.rq"), "{:?}", node.damaged);
        assert_eq!(pop_all(&mut node.store, "a"), expected("a", 0..4), "{durability:?}");
        assert_eq!(pop_all(&mut node.store, "b"), expected("b", 0..5), "{durability:?}");
        close(node);
        let files = names(dir.path());
        assert!(files.iter().any(|name| name == "stranger.txt"), "{files:?}");
        let kept =
            fs::read_dir(dir.path().join("damaged")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        assert!(kept.into_iter().any(|content| content == bytes[..bytes.len() - 3]), "{files:?}");
    }
}

#[test]
fn what_cannot_be_saved_is_named_and_the_rest_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = opened(Durability::Memory, LIMIT, dir.path());
    push(&mut node.store, "a", 0..5);
    push(&mut node.store, "b", 0..5);
    // A directory stands where the file would.
    fs::create_dir_all(dir.path().join("a.rq").join("in the way")).unwrap();
    let error = node.persistence.close(&mut node.store).unwrap_err().to_string();
    assert!(error.contains("queue a"), "{error}");
    fs::remove_dir_all(dir.path().join("a.rq")).unwrap();
    let mut node = opened(Durability::Memory, LIMIT, dir.path());
    assert_eq!(pop_all(&mut node.store, "b"), expected("b", 0..5));
}

#[test]
fn a_data_directory_that_cannot_be_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&settings(Durability::Overflow, LIMIT), &file.join("data")).err().unwrap();
    assert!(format!("{error:#}").contains("file/data"), "{error:#}");
}

#[test]
fn ten_thousand_small_queues_stop_and_start_in_seconds() {
    // One fsync per file took a minute.
    let dir = tempfile::tempdir().unwrap();
    let mut node = opened(Durability::Overflow, LIMIT, dir.path());
    for number in 0..10_000 {
        node.store.push(&format!("queue-{number}"), b"a small record").unwrap();
    }
    node.store.settle().unwrap();
    let begin = std::time::Instant::now();
    close(node);
    let (stop, begin) = (begin.elapsed(), std::time::Instant::now());
    let node = opened(Durability::Overflow, LIMIT, dir.path());
    println!("10,000 queues: stop {stop:?}, start {:?}", begin.elapsed());
    assert_eq!(node.store.totals().records_memory, 10_000);
    assert!(stop < Duration::from_secs(30), "{stop:?}");
}
