//! The listening sockets.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::ServerConfig;

/// Bound sockets. Clients can connect from now on; they are served once the server runs.
#[derive(Debug)]
pub struct Listeners {
    pub(super) legacy: Option<TcpListener>,
    pub(super) neo: TcpListener,
}

impl Listeners {
    /// Binds what the configuration says. Port 0 takes a free one.
    ///
    /// # Errors
    /// An address is taken, not ours or not allowed; the message names it.
    pub fn bind(config: &ServerConfig) -> io::Result<Self> {
        let legacy = config.legacy.map(|address| bind(address, config.backlog)).transpose()?;
        Ok(Self { legacy, neo: bind(config.neo, config.backlog)? })
    }

    /// Where legacy clients connect, if they can.
    #[must_use]
    pub fn legacy_address(&self) -> Option<SocketAddrV4> {
        self.legacy.as_ref().and_then(address)
    }

    /// Where neo clients connect.
    ///
    /// # Errors
    /// The socket has no address, which a bound one always has.
    pub fn neo_address(&self) -> io::Result<SocketAddrV4> {
        address(&self.neo).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
    }
}

fn address(listener: &TcpListener) -> Option<SocketAddrV4> {
    match listener.local_addr() {
        Ok(SocketAddr::V4(address)) => Some(address),
        _ => None,
    }
}

fn bind(address: SocketAddrV4, backlog: u32) -> io::Result<TcpListener> {
    let socket = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::V4(address).into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(socket)
    };
    let socket =
        socket().map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let listeners = Listeners::bind(&ServerConfig::new(Some(any), any)).unwrap();
        let taken = listeners.legacy_address().unwrap();
        assert_ne!(taken, listeners.neo_address().unwrap());
        let error = Listeners::bind(&ServerConfig::new(None, taken)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()));
    }
}
