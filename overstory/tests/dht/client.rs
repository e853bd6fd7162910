//! Clients of both protocols that send whatever they are told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use overstory_swarm::auth::{ClientKey, code, put_proof, put_time};
use overstory_swarm::batch::Pairs;
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request as LegacyRequest;
use overstory_swarm::neo::dht::Request as NeoRequest;
use overstory_swarm::neo::frame::{self, Kind};
use overstory_testkit::node::{NodeInstance, PATIENCE, ZERO_KEY};

use super::rig::Records;

/// Requests that are in flight at a time.
const WINDOW: usize = 256;

/// A connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
}

impl Connection {
    pub(crate) fn to(address: SocketAddrV4) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what the node may not want to read to its end.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.read(8).try_into().unwrap())
    }

    pub(crate) fn array(&mut self) -> Vec<u8> {
        let length = self.number();
        self.read(usize::try_from(length).unwrap())
    }

    /// What the node still sends until it closes the connection; panics unless it does.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("neither closed nor answered: {error}"),
            }
        }
    }
}

/// A legacy client.
pub(crate) struct Legacy {
    pub(crate) connection: Connection,
}

impl Legacy {
    pub(crate) fn to(node: &NodeInstance) -> Self {
        Self { connection: Connection::to(node.legacy) }
    }

    pub(crate) fn status(&mut self) -> Status {
        let number = i32::from_le_bytes(self.connection.read(4).try_into().unwrap());
        Status::from_code(number).unwrap_or_else(|| panic!("status {number}"))
    }

    pub(crate) fn send(&mut self, request: &LegacyRequest<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.connection.send(&bytes);
    }

    pub(crate) fn ask(&mut self, request: &LegacyRequest<'_>) -> Status {
        self.send(request);
        self.status()
    }

    pub(crate) fn put(&mut self, channel: &str, key: u64, value: &[u8]) -> Status {
        self.ask(&LegacyRequest::Put { channel: channel.as_bytes(), key: &Key(key).hex16(), value })
    }

    /// A value; empty if there is none.
    pub(crate) fn get(&mut self, channel: &str, key: u64) -> Vec<u8> {
        let status = self.ask(&LegacyRequest::Get { channel: channel.as_bytes(), key: &Key(key).hex16() });
        assert_eq!(status, Status::Ok);
        self.connection.array()
    }

    pub(crate) fn put_all(&mut self, channel: &str, records: &Records) {
        let records: Vec<_> = records.iter().collect();
        for some in records.chunks(WINDOW) {
            let mut bytes = Vec::new();
            for (key, value) in some {
                let key = Key(**key).hex16();
                LegacyRequest::Put { channel: channel.as_bytes(), key: &key, value }.encode(&mut bytes);
            }
            self.connection.send(&bytes);
            for _ in some {
                assert_eq!(self.status(), Status::Ok);
            }
        }
    }

    pub(crate) fn get_all(&mut self, channel: &str) -> Records {
        let mut records = Records::new();
        assert_eq!(self.ask(&LegacyRequest::GetAll { channel: channel.as_bytes() }), Status::Ok);
        loop {
            let batch = self.connection.array();
            if batch.is_empty() {
                return records;
            }
            let mut plain = Vec::new();
            overstory_swarm::batch::decode(&batch, 1 << 20, &mut plain).unwrap();
            for pair in Pairs::new(&plain) {
                let (key, value) = pair.unwrap();
                let twice = records.insert(Key::from_hex16(key).unwrap().0, value.to_vec());
                assert!(twice.is_none(), "a record comes once");
            }
        }
    }

    /// Records of the whole node.
    pub(crate) fn size(&mut self) -> u64 {
        assert_eq!(self.ask(&LegacyRequest::GetSize), Status::Ok);
        self.connection.array();
        self.connection.read(2);
        let records = self.connection.number();
        self.connection.number();
        records
    }

