//! `amqp2engines` against a real RabbitMQ and the embedded store: what goes in, what comes out, and what is left after
//! processes and broker were stopped, killed and frozen.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod collectd;
mod events;
mod faults;
mod nothing_lost;
mod poison;
mod rig;
