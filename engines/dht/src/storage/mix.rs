//! The order of records: a hash of the key that loses nothing.

use overstory_swarm::key::Key;

/// Odd, so that multiplying by it can be undone.
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
/// Undoes it: `FACTOR * INVERSE == 1`.
const INVERSE: u64 = inverse(FACTOR);

/// Spreads a key over all hashes. It is the same for ever: scans that were begun before a restart go on after it.
#[inline]
pub(super) fn hash(key: Key) -> u64 {
    let x = (key.0 ^ key.0 >> 32).wrapping_mul(FACTOR);
    let x = (x ^ x >> 32).wrapping_mul(FACTOR);
    x ^ x >> 32
}

/// The key of a hash.
#[inline]
pub(super) fn key(hash: u64) -> Key {
    let x = (hash ^ hash >> 32).wrapping_mul(INVERSE);
    let x = (x ^ x >> 32).wrapping_mul(INVERSE);
    Key(x ^ x >> 32)
}

/// The inverse of an odd number modulo 2^64: each round doubles the bits that are right.
const fn inverse(factor: u64) -> u64 {
    let mut inverse = factor;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_gives_its_key_back() {
        for key in
            [0, 1, 2, u64::MAX, 0xdead_beef, 1 << 63].into_iter().chain((0..1000).map(|x: u64| x.wrapping_mul(FACTOR)))
        {
            assert_eq!(super::key(hash(Key(key))), Key(key));
        }
    }

    #[test]
    fn the_order_is_that_of_version_1() {
        // Changing it would break scans that go on after an update of the program.
        assert_eq!(hash(Key(1)), 0x4179_b061_e0c0_e0d0);
        assert_eq!(hash(Key(0)), 0);
    }
}
