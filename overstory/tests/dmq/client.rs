//! Clients of both protocols that send whatever they are told to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use overstory_swarm::auth::{ClientKey, code, put_proof, put_time};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as LegacyRequest;
use overstory_swarm::neo::dmq::{Channels, Records, Request as NeoRequest};
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

    pub(crate) fn number(&mut self) -> io::Result<u64> {
        self.read(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    pub(crate) fn array(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        self.read(usize::try_from(length).unwrap())
    }

    /// What the node still sends until it closes the connection.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(byte) = self.read(1) {
            bytes.extend(byte);
        }
        bytes
    }
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

    pub(crate) fn send(&mut self, request: &LegacyRequest<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.connection.send(&bytes)
    }

    pub(crate) fn ask(&mut self, request: &LegacyRequest<'_>) -> io::Result<Status> {
        self.send(request)?;
        self.status()
    }

    pub(crate) fn push(&mut self, channel: &str, value: &[u8]) -> Status {
        self.ask(&LegacyRequest::Push { channel: channel.as_bytes(), value }).unwrap()
    }

    /// Pushes many, all of which must be taken.
    pub(crate) fn push_all(&mut self, channel: &str, values: &[Vec<u8>]) {
        for some in values.chunks(256) {
            let mut bytes = Vec::new();
            for value in some {
                LegacyRequest::Push { channel: channel.as_bytes(), value }.encode(&mut bytes);
            }
            self.connection.send(&bytes).unwrap();
            for _ in some {
                assert_eq!(self.status().unwrap(), Status::Ok);
            }
        }
    }

    /// The oldest value of a channel; empty if there is none.
    pub(crate) fn pop(&mut self, channel: &str) -> Vec<u8> {
        assert_eq!(self.ask(&LegacyRequest::Pop { channel: channel.as_bytes() }).unwrap(), Status::Ok);
        self.connection.array().unwrap()
    }

    /// Everything that is in a channel.
    pub(crate) fn pop_all(&mut self, channel: &str) -> Vec<Vec<u8>> {
        const WINDOW: usize = 256;
        let mut bytes = Vec::new();
        (0..WINDOW).for_each(|_| LegacyRequest::Pop { channel: channel.as_bytes() }.encode(&mut bytes));
        let mut all = Vec::new();
        loop {
            self.connection.send(&bytes).unwrap();
            let before = all.len();
            for _ in 0..WINDOW {
                assert_eq!(self.status().unwrap(), Status::Ok);
                all.extend(Some(self.connection.array().unwrap()).filter(|value| !value.is_empty()));
            }
            if all.len() < before + WINDOW {
                return all;
            }
        }
    }

    /// Records and bytes of a channel.
    pub(crate) fn channel_size(&mut self, channel: &str) -> (u64, u64) {
        assert_eq!(self.ask(&LegacyRequest::GetChannelSize { channel: channel.as_bytes() }).unwrap(), Status::Ok);
        self.connection.array().unwrap();
        self.connection.read(2).unwrap();
        (self.connection.number().unwrap(), self.connection.number().unwrap())
    }

    /// Records of the whole node.
    pub(crate) fn size(&mut self) -> u64 {
        assert_eq!(self.ask(&LegacyRequest::GetSize).unwrap(), Status::Ok);
        self.connection.array().unwrap();
        self.connection.read(2).unwrap();
        let records = self.connection.number().unwrap();
        self.connection.number().unwrap();
        records
    }

    /// Begins to take each value of a channel.
    pub(crate) fn consume(&mut self, channel: &str) -> io::Result<()> {
        let status = self.ask(&LegacyRequest::Consume { channel: channel.as_bytes() })?;
        assert_eq!(status, Status::Ok);
        Ok(())
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

    /// Whether a value was taken.
    pub(crate) fn push(&mut self, id: u64, channels: &[&str], value: &[u8]) -> io::Result<bool> {
        let mut names = Vec::new();
        let channels = Channels::new(channels.iter().map(|name| name.as_bytes()), &mut names).unwrap();
        let reply = self.ask(id, &NeoRequest::Push { channels, value })?;
        Ok(reply == [1])
    }

    /// Begins a Consume.
    pub(crate) fn consume(&mut self, id: u64, channel: &str, subscriber: &str) -> io::Result<()> {
        let (channel, subscriber) = (channel.as_bytes(), subscriber.as_bytes());
        assert_eq!(self.ask(id, &NeoRequest::Consume { channel, subscriber })?, [1]);
        Ok(())
    }

    /// The next batch of a Consume.
    pub(crate) fn batch(&mut self, id: u64) -> io::Result<Vec<Vec<u8>>> {
        let message = self.next(id)?;
        assert_eq!(message[0], 3, "a batch");
        Ok(Records::new(&message[9..]).map(|record| record.unwrap().to_vec()).collect())
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
