//! From a connected socket to one that takes requests (protocol §2.1).

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overstory_swarm::auth;
use overstory_swarm::neo::PROTOCOL_VERSION;
use overstory_swarm::neo::frame::{self, Kind, MAX_AUTHENTICATION, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::identity::Identity;
use crate::error::Error;
use crate::socket;

/// Connects and authenticates; both together take at most `within`. `connected` is called between the two.
pub(crate) async fn establish(
    node: SocketAddrV4,
    identity: &Identity,
    within: Duration,
    connected: impl FnOnce(),
) -> Result<TcpStream, Error> {
    let until = Instant::now() + within;
    let mut stream = socket::connect(node, within, true).await?;
    connected();
    timeout_at(until, authenticate(node, &mut stream, identity)).await.map_err(|_| silent(node))??;
    Ok(stream)
}

/// What a node is that takes a connection and says nothing: a legacy node waits for the rest of a request.
pub(crate) const fn silent(node: SocketAddrV4) -> Error {
    Error::OtherProtocol { node, expected: "neo" }
}

async fn authenticate(node: SocketAddrV4, stream: &mut TcpStream, identity: &Identity) -> Result<(), Error> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Error::OtherProtocol { node, expected: "neo" },
        _ => Error::connect(node, cause),
    };
    stream.write_all(&[PROTOCOL_VERSION]).await.map_err(failed)?;
    if stream.read_u8().await.map_err(failed)? != PROTOCOL_VERSION {
        return Err(Error::OtherProtocol { node, expected: "neo" });
    }
    let mut out = Vec::new();
    let now = now();
    auth::put_time(&mut out, now);
    stream.write_all(&out).await.map_err(failed)?;
    let bad = |_| Error::OtherProtocol { node, expected: "neo" };
    let nonce = auth::read_nonce(&message(node, stream).await?).map_err(bad)?;
    out.clear();
    auth::put_proof(&mut out, identity.name.as_bytes(), &auth::code(&identity.key, now, nonce));
    stream.write_all(&out).await.map_err(failed)?;
    let rejected = || Error::Rejected { node, name: identity.name.clone() };
    match message(node, stream).await {
        Ok(body) if auth::read_verdict(&body).map_err(bad)? => Ok(()),
        Ok(_) => Err(rejected()),
        Err(error) => Err(error),
    }
}

/// Reads one authentication message, byte-exact: what follows it belongs to the requests.
async fn message(node: SocketAddrV4, stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    loop {
        let need = match frame::next(&input, MAX_AUTHENTICATION) {
            Ok(Step::Message { kind: Kind::Authentication, body, .. }) => return Ok(body.to_vec()),
            Ok(Step::Need(need)) => need,
            Ok(Step::Message { .. }) | Err(_) => return Err(Error::OtherProtocol { node, expected: "neo" }),
        };
        let have = input.len();
        input.resize(need, 0);
        let missing = input.get_mut(have..).unwrap_or_default();
        stream.read_exact(missing).await.map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => Error::OtherProtocol { node, expected: "neo" },
            _ => Error::connect(node, cause),
        })?;
    }
}

/// Unix seconds: what the node compares with its own clock.
#[allow(clippy::disallowed_methods, reason = "the protocol wants the time of day")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
