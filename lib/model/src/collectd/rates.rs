//! From counts to rates per second, one series at a time, in bounded memory.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use super::{DataValue, Format, Reading, ValueList, unit_of};
use crate::clock::Millis;
use crate::metric::{MetricKind, Sample};
use crate::perf::MAX_NAME;

/// How long a host counts as one that sends rates after it sent a number that can be nothing else.
const RATES_REMEMBERED: Duration = Duration::from_secs(600);
/// The most hosts whose way of sending counts is remembered.
const MAX_HOSTS: usize = 20_000;

/// The latest count of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Last {
    /// When it was read.
    pub at: Millis,
    /// The count.
    pub count: i128,
    /// The rate that was made of it.
    pub rate: Option<f64>,
}

/// Makes the rate per second that a count stands for, given the one before it.
///
/// * `DERIVE`: the difference; one that brings the rate below `min` is a restart of the source and gives no rate.
/// * `COUNTER`: the difference; a smaller count is a wrap around 2^32 or 2^64 when the step across the border is less
///   than a quarter of the range, else a restart, which gives no rate.
/// * `ABSOLUTE`: the count itself, over the time since the one before it, or over `interval` when it is the first.
/// * A gauge has no rate.
///
/// The same reading again (a message delivered twice) gives the same rate again. A reading that is not newer than the
/// one before gives none; the caller keeps it as the new base, so that a clock that was set back costs one rate.
#[must_use]
pub fn rate(
    last: Option<&Last>,
    kind: MetricKind,
    (at, count): (Millis, i128),
    min: Option<f64>,
    interval: Option<Duration>,
) -> Option<f64> {
    let seconds = match last {
        Some(last) if last.at == at && last.count == count => return last.rate,
        Some(last) => seconds_between(last.at, at),
        None if kind == MetricKind::Absolute => interval.map(|interval| interval.as_secs_f64()),
        None => None,
    }?;
    let step = match (kind, last) {
        (MetricKind::Absolute, _) => count,
        (MetricKind::Derive, Some(last)) => count.checked_sub(last.count)?,
        (MetricKind::Counter, Some(last)) => counter_step(last.count, count)?,
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than f64 has")]
    let rate = step as f64 / seconds;
    (rate.is_finite() && min.is_none_or(|min| rate >= min)).then_some(rate)
}

fn seconds_between(earlier: Millis, later: Millis) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
    let seconds = later.since(earlier) as f64 / 1000.0;
    (seconds > 0.0).then_some(seconds)
}

fn counter_step(before: i128, after: i128) -> Option<i128> {
    if after >= before {
        return after.checked_sub(before);
    }
    [1_i128 << 32, 1 << 64].into_iter().find(|range| before < *range).and_then(|range| {
        let step = range - before + after;
        (after >= 0 && step < range / 4).then_some(step)
    })
}

/// Turns value lists into samples, remembering the latest count of every series.
///
/// Holds at most twice `capacity` series; those that were not heard of for longest are forgotten, which
/// costs them one rate. Whoever processes messages again after an aborted batch may keep it: see [`rate`].
#[derive(Debug)]
pub struct Rates {
    counts: Recent<Last>,
    /// By host: when it last sent a number that proves that it sends rates.
    rate_senders: Recent<Millis>,
}

impl Rates {
    /// Makes an empty table for about `capacity` series.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { counts: Recent::new(capacity), rate_senders: Recent::new(MAX_HOSTS) }
    }

    /// Makes the samples of a list: gauges and rates, with their time and unit; nothing for what is not known.
    ///
    /// JSON and Graphite do not say whether a count was turned into a rate by the sender (`StoreRates true`): a fraction
    /// or an unknown value proves it, and the whole numbers that the same host sends beside them are then rates too.
    pub fn samples(&mut self, list: &ValueList) -> Vec<Sample> {
        let host = list.identity.host.as_str();
        let may_be_rates = list.format != Format::Command;
        let is_proof = |value: &DataValue| {
            value.kind != MetricKind::Gauge && matches!(value.reading, Reading::Rate(_) | Reading::Unknown)
        };
        if may_be_rates && list.values.iter().any(is_proof) {
            self.rate_senders.insert(host, list.at);
        }
        let remembered = i64::try_from(RATES_REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        let sends_rates = may_be_rates
            && self.rate_senders.get(host).is_some_and(|proof| list.at.since(*proof).saturating_abs() <= remembered);
        let make = |value: &DataValue| {
            let metric = list.identity.metric(&value.source);
            if metric.len() > MAX_NAME {
                return None;
            }
            let number = match value.reading {
                Reading::Gauge(number) | Reading::Rate(number) => number,
                #[expect(clippy::cast_precision_loss, reason = "a rate printed as a whole number is far below 2^53")]
                Reading::Count(count) if sends_rates => count as f64,
                Reading::Count(count) => self.rate_of(host, &metric, value, list, count)?,
                Reading::Unknown => return None,
            };
            let mut sample = Sample::gauge(metric, number);
            sample.at = Some(list.at);
            sample.unit = unit_of(&list.identity.type_name, value.kind).map(str::to_owned);
            Some(sample)
        };
        list.values.iter().filter_map(make).collect()
    }

    /// How many series are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Tells whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn rate_of(&mut self, host: &str, metric: &str, value: &DataValue, list: &ValueList, count: i128) -> Option<f64> {
        let key = format!("{host}/{metric}");
        let rate = rate(self.counts.get(&key), value.kind, (list.at, count), value.min, list.interval);
        self.counts.insert(&key, Last { at: list.at, count, rate });
        rate
    }
}

/// A map that forgets what was not used for longest: two generations, the old one dropped when the young one is full.
#[derive(Debug)]
struct Recent<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
    capacity: usize,
}

impl<V> Recent<V> {
    fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(1) }
    }

    fn get(&self, key: &str) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn insert(&mut self, key: &str, value: V) {
        if let Some(slot) = self.young.get_mut(key) {
            *slot = value;
            return;
        }
        if self.young.len() >= self.capacity {
            self.old = mem::take(&mut self.young);
        }
        let key = self.old.remove_entry(key).map_or_else(|| key.into(), |(key, _)| key);
        self.young.insert(key, value);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
