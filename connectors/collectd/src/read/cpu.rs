//! `/proc/stat`: what the processors did, in total and by core, and what the scheduler has to do.

use std::path::Path;

use super::percent;
use crate::batch::{Batch, Prefix};
use crate::procfs::{KeptFile, next_number};

/// The states in the order of the file; time of guests is part of `user` and `nice` already.
const STATES: [&str; 8] = [
    "percent-user",
    "percent-nice",
    "percent-system",
    "percent-idle",
    "percent-wait",
    "percent-interrupt",
    "percent-softirq",
    "percent-steal",
];
const IDLE: usize = 3;
const WAIT: usize = 4;
/// More cores than this are counted but not shown one by one.
const MAX_CORES: usize = 1024;

type Ticks = [u64; STATES.len()];

/// The processors.
#[derive(Debug)]
pub(crate) struct Cpu {
    file: KeptFile,
    per_core: bool,
    prefix: Prefix,
    total: Option<Ticks>,
    cores: Vec<Core>,
    /// How many processors were on line at the latest reading.
    online: Option<usize>,
}

#[derive(Debug)]
struct Core {
    number: usize,
    prefix: Prefix,
    last: Ticks,
}

/// What else the file tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct CpuReading {
    /// How busy all processors together were, in percent; none at the first reading.
    pub(crate) active: Option<f64>,
    /// How many processors are on line.
    pub(crate) cores: usize,
    /// Processes that want to run.
    pub(crate) running: u64,
    /// Processes that wait for a device.
    pub(crate) blocked: u64,
    /// Processes that were ever started.
    pub(crate) forks: u64,
}

impl Cpu {
    pub(crate) fn new(proc: &Path, per_core: bool) -> Self {
        Self {
            file: KeptFile::new(proc.join("stat")),
            per_core,
            prefix: Prefix::new("cpu", ""),
            total: None,
            cores: Vec::new(),
            online: None,
        }
    }

    /// Reads once; `show` is false where a limit of the container makes the host's shares meaningless.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch, show: bool) -> Option<CpuReading> {
        let text = self.file.read(buffer)?;
        let mut reading = CpuReading::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            match key {
                "cpu" => {
                    let now = ticks(&mut words);
                    reading.active = self.total.and_then(|last| show_states(last, now, &self.prefix, batch, show));
                    self.total = Some(now);
                }
                "processes" => reading.forks = next_number(&mut words),
                "procs_running" => reading.running = next_number(&mut words),
                "procs_blocked" => reading.blocked = next_number(&mut words),
                _ => {
                    let Some(number) = key.strip_prefix("cpu").and_then(|number| number.parse().ok()) else { continue };
                    reading.cores += 1;
                    if self.per_core && reading.cores <= MAX_CORES {
                        show_core(&mut self.cores, number, ticks(&mut words), batch);
                    }
                }
            }
        }
        self.online = Some(reading.cores);
        Some(reading)
    }

    /// How many processors were on line at the latest reading.
    pub(crate) const fn cores(&self) -> Option<usize> {
        self.online
    }
}

fn ticks<'a>(words: &mut impl Iterator<Item = &'a str>) -> Ticks {
    std::array::from_fn(|_| next_number(words))
}

fn show_core(cores: &mut Vec<Core>, number: usize, now: Ticks, batch: &mut Batch) {
    if let Some(core) = cores.iter_mut().find(|core| core.number == number) {
        show_states(core.last, now, &core.prefix, batch, true);
        core.last = now;
    } else if cores.len() < MAX_CORES {
        cores.push(Core { number, prefix: Prefix::new("cpu", &number.to_string()), last: now });
    }
}

/// Shows the share of each state and returns that of all but idling and waiting; none if no time passed.
fn show_states(last: Ticks, now: Ticks, prefix: &Prefix, batch: &mut Batch, show: bool) -> Option<f64> {
    // The kernel's idle and wait times may step back a little.
    let spent: Ticks = std::array::from_fn(|state| now[state].saturating_sub(last[state]));
    let whole = spent.iter().sum();
    let active = percent(whole - spent[IDLE] - spent[WAIT], whole)?;
    if show {
        batch.gauge(prefix, "percent-active", active);
        for (name, spent) in STATES.into_iter().zip(spent) {
            batch.rate(prefix, name, percent(spent, whole));
        }
    }
    Some(active)
}
