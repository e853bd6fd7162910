//! `kill -9` at any moment under load: what each mode promises is there afterwards, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use overstory_replay::client::message;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::Request as LegacyRequest;
use overstory_swarm::neo::dls::Request as NeoRequest;
use overstory_testkit::node::NodeInstance;
use overstory_testkit::trouble::{self, for_a_while, random, some_microseconds};

use super::client::{Legacy, Neo, Record, hex};
use super::rig::{Mode, check, instance};

const ROUNDS: (u32, u32) = (5, 50);
/// Requests that are in flight at a time, and records of a batch.
const WINDOW: u64 = 48;
/// Bytes of a bucket's buffer, bytes that may wait for the writer, and how long a record may.
const BUFFER: u64 = 8192;
const QUEUE: u64 = 1 << 20;
const WRITE: Duration = Duration::from_millis(200);
/// How much later than it should the writer may be on a machine that has other things to do.
const LATE: Duration = Duration::from_secs(3);

/// How records come into a channel.
#[derive(Debug, Clone, Copy)]
enum Writer {
    Put,
    PutBatch,
    Neo,
}

const PLANS: [(Writer, &str); 6] = [
    (Writer::Put, "put"),
    (Writer::Put, "v2_put"),
    (Writer::PutBatch, "batch"),
    (Writer::PutBatch, "v2_batch"),
    (Writer::Neo, "neo"),
    (Writer::Neo, "v2_neo"),
];

/// A record that tells its channel and number; a dozen buckets are written to at a time, in two slots.
fn record(channel: &str, number: u64) -> Record {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ channel.len() as u64;
    let key = (number / 20_000) << 13 | (mixed >> 63) << 24 | mixed & 0x5fff;
    let filler = if mixed >> 58 == 7 { mixed >> 51 & 0x1fff } else { mixed >> 40 & 0xff };
    let mut value = number.to_le_bytes().to_vec();
    value.extend_from_slice(channel.as_bytes());
    value.resize(value.len() + usize::try_from(filler).unwrap(), value[0] ^ 0x5a);
    (key, value)
}

/// The number of a record; panics if it was never put.
fn number(channel: &str, (key, value): &Record) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert!(record(channel, number) == (*key, value.clone()), "{channel}: record {number} is as it was put");
    number
}

/// What a writer has done in a round.
#[derive(Default)]
struct Written {
    /// Records that were sent.
    sent: u64,
    /// When each of them was answered, in order.
    answered: Vec<Instant>,
}

/// What is known of a channel.
struct Channel {
    writer: Writer,
    name: &'static str,
    /// The first number that was never sent.
    end: u64,
    /// The numbers that are there.
    there: BTreeSet<u64>,
}

#[test]
fn killed_in_interval_mode_no_more_is_missing_than_was_in_the_buffers() {
    rounds(Mode::Interval);
}

#[test]
fn killed_in_always_mode_nothing_that_was_answered_is_missing() {
    rounds(Mode::Always);
}

fn rounds(mode: Mode) {
    let node = instance(mode);
    node.set("Options_Dls", "write_buffer_size", &BUFFER.to_string());
    node.set("Sync", "write_ms", &WRITE.as_millis().to_string());
    node.set("Sync", "max_queue_bytes", &QUEUE.to_string());
    node.set("Performance", "checkpoint_commit_seconds", "1");
    let channel = |(writer, name)| Channel { writer, name, end: 0, there: BTreeSet::new() };
    let mut channels = PLANS.map(channel);
    let answers = AtomicUsize::new(0);
    let (mut missing, mut slowest) = (0, Duration::ZERO);
    for _ in 0..trouble::rounds(ROUNDS.0, ROUNDS.1) {
        let begin = Instant::now();
        let process = node.start();
        slowest = slowest.max(begin.elapsed());
        let over = AtomicBool::new(false);
        let enough = answers.load(Ordering::Relaxed) + usize::try_from(random(8000)).unwrap();
        let (written, killed) = scope(|scope| {
            let writers: Vec<_> = channels
                .iter()
                .map(|channel| {
                    let (node, answers) = (&node, &answers);
                    let (writer, name, first) = (channel.writer, channel.name, channel.end);
                    scope.spawn(move || {
                        let mut written = Written::default();
                        // It ends when the node is killed.
                        let _ = match writer {
                            Writer::Put => write(node, name, first, answers, &mut written),
                            Writer::PutBatch => write_batches(node, name, first, answers, &mut written),
                            Writer::Neo => write_neo(node, name, first, answers, &mut written),
                        };
                        written
                    })
                })
                .collect();
            // Somebody reads meanwhile: whole records that were put, whatever comes.
            let (node, over) = (&node, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for (_, name) in PLANS {
                        let read = |client: &mut Legacy| {
                            client.try_each(name, |key, value| {
                                number(name, &(key, value.to_vec()));
                            })
                        };
                        let _ = Legacy::try_to(node).and_then(|mut client| read(&mut client));
                    }
                }
            });
            let _over = Over(over);
            for_a_while(|| answers.load(Ordering::Relaxed) >= enough);
            some_microseconds(3000);
            let killed = Instant::now();
            process.kill();
            over.store(true, Ordering::Relaxed);
            (writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>(), killed)
        });
        assert!(!node.log().contains(" Fatal "), "{}", node.log());
        // A part of a record may be at the end of a file, nothing worse.
        let (code, said) = check(&node, &[]);
        assert!(code == 0 || code == 1, "{said}");
        let begin = Instant::now();
        let process = node.start();
        slowest = slowest.max(begin.elapsed());
        let (mut records, mut bytes, mut lost) = (0, 0, 0);
        for (channel, written) in channels.iter_mut().zip(&written) {
            let (count, size) = compare(&node, mode, channel, written, killed, &mut lost);
            records += count;
            bytes += size;
        }
        assert_eq!(Legacy::to(&node).size(), (records, bytes), "counted exactly");
        missing += lost;
        let (code, said) = check(&node, &[]);
        assert_eq!(code, 0, "{said}");
        // Nothing was written since: it is killed again, and everything is as it was.
        if random(2) == 0 {
            process.kill();
        } else {
            assert_eq!(process.stop(), Some(0));
        }
    }
    println!("{}: {} answered, {missing} missing, slowest start {slowest:?}", mode.name(), answers.into_inner());
    assert!(mode == Mode::Interval || missing == 0);
}

