//! The processor on which a node's thread runs (`[Server] cpu`).

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::config::{Config, ConfigError};

/// The number of a processor, counted from 0; none: any.
pub type Cpu = Option<usize>;

/// Reads `[Server] cpu`.
///
/// # Errors
/// It is no number of a processor.
pub fn read(config: &Config) -> Result<Cpu, ConfigError> {
    Ok(usize::try_from(config.section("Server").number("cpu", -1, -1..=1023)?).ok())
}

/// Keeps the calling thread, and those that it starts from now on, on one processor. Threads that are there already
/// stay free.
///
/// # Errors
/// The process may not run there.
pub fn pin(cpu: Cpu) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("[Server] cpu = {cpu}: cannot run on that processor"))
}
