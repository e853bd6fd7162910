//! What idle connections cost; alone in its process, since it looks at the memory of the whole of it.
#![allow(clippy::unwrap_used, dead_code, reason = "tests, and helpers that others use")]

#[path = "server/harness.rs"]
mod harness;
#[path = "server/toy.rs"]
mod toy;

use overstory_swarm::neo::SUPPORTED;

use crate::harness::with_server;
use crate::toy::ECHO;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn idle_connections_hold_no_buffers() {
    with_server(async |server| {
        server.neo().await.echo(1).await;
        let before = resident();
        let mut clients = Vec::with_capacity(2000);
        for _ in 0..2000 {
            let mut client = server.neo().await;
            client.request(1, ECHO, &[3; 20_000]).await;
            client.expect(1, &[SUPPORTED]).await;
            assert_eq!(client.message().await.1.len(), 20_000);
            clients.push(client);
        }
        // Both ends of each connection are in this process.
        let each = resident().saturating_sub(before) / clients.len();
        println!("{each} bytes for both ends of a connection");
        assert!(each < 8 << 10, "{each} bytes for a connection");
        for client in &mut clients {
            client.echo(2).await;
        }
    });
}
