//! The legacy protocol: a pool of connections per node, each with one request at a time (protocol §1, §5).

pub(crate) mod ask;

use std::io;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overstory_swarm::legacy::{Need, ProtocolError, Status, dht, dls, dmq, reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::socket;

/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// The connections to one node.
#[derive(Debug)]
pub(crate) struct Pool {
    node: SocketAddrV4,
    connect_timeout: Duration,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Conn>>,
    waiting: AtomicUsize,
    queue_limit: usize,
    /// Whether the node has ever answered: then it speaks this protocol.
    spoke: AtomicBool,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of the input that are done with.
    at: usize,
}

/// A connection that carries a request. It goes back to the pool by [`Self::finish`]; dropped, it is closed, since its
/// answer may still be on its way.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    conn: Conn,
    /// Gives the place in the pool back.
    _permit: OwnedSemaphorePermit,
}

/// A request, of whichever node.
pub(crate) trait Opening {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Whether it only reads.
    fn harmless(&self) -> bool;
    /// Bytes of the value that it carries.
    fn value(&self) -> Option<usize>;
    /// What it means that the node has no room.
    fn no_room(node: SocketAddrV4) -> Error;
    /// Appends it.
    fn encode(&self, out: &mut Vec<u8>);
}

impl Opening for dht::Request<'_> {
    fn name(&self) -> &'static str {
        dht::Request::name(self)
    }

    fn harmless(&self) -> bool {
        !matches!(self, Self::Put { .. } | Self::Remove { .. } | Self::RemoveChannel { .. } | Self::Redistribute { .. })
    }

    fn value(&self) -> Option<usize> {
        if let Self::Put { value, .. } = self { Some(value.len()) } else { None }
    }

    fn no_room(node: SocketAddrV4) -> Error {
        Error::OutOfMemory { node }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        dht::Request::encode(self, out);
    }
}

impl Opening for dmq::Request<'_> {
    fn name(&self) -> &'static str {
        dmq::Request::name(self)
    }

    fn harmless(&self) -> bool {
        matches!(
            self,
            Self::GetChannels | Self::GetChannelSize { .. } | Self::GetSize | Self::GetNumConnections
                // Nothing of theirs has begun before the status.
                | Self::Consume { .. } | Self::Produce { .. } | Self::ProduceMulti { .. }
        )
    }

    fn value(&self) -> Option<usize> {
        match self {
            Self::Push { value, .. } | Self::PushMulti { value, .. } => Some(value.len()),
            _ => None,
        }
    }

    fn no_room(node: SocketAddrV4) -> Error {
        Error::Full { node }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        dmq::Request::encode(self, out);
    }
}

impl Opening for dls::Request<'_> {
    fn name(&self) -> &'static str {
        dls::Request::name(self)
    }

    fn harmless(&self) -> bool {
        !matches!(
            self,
            Self::Put { .. } | Self::PutBatch { .. } | Self::RemoveChannel { .. } | Self::Redistribute { .. }
        )
    }

    fn value(&self) -> Option<usize> {
        if let Self::Put { value, .. } = self { Some(value.len()) } else { None }
    }

    fn no_room(node: SocketAddrV4) -> Error {
        Error::NotWritten { node }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        dls::Request::encode(self, out);
    }
}

impl Pool {
    pub(crate) fn new(node: SocketAddrV4, limit: usize, queue_limit: usize, connect_timeout: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limit.max(1)));
        let (idle, waiting) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        Arc::new(Self { node, connect_timeout, permits, idle, waiting, queue_limit, spoke: AtomicBool::new(false) })
    }

    pub(crate) const fn node(&self) -> SocketAddrV4 {
        self.node
    }

    /// The node of a pool.
    pub(crate) fn of(pool: &Arc<Self>) -> SocketAddrV4 {
        pool.node
    }

    /// Sends a request and reads its status; the reply is read from the lease.
    pub(crate) async fn send<R: Opening>(self: &Arc<Self>, request: &R, limit: Limit) -> Result<Lease, Error> {
        let mut lease = self.lease(limit).await?;
        let mut out = Vec::with_capacity(256);
        request.encode(&mut out);
        lease.write(&out, limit).await?;
        let node = self.node;
        let status = match lease.read(limit, reply::status).await {
            Ok(status) => status,
            // A neo node does not like how a request begins. What may have had an effect is not explained away.
            Err(Error::Broken { .. } | Error::Protocol { .. })
                if request.harmless() && !self.spoke.load(Ordering::Relaxed) =>
            {
                return Err(Error::OtherProtocol { node, expected: "legacy" });
            }
            Err(error) => return Err(error),
        };
        self.spoke.store(true, Ordering::Relaxed);
        let error = match status {
            Status::Ok => return Ok(lease),
            Status::WrongNode => Error::WrongNode { node },
            Status::OutOfMemory => R::no_room(node),
            Status::EmptyValue => Error::EmptyValue,
            Status::BadChannelName => Error::BadChannelName(overstory_swarm::channel::BadChannelName),
            Status::ValueTooBig => match request.value() {
                Some(length) => Error::ValueTooBig { length, limit: length.saturating_sub(1) },
                None => Error::Node { node },
            },
            Status::NotSupported | Status::InvalidRequest => Error::Unsupported { node, request: request.name() },
            // The stream may be out of step: the connection is given up (protocol §1.2).
            Status::Error => return Err(Error::Node { node }),
        };
        lease.finish();
        Err(error)
    }

    /// Takes an idle connection or makes one; waits while as many as allowed are busy.
    async fn lease(self: &Arc<Self>, limit: Limit) -> Result<Lease, Error> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait(limit).await?,
        };
        let conn = match self.idle() {
            Some(conn) => conn,
            None => {
                let within = self.connect_timeout.min(limit.left());
                Conn { stream: socket::connect(self.node, within, true).await?, input: Vec::new(), at: 0 }
            }
        };
        Ok(Lease { pool: Arc::clone(self), conn, _permit: permit })
    }

    async fn wait(&self, limit: Limit) -> Result<OwnedSemaphorePermit, Error> {
        let node = self.node;
        let queue = Queued::enter(&self.waiting);
        if queue.position > self.queue_limit {
            return Err(Error::QueueFull { node });
        }
        let permit = limit.apply(node, Arc::clone(&self.permits).acquire_owned()).await;
        // Nothing was sent, so this is no time-out of the node.
        permit.map_err(|_| Error::QueueFull { node })?.map_err(|_| Error::Closed)
    }

    /// An idle connection that is still open and has nothing to say.
    fn idle(&self) -> Option<Conn> {
        loop {
            let conn = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            match conn.stream.try_read(&mut [0]) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Some(conn),
                // Closed by the node, broken, or out of step.
                _ => {}
            }
        }
    }
}