    pub(crate) fn channels(&mut self) -> Vec<String> {
        assert_eq!(self.ask(&LegacyRequest::GetChannels), Status::Ok);
        let names = std::iter::from_fn(|| Some(self.connection.array()).filter(|name| !name.is_empty()));
        let mut names: Vec<String> = names.map(|name| String::from_utf8(name).unwrap()).collect();
        names.sort();
        names
    }

    /// Gives the node a range, and records that are not in it to these others.
    pub(crate) fn redistribute(&mut self, (min, max): (u64, u64), to: &[(SocketAddrV4, u64, u64)]) -> Status {
        let mut bytes = 33i32.to_le_bytes().to_vec();
        bytes.extend([min.to_le_bytes(), max.to_le_bytes()].concat());
        for (node, min, max) in to {
            let address = node.ip().to_string();
            bytes.extend((address.len() as u64).to_le_bytes());
            bytes.extend(address.as_bytes());
            bytes.extend(node.port().to_le_bytes());
            bytes.extend([min.to_le_bytes(), max.to_le_bytes()].concat());
        }
        bytes.extend([0; 8]);
        self.connection.send(&bytes);
        self.status()
    }

    pub(crate) fn range(&mut self) -> (u64, u64) {
        assert_eq!(self.ask(&LegacyRequest::GetResponsibleRange), Status::Ok);
        (self.connection.number(), self.connection.number())
    }
}

/// A neo client.
pub(crate) struct Neo {
    pub(crate) connection: Connection,
}

impl Neo {
    /// Goes as far as the version bytes.
    pub(crate) fn greet(node: &NodeInstance) -> Self {
        let mut connection = Connection::to(node.neo);
        connection.send(&[1]);
        assert_eq!(connection.read(1), [1]);
        Self { connection }
    }

    /// Authenticates with this clock, name and key; whether it was accepted.
    pub(crate) fn authenticate(&mut self, timestamp: u64, name: &str, key: &str) -> bool {
        let nonce = self.nonce(timestamp);
        let proof = code(&ClientKey::from_hex(key.as_bytes()).unwrap(), timestamp, nonce);
        self.prove(name.as_bytes(), &proof)
    }

    pub(crate) fn nonce(&mut self, timestamp: u64) -> [u8; 4] {
        let mut bytes = Vec::new();
        put_time(&mut bytes, timestamp);
        self.connection.send(&bytes);
        self.frame().1.try_into().unwrap()
    }

    pub(crate) fn prove(&mut self, name: &[u8], proof: &[u8; 64]) -> bool {
        let mut bytes = Vec::new();
        put_proof(&mut bytes, name, proof);
        self.connection.send(&bytes);
        self.frame().1 == [1]
    }

    pub(crate) fn to(node: &NodeInstance) -> Self {
        let mut client = Self::greet(node);
        assert!(client.authenticate(now(), "admin", ZERO_KEY));
        client
    }

    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        let header = self.connection.read(10);
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        (header[0], self.connection.read(usize::try_from(length).unwrap()))
    }

    /// A message of a request, of `payload` as it is.
    pub(crate) fn message(&mut self, id: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, Kind::Request, &[&id.to_le_bytes(), payload].concat());
        self.connection.send(&bytes);
    }

    pub(crate) fn begin(&mut self, id: u64, request: &NeoRequest<'_>) {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        self.message(id, &payload);
    }

    /// The next message, which must be of this request.
    pub(crate) fn next(&mut self, id: u64) -> Vec<u8> {
        let (kind, body) = self.frame();
        assert_eq!((kind, &body[..8]), (1, &id.to_le_bytes()[..]));
        body[8..].to_vec()
    }

    /// What follows "supported".
    pub(crate) fn ask(&mut self, id: u64, request: &NeoRequest<'_>) -> Vec<u8> {
        self.begin(id, request);
        assert_eq!(self.next(id), [0xfd]);
        self.next(id)
    }
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    use overstory_model::clock::{Clock, SystemClock};
    u64::try_from(SystemClock.now().secs().0).unwrap()
}
