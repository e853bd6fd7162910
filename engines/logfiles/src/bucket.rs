//! Which bucket a key belongs to (protocol §3.3), and ranges of keys.
//!
//! ```text
//! key   63            24 23        12 11         0
//!       +---------------+------------+-----------+
//!       | slot, 40 bits | bucket, 12 |           |      data_dir/<channel>/<slot, 10 digits>/<bucket, 3 digits>
//!       +---------------+------------+-----------+      hexadecimal, lower case
//! ```
//!
//! A key is a timestamp: legacy knows it as an unsigned number, neo as a signed one.

use std::fmt;

/// Bits of a key that are the same in all keys of a bucket but one: those below are free.
const KEY_BITS: u32 = 12;
/// Bits of a bucket's number that are its place in the slot.
const INDEX_BITS: u32 = 12;

/// The number of a bucket: the upper 52 bits of its keys. In the order of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketNumber(u64);

impl BucketNumber {
    /// The bucket of a key.
    #[must_use]
    pub const fn of(key: u64) -> Self {
        Self(key >> KEY_BITS)
    }

    /// The slot.
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot(self.0 >> INDEX_BITS)
    }

    /// The name of the file in the slot's directory.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:03x}", self.0 & ((1 << INDEX_BITS) - 1))
    }

    /// The first key.
    #[must_use]
    pub const fn first_key(self) -> u64 {
        self.0 << KEY_BITS
    }

    /// The last key.
    #[must_use]
    pub const fn last_key(self) -> u64 {
        self.first_key() | ((1 << KEY_BITS) - 1)
    }

    /// Whether a key belongs to the bucket.
    #[inline]
    #[must_use]
    pub const fn holds(self, key: u64) -> bool {
        key >> KEY_BITS == self.0
    }
}

/// The number in the order of the keys, as it is written to files of the node's own.
impl From<BucketNumber> for u64 {
    fn from(number: BucketNumber) -> Self {
        number.0
    }
}

/// `slot/bucket`, as in the path of the file.
impl fmt::Display for BucketNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.slot(), self.file_name())
    }
}

/// The number of a slot: the upper 40 bits of the keys of its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

impl Slot {
    /// Reads the name of a slot's directory: 10 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        hexadecimal(name, 10).map(Self)
    }

    /// Reads the name of a bucket's file in this slot: 3 hexadecimal digits in lower case.
    #[must_use]
    pub fn bucket(self, name: &str) -> Option<BucketNumber> {
        hexadecimal(name, 3).map(|index| BucketNumber(self.0 << INDEX_BITS | index))
    }
}

/// 10 hexadecimal digits, as the directory is called.
impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:010x}", self.0)
    }
}

fn hexadecimal(name: &str, digits: usize) -> Option<u64> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (name.len() == digits && name.bytes().all(lower)).then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

/// Keys from one to another, both in it; in the order of unsigned numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub low: u64,
    /// The last key, not below the first.
    pub high: u64,
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self { low: 0, high: u64::MAX };

    /// A range, unless it is empty.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Option<Self> {
        if low <= high { Some(Self { low, high }) } else { None }
    }

    /// Whether a key is in the range.
    #[inline]
    #[must_use]
    pub const fn holds(self, key: u64) -> bool {
        self.low <= key && key <= self.high
    }

    /// The first bucket that has keys of the range.
    #[must_use]
    pub const fn first_bucket(self) -> BucketNumber {
        BucketNumber::of(self.low)
    }

    /// The last bucket that has keys of the range.
    #[must_use]
    pub const fn last_bucket(self) -> BucketNumber {
        BucketNumber::of(self.high)
    }
}

/// What a request asks for: ranges of keys in the order in which they are answered, two at most.
///
/// Neo compares signed timestamps: those below 0 have the highest keys and come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    first: KeyRange,
    second: Option<KeyRange>,
}

impl Ranges {
    /// One range of keys.
    #[must_use]
    pub const fn one(range: KeyRange) -> Self {
        Self { first: range, second: None }
    }

    /// Timestamps from one to another, both in it; nothing if they are in the wrong order.
    #[must_use]
    pub const fn signed(low: i64, high: i64) -> Option<Self> {
        if low > high {
            return None;
        }
        let (first, last) = (low.cast_unsigned(), high.cast_unsigned());
        Some(if low < 0 && high >= 0 {
            Self { first: KeyRange { low: first, high: u64::MAX }, second: Some(KeyRange { low: 0, high: last }) }
        } else {
            Self { first: KeyRange { low: first, high: last }, second: None }
        })
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyRange> + use<> {
        std::iter::once(self.first).chain(self.second)
    }

    /// Whether a key is in one of them.
    #[inline]
    #[must_use]
    pub fn holds(&self, key: u64) -> bool {
        self.first.holds(key) || self.second.is_some_and(|range| range.holds(key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_key_is_in_the_file_that_the_published_node_puts_it_in() {
        let number = BucketNumber::of(0x5727_5806);
        assert_eq!(number.to_string(), "0000000057/275");
        assert!(number.holds(0x5727_5fff) && !number.holds(0x5727_6000));
        assert_eq!((number.first_key(), number.last_key()), (0x5727_5000, 0x5727_5fff));
        let slot = Slot::parse("0000000057").unwrap();
        assert_eq!(slot.bucket("275"), Some(number));
        assert_eq!(BucketNumber::of(u64::MAX).to_string(), "ffffffffff/fff");
    }

    #[test]
    fn other_names_are_no_buckets() {
        let slot = Slot::parse("ffffffffff").unwrap();
        assert!(["", "27", "2755", "27G", "27A", "+27", "275.gz"].iter().all(|name| slot.bucket(name).is_none()));
        assert!(["57", "000000005G", "00000000057", "..", "+000000057"].iter().all(|name| Slot::parse(name).is_none()));
    }

    #[test]
    fn signed_ranges_are_answered_in_the_order_of_time() {
        let all: Vec<_> = Ranges::signed(-2, 3).unwrap().iter().collect();
        assert_eq!(all, [KeyRange { low: u64::MAX - 1, high: u64::MAX }, KeyRange { low: 0, high: 3 }]);
        assert_eq!(Ranges::signed(5, 4), None);
        assert_eq!(Ranges::signed(4, 5).unwrap().iter().count(), 1);
        assert_eq!(
            Ranges::signed(i64::MIN, -1).unwrap().iter().collect::<Vec<_>>(),
            [KeyRange { low: 1 << 63, high: u64::MAX }]
        );
        assert!(Ranges::signed(-2, 3).unwrap().holds(u64::MAX) && !Ranges::signed(-2, 3).unwrap().holds(4));
    }
}
