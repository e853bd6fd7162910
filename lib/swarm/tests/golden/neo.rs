//! Follows one neo connection of a recording.

use std::collections::BTreeMap;
use std::fmt::Debug;

use overstory_swarm::batch::{self, Keys, Pairs, Refreshed};
use overstory_swarm::neo::frame::{self, Kind, Step};
use overstory_swarm::neo::message::BadMessage;
use overstory_swarm::neo::{self, dht, dls, dmq};

use super::Seen;
use super::vectors::{Line, Node};

/// Where a request stands.
struct Request {
    code: u8,
    keys_only: bool,
    /// How many messages the node sent.
    replies: usize,
}

pub(crate) struct Connection {
    node: Node,
    /// What of each side was not complete: the client's, then the node's.
    input: [Vec<u8>; 2],
    versions: [bool; 2],
    authenticated: bool,
    requests: BTreeMap<u64, Request>,
    /// Whether the client broke the protocol.
    broken: bool,
}

impl Connection {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            input: Default::default(),
            versions: [false; 2],
            authenticated: false,
            requests: BTreeMap::new(),
            broken: false,
        }
    }

    pub(crate) fn finish(self) {
        assert!(self.broken || self.input.iter().all(Vec::is_empty));
    }

    pub(crate) fn line(&mut self, line: &Line, seen: &mut Seen) {
        let side = usize::from(!line.from_client);
        let mut input = std::mem::take(&mut self.input[side]);
        input.extend_from_slice(&line.bytes);
        let mut at = 0;
        while at < input.len() && !(line.from_client && self.broken) {
            at += self.step(&input[at..], line, seen);
        }
        self.input[side] = input.split_off(at);
    }

    fn step(&mut self, input: &[u8], line: &Line, seen: &mut Seen) -> usize {
        let side = usize::from(!line.from_client);
        if !std::mem::replace(&mut self.versions[side], true) {
            assert!(line.says("version"), "{}", line.place);
            return 1;
        }
        match frame::next(input, frame::MAX_BODY) {
            Ok(Step::Message { kind, body, consumed }) => {
                let mut again = Vec::new();
                frame::put(&mut again, kind, body);
                assert_eq!(again, input[..consumed], "{}", line.place);
                match kind {
                    Kind::Authentication if self.authenticated => self.breaks(line, "after authentication"),
                    Kind::Authentication => self.authenticated = line.note == "auth: accepted",
                    Kind::Request if !self.authenticated => self.breaks(line, "before authentication"),
                    Kind::Request => {
                        let (id, payload) = neo::split_body(body).unwrap();
                        if line.from_client {
                            self.client_message(id, payload, line, seen);
                        } else {
                            self.node_message(id, payload, line);
                            seen.neo_messages += 1;
                        }
                    }
                }
                consumed
            }
            Ok(Step::Need(bytes)) => panic!("{}: needs {bytes} bytes", line.place),
            Err(error) => {
                let expected = ["wrong parity byte", "message type", "body length 1000", "shorter than its 8-byte id"];
                assert!(expected.iter().any(|note| line.note.contains(note)), "{}: {error}", line.place);
                self.broken = true;
                0
            }
        }
    }

    fn breaks(&mut self, line: &Line, note: &str) {
        assert!(line.note.contains(note), "{}", line.place);
        self.broken = true;
    }

    fn client_message(&mut self, id: u64, payload: &[u8], line: &Line, seen: &mut Seen) {
        let Some(request) = self.requests.get(&id) else {
            seen.neo_requests += 1;
            return self.begin(id, payload, line);
        };
        if line.note.contains("unknown now") {
            return self.broken = true;
        }
        let place = &line.place;
        let Some((name, again)) = control(self.node, request.code, payload) else {
            assert!(line.note.contains("(invalid)"), "{place}");
            return self.broken = true;
        };
        assert_eq!(again, payload, "{place}");
        assert!(line.says(&name) || line.note.contains("client message"), "{place}: {name}");
        seen.neo_messages += 1;
    }

    fn begin(&mut self, id: u64, payload: &[u8], line: &Line) {
        let place = &line.place;
        let [code, version, rest @ ..] = payload else { return self.breaks(line, "for an unknown id") };
        let mut keys_only = false;
        if known(self.node, *code) == Some(*version) {
            match request(self.node, *code, rest, &mut keys_only) {
                Ok((name, again)) => {
                    assert!(line.says(name) || line.note.contains("new request"), "{place}: {name}");
                    let surplus = usize::from(line.note.contains("one byte too many"));
                    assert_eq!(again, payload[..payload.len() - surplus], "{place}");
                }
                Err(error) => assert!(error == BadMessage::Short && line.says("short"), "{place}: {error}"),
            }
        } else {
            assert!(line.note.contains(&format!("request code {code} version {version}")), "{place}");
        }
        self.requests.insert(id, Request { code: *code, keys_only, replies: 0 });
    }

    fn node_message(&mut self, id: u64, payload: &[u8], line: &Line) {
        let place = &line.place;
        let request = self.requests.get_mut(&id).unwrap_or_else(|| panic!("{place}"));
        request.replies += 1;
        if request.replies == 1 {
            let note = match payload {
                [neo::SUPPORTED] => "request supported",
                [neo::UNSUPPORTED_VERSION] => "request version not supported",
                [neo::UNSUPPORTED_CODE] => "request code not supported",
                _ => panic!("{place}: {payload:?}"),
            };
            return assert!(line.note.contains(note), "{place}");
        }
        let (text, again) = reply(self.node, request, payload, line).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(again, payload, "{place}");
        let name: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
        let told = line.says(&name)
            || ["type", "status", "node message"].iter().any(|note| line.note.contains(note))
            || (name == "Refused" && line.says("Error"))
            || (name == "Name" && line.says("ChannelName"));
        assert!(told, "{place}: {text}");
    }
}

