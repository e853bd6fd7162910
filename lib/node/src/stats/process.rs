//! The process' own figures: `cpu_user cpu_system cpu_total vsz rss mem_percentage`.

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use tokio::time::Instant;

use super::Fields;

/// Measures this process from one line to the next.
#[derive(Debug)]
pub(crate) struct ProcessStats {
    before: Times,
    at: Instant,
    memory_total: Option<u64>,
}

/// Processor time that was used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Memory of the process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) virtual_size: u64,
    pub(crate) resident: u64,
}

impl ProcessStats {
    pub(crate) fn new() -> Self {
        let memory_total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text, "MemTotal:"));
        Self { before: times(), at: Instant::now(), memory_total }
    }

    /// Adds the group; a new interval begins.
    pub(crate) fn add_to(&mut self, fields: &mut Fields) {
        let (times, now) = (times(), Instant::now());
        let elapsed = now.duration_since(self.at).as_secs_f64();
        let percent = |after: Duration, before: Duration| {
            if elapsed > 0.0 { after.saturating_sub(before).as_secs_f64() / elapsed * 100.0 } else { 0.0 }
        };
        let (user, system) = (percent(times.user, self.before.user), percent(times.system, self.before.system));
        (self.before, self.at) = (times, now);
        let memory = memory();
        fields.float("cpu_user", user);
        fields.float("cpu_system", system);
        fields.float("cpu_total", user + system);
        fields.int("vsz", memory.virtual_size);
        fields.int("rss", memory.resident);
        fields.float("mem_percentage", self.memory_total.map_or(0.0, |total| share(memory.resident, total)));
    }
}

#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
fn share(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 / total as f64 * 100.0 }
}

pub(crate) fn times() -> Times {
    let duration = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    let of = |usage: Usage| Times { user: duration(usage.user_time()), system: duration(usage.system_time()) };
    getrusage(UsageWho::RUSAGE_SELF).map(of).unwrap_or_default()
}

pub(crate) fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key| kilobytes(&status, key).unwrap_or(0);
    Memory { virtual_size: of("VmSize:"), resident: of("VmRSS:") }
}

/// Memory that holds data and no file, in bytes; none where the system does not tell.
pub(crate) fn anonymous_memory() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// The value of a line `Key:   12 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let value: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    value.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let memory = memory();
        assert!(memory.resident > 1 << 20 && memory.virtual_size >= memory.resident, "{memory:?}");
        let mut fields = Fields::default();
        ProcessStats::new().add_to(&mut fields);
        let keys: Vec<_> = fields.entries().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["cpu_user", "cpu_system", "cpu_total", "vsz", "rss", "mem_percentage"]);
    }

    #[test]
    fn lines_of_proc_are_read() {
        let text = "MemTotal:       65807932 kB\nMemFree: x kB\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(65_807_932 * 1024));
        assert_eq!(kilobytes(text, "MemFree:"), None);
        assert_eq!(kilobytes(text, "Cached:"), None);
    }
}
