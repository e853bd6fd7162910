//! Clients of the neo protocol, and their messages.

use std::io;
use std::net::SocketAddrV4;

use overstory_node::engine::Engine;
use overstory_swarm::auth::{CODE, ClientKey, KEY, NONCE, code, put_proof, put_time};
use overstory_swarm::neo::frame::{self as frames, HEADER, Kind};

use super::{Connection, Request};
use crate::NOW;
use crate::node::Node;

/// The key of every client, of the recordings too.
const ZERO_KEY: ClientKey = ClientKey([0; KEY]);

/// A neo connection; what makes a request needs it to be authenticated.
pub struct NeoClient {
    /// The connection under it.
    pub connection: Connection,
}

impl NeoClient {
    /// Connects to a node of this process and authenticates with the key of the recordings.
    pub fn open<E: Engine>(node: &Node<E>, name: &str) -> Self {
        let mut client = Self::greet(node.neo);
        assert!(client.try_authenticate(NOW, name, &ZERO_KEY).unwrap());
        client
    }

    /// Connects to a node whose clock goes, and authenticates.
    pub fn open_at(address: SocketAddrV4, name: &str) -> Self {
        Self::try_open_at(address, name).unwrap()
    }

    /// Connects to a node whose clock goes, and authenticates.
    ///
    /// # Errors
    /// Nobody is there, or the connection is over.
    pub fn try_open_at(address: SocketAddrV4, name: &str) -> io::Result<Self> {
        let mut client = Self::try_greet(address)?;
        assert!(client.try_authenticate(super::system_time(), name, &ZERO_KEY)?);
        Ok(client)
    }

    /// Connects, and goes as far as the version bytes.
    pub fn greet(address: SocketAddrV4) -> Self {
        Self::try_greet(address).unwrap()
    }

    fn try_greet(address: SocketAddrV4) -> io::Result<Self> {
        let mut connection = Connection::try_open(address)?;
        connection.try_send(&[1])?;
        assert_eq!(connection.try_read(1)?, [1]);
        Ok(Self { connection })
    }

    /// Authenticates with this clock (Unix seconds), name and key (hexadecimal digits); whether it was accepted.
    pub fn authenticate(&mut self, timestamp: u64, name: &str, key: &str) -> bool {
        self.try_authenticate(timestamp, name, &ClientKey::from_hex(key.as_bytes()).unwrap()).unwrap()
    }

    fn try_authenticate(&mut self, timestamp: u64, name: &str, key: &ClientKey) -> io::Result<bool> {
        let nonce = self.try_nonce(timestamp)?;
        self.try_prove(name, &code(key, timestamp, nonce))
    }

    /// Says what time it is and reads the nonce.
    pub fn nonce(&mut self, timestamp: u64) -> [u8; NONCE] {
        self.try_nonce(timestamp).unwrap()
    }

    fn try_nonce(&mut self, timestamp: u64) -> io::Result<[u8; NONCE]> {
        let mut bytes = Vec::new();
        put_time(&mut bytes, timestamp);
        self.connection.try_send(&bytes)?;
        let (kind, nonce) = self.try_read_frame()?;
        assert_eq!(kind, Kind::Authentication as u8);
        Ok(nonce.try_into().unwrap())
    }

    /// Sends a name and a proof of it; whether it was accepted.
    pub fn prove(&mut self, name: &str, proof: &[u8; CODE]) -> bool {
        self.try_prove(name, proof).unwrap()
    }

    fn try_prove(&mut self, name: &str, proof: &[u8; CODE]) -> io::Result<bool> {
        let mut bytes = Vec::new();
        put_proof(&mut bytes, name.as_bytes(), proof);
        self.connection.try_send(&bytes)?;
        Ok(self.try_read_frame()? == (Kind::Authentication as u8, vec![1]))
    }

    /// Reads a message: its type and body.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        self.try_read_frame().unwrap()
    }

    fn try_read_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let header = self.connection.try_read(HEADER)?;
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        Ok((header[0], self.connection.try_read(usize::try_from(length).unwrap())?))
    }

    /// Reads the next message: its request and what it says.
    pub fn read_any(&mut self) -> (u64, Vec<u8>) {
        self.try_read_any().unwrap()
    }

    fn try_read_any(&mut self) -> io::Result<(u64, Vec<u8>)> {
        let (kind, mut body) = self.try_read_frame()?;
        assert_eq!(kind, Kind::Request as u8);
        let payload = body.split_off(8);
        Ok((u64::from_le_bytes(body.try_into().unwrap()), payload))
    }

    /// Reads a message of this request, which must be the next one of the connection.
    pub fn read(&mut self, id: u64) -> Vec<u8> {
        self.try_read(id).unwrap()
    }

    /// Reads a message of this request, which must be the next one of the connection.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_read(&mut self, id: u64) -> io::Result<Vec<u8>> {
        let (of, payload) = self.try_read_any()?;
        assert_eq!(of, id, "whose message is the next one");
        Ok(payload)
    }

    /// Begins a request.
    pub fn begin(&mut self, id: u64, request: &impl Request) {
        self.try_begin(id, request).unwrap();
    }

    fn try_begin(&mut self, id: u64, request: &impl Request) -> io::Result<()> {
        let mut payload = Vec::new();
        request.write(&mut payload);
        self.try_message(id, &payload)
    }

    /// Sends a message of a request.
    pub fn message(&mut self, id: u64, payload: &[u8]) {
        self.try_message(id, payload).unwrap();
    }

    /// Sends a message of a request.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn try_message(&mut self, id: u64, payload: &[u8]) -> io::Result<()> {
        self.connection.try_send(&message(id, payload))
    }

    /// Begins a request, and gives what follows "supported", if that is one message.
    pub fn ask(&mut self, id: u64, request: &impl Request) -> Vec<u8> {
        self.try_ask(id, request).unwrap()
    }

    /// Begins a request, and gives what follows "supported", if that is one message.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_ask(&mut self, id: u64, request: &impl Request) -> io::Result<Vec<u8>> {
        self.try_begin(id, request)?;
        assert_eq!(self.try_read(id)?, [0xfd]);
        self.try_read(id)
    }
}

/// A neo message with its header.
#[must_use]
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frames::put(&mut out, kind, body);
    out
}

/// A message of a request with its header.
#[must_use]
pub fn message(id: u64, payload: &[u8]) -> Vec<u8> {
    frame(Kind::Request, &[&id.to_le_bytes()[..], payload].concat())
}

/// The message that proves a client's name, with the key of the recordings.
#[must_use]
pub fn proof(name: &str, timestamp: u64, nonce: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_proof(&mut out, name.as_bytes(), &code(&ZERO_KEY, timestamp, nonce.try_into().unwrap()));
    out
}
