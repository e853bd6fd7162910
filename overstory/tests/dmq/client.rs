//! What clients say to a queue node. What has a form `try_` tells that the node is gone; the others panic.

use std::io;
use std::ops::{Deref, DerefMut};

use overstory_replay::client::WINDOW;
use overstory_replay::{Connection, NeoClient};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as LegacyRequest;
use overstory_swarm::neo::dmq::{Channels, Records, Request as NeoRequest};
use overstory_testkit::node::NodeInstance;

/// A legacy client.
pub(crate) struct Legacy(Connection);

impl Deref for Legacy {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Legacy {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Legacy {
    pub(crate) fn to(node: &NodeInstance) -> Self {
        Self::try_to(node).unwrap()
    }

    pub(crate) fn try_to(node: &NodeInstance) -> io::Result<Self> {
        Connection::try_open(node.legacy).map(Self)
    }

    pub(crate) fn push(&mut self, channel: &str, value: &[u8]) -> Status {
        self.ask(&LegacyRequest::Push { channel: channel.as_bytes(), value })
    }

    /// Pushes many, all of which must be taken.
    pub(crate) fn push_all(&mut self, channel: &str, values: &[Vec<u8>]) {
        self.ask_for_each(values, |value, out| LegacyRequest::Push { channel: channel.as_bytes(), value }.encode(out));
    }

    /// The oldest value of a channel; empty if there is none.
    pub(crate) fn pop(&mut self, channel: &str) -> Vec<u8> {
        assert_eq!(self.ask(&LegacyRequest::Pop { channel: channel.as_bytes() }), Status::Ok);
        self.read_array()
    }

    /// Everything that is in a channel.
    pub(crate) fn pop_all(&mut self, channel: &str) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        (0..WINDOW).for_each(|_| LegacyRequest::Pop { channel: channel.as_bytes() }.encode(&mut bytes));
        let mut all = Vec::new();
        loop {
            self.send(&bytes);
            let before = all.len();
            for _ in 0..WINDOW {
                assert_eq!(self.read_status(), Status::Ok);
                all.extend(Some(self.read_array()).filter(|value| !value.is_empty()));
            }
            if all.len() < before + WINDOW {
                return all;
            }
        }
    }

    /// Records and bytes of a channel.
    pub(crate) fn channel_size(&mut self, channel: &str) -> (u64, u64) {
        self.ask_size(&LegacyRequest::GetChannelSize { channel: channel.as_bytes() })
    }

    /// Records of the whole node.
    pub(crate) fn size(&mut self) -> u64 {
        self.ask_size(&LegacyRequest::GetSize).0
    }

    /// Begins to take each value of a channel.
    pub(crate) fn consume(&mut self, channel: &str) {
        self.try_consume(channel).unwrap();
    }

    pub(crate) fn try_consume(&mut self, channel: &str) -> io::Result<()> {
        let status = self.try_ask(&LegacyRequest::Consume { channel: channel.as_bytes() })?;
        assert_eq!(status, Status::Ok);
        Ok(())
    }
}

/// A neo client that is `admin`.
pub(crate) struct Neo(NeoClient);

impl Deref for Neo {
    type Target = NeoClient;

    fn deref(&self) -> &NeoClient {
        &self.0
    }
}

impl DerefMut for Neo {
    fn deref_mut(&mut self) -> &mut NeoClient {
        &mut self.0
    }
}

impl Neo {
    pub(crate) fn to(node: &NodeInstance) -> Self {
        Self::try_to(node).unwrap()
    }

    pub(crate) fn try_to(node: &NodeInstance) -> io::Result<Self> {
        NeoClient::try_open_at(node.neo, "admin").map(Self)
    }

    /// Whether a value was taken.
    pub(crate) fn push(&mut self, id: u64, channels: &[&str], value: &[u8]) -> bool {
        let mut names = Vec::new();
        let channels = Channels::new(channels.iter().map(|name| name.as_bytes()), &mut names).unwrap();
        self.ask(id, &NeoRequest::Push { channels, value }) == [1]
    }

    /// Begins a Consume.
    pub(crate) fn consume(&mut self, id: u64, channel: &str, subscriber: &str) {
        self.try_consume(id, channel, subscriber).unwrap();
    }

    pub(crate) fn try_consume(&mut self, id: u64, channel: &str, subscriber: &str) -> io::Result<()> {
        let (channel, subscriber) = (channel.as_bytes(), subscriber.as_bytes());
        assert_eq!(self.try_ask(id, &NeoRequest::Consume { channel, subscriber })?, [1]);
        Ok(())
    }

    /// The next batch of a Consume.
    pub(crate) fn batch(&mut self, id: u64) -> Vec<Vec<u8>> {
        self.try_batch(id).unwrap()
    }

    pub(crate) fn try_batch(&mut self, id: u64) -> io::Result<Vec<Vec<u8>>> {
        let message = self.try_read(id)?;
        assert_eq!(message[0], 3, "a batch");
        Ok(Records::new(&message[9..]).map(|record| record.unwrap().to_vec()).collect())
    }
}
