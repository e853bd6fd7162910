//! metrics: points of the perf data that events carry.

use overstory_model::event::state_type;
use overstory_model::{EntityId, Event, EventKind, Millis, Sample, SeriesKey};
use overstory_store::Point;

/// Of which checks the state itself is kept as a metric, `cps_state` = state * 100 + `state_type` * 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateMetric {
    /// Of those that say whether their state is soft or hard, as events of 2015 do.
    #[default]
    Typed,
    /// Of all; a state without type counts as hard.
    Always,
    /// Of none.
    Never,
}

/// The name of the metric that holds the state.
pub const STATE_METRIC: &str = "cps_state";

/// Appends the points of an event about `entity`.
pub fn apply(event: &Event, entity: &EntityId, state_metric: StateMetric, points: &mut Vec<Point>) {
    points.extend(event.samples.iter().map(|sample| point(entity, sample, event.at)));
    if let EventKind::Check { state } = event.kind
        && let Some(kind) = kind_of_state(event, state_metric)
    {
        let value = f64::from(u32::from(u8::from(state)) * 100 + u32::from(kind) * 10);
        points.push(point(entity, &Sample::gauge(STATE_METRIC, value), event.at));
    }
}

/// One sample of an entity as a point; `at` counts for samples without a time of their own.
pub(super) fn point(entity: &EntityId, sample: &Sample, at: Millis) -> Point {
    Point {
        series: SeriesKey { entity: entity.clone(), metric: sample.metric.clone() },
        unit: sample.unit.clone(),
        kind: sample.kind,
        limits: [sample.min, sample.max, sample.warn, sample.crit],
        at: sample.at.unwrap_or(at),
        value: sample.value,
    }
}

fn kind_of_state(event: &Event, state_metric: StateMetric) -> Option<u8> {
    match state_metric {
        StateMetric::Never => None,
        StateMetric::Typed => state_type(event),
        StateMetric::Always => Some(state_type(event).unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::alarms::tests::check;

    fn points(event: &Event, state_metric: StateMetric) -> Vec<(String, f64, i64)> {
        let mut points = Vec::new();
        apply(event, &event.entity_id(), state_metric, &mut points);
        points.into_iter().map(|point| (point.series.metric, point.value, point.at.0)).collect()
    }

    #[test]
    fn every_sample_becomes_a_point_at_its_own_time_or_the_events() {
        let mut event = check("disk", 1, Millis(5000));
        event.samples = vec![Sample::gauge("a", 1.0), Sample { at: Some(Millis(4000)), ..Sample::gauge("b", 2.0) }];
        assert_eq!(points(&event, StateMetric::Typed), [("a".into(), 1.0, 5000), ("b".into(), 2.0, 4000)]);
    }

    #[test]
    fn the_state_is_a_metric_where_it_has_a_type() {
        let mut event = check("disk", 2, Millis(0));
        let state = |value: f64| vec![(STATE_METRIC.to_owned(), value, 0)];
        assert_eq!(points(&event, StateMetric::Typed), []);
        assert_eq!(points(&event, StateMetric::Always), state(210.0));
        event.extra.insert("state_type".into(), 0.into());
        assert_eq!(points(&event, StateMetric::Typed), state(200.0));
        event.extra.insert("state_type".into(), "1".into());
        assert_eq!(points(&event, StateMetric::Typed), state(210.0));
        assert_eq!(points(&event, StateMetric::Never), []);
        event.kind = EventKind::Perf;
        assert_eq!(points(&event, StateMetric::Always), []);
    }
}
