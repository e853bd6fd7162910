//! Legacy replies that are the same for all nodes (protocol §1.5 to §1.7).

use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::rc::Rc;

use overstory_swarm::legacy::reply::{self, NodeConnections, NodeSize};
use overstory_swarm::legacy::{NodeAddress, Status};
use overstory_swarm::wire::{put_array, put_end};

use crate::engine::{LegacyStream, Produced};

/// So many bytes of names are handed over at a time.
const TURN: usize = 64 << 10;

/// Answers GetSize and GetChannelSize of the node at `address`.
pub fn put_size(address: SocketAddrV4, records: u64, bytes: u64, out: &mut Vec<u8>) {
    Status::Ok.encode(out);
    let ip = address.ip().to_string();
    reply::put_size(out, &NodeSize { node: node(&ip, address), records, bytes });
}

/// Answers GetNumConnections of the node at `address`.
pub fn put_connections(address: SocketAddrV4, connections: u64, out: &mut Vec<u8>) {
    Status::Ok.encode(out);
    let ip = address.ip().to_string();
    reply::put_connections(out, &NodeConnections { node: node(&ip, address), connections });
}

const fn node(ip: &str, address: SocketAddrV4) -> NodeAddress<'_> {
    NodeAddress { address: ip.as_bytes(), port: address.port() }
}

/// What knows the channels of a node.
pub trait Channels {
    /// Shows the names behind `after` (all from the first when `None`), in an order that the names alone decide, until
    /// `visit` breaks.
    fn names(&self, after: Option<&str>, visit: &mut dyn FnMut(&str) -> ControlFlow<()>);
}

/// GetChannels: the names in their order. A channel that comes or goes meanwhile may be told or not.
#[derive(Debug)]
pub struct ChannelNames<C> {
    channels: Rc<C>,
    after: Option<String>,
}

impl<C: Channels> ChannelNames<C> {
    /// Begins with the first.
    #[must_use]
    pub const fn new(channels: Rc<C>) -> Self {
        Self { channels, after: None }
    }
}

impl<C: Channels> LegacyStream for ChannelNames<C> {
    fn produce(&mut self, out: &mut Vec<u8>) -> Produced {
        let start = out.len();
        let mut last = None;
        self.channels.names(self.after.as_deref(), &mut |name| {
            put_array(out, name.as_bytes());
            if out.len() - start < TURN {
                return ControlFlow::Continue(());
            }
            last = Some(name.to_owned());
            ControlFlow::Break(())
        });
        self.after = last;
        if self.after.is_some() {
            return Produced::More;
        }
        put_end(out);
        Produced::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Many(Vec<String>);

    impl Channels for Many {
        fn names(&self, after: Option<&str>, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) {
            let behind = |name: &&String| after.is_none_or(|after| name.as_str() > after);
            let _ = self.0.iter().filter(behind).try_for_each(|name| visit(name));
        }
    }

    #[test]
    fn all_names_come_a_part_at_a_time() {
        let names: Vec<String> = (0..20_000).map(|number| format!("channel{number:05}")).collect();
        let mut stream = ChannelNames::new(Rc::new(Many(names.clone())));
        let (mut out, mut turns) = (Vec::new(), 0);
        loop {
            let before = out.len();
            let produced = stream.produce(&mut out);
            turns += 1;
            assert!(out.len() - before < TURN + 64);
            if produced == Produced::Done {
                break;
            }
        }
        let mut expected = Vec::new();
        names.iter().for_each(|name| put_array(&mut expected, name.as_bytes()));
        put_end(&mut expected);
        assert!(out == expected && turns > 4);
    }
}
