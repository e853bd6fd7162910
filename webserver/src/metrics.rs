//! What the web server counts about itself.

use overstory_runtime::prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, Result};

/// The counters. Label sets are bounded: routes are patterns, never paths.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Answers by route, method and status.
    pub requests: IntCounterVec,
    /// Seconds from request to answer by route.
    pub seconds: HistogramVec,
    /// Events by what became of them: `sent`, `failed`, `retry`.
    pub events: IntCounterVec,
    /// Requests being answered.
    pub in_flight: IntGauge,
    /// Bytes that wait in the spool.
    pub spool_bytes: IntGauge,
    /// Whether the publisher is connected to the broker.
    pub broker_connected: IntGauge,
}

impl Metrics {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// A name is taken in `registry`.
    pub fn register(registry: &Registry) -> Result<Self> {
        let name = |name: &str| format!("overstory_webserver_{name}");
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(name("requests_total"), "answers by route, method and status"),
                &["route", "method", "status"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(name("request_seconds"), "seconds from request to answer").buckets(buckets),
                &["route"],
            )?,
            events: IntCounterVec::new(Opts::new(name("events_total"), "events by what became of them"), &["outcome"])?,
            in_flight: IntGauge::new(name("requests_in_flight"), "requests being answered")?,
            spool_bytes: IntGauge::new(name("spool_bytes"), "bytes of events that wait for the broker")?,
            broker_connected: IntGauge::new(name("broker_connected"), "whether the publisher is connected")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.spool_bytes.clone()))?;
        registry.register(Box::new(metrics.broker_connected.clone()))?;
        Ok(metrics)
    }
}