fn known(node: Node, code: u8) -> Option<u8> {
    match node {
        Node::Dht => dht::version(code),
        Node::Dmq => dmq::version(code),
        Node::Dls => dls::version(code),
    }
}

/// Reads a first message: its name, and the same bytes again.
fn request(node: Node, code: u8, payload: &[u8], keys_only: &mut bool) -> Result<(&'static str, Vec<u8>), BadMessage> {
    let mut again = Vec::new();
    let name = match node {
        Node::Dht => {
            let request = dht::Request::decode(code, payload)?;
            request.encode(&mut again);
            *keys_only = matches!(request, dht::Request::GetAll(dht::GetAll { keys_only: true, .. }));
            request.name()
        }
        Node::Dmq => {
            let request = dmq::Request::decode(code, payload)?;
            request.encode(&mut again);
            match request {
                dmq::Request::Push { .. } => "Push",
                dmq::Request::Pop { .. } => "Pop",
                dmq::Request::Consume { .. } => "Consume",
            }
        }
        Node::Dls => {
            let request = dls::Request::decode(code, payload)?;
            request.encode(&mut again);
            request.name()
        }
    };
    Ok((name, again))
}

/// What a message is, and the same bytes again.
type Told = (String, Vec<u8>);

macro_rules! told {
    ($message:expr) => {{
        let message = $message;
        let mut again = Vec::new();
        message.encode(&mut again);
        (shown(&message), again)
    }};
}

fn shown(message: &impl Debug) -> String {
    format!("{message:?}")
}

/// Reads a later message of a client.
fn control(node: Node, code: u8, payload: &[u8]) -> Option<Told> {
    let (name, again) = match (node, code) {
        (Node::Dht, dht::code::GET_ALL | dht::code::MIRROR) => told!(dht::Control::decode(payload).ok()?),
        (Node::Dht, dht::code::UPDATE) => told!(dht::UpdateAnswer::decode(payload).ok()?),
        (Node::Dmq, dmq::code::CONSUME) => told!(dmq::ConsumeControl::decode(payload).ok()?),
        (Node::Dls, dls::code::GET_RANGE) => told!(dls::GetRangeControl::decode(payload).ok()?),
        _ => return None,
    };
    Some((name.chars().take_while(char::is_ascii_alphabetic).collect(), again))
}

