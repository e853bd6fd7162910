//! A client of swarm nodes.
