//! What the connector tells about itself on `/metrics`.

use overstory_runtime::prometheus::{
    Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// The connector's own metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Ticks taken.
    pub(crate) ticks: IntCounter,
    /// How long a tick took to read and write down.
    pub(crate) tick_seconds: Histogram,
    /// Samples of the latest tick.
    pub(crate) samples: IntGauge,
    /// Samples that found no room in their event.
    pub(crate) samples_dropped: IntCounter,
    /// Events by outcome: `confirmed`, `spooled`, `failed`, `dropped`.
    pub(crate) events: IntCounterVec,
    /// Messages in the spool.
    pub(crate) spool_messages: IntGauge,
    /// 1 while the broker is connected.
    pub(crate) connected: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let metrics = Self {
            ticks: IntCounter::new("overstory_collectd_ticks_total", "Ticks taken")?,
            tick_seconds: Histogram::with_opts(
                HistogramOpts::new("overstory_collectd_tick_seconds", "Time to read the host and write it down")
                    .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0]),
            )?,
            samples: IntGauge::new("overstory_collectd_samples", "Samples of the latest tick")?,
            samples_dropped: IntCounter::new("overstory_collectd_samples_dropped_total", "Samples without room")?,
            events: IntCounterVec::new(
                Opts::new("overstory_collectd_events_total", "Events by what became of them"),
                &["outcome"],
            )?,
            spool_messages: IntGauge::new("overstory_collectd_spool_messages", "Events that wait on the disk")?,
            connected: IntGauge::new("overstory_collectd_broker_connected", "1 while the broker is connected")?,
        };
        registry.register(Box::new(metrics.ticks.clone()))?;
        registry.register(Box::new(metrics.tick_seconds.clone()))?;
        registry.register(Box::new(metrics.samples.clone()))?;
        registry.register(Box::new(metrics.samples_dropped.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.spool_messages.clone()))?;
        registry.register(Box::new(metrics.connected.clone()))?;
        Ok(metrics)
    }
}
