//! The machine's local time, for log lines.

#![allow(
    unsafe_code,
    reason = "only the C library knows the machine's time zone; localtime_r keeps no pointer and fills what it is given"
)]

use std::fmt::Write;

use overstory_model::Millis;

/// Appends `YYYY-MM-DD HH:MM:SS,` and the milliseconds with at least `width` digits.
pub(crate) fn stamp(out: &mut String, at: Millis, width: usize) {
    let local = local(at);
    let (year, month) = (i64::from(local.tm_year) + 1900, local.tm_mon + 1);
    let (day, hour, minute, second) = (local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
    let millis = at.0.rem_euclid(1000);
    // Writing to a string cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{millis:0width$}");
}

fn local(at: Millis) -> libc::tm {
    let seconds: libc::time_t = at.secs().0;
    // SAFETY: all bytes zero is a value of this plain C structure (its only pointer may be null), and both pointers are
    // valid for the call. On failure, which a year beyond its range is, the zeros stay.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&raw const seconds, &raw mut local);
        local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The zone of the machine that runs this is not known; what does not depend on it is.
    #[test]
    fn milliseconds_have_at_least_the_width() {
        let text = |millis: i64, width| {
            let mut out = String::new();
            stamp(&mut out, Millis(1_795_245_631_000 + millis), width);
            out
        };
        assert!(text(5, 2).ends_with(":31,05"), "{}", text(5, 2));
        assert!(text(5, 3).ends_with(":31,005"));
        assert!(text(576, 2).ends_with(":31,576"));
        assert_eq!(text(576, 2).len(), "2026-11-21 05:38:13,576".len());
        assert!(text(0, 2).starts_with("2026-11-2"));
    }
}
