//! Memory, time and places are bounded, whatever clients do.

use std::time::Duration;

use overstory_node::server::Limits;
use overstory_swarm::neo::SUPPORTED;
use overstory_swarm::neo::frame::{self, Kind};

use crate::harness::{flood, legacy, request, until, with_limits, with_server};
use crate::toy::{BIG, ECHO, L_ECHO};

#[test]
fn lengths_without_end_close_the_connection_at_once() {
    with_server(async |server| {
        for length in [1 << 63, u64::MAX, (64 << 20) + 100] {
            let mut neo = server.neo().await;
            neo.send(&frame::header(Kind::Request, length)).await;
            assert_eq!(neo.rest().await, b"");
            let mut client = server.legacy().await;
            client.send(&legacy(L_ECHO, length, &[])).await;
            assert_eq!(client.rest().await, b"");
        }
    });
}

#[test]
fn a_request_as_long_as_allowed_is_taken() {
    let limits = Limits { request_bytes: 1 << 20, ..Limits::default() };
    with_limits(5000, limits, async |server| {
        let mut client = server.neo().await;
        client.request(1, ECHO, &vec![5; (1 << 20) - 10]).await;
        client.expect(1, &[SUPPORTED]).await;
        assert_eq!(client.message().await.1.len(), (1 << 20) - 10);
        client.send(&request(1, ECHO, &vec![5; (1 << 20) - 9])[..frame::HEADER]).await;
        assert_eq!(client.rest().await, b"");
    });
}

#[test]
fn requests_of_a_client_that_does_not_read_wait() {
    with_server(async |server| {
        let (mut slow, mut other) = (server.narrow().await, server.neo().await);
        let (asked, size) = (200_u64, 100_000_u32);
        let requests: Vec<u8> = (0..asked).flat_map(|id| request(id, BIG, &size.to_le_bytes())).collect();
        slow.send(&requests).await;
        for id in 0..50 {
            other.echo(id).await;
        }
        // A MiB unsent, what the kernels keep, and the reply that made it too much.
        let made = server.toy.produced.get();
        assert!(made < 6 << 20, "{made} bytes of replies");
        for id in 0..asked {
            slow.expect(id, &[SUPPORTED]).await;
            assert_eq!(slow.message().await.1.len(), size as usize);
        }
        assert_eq!(server.stats.dropped_slow.get(), 0);
    });
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let limits = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    with_limits(5000, limits, async |server| {
        let (mut slow, mut idle) = (server.narrow().await, server.neo().await);
        slow.send(&flood(1, 160_000, 64_000)).await;
        until(|| server.stats.dropped_slow.get() == 1).await;
        until(|| server.toy.streams.get() == 0).await;
        assert_eq!(server.stats.neo_connections.get(), 1);
        idle.echo(1).await;
    });
}

#[test]
fn those_that_hold_the_most_go_when_all_hold_too_much() {
    let limits = Limits { buffer_budget_bytes: 4 << 20, ..Limits::default() };
    with_limits(5000, limits, async |server| {
        let (mut large, mut larger, mut small) = (server.neo().await, server.neo().await, server.neo().await);
        // Requests that are never complete.
        small.send(&request(1, ECHO, b"hello")[..20]).await;
        let bytes = request(1, ECHO, &vec![1; 20 << 20]);
        large.send(&bytes[..1 << 20]).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut larger.stream, &bytes[..6 << 20]).await;
        until(|| server.stats.neo_connections.get() == 2).await;
        small.send(&request(1, ECHO, b"hello")[20..]).await;
        small.expect(1, &[SUPPORTED]).await;
        small.expect(1, b"hello").await;
        small.echo(2).await;
        let mut byte = [0];
        assert!(tokio::io::AsyncReadExt::read(&mut larger.stream, &mut byte).await.map_or(0, |count| count) == 0);
        let _ = large;
    });
}

#[test]
fn strangers_make_room_and_clients_do_not() {
    with_limits(3, Limits::default(), async |server| {
        let mut first = server.neo().await;
        let (mut stranger, mut later) = (server.raw().await, server.raw().await);
        until(|| server.stats.neo_connections.get() == 3).await;
        // The stranger who waits longest goes, whoever comes.
        let mut legacy_client = server.legacy().await;
        assert_eq!(stranger.rest().await, b"");
        legacy_client.send(&legacy(L_ECHO, 1, b"x")).await;
        legacy_client.read(5).await;
        let mut second = server.neo().await;
        assert_eq!(later.rest().await, b"");
        // All three places are taken by clients now.
        let mut refused = server.raw().await;
        assert!(tokio::io::AsyncReadExt::read(&mut refused.stream, &mut [0]).await.map_or(0, |count| count) == 0);
        assert_eq!(server.stats.refused_connections.get(), 3);
        first.echo(1).await;
        second.echo(1).await;
        drop(first);
        until(|| server.stats.neo_connections.get() == 1).await;
        server.neo().await.echo(1).await;
    });
}
