//! `kill -9` at any moment under load: what each durability promises is there afterwards.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use overstory_replay::client::message;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as LegacyRequest;
use overstory_swarm::neo::dmq::{Channels, Records, Request as NeoRequest};
use overstory_testkit::node::NodeInstance;
use overstory_testkit::trouble::{for_a_while, random, some_microseconds};

use super::client::{Legacy, Neo};
use super::model::{Queue, Read, Written};
use super::rig::{Mode, instance, number, value};

const ROUNDS: u32 = 50;
/// Bytes of a queue in memory.
const MEMORY: u64 = 20_000;
/// Requests that are in flight at a time.
const WINDOW: usize = 24;
/// Bytes that the node may have taken from a queue for one consumer and not sent yet.
const UNSENT: u64 = 512 << 10;

/// How values come into a channel.
#[derive(Debug, Clone, Copy)]
enum Writer {
    Push,
    PushMulti,
    Produce,
    Neo,
}

/// How they are taken while the node runs.
#[derive(Debug, Clone, Copy)]
enum Reader {
    None,
    Pop,
    NeoPop,
    Consume,
    NeoConsume,
}

/// The channels of a writer, the subscribers of each, and who reads them.
struct Plan(Writer, &'static [&'static str], &'static [(Option<&'static str>, Reader)]);

const PLANS: [Plan; 8] = [
    Plan(Writer::Push, &["kept-l"], &[(None, Reader::None)]),
    Plan(Writer::Neo, &["kept-n"], &[(None, Reader::None)]),
    Plan(Writer::PushMulti, &["multi-a", "multi-b"], &[(None, Reader::None)]),
    Plan(Writer::Push, &["popped-l"], &[(None, Reader::Pop)]),
    Plan(Writer::Neo, &["popped-n"], &[(None, Reader::NeoPop)]),
    Plan(Writer::Neo, &["topic"], &[(Some(""), Reader::NeoConsume), (Some("s"), Reader::NeoConsume)]),
    Plan(Writer::Push, &["mixed"], &[(Some(""), Reader::Consume), (Some("late"), Reader::None)]),
    Plan(Writer::Produce, &["streamed"], &[(Some(""), Reader::Consume)]),
];

/// Answers that all writers have got.
static ANSWERS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

#[test]
fn killed_in_memory_mode_it_starts_again_empty() {
    rounds(Mode::Memory);
}

#[test]
fn killed_in_overflow_mode_no_more_is_missing_than_was_in_memory() {
    rounds(Mode::Overflow);
}

#[test]
fn killed_in_journal_mode_nothing_is_missing() {
    rounds(Mode::Journal);
}

fn rounds(mode: Mode) {
    let node = instance(mode, MEMORY);
    // The index as often as it can be, and segments as small as they can be.
    node.set("Overflow", "write_index_ms", "20").set("Queue", "journal_segment_bytes", "1048576");
    let answers = &ANSWERS[mode as usize];
    let mut queues: Vec<Queue> = Vec::new();
    for Plan(_, channels, readers) in &PLANS {
        for channel in *channels {
            queues.extend(readers.iter().map(|(subscriber, _)| Queue::new(channel, *subscriber, mode, MEMORY)));
        }
    }
    let (mut delivered, mut missing) = (0, 0);
    for round in 0..ROUNDS {
        let process = node.start();
        if mode == Mode::Memory {
            assert_eq!(Legacy::to(&node).size(), 0, "it is empty");
        } else if random(2) == 0 || round == ROUNDS - 1 {
            delivered += subscribe(&node, &mut queues);
            push_last(&node, &mut queues);
            for queue in &mut queues {
                let numbers = drain(&node, queue);
                delivered += numbers.len();
                queue.delivered(&numbers);
                missing += queue.empty();
            }
            assert_eq!(Legacy::to(&node).size(), 0, "all is taken");
        }
        delivered += subscribe(&node, &mut queues);
        let over = AtomicBool::new(false);
        let begin = answers.load(Ordering::Relaxed);
        let enough = begin + usize::try_from(random(3000)).unwrap();
        let (written, read) = std::thread::scope(|scope| {
            let (mut writers, mut readers) = (Vec::new(), Vec::new());
            for Plan(writer, channels, all) in &PLANS {
                let first = queues.iter().find(|queue| queue.channel == channels[0]).unwrap().end();
                let (node, over) = (&node, &over);
                writers.push(scope.spawn(move || write(node, *writer, channels, first, (answers, over))));
                for (subscriber, reader) in *all {
                    readers.push(scope.spawn(move || {
                        let mut got = Read::default();
                        // It ends when the node is killed.
                        let _ = read(node, *reader, channels[0], subscriber.unwrap_or_default(), &mut got);
                        got
                    }));
                }
            }
            let _over = Over(&over);
            // Or as much as a busy disk lets through.
            for_a_while(|| answers.load(Ordering::Relaxed) >= enough);
            some_microseconds(3000);
            process.kill();
            over.store(true, Ordering::Relaxed);
            let written: Vec<Written> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            let read: Vec<Read> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            (written, read)
        });
        let mut read = read.iter();
        for (Plan(_, channels, readers), written) in PLANS.iter().zip(&written) {
            for (subscriber, _) in *readers {
                let got = read.next().unwrap();
                delivered += got.numbers.len();
                let same = |queue: &&mut Queue| channels.contains(&queue.channel) && queue.subscriber == *subscriber;
                queues.iter_mut().filter(same).for_each(|queue| queue.killed(written, got));
            }
        }
        assert!(!node.log().contains(" Fatal "), "{}", node.log());
    }
    println!("{}: {delivered} values delivered, {missing} missing", mode.name());
}

