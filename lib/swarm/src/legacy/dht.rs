//! Legacy: dht.
