//! One request over plain HTTP.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use overstory_runtime::Home;
use overstory_runtime::ini::{Dialect, Ini};
use serde_json::Value;
use tokio::net::TcpStream;

/// Where an installation's web server listens when nothing else is said.
const DEFAULT: &str = "127.0.0.1:8082";
/// Connecting takes no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer takes no longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes: the events come back.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Where the web server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    authority: String,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl Server {
    /// Takes `host:port` or `http://host:port`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        if text.starts_with("https://") {
            bail!("{text}: send_event speaks plain HTTP only");
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').with_context(|| format!("{text:?} is not HOST:PORT"))?;
        let fine = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok();
        if !fine {
            bail!("{text:?} is not HOST:PORT");
        }
        Ok(Self { authority: authority.to_owned() })
    }

    /// The web server of the prefix: the address is in its command.
    pub(super) fn of_installation(home: &Home) -> Self {
        let default = Self { authority: DEFAULT.to_owned() };
        let Ok(ini) = Ini::read(&home.config_file("supervisord.d/webserver.conf"), Dialect::SUPERVISORD) else {
            return default;
        };
        let command = ini.section("program:webserver").and_then(|section| section.get("command")).unwrap_or_default();
        let mut words = command.split_whitespace();
        let address = words.find_map(|word| match word.strip_prefix("--listen") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix('=').map(Some),
            None => None,
        });
        let address = address.and_then(|given| given.or_else(|| words.next()));
        // Everywhere is also here.
        let address = address.map(|address| address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:"));
        address.and_then(|address| Self::parse(&address).ok()).unwrap_or(default)
    }
}

/// What the server is shown.
#[derive(Clone)]
pub(super) enum Credentials {
    /// An API key.
    Key(String),
    /// An account.
    Basic {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// Whether no event was refused or put off.
    pub(super) fn all_sent(&self) -> bool {
        let none = |document: &Value, list: &str| document[list].as_array().is_some_and(Vec::is_empty);
        self.status == 200
            && serde_json::from_str::<Value>(&self.body)
                .is_ok_and(|document| none(&document, "failed_events") && none(&document, "retry_events"))
    }
}

/// Sends a batch.
pub(super) async fn post_events(server: &Server, credentials: &Credentials, batch: &Value) -> anyhow::Result<Answer> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&server.authority)).await;
    let stream = connecting
        .map_err(anyhow::Error::from)
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("cannot reach the web server at {server}"))?;
    let answering = exchange(stream, server, credentials, batch.to_string());
    match tokio::time::timeout(ANSWER_TIMEOUT, answering).await {
        Ok(answer) => answer.with_context(|| format!("no answer from the web server at {server}")),
        Err(_) => bail!("no answer from the web server at {server} within {ANSWER_TIMEOUT:?}"),
    }
}

async fn exchange(
    stream: TcpStream,
    server: &Server,
    credentials: &Credentials,
    body: String,
) -> anyhow::Result<Answer> {
    let request = Request::builder().method(Method::POST).uri("/api/v4/event");
    let request = request.header(HOST, server.authority.as_str()).header(CONTENT_TYPE, "application/json");
    let request = match credentials {
        Credentials::Key(key) => request.header("x-canopsis-authkey", key.as_str()),
        Credentials::Basic { name, password } => {
            request.header(AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
        }
    };
    let request = request.body(Full::new(Bytes::from(body)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end as soon as the answer is there.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_read_in_two_forms() {
        for (text, authority) in
            [("localhost:8082", "localhost:8082"), ("http://127.0.0.1:1/", "127.0.0.1:1"), ("[::1]:8082", "[::1]:8082")]
        {
            assert_eq!(Server::parse(text).unwrap().authority, authority);
        }
        for text in ["", "host", "host:", ":1", "host:99999", "https://host:1", "http://u@h:1", "host:1/path"] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_installation_says_where_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(Server::of_installation(&home).authority, DEFAULT);
        std::fs::create_dir_all(dir.path().join("etc/supervisord.d")).unwrap();
        for (command, authority) in [
            ("%(here)s/webserver --listen 127.0.0.1:9", "127.0.0.1:9"),
            ("webserver --listen=0.0.0.0:9 --x", "127.0.0.1:9"),
            ("webserver", DEFAULT),
            ("webserver --listen", DEFAULT),
        ] {
            let text = format!("[program:webserver]\ncommand={command}\n");
            std::fs::write(dir.path().join("etc/supervisord.d/webserver.conf"), text).unwrap();
            assert_eq!(Server::of_installation(&home).authority, authority, "{command}");
        }
    }

    /// Answers one request with `status` and `body`; returns what came.
    async fn answered(status: &str, body: &Value) -> (String, anyhow::Result<Answer>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let text = body.to_string();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"[{\"state\":3}]") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let credentials = Credentials::Basic { name: "admin".into(), password: "pw".into() };
        let batch = json!([{"state": 3}]);
        tokio::join!(serve, post_events(&server, &credentials, &batch))
    }

    #[tokio::test]
    async fn only_an_answer_without_refused_events_counts_as_sent() {
        let all = json!({"sent_events": [{}], "failed_events": [], "retry_events": []});
        let (request, answer) = answered("200 OK", &all).await;
        assert!(request.starts_with("POST /api/v4/event HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Basic YWRtaW46cHc=\r\n"), "{request}");
        assert!(answer.unwrap().all_sent());
        for (status, body) in [
            ("200 OK", json!({"sent_events": [], "failed_events": [{}], "retry_events": []})),
            ("200 OK", json!({"sent_events": [], "failed_events": [], "retry_events": [{}]})),
            ("200 OK", json!({"something": "else"})),
            ("401 Unauthorized", all.clone()),
        ] {
            assert!(!answered(status, &body).await.1.unwrap().all_sent(), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        drop(listener);
        let error = post_events(&server, &Credentials::Key("k".into()), &json!([])).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot reach the web server at {server}"));
    }
}
