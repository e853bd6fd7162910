//! Requests whose client goes on sending while the node has no room.

use std::time::Duration;

use overstory_node::server::{Drained, Limits};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use crate::harness::{legacy, until, with_limits, with_server};
use crate::toy::{L_ECHO, L_STORE};

const OK: [u8; 4] = 200_i32.to_le_bytes();
const NEVER: Duration = Duration::from_secs(3600);

/// The request with so many items of a hundred bytes, and what is stored of them.
fn items(count: u32) -> (Vec<u8>, Vec<u8>) {
    let values: Vec<[u8; 100]> = (0..count).map(|n| [n.to_le_bytes(); 25].concat().try_into().unwrap()).collect();
    let mut request = vec![L_STORE, 0, 0, 0];
    values.iter().for_each(|value| {
        request.push(100);
        request.extend_from_slice(value);
    });
    request.push(0);
    (request, values.concat())
}

#[test]
fn a_client_waits_while_there_is_no_room_and_nothing_is_lost() {
    with_server(async |server| {
        let (mut client, mut other) = (server.legacy().await, server.neo().await);
        let count = 200_000;
        let (mut request, stored) = items(count);
        request.extend_from_slice(&legacy(L_ECHO, 1, b"x"));
        let (mut reader, mut writer) = client.stream.split();
        let sending = async { writer.write_all(&request).await.unwrap() };
        let serving = async {
            until(|| server.stats.bytes_received.get() >= 64 << 10).await;
            for id in 0..20 {
                other.echo(id).await;
            }
            let received = server.stats.bytes_received.get();
            assert!(received < 256 << 10, "{received} bytes were read");
            assert_eq!(server.stats.legacy[1].active.get(), 1);
            for room in [0, 1, 2, 700] {
                server.toy.journal.make_room(room);
                let expected = 100 * [0, 1, 3, 703].iter().filter(|sum| **sum >= room).min().unwrap();
                until(|| server.toy.journal.stored.borrow().len() == expected).await;
            }
            server.toy.journal.make_room(count as usize);
        };
        tokio::join!(sending, serving);
        let mut reply = [0; 10];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut reply).await.unwrap();
        assert_eq!(reply.as_slice(), [&OK[..], &[1], &OK, b"x"].concat());
        assert!(*server.toy.journal.stored.borrow() == stored);
    });
}

#[test]
fn what_was_sent_before_the_client_left_is_kept_until_there_is_room() {
    with_limits(5000, Limits { idle: Duration::ZERO, begun: NEVER, ..Limits::default() }, async |server| {
        for half in [false, true] {
            server.toy.journal.stored.borrow_mut().clear();
            let mut client = server.legacy().await;
            let (request, stored) = items(500);
            client.send(&request).await;
            assert_eq!(client.read(4).await, OK);
            until(|| server.stats.legacy[1].active.get() == 1).await;
            client.stream.shutdown().await.unwrap();
            let client = half.then_some(client);
            let mut other = server.neo().await;
            for id in 0..20 {
                other.echo(id).await;
            }
            for room in [1, 100, 398] {
                assert_eq!(server.stats.legacy_connections.get(), 1);
                server.toy.journal.make_room(room);
            }
            until(|| server.toy.journal.stored.borrow().len() == 49_900).await;
            server.toy.journal.make_room(1);
            if let Some(mut client) = client {
                assert_eq!(client.rest().await, [1]);
            }
            until(|| server.stats.legacy_connections.get() == 0).await;
            assert!(*server.toy.journal.stored.borrow() == stored);
        }
    });
}

#[test]
fn a_client_that_breaks_off_gives_its_place_back() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&items(500).0).await;
        assert_eq!(client.read(4).await, OK);
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        until(|| server.stats.legacy_connections.get() == 0).await;
        server.toy.journal.make_room(1);
        assert!(server.toy.journal.stored.borrow().is_empty());
    });
}

#[test]
fn who_waits_for_room_is_not_displaced_and_who_left_is() {
    let limits = Limits { silent: Duration::ZERO, idle: Duration::ZERO, begun: Duration::ZERO, ..Limits::default() };
    with_limits(1, limits, async |server| {
        let mut client = server.legacy().await;
        client.send(&items(500).0).await;
        assert_eq!(client.read(4).await, OK);
        for _ in 0..20 {
            let mut refused = server.legacy().await;
            assert_eq!(tokio::io::AsyncReadExt::read(&mut refused.stream, &mut [0]).await.unwrap_or(0), 0);
        }
        client.stream.shutdown().await.unwrap();
        loop {
            let mut next = server.legacy().await;
            let _ = next.stream.write_all(&legacy(L_ECHO, 1, b"x")).await;
            let mut reply = [0; 5];
            if tokio::io::AsyncReadExt::read_exact(&mut next.stream, &mut reply).await.is_ok() {
                break;
            }
        }
        assert!(server.toy.journal.stored.borrow().is_empty());
    });
}

#[test]
fn nobody_waits_for_room_at_the_end() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&items(500).0).await;
        assert_eq!(client.read(4).await, OK);
        assert_eq!(server.stop().await, Drained { cut_off: 0 });
    });
}
