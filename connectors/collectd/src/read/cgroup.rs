//! The limits of a container, and what it uses of them.
//!
//! Only the top of the control groups that this process sees is looked at. On a machine that is the root, which has no
//! limits; in a container it is the container's own group. Limits of the connector's service unit do not count: it
//! watches the host, not itself.

use std::path::{Path, PathBuf};

use crate::batch::{Batch, Prefix};
use crate::procfs::{KeptFile, read_small};

/// Larger than any memory: how version 1 says that there is no limit.
const UNLIMITED: u64 = 1 << 60;

/// The limits, read once at start and again now and then.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    /// Processors' worth of time.
    pub(crate) cpus: Option<f64>,
    /// Bytes of memory.
    pub(crate) memory: Option<u64>,
}

/// What a container uses of its memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MemoryUse {
    /// Its limit in bytes.
    pub(crate) limit: u64,
    /// Bytes that cannot be had by giving up file pages.
    pub(crate) used: u64,
    /// Bytes of file pages.
    pub(crate) cached: u64,
}

/// The control group of this container.
#[derive(Debug)]
pub(crate) struct Cgroup {
    limits: Limits,
    cpu_use: KeptFile,
    memory_use: KeptFile,
    memory_stat: KeptFile,
    prefix: Prefix,
    /// Microseconds used in all, as user and as system, at the tick before.
    last: Option<[u64; 3]>,
}

impl Cgroup {
    /// Looks for limits below `sys`; none when there are none.
    pub(crate) fn find(sys: &Path) -> Option<Self> {
        let root = sys.join("fs/cgroup");
        let v2 = root.join("cgroup.controllers").exists();
        let limits = if v2 { limits_v2(&root) } else { limits_v1(&root) };
        let (cpu_use, memory_use, memory_stat) = if v2 {
            (root.join("cpu.stat"), root.join("memory.current"), root.join("memory.stat"))
        } else {
            let memory = root.join("memory");
            (v1_cpu_use(&root), memory.join("memory.usage_in_bytes"), memory.join("memory.stat"))
        };
        (limits != Limits::default()).then(|| Self {
            limits,
            cpu_use: KeptFile::new(cpu_use),
            memory_use: KeptFile::new(memory_use),
            memory_stat: KeptFile::new(memory_stat),
            prefix: Prefix::new("cpu", ""),
            last: None,
        })
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    /// What the container uses of its memory; none without a limit.
    pub(crate) fn memory(&mut self, buffer: &mut Vec<u8>) -> Option<MemoryUse> {
        let limit = self.limits.memory?;
        let current = self.memory_use.read(buffer)?.trim().parse::<u64>().ok()?;
        let stat = self.memory_stat.read(buffer)?;
        let field = |names: &[&str]| {
            let lines = stat.lines().filter_map(|line| line.split_once(' '));
            lines.filter(|(key, _)| names.contains(key)).filter_map(|(_, value)| value.parse::<u64>().ok()).next()
        };
        // Version 1 counts the groups below in its totals only.
        let cached = field(&["total_cache"]).or_else(|| field(&["file"])).or_else(|| field(&["cache"])).unwrap_or(0);
        Some(MemoryUse { limit, used: current.saturating_sub(cached), cached: cached.min(current) })
    }

    /// Shows the shares of the container's processor time; returns how much of it was used, in percent.
    ///
    /// None without a limit below the host's `cores`, and at the first reading.
    pub(crate) fn cpu(
        &mut self,
        buffer: &mut Vec<u8>,
        batch: &mut Batch,
        show: bool,
        (cores, seconds): (usize, f64),
    ) -> Option<f64> {
        let cpus = self.cpus_below(cores)?;
        let text = self.cpu_use.read(buffer)?;
        let now = match text.split_once("usage_usec ") {
            Some(_) => ["usage_usec", "user_usec", "system_usec"].map(|key| field_of(text, key)),
            // Version 1 has nanoseconds in all and no more.
            None => [text.trim().parse::<u64>().ok()? / 1000, 0, 0],
        };
        let last = self.last.replace(now).filter(|_| seconds > 0.0)?;
        #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more digits than f64 has")]
        let share = |field: usize| {
            let used = now[field].saturating_sub(last[field]) as f64;
            (used / 1e6 / (seconds * cpus) * 100.0).clamp(0.0, 100.0)
        };
        let active = share(0);
        if !show {
            return Some(active);
        }
        batch.gauge(&self.prefix, "percent-active", active);
        batch.gauge(&self.prefix, "percent-idle", 100.0 - active);
        if now[1] + now[2] > 0 {
            batch.gauge(&self.prefix, "percent-user", share(1));
            batch.gauge(&self.prefix, "percent-system", share(2));
        }
        batch.gauge(&self.prefix, "count-limit", cpus);
        Some(active)
    }

    /// The limit in processors, if it is below the host's.
    pub(crate) fn cpus_below(&self, cores: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 cores")]
        self.limits.cpus.filter(|cpus| *cpus < cores as f64)
    }
}

fn limits_v2(root: &Path) -> Limits {
    let cpu = read_small(&root.join("cpu.max"));
    let cpus = cpu.as_deref().and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        share_of(quota.parse().ok()?, period.parse().ok()?)
    });
    let memory = read_small(&root.join("memory.max")).and_then(|text| text.trim().parse().ok());
    Limits { cpus, memory }
}

fn limits_v1(root: &Path) -> Limits {
    let number = |path: &Path| read_small(path).and_then(|text| text.trim().parse::<i64>().ok());
    let cpu = v1_cpu(root);
    let quota = number(&cpu.join("cpu.cfs_quota_us")).zip(number(&cpu.join("cpu.cfs_period_us")));
    let memory = read_small(&root.join("memory/memory.limit_in_bytes")).and_then(|text| text.trim().parse().ok());
    Limits {
        cpus: quota.and_then(|(quota, period)| share_of(quota, period)),
        memory: memory.filter(|bytes| *bytes < UNLIMITED),
    }
}

fn v1_cpu(root: &Path) -> PathBuf {
    ["cpu", "cpu,cpuacct"].map(|name| root.join(name)).into_iter().find(|path| path.exists()).unwrap_or_default()
}

fn v1_cpu_use(root: &Path) -> PathBuf {
    let places = ["cpuacct", "cpu,cpuacct"].map(|name| root.join(name).join("cpuacct.usage"));
    places.into_iter().find(|path| path.exists()).unwrap_or_default()
}

fn share_of(quota: i64, period: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a period, far below 2^53")]
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

fn field_of(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
