//! The neo protocol: authenticated, multiplexed.

pub mod frame;

pub mod dht;
pub mod dls;
pub mod dmq;
