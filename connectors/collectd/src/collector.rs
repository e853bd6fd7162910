//! One tick: all readers in turn, into one batch.

use std::path::PathBuf;
use std::time::Duration;

use crate::batch::Batch;
use crate::config::Collect;
use crate::procfs::Roots;
use crate::read::cgroup::{Cgroup, Limits};
use crate::read::cpu::Cpu;
use crate::read::disk::Disks;
use crate::read::filesystem::{Filesystems, Fullness, Mounts};
use crate::read::memory::Memory;
use crate::read::network::Network;
use crate::read::system::{Load, Processes, SwapIo, Uptime};

/// Reads the host. The first tick has gauges only: a rate needs two.
#[derive(Debug)]
pub(crate) struct Collector<M> {
    collect: Collect,
    buffer: Vec<u8>,
    batch: Batch,
    cpu: Cpu,
    memory: Memory,
    swap_io: SwapIo,
    load: Load,
    filesystems: Filesystems<M>,
    disks: Disks,
    network: Network,
    uptime: Uptime,
    processes: Processes,
    cgroup: Option<Cgroup>,
    sys: PathBuf,
    /// When the tick before was, on the clock that never jumps.
    last: Option<Duration>,
}

/// What the thresholds look at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Readings {
    /// Processor time in use, in percent.
    pub(crate) cpu: Option<f64>,
    /// Memory that cannot be had, in percent.
    pub(crate) memory: Option<f64>,
    /// Load of the last minute per core.
    pub(crate) load_per_core: Option<f64>,
    /// The mounted disks.
    pub(crate) disks: Vec<Fullness>,
}

impl<M: Mounts> Collector<M> {
    pub(crate) fn new(roots: &Roots, collect: &Collect, mounts: M) -> Self {
        let Roots { proc, sys } = roots;
        Self {
            buffer: Vec::with_capacity(16 * 1024),
            batch: Batch::default(),
            cpu: Cpu::new(proc, collect.cpu_per_core),
            memory: Memory::new(proc),
            swap_io: SwapIo::new(proc),
            load: Load::new(proc),
            filesystems: Filesystems::new(mounts, collect.ignore_mounts.clone(), collect.list_mounts_every_s),
            disks: Disks::new(proc, sys, collect.ignore_disks.clone(), collect.partitions),
            network: Network::new(proc, collect.ignore_interfaces.clone()),
            uptime: Uptime::new(proc),
            processes: Processes::new(proc),
            cgroup: collect.container_limits.then(|| Cgroup::find(sys)).flatten(),
            sys: sys.clone(),
            collect: collect.clone(),
            last: None,
        }
    }

    /// The limits of the container, if there are any.
    pub(crate) fn limits(&self) -> Limits {
        self.cgroup.as_ref().map(Cgroup::limits).unwrap_or_default()
    }

    /// Reads everything once, at `now` of a clock that never jumps. The batch holds the samples.
    ///
    /// A part that cannot be read is missing from this tick and costs the others nothing.
    pub(crate) fn tick(&mut self, now: Duration) -> Readings {
        let (buffer, batch) = (&mut self.buffer, &mut self.batch);
        batch.clear();
        let elapsed = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last)).as_secs_f64();
        self.last = Some(now);
        let switches = &self.collect;
        let cores = self.cpu.cores();
        let limited_cpu = self.cgroup.as_mut().and_then(|cgroup| {
            // With the number of cores that the tick before found; limits are looked at from the second tick on.
            cgroup.cpu(buffer, batch, switches.cpu, (cores?, elapsed))
        });
        let is_limited =
            self.cgroup.as_ref().zip(cores).is_some_and(|(group, cores)| group.cpus_below(cores).is_some());
        let cpu = self.cpu.read(buffer, batch, switches.cpu && !is_limited);
        let limited_memory = self.cgroup.as_mut().and_then(|cgroup| cgroup.memory(buffer));
        let memory = self.memory.read(buffer, batch, (switches.memory, switches.swap), limited_memory);
        if switches.swap {
            self.swap_io.read(buffer, batch, elapsed);
        }
        let load = self.load.read(buffer, batch, switches.load);
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let disks = self.filesystems.read(batch, now_ms, switches.filesystems);
        if switches.disks {
            self.disks.read(buffer, batch, elapsed);
        }
        if switches.network {
            self.network.read(buffer, batch, elapsed);
        }
        if switches.uptime {
            self.uptime.read(buffer, batch);
        }
        if switches.processes {
            self.processes.read(batch, cpu, load, elapsed);
        }
        let cpus = self.cpus(cpu.map_or(0, |cpu| cpu.cores));
        Readings {
            cpu: if is_limited { limited_cpu } else { cpu.and_then(|cpu| cpu.active) },
            memory,
            load_per_core: load.filter(|_| cpus > 0.0).map(|load| load.shortterm / cpus),
            disks,
        }
    }

    /// Looks at the limits of the container again: they can be changed while it runs.
    pub(crate) fn refresh_limits(&mut self) {
        if self.collect.container_limits {
            match (&mut self.cgroup, Cgroup::find(&self.sys)) {
                (Some(known), Some(found)) => known.set_limits(found.limits()),
                (known, found) => *known = found,
            }
        }
    }

    pub(crate) const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The processors' worth of time that there is.
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 cores")]
    fn cpus(&self, cores: usize) -> f64 {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.cpus_below(cores)).unwrap_or(cores as f64)
    }
}

#[cfg(test)]
mod tests;
