//! A node in this process: an engine behind real sockets, on a thread of its own.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use overstory_model::Millis;
use overstory_model::clock::{Clock, ManualClock, SystemClock};
use overstory_node::engine::Engine;
use overstory_node::server::{Listeners, Server, ServerConfig};
use overstory_node::stats::NodeStats;
use overstory_runtime::Shutdown;
use overstory_swarm::auth::Credentials;

use crate::{NOW, PATIENCE};

/// How a node begins and ends. Both happen on the node's thread, inside of a `LocalSet`.
pub trait Host: Send + 'static {
    /// What answers requests.
    type Engine: Engine;

    /// Whether the neo port is 100 above the legacy port and the clock goes, as clients expect of a node.
    fn is_real(&self) -> bool {
        false
    }

    /// Makes the engine. `stats` is what the server counts in; `shutdown` is requested before the server ends.
    fn start(&mut self, stats: Rc<NodeStats>, shutdown: Shutdown) -> impl Future<Output = Rc<Self::Engine>>;

    /// Ends the engine when the server has ended.
    fn stop(self, engine: Rc<Self::Engine>) -> impl Future<Output = ()>;
}

/// A running node. Dropping it stops it in order, and panics if it did not end well.
pub struct Node<E> {
    /// Where legacy clients connect.
    pub legacy: SocketAddrV4,
    /// Where neo clients connect, as `admin` or `test`.
    pub neo: SocketAddrV4,
    shutdown: Shutdown,
    ask: tokio::sync::mpsc::Sender<Ask<E>>,
    thread: Option<JoinHandle<()>>,
}

type Ask<E> = Box<dyn FnOnce(&Rc<E>) + Send>;

impl<E: Engine> Node<E> {
    /// Starts a node on free ports; clients can connect when this returns.
    pub fn start(host: impl Host<Engine = E>) -> Self {
        let (up, is_up) = mpsc::sync_channel(1);
        let shutdown = Shutdown::new();
        let (ask, asked) = tokio::sync::mpsc::channel(16);
        let its_shutdown = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, serve(host, its_shutdown, asked, up));
        });
        let (legacy, neo) = is_up.recv_timeout(PATIENCE).expect("a node that starts");
        Self { legacy, neo, shutdown, ask, thread: Some(thread) }
    }

    /// Asks the engine something, on its own thread. Whatever was ready to run there has run before.
    pub fn with<T: Send + 'static>(&self, question: impl FnOnce(&Rc<E>) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let ask: Ask<E> = Box::new(move |engine| answer.send(question(engine)).unwrap());
        assert!(self.ask.blocking_send(ask).is_ok(), "the node has ended");
        answered.recv_timeout(PATIENCE).expect("an answer of the node")
    }

    /// Lets the node do what it has to do because of what it was sent and has answered.
    pub fn settle(&self) {
        self.with(|_| ());
    }
}

impl<E> Drop for Node<E> {
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

async fn serve<H: Host>(
    mut host: H,
    shutdown: Shutdown,
    mut asked: tokio::sync::mpsc::Receiver<Ask<H::Engine>>,
    up: mpsc::SyncSender<(SocketAddrV4, SocketAddrV4)>,
) {
    let (config, listeners) = bind(host.is_real());
    let addresses = (listeners.legacy_address().unwrap(), listeners.neo_address().unwrap());
    let stats = Rc::new(NodeStats::new::<H::Engine>());
    let engine = host.start(Rc::clone(&stats), shutdown.clone()).await;
    let zeros = "0".repeat(256);
    let credentials = Credentials::parse(format!("admin:{zeros}\ntest:{zeros}\n").as_bytes()).unwrap();
    let clock: Arc<dyn Clock> = match host.is_real() {
        true => Arc::new(SystemClock),
        false => Arc::new(ManualClock::new(Millis(i64::try_from(NOW).unwrap() * 1000))),
    };
    let credentials = Rc::new(RefCell::new(credentials));
    let server = Server { config, engine: Rc::clone(&engine), stats, credentials, clock };
    up.send(addresses).unwrap();
    let answer = async {
        while let Some(ask) = asked.recv().await {
            // What was ready before the question came runs first.
            tokio::task::yield_now().await;
            ask(&engine);
        }
    };
    tokio::select! {
        _ = server.run(listeners, &shutdown) => {}
        () = answer => {}
    }
    host.stop(engine).await;
}
