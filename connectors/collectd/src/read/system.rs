//! Load, uptime, the number of processes and the traffic of the swap space.

use std::fs;
use std::path::{Path, PathBuf};

use super::cpu::CpuReading;
use super::per_second;
use crate::batch::{Batch, Prefix};
use crate::procfs::{KeptFile, next_number};

/// `/proc/loadavg`.
#[derive(Debug)]
pub(crate) struct Load {
    file: KeptFile,
    load: Prefix,
}

/// What the load file tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadReading {
    /// The mean of the last minute.
    pub(crate) shortterm: f64,
    /// Threads that there are.
    pub(crate) threads: Option<u64>,
}

impl Load {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { file: KeptFile::new(proc.join("loadavg")), load: Prefix::new("load", "") }
    }

    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch, show: bool) -> Option<LoadReading> {
        let mut words = self.file.read(buffer)?.split_ascii_whitespace();
        let mut shortterm = None;
        for name in ["load/shortterm", "load/midterm", "load/longterm"] {
            let mean = words.next()?.parse::<f64>().ok().filter(|mean| mean.is_finite())?;
            shortterm.get_or_insert(mean);
            if show {
                batch.gauge(&self.load, name, mean);
            }
        }
        let threads = words.next().and_then(|counts| counts.split_once('/')?.1.parse().ok());
        Some(LoadReading { shortterm: shortterm?, threads })
    }
}

/// `/proc/uptime`.
#[derive(Debug)]
pub(crate) struct Uptime {
    file: KeptFile,
    prefix: Prefix,
}

impl Uptime {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { file: KeptFile::new(proc.join("uptime")), prefix: Prefix::new("uptime", "") }
    }

    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch) {
        let Some(text) = self.file.read(buffer) else { return };
        // Whole seconds, as collectd counts them.
        if let Some(seconds) = text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok()) {
            batch.count(&self.prefix, "uptime", seconds);
        }
    }
}

/// The processes of the host.
#[derive(Debug)]
pub(crate) struct Processes {
    directory: PathBuf,
    prefix: Prefix,
    forks: Option<u64>,
}

impl Processes {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { directory: proc.to_owned(), prefix: Prefix::new("processes", ""), forks: None }
    }

    pub(crate) fn read(&mut self, batch: &mut Batch, cpu: Option<CpuReading>, load: Option<LoadReading>, elapsed: f64) {
        if let Ok(entries) = fs::read_dir(&self.directory) {
            let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
            let count = entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_process(&entry.file_name())));
            batch.count(&self.prefix, "ps_count/processes", count.count() as u64);
        }
        if let Some(threads) = load.and_then(|load| load.threads) {
            batch.count(&self.prefix, "ps_count/threads", threads);
        }
        if let Some(cpu) = cpu {
            batch.count(&self.prefix, "ps_state-running", cpu.running);
            batch.count(&self.prefix, "ps_state-blocked", cpu.blocked);
            let last = self.forks.replace(cpu.forks);
            batch.rate(&self.prefix, "fork_rate", last.and_then(|last| per_second(last, cpu.forks, elapsed)));
        }
    }
}

/// `/proc/vmstat`: pages that went to and from the swap space.
#[derive(Debug)]
pub(crate) struct SwapIo {
    file: KeptFile,
    prefix: Prefix,
    last: Option<[u64; 2]>,
}

impl SwapIo {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { file: KeptFile::new(proc.join("vmstat")), prefix: Prefix::new("swap", ""), last: None }
    }

    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, batch: &mut Batch, elapsed: f64) {
        let Some(text) = self.file.read(buffer) else { return };
        // The file is long and the two lines are neighbours: no other line is looked into.
        let Some((_, text)) = text.split_once("\npswpin ") else { return };
        let mut words = text.split_ascii_whitespace();
        let pages_in = next_number(&mut words);
        if words.next() != Some("pswpout") {
            return;
        }
        let now = [pages_in, next_number(&mut words)];
        if let Some(last) = self.last.replace(now) {
            batch.rate(&self.prefix, "swap_io-in", per_second(last[0], now[0], elapsed));
            batch.rate(&self.prefix, "swap_io-out", per_second(last[1], now[1], elapsed));
        }
    }
}