/// Reads a later message of a node.
fn reply(node: Node, request: &Request, payload: &[u8], line: &Line) -> Result<Told, BadMessage> {
    Ok(match (node, request.code) {
        (Node::Dht, dht::code::GET_HASH_RANGE) if request.replies == 2 => {
            let (_, again) = told!(dht::RangeLimits::decode(payload)?);
            ("min".to_owned(), again)
        }
        (Node::Dht, dht::code::GET_HASH_RANGE) => told!(dht::HashRangeUpdate::decode(payload)?),
        (Node::Dht, dht::code::PUT) => told!(dht::PutReply::decode(payload)?),
        (Node::Dht, dht::code::GET) if request.replies == 3 => {
            let mut again = Vec::new();
            dht::put_value(&mut again, dht::value(payload)?);
            ("value".to_owned(), again)
        }
        (Node::Dht, dht::code::GET) => told!(dht::GetReply::decode(payload)?),
        (Node::Dht, dht::code::EXISTS) => told!(dht::ExistsReply::decode(payload)?),
        (Node::Dht, dht::code::REMOVE) => told!(dht::RemoveReply::decode(payload)?),
        (Node::Dht, dht::code::REMOVE_CHANNEL) => told!(dht::RemoveChannelReply::decode(payload)?),
        (Node::Dht, dht::code::GET_CHANNELS) => told!(dht::ChannelsMessage::decode(payload)?),
        (Node::Dht, dht::code::UPDATE) => told!(dht::UpdateReply::decode(payload)?),
        (Node::Dht, dht::code::GET_ALL) => {
            let message = dht::GetAllMessage::decode(payload)?;
            if let dht::GetAllMessage::RecordBatch(content) = message {
                let mut plain = Vec::new();
                batch::decode(content, 1 << 20, &mut plain).unwrap();
                let records = if request.keys_only {
                    Keys::new(&plain).map(|key| assert_eq!(key.unwrap().len(), 8)).count()
                } else {
                    Pairs::new(&plain).map(|pair| assert_eq!(pair.unwrap().0.len(), 8)).count()
                };
                check_count(line, &format!("uncompressed_len {}, {records} record(s)", plain.len()));
            }
            told!(message)
        }
        (Node::Dht, dht::code::MIRROR) => {
            let message = dht::MirrorMessage::decode(payload)?;
            if let dht::MirrorMessage::RecordRefreshBatch(content) = message {
                let mut plain = Vec::new();
                batch::decode(content, 1 << 20, &mut plain).unwrap();
                let records = Refreshed::new(&plain).map(Result::unwrap).count();
                check_count(line, &format!("uncompressed_len {}, {records} record(s)", plain.len()));
            }
            told!(message)
        }
        (Node::Dmq, dmq::code::PUSH) => told!(dmq::PushReply::decode(payload)?),
        (Node::Dmq, dmq::code::POP) => told!(dmq::PopReply::decode(payload)?),
        (Node::Dmq, dmq::code::CONSUME) => {
            let message = dmq::ConsumeMessage::decode(payload)?;
            if let dmq::ConsumeMessage::Records(content) = message {
                let records = dmq::Records::new(content).map(Result::unwrap).count();
                check_count(line, &format!("{records} record(s), {} bytes", content.len()));
            }
            told!(message)
        }
        (Node::Dls, dls::code::PUT) => told!(dls::PutReply::decode(payload)?),
        (Node::Dls, dls::code::GET_RANGE) => {
            let message = dls::GetRangeMessage::decode(payload)?;
            if let dls::GetRangeMessage::Records(dls::RecordsBlock { plain_len, block }) = message {
                let mut plain = Vec::new();
                batch::decode_block(plain_len, block, 1 << 20, &mut plain).unwrap();
                let records = Refreshed::new(&plain).map(Result::unwrap).count();
                check_count(line, &format!("len {}, block {} bytes, {records} record(s)", plain.len(), block.len()));
            }
            told!(message)
        }
        (_, code) => panic!("{}: code {code}", line.place),
    })
}

fn check_count(line: &Line, figures: &str) {
    if line.note.contains("record(s)") {
        assert!(line.note.contains(figures), "{}: {figures}", line.place);
    }
}
