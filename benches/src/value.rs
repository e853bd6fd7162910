//! What is stored: keys that are scattered and values that look like practice.

/// Spreads counted keys over the whole range, the same for both servers.
pub(crate) const fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A value like those that are stored in practice: words and numbers, compressible by half or so.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 32);
    let mut number = 0_u64;
    while text.len() < size {
        number += 1;
        text.extend_from_slice(format!("id={:08x}&campaign=summer;", scatter(number) >> 32).as_bytes());
    }
    text.truncate(size);
    text
}
