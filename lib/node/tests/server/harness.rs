//! A running server and clients of it, all on one thread.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overstory_model::Millis;
use overstory_model::clock::ManualClock;
use overstory_node::server::{Drained, Limits, Listeners, Server, ServerConfig};
use overstory_node::stats::NodeStats;
use overstory_runtime::Shutdown;
use overstory_swarm::auth::{self, ClientKey, Credentials, KEY};
use overstory_swarm::neo::frame::{self, HEADER, Kind};
use overstory_swarm::neo::{SUPPORTED, split_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, LocalSet};

use crate::toy::Toy;

/// The node's clock in all tests: when `neo-auth-rejected` was recorded.
pub(crate) const NOW: u64 = 1_795_240_294;

pub(crate) struct Harness {
    pub(crate) toy: Rc<Toy>,
    pub(crate) stats: Rc<NodeStats>,
    pub(crate) credentials: Rc<RefCell<Credentials>>,
    legacy: SocketAddrV4,
    neo: SocketAddrV4,
    shutdown: Shutdown,
    running: RefCell<Option<JoinHandle<Drained>>>,
}

/// Runs a test against a server with these bounds, then stops the server.
pub(crate) fn with_limits(limit: usize, limits: Limits, test: impl AsyncFnOnce(&Harness)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let config = ServerConfig { connection_limit: limit, limits, ..ServerConfig::new(Some(any), any) };
        let listeners = Listeners::bind(&config).unwrap();
        let (legacy, neo) = (listeners.legacy_address().unwrap(), listeners.neo_address().unwrap());
        let mut credentials = Credentials::default();
        credentials.insert("test", ClientKey([0; KEY])).unwrap();
        let (toy, stats) = (Rc::new(Toy::default()), Rc::new(NodeStats::new::<Toy>()));
        let (credentials, shutdown) = (Rc::new(RefCell::new(credentials)), Shutdown::new());
        let clock = Arc::new(ManualClock::new(Millis(i64::try_from(NOW).unwrap() * 1000)));
        let server = Server {
            config,
            engine: Rc::clone(&toy),
            stats: Rc::clone(&stats),
            credentials: Rc::clone(&credentials),
            clock,
        };
        let wish = shutdown.clone();
        let running = tokio::task::spawn_local(async move { server.run(listeners, &wish).await });
        let running = RefCell::new(Some(running));
        let harness = Harness { toy, stats, credentials, legacy, neo, shutdown, running };
        tokio::time::timeout(Duration::from_secs(30), test(&harness)).await.unwrap();
        if harness.running.borrow().is_some() {
            harness.stop().await;
        }
        let connections = harness.stats.legacy_connections.get() + harness.stats.neo_connections.get();
        assert_eq!((connections, harness.toy.streams.get()), (0, 0));
        let counters = harness.stats.neo.iter().chain(&harness.stats.legacy);
        counters.for_each(|counters| assert_eq!(counters.active.get(), 0, "{}", counters.spec.name));
    }));
}

/// Runs a test against a server with the usual bounds.
pub(crate) fn with_server(test: impl AsyncFnOnce(&Harness)) {
    with_limits(5000, Limits::default(), test);
}

/// Lets everybody run until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition did not come true in 10 s");
}

impl Harness {
    pub(crate) fn request_stop(&self) {
        self.shutdown.request();
    }

    pub(crate) async fn stop(&self) -> Drained {
        self.shutdown.request();
        let running = self.running.borrow_mut().take().unwrap();
        running.await.unwrap()
    }

    /// A connection to the neo port, nothing sent.
    pub(crate) async fn raw(&self) -> Client {
        Client::new(TcpStream::connect(self.neo).await.unwrap())
    }

    pub(crate) async fn legacy(&self) -> Client {
        Client::new(TcpStream::connect(self.legacy).await.unwrap())
    }

    /// An authenticated client.
    pub(crate) async fn neo(&self) -> Client {
        let mut client = self.raw().await;
        client.authenticate().await;
        client
    }

    /// An authenticated client for which the kernel keeps little.
    pub(crate) async fn narrow(&self) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        let mut client = Client::new(socket.connect(self.neo.into()).await.unwrap());
        client.authenticate().await;
        client
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// What comes until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    pub(crate) async fn authenticate(&mut self) {
        self.send(&[1]).await;
        assert_eq!(self.read(1).await, [1]);
        assert_eq!(self.prove("test", NOW, &ClientKey([0; KEY])).await, 1);
    }

    /// Says who it is; returns the server's verdict.
    pub(crate) async fn prove(&mut self, name: &str, time: u64, key: &ClientKey) -> u8 {
        let mut out = Vec::new();
        auth::put_time(&mut out, time);
        self.send(&out).await;
        let nonce = auth::read_nonce(&self.read(HEADER + auth::NONCE).await[HEADER..]).unwrap();
        out.clear();
        auth::put_proof(&mut out, name.as_bytes(), &auth::code(key, time, nonce));
        self.send(&out).await;
        self.read(HEADER + 1).await[HEADER]
    }

    pub(crate) async fn request(&mut self, id: u64, code: u8, data: &[u8]) {
        self.send(&request(id, code, data)).await;
    }

    /// The next message: id and payload.
    pub(crate) async fn message(&mut self) -> (u64, Vec<u8>) {
        let header = self.read(HEADER).await;
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        let body = self.read(usize::try_from(length).unwrap()).await;
        let (id, payload) = split_body(&body).unwrap();
        (id, payload.to_vec())
    }

    pub(crate) async fn expect(&mut self, id: u64, payload: &[u8]) {
        let (got, bytes) = self.message().await;
        assert_eq!((got, bytes.as_slice()), (id, payload));
    }

    /// A request that is answered at once.
    pub(crate) async fn echo(&mut self, id: u64) {
        self.request(id, crate::toy::ECHO, b"hello").await;
        self.expect(id, &[SUPPORTED]).await;
        self.expect(id, b"hello").await;
    }
}

/// A message of a request.
pub(crate) fn message(id: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, Kind::Request, &[&id.to_le_bytes(), payload].concat());
    out
}

/// The first message of a request.
pub(crate) fn request(id: u64, code: u8, data: &[u8]) -> Vec<u8> {
    message(id, &[&[code, 0], data].concat())
}

pub(crate) fn flood(id: u64, batches: u64, size: u32) -> Vec<u8> {
    request(id, crate::toy::FLOOD, &[&batches.to_le_bytes()[..], &size.to_le_bytes()].concat())
}

pub(crate) fn legacy(code: u8, argument: u64, data: &[u8]) -> Vec<u8> {
    [&[code, 0, 0, 0][..], &argument.to_le_bytes(), data].concat()
}
