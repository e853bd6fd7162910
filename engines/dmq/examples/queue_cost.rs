//! Measures what the queues cost without network and disk.
//!
//! `cargo run --release -p overstory-dmq --example queue_cost`. Each figure is the best of some rounds, in nanoseconds
//! for a record of 100 bytes.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use std::hint::black_box;
use std::time::Instant;

use overstory_dmq::ring::Ring;
use overstory_dmq::store::{Options, Sizes, Store};
use overstory_node::wake::Waker;

const ROUNDS: usize = 20;
const RECORDS: usize = 1_000_000;
const RECORD: [u8; 100] = [7; 100];

fn main() {
    measure("ring: push, filling it", Ring::new, fill_ring);
    measure("ring: pop, emptying it", full_ring, |ring| {
        for _ in 0..RECORDS {
            black_box(ring.front());
            ring.pop();
        }
    });
    measure("ring: take of 64 KiB, emptying it", full_ring, |ring| {
        let mut out = Vec::with_capacity(1 << 17);
        while ring.take(64 * 1024, &mut out).records > 0 {
            black_box(&out);
            out.clear();
        }
    });
    measure(
        "ring: push and pop, 64 in it",
        || part_of_ring(64),
        |ring| {
            for _ in 0..RECORDS {
                ring.push(black_box(&RECORD));
                black_box(ring.front());
                ring.pop();
            }
        },
    );
    measure("store: push, one channel", || store(1), |store| fill(store, 1));
    measure("store: push, 10,000 channels", || store(10_000), |store| fill(store, 10_000));
    measure("store: pop, one channel", || full(1), |store| empty(store, 1));
    measure("store: pop, 10,000 channels", || full(10_000), |store| empty(store, 10_000));
    for redeliver in [false, true] {
        let full = || {
            let mut store = new_store(redeliver);
            fill(&mut store, 1);
            store
        };
        let name = format!("store: take of 64 KiB and accept, redelivery {}", if redeliver { "on" } else { "off" });
        measure(&name, full, |store| {
            let queue = store.subscribe("channel-0", "").unwrap();
            let consumer = store.join(queue, Waker::noop());
            let mut out = Vec::with_capacity(1 << 17);
            while let Some(taken) = store.take(queue, consumer, 64 * 1024, &mut out) {
                store.accept(taken);
                black_box(&out);
                out.clear();
            }
        });
    }
    let mut store = new_store(false);
    for number in 0..10_000 {
        store.push(&format!("channel-{number}"), &RECORD[..16]).unwrap();
    }
    println!("{:>7} bytes of memory for a channel with one record of 16 bytes", store.memory() / 10_000);
}

fn measure<T>(what: &str, make: impl Fn() -> T, run: impl Fn(&mut T)) {
    let round = || {
        let mut state = make();
        let begin = Instant::now();
        run(&mut state);
        begin.elapsed().as_secs_f64() * 1e9 / RECORDS as f64
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{best:7.1} ns  {what}");
}

fn fill_ring(ring: &mut Ring) {
    for _ in 0..RECORDS {
        ring.push(black_box(&RECORD));
    }
}

fn full_ring() -> Ring {
    let mut ring = Ring::new();
    fill_ring(&mut ring);
    ring
}

fn part_of_ring(records: usize) -> Ring {
    let mut ring = Ring::new();
    (0..records).for_each(|_| ring.push(&RECORD));
    ring
}

fn new_store(redeliver: bool) -> Store {
    Store::new(Options { sizes: Sizes { default: 1 << 30, by_prefix: Vec::new() }, redeliver }, None)
}

/// A store with empty channels.
fn store(channels: usize) -> Store {
    let mut store = new_store(false);
    names(channels).iter().for_each(|name| store.create_channel(name).unwrap());
    store
}

fn names(channels: usize) -> Vec<String> {
    (0..channels).map(|number| format!("channel-{number}")).collect()
}

fn full(channels: usize) -> Store {
    let mut store = store(channels);
    fill(&mut store, channels);
    store
}

fn fill(store: &mut Store, channels: usize) {
    let names = names(channels);
    for at in 0..RECORDS {
        store.push(&names[at % channels], black_box(&RECORD)).unwrap();
    }
}

fn empty(store: &mut Store, channels: usize) {
    let names = names(channels);
    for at in 0..RECORDS {
        store.pop(&names[at % channels], &mut |record| {
            black_box(record);
        });
    }
}
