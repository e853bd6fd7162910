//! `/proc/meminfo`: memory and swap.

use std::path::Path;

use super::percent;
use crate::batch::{Batch, Prefix};
use crate::procfs::KeptFile;
use crate::read::cgroup::MemoryUse;

/// Memory and swap.
#[derive(Debug)]
pub(crate) struct Memory {
    file: KeptFile,
    memory: Prefix,
    swap: Prefix,
}

#[derive(Debug, Default)]
struct Info {
    total: u64,
    free: u64,
    available: Option<u64>,
    buffered: u64,
    cached: u64,
    slab_reclaimable: u64,
    slab_unreclaimable: u64,
    swap_total: u64,
    swap_free: u64,
    swap_cached: u64,
}

impl Memory {
    pub(crate) fn new(proc: &Path) -> Self {
        Self {
            file: KeptFile::new(proc.join("meminfo")),
            memory: Prefix::new("memory", ""),
            swap: Prefix::new("swap", ""),
        }
    }

    /// Reads once and returns how much memory cannot be had, in percent.
    ///
    /// `limited` is what the container uses where its limit is below the host's memory.
    pub(crate) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        batch: &mut Batch,
        (show_memory, show_swap): (bool, bool),
        limited: Option<MemoryUse>,
    ) -> Option<f64> {
        let info = parse(self.file.read(buffer)?);
        let limited = limited.filter(|limited| limited.limit < info.total);
        if show_swap {
            self.show_swap(&info, batch);
        }
        let prefix = &self.memory;
        if let Some(limited) = limited {
            let used = limited.used.min(limited.limit);
            if show_memory {
                let cached = limited.cached.min(limited.limit - used);
                batch.count(prefix, "memory-limit", limited.limit);
                show(batch, prefix, limited.limit, ["memory-used", "percent-used"], used);
                show(batch, prefix, limited.limit, ["memory-cached", "percent-cached"], cached);
                show(batch, prefix, limited.limit, ["memory-free", "percent-free"], limited.limit - used - cached);
            }
            return percent(used, limited.limit);
        }
        let slab = info.slab_reclaimable + info.slab_unreclaimable;
        let used = info.total.saturating_sub(info.free + info.buffered + info.cached + slab);
        // Kernels before 3.14 do not say what is available.
        let available = info.available.unwrap_or(info.total.saturating_sub(used));
        if show_memory {
            for (names, bytes) in [
                (["memory-used", "percent-used"], used),
                (["memory-free", "percent-free"], info.free),
                (["memory-buffered", "percent-buffered"], info.buffered),
                (["memory-cached", "percent-cached"], info.cached),
                (["memory-slab_recl", "percent-slab_recl"], info.slab_reclaimable),
                (["memory-slab_unrecl", "percent-slab_unrecl"], info.slab_unreclaimable),
                (["memory-available", "percent-available"], available),
            ] {
                show(batch, prefix, info.total, names, bytes);
            }
        }
        percent(info.total.saturating_sub(available), info.total)
    }

    fn show_swap(&self, info: &Info, batch: &mut Batch) {
        let used = info.swap_total.saturating_sub(info.swap_free + info.swap_cached);
        for (names, bytes) in [
            (["swap-used", "percent-used"], used),
            (["swap-free", "percent-free"], info.swap_free),
            (["swap-cached", "percent-cached"], info.swap_cached),
        ] {
            show(batch, &self.swap, info.swap_total, names, bytes);
        }
    }
}

fn show(batch: &mut Batch, prefix: &Prefix, whole: u64, [bytes_name, percent_name]: [&'static str; 2], bytes: u64) {
    batch.count(prefix, bytes_name, bytes);
    if let Some(part) = percent(bytes, whole) {
        batch.gauge(prefix, percent_name, part);
    }
}

fn parse(text: &str) -> Info {
    let mut info = Info::default();
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let number = || rest.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        let bytes = || number().unwrap_or(0).saturating_mul(1024);
        match key {
            "MemTotal" => info.total = bytes(),
            "MemFree" => info.free = bytes(),
            "MemAvailable" => info.available = Some(bytes()),
            "Buffers" => info.buffered = bytes(),
            "Cached" => info.cached = bytes(),
            "SReclaimable" => info.slab_reclaimable = bytes(),
            "SUnreclaim" => info.slab_unreclaimable = bytes(),
            "SwapTotal" => info.swap_total = bytes(),
            "SwapFree" => info.swap_free = bytes(),
            "SwapCached" => info.swap_cached = bytes(),
            _ => {}
        }
    }
    info
}
