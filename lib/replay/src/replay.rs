//! Plays the client's side of a recording and compares what the node sends.

use std::cell::Cell;
use std::collections::HashMap;

use overstory_node::engine::Engine;
use overstory_swarm::neo::frame::Kind;

use crate::NOW;
use crate::client::{Connection, frame, message, proof};
use crate::node::Node;
use crate::recording::{Line, Record, Recording, hex, neo_message};

/// What of a node's protocol may differ from the recorded bytes, and what else a replay has to know of it.
///
/// Without anything said, every byte that a node sends has to be as it was recorded.
pub trait Protocol {
    /// The engine that is played against.
    type Engine: Engine;

    /// How a unit of the answer to a legacy request is compared; the status is unit 0.
    fn legacy_unit(code: i32, unit: usize) -> Unit {
        let _ = (code, unit);
        Unit::Exact
    }

    /// The batches that answer a neo request, if some of its messages are such; `payload` begins with the code.
    fn batches(payload: &[u8]) -> Option<Batches> {
        let _ = payload;
        None
    }

    /// Whether a neo message does for a recorded one that is not the same.
    fn does_for(payload: &[u8], recorded: &[u8]) -> bool {
        let _ = (payload, recorded);
        false
    }

    /// The message that has to be sent along with a request to come in time, if there is one.
    fn sent_along<'a>(lines: &'a [Line], request: &Line) -> Option<&'a Line> {
        let _ = (lines, request);
        None
    }

    /// For a line that stands for messages which the recording leaves out: how many, and their first byte.
    fn left_out(note: &str) -> Option<(usize, u8)> {
        let _ = note;
        None
    }

    /// Does what the recorded client did without sending anything on this connection.
    fn aside(node: &Node<Self::Engine>, line: &Line) -> Aside {
        let _ = node;
        panic!("line {}: nobody knows how to do this: {}", line.number, line.note);
    }
}

/// Gives the records of a batch.
pub type ReadBatch = fn(&[u8]) -> Vec<Record>;

/// How a unit of a legacy answer is compared.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Byte for byte.
    Exact,
    /// Its bytes are the recorded node's own, their number is not.
    Own,
    /// It and what follows is a list of batches: the same records, in any order and any number of batches.
    Batches(ReadBatch),
    /// The same, with the records in the recorded order.
    Ordered(ReadBatch),
}

/// Messages that are batches of records: in the end the same records, in any order and any number of batches.
#[derive(Debug)]
pub struct Batches {
    /// The first byte of such a message.
    pub type_byte: u8,
    /// Reads what follows that byte.
    pub read: ReadBatch,
    /// The first byte of the message after which no batch comes; without it what was recorded until the client's next
    /// line has to come until then.
    pub end: Option<u8>,
    /// If they are what an iteration gives.
    pub iteration: Option<Iteration>,
}

/// An iteration over a channel, in an order that is the node's own.
#[derive(Debug)]
pub struct Iteration {
    /// Over which channel.
    pub channel: String,
    /// The key after which it goes on.
    pub after: Option<Vec<u8>>,
    /// Whether it gives all of the channel and so shows its order.
    pub whole: bool,
}

/// What a client did aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Something that is done now.
    Done,
    /// It closed this connection.
    Disconnected,
}

