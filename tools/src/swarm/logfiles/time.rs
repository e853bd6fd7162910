//! Times as people write them.

use std::str::FromStr;

use overstory_model::Clock as _;
use overstory_model::SystemClock;

use crate::swarm::input::BadInput;

/// What a channel's timestamps count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Unit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

impl Unit {
    /// How many make a second.
    pub(super) const fn per_second(self) -> i64 {
        match self {
            Self::S => 1,
            Self::Ms => 1000,
            Self::Us => 1_000_000,
            Self::Ns => 1_000_000_000,
        }
    }

    /// As it is given.
    const fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    /// The present time.
    pub(super) fn now(self) -> i64 {
        let millis = SystemClock.now().0;
        (i128::from(millis) * i128::from(self.per_second()) / 1000).try_into().unwrap_or(i64::MAX)
    }
}

/// A time that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// A timestamp as it is, whatever it counts.
    Stamp(i64),
    /// Nanoseconds since 1970.
    Date(i128),
    /// So many seconds from now.
    FromNow(i64),
}

impl Time {
    /// The timestamp of a record, `now` being the present one.
    ///
    /// # Errors
    /// There is none for this time.
    pub(super) fn stamp(self, unit: Unit, now: i64) -> Result<i64, BadInput> {
        i64::try_from(self.count(unit, now)).map_err(|_| BadInput::NoTimestamp(unit.name()))
    }

    /// The timestamp at which a range begins or ends: there are no records beyond the first and the last one.
    pub(super) fn nearest(self, unit: Unit, now: i64) -> i64 {
        let count = self.count(unit, now);
        i64::try_from(count).unwrap_or(if count < 0 { i64::MIN } else { i64::MAX })
    }

    fn count(self, unit: Unit, now: i64) -> i128 {
        let each = i128::from(unit.per_second());
        match self {
            Self::Stamp(stamp) => stamp.into(),
            Self::Date(nanos) => (nanos * each).div_euclid(1_000_000_000),
            Self::FromNow(seconds) => i128::from(now) + i128::from(seconds) * each,
        }
    }
}

impl FromStr for Time {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, BadInput> {
        let stamp = || text.parse().ok().map(Self::Stamp);
        let bits = || {
            let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            u64::from_str_radix(digits?, 16).ok().map(|bits| Self::Stamp(bits.cast_signed()))
        };
        let now = || (text == "now").then_some(Self::FromNow(0));
        let read = stamp().or_else(bits).or_else(now).or_else(|| from_now(text)).or_else(|| date(text).map(Self::Date));
        read.ok_or_else(|| BadInput::Time(text.chars().take(100).collect()))
    }
}

/// Reads a duration, `90s`, `5m`, `1h`, `7d`, `2w`; in seconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    match from_now(&format!("+{text}")) {
        Some(Time::FromNow(seconds)) => Ok(seconds),
        _ => Err("no duration such as 10s, 5m, 1h, 2d, 1w".to_owned()),
    }
}

/// Reads `-90s`, `-5m`, `-1h`, `-7d`, `-2w`; with a plus, what is to come.
fn from_now(text: &str) -> Option<Time> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (number, each) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 7 * 86_400)]
        .into_iter()
        .find_map(|(suffix, each)| Some((rest.strip_suffix(suffix)?, each)))?;
    let number: u32 = number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse().ok())??;
    Some(Time::FromNow(sign * i64::from(number) * each))
}

