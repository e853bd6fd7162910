//! The dht node and its tools.
