//! A client for the REST API that does what a test needs and no more.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

/// An answer: the status and the body, `null` when it is no JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body as JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

/// A client that is logged in, or not.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    token: Option<String>,
}

impl Client {
    /// A client without credentials.
    #[must_use]
    pub fn anonymous(address: &str) -> Self {
        Self { address: address.to_owned(), token: None }
    }

    /// Logs in.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub fn login(address: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let anonymous = Self::anonymous(address);
        let body = serde_json::json!({"username": user, "password": password});
        let answer = anonymous.request("POST", "/api/v4/login", Some(&body))?;
        ensure!(answer.status == 200, "login: {} {}", answer.status, answer.text);
        let token = answer.json["access_token"].as_str().context("no access_token")?.to_owned();
        Ok(Self { address: address.to_owned(), token: Some(token) })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request("GET", path, None)
    }

    /// `GET path`, and its JSON if the status is 200.
    ///
    /// # Errors
    /// The server does not answer, or with another status.
    pub fn get_ok(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text);
        Ok(answer.json)
    }

    /// Any request.
    ///
    /// # Errors
    /// The server does not answer with HTTP.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address).with_context(|| format!("connect {}", self.address))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{token}\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw)?;
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let (head, text) = raw.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let text = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(text).context("bad chunks")?
        } else {
            text.to_owned()
        };
        Ok(Answer { status, json: serde_json::from_str(&text).unwrap_or(Value::Null), text })
    }
}

fn dechunk(mut text: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}
