//! When the ticks are: at whole multiples of the interval on the wall clock, for any number of hosts alike.

use std::time::Duration;

use overstory_model::Millis;

/// Plans the ticks. Every plan starts from the clock as it is, so nothing drifts and nothing is caught up on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticker {
    interval_ms: i64,
}

impl Ticker {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval_ms: i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1) }
    }

    /// The time that a tick taken at `now` stands for: the multiple that it was planned for, if it came near it.
    pub(crate) fn stamp(self, now: Millis) -> Millis {
        let planned = self.nearest(now);
        let late = now.since(planned);
        if late.abs() <= self.interval_ms / 4 { planned } else { now }
    }

    /// How long to wait at `now` for the next tick: between half an interval and one and a half.
    ///
    /// A timer that fires a moment early, or a clock that was set a little back, does not make a second tick for the
    /// same multiple. After a suspension, or a clock set far, there is one tick and the rhythm goes on.
    pub(crate) fn wait(self, now: Millis) -> Duration {
        let next = self.nearest(now).0.saturating_add(self.interval_ms);
        Duration::from_millis(u64::try_from(next.saturating_sub(now.0)).unwrap_or(0))
    }

    fn nearest(self, now: Millis) -> Millis {
        let half = self.interval_ms / 2;
        Millis(now.0.saturating_add(half).div_euclid(self.interval_ms).saturating_mul(self.interval_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn ticks_stay_on_multiples_of_the_interval() {
        let ticker = Ticker::new(TEN);
        assert_eq!(ticker.wait(Millis(20_003)), Duration::from_millis(9_997));
        assert_eq!(ticker.wait(Millis(19_999)), Duration::from_millis(10_001), "a timer that fired early");
        assert_eq!(ticker.wait(Millis(27_000)), Duration::from_secs(13), "no tick twice within half an interval");
        assert_eq!(ticker.stamp(Millis(20_003)), Millis(20_000));
        assert_eq!(ticker.stamp(Millis(19_999)), Millis(20_000));
        assert_eq!(ticker.stamp(Millis(24_000)), Millis(24_000), "too late to stand for the multiple");
    }

    #[test]
    fn a_suspension_is_followed_by_one_tick_and_then_the_rhythm() {
        let ticker = Ticker::new(TEN);
        let mut now = Millis(20_000);
        now.0 += i64::try_from(ticker.wait(now).as_millis()).unwrap_or(0) + 3_600_000;
        let mut ticks = 0;
        let end = Millis(now.0 + 60_000);
        while now < end {
            ticks += 1;
            now.0 += i64::try_from(ticker.wait(now).as_millis()).unwrap_or(0);
        }
        assert_eq!(ticks, 6);
    }

    proptest! {
        #[test]
        fn no_wait_is_much_shorter_or_longer_than_the_interval(now in any::<i32>(), seconds in 1u64..3600) {
            let wait = Ticker::new(Duration::from_secs(seconds)).wait(Millis(i64::from(now)));
            prop_assert!(wait >= Duration::from_secs(seconds) / 2 && wait <= Duration::from_secs(seconds) * 3 / 2);
        }
    }
}
