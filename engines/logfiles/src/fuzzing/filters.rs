//! Filters: whatever the pattern and the values are, they end soon, and a long value gets the answer of a short one.

use std::time::Duration;

use super::input::Input;
use crate::filter::{self, Filter};

/// How long a thread may compute on a pattern or on one value, also where every call is checked and others compute.
const PATIENCE: Duration = Duration::from_secs(3);

/// length u8, string | values
pub(super) fn substring(data: &[u8]) {
    let mut input = Input(data);
    let length = usize::from(input.byte());
    let wanted = input.bytes(length);
    let filter = Filter::substring(wanted).expect("a short string");
    let value = input.0;
    let expected = wanted.is_empty() || value.windows(wanted.len()).any(|window| window == wanted);
    assert_eq!(filter.matches(value), Ok(expected));
    assert_eq!(filter.is_none(), wanted.is_empty());
}

/// flags u8 | how often the value is repeated u8 | length u16, pattern | value
pub(super) fn pcre(data: &[u8]) {
    let mut input = Input(data);
    let (flags, times, length) = (input.byte(), input.byte(), input.number());
    let pattern = input.bytes(usize::from(length % 1024));
    let begun = filter::used();
    let filter = Filter::pcre(pattern, flags & 1 == 1);
    assert!(filter::used().saturating_sub(begun) < PATIENCE, "compiling takes long");
    let Ok(filter) = filter else { return };
    let value = input.0;
    for value in [value.to_vec(), value.repeat(usize::from(times)), value.repeat(64 * usize::from(flags))] {
        let value = value.get(..65_536 + 4096).unwrap_or(&value);
        let begun = filter::used();
        let matched = filter.matches(value);
        assert!(filter::used().saturating_sub(begun) < PATIENCE, "a match takes long");
        if let [Ok(once), Ok(in_pieces)] = filter.both_ways(value) {
            assert_eq!(once, in_pieces, "a value gets the same answer in pieces");
            assert_eq!(matched, Ok(once));
        }
    }
}
