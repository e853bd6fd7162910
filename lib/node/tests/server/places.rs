//! Who makes room when the node is full.

use std::time::Duration;

use overstory_node::server::Limits;

use crate::harness::{Client, Harness, legacy, until, with_limits};
use crate::toy::{L_ECHO, L_LATER, L_LISTEN};

const NEVER: Duration = Duration::from_secs(3600);

fn limits(silent: Duration, idle: Duration, begun: Duration) -> Limits {
    Limits { silent, idle, begun, ..Limits::default() }
}

/// A request that is answered at once.
async fn ask(client: &mut Client) {
    client.send(&legacy(L_ECHO, 1, b"x")).await;
    assert_eq!(client.read(5).await, [200, 0, 0, 0, b'x']);
}

/// A legacy client that has been answered.
async fn asked(server: &Harness) -> Client {
    let mut client = server.legacy().await;
    ask(&mut client).await;
    client
}

/// Whether a newcomer is served.
async fn served(server: &Harness) -> Option<Client> {
    let mut client = server.legacy().await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &legacy(L_ECHO, 1, b"x")).await;
    let mut reply = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut reply).await.ok().map(|_| client)
}

/// Newcomers come until one is served.
async fn newcomer(server: &Harness) -> Client {
    for _ in 0..2000 {
        if let Some(client) = served(server).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody made room")
}

#[test]
fn silent_connections_make_room_before_idle_ones_for_both_protocols() {
    with_limits(3, limits(Duration::ZERO, NEVER, NEVER), async |server| {
        let mut idle = asked(server).await;
        let (mut first, mut second) = (server.legacy().await, server.legacy().await);
        until(|| server.stats.legacy_connections.get() == 3).await;
        let mut neo = server.neo().await;
        assert_eq!(first.rest().await, b"");
        let mut third = newcomer(server).await;
        assert_eq!(second.rest().await, b"");
        assert!(server.stats.refused_connections.get() >= 2);
        // Nobody is left who never sent a byte.
        assert!(served(server).await.is_none());
        ask(&mut idle).await;
        ask(&mut third).await;
        neo.echo(1).await;
    });
}

#[test]
fn idle_connections_make_room_and_active_ones_do_not() {
    with_limits(5, limits(NEVER, Duration::from_millis(40), NEVER), async |server| {
        let (mut listening, mut answered, mut begun) =
            (server.legacy().await, server.legacy().await, server.legacy().await);
        listening.send(&[L_LISTEN, 0, 0, 0]).await;
        listening.read(4).await;
        answered.send(&[L_LATER, 0, 0, 0]).await;
        begun.send(&legacy(L_ECHO, 1, b"x")[..6]).await;
        let mut neo = server.neo().await;
        let mut idle = asked(server).await;
        for _ in 0..3 {
            let next = newcomer(server).await;
            assert_eq!(idle.rest().await, b"");
            idle = next;
        }
        begun.send(&legacy(L_ECHO, 1, b"x")[6..]).await;
        assert_eq!(begun.read(5).await, [200, 0, 0, 0, b'x']);
        neo.echo(1).await;
        server.toy.fire();
        server.toy.later.notify_one();
        listening.read(1).await;
        assert_eq!(answered.read(4).await, [200, 0, 0, 0]);
    });
}

#[test]
fn a_request_that_does_not_get_on_makes_room_whatever_trickles_in() {
    with_limits(1, limits(NEVER, NEVER, Duration::from_millis(40)), async |server| {
        let mut slow = server.legacy().await;
        slow.send(&legacy(L_ECHO, 100, b"")).await;
        let trickle = async {
            while tokio::io::AsyncWriteExt::write_all(&mut slow.stream, b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (mut client, ()) = tokio::join!(newcomer(server), trickle);
        ask(&mut client).await;
    });
}
