//! The channel part of the protocols.
