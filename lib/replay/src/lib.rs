//! Recorded conversations of swarm nodes, played against an engine in this process.
