//! The nodes that get what a redistribution sends.

use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::sync::Arc;

use overstory_node::peer_node::PeerNode;
use overstory_node::throttle::Throttle;
use overstory_swarm::legacy::dls::code;
use overstory_swarm::wire::put_array;
use tracing::warn;

use super::{RETRY, Redistribution};
use crate::read::EMPTY_BATCH;

/// A target, and the connection to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    target: usize,
    number: u64,
}

/// Who gets the records.
pub(super) struct Targets {
    nodes: Vec<PeerNode>,
    turn: usize,
    /// By which connections the bucket was taken that is being sent.
    by: Vec<Connection>,
    warnings: Throttle,
}

impl Targets {
    pub(super) fn new(addresses: Vec<SocketAddrV4>) -> Self {
        let nodes: Vec<_> = addresses.into_iter().map(PeerNode::new).collect();
        Self { turn: nodes.len().saturating_sub(1), nodes, by: Vec::new(), warnings: Throttle::default() }
    }

    /// The next bucket goes to the next node.
    pub(super) fn next(&mut self) {
        self.turn = (self.turn + 1) % self.nodes.len().max(1);
    }

    /// Sends a request to the node in turn, or to another one if that does not take it, until one does. Whether one did:
    /// not if all of them, one after another, have said that they never will.
    pub(super) async fn send(&mut self, request: &[u8], redistribution: &Redistribution) -> bool {
        let (mut failed, mut never) = (0, 0);
        while let Some(node) = self.nodes.get_mut(self.turn) {
            let address = node.address();
            let Err(problem) = node.send(request).await else {
                redistribution.waits.take();
                let by = Connection { target: self.turn, number: node.connection() };
                if !self.by.contains(&by) {
                    self.by.push(by);
                }
                return true;
            };
            if self.warnings.allows() {
                warn!(target: "node.request", %address, %problem, "batch not taken by a node");
            }
            redistribution.waits(format!("{address}: {problem}"));
            never = if problem.is_final() { never + 1 } else { 0 };
            if never >= self.nodes.len() {
                redistribution.waits.take();
                return false;
            }
            self.next();
            failed += 1;
            if failed % self.nodes.len() == 0 {
                tokio::time::sleep(RETRY).await;
            }
        }
        false
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.nodes.iter().map(PeerNode::address)
    }

    /// A bucket is going to be sent.
    pub(super) fn begin(&mut self) {
        self.by.clear();
    }

    /// By which connections it was taken.
    pub(super) fn taken_by(&mut self) -> Vec<Connection> {
        std::mem::take(&mut self.by)
    }

    /// Asks those that have taken records of channels whether these are durable. Gives those for which that is so: not if
    /// the connection has broken, for the node may have been started anew.
    pub(super) async fn confirm(
        &mut self,
        taken: impl Iterator<Item = (Connection, &Arc<str>)>,
    ) -> HashSet<(Connection, Arc<str>)> {
        let taken: HashSet<(Connection, Arc<str>)> = taken.map(|(by, channel)| (by, Arc::clone(channel))).collect();
        let mut durable = HashSet::new();
        for (by, channel) in taken {
            let Some(node) = self.nodes.get_mut(by.target).filter(|node| node.connection() == by.number) else {
                continue;
            };
            let mut message = code::PUT_BATCH.to_le_bytes().to_vec();
            put_array(&mut message, channel.as_bytes());
            message.extend_from_slice(EMPTY_BATCH);
            let answer = node.send(&message).await;
            // It may have gone by a new connection.
            if node.connection() != by.number {
                continue;
            }
            match answer {
                Ok(()) => drop(durable.insert((by, channel))),
                Err(problem) => {
                    let address = node.address();
                    warn!(target: "node.request", %address, %problem, "node does not say that records are durable");
                }
            }
        }
        durable
    }
}
