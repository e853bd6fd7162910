//! Neo: dht.
