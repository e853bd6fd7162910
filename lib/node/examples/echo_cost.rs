//! Measures what a request costs the server: processor time of its thread, system calls included.
//!
//! `cargo run --release -p overstory-node --example echo_cost [--local] [seconds]`. A client thread sends so many requests at once
//! over one connection, reads all replies, and sends again, as `redis-benchmark -P` does. The engine is a hash map, so
//! the figures are the server's own. `--local` uses tokio's `LocalRuntime` in place of a `LocalSet`.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overstory_model::SystemClock;
use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support};
use overstory_node::server::{Listeners, Server, ServerConfig};
use overstory_node::stats::{NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_runtime::Shutdown;
use overstory_swarm::auth::{self, ClientKey, Credentials, KEY};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::frame::{self, Kind};
use overstory_swarm::wire::{Reader, put_array};

const VALUE: usize = 100;
const PUT: u8 = 2;
const GET: u8 = 3;

#[derive(Default)]
struct Map(RefCell<HashMap<u64, Box<[u8]>>>);

impl Map {
    fn put(&self, key: u64, value: &[u8]) {
        let mut map = self.0.borrow_mut();
        match map.get_mut(&key) {
            Some(old) if old.len() == value.len() => old.copy_from_slice(value),
            _ => drop(map.insert(key, value.into())),
        }
    }
}

const fn spec(code: u8, name: &'static str, timed: bool) -> RequestSpec {
    RequestSpec { code, name, tracked: true, timed }
}

impl Engine for Map {
    const LEGACY_REQUESTS: &'static [RequestSpec] = &[spec(1, "Put", false), spec(7, "Get", false)];
    const NEO_REQUESTS: &'static [RequestSpec] = &[spec(PUT, "Put", true), spec(GET, "Get", true)];
    const ACTIONS: &'static [&'static str] = &[];

    fn legacy(&self, _: &Peer, _: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        let Some((code, rest)) = input.split_first_chunk::<4>() else { return LegacyStep::Need(4) };
        let mut reader = Reader::new(rest);
        let mut parts = || Some((reader.array().ok()?, reader.array().ok()?));
        let Some((_, key)) = parts() else { return LegacyStep::Need(input.len() + 1) };
        let key = u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap();
        let request = usize::from(*code != 1_i32.to_le_bytes());
        if request == 0 {
            let Ok(value) = reader.array() else { return LegacyStep::Need(input.len() + 1) };
            self.put(key, value);
        }
        out.extend_from_slice(&200_i32.to_le_bytes());
        if request == 1 {
            put_array(out, self.0.borrow().get(&key).map_or(&[][..], |value| value));
        }
        LegacyStep::Done { consumed: input.len() - reader.rest().len(), request }
    }

    fn supports(&self, code: u8, _: u8) -> Support {
        match code {
            PUT => Support::Yes(0),
            GET => Support::Yes(1),
            _ => Support::UnknownCode,
        }
    }

    fn neo(&self, request: NeoRequest<'_>, out: &mut Replies<'_>) -> Begun {
        let mut reader = Reader::new(request.payload);
        let (Ok(_), Ok(key)) = (reader.array(), reader.u64()) else { return Begun::Done };
        if request.code == PUT {
            self.put(key, reader.array().unwrap_or_default());
            out.byte(1);
        } else if let Some(value) = self.0.borrow().get(&key) {
            out.byte(2);
            out.array(value);
        }
        Begun::Done
    }
}

fn requests(code: u8, in_flight: u64) -> Vec<u8> {
    let mut batch = Vec::new();
    for id in 0..in_flight {
        let mark = frame::begin(&mut batch, Kind::Request);
        batch.extend_from_slice(&id.to_le_bytes());
        batch.extend_from_slice(&[code, 0]);
        put_array(&mut batch, b"channel");
        batch.extend_from_slice(&(id * 7919).to_le_bytes());
        if code == PUT {
            put_array(&mut batch, &[b'v'; VALUE]);
        }
        frame::end(&mut batch, mark);
    }
    batch
}

