//! The counters of `stats.log`: plain cells, since everything that counts runs on the node's thread.

pub(crate) mod groups;
pub mod line;
pub(crate) mod process;

use std::cell::Cell;
use std::time::Duration;

pub use line::{Fields, Number};

/// Describes a request that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestSpec {
    /// The request's code on the wire.
    pub code: u8,
    /// Its name in `stats.log`.
    pub name: &'static str,
    /// Whether `stats.log` shows it.
    pub tracked: bool,
    /// Whether the time it takes is shown as well.
    pub timed: bool,
}

/// Upper bounds of the times that `stats.log` counts, the last one being open: 10 µs, 100 µs, 1 ms, 10 ms, 100 ms.
pub const TIME_BOUNDS: [Duration; 5] = [
    Duration::from_micros(10),
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
];

/// Counts one kind of request since the last line of `stats.log`.
#[derive(Debug)]
pub struct RequestCounters {
    /// Which one.
    pub spec: RequestSpec,
    /// Requests being handled now.
    pub active: Cell<u64>,
    /// The most that were handled at a time.
    pub max_active: Cell<u64>,
    /// Requests that ended.
    pub handled: Cell<u64>,
    /// Requests that ended since the node started.
    pub handled_total: Cell<u64>,
    /// The sum of their times in nanoseconds.
    pub nanos: Cell<u64>,
    /// How many took how long, by [`TIME_BOUNDS`].
    pub times: [Cell<u64>; 6],
}

impl RequestCounters {
    fn new(spec: RequestSpec) -> Self {
        let zero = || Cell::new(0);
        let times = std::array::from_fn(|_| Cell::new(0));
        Self { spec, active: zero(), max_active: zero(), handled: zero(), handled_total: zero(), nanos: zero(), times }
    }

    /// Counts a request that begins.
    pub fn begin(&self) {
        let active = self.active.get() + 1;
        self.active.set(active);
        self.max_active.set(self.max_active.get().max(active));
    }

    /// Counts a request that ends after `took`.
    pub fn end(&self, took: Duration) {
        self.active.set(self.active.get().saturating_sub(1));
        add(&self.handled, 1);
        add(&self.handled_total, 1);
        if self.spec.timed {
            self.time(took);
        }
    }

    #[inline]
    fn time(&self, took: Duration) {
        add(&self.nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let slot = TIME_BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(TIME_BOUNDS.len());
        if let Some(counter) = self.times.get(slot) {
            add(counter, 1);
        }
    }

    /// Counts a request that was answered at once and took `took`; the same as [`Self::begin`] and [`Self::end`].
    #[inline]
    pub fn once(&self, took: Duration) {
        let active = self.active.get() + 1;
        if active > self.max_active.get() {
            self.max_active.set(active);
        }
        self.handled.set(self.handled.get() + 1);
        self.handled_total.set(self.handled_total.get() + 1);
        if self.spec.timed {
            self.time(took);
        }
    }

    /// Begins a new interval.
    pub fn reset(&self) {
        self.max_active.set(self.active.get());
        self.handled.set(0);
        self.nanos.set(0);
        self.times.iter().for_each(|counter| counter.set(0));
    }
}

/// Counts what an engine did with records.
#[derive(Debug)]
pub struct ActionCounters {
    /// The action's name in `stats.log`.
    pub name: &'static str,
    /// Records since the last line.
    pub records: Cell<u64>,
    /// Bytes since the last line.
    pub bytes: Cell<u64>,
    /// Records since the start.
    pub records_total: Cell<u64>,
}

impl ActionCounters {
    /// Counts one record of so many bytes.
    pub fn add(&self, bytes: usize) {
        add(&self.records, 1);
        add(&self.records_total, 1);
        add(&self.bytes, bytes as u64);
    }
}

/// Every counter of a node. Shared by server and engine behind an `Rc`.
#[derive(Debug)]
pub struct NodeStats {
    /// Bytes written to clients since the last line.
    pub bytes_sent: Cell<u64>,
    /// Bytes read from clients since the last line.
    pub bytes_received: Cell<u64>,
    /// Open legacy connections.
    pub legacy_connections: Cell<u64>,
    /// Open neo connections.
    pub neo_connections: Cell<u64>,
    /// Connections refused, or closed to make room for others, because of the limit, since the start.
    pub refused_connections: Cell<u64>,
    /// Clients dropped because they did not read, since the start.
    pub dropped_slow: Cell<u64>,
    /// By [`crate::engine::Engine::LEGACY_REQUESTS`].
    pub legacy: Box<[RequestCounters]>,
    /// By [`crate::engine::Engine::NEO_REQUESTS`].
    pub neo: Box<[RequestCounters]>,
    /// By [`crate::engine::Engine::ACTIONS`].
    pub actions: Box<[ActionCounters]>,
}

impl NodeStats {
    /// Makes the counters of an engine.
    #[must_use]
    pub fn new<E: crate::engine::Engine>() -> Self {
        let requests = |specs: &[RequestSpec]| specs.iter().copied().map(RequestCounters::new).collect();
        let action = |name: &&'static str| ActionCounters {
            name,
            records: Cell::new(0),
            bytes: Cell::new(0),
            records_total: Cell::new(0),
        };
        Self {
            bytes_sent: Cell::new(0),
            bytes_received: Cell::new(0),
            legacy_connections: Cell::new(0),
            neo_connections: Cell::new(0),
            refused_connections: Cell::new(0),
            dropped_slow: Cell::new(0),
            legacy: requests(E::LEGACY_REQUESTS),
            neo: requests(E::NEO_REQUESTS),
            actions: E::ACTIONS.iter().map(action).collect(),
        }
    }
}

/// Adds to a counter.
pub fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().saturating_add(amount));
}