/// Reads a date of RFC 3339, `2026-01-31T23:59:59.5+01:00`, or a day alone, which begins at midnight UTC; in nanoseconds
/// since 1970.
fn date(text: &str) -> Option<i128> {
    let (day, rest) = text.split_at_checked(10)?;
    let (year, month, day) = (number(day, 0, 4)?, number(day, 5, 2)?, number(day, 8, 2)?);
    let separated = [(4, b'-'), (7, b'-')].iter().all(|&(at, byte)| text.as_bytes().get(at) == Some(&byte));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !separated || !(1..=days).contains(&day) {
        return None;
    }
    let (seconds, nanos) = if rest.is_empty() { (0, 0) } else { time_of_day(rest)? };
    let seconds = days_since_1970(year, month, day) * 86_400 + seconds;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

/// Reads `T23:59:59.5+01:00`: seconds of the day in UTC, and nanoseconds.
fn time_of_day(text: &str) -> Option<(i64, i64)> {
    let bytes = text.as_bytes();
    let separated = matches!(bytes.first(), Some(b'T' | b't' | b' ')) && bytes.get(3) == Some(&b':');
    let (hour, minute, second) = (number(text, 1, 2)?, number(text, 4, 2)?, number(text, 7, 2)?);
    if !separated || bytes.get(6) != Some(&b':') || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(9..)?;
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let fraction = rest.get(..digits).filter(|fraction| (1..=9).contains(&fraction.len()))?;
            (format!("{fraction:0<9}").parse().ok()?, rest.get(digits..)?)
        }
        None => (0, rest),
    };
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
            let offset = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    Some((hour * 3600 + minute * 60 + second - offset, nanos))
}

/// Reads so many digits.
fn number(text: &str, at: usize, digits: usize) -> Option<i64> {
    let digits = text.get(at..at + digits)?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that a leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn stamp(text: &str, unit: Unit) -> i64 {
        text.parse::<Time>().unwrap().stamp(unit, 1_000_000 * unit.per_second()).unwrap()
    }

    #[test]
    fn times_are_numbers_dates_and_distances_from_now() {
        for (text, seconds) in [
            ("1462196224", 1_462_196_224),
            ("-5", -5),
            ("0xffffffffffffffff", -1),
            ("now", 1_000_000),
            ("-90s", 999_910),
            ("-1h", 996_400),
            ("+2d", 1_172_800),
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2026-11-21T17:00:00+01:00", 1_795_276_800),
            ("2026-11-21 16:00:00.999Z", 1_795_276_800),
            ("2026-11-21t10:30:00-05:30", 1_795_276_800),
        ] {
            assert_eq!(stamp(text, Unit::S), seconds, "{text}");
        }
        assert_eq!(stamp("2026-11-21T16:00:00.25Z", Unit::Ms), 1_795_276_800_250);
        assert_eq!(stamp("2026-11-21T16:00:00.25Z", Unit::Ns), 1_795_276_800_250_000_000);
        assert_eq!(stamp("-1s", Unit::Us), 999_999_000_000);
        assert_eq!(stamp("17", Unit::Ns), 17);
    }

    #[test]
    fn a_time_without_a_timestamp_is_none_for_a_record_and_the_nearest_one_for_a_range() {
        for (text, nearest) in [("9999-12-31", i64::MAX), ("0001-01-01", i64::MIN), ("2262-04-12", i64::MAX)] {
            let time = text.parse::<Time>().unwrap();
            assert_eq!(time.stamp(Unit::Ns, 0), Err(BadInput::NoTimestamp("ns")), "{text}");
            assert_eq!(time.nearest(Unit::Ns, 0), nearest, "{text}");
            assert!(time.stamp(Unit::Us, 0).is_ok(), "{text}");
        }
        assert_eq!(Time::FromNow(1).stamp(Unit::S, i64::MAX), Err(BadInput::NoTimestamp("s")));
        assert_eq!(Time::FromNow(-1).nearest(Unit::S, i64::MIN), i64::MIN);
        assert_eq!("2262-04-11".parse::<Time>().unwrap().nearest(Unit::Ns, 0), stamp("2262-04-11", Unit::Ns));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "h",
            "-h",
            "-1y",
            "1h",
            "--1h",
            "-+1h",
            "0x",
            "0x+1",
            "9223372036854775808",
            "2026-1-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-32",
            "2026-01-01T",
            "2026-01-01T24:00:00Z",
            "2026-01-01T10:00:00",
            "2026-01-01T10:00Z",
            "2026-01-01T10:00:00.Z",
            "2026-01-01T10:00:00+1:00",
            "2026-01-01T10:00:00Zx",
            "20\u{e4}6-01-01",
            "2026-01-01T10:00:00+01:00\n",
        ] {
            assert!(matches!(text.parse::<Time>(), Err(BadInput::Time(_))), "{text:?}");
        }
    }
}