/// Ends the writers when a round ends, well or not.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the subscribers that the plans have; returns how many values they were sent.
fn subscribe(node: &NodeInstance, queues: &mut [Queue]) -> usize {
    let mut delivered = 0;
    let mut client = Neo::to(node);
    for (id, queue) in (0..).zip(queues) {
        let Some(subscriber) = queue.subscriber else { continue };
        client.consume(id, queue.channel, subscriber);
        client.message(id, &[2]);
        // What was sent before the node heard the Stop is ours.
        loop {
            match client.read(id).as_slice() {
                [3, _, _, _, _, _, _, _, _, batch @ ..] => {
                    let numbers: Vec<u32> =
                        Records::new(batch).map(|value| number(queue.channel, value.unwrap())).collect();
                    delivered += numbers.len();
                    queue.delivered(&numbers);
                }
                message => break assert_eq!(message, [4]),
            }
        }
    }
    delivered
}

/// Pushes a value that is the last one to each channel with subscribers.
fn push_last(node: &NodeInstance, queues: &mut [Queue]) {
    let mut client = Legacy::to(node);
    for Plan(_, channels, readers) in PLANS.iter().filter(|Plan(_, _, readers)| readers[0].0.is_some()) {
        let mut of_channel: Vec<&mut Queue> = queues.iter_mut().filter(|queue| queue.channel == channels[0]).collect();
        assert_eq!(of_channel.len(), readers.len());
        assert_eq!(client.push(channels[0], &value(channels[0], of_channel[0].end())), Status::Ok);
        of_channel.iter_mut().for_each(|queue| queue.pushed());
    }
}

