//! Nodes on free ports, and clients of both protocols that read and write bytes.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use overstory_dht::engine::{DhtEngine, EngineSettings, Hooks};
use overstory_dht::storage::Store;
use overstory_model::Millis;
use overstory_model::clock::{Clock, ManualClock, SystemClock};
use overstory_node::server::{Listeners, Server, ServerConfig};
use overstory_node::stats::NodeStats;
use overstory_runtime::Shutdown;
use overstory_swarm::auth::{ClientKey, Credentials, code};
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request as Legacy;
use overstory_swarm::neo::dht::Request as Neo;

/// The time at which every test happens: that of the recordings.
pub(crate) const NOW: u64 = 1_795_240_300;

/// A client waits for so long for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a node is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub range: HashRange,
    pub batch_size: usize,
    pub size_limit: u64,
    pub multiplier: f64,
    /// Records that are there from the beginning.
    pub records: Vec<(String, u64, Vec<u8>)>,
    /// What the node calls its legacy address.
    pub address: SocketAddrV4,
    /// Whether the neo port is 100 above the legacy port and the clock goes, as clients expect of a node.
    pub real: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            range: HashRange::FULL,
            batch_size: 65_535,
            size_limit: 0,
            multiplier: 1.1,
            records: Vec::new(),
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 21_000),
            real: false,
        }
    }
}

/// What the engine did outside of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    SavedRange(HashRange),
    ChannelRemoved(String),
}

#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Effect>>>);

impl Hooks for Recorder {
    fn save_range(&self, range: HashRange) -> Result<(), String> {
        self.0.lock().unwrap().push(Effect::SavedRange(range));
        Ok(())
    }

    fn channel_removed(&self, channel: &str) {
        self.0.lock().unwrap().push(Effect::ChannelRemoved(channel.to_owned()));
    }
}

/// A node on a thread of its own; dropping it stops it.
pub(crate) struct Node {
    pub legacy: SocketAddrV4,
    pub(crate) neo: SocketAddrV4,
    effects: Recorder,
    shutdown: Shutdown,
    ask: tokio::sync::mpsc::Sender<Ask>,
    thread: Option<JoinHandle<()>>,
}

type Ask = Box<dyn FnOnce(&DhtEngine) + Send>;

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let (up, is_up) = mpsc::sync_channel(1);
        let (effects, shutdown) = (Recorder::default(), Shutdown::new());
        let (ask, asked) = tokio::sync::mpsc::channel(16);
        let (its_effects, its_shutdown) = (effects.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serve = serve(setup, its_effects, its_shutdown, asked, up);
            tokio::task::LocalSet::new().block_on(&runtime, serve);
        });
        let (legacy, neo) = is_up.recv_timeout(PATIENCE).expect("a node that starts");
        Self { legacy, neo, effects, shutdown, ask, thread: Some(thread) }
    }

    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.effects.0.lock().unwrap().clone()
    }

    /// Asks the engine something, on its own thread.
    pub(crate) fn with<T: Send + 'static>(&self, question: impl FnOnce(&DhtEngine) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let ask: Ask = Box::new(move |engine| answer.send(question(engine)).unwrap());
        assert!(self.ask.blocking_send(ask).is_ok(), "the node has ended");
        answered.recv_timeout(PATIENCE).expect("an answer of the node")
    }

    /// Every record of a channel, by key.
    pub(crate) fn records(&self, channel: &'static str) -> Vec<(u64, Vec<u8>)> {
        let mut records = self.with(move |engine| {
            let mut records = Vec::new();
            let _ = engine.store().borrow().scan(channel, None, &mut |key, value| {
                records.push((key.0, value.to_vec()));
                std::ops::ControlFlow::Continue(())
            });
            records
        });
        records.sort();
        records
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        self.with(|engine| engine.store().borrow().channel_names())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.request();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("a node that ends well");
        }
    }
}

/// Free ports; a pair that belongs together if asked for.
fn bind(pair: bool) -> (ServerConfig, Listeners) {
    let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    for _ in 0..64 {
        let legacy = match pair {
            true => TcpListener::bind(at(0)).unwrap().local_addr().unwrap().port(),
            false => 0,
        };
        let Some(neo) = (if pair { legacy.checked_add(100) } else { Some(0) }) else { continue };
        let config = ServerConfig::new(Some(at(legacy)), at(neo));
        if let Ok(listeners) = Listeners::bind(&config) {
            return (config, listeners);
        }
    }
    panic!("no free ports");
}

