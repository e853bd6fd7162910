//! Blocks of literals alone: data that is not compressed, for readers that take nothing but blocks.
//!
//! What stands in front of the data depends on its length only, so that a block can be made around data in place.

/// The end of every block.
pub const END: [u8; 3] = [0x11, 0, 0];

/// The longest data whose length fits into one byte.
const SHORT: usize = 238;

/// The bytes in front of literals that are all of a block.
#[must_use]
pub const fn literals_front(length: usize) -> usize {
    match length {
        0 => 0,
        1..=SHORT => 1,
        _ => 2 + (length - 19) / 255,
    }
}

/// Writes what stands in front of `length` literals to the end of `front`, which has room for it ([`literals_front`]).
///
/// The literals and [`END`] follow.
///
/// # Panics
/// `front` is too short.
#[allow(clippy::cast_possible_truncation, reason = "each arm bounds the length")]
pub fn put_literals_front(length: usize, front: &mut [u8]) {
    let begin = front.len() - literals_front(length);
    let front = &mut front[begin..];
    front.fill(0);
    if let Some(last) = front.last_mut() {
        *last = if length <= SHORT { length as u8 + 17 } else { ((length - 19) % 255) as u8 + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::decompress;
    use super::*;

    #[test]
    fn blocks_of_literals_hold_the_data() {
        for length in (0..1200).chain([65_535, 65_536, 100_000, 8 << 20]) {
            let data: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut block = vec![0xff; literals_front(length)];
            put_literals_front(length, &mut block);
            block.extend_from_slice(&data);
            block.extend_from_slice(&END);
            let mut plain = Vec::new();
            assert_eq!(decompress(&block, &mut plain, length), Ok(()), "{length}");
            assert_eq!(plain, data, "{length}");
        }
    }

    #[test]
    fn the_front_is_the_published_one() {
        let front = |length: usize| {
            let mut front = vec![7; literals_front(length) + 1];
            put_literals_front(length, &mut front);
            assert_eq!(front[0], 7);
            front[1..].to_vec()
        };
        assert_eq!(front(1), [0x12]);
        assert_eq!(front(5), [0x16]);
        assert_eq!(front(238), [255]);
        assert_eq!(front(239), [0, 221]);
        assert_eq!(front(18 + 255), [0, 255]);
        assert_eq!(front(18 + 256), [0, 0, 1]);
    }
}
