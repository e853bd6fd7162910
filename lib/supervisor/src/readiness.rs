//! Probes: how to find out that a service does its work, which supervisord's RUNNING does not say.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::layout::Layout;

/// How long one probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How much of a log is searched at most.
const MAX_LOG_BYTES: u64 = 4 << 20;
/// Largest answer to a `hello` that is read.
const MAX_HELLO_BYTES: i32 = 64 * 1024;

/// Is one line of `hyp_ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `tcp:HOST:PORT`: a connection is accepted.
    Tcp(String),
    /// `amqp:HOST:PORT`: the broker answers the protocol header with `Connection.Start`.
    Amqp(String),
    /// `http:HOST:PORT/PATH`: `GET` is answered with a status of 2xx.
    Http {
        /// `HOST:PORT`.
        address: String,
        /// The path, beginning with `/`.
        path: String,
    },
    /// `mongodb:HOST:PORT`: `hello` is answered with `ok: 1`.
    Mongodb(String),
    /// `unix:PATH`: a connection to the socket is accepted.
    Unix(PathBuf),
    /// `log:TEXT`: the text has appeared in the program's output since it was started.
    Log(String),
    /// `pidfile:PATH`: the file names a live process.
    Pidfile(PathBuf),
}

/// Is what a probe has to know about the process.
#[derive(Debug, Clone, Default)]
pub struct ProbeContext {
    /// The program's log and its size when the program was started.
    pub log: Option<(PathBuf, u64)>,
}

/// Says why a service is not ready yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{probe}: {reason}")]
pub struct NotReady {
    /// The probe that failed.
    pub probe: String,
    /// What it met.
    pub reason: String,
}

impl Probe {
    /// Reads a line of `hyp_ready` whose names are expanded already; relative paths count from the prefix.
    ///
    /// # Errors
    /// When the kind is unknown or its argument is wrong; the text says which kinds there are.
    pub fn parse(line: &str, layout: &Layout) -> Result<Self, String> {
        let (kind, argument) = line.split_once(':').unwrap_or((line, ""));
        let argument = argument.trim();
        let address = |text: &str| {
            let port =
                text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, p)| p.parse::<u16>().ok());
            port.map(|_| text.to_owned()).ok_or_else(|| format!("{line:?}: {text:?} is not HOST:PORT"))
        };
        match kind.trim() {
            _ if argument.is_empty() => Err(format!("{line:?} is not KIND:ARGUMENT")),
            "tcp" => address(argument).map(Self::Tcp),
            "amqp" => address(argument).map(Self::Amqp),
            "mongodb" => address(argument).map(Self::Mongodb),
            "http" => {
                let argument = argument.trim_start_matches("//");
                let at = argument.find('/').unwrap_or(argument.len());
                let (host, path) = argument.split_at(at);
                let path = if path.is_empty() { "/" } else { path };
                Ok(Self::Http { address: address(host)?, path: path.to_owned() })
            }
            "unix" => Ok(Self::Unix(layout.resolve(argument))),
            "pidfile" => Ok(Self::Pidfile(layout.resolve(argument))),
            "log" => Ok(Self::Log(argument.to_owned())),
            other => Err(format!("{other:?} is none of amqp, http, log, mongodb, pidfile, tcp, unix")),
        }
    }

    /// The TCP address that the probe connects to.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        match self {
            Self::Tcp(address) | Self::Amqp(address) | Self::Mongodb(address) | Self::Http { address, .. } => {
                Some(address)
            }
            Self::Unix(_) | Self::Log(_) | Self::Pidfile(_) => None,
        }
    }

    /// Probes once.
    ///
    /// # Errors
    /// When the service is not ready; the error says what was met instead.
    pub async fn check(&self, context: &ProbeContext) -> Result<(), NotReady> {
        let attempt = tokio::time::timeout(PROBE_LIMIT, self.attempt(context)).await;
        let outcome = attempt.unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE_LIMIT.as_secs())));
        outcome.map_err(|reason| NotReady { probe: self.to_string(), reason })
    }

    async fn attempt(&self, context: &ProbeContext) -> Result<(), String> {
        match self {
            Self::Tcp(address) => connect(address).await.map(drop),
            Self::Amqp(address) => amqp(connect(address).await?).await,
            Self::Http { address, path } => http(connect(address).await?, address, path).await,
            Self::Mongodb(address) => mongodb(connect(address).await?).await,
            Self::Unix(path) => UnixStream::connect(path).await.map(drop).map_err(|e| plain(&e)),
            Self::Log(text) => log(text, context).await,
            Self::Pidfile(path) => pidfile(path),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Amqp(address) => write!(f, "amqp:{address}"),
            Self::Http { address, path } => write!(f, "http:{address}{path}"),
            Self::Mongodb(address) => write!(f, "mongodb:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Log(text) => write!(f, "log:{text}"),
            Self::Pidfile(path) => write!(f, "pidfile:{}", path.display()),
        }
    }
}

