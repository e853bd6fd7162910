//! Writers of every kind with readers of every kind: order is kept, nothing is lost, nothing is doubled.

mod readers;
mod writers;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread::scope;

use overstory_dmq::config::Durability;

use crate::rig::{MODES, Node, Setup};
use readers::{Delivered, Reader};
use writers::Writer;

/// A writer's record: who wrote it, which one it is, and bytes so that lengths differ.
fn value(writer: usize, number: usize) -> Vec<u8> {
    format!("{writer}:{number}:{}", "x".repeat(number * 7 % 50)).into_bytes()
}

fn values(writer: usize, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| value(writer, number)).collect()
}

fn parse(value: &[u8]) -> (usize, usize) {
    let text = std::str::from_utf8(value).unwrap();
    let mut parts = text.split(':').map(|part| part.parse().ok());
    (parts.next().flatten().unwrap(), parts.next().flatten().unwrap())
}

/// Whether each subscriber was given every record of each writer once, and each of its consumers in order.
fn verify(delivered: &[Delivered], writers: usize, count: usize, what: &str) {
    for (subscriber, consumers) in delivered.iter().enumerate() {
        let mut times = BTreeMap::new();
        for consumer in consumers {
            let mut last = BTreeMap::new();
            for record in consumer {
                let (writer, number) = parse(record);
                assert_eq!(*record, value(writer, number), "{what}: a record was changed");
                let before = last.insert(writer, number);
                assert!(before < Some(number), "{what}: {number} comes after {before:?} (subscriber {subscriber})");
                *times.entry((writer, number)).or_insert(0) += 1;
            }
        }
        for writer in 0..writers {
            for number in 0..count {
                let came = times.get(&(writer, number)).copied().unwrap_or(0);
                assert_eq!(came, 1, "{what}: times that record {number} of {writer} came (subscriber {subscriber})");
            }
        }
        assert_eq!(times.len(), writers * count, "{what}");
    }
}

/// A ring with room for about thirty records where there is a disk behind it.
fn node(durability: Durability) -> Node {
    let channel_size = if durability == Durability::Memory { 10_000_000 } else { 1200 };
    Node::start(Setup { channel_size, channel_sizes: vec![("tiny", 1200)], ..Setup::of(durability) })
}

/// Every writer with every reader.
fn cells() -> impl Iterator<Item = (Writer, Reader)> {
    Writer::ALL.into_iter().flat_map(|writer| Reader::ALL.into_iter().map(move |reader| (writer, reader)))
}

fn channels(writer: Writer, name: &str) -> Vec<String> {
    let channels = if writer.is_multiple() { 2 } else { 1 };
    (0..channels).map(|number| format!("{name}-{number}")).collect()
}

/// First all is written, then all is read; consumers that come before are there all the time.
fn one_at_a_time(durability: Durability) {
    const COUNT: usize = 90;
    let node = node(durability);
    for (writer, reader) in cells() {
        let what = format!("{writer:?}-{reader:?}");
        let channels = channels(writer, &what);
        let readers: Vec<_> = channels.iter().map(|channel| reader.start(&node, channel)).collect();
        let names: Vec<_> = channels.iter().map(String::as_str).collect();
        writer.write(&node, &names, &values(0, COUNT));
        let written = OnceLock::from(());
        for (reading, channel) in readers.into_iter().zip(&channels) {
            verify(&reading.read(&node, channel, COUNT, &written), 1, COUNT, &format!("{durability:?} {what}"));
        }
    }
    assert_eq!(node.records(), 0);
}

/// All writers and all readers at once, each pair on channels of its own.
fn all_at_once(durability: Durability) {
    const COUNT: usize = 120;
    let node = &node(durability);
    scope(|scope| {
        for (writer, reader) in cells() {
            // A producer waits for room; what comes by a push finds some or is refused.
            let tiny = if writer.waits() { "tiny-" } else { "" };
            let what = format!("{tiny}{writer:?}-{reader:?}");
            let channels = channels(writer, &what);
            scope.spawn(move || {
                let written = &OnceLock::new();
                let readers: Vec<_> = channels.iter().map(|channel| reader.start(node, channel)).collect();
                scope_of_one_cell(node, writer, &channels, readers, written, &format!("{durability:?} {what}"));
            });
        }
    });
    assert_eq!(node.records(), 0);

    fn scope_of_one_cell(
        node: &Node,
        writer: Writer,
        channels: &[String],
        readers: Vec<readers::Reading>,
        written: &OnceLock<()>,
        what: &str,
    ) {
        let names: Vec<_> = channels.iter().map(String::as_str).collect();
        // A suspended reader of a producer that waits for it would wait for ever.
        if writer.waits() {
            let _ = written.set(());
        }
        scope(|scope| {
            scope.spawn(|| {
                let _written = Written(written);
                writer.write(node, &names, &values(0, COUNT));
            });
            for (reading, channel) in readers.into_iter().zip(channels) {
                scope.spawn(move || verify(&reading.read(node, channel, COUNT, written), 1, COUNT, what));
            }
        });
    }
}

/// Says that all is written when it is dropped, so that nobody waits for a writer that failed.
struct Written<'a>(&'a OnceLock<()>);

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let _ = self.0.set(());
    }
}

/// All writers, two of each, on the same two channels: one has subscribers with several consumers each, the other is
/// popped by several clients.
fn one_channel(durability: Durability) {
    const COUNT: usize = 150;
    let node = &node(durability);
    let writers: Vec<Writer> = Writer::ALL.into_iter().chain(Writer::ALL).collect();
    let count = writers.len();
    let crowd = readers::crowd(node, "consumed");
    let written = &OnceLock::new();
    scope(|scope| {
        scope.spawn(move || {
            let delivered = crowd.read(node, "consumed", count * COUNT, written);
            verify(&delivered, count, COUNT, &format!("{durability:?} consumed"));
        });
        scope.spawn(move || {
            let clients = [Reader::Pop, Reader::NeoPop, Reader::Pop, Reader::NeoPop];
            let popped = readers::pop_all(node, "popped", count * COUNT, &clients);
            verify(&[popped], count, COUNT, &format!("{durability:?} popped"));
        });
        let _written = Written(written);
        std::thread::scope(|scope| {
            for (number, writer) in writers.into_iter().enumerate() {
                scope.spawn(move || {
                    let values = values(number, COUNT);
                    if writer.is_multiple() {
                        return writer.write(node, &["consumed", "popped"], &values);
                    }
                    ["consumed", "popped"].iter().for_each(|channel| writer.write(node, &[channel], &values));
                });
            }
        });
    });
    assert_eq!(node.records(), 0);
}

macro_rules! in_each_mode {
    ($($test:ident $run:ident $mode:ident)*) => {
        $(#[test] fn $test() { $run(Durability::$mode); })*

        #[test]
        fn every_mode_is_tested() {
            let tested = [$(Durability::$mode),*];
            assert!(MODES.iter().all(|mode| tested.iter().filter(|tested| *tested == mode).count() == 3));
        }
    };
}

in_each_mode! {
    in_memory_one_at_a_time one_at_a_time Memory
    in_memory_all_at_once all_at_once Memory
    in_memory_on_one_channel one_channel Memory
    with_overflow_one_at_a_time one_at_a_time Overflow
    with_overflow_all_at_once all_at_once Overflow
    with_overflow_on_one_channel one_channel Overflow
    with_journal_one_at_a_time one_at_a_time Journal
    with_journal_all_at_once all_at_once Journal
    with_journal_on_one_channel one_channel Journal
}
