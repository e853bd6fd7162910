//! Operators' commands.

pub mod amqp2tty;
pub mod hypcontrol;
pub mod overstory_admin;
pub mod send_event;
pub mod service;
pub mod swarm;
