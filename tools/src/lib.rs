//! Operators' commands.

pub mod hypcontrol;
pub mod service;
