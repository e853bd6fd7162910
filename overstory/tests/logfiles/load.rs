//! Many channels, many buckets, many records: bounded files, flat memory.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use overstory_swarm::legacy::Status;
use overstory_testkit::node::{NodeProcess, until};

use super::client::{Legacy, Neo, Record};
use super::rig::{Mode, instance};

/// Files that the node may have open for writing, and threads that read.
const WRITE_FILES: usize = 64;
const READERS: usize = 4;
/// Connections, logs, sockets and what the runtime needs.
const OTHERS: usize = 64;

fn open_files(process: &NodeProcess) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

/// The most memory that the process has ever had, in KiB.
fn peak(process: &NodeProcess) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The most files that the process has open while something is done.
fn most_files<T>(process: &NodeProcess, work: impl FnOnce() -> T) -> (T, usize) {
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let done = scope(|scope| {
        scope.spawn(|| {
            until("the work is done", || {
                most.fetch_max(open_files(process), Ordering::Relaxed);
                over.load(Ordering::Relaxed)
            });
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    });
    (done, most.into_inner())
}

fn set_up(mode: Mode) -> overstory_testkit::node::NodeInstance {
    let node = instance(mode);
    node.set("Sync", "max_open_files", &WRITE_FILES.to_string()).set("Sync", "max_queue_bytes", "4194304");
    node.set("Performance", "number_of_thread_workers", &READERS.to_string());
    node.set("Performance", "checkpoint_commit_seconds", "2");
    node
}

#[test]
fn two_hundred_channels_are_written_at_once_with_a_bounded_number_of_open_files() {
    for mode in Mode::ALL {
        let node = set_up(mode);
        let process = node.start();
        let record = |channel: u64, number: u64| (number << 11, format!("{channel} {number}").into_bytes());
        let name = |channel: u64| format!("{}channel-{channel:03}", if channel.is_multiple_of(4) { "v2_" } else { "" });
        let rounds = 4;
        let ((), most) = most_files(&process, || {
            scope(|scope| {
                for part in 0..4 {
                    let node = &node;
                    scope.spawn(move || {
                        let mut client = Legacy::to(node);
                        for number in 0..rounds {
                            for channel in (part..200).step_by(4) {
                                client.put_all(&name(channel), &[record(channel, number)]);
                            }
                        }
                    });
                }
            });
            let mut client = Legacy::to(&node);
            for channel in 0..200 {
                let expected: Vec<Record> = (0..rounds).map(|number| record(channel, number)).collect();
                assert_eq!(client.all(&name(channel)), expected);
            }
        });
        assert!(most <= WRITE_FILES + READERS + OTHERS, "{}: {most} files", mode.name());
        assert_eq!(process.stop(), Some(0));
        let process = node.start();
        assert_eq!(Legacy::to(&node).size().0, 200 * rounds);
        process.kill();
    }
}

#[test]
fn ten_thousand_buckets_scattered_over_63_bits_are_written_and_read_with_a_bounded_number_of_open_files() {
    const BUCKETS: u64 = 10_000;
    let node = set_up(Mode::Interval);
    let process = node.start();
    let key = |number: u64| (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
    let mut records: Vec<Record> = (0..BUCKETS).map(|number| (key(number), number.to_string().into_bytes())).collect();
    let ((), most) = most_files(&process, || {
        let mut client = Legacy::to(&node);
        records.chunks(1000).for_each(|some| assert_eq!(client.put_batch("c", some), Status::Ok));
        records.sort_unstable();
        assert!(client.all("c") == records);
    });
    assert!(most <= WRITE_FILES + READERS + OTHERS, "{most} files");
    assert!(peak(&process) < 250 << 10, "{} KiB", peak(&process));
    // A range of a few costs what a few cost, however many there are: no directory is read for it.
    let few: Vec<Record> = records.iter().step_by(50).cloned().collect();
    assert_eq!(Legacy::to(&node).put_batch("few", &few), Status::Ok);
    assert_eq!(Legacy::to(&node).all("few"), few);
    let mut neo = Neo::to(&node);
    let mut ids = 1..;
    let mut ranges = |channel: &str| {
        let begin = Instant::now();
        for (record, id) in few.iter().zip(&mut ids) {
            let at = i64::try_from(record.0).unwrap();
            assert_eq!(neo.get_range(id, channel, at, at), std::slice::from_ref(record));
        }
        begin.elapsed()
    };
    let (of_few, of_many) = (ranges("few"), ranges("c"));
    println!("200 ranges of one bucket: {of_few:?} where there are 200, {of_many:?} where there are 10,000");
    assert!(of_many < of_few * 5 + Duration::from_secs(1), "{of_many:?}, {of_few:?}");
    process.kill();
    let begin = Instant::now();
    let process = node.start();
    println!("start with 10,000 buckets after a kill: {:?}", begin.elapsed());
    let mut client = Legacy::to(&node);
    let there = client.all("c");
    assert!(there.iter().all(|record| records.binary_search(record).is_ok()));
    assert_eq!(client.channel_size("c").0, there.len() as u64);
    process.kill();
}

#[test]
fn memory_is_flat_while_millions_of_records_are_written_and_read() {
    const RECORDS: u64 = 3_000_000;
    const BATCH: u64 = 20_000;
    let node = set_up(Mode::Interval);
    let process = node.start();
    let mut client = Legacy::to(&node);
    let value = |number: u64| number.to_le_bytes().repeat(2);
    let mut first = 0;
    for begin in (0..RECORDS).step_by(20_000) {
        let records: Vec<Record> = (begin..begin + BATCH).map(|number| (number / 50, value(number))).collect();
        assert_eq!(client.put_batch("c", &records), Status::Ok);
        if begin == BATCH * 15 {
            first = peak(&process);
        }
    }
    let written = peak(&process);
    assert!(written < first + (64 << 10), "{first} KiB with a tenth, {written} KiB with all");
    assert_eq!(client.size(), (RECORDS, RECORDS * 16));
    let mut next = 0;
    client.each("c", |key, bytes| {
        assert!(key == next / 50 && bytes[..8] == next.to_le_bytes(), "{next} is next");
        next += 1;
    });
    assert_eq!(next, RECORDS);
    let read = peak(&process);
    assert!(read < written + (96 << 10), "{written} KiB before it was read, {read} KiB after");
    println!("{first} KiB with a tenth, {written} KiB with all, {read} KiB when all was read");
    assert_eq!(process.stop(), Some(0));
}
