//! Replies that wait until the changes they speak of are durable.

use std::time::Duration;

use overstory_node::server::{Drained, Limits};
use overstory_swarm::neo::SUPPORTED;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Client, Harness, flood, legacy, request, until, with_limits, with_server};
use crate::toy::{BIG, ECHO, L_ECHO, L_PUSH, L_STORE, PUSH};

const OK: [u8; 4] = 200_i32.to_le_bytes();
const L_PUSHES: [u8; 4] = [L_PUSH, 0, 0, 0];

/// Runs a test against a server whose replies wait.
fn with_commits(limits: Limits, test: impl AsyncFnOnce(&Harness)) {
    with_limits(5000, limits, async |server| {
        server.toy.keeps.set(true);
        test(server).await;
    });
}

impl Harness {
    fn made(&self) -> u64 {
        self.toy.journal.commits.made()
    }

    fn reached(&self, number: u64) {
        self.toy.journal.commits.reached(number);
    }

    /// Sends some requests and waits until they have made so many changes.
    async fn push(&self, client: &mut Client, bytes: &[u8], changes: u64) {
        let before = self.made();
        client.send(bytes).await;
        until(|| self.made() == before + changes).await;
    }
}

/// Checks that nothing comes although the server has had every chance.
async fn silent(client: &Client, other: &mut Client) {
    for id in 0..20 {
        other.echo(id).await;
    }
    let error = client.stream.try_read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

async fn answered(client: &mut Client, id: u64) {
    client.expect(id, &[SUPPORTED]).await;
    client.expect(id, &[1]).await;
}

#[test]
fn after_a_failure_who_waits_is_closed_without_a_word_and_others_are_served() {
    with_commits(Limits::default(), async |server| {
        let (mut client, mut older, mut other) = (server.neo().await, server.legacy().await, server.neo().await);
        server.push(&mut older, &L_PUSHES, 1).await;
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        server.push(&mut client, &[request(2, PUSH, &[]), request(3, ECHO, b"x")].concat(), 1).await;
        server.reached(2);
        server.toy.journal.commits.fail();
        assert_eq!(older.read(4).await, OK);
        answered(&mut client, 1).await;
        assert_eq!(client.rest().await, b"");
        other.echo(7).await;
        // It has made a change in between: even that it was echoed is not said.
        other.send(&[request(8, PUSH, &[]), request(9, ECHO, b"x")].concat()).await;
        assert_eq!(other.rest().await, b"");
    });
}

#[test]
fn what_could_not_be_settled_is_never_answered() {
    with_commits(Limits::default(), async |server| {
        for keeps in [true, false] {
            server.toy.keeps.set(keeps);
            server.reached(server.made());
            let (mut client, mut older, mut other) = (server.neo().await, server.legacy().await, server.neo().await);
            client.echo(0).await;
            server.toy.journal.broken.set(true);
            let burst: Vec<u8> = (1..500).flat_map(|id| request(id, PUSH, &[])).collect();
            server.push(&mut client, &burst, 499).await;
            server.reached(server.made());
            assert_eq!(client.rest().await, b"");
            // What made nothing but changed something is settled as well.
            server.toy.journal.make_room(1);
            older.send(&[L_STORE, 0, 0, 0, 1, 7]).await;
            assert_eq!(older.rest().await, b"");
            server.toy.journal.broken.set(false);
            other.echo(1).await;
        }
    });
}

#[test]
fn everything_is_settled_before_it_is_answered_and_when_there_is_no_answer() {
    with_server(async |server| {
        let journal = &server.toy.journal;
        let (mut client, mut older) = (server.neo().await, server.legacy().await);
        for id in 1..50 {
            client.request(id, PUSH, &[]).await;
            answered(&mut client, id).await;
            assert_eq!(journal.settled.get(), id);
        }
        older.send(&[L_STORE, 0, 0, 0]).await;
        assert_eq!(older.read(4).await, OK);
        journal.make_room(1);
        older.send(&[1, 7]).await;
        until(|| journal.settled.get() == 50).await;
    });
}

#[test]
fn replies_wait_for_their_change_and_earlier_ones_do_not() {
    with_commits(Limits::default(), async |server| {
        let (mut client, mut older, mut other) = (server.neo().await, server.legacy().await, server.neo().await);
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        server.push(&mut older, &L_PUSHES, 1).await;
        server.push(&mut client, &request(2, PUSH, &[]), 1).await;
        client.request(3, ECHO, b"hello").await;
        silent(&client, &mut other).await;
        server.reached(1);
        answered(&mut client, 1).await;
        silent(&older, &mut other).await;
        server.reached(2);
        assert_eq!(older.read(4).await, OK);
        silent(&client, &mut other).await;
        server.reached(3);
        answered(&mut client, 2).await;
        client.expect(3, &[SUPPORTED]).await;
        client.expect(3, b"hello").await;
        client.echo(4).await;
    });
}

#[test]
fn a_change_without_a_reply_holds_back_the_reply_that_follows() {
    with_commits(Limits::default(), async |server| {
        let (mut client, mut other) = (server.legacy().await, server.neo().await);
        client.send(&[L_STORE, 0, 0, 0]).await;
        assert_eq!(client.read(4).await, OK);
        server.toy.journal.make_room(10);
        server.push(&mut client, &[1, 7, 1, 8], 2).await;
        client.send(&[0]).await;
        silent(&client, &mut other).await;
        server.reached(1);
        silent(&client, &mut other).await;
        server.reached(2);
        assert_eq!(client.read(1).await, [1]);
    });
}

#[test]
fn what_waits_counts_as_unsent() {
    let limits = Limits { max_unsent_bytes: 1000, ..Limits::default() };
    with_commits(limits, async |server| {
        let (mut client, mut other) = (server.neo().await, server.neo().await);
        let requests: Vec<u8> = (0..5000).flat_map(|id| request(id, PUSH, &[])).collect();
        client.send(&requests).await;
        until(|| server.made() > 0).await;
        silent(&client, &mut other).await;
        assert!(server.made() < 40, "{} changes", server.made());
        for id in 0..5000 {
            while server.made() <= id {
                tokio::task::yield_now().await;
            }
            server.reached(server.made());
            answered(&mut client, id).await;
        }
    });
}

#[test]
fn who_waits_for_a_change_is_no_client_that_does_not_read() {
    let limits = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    with_commits(limits, async |server| {
        let (mut client, mut slow) = (server.neo().await, server.narrow().await);
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        for dropped in 1..4 {
            slow.send(&flood(1, 160_000, 64_000)).await;
            until(|| server.stats.dropped_slow.get() == dropped).await;
            slow = server.narrow().await;
        }
        server.reached(1);
        answered(&mut client, 1).await;
        // One that has something to read is, whatever else waits for it.
        client.send(&[request(2, BIG, &(16_u32 << 20).to_le_bytes()), request(3, PUSH, &[])].concat()).await;
        until(|| server.stats.dropped_slow.get() == 4).await;
    });
}

#[test]
fn who_waits_for_a_change_is_not_displaced() {
    let limits = Limits { silent: Duration::ZERO, idle: Duration::ZERO, begun: Duration::ZERO, ..Limits::default() };
    with_limits(1, limits, async |server| {
        server.toy.keeps.set(true);
        let mut client = server.legacy().await;
        server.push(&mut client, &L_PUSHES, 1).await;
        for _ in 0..20 {
            let mut refused = server.legacy().await;
            assert_eq!(refused.stream.read(&mut [0]).await.unwrap_or(0), 0);
        }
        server.reached(1);
        assert_eq!(client.read(4).await, OK);
    });
}

#[test]
fn many_connections_wait_for_one_commit() {
    with_commits(Limits::default(), async |server| {
        let mut clients = Vec::new();
        for _ in 0..2000 {
            clients.push(server.legacy().await);
        }
        for round in 1..4 {
            for client in &mut clients {
                client.send(&[&L_PUSHES[..], &legacy(L_ECHO, 1, b"x")].concat()).await;
            }
            until(|| server.made() == 2000 * round).await;
            let error = clients[0].stream.try_read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            server.reached(server.made() - 500);
            server.reached(server.made());
            for client in &mut clients {
                assert_eq!(client.read(9).await, [&OK[..], &OK, b"x"].concat());
            }
        }
    });
}

#[test]
fn a_client_that_leaves_while_its_reply_waits_leaves_nothing_behind() {
    with_commits(Limits::default(), async |server| {
        let (mut half, mut whole, mut broken) = (server.legacy().await, server.legacy().await, server.legacy().await);
        for client in [&mut half, &mut whole, &mut broken] {
            server.push(client, &L_PUSHES, 1).await;
        }
        half.stream.shutdown().await.unwrap();
        drop(whole);
        SockRef::from(&broken.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(broken);
        until(|| server.stats.legacy_connections.get() == 2).await;
        server.reached(3);
        assert_eq!(half.rest().await, OK);
        until(|| server.stats.legacy_connections.get() == 0).await;
    });
}

#[test]
fn an_error_is_not_told_before_what_came_before_it() {
    with_commits(Limits::default(), async |server| {
        let (mut client, mut other) = (server.legacy().await, server.neo().await);
        server.push(&mut client, &[&L_PUSHES[..], &legacy(99, 0, &[])].concat(), 1).await;
        silent(&client, &mut other).await;
        server.reached(1);
        assert_eq!(client.rest().await, OK);
    });
}

#[test]
fn replies_that_wait_are_sent_before_the_end() {
    with_commits(Limits::default(), async |server| {
        let (mut client, mut older, idle) = (server.neo().await, server.legacy().await, server.neo().await);
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        server.push(&mut older, &L_PUSHES, 1).await;
        server.request_stop();
        until(|| server.stats.neo_connections.get() == 1).await;
        server.reached(1);
        answered(&mut client, 1).await;
        assert_eq!(client.rest().await, b"");
        server.reached(2);
        assert_eq!(older.rest().await, OK);
        assert_eq!(server.stop().await, Drained { cut_off: 0 });
        drop(idle);
    });
}

#[test]
fn a_failure_at_the_end_closes_those_who_wait() {
    with_commits(Limits::default(), async |server| {
        let mut client = server.neo().await;
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        server.request_stop();
        tokio::task::yield_now().await;
        server.toy.journal.commits.fail();
        assert_eq!(client.rest().await, b"");
        assert_eq!(server.stop().await, Drained { cut_off: 0 });
    });
}

#[test]
fn a_commit_that_never_comes_is_not_waited_for_at_the_end() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    with_commits(limits, async |server| {
        let mut client = server.neo().await;
        server.push(&mut client, &request(1, PUSH, &[]), 1).await;
        assert_eq!(server.stop().await, Drained { cut_off: 1 });
        assert_eq!(client.stream.read(&mut [0]).await.unwrap_or(0), 0);
    });
}
