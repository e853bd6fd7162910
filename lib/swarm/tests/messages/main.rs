//! What holds for every message of both protocols: it comes back from its bytes, however they arrive, and no bytes from
//! outside make a decoder panic or wait for more than its limits.
#![allow(clippy::unwrap_used, reason = "tests")]

mod arbitrary;
mod legacy;
mod limits;
mod neo;
mod parts;
