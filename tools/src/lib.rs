//! Operators' commands.

pub mod service;
