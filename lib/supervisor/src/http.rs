//! One HTTP request over a unix socket, as little of HTTP/1.1 as supervisord's server needs.
//!
//! Each call has a connection of its own: connecting to a unix socket costs microseconds, and a call that waits in
//! supervisord then blocks no other.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Largest head of an answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Largest body of an answer.
pub(crate) const MAX_BODY_BYTES: usize = 8 << 20;

/// Tells why an exchange over the socket failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Nothing listens on the socket, or there is none.
    #[error("nothing listens on the socket: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The answer is not HTTP, or not of the kind that supervisord sends.
    #[error("the answer is not understood: {0}")]
    Malformed(&'static str),
    /// The answer is larger than we accept.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The server refused the request.
    #[error("the server answered with status {0}")]
    Status(u16),
}

/// Posts `body` to `/RPC2` and returns the body of the answer.
///
/// # Errors
/// When nothing listens, the connection breaks, or the answer is not a 200 with a length within the limits.
pub(crate) async fn post(socket: &Path, body: &str) -> Result<Vec<u8>, HttpError> {
    let mut stream = UnixStream::connect(socket).await.map_err(HttpError::Connect)?;
    let request = format!(
        "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut received = Vec::with_capacity(4096);
    let head = loop {
        if let Some(head) = parse_head(&received)? {
            break head;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(HttpError::Malformed("it ends in its head"));
        }
    };
    let total = head.body_at + head.length;
    while received.len() < total {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(HttpError::Malformed("it is shorter than its Content-Length"));
        }
    }
    received.truncate(total);
    received.drain(..head.body_at);
    Ok(received)
}

struct Head {
    body_at: usize,
    length: usize,
}

/// Reads the head of an answer; `None` while it is incomplete.
fn parse_head(received: &[u8]) -> Result<Option<Head>, HttpError> {
    let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if received.len() > MAX_HEAD_BYTES { Err(HttpError::TooLarge(MAX_HEAD_BYTES)) } else { Ok(None) };
    };
    let head = received.get(..end).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| HttpError::Malformed("its head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(200) => {}
        Some(code) => return Err(HttpError::Status(code)),
        None => return Err(HttpError::Malformed("it has no status line")),
    }
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            let parsed = value.trim().parse::<usize>();
            length = Some(parsed.map_err(|_| HttpError::Malformed("its Content-Length is not a number"))?);
        }
    }
    match length {
        None => Err(HttpError::Malformed("it has no Content-Length")),
        Some(length) if length > MAX_BODY_BYTES => Err(HttpError::TooLarge(MAX_BODY_BYTES)),
        Some(length) => Ok(Some(Head { body_at: end + 4, length })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn answer(bytes: &'static [u8]) -> Result<Vec<u8>, HttpError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"POST /RPC2 HTTP/1.1\r\n"));
            // Byte by byte: the reader must not depend on how an answer is cut.
            for byte in bytes {
                let _ = stream.write_all(&[*byte]).await;
            }
        };
        tokio::join!(post(&path, "<x/>"), server).0
    }

    #[tokio::test]
    async fn a_body_is_cut_at_its_length() {
        let body = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nX: y\r\n\r\nabcdef").await.unwrap();
        assert_eq!(body, b"abc");
    }

    #[tokio::test]
    async fn answers_that_are_not_understood_are_refused() {
        let not_http: &[u8] = b"SSH-2.0-x\r\n\r\n";
        let no_length: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nabc";
        let short: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        let huge: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert!(matches!(answer(not_http).await, Err(HttpError::Malformed(_))));
        assert!(matches!(answer(no_length).await, Err(HttpError::Malformed(_))));
        assert!(matches!(answer(short).await, Err(HttpError::Malformed(_))));
        assert!(matches!(answer(huge).await, Err(HttpError::TooLarge(_))));
        assert!(matches!(answer(b"HTTP/1.1 401 No\r\n\r\n").await, Err(HttpError::Status(401))));
    }

    #[tokio::test]
    async fn a_socket_without_listener_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let error = post(&dir.path().join("none"), "").await.unwrap_err();
        assert!(matches!(error, HttpError::Connect(_)));
    }
}
