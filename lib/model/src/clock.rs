//! Time: where it comes from and the two units in which it is written down.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// Seconds since the Unix epoch, the unit of every time in alarms, entities and JSON documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The whole seconds that passed since `earlier`; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `seconds` later (earlier when negative).
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The instant for people, in UTC: `2026-11-21 07:20:31Z`.
    #[must_use]
    pub fn utc(self) -> String {
        // Days are counted from 0000-03-01, so that a leap day ends its year, in eras of 400 years.
        let days = self.0.div_euclid(86_400) + 719_468;
        let second = self.0.rem_euclid(86_400);
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
    }

    /// The same instant in milliseconds.
    #[must_use]
    pub const fn millis(self) -> Millis {
        Millis(self.0.saturating_mul(1000))
    }
}

/// Milliseconds since the Unix epoch, the unit of metric points and of an event's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The second this instant lies in.
    #[must_use]
    pub const fn secs(self) -> Timestamp {
        Timestamp(self.0.div_euclid(1000))
    }

    /// The whole milliseconds that passed since `earlier`; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time, so that decisions can be tested at any hour.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Millis {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Millis(elapsed.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Makes a clock that shows `at`.
    #[must_use]
    pub const fn new(at: Millis) -> Self {
        Self(AtomicI64::new(at.0))
    }

    /// Moves the clock to `at`.
    pub fn set(&self, at: Millis) {
        self.0.store(at.0, Ordering::SeqCst);
    }

    /// Moves the clock forward by `seconds`.
    pub fn advance_secs(&self, seconds: i64) {
        self.0.fetch_add(seconds.saturating_mul(1000), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_before_the_epoch_belong_to_the_earlier_second() {
        assert_eq!(Millis(-1).secs(), Timestamp(-1));
        assert_eq!(Millis(1999).secs(), Timestamp(1));
    }

    #[test]
    fn instants_are_written_for_people() {
        assert_eq!(Timestamp(0).utc(), "1970-01-01 00:00:00Z");
        assert_eq!(Timestamp(951_782_400).utc(), "2000-02-29 00:00:00Z");
        assert_eq!(Timestamp(1_795_245_631).utc(), "2026-11-21 07:20:31Z");
        assert_eq!(Timestamp(-1).utc(), "1969-12-31 23:59:59Z");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(i64::MAX).plus(1), Timestamp(i64::MAX));
        assert_eq!(Timestamp(i64::MIN).millis(), Millis(i64::MIN));
    }
}
