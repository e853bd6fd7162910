//! What the library does with a real RabbitMQ.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod archive;
mod common;
mod consumer;
mod dead;
mod outage;
mod publisher;
