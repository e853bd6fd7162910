//! The key part of the protocols.
