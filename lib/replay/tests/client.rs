//! A raw client reads what it is told to.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;

use overstory_replay::Connection;

fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("an address of version 4") };
    (Connection::open(address), listener.accept().unwrap().0)
}

/// A process that was stopped and goes on has its reads broken off where they have a timeout. On a machine on which
/// somebody stops processes the tests of the nodes failed for it.
#[test]
fn who_is_stopped_while_it_reads_reads_on() {
    let (mut client, mut node) = pair();
    let reading = std::thread::spawn(move || (client.read(3), client.is_silent()));
    for byte in *b"abc" {
        let stop = format!("sleep 0.05; kill -STOP {0}; kill -CONT {0}", std::process::id());
        assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        node.write_all(&[byte]).unwrap();
    }
    assert_eq!(reading.join().unwrap(), (b"abc".to_vec(), true));
}

#[test]
fn what_comes_before_the_end_is_not_lost_to_what_was_read_ahead() {
    let (mut client, mut node) = pair();
    node.write_all(b"\x03\0\0\0\0\0\0\0abcd").unwrap();
    assert_eq!(client.read_array(), b"abc");
    assert!(!client.is_silent());
    node.write_all(b"efg").unwrap();
    drop(node);
    assert_eq!(client.until_closed(), b"defg");
    assert!(client.is_closed());
}
