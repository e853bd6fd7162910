//! LZO1X blocks (protocol §1.4): the decoder believes nothing, the encoder is quick.
//!
//! A block is a row of instructions, without a header. Each is a copy of earlier output (a match), or a run of bytes
//! that follow as they are (literals); a match also carries up to three literals that come after it.
//!
//! ```text
//! instruction byte     what follows               match length        distance                      literals after
//! 0000 LLLL            extension if L = 0         none: a run of literals, L + 3 or 18 + extension  none
//! 0000 DDSS after 1-3  H                          2                   (H << 2) + D + 1              S
//! 0000 DDSS after a run H                         3                   (H << 2) + D + 2049           S
//! 0001 HLLL            extension if L = 0, u16    L + 2, 9 + ext.     (H << 14) + D + 16384         S
//! 001L LLLL            extension if L = 0, u16    L + 2, 33 + ext.    D + 1                         S
//! LLLD DDSS, L >= 2    H                          L + 1               (H << 3) + D + 1              S
//!
//! u16        little-endian: D in the upper fourteen bits, S in the lower two
//! extension  zero bytes count 255 each, the first other byte counts itself
//! first byte above 17: a run of that many literals less 17
//! end        11 00 00, which would be a match at distance 16384 with H = 0
//! ```
//!
//! Byte diagrams of the whole wire: `docs/formats/swarm-wire.md`.
//!
//! Both directions append to a buffer of the caller and allocate nothing else. A block says nothing about its decoded
//! length: the limit comes from outside. Made for batches of 64 KiB; larger inputs work the same.

mod decode;
mod encode;
mod literal;

pub use decode::decompress;
pub use encode::{Work, compress};
pub use literal::{END, literals_front, put_literals_front};

/// A block that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LzoError {
    /// The block ends in the middle of an instruction, or without the end instruction.
    #[error("the compressed block is cut short")]
    Cut,
    /// The decoded data is longer than allowed.
    #[error("the compressed block holds more data than allowed")]
    TooLong,
    /// A match reaches back to before the beginning.
    #[error("the compressed block refers to data before its beginning")]
    Distance,
    /// The end instruction is malformed.
    #[error("the compressed block has a malformed end")]
    End,
    /// Bytes follow the end instruction.
    #[error("the compressed block ends before its last byte")]
    Trailing,
}

/// The longest match distance that the format can tell.
const MAX_DISTANCE: usize = 0xBFFF;

#[cfg(test)]
mod tests;