/// What this node does where the recorded one did something else.
#[derive(Debug, Clone, Copy)]
pub enum Ours {
    /// It sends this: a payload to the same neo request, or these bytes on a legacy connection.
    Payload(&'static [u8]),
    /// It sends this where the recorded node was silent or closed the connection.
    Sends(&'static [u8]),
    /// It does not send this message.
    Absent,
    /// It closes the connection.
    Closes,
    /// It sends nothing and keeps the connection.
    Silent,
    /// It sends other bytes of the same length.
    Any,
}

/// A line where this node differs from the recorded one on purpose.
#[derive(Debug)]
pub struct Difference {
    /// The recording.
    pub file: &'static str,
    /// The line.
    pub line: usize,
    /// What happens instead.
    pub ours: Ours,
    /// The reason.
    pub why: &'static str,
}

impl Difference {
    /// Says what happens instead of a line, and why.
    #[must_use]
    pub const fn new(file: &'static str, line: usize, ours: Ours, why: &'static str) -> Self {
        Self { file, line, ours, why }
    }
}

/// A neo request of which batches come.
struct Collected {
    of: Batches,
    expected: Vec<Record>,
    actual: Vec<Record>,
}

struct Peer {
    connection: Connection,
    nonce: Vec<u8>,
    /// The last neo request or message of the client.
    last_id: u64,
    /// A line of the client that was sent before its turn.
    sent_ahead: Option<usize>,
    batches: HashMap<u64, Collected>,
    /// The legacy request, and the units of its answer so far.
    request: i32,
    units: usize,
    expected: Vec<Record>,
}

/// A recording and the node that it is played against.
pub struct Replay<'a, P: Protocol> {
    node: &'a Node<P::Engine>,
    recording: &'a Recording,
    differences: Vec<(&'a Difference, Cell<bool>)>,
    peers: HashMap<u64, Peer>,
    /// The order in which this node iterates over a channel.
    orders: HashMap<String, Vec<Vec<u8>>>,
}

impl<'a, P: Protocol> Replay<'a, P> {
    /// Prepares to play a recording; of the differences those of other recordings are left aside.
    pub fn new(node: &'a Node<P::Engine>, recording: &'a Recording, differences: &'a [Difference]) -> Self {
        let ours = differences.iter().filter(|difference| difference.file == recording.name);
        let differences = ours.map(|difference| (difference, Cell::new(false))).collect();
        Self { node, recording, differences, peers: HashMap::new(), orders: HashMap::new() }
    }

    /// Plays it.
    ///
    /// # Panics
    /// At the first byte that is not as it has to be, or if a difference is none.
    pub fn run(mut self) {
        let recording = self.recording;
        for line in &recording.lines {
            self.peers.entry(line.conn).or_insert_with(|| Peer::open(self.node, line.neo));
            if line.from_client {
                self.client(line);
            } else {
                self.node(line);
            }
        }
        for peer in self.peers.values_mut() {
            peer.settle_batches(&recording.name, recording.lines.len());
        }
        for (difference, used) in &self.differences {
            assert!(used.get(), "{}:{}: differs no more: {}", difference.file, difference.line, difference.why);
        }
    }

    fn place(&self, line: &Line) -> String {
        format!("{}:{}: {}", self.recording.name, line.number, line.note)
    }

    fn ours(&self, line: &Line) -> Option<Ours> {
        let (difference, used) = self.differences.iter().find(|(difference, _)| difference.line == line.number)?;
        used.set(true);
        Some(difference.ours)
    }

    fn client(&mut self, line: &Line) {
        // Who of several consumers comes first depends on who has done with the record before.
        self.node.settle();
        let Some(peer) = self.peers.get_mut(&line.conn) else { return };
        peer.settle_batches(&self.recording.name, line.number);
        if line.bytes.is_empty() {
            if P::aside(self.node, line) == Aside::Disconnected {
                self.peers.remove(&line.conn);
            }
            return;
        }
        if !line.neo {
            peer.request = line.bytes.first_chunk().map_or(0, |code| i32::from_le_bytes(*code));
            peer.units = 0;
            return peer.connection.send(&line.bytes);
        }
        if peer.sent_ahead == Some(line.number) {
            return;
        }
        let mut bytes = peer.neo_bytes::<P>(line);
        if let Some(control) = P::sent_along(&self.recording.lines, line) {
            bytes.extend(&control.bytes);
            peer.sent_ahead = Some(control.number);
        }
        peer.connection.send(&bytes);
    }

    fn node(&mut self, line: &Line) {
        let (place, ours) = (self.place(line), self.ours(line));
        let peer = self.peers.get_mut(&line.conn).unwrap();
        if line.bytes.is_empty() {
            return peer.event::<P>(&self.recording.name, line, ours, &place);
        }
        if matches!(ours, Some(Ours::Absent)) {
            return;
        }
        if !line.neo {
            return peer.legacy::<P>(line, ours, &place);
        }
        let mut expected = line.bytes.clone();
        if let Some((id, payload)) = neo_message(&line.bytes) {
            if let Some(batches) = peer.batches.get_mut(&id).filter(|batches| batches.of.type_byte == payload[0]) {
                batches.expected.extend((batches.of.read)(&payload[1..]));
                return;
            }
            if let Some(Ours::Payload(payload)) = ours {
                expected = message(id, payload);
                assert_ne!(expected, line.bytes, "{place}: no difference");
            }
        }
        peer.settle_batches(&self.recording.name, line.number);
        let actual = peer.read_frame_between_batches();
        if line.bytes[0] == 2 && line.bytes.len() == 14 {
            peer.nonce = actual[10..].to_vec();
            return;
        }
        let does = || match (neo_message(&actual), neo_message(&expected)) {
            (Some((id, payload)), Some((of, recorded))) => id == of && P::does_for(payload, recorded),
            _ => false,
        };
        if actual != expected && !does() {
            assert_same(&actual, &expected, &place);
        }
        if let Some((id, [byte])) = neo_message(&actual)
            && let Some(batches) = peer.batches.get_mut(&id).filter(|batches| batches.of.end == Some(*byte))
        {
            batches.compare(&mut self.orders, &place);
        }
    }
}

impl Collected {
    /// Compares what an iteration has given at its end.
    fn compare(&mut self, orders: &mut HashMap<String, Vec<Vec<u8>>>, place: &str) {
        let keys = || self.actual.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        if let Some(Iteration { channel, after, whole }) = &self.of.iteration {
            if let Some(after) = after {
                // Which records follow a key depends on the order of the iteration, which is this node's own.
                let (order, keys) = (&orders[channel], keys());
                match order.iter().position(|key| key == after) {
                    Some(position) => assert_eq!(keys, order[position + 1..], "{place}"),
                    None => assert!(order.ends_with(&keys), "{place}"),
                }
                return;
            }
            if *whole {
                orders.insert(channel.clone(), keys());
            }
        }
        self.expected.sort();
        self.actual.sort();
        assert_eq!(self.actual, self.expected, "{place}");
    }
}

impl Peer {
    fn open<E: Engine>(node: &Node<E>, neo: bool) -> Self {
        Self {
            connection: Connection::open(if neo { node.neo } else { node.legacy }),
            nonce: Vec::new(),
            last_id: 0,
            sent_ahead: None,
            batches: HashMap::new(),
            request: 0,
            units: 0,
            expected: Vec::new(),
        }
    }

    /// What the client sends in place of the recorded bytes: a proof is made for the nonce of this time.
    fn neo_bytes<P: Protocol>(&mut self, line: &Line) -> Vec<u8> {
        if line.bytes[0] == 2 && line.bytes.len() == 18 {
            return frame(Kind::Authentication, &NOW.to_le_bytes());
        }
        if line.bytes[0] == 2 {
            let length = usize::from(line.bytes[10]);
            return proof(std::str::from_utf8(&line.bytes[18..18 + length]).unwrap(), NOW, &self.nonce);
        }
        if let Some((id, payload)) = neo_message(&line.bytes) {
            self.last_id = id;
            if payload.len() > 2
                && !self.batches.contains_key(&id)
                && let Some(of) = P::batches(payload)
            {
                self.batches.insert(id, Collected { of, expected: Vec::new(), actual: Vec::new() });
            }
        }
        line.bytes.clone()
    }

    fn read_frame(&mut self) -> Vec<u8> {
        let first = self.connection.read(1);
        if self.nonce.is_empty() && self.last_id == 0 && first == [1] {
            // The version byte stands alone.
            return first;
        }
        let rest = self.connection.read(9);
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap());
        let body = self.connection.read(usize::try_from(length).unwrap());
        [first, rest, body].concat()
    }

    /// Reads a message, and the batches before it.
    fn read_frame_between_batches(&mut self) -> Vec<u8> {
        loop {
            let frame = self.read_frame();
            if !self.take_batch(&frame) {
                return frame;
            }
        }
    }

    fn take_batch(&mut self, frame: &[u8]) -> bool {
        let Some((id, payload)) = neo_message(frame) else { return false };
        let Some(batches) = self.batches.get_mut(&id) else { return false };
        if payload.first() != Some(&batches.of.type_byte) || payload.len() < 9 {
            return false;
        }
        batches.actual.extend((batches.of.read)(&payload[1..]));
        true
    }

    /// Reads as many records of batches without an end as the recording has shown so far, and compares them.
    fn settle_batches(&mut self, name: &str, line: usize) {
        let endless = self.batches.iter().filter(|(_, batches)| batches.of.end.is_none());
        let ids: Vec<u64> = endless.map(|(id, _)| *id).collect();
        for id in ids {
            while self.batches[&id].actual.len() < self.batches[&id].expected.len() {
                let frame = self.read_frame();
                assert!(self.take_batch(&frame), "{name}:{line}: a batch is missing, there is {}", hex(&frame));
            }
            let Some(batches) = self.batches.get_mut(&id) else { continue };
            batches.expected.sort();
            batches.actual.sort();
            assert_eq!(batches.actual, batches.expected, "{name}:{line}");
            batches.expected.clear();
            batches.actual.clear();
        }
    }

    /// A line without bytes: silence, a closed connection, or messages that were left out.
    fn event<P: Protocol>(&mut self, name: &str, line: &Line, ours: Option<Ours>, place: &str) {
        self.settle_batches(name, line.number);
        if let Some((count, byte)) = P::left_out(&line.note) {
            for _ in 0..count {
                assert_eq!(self.read_frame()[18], byte, "{place}");
            }
            return;
        }
        let closes = line.note.contains("close") || line.note.contains("drops");
        match ours {
            Some(Ours::Sends(payload)) => {
                let expected = if line.neo { message(self.last_id, payload) } else { payload.to_vec() };
                assert_same(&self.connection.read(expected.len()), &expected, place);
            }
            Some(Ours::Closes) => assert!(self.connection.is_closed(), "{place}"),
            Some(Ours::Silent) => assert!(self.connection.is_silent(), "{place}"),
            None if closes && !line.note.contains("stays open") => assert!(self.connection.is_closed(), "{place}"),
            None => assert!(self.connection.is_silent(), "{place}"),
            Some(other) => panic!("{place}: {other:?} is no event"),
        }
    }

    /// A part of a legacy answer.
    fn legacy<P: Protocol>(&mut self, line: &Line, ours: Option<Ours>, place: &str) {
        let how = P::legacy_unit(self.request, self.units);
        self.units += 1;
        if let Unit::Batches(read) | Unit::Ordered(read) = how {
            return self.legacy_batches(line, read, matches!(how, Unit::Ordered(_)), place);
        }
        let expected = match ours {
            Some(Ours::Payload(bytes)) => {
                assert_ne!(bytes, line.bytes, "{place}: no difference");
                bytes
            }
            _ => &line.bytes,
        };
        let actual = self.connection.read(expected.len());
        if matches!(how, Unit::Own) || matches!(ours, Some(Ours::Any)) {
            return;
        }
        assert_same(&actual, expected, place);
    }

    fn legacy_batches(&mut self, line: &Line, read: ReadBatch, ordered: bool, place: &str) {
        if line.bytes != [0; 8] {
            self.expected.extend(read(&line.bytes[8..]));
            return;
        }
        let mut actual = Vec::new();
        let mut batches = 0;
        loop {
            let batch = self.connection.read_array();
            if batch.is_empty() {
                break;
            }
            batches += 1;
            actual.extend(read(&batch));
        }
        assert!(batches > 0, "{place}: a last batch, maybe empty, is always there");
        let mut expected = std::mem::take(&mut self.expected);
        if !ordered {
            expected.sort();
            actual.sort();
        }
        assert_eq!(actual, expected, "{place}");
    }
}

/// Compares bytes, and shows those around the first that differ.
fn assert_same(actual: &[u8], expected: &[u8], place: &str) {
    let same = actual.iter().zip(expected).take_while(|(ours, recorded)| ours == recorded).count();
    let around = |bytes: &[u8]| hex(&bytes[same.saturating_sub(32)..bytes.len().min(same + 32)]);
    assert!(
        actual == expected,
        "{place}\n from byte {same} on; of {} bytes: ..{}\n of {} recorded ones: ..{}",
        actual.len(),
        around(actual),
        expected.len(),
        around(expected)
    );
}
