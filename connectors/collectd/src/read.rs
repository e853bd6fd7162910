//! The readers: one per part of the host, each keeping what it needs to turn counts into rates.

pub(crate) mod cgroup;
pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod disk;
pub(crate) mod filesystem;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod system;

use overstory_model::Millis;
use overstory_model::collectd::{Last, rate};
use overstory_model::metric::MetricKind;

/// The rate per second of a count of the kernel over `seconds`; none after a restart of the count.
pub(crate) fn per_second(before: u64, after: u64, seconds: f64) -> Option<f64> {
    let last = Last { at: Millis(0), count: before.into(), rate: None };
    let step = rate(Some(&last), MetricKind::Counter, (Millis(1000), after.into()), Some(0.0), None)?;
    (seconds > 0.0).then(|| step / seconds)
}

/// `part` of `whole` in percent; none of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more digits than f64 has")]
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}
