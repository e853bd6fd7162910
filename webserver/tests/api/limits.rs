use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PASSWORD, basic, read_answer, start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_refused_in_the_one_form() {
    let server = start().await;
    for path in ["/", "/nothing", "/api/v4", "/api/v4/alarms/a/b/c", "/metrics", "/..%2f..%2fetc"] {
        let answer = server.get(path).await;
        assert_eq!(answer.pair(), (404, json!({"error": "Not found"})), "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/api/v4/alarms", "GET, HEAD"),
        ("GET", "/api/v4/event", "POST"),
        ("DELETE", "/api/v4/services/x/start", "PUT"),
        ("BREW", "/healthz", "GET, HEAD"),
    ] {
        let answer = server.request(method, path, &[], None).await;
        assert_eq!(answer.pair(), (405, json!({"error": "Method not allowed"})), "{method} {path}");
        assert_eq!(answer.headers["allow"], allow);
    }
    let head = server.request("HEAD", "/healthz", &[], None).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_an_id_and_the_security_headers() {
    let server = start().await;
    for (path, status) in [("/healthz", 200), ("/nothing", 404), ("/api/v4/alarms", 401)] {
        let answer = server.request("GET", path, &["X-Request-Id: my-id.1"], None).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["x-request-id"], "my-id.1");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert!(!answer.headers.contains_key("server"));
    }
    let forged = server.request("GET", "/healthz", &["X-Request-Id: a b\tc"], None).await;
    assert_eq!(forged.headers["x-request-id"].len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_before_a_body_is_read() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v4/event HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_is_cut_off() {
    let server = start_with(|settings| {
        settings.head_timeout = Duration::from_secs(1);
        settings.body_timeout = Duration::from_secs(1);
    })
    .await;
    let limit = Duration::from_secs(15);
    // A head that never ends.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow").await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(limit, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&bytes).starts_with("HTTP/1.1 408"), "{bytes:?}");
    // A body that never ends.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v4/event HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{{",
        basic("admin", PASSWORD)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(limit, read_answer(&mut stream)).await.unwrap();
    assert_eq!(answer.pair(), (408, json!({"error": "The body did not arrive in time"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_bounded_too() {
    let server = start_with(|settings| settings.max_body_bytes = 1024).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v4/event HTTP/1.1\r\nHost: x\r\n{}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        basic("admin", PASSWORD)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    for _ in 0..2 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let answer = read_answer(&mut stream).await;
    assert_eq!(answer.pair(), (413, json!({"error": "The body has more than 1024 bytes"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_in_flight_and_closes_what_is_idle() {
    let server = start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // A request whose body is still on its way when the stop comes.
    let body = json!({"event_type": "log", "connector": "c", "connector_name": "n", "component": "h"}).to_string();
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v4/event HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Length: {}\r\n\r\n",
        basic("admin", PASSWORD),
        body.len()
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    // It is in flight once the idle one beside it has been answered and this one counted.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !in_flight(&server) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.shutdown.request();
    busy.write_all(body.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), read_answer(&mut busy)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    tokio::time::timeout(Duration::from_secs(10), server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_take_turns_and_all_of_them_are_answered() {
    let server = start().await;
    let lists = (0..20).map(|_| server.get("/api/v4/alarms?paginate=false"));
    for answer in futures_util::future::join_all(lists).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn in_flight(server: &crate::support::Server) -> bool {
    let families = server.registry.gather();
    let gauge = families.iter().find(|family| family.name().ends_with("requests_in_flight"));
    gauge.is_some_and(|gauge| gauge.get_metric()[0].get_gauge().get_value() > 0.0)
}
