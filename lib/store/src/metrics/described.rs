//! What is known of a series.

use overstory_model::metric::MetricKind;

use crate::commit::Point;

/// A series' number and what the store says about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described {
    pub(crate) number: i64,
    pub(crate) kind: MetricKind,
    pub(crate) unit: Option<String>,
    pub(crate) limits: [Option<f64>; 4],
}

impl Described {
    /// Whether a point knows something of its series that is not what is stored.
    pub(crate) fn is_news(&self, point: &Point) -> bool {
        point.kind != self.kind
            || (point.unit.is_some() && point.unit != self.unit)
            || point.limits.iter().zip(&self.limits).any(|(new, old)| new.is_some() && new != old)
    }

    /// Takes in what a point knows.
    pub(crate) fn learn(&mut self, point: &Point) {
        self.kind = point.kind;
        if point.unit.is_some() {
            self.unit.clone_from(&point.unit);
        }
        for (new, old) in point.limits.iter().zip(&mut self.limits) {
            *old = new.or(*old);
        }
    }
}

/// The number that stands for a kind in the store.
pub(crate) const fn kind_number(kind: MetricKind) -> i32 {
    match kind {
        MetricKind::Gauge => 0,
        MetricKind::Counter => 1,
        MetricKind::Derive => 2,
        MetricKind::Absolute => 3,
    }
}

/// The kind that a number stands for; unknown ones are taken for gauges.
pub(crate) const fn kind_of(number: i32) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Derive,
        3 => MetricKind::Absolute,
        _ => MetricKind::Gauge,
    }
}
