//! Follows one legacy connection of a recording.

use overstory_swarm::batch::{self, Keys, Pairs};
use overstory_swarm::legacy::{self, Limits, Need, ProtocolError, Reply, Status, dht, dls, dmq, reply};

use super::Seen;
use super::vectors::{Line, Node};

/// What the node sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Nothing,
    Status(Reply),
    Part(Reply),
}

pub(crate) struct Connection {
    node: Node,
    limits: Limits,
    client: Vec<u8>,
    server: Vec<u8>,
    /// Whether the client is sending the values of a Produce.
    sink: bool,
    expect: Expect,
    /// Whether the last request can never be complete.
    cut: bool,
}

impl Connection {
    pub(crate) fn new(file: &str, node: Node) -> Self {
        let batch_size = if file == "dht-legacy-value-too-big" { 1024 } else { 65_535 };
        Self {
            node,
            limits: Limits::DEFAULT.with_value(batch_size - 32),
            client: Vec::new(),
            server: Vec::new(),
            sink: false,
            expect: Expect::Nothing,
            cut: false,
        }
    }

    pub(crate) fn line(&mut self, line: &Line, seen: &mut Seen) {
        if line.from_client {
            self.client.extend_from_slice(&line.bytes);
            while !self.client.is_empty() && !self.cut {
                self.request(line);
                seen.legacy_requests += 1;
            }
        } else {
            self.server.extend_from_slice(&line.bytes);
            while !self.server.is_empty() && self.part(line) {
                seen.legacy_parts += 1;
            }
        }
    }

    pub(crate) fn finish(self) {
        assert!(self.server.is_empty() && (self.client.is_empty() || self.cut));
    }

    fn request(&mut self, line: &Line) {
        let place = &line.place;
        if self.sink {
            let Need::Done { value, consumed } = reply::item(&self.client, &self.limits).unwrap() else {
                panic!("{place}: an item is cut")
            };
            let mut again = Vec::new();
            reply::put_value(&mut again, value.unwrap_or_default());
            assert_eq!(again, self.client[..consumed], "{place}");
            assert!(line.says(if value.is_none() { "end" } else { "value" }) || line.says("values"), "{place}");
            self.sink = value.is_some();
            self.client.drain(..consumed);
            return;
        }
        let (outcome, again) = decode(self.node, &self.client, &self.limits);
        match outcome {
            // The recorded nodes do not serve them; ours do, for older clients.
            _ if self.node.ours().contains(&&*line.note) => self.cut = true,
            Ok(Outcome::Need(bytes)) => panic!("{place}: needs {bytes} bytes"),
            Ok(Outcome::Request { name, shape, consumed }) => {
                assert!(line.says(name), "{place}: decoded as {name}");
                assert_eq!(again, self.client[..consumed], "{place}");
                self.client.drain(..consumed);
                self.expect = Expect::Status(shape);
            }
            Ok(Outcome::TooLong { consumed, more }) => {
                let whole = more == 0;
                assert!(line.says("993") || line.note.contains("10 MiB"), "{place}: {more} more");
                assert_eq!((whole, consumed), (line.says("993"), self.client.len()), "{place}");
                self.client.drain(..consumed);
                self.expect = Expect::Status(Reply::None);
            }
            Err(ProtocolError::UnknownCode(code)) => {
                assert!(line.note.contains(&format!("request code {code}")), "{place}: {code}");
                self.cut = true;
            }
            Err(ProtocolError::ArrayTooLong(length)) => {
                assert_eq!(length, (10 << 20) + 1, "{place}");
                assert!(line.note.contains("10 MiB + 1"), "{place}");
                self.cut = true;
            }
            Err(error) => panic!("{place}: {error}"),
        }
    }

    /// Takes one part of a reply, unless it is not complete.
    fn part(&mut self, line: &Line) -> bool {
        let place = &line.place;
        let (input, limits) = (&self.server[..], &self.limits);
        let mut again = Vec::new();
        let (mut next, consumed) = match self.expect {
            Expect::Nothing => panic!("{place}: nothing was asked"),
            Expect::Status(shape) => {
                let Some((status, consumed)) = done(reply::status(input)) else { return false };
                status.encode(&mut again);
                assert!(line.says(status.name()), "{place}: {status:?}");
                (if status == Status::Ok { Expect::Part(shape) } else { Expect::Nothing }, consumed)
            }
            Expect::Part(shape) => {
                let Some((more, consumed)) = part(shape, input, limits, &mut again, line) else { return false };
                (if more { self.expect } else { Expect::Nothing }, consumed)
            }
        };
        assert_eq!(again, input[..consumed], "{place}");
        self.server.drain(..consumed);
        if let Expect::Part(Reply::None | Reply::Sink) = next {
            self.sink = next == Expect::Part(Reply::Sink);
            next = Expect::Nothing;
        }
        self.expect = next;
        true
    }
}

