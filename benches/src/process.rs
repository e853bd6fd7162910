//! What a process has used: CPU to the microsecond, and memory.

use std::time::{Duration, Instant};

use anyhow::Context;

/// What a number of requests cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The server's CPU per request.
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
}

/// Measures a process from here to [`Meter::cost`].
pub(crate) struct Meter {
    pid: u32,
    cpu: Duration,
    began: Instant,
}

impl Meter {
    pub(crate) fn start(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { pid, cpu: cpu(pid)?, began: Instant::now() })
    }

    pub(crate) fn cost(&self, requests: usize) -> anyhow::Result<Cost> {
        let took = self.began.elapsed().as_secs_f64();
        let cpu = (cpu(self.pid)? - self.cpu).as_secs_f64();
        let requests = requests as f64;
        Ok(Cost { cpu_us: cpu * 1e6 / requests, per_second: requests / took })
    }
}

/// The CPU time that all threads of `pid` have used so far.
///
/// From the scheduler's own account: the times in `/proc/PID/stat` count in ticks of 10 ms and miss short bursts.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The most memory that `pid` ever had resident, in bytes.
pub(crate) fn peak_rss(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// The memory that `pid` has resident now, shared pages counted in part, in bytes.
pub(crate) fn pss(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kilobytes(file: &str, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("{file} has no {key}"))?;
    let number = line.split_whitespace().next().context("no number")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// Waits a moment between two looks at a condition with a deadline.
#[expect(clippy::disallowed_methods, reason = "another process cannot be waited for otherwise")]
pub(crate) fn pause(moment: Duration) {
    std::thread::sleep(moment);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() -> anyhow::Result<()> {
        let pid = std::process::id();
        assert!(cpu(pid)? > Duration::ZERO);
        assert!(pss(pid)? > 0 && peak_rss(pid)? >= pss(pid)?);
        Ok(())
    }
}
