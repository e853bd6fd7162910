//! Clients of both protocols that read and write bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use overstory_node::engine::Engine;
use overstory_swarm::auth::{ClientKey, code};
use overstory_swarm::legacy::Status;

use crate::node::Node;
use crate::{NOW, PATIENCE};

/// A request of some node, of either protocol.
pub trait Request {
    /// Appends it as it is sent: without the header of a neo message.
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! requests {
    ($($protocol:ident::$node:ident)*) => {
        $(impl Request for overstory_swarm::$protocol::$node::Request<'_> {
            fn write(&self, out: &mut Vec<u8>) {
                self.encode(out);
            }
        })*
    };
}

requests! { legacy::dht legacy::dmq legacy::dls neo::dht neo::dmq neo::dls }

/// A connection of either protocol.
pub struct Connection {
    /// The socket; reads and writes that take very long fail.
    pub stream: TcpStream,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddrV4) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// Wraps a socket.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads so many bytes.
    pub fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads an array with its length, and gives the bytes in it.
    pub fn read_array(&mut self) -> Vec<u8> {
        let length = u64::from_le_bytes(self.read(8).try_into().unwrap());
        self.read(usize::try_from(length).unwrap())
    }

    /// Reads a status.
    pub fn read_status(&mut self) -> Status {
        let code = i32::from_le_bytes(self.read(4).try_into().unwrap());
        Status::from_code(code).unwrap_or_else(|| panic!("status {code}"))
    }

    /// Nothing comes for a moment, and the connection stays open.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The node closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Sends a legacy request and reads the status.
    pub fn ask(&mut self, request: &impl Request) -> Status {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        self.send(&bytes);
        self.read_status()
    }
}

/// An authenticated neo connection.
pub struct NeoClient {
    /// The connection under it.
    pub connection: Connection,
}

impl NeoClient {
    /// Connects and authenticates with the key of the recordings.
    pub fn open<E: Engine>(node: &Node<E>, name: &str) -> Self {
        let mut connection = Connection::open(node.neo);
        connection.send(&[1]);
        assert_eq!(connection.read(1), [1]);
        let mut client = Self { connection };
        client.send_frame(2, &NOW.to_le_bytes());
        let (_, nonce) = client.read_frame();
        client.send_frame(2, &proof(name, NOW, &nonce));
        assert_eq!(client.read_frame(), (2, vec![1]));
        client
    }

    fn send_frame(&mut self, kind: u8, body: &[u8]) {
        self.connection.send(&frame(kind, body));
    }

    /// Reads a message: its type and body.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let header = self.connection.read(10);
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        (header[0], self.connection.read(usize::try_from(length).unwrap()))
    }

    /// Begins a request.
    pub fn begin(&mut self, id: u64, request: &impl Request) {
        let mut payload = Vec::new();
        request.write(&mut payload);
        self.message(id, &payload);
    }

    /// Sends a message of a request.
    pub fn message(&mut self, id: u64, payload: &[u8]) {
        self.connection.send(&message(id, payload));
    }

    /// Reads a message of this request, which must be the next one of the connection.
    pub fn read(&mut self, id: u64) -> Vec<u8> {
        let (kind, body) = self.read_frame();
        assert_eq!((kind, &body[..8]), (1, &id.to_le_bytes()[..]), "the next message is of request {id}");
        body[8..].to_vec()
    }

    /// Begins a request, and gives what follows "supported", if that is one message.
    pub fn ask(&mut self, id: u64, request: &impl Request) -> Vec<u8> {
        self.begin(id, request);
        assert_eq!(self.read(id), [0xfd]);
        self.read(id)
    }
}

/// A neo message with its header.
#[must_use]
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u64;
    let parity = length.to_le_bytes().iter().fold(kind, |parity, byte| parity ^ byte);
    [&[kind][..], &length.to_le_bytes(), &[parity], body].concat()
}

/// A message of a request with its header.
#[must_use]
pub fn message(id: u64, payload: &[u8]) -> Vec<u8> {
    frame(1, &[&id.to_le_bytes()[..], payload].concat())
}

/// The message that proves a client's name, with the key of the recordings.
#[must_use]
pub fn proof(name: &str, timestamp: u64, nonce: &[u8]) -> Vec<u8> {
    let key = ClientKey::from_hex("0".repeat(256).as_bytes()).unwrap();
    let code = code(&key, timestamp, nonce.try_into().unwrap());
    [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &code].concat()
}
