//! What the hot paths cost: no allocation for a neo Put or Get, and figures of an optimised build.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use overstory_dht::engine::{DhtEngine, EngineSettings, Hooks};
use overstory_dht::storage::Store;
use overstory_node::engine::{Begun, Engine, NeoRequest, Peer, Produced};
use overstory_node::stats::NodeStats;
use overstory_node::wake::Waker;
use overstory_swarm::key::{HashRange, Key};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dht::{GetAll, Request as Neo};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct NoHooks;

impl Hooks for NoHooks {
    fn save_range(&self, _: HashRange) -> Result<(), String> {
        Ok(())
    }

    fn channel_removed(&self, _: &str) {}
}

const RECORDS: u64 = 200_000;

struct Rig {
    engine: DhtEngine,
    peer: Peer,
    waker: Waker,
    out: Vec<u8>,
    payload: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 21_000);
        let settings =
            EngineSettings { address, range: HashRange::FULL, batch_size: 65_536, redist_memory_limit_multiplier: 1.1 };
        let stats = Rc::new(NodeStats::new::<DhtEngine>());
        let engine = DhtEngine::new(Store::new(0), settings, stats, Box::new(NoHooks));
        let peer = Peer { address, name: "test".into() };
        Self { engine, peer, waker: Waker::noop(), out: Vec::with_capacity(1 << 20), payload: Vec::new() }
    }

    fn ask(&mut self, request: &Neo<'_>) -> Begun {
        self.payload.clear();
        self.out.clear();
        request.encode(&mut self.payload);
        let request = NeoRequest {
            code: self.payload[0],
            version: self.payload[1],
            payload: &self.payload[2..],
            peer: &self.peer,
            waker: &self.waker,
        };
        self.engine.neo(request, &mut Replies::new(&mut self.out, 1))
    }

    fn put(&mut self, number: u64) {
        let value = value(number);
        assert!(matches!(self.ask(&Neo::Put { channel: b"channel", key: key(number), value: &value }), Begun::Done));
        assert_eq!(self.out.last(), Some(&1));
    }

    fn get(&mut self, number: u64) {
        assert!(matches!(self.ask(&Neo::Get { channel: b"channel", key: key(number) }), Begun::Done));
        assert_eq!(self.out[self.out.len() - 100..], value(number));
    }
}

fn key(number: u64) -> Key {
    Key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Half of it repeats, half of it does not.
fn value(number: u64) -> [u8; 100] {
    let mut value = *b"{\"name\":\"a record of a hundred bytes\",\"state\":0,\"seen\":                                             ";
    value[55..].iter_mut().enumerate().for_each(|(at, byte)| {
        *byte = b'a' + u8::try_from((number.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (at % 50)) % 26).unwrap();
    });
    value
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn puts_over_a_record_and_gets_allocate_nothing() {
    let mut rig = Rig::new();
    (0..10_000).for_each(|number| rig.put(number));
    (0..10_000).for_each(|number| rig.get(number));
    let count = allocations(|| {
        (0..10_000).for_each(|number| rig.put(number));
        (0..10_000).for_each(|number| rig.get(number));
    });
    assert_eq!(count, 0);
}

/// Prints figures; in an optimised build it holds them against the bounds.
#[test]
fn requests_and_iterations_cost_what_they_may() {
    let mut rig = Rig::new();
    let each = |took: Duration, count: u64| took.as_secs_f64() / f64::from(u32::try_from(count).unwrap()) * 1e6;
    let begun = Instant::now();
    (0..RECORDS).for_each(|number| rig.put(number));
    let put = each(begun.elapsed(), RECORDS);
    let begun = Instant::now();
    (0..RECORDS).for_each(|number| rig.get(number));
    let get = each(begun.elapsed(), RECORDS);

    let all = GetAll { start_suspended: false, channel: b"channel", after: None, keys_only: false, filter: b"" };
    let begun = Instant::now();
    let Begun::Stream(mut stream) = rig.ask(&Neo::GetAll(all)) else { panic!("a stream") };
    let mut bytes = 0;
    loop {
        rig.out.clear();
        let produced = stream.produce(&mut Replies::new(&mut rig.out, 1));
        bytes += rig.out.len();
        if produced != Produced::More {
            break;
        }
    }
    let iterate = each(begun.elapsed(), RECORDS);
    println!("put {put:.3} us, get {get:.3} us, iteration {iterate:.3} us per record ({bytes} bytes)");
    assert!(bytes > 1000);
    if !cfg!(debug_assertions) {
        assert!(iterate <= 0.5, "{iterate} us per iterated record");
        assert!(put <= 1.5 && get <= 1.0, "put {put} us, get {get} us");
    }
}
