//! Whether the clock can be believed: what is deleted by a wrong one is gone for good.
//!
//! A clock that has leapt ahead is watched for a day. By then somebody has seen the finding, or the clock was set right.

use std::time::Duration;

use tokio::time::Instant;

/// How far the clock may go on by itself while the node runs.
const LEAP: Duration = Duration::from_secs(86_400);
/// How long nothing may have been written before a start.
const PAUSE: Duration = Duration::from_secs(30 * 86_400);
/// How long a clock that has leapt is watched.
const WATCHED: Duration = Duration::from_secs(86_400);

/// What was seen of the clock, in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Trust {
    last: (Instant, i64),
    /// How far it has leapt, and when that was seen.
    leapt: Option<(Duration, Instant)>,
}

impl Trust {
    /// At a start, when the node's data was written to the last time at `written`, if it was.
    pub(super) fn new(at: Instant, now: i64, written: Option<i64>) -> Self {
        let pause = Duration::from_millis(written.map_or(0, |written| ahead(now, written)));
        Self { last: (at, now), leapt: (pause > PAUSE).then_some((pause, at)) }
    }

    /// Looks at the clock. How far it has leapt, if it cannot be believed yet.
    pub(super) fn look(&mut self, at: Instant, now: i64) -> Option<Duration> {
        let (before, last) = std::mem::replace(&mut self.last, (at, now));
        let leap = Duration::from_millis(ahead(now, last)).saturating_sub(at.saturating_duration_since(before));
        if leap > LEAP {
            self.leapt = Some((leap, at));
        }
        // It was set right, or nearer to that.
        if Duration::from_millis(ahead(last, now)) > LEAP {
            self.leapt = None;
        }
        self.leapt.take_if(|(_, since)| at.saturating_duration_since(*since) >= WATCHED);
        self.leapt()
    }

    /// How far it has leapt, if it could not be believed when it was looked at.
    pub(super) fn leapt(&self) -> Option<Duration> {
        self.leapt.map(|(leap, _)| leap)
    }
}

fn ahead(later: i64, earlier: i64) -> u64 {
    u64::try_from(later.saturating_sub(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    const NOW: i64 = 20_000 * DAY;

    fn millis(millis: i64) -> Duration {
        Duration::from_millis(u64::try_from(millis).unwrap_or_default())
    }

    #[test]
    fn a_clock_that_goes_on_as_time_does_is_believed() {
        let begin = Instant::now();
        let mut trust = Trust::new(begin, NOW, Some(NOW - 29 * DAY));
        for hours in (0..1000).step_by(7) {
            assert_eq!(trust.look(begin + millis(hours * HOUR), NOW + hours * HOUR), None);
        }
        // Set right by less than a day, or a node that has nothing.
        assert_eq!(trust.look(begin + millis(1000 * HOUR), NOW + 1020 * HOUR), None);
        assert_eq!(Trust::new(begin, NOW, None).look(begin, NOW), None);
        assert_eq!(Trust::new(begin, NOW, Some(NOW + DAY)).look(begin, NOW), None);
    }

    #[test]
    fn a_clock_that_leaps_is_watched_for_a_day() {
        let begin = Instant::now();
        let years = 3650 * DAY;
        let mut trust = Trust::new(begin, NOW, None);
        assert_eq!(trust.look(begin + millis(HOUR), NOW + HOUR + years), Some(millis(years)));
        assert_eq!(trust.look(begin + millis(24 * HOUR), NOW + 24 * HOUR + years), Some(millis(years)));
        assert_eq!(trust.look(begin + millis(25 * HOUR), NOW + 25 * HOUR + years), None);
        // Back and ahead again.
        assert_eq!(trust.look(begin + millis(26 * HOUR), NOW + 26 * HOUR), None);
        assert!(trust.look(begin + millis(27 * HOUR), NOW + 27 * HOUR + years).is_some());
        assert_eq!(trust.look(begin + millis(28 * HOUR), NOW + 28 * HOUR), None);
    }

    #[test]
    fn a_start_long_after_the_last_write_is_watched_too() {
        let begin = Instant::now();
        let mut trust = Trust::new(begin, NOW, Some(NOW - 3650 * DAY));
        assert_eq!(trust.look(begin, NOW), Some(millis(3650 * DAY)));
        assert!(trust.look(begin + millis(23 * HOUR), NOW + 23 * HOUR).is_some());
        assert_eq!(trust.look(begin + millis(DAY), NOW + DAY), None);
    }
}
