//! Plays the client's side of a recording and compares what the node sends.

use std::cell::Cell;
use std::collections::HashMap;

use overstory_swarm::legacy::dht::code as legacy;
use overstory_swarm::neo::dht::{Request as Neo, code};

use super::recording::{Form, Line, Record, Recording, batch_form, neo_message, raw_key, records_of};
use crate::rig::{Connection, NOW, NeoClient, Node, frame, proof};

/// What this node does where the recorded one did something else.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ours {
    /// It sends this payload to the same request.
    Payload(&'static [u8]),
    /// It sends this payload where the recorded node was silent.
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

#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) file: &'static str,
    pub(crate) line: usize,
    pub(crate) ours: Ours,
    pub(crate) why: &'static str,
}

impl Difference {
    pub(crate) const fn new(file: &'static str, line: usize, ours: Ours, why: &'static str) -> Self {
        Self { file, line, ours, why }
    }
}

/// A neo request of which batches come.
struct Batches {
    form: Form,
    type_byte: u8,
    channel: String,
    /// The key after which an iteration goes on.
    after: Option<u64>,
    whole: bool,
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
    batches: HashMap<u64, Batches>,
    /// The legacy request, and the units of its answer so far.
    request: i32,
    units: usize,
    expected: Vec<Record>,
}

