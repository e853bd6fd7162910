//! The auth part of the protocols.
