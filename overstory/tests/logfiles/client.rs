//! Clients of both protocols that send whatever they are told to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use overstory_swarm::auth::{ClientKey, code, put_proof, put_time};
use overstory_swarm::batch::{self, Added, BatchBuilder, Pairs, Refreshed};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::Request as LegacyRequest;
use overstory_swarm::neo::dls::{GetRangeMessage, Request as NeoRequest};
use overstory_swarm::neo::frame::{self, Kind};
use overstory_testkit::node::{NodeInstance, PATIENCE, ZERO_KEY};

/// A connection; every call tells whether the node was still there.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// What was read and not used.
    input: Vec<u8>,
}

impl Connection {
    pub(crate) fn to(address: SocketAddrV4) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            let there = self.input.len();
            self.input.resize(length.max(there + (64 << 10)), 0);
            let count = self.stream.read(&mut self.input[there..]);
            self.input.truncate(there + count.as_ref().copied().unwrap_or(0));
            match count {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the node neither answers nor closes the connection")
                }
                Err(error) => return Err(error),
            }
        }
        let rest = self.input.split_off(length);
        Ok(std::mem::replace(&mut self.input, rest))
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        let silent = self.input.is_empty() && self.stream.peek(&mut [0; 1]).is_err();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    pub(crate) fn number(&mut self) -> io::Result<u64> {
        self.read(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    pub(crate) fn array(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        self.read(usize::try_from(length).unwrap())
    }
}

/// A record: its key and its value.
pub(crate) type Record = (u64, Vec<u8>);

/// 16 hexadecimal digits.
pub(crate) fn hex(key: u64) -> [u8; 16] {
    format!("{key:016x}").into_bytes().try_into().unwrap()
}

/// A batch as PutBatch has it.
pub(crate) fn batch_of(records: &[Record]) -> Vec<u8> {
    let (mut builder, mut batch) = (BatchBuilder::new(16 << 20), Vec::new());
    for (key, value) in records {
        assert_eq!(builder.pair(&hex(*key), value), Added::Yes);
    }
    builder.finish(&mut batch);
    batch
}

/// A legacy client.
pub(crate) struct Legacy {
    pub(crate) connection: Connection,
}

impl Legacy {
    pub(crate) fn to(node: &NodeInstance) -> io::Result<Self> {
        Ok(Self { connection: Connection::to(node.legacy)? })
    }

    pub(crate) fn status(&mut self) -> io::Result<Status> {
        let number = i32::from_le_bytes(self.connection.read(4)?.try_into().unwrap());
        Ok(Status::from_code(number).unwrap_or_else(|| panic!("status {number}")))
    }

    pub(crate) fn ask(&mut self, request: &LegacyRequest<'_>) -> io::Result<Status> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.connection.send(&bytes)?;
        self.status()
    }

    pub(crate) fn send_put(&mut self, channel: &str, key: u64, value: &[u8]) {
        let mut bytes = Vec::new();
        LegacyRequest::Put { channel: channel.as_bytes(), key: &hex(key), value }.encode(&mut bytes);
        self.connection.send(&bytes).unwrap();
    }

    pub(crate) fn put(&mut self, channel: &str, key: u64, value: &[u8]) -> Status {
        self.send_put(channel, key, value);
        self.status().unwrap()
    }

    /// Puts many, all of which must be taken.
    pub(crate) fn put_all(&mut self, channel: &str, records: &[Record]) {
        for some in records.chunks(256) {
            let mut bytes = Vec::new();
            for (key, value) in some {
                LegacyRequest::Put { channel: channel.as_bytes(), key: &hex(*key), value }.encode(&mut bytes);
            }
            self.connection.send(&bytes).unwrap();
            for _ in some {
                assert_eq!(self.status().unwrap(), Status::Ok);
            }
        }
    }

    /// Puts many at once.
    pub(crate) fn put_batch(&mut self, channel: &str, records: &[Record]) -> io::Result<Status> {
        self.ask(&LegacyRequest::PutBatch { channel: channel.as_bytes(), batch: &batch_of(records) })
    }

    /// Gives each record of a channel, in the order in which they come.
    pub(crate) fn each(&mut self, channel: &str, mut visit: impl FnMut(u64, &[u8])) -> io::Result<()> {
        assert_eq!(self.ask(&LegacyRequest::GetAll { channel: channel.as_bytes() })?, Status::Ok);
        let mut plain = Vec::new();
        loop {
            let batch = self.connection.array()?;
            if batch.is_empty() {
                return Ok(());
            }
            batch::decode(&batch, 16 << 20, &mut plain).unwrap();
            for pair in Pairs::new(&plain) {
                let (key, value) = pair.unwrap();
                visit(u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap(), value);
            }
        }
    }

    /// All records of a channel.
    pub(crate) fn all(&mut self, channel: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.each(channel, |key, value| records.push((key, value.to_vec()))).unwrap();
        records
    }

    fn sizes(&mut self, request: &LegacyRequest<'_>) -> (u64, u64) {
        assert_eq!(self.ask(request).unwrap(), Status::Ok);
        self.connection.array().unwrap();
        self.connection.read(2).unwrap();
        (self.connection.number().unwrap(), self.connection.number().unwrap())
    }

    /// Records and bytes of a channel.
    pub(crate) fn channel_size(&mut self, channel: &str) -> (u64, u64) {
        self.sizes(&LegacyRequest::GetChannelSize { channel: channel.as_bytes() })
    }

    /// Records and bytes of the whole node.
    pub(crate) fn size(&mut self) -> (u64, u64) {
        self.sizes(&LegacyRequest::GetSize)
    }
}

/// A neo client.
pub(crate) struct Neo {
    pub(crate) connection: Connection,
}

impl Neo {
    pub(crate) fn to(node: &NodeInstance) -> io::Result<Self> {
        let mut client = Self { connection: Connection::to(node.neo)? };
        client.connection.send(&[1])?;
        assert_eq!(client.connection.read(1)?, [1]);
        let (now, mut bytes) = (now(), Vec::new());
        put_time(&mut bytes, now);
        client.connection.send(&bytes)?;
        let nonce = client.frame()?.try_into().unwrap();
        bytes.clear();
        put_proof(&mut bytes, b"admin", &code(&ClientKey::from_hex(ZERO_KEY.as_bytes()).unwrap(), now, nonce));
        client.connection.send(&bytes)?;
        assert_eq!(client.frame()?, [1]);
        Ok(client)
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let header = self.connection.read(10)?;
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        self.connection.read(usize::try_from(length).unwrap())
    }

    /// The next message: its request and what it says.
    pub(crate) fn message(&mut self) -> io::Result<(u64, Vec<u8>)> {
        let mut body = self.frame()?;
        let payload = body.split_off(8);
        Ok((u64::from_le_bytes(body.try_into().unwrap()), payload))
    }

    /// The next message, which must be of this request.
    pub(crate) fn next(&mut self, id: u64) -> io::Result<Vec<u8>> {
        let (of, payload) = self.message()?;
        assert_eq!(of, id);
        Ok(payload)
    }

    /// A message of a request, of `payload` as it is.
    pub(crate) fn say(&mut self, id: u64, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        put_message(&mut bytes, id, payload);
        self.connection.send(&bytes)
    }

    pub(crate) fn begin(&mut self, id: u64, request: &NeoRequest<'_>) -> io::Result<()> {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        self.say(id, &payload)
    }

    /// What follows "supported".
    pub(crate) fn ask(&mut self, id: u64, request: &NeoRequest<'_>) -> io::Result<Vec<u8>> {
        self.begin(id, request)?;
        assert_eq!(self.next(id)?, [0xfd]);
        self.next(id)
    }

    /// Whether a record was taken.
    pub(crate) fn put(&mut self, id: u64, channel: &str, key: u64, value: &[u8]) -> io::Result<bool> {
        let request = NeoRequest::Put { channel: channel.as_bytes(), timestamp: key.cast_signed(), value };
        let reply = self.ask(id, &request)?;
        Ok(reply == [1])
    }

    /// The records of a channel from one timestamp to another.
    pub(crate) fn get_range(&mut self, id: u64, channel: &str, low: i64, high: i64) -> io::Result<Vec<Record>> {
        let request = NeoRequest::GetRange { channel: channel.as_bytes(), low, high, filter: b"", mode: 0 };
        assert_eq!(self.ask(id, &request)?, [1]);
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        loop {
            let message = self.next(id)?;
            match GetRangeMessage::decode(&message).unwrap() {
                GetRangeMessage::Records(block) => {
                    batch::decode_block(block.plain_len, block.block, 16 << 20, &mut plain).unwrap();
                    records.extend(Refreshed::new(&plain).map(|record| record.map(|(k, v)| (k, v.to_vec())).unwrap()));
                    self.say(id, &[1])?;
                }
                GetRangeMessage::Finished => {
                    self.say(id, &[6])?;
                    return Ok(records);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Appends a message of a request.
pub(crate) fn put_message(out: &mut Vec<u8>, id: u64, payload: &[u8]) {
    frame::put(out, Kind::Request, &[&id.to_le_bytes(), payload].concat());
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    use overstory_model::clock::{Clock, SystemClock};
    u64::try_from(SystemClock.now().secs().0).unwrap()
}
