//! Connects as both protocols want it: with a deadline, keepalive and, for neo, without delay.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;

/// Connects to a node.
pub(crate) async fn connect(node: SocketAddrV4, within: Duration, no_delay: bool) -> Result<TcpStream, Error> {
    let connecting = TcpStream::connect(node);
    let timed_out = |_| Error::connect(node, io::Error::new(io::ErrorKind::TimedOut, "no answer"));
    let stream = timeout(within, connecting).await.map_err(timed_out)?.map_err(|cause| Error::connect(node, cause))?;
    prepare(&stream, no_delay).map_err(|cause| Error::connect(node, cause))?;
    Ok(stream)
}

/// The published options (protocol §1.1): a peer that vanished is noticed within about 14 s.
fn prepare(stream: &TcpStream, no_delay: bool) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(3)).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    stream.set_nodelay(no_delay)
}
