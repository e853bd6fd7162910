//! Watches a node: engine and server.

use std::rc::Rc;
use std::sync::Arc;

use overstory_model::Millis;

use super::survey::{Entry, Survey};
use super::{Interval, LARGEST, LISTED, RequestCount, Snapshot, Subject, Traffic};
use crate::inspect::Inspect;
use crate::stats::{Fields, NodeStats, RequestCounters, groups};

/// An engine and the counters of its server.
pub(crate) struct NodeSubject<E> {
    engine: Rc<E>,
    stats: Rc<NodeStats>,
    connection_limit: u64,
    survey: Survey,
    largest: Arc<[Entry]>,
    /// Traffic of the intervals before.
    sent_before: u64,
    received_before: u64,
}

impl<E: Inspect> NodeSubject<E> {
    pub(crate) fn new(engine: Rc<E>, stats: Rc<NodeStats>, connection_limit: u64) -> Self {
        Self {
            engine,
            stats,
            connection_limit,
            survey: Survey::new(LARGEST),
            largest: Arc::default(),
            sent_before: 0,
            received_before: 0,
        }
    }
}

impl<E: Inspect> Subject for NodeSubject<E> {
    fn snapshot(&mut self, at: Millis, with_console: bool) -> Snapshot {
        if let Some(largest) = self.survey.step(&*self.engine) {
            self.largest = largest.into();
        }
        let stats = &self.stats;
        let mut findings = Vec::new();
        self.engine.checks(&mut findings);
        let mut gauges = Vec::new();
        self.engine.gauges(&mut gauges);
        let mut console = Vec::new();
        if with_console {
            self.engine.console(&mut console);
        }
        let traffic = Traffic {
            legacy_connections: stats.legacy_connections.get(),
            neo_connections: stats.neo_connections.get(),
            refused_connections: stats.refused_connections.get(),
            dropped_slow: stats.dropped_slow.get(),
            bytes_sent: self.sent_before.saturating_add(stats.bytes_sent.get()),
            bytes_received: self.received_before.saturating_add(stats.bytes_received.get()),
        };
        let count = |protocol| {
            move |request: &RequestCounters| RequestCount {
                protocol,
                name: request.spec.name,
                handled: request.handled_total.get(),
                active: request.active.get(),
            }
        };
        Snapshot {
            at,
            totals: self.engine.totals(),
            facts: self.engine.facts(),
            findings,
            gauges,
            console,
            traffic,
            requests: stats.legacy.iter().map(count("legacy")).chain(stats.neo.iter().map(count("neo"))).collect(),
            actions: stats.actions.iter().map(|action| (action.name, action.records_total.get())).collect(),
            largest: Arc::clone(&self.largest),
            ..Snapshot::default()
        }
    }

    async fn interval(&mut self, at: Millis) -> Interval {
        let lists = self.engine.lists_channels();
        let mut channels = Vec::new();
        if lists {
            let mut survey = Survey::new(LISTED);
            channels = loop {
                if let Some(channels) = survey.step(&*self.engine) {
                    break channels;
                }
                tokio::task::yield_now().await;
            };
        }
        let (mut head, mut tail, mut last) = (Fields::default(), Fields::default(), Fields::default());
        groups::head(&self.stats, self.connection_limit, lists.then(|| self.engine.totals()), &mut head);
        groups::tail(&self.stats, &mut tail);
        self.engine.more_stats(&mut tail);
        self.engine.last_stats(&mut last);
        self.sent_before = self.sent_before.saturating_add(self.stats.bytes_sent.get());
        self.received_before = self.received_before.saturating_add(self.stats.bytes_received.get());
        groups::reset(&self.stats);
        Interval { at, head, channels, tail, last }
    }
}
