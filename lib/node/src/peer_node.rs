//! Another node, as a client of its legacy protocol: for the records that a redistribution sends there.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use overstory_swarm::legacy::{Need, NodeAddress, Status, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time to connect, and then for each request to be taken and answered.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// The legacy address that a Redistribute names; nothing if it is none.
#[must_use]
pub fn address(node: &NodeAddress<'_>) -> Option<SocketAddrV4> {
    let ip: Ipv4Addr = std::str::from_utf8(node.address).ok()?.parse().ok()?;
    (node.port != 0).then(|| SocketAddrV4::new(ip, node.port))
}

/// A connection to another node, which is opened when it is needed.
#[derive(Debug)]
pub struct PeerNode {
    address: SocketAddrV4,
    stream: Option<TcpStream>,
    opened: u64,
}

impl PeerNode {
    /// The node with this legacy address.
    #[must_use]
    pub const fn new(address: SocketAddrV4) -> Self {
        Self { address, stream: None, opened: 0 }
    }

    /// The number of the connection by which the last request went. While it is the same the other node has not been
    /// started anew.
    #[must_use]
    pub const fn connection(&self) -> u64 {
        self.opened
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Sends a request to which nothing but a status is answered.
    ///
    /// # Errors
    /// The status was another than Ok; or there was none, and the next request goes by a new connection.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), PeerError> {
        let stream = self.stream.take();
        self.opened += u64::from(stream.is_none());
        let (stream, status) = tokio::time::timeout(ANSWER, exchange(stream, self.address, request))
            .await
            .map_err(|_| PeerError::Failed("no answer".to_owned()))?
            .map_err(|error| PeerError::Failed(error.to_string()))?;
        self.stream = Some(stream);
        match status {
            Status::Ok => Ok(()),
            refused => Err(PeerError::Refused(refused)),
        }
    }
}

/// Why a request to another node was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The node's answer.
    #[error("{}", .0.name())]
    Refused(Status),
    /// There was none: whether the request had an effect is unknown.
    #[error("{0}")]
    Failed(String),
}

impl PeerError {
    /// Whether the node will never do this request as it is.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused(
                Status::WrongNode
                    | Status::EmptyValue
                    | Status::ValueTooBig
                    | Status::BadChannelName
                    | Status::NotSupported
                    | Status::InvalidRequest
            )
        )
    }
}

async fn exchange(
    stream: Option<TcpStream>,
    address: SocketAddrV4,
    request: &[u8],
) -> std::io::Result<(TcpStream, Status)> {
    let mut stream = match stream {
        Some(stream) => stream,
        None => tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??,
    };
    stream.write_all(request).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    match reply::status(&answer).map_err(std::io::Error::other)? {
        Need::Done { value, .. } => Ok((stream, value)),
        Need::More(_) => Err(std::io::Error::other("half a status")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_an_ipv4_literal_and_a_port() {
        let of = |address: &'static str, port| super::address(&NodeAddress { address: address.as_bytes(), port });
        assert_eq!(of("127.0.0.1", 5).map(|address| address.to_string()).as_deref(), Some("127.0.0.1:5"));
        assert!([of("localhost", 5), of("127.0.0.1", 0), of("::1", 5)].iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn a_connection_is_used_again_until_it_breaks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
        let serve = async {
            let mut accepted = 0;
            for statuses in [&[Status::Ok, Status::OutOfMemory][..], &[], &[Status::Ok]] {
                let (mut stream, _) = listener.accept().await.unwrap();
                accepted += 1;
                for status in statuses {
                    let mut request = [0; 4];
                    stream.read_exact(&mut request).await.unwrap();
                    stream.write_all(&status.code().to_le_bytes()).await.unwrap();
                }
            }
            accepted
        };
        let ask = async {
            let mut node = PeerNode::new(address);
            let mut told = Vec::new();
            for _ in 0..5 {
                told.push((node.send(b"send").await, node.connection()));
            }
            told
        };
        let (accepted, told) = tokio::join!(serve, ask);
        assert_eq!(accepted, 3);
        assert_eq!(told[..2], [(Ok(()), 1), (Err(PeerError::Refused(Status::OutOfMemory)), 1)]);
        // The first one was closed behind the refusal, the second one at once.
        assert!(told[2].0.is_err() && told[3].0.is_err(), "{told:?}");
        assert_eq!(told[4], (Ok(()), 3));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
        drop(listener);
        assert!(PeerNode::new(address).send(b"x").await.is_err());
    }
}
