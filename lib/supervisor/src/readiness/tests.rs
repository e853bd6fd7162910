use super::*;
use tokio::net::TcpListener;

fn parse(line: &str) -> Result<Probe, String> {
    Probe::parse(line, &Layout::new("/p"))
}

#[test]
fn every_kind_is_read_and_written() {
    for line in [
        "tcp:127.0.0.1:1",
        "amqp:localhost:5672",
        "http:127.0.0.1:8083/readyz",
        "mongodb:127.0.0.1:27017",
        "unix:/run/x.sock",
        "log:Server startup complete: 0 plugins",
        "pidfile:/run/x.pid",
    ] {
        assert_eq!(parse(line).unwrap().to_string(), line);
    }
    assert_eq!(parse("unix:var/run/x").unwrap(), Probe::Unix("/p/var/run/x".into()));
    assert_eq!(parse("http:h:1").unwrap(), Probe::Http { address: "h:1".into(), path: "/".into() });
}

#[test]
fn a_wrong_line_says_what_is_wrong() {
    assert_eq!(parse("udp:1:2").unwrap_err(), "\"udp\" is none of amqp, http, log, mongodb, pidfile, tcp, unix");
    assert_eq!(parse("tcp:here").unwrap_err(), "\"tcp:here\": \"here\" is not HOST:PORT");
    assert_eq!(parse("tcp").unwrap_err(), "\"tcp\" is not KIND:ARGUMENT");
    assert!(parse("amqp:127.0.0.1:99999").is_err());
}

/// Answers one connection with `answer` after it has read something, and probes it with `kind`.
async fn probed(kind: &str, answer: Vec<u8>, suffix: &str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 512];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(&answer).await.unwrap();
    };
    let probe = parse(&format!("{kind}:{address}{suffix}")).unwrap();
    let context = ProbeContext::default();
    tokio::join!(probe.check(&context), server).0.map_err(|e| e.reason)
}

#[tokio::test]
async fn a_broker_is_ready_when_it_sends_connection_start() {
    assert_eq!(probed("amqp", vec![1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10, 0], "").await, Ok(()));
    let other = probed("amqp", b"AMQP\0\0\x09\x01.......".to_vec(), "").await;
    assert_eq!(other.unwrap_err(), "what answers is not an AMQP 0-9-1 broker");
    assert_eq!(probed("amqp", vec![1], "").await.unwrap_err(), "the connection was closed");
}

#[tokio::test]
async fn a_web_server_is_ready_when_it_answers_2xx() {
    assert_eq!(probed("http", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), "/readyz").await, Ok(()));
    let waiting = probed("http", b"HTTP/1.1 503 x\r\n\r\nwaiting for the broker\n".to_vec(), "/readyz").await;
    assert_eq!(waiting.unwrap_err(), "status 503 waiting for the broker");
    let other = probed("http", b"220 mail\r\n".to_vec(), "/").await;
    assert_eq!(other.unwrap_err(), "what answers does not speak HTTP");
}

#[tokio::test]
async fn a_database_is_ready_when_hello_is_ok() {
    let mut answer = Vec::new();
    let document = b"\0\0\0\0\0\x11\0\0\0\x01ok\0\0\0\0\0\0\0\xf0\x3f\0";
    answer.extend_from_slice(&i32::try_from(16 + document.len()).unwrap().to_le_bytes());
    answer.extend_from_slice(&[0; 12]);
    answer.extend_from_slice(document);
    assert_eq!(probed("mongodb", answer, "").await, Ok(()));
    assert!(probed("mongodb", b"HTTP/1.1 400 Bad".to_vec(), "").await.is_err());
}

#[tokio::test]
async fn a_text_counts_only_when_written_since_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "ready\n").unwrap();
    let probe = parse("log:ready").unwrap();
    let context = ProbeContext { log: Some((path.clone(), 6)) };
    assert!(probe.check(&context).await.is_err());
    std::fs::write(&path, "ready\nready again\n").unwrap();
    assert_eq!(probe.check(&context).await, Ok(()));
    // Rotated: the file begins anew.
    std::fs::write(&path, "ready").unwrap();
    assert_eq!(probe.check(&context).await, Ok(()));
}

#[tokio::test]
async fn nobody_there_is_said_in_plain_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = parse(&format!("tcp:{address}")).unwrap().check(&ProbeContext::default()).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("tcp:{address}: connection refused"));
    let missing = parse("pidfile:/nowhere/x").unwrap().check(&ProbeContext::default()).await.unwrap_err();
    assert_eq!(missing.reason, "it is not there");
}
