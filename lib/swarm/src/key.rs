//! Record keys, the ranges of keys that nodes are responsible for, and the hash of values (protocol §1.1, §2.4, §3.1).

use std::fmt;

/// The key of a record. It is the record's own hash; how users make it is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(pub u64);

impl Key {
    /// Where the key lies in the hash space that nodes share: its bits in reverse, so that keys that count up spread.
    #[must_use]
    pub const fn position(self) -> u64 {
        self.0.reverse_bits()
    }

    /// Reads the legacy form: exactly 16 hexadecimal digits of either case.
    #[must_use]
    #[inline]
    pub fn from_hex16(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 16] = text.try_into().ok()?;
        let mut value = 0u64;
        let mut bad = 0u8;
        for &digit in digits {
            let nibble = NIBBLES[usize::from(digit)];
            bad |= nibble;
            value = value << 4 | u64::from(nibble & 0xf);
        }
        (bad & 0x80 == 0).then_some(Self(value))
    }

    /// Writes the legacy form: 16 lower-case hexadecimal digits.
    #[must_use]
    #[inline]
    pub fn hex16(self) -> [u8; 16] {
        let mut text = [0; 16];
        for (index, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            text[index * 2] = DIGITS[usize::from(byte >> 4)];
            text[index * 2 + 1] = DIGITS[usize::from(byte & 0xf)];
        }
        text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The value of each hexadecimal digit, 0x80 for what is none.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0x80; 256];
    let mut value = 0;
    while value < 16 {
        let digit = DIGITS[value as usize];
        nibbles[digit as usize] = value;
        nibbles[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    nibbles
};

/// The part of the hash space that a node is responsible for: both limits belong to it.
///
/// A range whose minimum is above its maximum is empty only in the one form [`HashRange::EMPTY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashRange {
    min: u64,
    max: u64,
}

/// A minimum above the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the minimum {min:#018x} of the hash range is above its maximum {max:#018x}")]
pub struct BadHashRange {
    /// The minimum that was given.
    pub min: u64,
    /// The maximum that was given.
    pub max: u64,
}

impl HashRange {
    /// Every key.
    pub const FULL: Self = Self { min: 0, max: u64::MAX };
    /// No key.
    pub const EMPTY: Self = Self { min: u64::MAX, max: 0 };

    /// Makes a range from its limits; also takes those of [`Self::EMPTY`].
    ///
    /// # Errors
    /// The minimum is above the maximum.
    pub const fn new(min: u64, max: u64) -> Result<Self, BadHashRange> {
        if min <= max || (min == u64::MAX && max == 0) { Ok(Self { min, max }) } else { Err(BadHashRange { min, max }) }
    }

    /// The lowest position.
    #[must_use]
    pub const fn min(self) -> u64 {
        self.min
    }

    /// The highest position.
    #[must_use]
    pub const fn max(self) -> u64 {
        self.max
    }

    /// Whether no key belongs to it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// Whether the key's position lies in it.
    #[must_use]
    #[inline]
    pub const fn contains(self, key: Key) -> bool {
        let position = key.position();
        self.min <= position && position <= self.max
    }

    /// Whether a key belongs to both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.min <= other.max && other.min <= self.max
    }
}

impl fmt::Display for HashRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}..{:#018x}", self.min, self.max)
    }
}

/// FNV-1a, 64 bits: how neo Update names the value that it replaces (protocol §2.4).
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn positions_are_the_bits_in_reverse() {
        assert_eq!(Key(1).position(), 0x8000_0000_0000_0000);
        assert_eq!(Key(0).position(), 0);
        assert_eq!(Key(u64::MAX).position(), u64::MAX);
        assert_eq!(Key(0x8000_0000_0000_0000).position(), 1);
    }

    #[test]
    fn legacy_keys_are_sixteen_hexadecimal_digits() {
        assert_eq!(Key::from_hex16(b"0000000000000001"), Some(Key(1)));
        assert_eq!(Key::from_hex16(b"FFFFffffFFFFffff"), Some(Key(u64::MAX)));
        assert_eq!(Key::from_hex16(b"0123456789abcdeF"), Some(Key(0x0123_4567_89ab_cdef)));
        for bad in [&b""[..], b"1", b"000000000000001", b"00000000000000001", b"000000000000000g", b"+000000000000001"]
        {
            assert_eq!(Key::from_hex16(bad), None, "{bad:?}");
        }
        for byte in 0..=u8::MAX {
            let mut text = *b"0000000000000000";
            text[7] = byte;
            assert_eq!(Key::from_hex16(&text).is_some(), byte.is_ascii_hexdigit(), "{byte:#x}");
        }
        for value in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(Key(value).hex16(), *format!("{value:016x}").as_bytes());
            assert_eq!(Key::from_hex16(&Key(value).hex16()), Some(Key(value)));
        }
        assert_eq!(Key(0xab).to_string(), "00000000000000ab");
    }

    #[test]
    fn ranges_hold_positions_and_not_keys() {
        let low = HashRange::new(0, 0x7fff_ffff_ffff_ffff).unwrap();
        assert!(low.contains(Key(2)));
        assert!(!low.contains(Key(1)));
        assert!(HashRange::FULL.contains(Key(u64::MAX)) && HashRange::FULL.contains(Key(0)));
        assert!(!HashRange::EMPTY.contains(Key(0)) && !HashRange::EMPTY.contains(Key(u64::MAX)));
    }

    #[test]
    fn only_one_reversed_range_is_legal() {
        assert_eq!(HashRange::new(u64::MAX, 0).unwrap(), HashRange::EMPTY);
        assert!(HashRange::EMPTY.is_empty() && !HashRange::FULL.is_empty());
        assert_eq!(HashRange::new(2, 1), Err(BadHashRange { min: 2, max: 1 }));
        assert!(HashRange::new(7, 7).is_ok_and(|range| !range.is_empty()));
    }

    #[test]
    fn ranges_overlap_when_they_share_a_position() {
        let range = |min, max| HashRange::new(min, max).unwrap();
        assert!(range(0, 5).overlaps(range(5, 9)) && range(5, 9).overlaps(range(0, 5)));
        assert!(!range(0, 4).overlaps(range(5, 9)) && !range(5, 9).overlaps(range(0, 4)));
        assert!(!HashRange::EMPTY.overlaps(HashRange::FULL) && !HashRange::FULL.overlaps(HashRange::EMPTY));
    }

    #[test]
    fn fnv1a_is_the_published_hash() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"hello"), 0xa430_d846_80aa_bd0b);
    }
}
