//! Clients of both protocols that read and write bytes.
//!
//! A node that is not there, breaks off or says what it must not is a panic. What tests call while they kill a node has
//! a form `try_`, which gives the error of the connection instead; what is wrong in the protocol panics there too.

mod neo;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use overstory_model::clock::{Clock, SystemClock};
use overstory_swarm::legacy::Status;

use crate::PATIENCE;

pub use neo::{NeoClient, frame, message, proof};

/// Requests that are in flight at a time where many are sent.
pub const WINDOW: usize = 256;

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

/// A connection of either protocol, with what a legacy client does.
pub struct Connection {
    /// The socket; reads and writes that take very long fail.
    pub stream: TcpStream,
    /// What was read from the socket.
    input: Vec<u8>,
    /// How many bytes of it were used.
    used: usize,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddrV4) -> Self {
        Self::try_open(address).unwrap()
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn try_open(address: SocketAddrV4) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::of)
    }

    /// Wraps a socket.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new(), used: 0 }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends what the node may not want to read to its end.
    pub fn send_unwanted(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    /// Reads so many bytes.
    pub fn read(&mut self, length: usize) -> Vec<u8> {
        self.try_read(length).unwrap()
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// The connection is over. A node that neither answers nor closes it is a panic.
    pub fn try_read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() - self.used < length {
            self.input.drain(..self.used);
            self.used = 0;
            let there = self.input.len();
            self.input.resize(length.max(there + (64 << 10)), 0);
            let count = self.stream.read(&mut self.input[there..]);
            self.input.truncate(there + count.as_ref().copied().unwrap_or(0));
            match count {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                // A process that was stopped goes on: with a timeout the system does not read on by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => panic!("the node neither answers nor closes the connection"),
                Err(error) => return Err(error),
            }
        }
        let bytes = self.input[self.used..self.used + length].to_vec();
        self.used += length;
        Ok(bytes)
    }

    /// Reads a number of eight bytes.
    pub fn read_number(&mut self) -> u64 {
        u64::from_le_bytes(self.read(8).try_into().unwrap())
    }

    /// Reads an array with its length, and gives the bytes in it.
    pub fn read_array(&mut self) -> Vec<u8> {
        self.try_read_array().unwrap()
    }

    /// Reads an array with its length, and gives the bytes in it.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_read_array(&mut self) -> io::Result<Vec<u8>> {
        let length = u64::from_le_bytes(self.try_read(8)?.try_into().unwrap());
        self.try_read(usize::try_from(length).unwrap())
    }

    /// Reads a status.
    pub fn read_status(&mut self) -> Status {
        self.try_read_status().unwrap()
    }

    /// Reads a status.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_read_status(&mut self) -> io::Result<Status> {
        let code = i32::from_le_bytes(self.try_read(4)?.try_into().unwrap());
        Ok(Status::from_code(code).unwrap_or_else(|| panic!("status {code}")))
    }

    /// Nothing comes for a moment, and the connection stays open.
    pub fn is_silent(&mut self) -> bool {
        if self.used < self.input.len() {
            return false;
        }
        self.stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let read = loop {
            match self.stream.peek(&mut [0; 1]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| is_timeout(&error))
    }

    /// The node closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.try_read(1) {
            Ok(_) => false,
            Err(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
        }
    }

    /// What the node still sends until it closes the connection.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = self.input.split_off(self.used);
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the node has not closed it: {error}"),
            _ => bytes,
        }
    }

    /// Sends a legacy request.
    pub fn begin(&mut self, request: &impl Request) {
        self.try_begin(request).unwrap();
    }

    fn try_begin(&mut self, request: &impl Request) -> io::Result<()> {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        self.try_send(&bytes)
    }

    /// Sends a legacy request and reads the status.
    pub fn ask(&mut self, request: &impl Request) -> Status {
        self.try_ask(request).unwrap()
    }

    /// Sends a legacy request and reads the status.
    ///
    /// # Errors
    /// The connection is over.
    pub fn try_ask(&mut self, request: &impl Request) -> io::Result<Status> {
        self.try_begin(request)?;
        self.try_read_status()
    }

    /// Sends a legacy request for each item, [`WINDOW`] of them at a time. Each of them has to be taken, and to be
    /// answered with a status alone.
    pub fn ask_for_each<T>(&mut self, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) {
        for some in items.chunks(WINDOW) {
            let mut bytes = Vec::new();
            some.iter().for_each(|item| write(item, &mut bytes));
            self.send(&bytes);
            some.iter().for_each(|_| assert_eq!(self.read_status(), Status::Ok));
        }
    }

    /// Asks for the size of a channel or of the node, with the request that it has for that: records and bytes.
    pub fn ask_size(&mut self, request: &impl Request) -> (u64, u64) {
        assert_eq!(self.ask(request), Status::Ok);
        // The node's address.
        self.read_array();
        self.read(2);
        (self.read_number(), self.read_number())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The system's time, Unix seconds: for nodes whose clock goes.
#[must_use]
pub fn system_time() -> u64 {
    u64::try_from(SystemClock.now().secs().0).unwrap()
}
