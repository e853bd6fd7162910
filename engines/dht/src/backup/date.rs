//! Days and times of the local calendar.

use std::fmt;
use std::str::FromStr;

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// Text that is no date or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct BadTime {
    /// What should have been there.
    pub expected: &'static str,
}

impl Date {
    /// The day of a local time.
    #[must_use]
    pub fn of(time: Local) -> Self {
        Self { year: time.year, month: time.month, day: time.day }
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub fn days(self) -> i64 {
        // Years that begin in March, so that a leap day ends its year.
        let (year, month) = (i64::from(self.year), i64::from(self.month));
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + i64::from(self.day) - 719_469
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        const ERROR: BadTime = BadTime { expected: "a date as 2026-11-21" };
        let digits = |range: std::ops::Range<usize>| {
            let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<u16>().ok()).ok_or(ERROR)
        };
        let separators =
            text.len() == 10 && text.as_bytes().get(4) == Some(&b'-') && text.as_bytes().get(7) == Some(&b'-');
        let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
        if !separators || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(ERROR);
        }
        Ok(Self { year, month: u8::try_from(month).map_err(|_| ERROR)?, day: u8::try_from(day).map_err(|_| ERROR)? })
    }
}

/// A time of day at which backups begin, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    hour: u8,
    minute: u8,
}

impl FromStr for Schedule {
    type Err = BadTime;

    fn from_str(text: &str) -> Result<Self, BadTime> {
        const ERROR: BadTime = BadTime { expected: "a time of day as 03:30" };
        let (hour, minute) = text.split_once(':').ok_or(ERROR)?;
        let number = |digits: &str| {
            let valid = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if valid { digits.parse::<u8>().map_err(|_| ERROR) } else { Err(ERROR) }
        };
        let schedule = Self { hour: number(hour)?, minute: number(minute)? };
        if schedule.hour < 24 && schedule.minute < 60 { Ok(schedule) } else { Err(ERROR) }
    }
}

/// A local time, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    year: u16,
    month: u8,
    day: u8,
    /// Seconds since midnight.
    second: u32,
}

impl Local {
    /// The local time of an instant, in seconds since the Unix epoch.
    #[must_use]
    pub fn at(unix_seconds: i64) -> Self {
        super::system::local(unix_seconds)
    }

    pub(super) fn new(year: u16, month: u8, day: u8, second: u32) -> Self {
        Self { year, month, day, second }
    }
}

/// Seconds until the schedule's next time; between 1 and a day.
///
/// A day with a clock change is an hour longer or shorter: ask again an hour before.
#[must_use]
pub fn next_run(schedule: Schedule, now: Local) -> u64 {
    const DAY: u32 = 86_400;
    let at = u32::from(schedule.hour) * 3600 + u32::from(schedule.minute) * 60;
    let wait = (at + DAY - now.second.min(DAY)) % DAY;
    u64::from(if wait == 0 { DAY } else { wait })
}