fn write(
    node: &NodeInstance,
    writer: Writer,
    channels: &[&'static str],
    first: u32,
    (answers, over): (&AtomicUsize, &AtomicBool),
) -> Written {
    let mut written = Written::default();
    // It ends when the node is killed.
    let _ = match writer {
        Writer::Neo => write_neo(node, channels[0], first, answers, &mut written),
        Writer::Produce => produce(node, channels[0], first, (answers, over), &mut written),
        Writer::Push | Writer::PushMulti => write_legacy(node, channels, first, answers, &mut written),
    };
    written
}

/// The numbers of the values that are sent next.
fn window(first: u32, written: &mut Written) -> std::ops::Range<u32> {
    let begin = first + u32::try_from(written.sent).unwrap();
    written.sent += WINDOW;
    begin..begin + u32::try_from(WINDOW).unwrap()
}

fn write_legacy(
    node: &NodeInstance,
    channels: &[&'static str],
    first: u32,
    answers: &AtomicUsize,
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Legacy::try_to(node)?;
    loop {
        let mut bytes = Vec::new();
        for number in window(first, written) {
            // Values tell their channel by its last letters: all of a PushMulti have the first one's.
            let value = value(channels[0], number);
            if let [channel] = channels {
                LegacyRequest::Push { channel: channel.as_bytes(), value: &value }.encode(&mut bytes);
            } else {
                bytes.extend(9_i32.to_le_bytes());
                channels.iter().for_each(|name| overstory_swarm::wire::put_array(&mut bytes, name.as_bytes()));
                overstory_swarm::wire::put_array(&mut bytes, b"");
                overstory_swarm::wire::put_array(&mut bytes, &value);
            }
        }
        client.try_send(&bytes)?;
        for _ in 0..WINDOW {
            let status = client.try_read_status()?;
            assert!(matches!(status, Status::Ok | Status::OutOfMemory), "{status:?}");
            written.answers.push(status == Status::Ok);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_neo(
    node: &NodeInstance,
    channel: &'static str,
    first: u32,
    answers: &AtomicUsize,
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Neo::try_to(node)?;
    let mut names = Vec::new();
    let channels = Channels::new([channel.as_bytes()], &mut names).unwrap();
    loop {
        let mut bytes = Vec::new();
        let window = window(first, written);
        for number in window.clone() {
            let mut payload = Vec::new();
            NeoRequest::Push { channels, value: &value(channel, number) }.encode(&mut payload);
            bytes.extend(message(number.into(), &payload));
        }
        client.connection.try_send(&bytes)?;
        for number in window {
            assert_eq!(client.try_read(number.into())?, [0xfd]);
            let reply = client.try_read(number.into())?;
            assert!(matches!(reply.as_slice(), [1 | 2]), "{reply:?}");
            written.answers.push(reply == [1]);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn produce(
    node: &NodeInstance,
    channel: &'static str,
    first: u32,
    (answers, over): (&AtomicUsize, &AtomicBool),
    written: &mut Written,
) -> io::Result<()> {
    let mut client = Legacy::try_to(node)?;
    assert_eq!(client.try_ask(&LegacyRequest::Produce { channel: channel.as_bytes() })?, Status::Ok);
    loop {
        let mut bytes = Vec::new();
        for number in window(first, written) {
            overstory_swarm::wire::put_array(&mut bytes, &value(channel, number));
        }
        client.try_send(&bytes)?;
        // Nothing answers it: it goes with the others.
        let before = answers.load(Ordering::Relaxed);
        while answers.load(Ordering::Relaxed) < before + WINDOW && !over.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}

fn read(
    node: &NodeInstance,
    reader: Reader,
    channel: &'static str,
    subscriber: &str,
    got: &mut Read,
) -> io::Result<()> {
    match reader {
        Reader::None => Ok(()),
        Reader::Pop => {
            let mut client = Legacy::try_to(node)?;
            let mut bytes = Vec::new();
            (0..WINDOW).for_each(|_| LegacyRequest::Pop { channel: channel.as_bytes() }.encode(&mut bytes));
            loop {
                got.under_way = WINDOW;
                client.try_send(&bytes)?;
                while got.under_way > 0 {
                    assert_eq!(client.try_read_status()?, Status::Ok);
                    let value = client.try_read_array()?;
                    got.under_way -= 1;
                    got.numbers
                        .extend(Some(value).filter(|value| !value.is_empty()).map(|value| number(channel, &value)));
                }
            }
        }
        Reader::NeoPop => {
            let mut client = Neo::try_to(node)?;
            let (mut bytes, mut payload) = (Vec::new(), Vec::new());
            NeoRequest::Pop { channel: channel.as_bytes() }.encode(&mut payload);
            (0..WINDOW as u64).for_each(|id| bytes.extend(message(id, &payload)));
            loop {
                got.under_way = WINDOW;
                client.connection.try_send(&bytes)?;
                for id in 0..WINDOW as u64 {
                    assert_eq!(client.try_read(id)?, [0xfd]);
                    let reply = client.try_read(id)?;
                    got.under_way -= 1;
                    match reply.as_slice() {
                        [1, _, _, _, _, _, _, _, _, value @ ..] => got.numbers.push(number(channel, value)),
                        [2] => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        Reader::Consume => {
            let mut client = Legacy::try_to(node)?;
            client.try_consume(channel)?;
            got.bytes_under_way = UNSENT;
            loop {
                got.numbers.push(number(channel, &client.try_read_array()?));
            }
        }
        Reader::NeoConsume => {
            let mut client = Neo::try_to(node)?;
            client.try_consume(1, channel, subscriber)?;
            // With a journal a batch that was not received comes again.
            got.redelivered = true;
            got.bytes_under_way = UNSENT;
            loop {
                let batch = client.try_batch(1)?;
                got.open_batch = Some(got.numbers.len());
                got.numbers.extend(batch.iter().map(|value| number(channel, value)));
                client.try_message(1, &[1])?;
            }
        }
    }
}

/// Takes all that is in a queue.
fn drain(node: &NodeInstance, queue: &Queue) -> Vec<u32> {
    let channel = queue.channel;
    let mut client = Legacy::to(node);
    let number = |value: &Vec<u8>| number(if channel == "multi-b" { "multi-a" } else { channel }, value);
    let Some(subscriber) = queue.subscriber else {
        return client.pop_all(channel).iter().map(number).collect();
    };
    let mut consumer = Neo::to(node);
    consumer.consume(1, channel, subscriber);
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(queue.end() - 1)) {
        numbers.extend(consumer.batch(1).iter().map(number));
        consumer.message(1, &[1]);
    }
    consumer.message(1, &[2]);
    assert_eq!(consumer.read(1), [4]);
    numbers
}