async fn serve(
    setup: Setup,
    effects: Recorder,
    shutdown: Shutdown,
    mut asked: tokio::sync::mpsc::Receiver<Ask>,
    up: mpsc::SyncSender<(SocketAddrV4, SocketAddrV4)>,
) {
    let (config, listeners) = bind(setup.real);
    let addresses = (listeners.legacy_address().unwrap(), listeners.neo_address().unwrap());
    let stats = Rc::new(NodeStats::new::<DhtEngine>());
    let mut store = Store::new(setup.size_limit);
    for (channel, key, value) in &setup.records {
        store.put(channel, Key(*key), value).unwrap();
    }
    let settings = EngineSettings {
        address: setup.address,
        range: setup.range,
        batch_size: setup.batch_size,
        redist_memory_limit_multiplier: setup.multiplier,
    };
    let engine = Rc::new(DhtEngine::new(store, settings, Rc::clone(&stats), Box::new(effects)));
    let zeros = "0".repeat(256);
    let credentials = Credentials::parse(format!("admin:{zeros}\ntest:{zeros}\n").as_bytes()).unwrap();
    let clock: Arc<dyn Clock> = match setup.real {
        true => Arc::new(SystemClock),
        false => Arc::new(ManualClock::new(Millis(i64::try_from(NOW).unwrap() * 1000))),
    };
    let credentials = Rc::new(RefCell::new(credentials));
    let server = Server { config, engine: Rc::clone(&engine), stats, credentials, clock };
    up.send(addresses).unwrap();
    let answer = async {
        while let Some(ask) = asked.recv().await {
            ask(&engine);
        }
    };
    tokio::select! {
        _ = server.run(listeners, &shutdown) => {}
        () = answer => {}
    }
    engine.stop();
}

/// A connection of either protocol.
pub(crate) struct Connection {
    pub stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(address: SocketAddrV4) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads an array with its length, and gives the bytes in it.
    pub(crate) fn read_array(&mut self) -> Vec<u8> {
        let length = u64::from_le_bytes(self.read(8).try_into().unwrap());
        self.read(usize::try_from(length).unwrap())
    }

    pub(crate) fn read_status(&mut self) -> Status {
        let code = i32::from_le_bytes(self.read(4).try_into().unwrap());
        Status::from_code(code).unwrap_or_else(|| panic!("status {code}"))
    }

    /// Nothing comes for a moment, and the connection stays open.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The node closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0)) || self.was_reset()
    }

    fn was_reset(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    }

    /// Sends a legacy request and reads the status.
    pub(crate) fn ask(&mut self, request: &Legacy<'_>) -> Status {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.send(&bytes);
        self.read_status()
    }
}

/// An authenticated neo connection.
pub(crate) struct NeoClient {
    pub(crate) connection: Connection,
}

impl NeoClient {
    pub(crate) fn open(node: &Node, name: &str) -> Self {
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

    pub(crate) fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let header = self.connection.read(10);
        let length = u64::from_le_bytes(header[1..9].try_into().unwrap());
        (header[0], self.connection.read(usize::try_from(length).unwrap()))
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, id: u64, request: &Neo<'_>) {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        self.message(id, &payload);
    }

    pub(crate) fn message(&mut self, id: u64, payload: &[u8]) {
        self.send_frame(1, &[&id.to_le_bytes()[..], payload].concat());
    }

    /// Reads a message of this request, which must be the next one of the connection.
    pub(crate) fn read(&mut self, id: u64) -> Vec<u8> {
        let (kind, body) = self.read_frame();
        assert_eq!((kind, &body[..8]), (1, &id.to_le_bytes()[..]), "the next message is of request {id}");
        body[8..].to_vec()
    }

    /// Begins a request, and gives what follows "supported", if that is one message.
    pub(crate) fn ask(&mut self, id: u64, request: &Neo<'_>) -> Vec<u8> {
        self.begin(id, request);
        assert_eq!(self.read(id), [0xfd]);
        self.read(id)
    }
}

pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u64;
    let parity = length.to_le_bytes().iter().fold(kind, |parity, byte| parity ^ byte);
    [&[kind][..], &length.to_le_bytes(), &[parity], body].concat()
}

/// The message that proves a client's name, with the keys of the recordings.
pub(crate) fn proof(name: &str, timestamp: u64, nonce: &[u8]) -> Vec<u8> {
    let key = ClientKey::from_hex("0".repeat(256).as_bytes()).unwrap();
    let code = code(&key, timestamp, nonce.try_into().unwrap());
    [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &code].concat()
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "in time: {what}");
        std::thread::yield_now();
    }
}
