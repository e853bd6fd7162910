//! Ports of 127.0.0.1 for servers of tests that cannot be told to choose one themselves.
//!
//! A port that was free a moment ago may be anybody's when the server comes to listen on it, or comes back to it after
//! a kill. So the ports are below those that the system gives to clients and to whoever asks for port 0, and each is
//! claimed: as long as it lives, the process of the test has the UDP port of the same number, which no other test can have
//! then, and no server wants.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// The ports of what is shipped begin at 21000, the system's own at 32768.
const FIRST: u16 = 11_000;
const COUNT: u32 = 9_000;

/// A port that nobody uses, and that no other test gets while this process lives.
#[must_use]
pub fn free_port() -> u16 {
    free_port_with(&[])
}

/// A port that is free and claimed together with those so far above it.
#[must_use]
pub fn free_port_with(above: &[u16]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Processes that run at the same time begin at different places.
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = (std::process::id().wrapping_mul(2_654_435_761) >> 8).wrapping_add(step * 7) % COUNT;
        let port = FIRST + u16::try_from(offset).unwrap();
        let mut claims = Vec::new();
        for port in std::iter::once(port).chain(above.iter().map(|above| port + above)) {
            claims.extend(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok().filter(|_| is_free(port)));
        }
        if claims.len() == above.len() + 1 {
            hold(claims);
            return port;
        }
    }
}

/// Claims a port that was chosen by another process, whose server goes on serving this one. It is not a mistake if that
/// process still claims it.
pub(crate) fn claim(port: u16) {
    hold(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).into_iter().collect());
}

fn hold(claims: Vec<UdpSocket>) {
    static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).extend(claims);
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_that_is_used_or_claimed() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            assert!(is_free(port), "nobody listens on it");
            assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok(), "at no address");
            assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "another process takes another one");
        }
        let pair = free_port_with(&[100]);
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, pair + 100)).is_err());
    }
}
