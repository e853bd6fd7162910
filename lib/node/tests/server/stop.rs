//! The end of a node.

use std::time::Duration;

use overstory_node::server::{Drained, Limits};
use overstory_swarm::neo::SUPPORTED;

use crate::harness::{flood, request, until, with_limits, with_server};
use crate::toy::{BIG, L_LATER, STARTED, WAIT};

#[test]
fn what_is_being_answered_is_finished_and_streams_end() {
    with_server(async |server| {
        let (mut reader, mut waiter, idle) = (server.narrow().await, server.neo().await, server.legacy().await);
        let mut later = server.legacy().await;
        reader.request(1, BIG, &(8_u32 << 20).to_le_bytes()).await;
        reader.expect(1, &[SUPPORTED]).await;
        waiter.request(1, WAIT, &[]).await;
        waiter.expect(1, &[SUPPORTED]).await;
        later.send(&[L_LATER, 0, 0, 0]).await;
        until(|| server.stats.legacy[1].active.get() == 1).await;

        server.request_stop();
        assert_eq!(waiter.rest().await, b"");
        assert_eq!(reader.message().await.1.len(), 8 << 20);
        assert_eq!(reader.rest().await, b"");
        server.toy.later.notify_one();
        assert_eq!(later.rest().await, 200_i32.to_le_bytes());
        assert_eq!(server.stop().await, Drained { cut_off: 0 });
        drop(idle);
    });
}

#[test]
fn who_does_not_read_is_not_waited_for() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    with_limits(5000, limits, async |server| {
        let mut client = server.narrow().await;
        client.send(&flood(1, 1_000_000, 60_000)).await;
        client.expect(1, &[SUPPORTED]).await;
        client.expect(1, &[STARTED]).await;
        client.send(&request(2, BIG, &(8_u32 << 20).to_le_bytes())).await;
        until(|| server.toy.produced.get() > 0).await;
        assert_eq!(server.stop().await, Drained { cut_off: 1 });
    });
}
