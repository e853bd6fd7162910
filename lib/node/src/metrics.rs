//! `/metrics`: the node's figures for Prometheus. Labels are bounded: requests and actions are those of the program, and
//! of the channels only the largest are shown. A program that makes no dumps has no figures of them.

use std::sync::atomic::Ordering;

use overstory_runtime::prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result,
};

use crate::inspect::{DumpFacts, Gauge as Own};
use crate::report::health::Verdict;
use crate::report::sender::Sender;
use crate::stats::process;
use crate::watch::survey::Entry;
use crate::watch::{Identity, Phase, Snapshot};

/// Every metric of a node or tool.
#[derive(Debug)]
pub(crate) struct Metrics {
    up: IntGauge,
    state: IntGauge,
    findings: IntGaugeVec,
    records: IntGauge,
    bytes: IntGauge,
    memory: IntGauge,
    memory_limit: IntGauge,
    channels: IntGauge,
    load_rejected: IntGauge,
    /// When the last dump ended and whether well, from the first snapshot on that speaks of dumps.
    dumps: Option<[IntGauge; 2]>,
    /// The engine's own figures, by name.
    own: Vec<(&'static str, IntGauge)>,
    registry: Registry,
    connections: IntGaugeVec,
    refused: IntCounter,
    dropped: IntCounter,
    sent: IntCounter,
    received: IntCounter,
    requests: IntCounterVec,
    active: IntGaugeVec,
    actions: IntCounterVec,
    channel_bytes: IntGaugeVec,
    channel_records: IntGaugeVec,
    shown: Vec<Box<str>>,
    cpu: GaugeVec,
    resident: IntGauge,
    report: IntCounterVec,
    report_waiting: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, identity: &Identity) -> Result<Self> {
        let info_labels = ["program", "type", "instance", "version"];
        let info = GaugeVec::new(opts("info", "What this is; always 1."), &info_labels)?;
        let version = env!("CARGO_PKG_VERSION");
        info.with_label_values(&[identity.program, identity.kind, identity.instance.as_str(), version]).set(1.0);
        registry.register(Box::new(info))?;
        let limit = Gauge::with_opts(opts("connections_limit", "Connections that are accepted at most."))?;
        if let Some(connections) = identity.connection_limit {
            #[expect(clippy::cast_precision_loss, reason = "at most a million")]
            limit.set(connections as f64);
            registry.register(Box::new(limit))?;
        }
        let gauge = |name, help| gauge(registry, name, help);
        let counter = |name, help| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauges = |name, help, labels: &[&str]| {
            let gauges = IntGaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(gauges.clone())).map(|()| gauges)
        };
        let counters = |name, help, labels: &[&str]| {
            let counters = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(counters.clone())).map(|()| counters)
        };
        let cpu = GaugeVec::new(opts("cpu_seconds_total", "Processor time used."), &["mode"])?;
        registry.register(Box::new(cpu.clone()))?;
        Ok(Self {
            up: gauge("serving", "Whether requests are served.")?,
            state: gauge("state", "The worst finding: 0 ok, 1 minor, 2 major, 3 critical.")?,
            findings: gauges("finding_state", "What is found to be wrong, by check.", &["check"])?,
            records: gauge("stored_records", "Records stored.")?,
            bytes: gauge("stored_bytes", "Bytes of the records stored.")?,
            memory: gauge("memory_bytes", "Memory that the data takes.")?,
            memory_limit: gauge("memory_limit_bytes", "Memory that the data may take, 0 without a limit.")?,
            channels: gauge("channels", "Channels.")?,
            load_rejected: gauge("load_rejected_records", "Records rejected when the data was loaded.")?,
            dumps: None,
            own: Vec::new(),
            registry: registry.clone(),
            connections: gauges("connections", "Open connections.", &["protocol"])?,
            refused: counter("refused_connections_total", "Connections refused because of the limit.")?,
            dropped: counter("dropped_connections_total", "Clients dropped because they did not read.")?,
            sent: counter("sent_bytes_total", "Bytes written to clients.")?,
            received: counter("received_bytes_total", "Bytes read from clients.")?,
            requests: counters("requests_total", "Requests that ended.", &["protocol", "request"])?,
            active: gauges("active_requests", "Requests being handled.", &["protocol", "request"])?,
            actions: counters("records_total", "Records handled, by what was done with them.", &["action"])?,
            channel_bytes: gauges("channel_bytes", "Bytes stored in the largest channels.", &["channel"])?,
            channel_records: gauges("channel_records", "Records stored in the largest channels.", &["channel"])?,
            shown: Vec::new(),
            cpu,
            resident: gauge("resident_memory_bytes", "Memory of the process.")?,
            report: counters("report_events_total", "Events for the platform, by what became of them.", &["outcome"])?,
            report_waiting: gauge("report_spool_events", "Events that wait for the broker.")?,
        })
    }

    /// Takes over what a snapshot says.
    pub(crate) fn take(&mut self, snapshot: &Snapshot, verdict: &Verdict) {
        self.up.set((snapshot.phase == Phase::Running).into());
        self.state.set(u8::from(verdict.state).into());
        self.findings.reset();
        for finding in &verdict.findings {
            self.findings.with_label_values(&[finding.check]).set(u8::from(finding.state).into());
        }
        let (totals, facts, traffic) = (&snapshot.totals, &snapshot.facts, &snapshot.traffic);
        set(&self.records, totals.records);
        set(&self.bytes, totals.bytes);
        set(&self.memory, facts.memory);
        set(&self.memory_limit, facts.memory_limit.unwrap_or(0));
        set(&self.channels, facts.channels);
        set(&self.load_rejected, facts.load_rejected);
        if let Some(dump) = &facts.dump {
            self.dump(dump);
        }
        snapshot.gauges.iter().for_each(|gauge| self.own(gauge));
        set(&self.connections.with_label_values(&["legacy"]), traffic.legacy_connections);
        set(&self.connections.with_label_values(&["neo"]), traffic.neo_connections);
        raise(&self.refused, traffic.refused_connections);
        raise(&self.dropped, traffic.dropped_slow);
        raise(&self.sent, traffic.bytes_sent);
        raise(&self.received, traffic.bytes_received);
        for request in &snapshot.requests {
            let labels = [request.protocol, request.name];
            raise(&self.requests.with_label_values(&labels), request.handled);
            set(&self.active.with_label_values(&labels), request.active);
        }
        for (action, records) in &snapshot.actions {
            raise(&self.actions.with_label_values(&[action]), *records);
        }
        self.channels(&snapshot.largest);
    }

    fn dump(&mut self, dump: &DumpFacts) {
        if self.dumps.is_none() {
            let registry = &self.registry;
            let last = gauge(
                registry,
                "last_dump_timestamp_seconds",
                "When the last complete dump ended, 0 before the first.",
            );
            let ok = gauge(registry, "last_dump_ok", "Whether the last dump ended well, 1 before the first.");
            // The names are this module's own, so they are taken.
            self.dumps = last.ok().zip(ok.ok()).map(|(last, ok)| [last, ok]);
        }
        if let Some([last, ok]) = &self.dumps {
            last.set(dump.last.map_or(0, |at| at.0));
            ok.set(dump.last_ok.unwrap_or(true).into());
        }
    }

    fn own(&mut self, own: &Own) {
        if let Some((_, known)) = self.own.iter().find(|(name, _)| *name == own.name) {
            set(known, own.value);
        } else if let Ok(added) = gauge(&self.registry, own.name, own.help) {
            set(&added, own.value);
            self.own.push((own.name, added));
        }
    }

    fn channels(&mut self, largest: &[Entry]) {
        for gone in self.shown.iter().filter(|name| !largest.iter().any(|(kept, _)| kept == *name)) {
            // It was shown, so it is there.
            let _ = self.channel_bytes.remove_label_values(&[gone]);
            let _ = self.channel_records.remove_label_values(&[gone]);
        }
        self.shown = largest.iter().map(|(name, _)| name.clone()).collect();
        for (name, totals) in largest {
            set(&self.channel_bytes.with_label_values(&[name]), totals.bytes);
            set(&self.channel_records.with_label_values(&[name]), totals.records);
        }
    }

    /// Takes over what is the process' own, and what became of the report.
    pub(crate) fn refresh(&self, sender: Option<&Sender>) {
        let times = process::times();
        self.cpu.with_label_values(&["user"]).set(times.user.as_secs_f64());
        self.cpu.with_label_values(&["system"]).set(times.system.as_secs_f64());
        set(&self.resident, process::memory().resident);
        let Some(sender) = sender else { return };
        let sent = sender.sent();
        for (outcome, counter) in [
            ("confirmed", &sent.confirmed),
            ("spooled", &sent.spooled),
            ("failed", &sent.failed),
            ("dropped", &sent.dropped),
        ] {
            raise(&self.report.with_label_values(&[outcome]), counter.load(Ordering::Relaxed));
        }
        set(&self.report_waiting, sender.waiting());
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    let gauge = IntGauge::with_opts(opts(name, help))?;
    registry.register(Box::new(gauge.clone())).map(|()| gauge)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("overstory_node_{name}"), help)
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Brings a counter up to a total that only grows.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::State;
    use overstory_runtime::prometheus::TextEncoder;

    use super::*;
    use crate::inspect::{ChannelTotals, Finding};
    use crate::watch::{RequestCount, Traffic};

    #[test]
    fn metrics_follow_the_snapshots_and_channels_that_are_gone_are_gone() {
        let registry = Registry::new();
        let identity = Identity { program: "dhtnode", kind: "dht", instance: "dht-a".into(), ..Identity::default() };
        let mut metrics = Metrics::new(&registry, &identity).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let entry = |name: &str| (name.into(), ChannelTotals { bytes: 9, records: 1 });
        let mut snapshot = Snapshot {
            phase: Phase::Running,
            requests: vec![RequestCount { protocol: "neo", name: "Put", handled: 5, active: 1 }],
            traffic: Traffic { bytes_sent: 100, ..Traffic::default() },
            largest: [entry("a"), entry("b")].into(),
            ..Snapshot::default()
        };
        metrics.take(&snapshot, &Verdict { state: State::Ok, findings: Vec::new() });
        assert!(!text().contains("last_dump"));
        snapshot.facts.dump = Some(DumpFacts::default());
        snapshot.gauges.push(Own { name: "overflow_bytes", help: "Bytes on disk.", value: 77 });
        let bad = Finding { check: "memory", state: State::Major, text: String::new() };
        metrics.take(&snapshot, &Verdict { state: State::Major, findings: vec![bad] });
        metrics.refresh(None);
        let first = text();
        for line in [
            "overstory_node_requests_total{protocol=\"neo\",request=\"Put\"} 5",
            "overstory_node_sent_bytes_total 100",
            "overstory_node_channel_bytes{channel=\"a\"} 9",
            "overstory_node_finding_state{check=\"memory\"} 2",
            "overstory_node_serving 1",
            "overstory_node_last_dump_ok 1",
            "overstory_node_overflow_bytes 77",
        ] {
            assert!(first.contains(&format!("{line}\n")), "{line} is not in {first}");
        }
        snapshot.requests[0].handled = 7;
        snapshot.gauges[0].value = 78;
        snapshot.largest = [entry("b")].into();
        metrics.take(&snapshot, &Verdict { state: State::Ok, findings: Vec::new() });
        let second = text();
        assert!(second.contains("overstory_node_overflow_bytes 78\n"));
        assert!(second.contains("request=\"Put\"} 7\n") && !second.contains("channel=\"a\""));
        assert!(!second.contains("check=\"memory\""));
    }
}