/// An error without the number that the system gives it.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        _ => error.to_string(),
    }
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|e| plain(&e))
}

/// AMQP 0-9-1, 2.2.4 and 4.2.3: the header, then a method frame on channel 0 with class 10, method 10.
async fn amqp(mut stream: TcpStream) -> Result<(), String> {
    stream.write_all(b"AMQP\0\0\x09\x01").await.map_err(|e| plain(&e))?;
    let mut frame = [0_u8; 11];
    stream.read_exact(&mut frame).await.map_err(|e| plain(&e))?;
    if frame.starts_with(&[1, 0, 0]) && frame.ends_with(&[0, 10, 0, 10]) {
        Ok(())
    } else {
        Err("what answers is not an AMQP 0-9-1 broker".to_owned())
    }
}

async fn http(mut stream: TcpStream, address: &str, path: &str) -> Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| plain(&e))?;
    let mut answer = Vec::new();
    stream.take(2048).read_to_end(&mut answer).await.map_err(|e| plain(&e))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.").and_then(|line| line.split(' ').nth(1));
    match status.and_then(|code| code.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(code) => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let line = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            let line: String = line.chars().filter(|c| !c.is_control()).take(120).collect();
            Err(format!("status {code} {line}").trim_end().to_owned())
        }
        None => Err("what answers does not speak HTTP".to_owned()),
    }
}

/// MongoDB's `OP_MSG` with `{hello: 1, $db: "admin"}`; the answer must hold `ok: 1.0`.
async fn mongodb(mut stream: TcpStream) -> Result<(), String> {
    const HELLO: &[u8] = b"\x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    const OP_MSG: i32 = 2013;
    let length = i32::try_from(16 + 4 + 1 + HELLO.len()).unwrap_or_default();
    let mut message = Vec::new();
    for number in [length, 1, 0, OP_MSG, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(HELLO);
    stream.write_all(&message).await.map_err(|e| plain(&e))?;
    let length = stream.read_i32_le().await.map_err(|e| plain(&e))?;
    let body = usize::try_from(length - 4).ok().filter(|_| (16..=MAX_HELLO_BYTES).contains(&length));
    let mut answer = vec![0; body.ok_or("what answers is not a MongoDB server")?];
    stream.read_exact(&mut answer).await.map_err(|e| plain(&e))?;
    let ok = [b"\x01ok\0".as_slice(), &1.0_f64.to_le_bytes()].concat();
    if answer.windows(ok.len()).any(|w| w == ok) { Ok(()) } else { Err("hello was not answered with ok".to_owned()) }
}

async fn log(text: &str, context: &ProbeContext) -> Result<(), String> {
    let Some((path, started_at)) = &context.log else { return Err("the program has no log".to_owned()) };
    let mut file = tokio::fs::File::open(path).await.map_err(|e| plain(&e))?;
    let size = file.metadata().await.map_err(|e| plain(&e))?.len();
    // A log that has become shorter was rotated: all of it is new.
    let from = if *started_at <= size { *started_at } else { 0 };
    let from = from.max(size.saturating_sub(MAX_LOG_BYTES));
    file.seek(io::SeekFrom::Start(from)).await.map_err(|e| plain(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut bytes).await.map_err(|e| plain(&e))?;
    if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
        Ok(())
    } else {
        Err("the text has not appeared".to_owned())
    }
}

fn pidfile(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| plain(&e))?;
    let pid: u32 = text.trim().parse().map_err(|_| "it holds no process id".to_owned())?;
    if Path::new("/proc").join(pid.to_string()).exists() { Ok(()) } else { Err(format!("process {pid} is gone")) }
}

#[cfg(test)]
mod tests;