impl Node {
    /// Requests that our nodes serve and the recorded ones do not.
    const fn ours(self) -> &'static [&'static str] {
        match self {
            Self::Dht => &[],
            Self::Dmq => &["request code 3", "request code 4", "request code 5"],
            Self::Dls => &["request code 18", "request code 19", "request code 20"],
        }
    }
}

enum Outcome {
    Need(usize),
    Request { name: &'static str, shape: Reply, consumed: usize },
    TooLong { consumed: usize, more: u64 },
}

fn decode(node: Node, input: &[u8], limits: &Limits) -> (Result<Outcome, ProtocolError>, Vec<u8>) {
    let mut again = Vec::new();
    macro_rules! outcome {
        ($request:ident, $consumed:ident) => {{
            $request.encode(&mut again);
            Outcome::Request { name: $request.name(), shape: $request.reply(), consumed: $consumed }
        }};
    }
    let outcome = match node {
        Node::Dht => dht::decode(input, limits).map(|decoded| match decoded {
            dht::Decoded::Need(bytes) => Outcome::Need(bytes),
            dht::Decoded::Request { request, consumed } => outcome!(request, consumed),
            dht::Decoded::TooLong(long) => Outcome::TooLong { consumed: long.consumed, more: long.more },
        }),
        Node::Dmq => dmq::decode(input, limits).map(|decoded| match decoded {
            legacy::Decoded::Need(bytes) => Outcome::Need(bytes),
            legacy::Decoded::Request { request, consumed } => outcome!(request, consumed),
        }),
        Node::Dls => dls::decode(input, limits).map(|decoded| match decoded {
            legacy::Decoded::Need(bytes) => Outcome::Need(bytes),
            legacy::Decoded::Request { request, consumed } => outcome!(request, consumed),
        }),
    };
    (outcome, again)
}

/// Takes one part of what follows the status: whether more follows, and how long it is.
fn part(shape: Reply, input: &[u8], limits: &Limits, again: &mut Vec<u8>, line: &Line) -> Option<(bool, usize)> {
    let place = &line.place;
    match shape {
        Reply::None | Reply::Sink => panic!("{place}: nothing follows"),
        Reply::Array => {
            let (value, consumed) = done(reply::array(input, limits))?;
            reply::put_value(again, value);
            Some((false, consumed))
        }
        Reply::Boolean => {
            let (value, consumed) = done(reply::boolean(input))?;
            reply::put_boolean(again, value);
            Some((false, consumed))
        }
        Reply::Items => {
            let (item, consumed) = done(reply::item(input, limits))?;
            reply::put_value(again, item.unwrap_or_default());
            Some((item.is_some(), consumed))
        }
        Reply::Size => {
            let (size, consumed) = done(reply::size(input, limits))?;
            reply::put_size(again, &size);
            Some((false, consumed))
        }
        Reply::Connections => {
            let (connections, consumed) = done(reply::connections(input, limits))?;
            reply::put_connections(again, &connections);
            Some((false, consumed))
        }
        Reply::Range => {
            let ((min, max), consumed) = done(reply::range(input))?;
            reply::put_range(again, min, max);
            Some((false, consumed))
        }
        Reply::Records => {
            let (record, consumed) = done(reply::record(input, limits))?;
            match record {
                Some(record) => reply::put_record(again, &record),
                None => reply::put_records_end(again),
            }
            Some((record.is_some(), consumed))
        }
        Reply::Batches | Reply::KeyBatches => {
            let (item, consumed) = done(reply::item(input, limits))?;
            match item {
                Some(item) => {
                    check_batch(item, shape, line);
                    reply::put_array_with(again, |out| out.extend_from_slice(item));
                }
                None => reply::put_end(again),
            }
            Some((item.is_some(), consumed))
        }
    }
}

fn check_batch(item: &[u8], shape: Reply, line: &Line) {
    let place = &line.place;
    let mut plain = Vec::new();
    batch::decode(item, 1 << 20, &mut plain).unwrap_or_else(|error| panic!("{place}: {error}"));
    let records = match shape {
        Reply::KeyBatches => Keys::new(&plain).map(|key| assert_eq!(key.unwrap().len(), 16)).count(),
        _ => Pairs::new(&plain).map(|pair| assert_eq!(pair.unwrap().0.len(), 16)).count(),
    };
    if line.note.starts_with("batch") {
        let note = format!("uncompressed_len {}, {records} record(s)", plain.len());
        assert!(line.note.contains(&note), "{place}: {note}");
    }
}

fn done<T>(need: Result<Need<T>, ProtocolError>) -> Option<(T, usize)> {
    match need.unwrap() {
        Need::More(_) => None,
        Need::Done { value, consumed } => Some((value, consumed)),
    }
}
