//! Who may come in, and what those learn who may not.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use overstory_node::server::Limits;
use overstory_swarm::auth::{self, ClientKey, KEY};
use overstory_swarm::neo::frame::HEADER;

use crate::harness::{Client, NOW, until, with_limits, with_server};

/// What a recording says of one message.
struct Line {
    connection: u64,
    client: bool,
    bytes: Vec<u8>,
    note: String,
}

fn recording(name: &str) -> Vec<Line> {
    let path = format!("{}/../../tests/vectors/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let hex = line["hex"].as_str().unwrap();
        let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap());
        Line {
            connection: line["conn"].as_u64().unwrap(),
            client: line["from"] == "client",
            bytes: bytes.collect(),
            note: line["note"].as_str().unwrap().to_owned(),
        }
    };
    text.lines().map(line).collect()
}

/// Makes the proof again for another nonce, as right or wrong as it was.
fn proof(recorded: &[u8], timestamp: u64, nonce: [u8; 4], note: &str) -> Vec<u8> {
    let (name, _) = auth::read_proof(&recorded[HEADER..]).unwrap();
    let mut code = auth::code(&ClientKey([0; KEY]), timestamp, nonce);
    if note.contains("first bit wrong") {
        code[0] ^= 0x80;
    }
    let mut out = Vec::new();
    auth::put_proof(&mut out, name, &code);
    out
}

/// Plays the connections of a recording in which no request is answered.
async fn replay(client: &mut Client, lines: &[&Line]) {
    let (mut time, mut nonce) = (0, [0; 4]);
    for line in lines {
        match (line.client, line.bytes.as_slice()) {
            (true, bytes) => {
                if line.note.starts_with("auth: client time") {
                    time = auth::read_time(&bytes[HEADER..]).unwrap();
                }
                if line.note.contains("HMAC-SHA512 code") {
                    client.send(&proof(bytes, time, nonce, &line.note)).await;
                } else {
                    client.send(bytes).await;
                }
            }
            (false, []) => assert_eq!(client.rest().await, b"", "{}", line.note),
            (false, bytes) => {
                let got = client.read(bytes.len()).await;
                if line.note.starts_with("auth: nonce") {
                    assert_eq!(got[..HEADER], bytes[..HEADER]);
                    nonce = auth::read_nonce(&got[HEADER..]).unwrap();
                } else {
                    assert_eq!(got, bytes, "{}", line.note);
                }
            }
        }
    }
}

#[test]
fn the_recorded_rejections_and_violations_are_answered_as_recorded() {
    with_server(async |server| {
        for name in ["neo-auth-rejected", "neo-protocol-errors"] {
            let lines = recording(name);
            // From 12 on there are requests, which the engine answers; 12 and 13 see the next test.
            for connection in 1..=11 {
                let lines: Vec<&Line> =
                    lines.iter().filter(|line| line.connection == connection && line.bytes != [0xff]).collect();
                replay(&mut server.raw().await, &lines).await;
            }
        }
    });
}

#[test]
fn a_message_too_short_for_a_request_is_dropped_and_not_the_connection() {
    with_server(async |server| {
        let mut client = server.neo().await;
        client.send(&crate::harness::message(5, &[])).await;
        client.send(&crate::harness::message(5, &[2])).await;
        client.echo(6).await;
    });
}

#[test]
fn clocks_half_an_hour_apart_and_removed_clients_are_refused() {
    let log = Arc::new(Mutex::new(Vec::new()));
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let writer = Log(Arc::clone(&log));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    with_limits(5000, Limits { write_stall: Duration::from_millis(80), ..Limits::default() }, async |server| {
        let key = ClientKey([0; KEY]);
        for (name, time, key) in [
            ("test", NOW + 31 * 60, key.clone()),
            ("test", NOW - 31 * 60, key.clone()),
            ("x\ny", NOW, key.clone()),
            ("test", NOW, ClientKey([1; KEY])),
        ] {
            let mut client = server.raw().await;
            client.send(&[1]).await;
            client.read(1).await;
            assert_eq!(client.prove(name, time, &key).await, 0);
            assert_eq!(client.rest().await, b"");
        }
        let mut stays = server.neo().await;
        stays.echo(1).await;
        *server.credentials.borrow_mut() = Default::default();
        assert_eq!(stays.rest().await, b"");
        until(|| server.stats.neo_connections.get() == 0).await;
    });
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("WARN node.connection: Authentication failure for client 'test': ").count(), 3, "{log}");
    assert!(log.contains(r"Authentication failure for client 'x\ny': Unknown client name"), "{log}");
}

#[test]
fn who_does_not_authenticate_is_closed() {
    let limits = Limits { authentication: Duration::from_millis(60), ..Limits::default() };
    with_limits(5000, limits, async |server| {
        let (mut silent, mut halfway, mut known) = (server.raw().await, server.raw().await, server.neo().await);
        halfway.send(&[1]).await;
        assert_eq!(halfway.rest().await, [1]);
        assert_eq!(silent.rest().await, b"");
        known.echo(1).await;
    });
}

#[test]
fn a_byte_at_a_time_is_as_good_as_all_at_once() {
    with_server(async |server| {
        let mut client = server.neo().await;
        let requests = [crate::harness::request(1, 1, b"hello"), crate::harness::request(2, 9, b"")].concat();
        for byte in requests {
            client.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        client.expect(1, &[0xfd]).await;
        client.expect(1, b"hello").await;
        client.expect(2, &[0xff]).await;
        client.send(&crate::harness::message(3, &[1, 7])).await;
        client.expect(3, &[0xfe]).await;
    });
}
