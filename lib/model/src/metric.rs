//! Metrics: named series of numbers that belong to an entity.

use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::entity::EntityId;

/// How the values of a series relate to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MetricKind {
    /// A reading that stands for itself.
    #[default]
    Gauge,
    /// A count that only grows, and starts again at zero.
    Counter,
    /// A count whose rate matters and that may shrink.
    Derive,
    /// A count since the previous reading.
    Absolute,
}

/// The identity of a series: an entity and a metric name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// Whose metric it is.
    pub entity: EntityId,
    /// The metric's name, at most 255 bytes.
    pub metric: String,
}

/// One reading of one metric, with what its source says about the metric.
///
/// Only finite values are ever made into samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The metric's name.
    pub metric: String,
    /// The reading, finite.
    pub value: f64,
    /// When it was read; the event's time when the source gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
    /// The unit, if the source names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The least possible value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest possible value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Where the source warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<f64>,
    /// Where the source calls it critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crit: Option<f64>,
    /// How the values relate.
    #[serde(default, rename = "type")]
    pub kind: MetricKind,
}

impl Sample {
    /// A gauge reading without unit or limits.
    #[must_use]
    pub fn gauge(metric: impl Into<String>, value: f64) -> Self {
        Self {
            metric: metric.into(),
            value,
            at: None,
            unit: None,
            min: None,
            max: None,
            warn: None,
            crit: None,
            kind: MetricKind::Gauge,
        }
    }

    /// The same reading with a unit.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }
}
