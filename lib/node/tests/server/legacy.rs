//! The legacy protocol: one request after the other.

use tokio::io::AsyncWriteExt;

use crate::harness::{legacy, until, with_server};
use crate::toy::{L_BREAK, L_DISCARD, L_ECHO, L_FLOOD, L_LATER, L_LISTEN, L_SINK};

const OK: [u8; 4] = 200_i32.to_le_bytes();

#[test]
fn requests_may_be_sent_before_the_replies_are_read_and_in_any_pieces() {
    with_server(async |server| {
        let script: Vec<u8> = [
            legacy(L_ECHO, 2, b"ab"),
            vec![L_SINK, 0, 0, 0, 2, 8, 9, 1, 1, 0],
            legacy(L_DISCARD, 300, &[9; 300]),
            legacy(L_FLOOD, 20_000, &[]),
            legacy(L_ECHO, 3, b"end"),
        ]
        .concat();
        let expected: Vec<u8> =
            [&OK[..], b"ab", &OK, &[3], &410_i32.to_le_bytes(), &OK, &[0; 20_000], &OK, b"end"].concat();
        for size in [1, 2, 5, 11, 13, 100, 1000] {
            let mut client = server.legacy().await;
            for piece in script.chunks(size) {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            assert!(client.read(expected.len()).await == expected, "pieces of {size}");
        }
    });
}

#[test]
fn an_answer_that_cannot_be_finished_is_sent_so_far_and_the_connection_ends() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&[legacy(L_BREAK, 20_000, &[]), legacy(L_ECHO, 2, b"no")].concat()).await;
        assert!(client.rest().await == [&OK[..], &[0; 20_000]].concat());
        until(|| server.toy.streams.get() == 0).await;
    });
}

#[test]
fn a_client_that_is_gone_ends_its_stream_even_when_nothing_is_sent() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&[L_LISTEN, 0, 0, 0]).await;
        assert_eq!(client.read(4).await, OK);
        server.toy.fire();
        assert_eq!(client.read(1).await, [1]);
        drop(client);
        until(|| server.stats.legacy_connections.get() == 0 && server.toy.streams.get() == 0).await;
    });
}

#[test]
fn a_reply_that_takes_time_keeps_what_was_sent_meanwhile() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&[L_LATER, 0, 0, 0]).await;
        client.send(&legacy(L_ECHO, 1, b"x")).await;
        until(|| server.stats.legacy[1].active.get() == 1).await;
        server.toy.later.notify_one();
        assert_eq!(client.read(9).await, [&OK[..], &OK, b"x"].concat());
        client.send(&[L_LATER, 0, 0, 0]).await;
        until(|| server.stats.legacy[1].active.get() == 1).await;
        drop(client);
        until(|| server.stats.legacy[1].active.get() == 0).await;
    });
}

#[test]
fn what_was_asked_before_the_client_closed_its_side_is_answered() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&legacy(L_ECHO, 5, b"hello")).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, [&OK[..], b"hello"].concat());
    });
}

#[test]
fn an_unknown_command_closes_without_a_word() {
    with_server(async |server| {
        let mut client = server.legacy().await;
        client.send(&legacy(99, 0, &[1; 100_000])).await;
        assert_eq!(client.rest().await, b"");
        until(|| server.stats.legacy_connections.get() == 1).await;
    });
}
