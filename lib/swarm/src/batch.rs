//! The batch part of the protocols.
