//! The server with a toy engine, over loopback sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod blocked;
mod bounds;
mod commits;
mod handshake;
mod harness;
mod legacy;
mod multiplex;
mod places;
mod stop;
mod toy;