/// Ends the reader when a round ends, well or not.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Compares a channel with what was put into it; gives its records and bytes.
fn compare(
    node: &NodeInstance,
    mode: Mode,
    channel: &mut Channel,
    written: &Written,
    killed: Instant,
    lost: &mut usize,
) -> (u64, u64) {
    let name = channel.name;
    let all = Legacy::to(node).all(name);
    let mut there = BTreeSet::new();
    let mut of_bucket: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for record in &all {
        let number = number(name, record);
        assert!(number < channel.end + written.sent, "{name}: {number} was put");
        assert!(there.insert(number), "{name}: {number} is there once");
        of_bucket.entry(record.0 >> 12).or_default().push(number);
    }
    for numbers in of_bucket.values() {
        assert!(numbers.is_sorted(), "{name}: in the order of writing");
    }
    assert!(there.is_superset(&channel.there), "{name}: what was there stays");
    // What was answered and is missing, by bucket.
    let mut gone: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (number, answered) in (channel.end..).zip(&written.answered) {
        if there.contains(&number) {
            continue;
        }
        assert_eq!(mode, Mode::Interval, "{name}: {number} was answered and is missing");
        *lost += 1;
        let (key, value) = record(name, number);
        let age = killed.duration_since(*answered);
        assert!(age < WRITE + LATE, "{name}: {number} was answered {age:?} before");
        let (first, bytes) = gone.entry(key >> 12).or_insert((number, 0));
        *first = (*first).min(number);
        *bytes += value.len() as u64 + 17;
    }
    let in_buffers = gone.len() as u64 * BUFFER;
    let bytes: u64 = gone.values().map(|(_, bytes)| bytes).sum();
    assert!(bytes <= in_buffers + QUEUE, "{name}: {bytes} bytes of {} buckets are missing", gone.len());
    for (bucket, (first, _)) in &gone {
        // Of each bucket the end is missing, and nothing in between.
        let last = of_bucket.get(bucket).and_then(|numbers| numbers.last());
        assert!(last.is_none_or(|last| last < first), "{name}: {first} is missing and {last:?} is there");
    }
    let counts = (all.len() as u64, all.iter().map(|(_, value)| value.len() as u64).sum());
    assert_eq!(Legacy::to(node).channel_size(name), counts, "{name}: counted exactly");
    channel.end += written.sent;
    channel.there = there;
    counts
}

/// The numbers of the records that are sent next.
fn window(first: u64, written: &mut Written) -> std::ops::Range<u64> {
    let begin = first + written.sent;
    written.sent += WINDOW;
    begin..begin + WINDOW
}

fn answered(answers: &AtomicUsize, written: &mut Written) {
    written.answered.push(Instant::now());
    answers.fetch_add(1, Ordering::Relaxed);
}

fn write(
    node: &NodeInstance,
    channel: &str,
    first: u64,
    answers: &AtomicUsize,
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Legacy::try_to(node)?;
    loop {
        let mut bytes = Vec::new();
        for number in window(first, written) {
            let (key, value) = record(channel, number);
            LegacyRequest::Put { channel: channel.as_bytes(), key: &hex(key), value: &value }.encode(&mut bytes);
        }
        client.try_send(&bytes)?;
        for _ in 0..WINDOW {
            assert_eq!(client.try_read_status()?, Status::Ok);
            answered(answers, written);
        }
    }
}

fn write_batches(
    node: &NodeInstance,
    channel: &str,
    first: u64,
    answers: &AtomicUsize,
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Legacy::try_to(node)?;
    loop {
        let records: Vec<Record> = window(first, written).map(|number| record(channel, number)).collect();
        assert_eq!(client.try_put_batch(channel, &records)?, Status::Ok);
        (0..WINDOW).for_each(|_| answered(answers, written));
    }
}

fn write_neo(
    node: &NodeInstance,
    channel: &str,
    first: u64,
    answers: &AtomicUsize,
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Neo::try_to(node)?;
    loop {
        let (mut bytes, mut payload) = (Vec::new(), Vec::new());
        for number in window(first, written) {
            let (key, value) = record(channel, number);
            payload.clear();
            NeoRequest::Put { channel: channel.as_bytes(), timestamp: key.cast_signed(), value: &value }
                .encode(&mut payload);
            bytes.extend(message(number, &payload));
        }
        client.connection.try_send(&bytes)?;
        for _ in 0..WINDOW {
            // "Supported", and the reply, in the order of the requests.
            let next = first + written.answered.len() as u64;
            assert_eq!(client.try_read(next)?, [0xfd]);
            assert_eq!(client.try_read(next)?, [1]);
            answered(answers, written);
        }
    }
}
