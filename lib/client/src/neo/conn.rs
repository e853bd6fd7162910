//! A neo connection that one task or thread has for itself.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::core::{Core, Event};
use super::handshake::establish;
use super::identity::Identity;
use crate::error::Error;

/// What has arrived and is not complete.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    filled: usize,
    /// Bytes that are read at once.
    size: usize,
}

impl Input {
    pub(crate) fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], filled: 0, size }
    }

    /// Reads what the system has; false if there is nothing now.
    pub(crate) fn fill(&mut self, node: SocketAddrV4, stream: &TcpStream) -> Result<bool, Error> {
        if self.filled == self.bytes.len() {
            self.bytes.resize(self.filled * 2, 0);
        }
        match stream.try_read(self.bytes.get_mut(self.filled..).unwrap_or_default()) {
            Ok(0) => Err(Error::broken(node, &io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                self.filled += read;
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(cause) => Err(Error::broken(node, &cause)),
        }
    }

    pub(crate) fn arrived(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Forgets what is done with, and the room that only a large message needed.
    pub(crate) fn consume(&mut self, consumed: usize) {
        self.bytes.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;
        if self.filled == 0 && self.bytes.len() > self.size * 16 {
            self.bytes = vec![0; self.size];
        }
    }
}

/// A connection and its requests.
#[derive(Debug)]
pub(crate) struct Conn<T> {
    pub(crate) node: SocketAddrV4,
    stream: TcpStream,
    pub(crate) core: Core<T>,
    sent: usize,
    input: Input,
}

impl<T> Conn<T> {
    /// Connects and authenticates within `timeout`. Reads so many bytes at once.
    pub(crate) async fn connect(
        node: SocketAddrV4,
        identity: &Identity,
        timeout: Duration,
        read: usize,
    ) -> Result<Self, Error> {
        let stream = establish(node, identity, timeout, || ()).await?;
        Ok(Self { node, stream, core: Core::new(), sent: 0, input: Input::new(read) })
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.core.out.len() - self.sent
    }

    /// Sends what is queued, waits until something can be sent or read, and hands over what has arrived. May be dropped
    /// while it waits without losing anything.
    pub(crate) async fn turn(&mut self, on: impl FnMut(&mut T, Event<'_>) -> bool) -> Result<(), Error> {
        self.write()?;
        let interest =
            if self.core.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.stream.ready(interest).await.map_err(|cause| Error::broken(self.node, &cause))?;
        if ready.is_readable() && self.input.fill(self.node, &self.stream)? {
            let received = self.core.receive(self.input.arrived(), on);
            self.input.consume(received.map_err(|what| Error::protocol(self.node, what))?);
        }
        Ok(())
    }

    /// Sends as much as the system takes.
    fn write(&mut self) -> Result<(), Error> {
        while self.sent < self.core.out.len() {
            match self.stream.try_write(self.core.out.get(self.sent..).unwrap_or_default()) {
                Ok(written) => self.sent += written,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(cause) => return Err(Error::broken(self.node, &cause)),
            }
        }
        self.core.out.clear();
        self.sent = 0;
        Ok(())
    }
}