pub(crate) struct Replay<'a> {
    node: &'a Node,
    recording: &'a Recording,
    differences: Vec<(&'a Difference, Cell<bool>)>,
    peers: HashMap<u64, Peer>,
    /// The order in which this node iterates over a channel.
    orders: HashMap<String, Vec<u64>>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(node: &'a Node, recording: &'a Recording, differences: &[&'a Difference]) -> Self {
        let differences = differences.iter().map(|difference| (*difference, Cell::new(false))).collect();
        Self { node, recording, differences, peers: HashMap::new(), orders: HashMap::new() }
    }

    pub(crate) fn run(mut self) {
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
            peer.settle_refreshes(&recording.name, recording.lines.len());
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
        let name = &self.recording.name;
        let Some(peer) = self.peers.get_mut(&line.conn) else { return };
        peer.settle_refreshes(name, line.number);
        if line.bytes.is_empty() {
            assert!(line.note.contains("meanwhile 263144 Puts"), "{name}:{}", line.number);
            return put_many(self.node);
        }
        if line.neo {
            if peer.sent_ahead == Some(line.number) {
                return;
            }
            let mut bytes = peer.neo_bytes(line);
            // A control that the client sends on seeing Started has to come before the iteration is over. Whether it
            // does is a matter of microseconds, so it is sent along with the request.
            if let Some(control) = control_after_started(&self.recording.lines, line) {
                bytes.extend(&control.bytes);
                peer.sent_ahead = Some(control.number);
            }
            peer.connection.send(&bytes);
        } else {
            peer.request = i32::from_le_bytes(line.bytes[..4].try_into().unwrap());
            peer.units = 0;
            peer.connection.send(&line.bytes);
        }
    }

    fn node(&mut self, line: &Line) {
        let (place, ours) = (self.place(line), self.ours(line));
        let peer = self.peers.get_mut(&line.conn).unwrap();
        if line.bytes.is_empty() {
            return peer.event(&self.recording.name, line, ours, &place);
        }
        if !line.neo {
            return peer.legacy(line, ours, &place);
        }
        if matches!(ours, Some(Ours::Absent)) {
            return;
        }
        let mut expected = line.bytes.clone();
        if let Some((id, payload)) = neo_message(&line.bytes) {
            if let Some(batches) = peer.batches.get_mut(&id).filter(|batches| batches.type_byte == payload[0]) {
                batches.expected.extend(records_of(&payload[9..], batches.form));
                return;
            }
            if let Some(Ours::Payload(payload)) = ours {
                expected = frame(1, &[&id.to_le_bytes()[..], payload].concat());
                assert_ne!(expected, line.bytes, "{place}: no difference");
            }
        }
        peer.settle_refreshes(&self.recording.name, line.number);
        let actual = peer.read_frame_between_batches();
        if line.bytes[0] == 2 && line.bytes.len() == 14 {
            peer.nonce = actual[10..].to_vec();
            return;
        }
        assert_eq!(hex(&actual), hex(&expected), "{place}");
        if let Some((id, [8])) = neo_message(&actual)
            && let Some(batches) = peer.batches.get_mut(&id)
        {
            batches.compare(&mut self.orders, &place);
        }
    }
}

impl Batches {
    /// Compares what an iteration has given at its end.
    fn compare(&mut self, orders: &mut HashMap<String, Vec<u64>>, place: &str) {
        if let Some(after) = self.after {
            // Which records follow a key depends on the order of the iteration, which is this node's own.
            let order = &orders[&self.channel];
            let keys: Vec<u64> = self.actual.iter().map(|(key, _)| raw_key(key)).collect();
            match order.iter().position(|key| *key == after) {
                Some(position) => assert_eq!(keys, order[position + 1..], "{place}"),
                None => assert!(order.ends_with(&keys), "{place}"),
            }
            return;
        }
        if self.whole {
            let order = self.actual.iter().map(|(key, _)| raw_key(key)).collect();
            orders.insert(self.channel.clone(), order);
        }
        self.expected.sort();
        self.actual.sort();
        assert_eq!(self.actual, self.expected, "{place}");
    }
}

impl Peer {
    fn open(node: &Node, neo: bool) -> Self {
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
    fn neo_bytes(&mut self, line: &Line) -> Vec<u8> {
        if line.bytes[0] == 2 && line.bytes.len() == 18 {
            return frame(2, &NOW.to_le_bytes());
        }
        if line.bytes[0] == 2 {
            let length = usize::from(line.bytes[10]);
            return frame(2, &proof(std::str::from_utf8(&line.bytes[18..18 + length]).unwrap(), NOW, &self.nonce));
        }
        if let Some((id, payload)) = neo_message(&line.bytes) {
            self.last_id = id;
            if payload.len() > 2 && !self.batches.contains_key(&id) {
                self.begin(id, payload);
            }
        }
        line.bytes.clone()
    }

    fn begin(&mut self, id: u64, payload: &[u8]) {
        let Ok(request) = Neo::decode(payload[0], &payload[2..]) else { return };
        let Some((type_byte, form)) = batch_form(&request) else { return };
        let (channel, after, whole) = match request {
            Neo::GetAll(get) => (get.channel, get.after, !get.keys_only && get.filter.is_empty()),
            Neo::Mirror { channel, .. } => (channel, None, false),
            _ => return,
        };
        let channel = String::from_utf8_lossy(channel).into_owned();
        let after = after.map(|key| key.0);
        let (expected, actual) = (Vec::new(), Vec::new());
        self.batches.insert(id, Batches { form, type_byte, channel, after, whole, expected, actual });
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

    /// Reads a message, and the batches of iterations before it.
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
        if payload.first() != Some(&batches.type_byte) || payload.len() < 9 {
            return false;
        }
        batches.actual.extend(records_of(&payload[9..], batches.form));
        true
    }

    /// Reads as many refreshed records as the recording has shown so far, and compares them.
    fn settle_refreshes(&mut self, name: &str, line: usize) {
        let ids: Vec<u64> = self.batches.keys().copied().collect();
        for id in ids {
            while self.batches[&id].form == Form::Refresh
                && self.batches[&id].actual.len() < self.batches[&id].expected.len()
            {
                let frame = self.read_frame();
                assert!(self.take_batch(&frame), "{name}:{line}: a refresh batch is missing, there is {}", hex(&frame));
            }
            let Some(batches) = self.batches.get_mut(&id).filter(|batches| batches.form == Form::Refresh) else {
                continue;
            };
            batches.expected.sort();
            batches.actual.sort();
            assert_eq!(batches.actual, batches.expected, "{name}:{line}");
            batches.expected.clear();
            batches.actual.clear();
        }
    }

    /// A line without bytes: silence, a closed connection, or messages that were left out.
    fn event(&mut self, name: &str, line: &Line, ours: Option<Ours>, place: &str) {
        self.settle_refreshes(name, line.number);
        if let Some(left_out) = line.note.strip_prefix("(here followed ") {
            let count: usize = left_out.split(' ').next().unwrap().parse().unwrap();
            for _ in 0..count {
                assert_eq!(self.read_frame()[18], 7, "{place}");
            }
            return;
        }
        let closes = line.note.contains("close") || line.note.contains("drops");
        let id = self.last_id;
        match ours {
            Some(Ours::Sends(payload)) => {
                let expected = frame(1, &[&id.to_le_bytes()[..], payload].concat());
                assert_eq!(hex(&self.read_frame()), hex(&expected), "{place}");
            }
            Some(Ours::Closes) => assert!(self.connection.is_closed(), "{place}"),
            Some(Ours::Silent) => assert!(self.connection.is_silent(), "{place}"),
            None if closes && !line.note.contains("stays open") => assert!(self.connection.is_closed(), "{place}"),
            None => assert!(self.connection.is_silent(), "{place}"),
            Some(other) => panic!("{place}: {other:?} is no event"),
        }
    }

    /// A part of a legacy answer.
    fn legacy(&mut self, line: &Line, ours: Option<Ours>, place: &str) {
        let unit = self.units;
        self.units += 1;
        let is_batch = matches!(self.request, legacy::GET_ALL | legacy::GET_ALL_KEYS | legacy::GET_ALL_FILTER);
        let is_size = matches!(self.request, legacy::GET_SIZE | legacy::GET_CHANNEL_SIZE);
        if is_batch && unit > 0 {
            return self.legacy_batches(line, place);
        }
        let actual = self.connection.read(line.bytes.len());
        // The fourth value of a size is a number of bytes, which has the recorded node's memory overhead in it.
        if (is_size && unit == 4) || matches!(ours, Some(Ours::Any)) {
            return;
        }
        assert_eq!(hex(&actual), hex(&line.bytes), "{place}");
    }

    fn legacy_batches(&mut self, line: &Line, place: &str) {
        let form = if self.request == legacy::GET_ALL_KEYS { Form::Keys } else { Form::Pairs };
        if line.bytes != [0; 8] {
            self.expected.extend(records_of(&line.bytes[8..], form));
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
            actual.extend(records_of(&batch, form));
        }
        assert!(batches > 0, "{place}: a last batch, maybe empty, is always there");
        let mut expected = std::mem::take(&mut self.expected);
        expected.sort();
        actual.sort();
        assert_eq!(actual, expected, "{place}");
    }
}

/// The control that follows when a GetAll that is not suspended has started, if there is one.
fn control_after_started<'a>(lines: &'a [Line], request: &Line) -> Option<&'a Line> {
    let (_, payload) = neo_message(&request.bytes)?;
    if payload.len() < 3 || payload[0] != code::GET_ALL || payload[2] != 0 {
        return None;
    }
    let mut next = lines.iter().skip(request.number).filter(|line| line.conn == request.conn);
    let (supported, started, control) = (next.next()?, next.next()?, next.next()?);
    assert!(!supported.from_client && !started.from_client);
    let is_control = control.from_client && matches!(neo_message(&control.bytes), Some((_, [1..=3])));
    is_control.then_some(control)
}

/// The puts that fill the queue of a Mirror.
fn put_many(node: &Node) {
    let mut client = NeoClient::open(node, "test");
    let mut sent = 0u64;
    while sent < 263_144 {
        let burst = (263_144 - sent).min(2000);
        let mut bytes = Vec::new();
        for number in sent..sent + burst {
            let key = overstory_swarm::key::Key(number % 1000);
            let value = format!("v{}", key.0 % 10);
            let mut body = (number + 1).to_le_bytes().to_vec();
            Neo::Put { channel: b"of", key, value: value.as_bytes() }.encode(&mut body);
            bytes.extend(frame(1, &body));
        }
        client.connection.send(&bytes);
        for number in sent..sent + burst {
            assert_eq!((client.read(number + 1), client.read(number + 1)), (vec![0xfd], vec![1]));
        }
        sent += burst;
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
