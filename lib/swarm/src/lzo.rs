//! The lzo part of the protocols.
