//! The wire protocols of the swarm family, without I/O.
//!
//! Two protocols share names and batches: *legacy* (one request at a time on a connection, no authentication) and
//! *neo* (authenticated, multiplexed). Decoders take bytes and answer with what is missing, a borrowed request or an
//! error; encoders append to a buffer. No length from outside is trusted. `docs/formats/swarm-wire.md` has the byte
//! diagrams and limits.
#![forbid(unsafe_code)]

pub mod auth;
pub mod batch;
pub mod channel;
#[doc(hidden)]
pub mod fuzzing;
pub mod key;
pub mod legacy;
pub mod lzo;
pub mod neo;
pub mod wire;

#[cfg(test)]
mod golden;
