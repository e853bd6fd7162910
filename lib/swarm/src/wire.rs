//! The wire part of the protocols.