/// One place in the queue.
struct Queued<'a> {
    waiting: &'a AtomicUsize,
    position: usize,
}

impl<'a> Queued<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Self {
        let position = waiting.fetch_add(1, Ordering::Relaxed) + 1;
        Self { waiting, position }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long something may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// All of it together.
    Until(Instant, Duration),
    /// Each wait for the node.
    Each(Duration),
    /// For ever.
    None,
}

impl Limit {
    /// The whole request has so long, from now.
    pub(crate) fn within(time: Duration) -> Self {
        Self::Until(Instant::now() + time, time)
    }

    fn left(self) -> Duration {
        match self {
            Self::Until(deadline, _) => deadline.saturating_duration_since(Instant::now()),
            Self::Each(each) => each,
            Self::None => Duration::MAX,
        }
    }

    async fn apply<T>(self, node: SocketAddrV4, what: impl Future<Output = T>) -> Result<T, Error> {
        let (deadline, after) = match self {
            Self::Until(deadline, after) => (deadline, after),
            Self::Each(each) => (Instant::now() + each, each),
            Self::None => return Ok(what.await),
        };
        timeout_at(deadline, what).await.map_err(|_| Error::Timeout { node, after })
    }
}

impl Lease {
    async fn write(&mut self, bytes: &[u8], limit: Limit) -> Result<(), Error> {
        let node = self.pool.node;
        let written = limit.apply(node, self.conn.stream.write_all(bytes)).await?;
        written.map_err(|cause| Error::broken(node, &cause))
    }

    /// Reads a part of the reply; `decode` takes what it needs out of the input.
    pub(crate) async fn read<T>(
        &mut self,
        limit: Limit,
        mut decode: impl FnMut(&[u8]) -> Result<Need<T>, ProtocolError>,
    ) -> Result<T, Error> {
        let node = self.pool.node;
        loop {
            let Conn { stream, input, at } = &mut self.conn;
            match decode(input.get(*at..).unwrap_or_default()).map_err(|what| Error::protocol(node, what))? {
                Need::Done { value, consumed } => {
                    *at += consumed;
                    return Ok(value);
                }
                Need::More(need) => {
                    input.drain(..std::mem::take(at));
                    input.reserve(need.saturating_sub(input.len()).max(READ));
                }
            }
            let read = limit.apply(node, stream.read_buf(input)).await?;
            if read.map_err(|cause| Error::broken(node, &cause))? == 0 {
                return Err(Error::broken(node, &io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends as much of a stream as the system takes; waits only if it takes nothing.
    pub(crate) async fn send_some(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let written = self.conn.stream.write(bytes).await;
        written.map_err(|cause| Error::broken(self.pool.node, &cause))
    }

    /// Sends as much of a stream as the system takes at once.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> Result<usize, Error> {
        match self.conn.stream.try_write(bytes) {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written.map_err(|cause| Error::broken(self.pool.node, &cause)),
        }
    }

    /// Sends a further request on the same connection and reads its status.
    pub(crate) async fn and_then(&mut self, request: &impl Opening, limit: Limit) -> Result<Status, Error> {
        let mut out = Vec::new();
        request.encode(&mut out);
        self.write(&out, limit).await?;
        self.read(limit, reply::status).await
    }

    /// Says that nothing more will be sent: the node ends what it does for this connection.
    pub(crate) async fn end_sending(&mut self) -> Result<(), Error> {
        let ended = self.conn.stream.shutdown().await;
        ended.map_err(|cause| Error::broken(self.pool.node, &cause))
    }

    /// Gives the connection back: the reply was read to its end.
    pub(crate) fn finish(self) {
        if self.conn.input.len() == self.conn.at {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.conn);
        }
    }
}

/// Turns what a decoder borrows into something that is kept.
pub(crate) fn keep<T, R>(need: Need<T>, keep: impl FnOnce(T) -> R) -> Need<R> {
    match need {
        Need::More(bytes) => Need::More(bytes),
        Need::Done { value, consumed } => Need::Done { value: keep(value), consumed },
    }
}
