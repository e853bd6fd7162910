//! Takes connections from the listeners.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::connection::Connection;
use super::legacy::LegacySession;
use super::neo::NeoSession;
use super::registry::{Membership, Protocol};
use super::{Listeners, Node};
use crate::engine::Engine;

/// Bytes that the kernel takes for a connection before the network has room for them: what is behind a reply in
/// there cannot be overtaken, so it is little.
const KERNEL_UNSENT: u32 = 128 << 10;

/// How long nobody is accepted when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts on all listeners, for ever.
pub(super) async fn serve<E: Engine>(listeners: Listeners, node: &Rc<Node<E>>) {
    let Listeners { legacy, neo } = listeners;
    let legacy = async {
        match legacy {
            Some(listener) => accept(listener, Protocol::Legacy, node).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = legacy => ended,
        ended = accept(neo, Protocol::Neo, node) => ended,
    };
    let Err(error) = ended;
    tracing::error!(target: "node.main", %error, "a listener cannot be used");
}

async fn accept<E: Engine>(
    listener: std::net::TcpListener,
    protocol: Protocol,
    node: &Rc<Node<E>>,
) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let mut full = false;
    loop {
        match listener.accept().await {
            Ok((stream, SocketAddr::V4(address))) => {
                full = false;
                if let Some(place) = node.registry.admit(address, protocol) {
                    begin(stream, place, protocol, node);
                } else if node.registry.may_complain() {
                    debug!(target: "node.connection", client = %address, "connection refused because of the limit");
                }
            }
            Ok(_) => {}
            Err(error) if no_room(&error) => {
                if !full {
                    warn!(target: "node.connection", %error, "cannot accept connections");
                }
                full = true;
                node.registry.displace();
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => debug!(target: "node.connection", %error, "a connection was lost before it was accepted"),
        }
    }
}

fn begin<E: Engine>(stream: TcpStream, place: Membership, protocol: Protocol, node: &Rc<Node<E>>) {
    if let Err(error) = prepare(&stream) {
        debug!(target: "node.connection", client = %place.member.address, %error, "connection lost");
        return;
    }
    let (node, member) = (Rc::clone(node), Rc::clone(&place.member));
    match protocol {
        Protocol::Legacy => {
            let session = LegacySession::new(node, &member);
            tokio::task::spawn_local(Connection::new(stream, place, session).run());
        }
        Protocol::Neo => {
            let session = NeoSession::new(node, member);
            tokio::task::spawn_local(Connection::new(stream, place, session).run());
        }
    }
}

/// Sets what the protocol says (§1.1, §2.1) and what keeps replies from waiting. The published nodes leave legacy
/// replies to the kernel's coalescing; a node that writes whole replies has nothing to coalesce.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(3));
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT)
}

/// Whether the process or the machine has run out of something.
fn no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
