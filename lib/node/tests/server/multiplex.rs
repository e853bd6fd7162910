//! Many requests on one connection.

use overstory_swarm::neo::{MAX_ACTIVE_REQUESTS, SUPPORTED};

use crate::harness::{flood, message, request, until, with_server};
use crate::toy::{ACK, BATCH, ECHO, FINISHED, FIRE, RESUME, STARTED, STOP, SUSPEND, WAIT};

#[test]
fn streams_take_turns() {
    with_server(async |server| {
        let mut client = server.neo().await;
        client.send(&[flood(1, 50, 3000), flood(2, 50, 3000), flood(3, 50, 3000)].concat()).await;
        let (mut order, mut finished) = (Vec::new(), 0);
        while finished < 3 {
            match client.message().await {
                (id, payload) if payload[0] == BATCH => order.push(id),
                (id, payload) if payload == [FINISHED] => {
                    finished += 1;
                    client.send(&message(id, &[ACK])).await;
                }
                (_, payload) => assert!(payload == [SUPPORTED] || payload == [STARTED]),
            }
        }
        assert!(order.chunks(3).all(|turn| turn == [1, 2, 3]), "{order:?}");
        client.echo(4).await;
    });
}

#[test]
fn an_endless_stream_does_not_delay_other_requests() {
    with_server(async |server| {
        let mut client = server.narrow().await;
        // 10 GB.
        client.send(&flood(1, 160_000, 64_000)).await;
        for id in 2..30 {
            client.request(id, ECHO, b"hello").await;
            let mut between = 0;
            loop {
                let (got, payload) = client.message().await;
                if got == id && payload == b"hello" {
                    break;
                }
                between += payload.len();
            }
            // What the node keeps unsent, what its kernel keeps unsent, and what the client's kernel has already.
            assert!(between < 1 << 20, "{between} bytes before the reply");
        }
        client.send(&message(1, &[STOP])).await;
        while client.message().await.1 != [ACK] {}
        client.echo(31).await;
    });
}

#[test]
fn nothing_comes_after_the_ack_of_suspend() {
    with_server(async |server| {
        let mut client = server.neo().await;
        // Suspended right after it started, in the same packet and a moment later.
        for (first, pause) in [(1, false), (10, true)] {
            client.send(&flood(first, 1000, 8000)).await;
            client.expect(first, &[SUPPORTED]).await;
            client.expect(first, &[STARTED]).await;
            if pause {
                client.message().await;
            }
            let mut batches = usize::from(pause);
            for round in 0..5 {
                client.send(&message(first, &[SUSPEND])).await;
                loop {
                    let (_, payload) = client.message().await;
                    match payload[0] {
                        BATCH => batches += 1,
                        other => {
                            assert_eq!(other, ACK);
                            break;
                        }
                    }
                }
                assert!(batches < 1000);
                client.echo(first + 1 + round).await;
                client.send(&message(first, &[RESUME])).await;
                client.expect(first, &[ACK]).await;
                client.message().await;
                batches += 1;
            }
            loop {
                let (_, payload) = client.message().await;
                if payload == [FINISHED] {
                    break;
                }
                batches += 1;
            }
            assert_eq!(batches, 1000);
            client.send(&message(first, &[ACK])).await;
        }
    });
}

/// A client's Continue, Ack or control may cross with the end of its request. Taken for a new request it closed the
/// connection, and with it every other request. Here it is dropped, a second Ack for a GetAll as well.
#[test]
fn a_message_that_comes_late_is_dropped() {
    with_server(async |server| {
        let mut client = server.neo().await;
        client.send(&flood(1, 1, 10)).await;
        while client.message().await.1 != [FINISHED] {}
        client.send(&message(1, &[SUSPEND])).await;
        client.echo(2).await;
        client.send(&message(1, &[ACK])).await;
        client.echo(3).await;
        client.send(&message(1, &[ACK])).await;
        // This one would be a request.
        client.send(&request(1, ECHO, b"late")).await;
        client.echo(4).await;
    });
}

#[test]
fn a_stream_that_waits_is_woken_alone_and_by_other_connections() {
    with_server(async |server| {
        let (mut client, mut other) = (server.neo().await, server.neo().await);
        client.send(&[request(1, WAIT, &[]), request(2, WAIT, &[])].concat()).await;
        client.expect(1, &[SUPPORTED]).await;
        client.expect(2, &[SUPPORTED]).await;
        for id in 1..5 {
            other.request(id, FIRE, &[]).await;
            other.expect(id, &[SUPPORTED]).await;
            client.expect(1, &[1]).await;
            client.expect(2, &[1]).await;
        }
        client.request(3, FIRE, &[]).await;
        client.expect(3, &[SUPPORTED]).await;
        client.expect(1, &[1]).await;
        client.expect(2, &[1]).await;
        assert_eq!(server.stats.neo[2].max_active.get(), 2);
        drop(client);
        until(|| server.stats.neo[2].active.get() == 0).await;
        other.echo(7).await;
    });
}

#[test]
fn an_unknown_control_closes_after_what_was_queued() {
    with_server(async |server| {
        let mut client = server.neo().await;
        client.send(&flood(1, 1, 10)).await;
        client.send(&message(1, &[9])).await;
        let rest = client.rest().await;
        assert!(rest.ends_with(&message(1, &[STARTED])) || rest.ends_with(&message(1, &[FINISHED])));
    });
}

#[test]
fn five_thousand_requests_and_one_more() {
    with_server(async |server| {
        let mut client = server.neo().await;
        let mut other = server.neo().await;
        let active = MAX_ACTIVE_REQUESTS as u64;
        let requests: Vec<u8> = (0..active).flat_map(|id| request(id, WAIT, &[])).collect();
        client.send(&requests).await;
        for id in 0..active {
            client.expect(id, &[SUPPORTED]).await;
        }
        other.request(1, FIRE, &[]).await;
        for id in 0..active {
            client.expect(id, &[1]).await;
        }
        client.request(active, ECHO, &[]).await;
        assert_eq!(client.rest().await, b"");
        until(|| server.stats.neo[2].active.get() == 0).await;
    });
}

#[test]
fn any_split_of_the_bytes_gives_the_same_answers() {
    with_server(async |server| {
        let script: Vec<u8> = [
            request(1, ECHO, b""),
            request(2, ECHO, &[7; 300]),
            flood(3, 0, 0),
            request(4, 77, b"unknown"),
            message(5, &[]),
            message(6, &[ECHO, 3]),
            request(8, ECHO, b"last"),
        ]
        .concat();
        let mut answers: Vec<Vec<(u64, Vec<u8>)>> = Vec::new();
        for size in [1, 2, 3, 7, 17, 18, 19, 100, 350, 10_000] {
            let mut client = server.neo().await;
            for piece in script.chunks(size) {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            let mut got = Vec::new();
            while got.len() < 11 {
                got.push(client.message().await);
            }
            // Finished comes when the stream has its turn.
            got.sort();
            answers.push(got);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    });
}