fn legacy_requests(code: i32, in_flight: u64) -> Vec<u8> {
    let mut batch = Vec::new();
    for id in 0..in_flight {
        batch.extend_from_slice(&code.to_le_bytes());
        put_array(&mut batch, b"channel");
        put_array(&mut batch, format!("{:016x}", id * 7919).as_bytes());
        if code == 1 {
            put_array(&mut batch, &[b'v'; VALUE]);
        }
    }
    batch
}

fn cpu(thread: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn measure(
    stream: &mut TcpStream,
    name: &str,
    batch: &[u8],
    reply: usize,
    in_flight: u64,
    time: Duration,
    server: i32,
) {
    let mut replies = vec![0; reply * usize::try_from(in_flight).unwrap()];
    let mut round = || {
        stream.write_all(batch).unwrap();
        stream.read_exact(&mut replies).unwrap();
    };
    (0..1000 / in_flight + 10).for_each(|_| round());
    let (began, before, mut rounds) = (Instant::now(), cpu(server), 0);
    while began.elapsed() < time {
        (0..10).for_each(|_| round());
        rounds += 10;
    }
    let (count, took, used) = (rounds * in_flight, began.elapsed(), cpu(server) - before);
    let each = used.as_nanos() / u128::from(count);
    let rate = u128::from(count) * 1_000_000_000 / took.as_nanos();
    println!("{name:<12} {in_flight:>5} in flight  {each:>6} ns CPU each  {rate:>9} /s");
}

fn client(legacy: SocketAddrV4, neo: SocketAddrV4, time: Duration, server: i32) {
    let mut stream = TcpStream::connect(neo).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[1]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let now = u64::try_from(overstory_model::Clock::now(&SystemClock).secs().0).unwrap();
    let (mut out, mut nonce) = (Vec::new(), [0; frame::HEADER + auth::NONCE]);
    auth::put_time(&mut out, now);
    stream.write_all(&out).unwrap();
    stream.read_exact(&mut nonce).unwrap();
    let code = auth::code(&ClientKey([0; KEY]), now, auth::read_nonce(&nonce[frame::HEADER..]).unwrap());
    out.clear();
    auth::put_proof(&mut out, b"test", &code);
    stream.write_all(&out).unwrap();
    stream.read_exact(&mut [0; frame::HEADER + 1]).unwrap();
    const MESSAGE: usize = frame::HEADER + 8;
    for in_flight in [1, 64, 1024] {
        let put = requests(PUT, in_flight);
        measure(&mut stream, "neo put", &put, 2 * (MESSAGE + 1), in_flight, time, server);
        let (get, reply) = (requests(GET, in_flight), 2 * (MESSAGE + 1) + MESSAGE + 8 + VALUE);
        measure(&mut stream, "neo get", &get, reply, in_flight, time, server);
    }
    let mut stream = TcpStream::connect(legacy).unwrap();
    stream.set_nodelay(true).unwrap();
    for in_flight in [1, 64] {
        measure(&mut stream, "legacy put", &legacy_requests(1, in_flight), 4, in_flight, time, server);
        measure(&mut stream, "legacy get", &legacy_requests(7, in_flight), 4 + 8 + VALUE, in_flight, time, server);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(2);
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let config = ServerConfig::new(Some(any), any);
    let listeners = Listeners::bind(&config).unwrap();
    let (legacy, neo) = (listeners.legacy_address().unwrap(), listeners.neo_address().unwrap());
    let mut credentials = Credentials::default();
    credentials.insert("test", ClientKey([0; KEY])).unwrap();
    let server = Server {
        config,
        engine: Rc::new(Map::default()),
        stats: Rc::new(NodeStats::new::<Map>()),
        credentials: Rc::new(RefCell::new(credentials)),
        clock: Arc::new(SystemClock),
    };
    let shutdown = Shutdown::new();
    let (done, thread) = (shutdown.clone(), nix::unistd::gettid().as_raw());
    let client = std::thread::spawn(move || {
        client(legacy, neo, Duration::from_secs(seconds), thread);
        done.request();
    });
    if arguments.iter().any(|argument| argument == "--local") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(server.run(listeners, &shutdown));
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(server.run(listeners, &shutdown)));
    }
    client.join().unwrap();
}
