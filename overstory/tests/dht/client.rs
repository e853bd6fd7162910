//! What a client says to a dht node.

use std::net::SocketAddrV4;
use std::ops::{Deref, DerefMut};

use overstory_replay::{Connection, NeoClient};
use overstory_swarm::batch::Pairs;
use overstory_swarm::key::Key;
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dht::Request;
use overstory_testkit::node::NodeInstance;

use super::rig::Records;

/// A legacy client.
pub(crate) struct Legacy(pub(crate) Connection);

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
        Self(Connection::open(node.legacy))
    }

    pub(crate) fn put(&mut self, channel: &str, key: u64, value: &[u8]) -> Status {
        self.ask(&Request::Put { channel: channel.as_bytes(), key: &Key(key).hex16(), value })
    }

    /// A value; empty if there is none.
    pub(crate) fn get(&mut self, channel: &str, key: u64) -> Vec<u8> {
        assert_eq!(self.ask(&Request::Get { channel: channel.as_bytes(), key: &Key(key).hex16() }), Status::Ok);
        self.read_array()
    }

    pub(crate) fn put_all(&mut self, channel: &str, records: &Records) {
        let records: Vec<_> = records.iter().collect();
        self.ask_for_each(&records, |(key, value), out| {
            Request::Put { channel: channel.as_bytes(), key: &Key(**key).hex16(), value }.encode(out);
        });
    }

    pub(crate) fn get_all(&mut self, channel: &str) -> Records {
        let mut records = Records::new();
        assert_eq!(self.ask(&Request::GetAll { channel: channel.as_bytes() }), Status::Ok);
        loop {
            let batch = self.read_array();
            if batch.is_empty() {
                return records;
            }
            let mut plain = Vec::new();
            overstory_swarm::batch::decode(&batch, 1 << 20, &mut plain).unwrap();
            for pair in Pairs::new(&plain) {
                let (key, value) = pair.unwrap();
                let twice = records.insert(Key::from_hex16(key).unwrap().0, value.to_vec());
                assert!(twice.is_none(), "a record comes once");
            }
        }
    }

    /// Records of the whole node.
    pub(crate) fn size(&mut self) -> u64 {
        self.ask_size(&Request::GetSize).0
    }

    pub(crate) fn channels(&mut self) -> Vec<String> {
        assert_eq!(self.ask(&Request::GetChannels), Status::Ok);
        let names = std::iter::from_fn(|| Some(self.read_array()).filter(|name| !name.is_empty()));
        let mut names: Vec<String> = names.map(|name| String::from_utf8(name).unwrap()).collect();
        names.sort();
        names
    }

    /// Gives the node a range, and records that are not in it to these others.
    pub(crate) fn redistribute(&mut self, (min, max): (u64, u64), to: &[(SocketAddrV4, u64, u64)]) -> Status {
        let mut bytes = 33i32.to_le_bytes().to_vec();
        bytes.extend([min.to_le_bytes(), max.to_le_bytes()].concat());
        for (node, min, max) in to {
            let address = node.ip().to_string();
            bytes.extend((address.len() as u64).to_le_bytes());
            bytes.extend(address.as_bytes());
            bytes.extend(node.port().to_le_bytes());
            bytes.extend([min.to_le_bytes(), max.to_le_bytes()].concat());
        }
        bytes.extend([0; 8]);
        self.send(&bytes);
        self.read_status()
    }

    pub(crate) fn range(&mut self) -> (u64, u64) {
        assert_eq!(self.ask(&Request::GetResponsibleRange), Status::Ok);
        (self.read_number(), self.read_number())
    }
}

/// A neo client that is `admin`.
pub(crate) fn admin(node: &NodeInstance) -> NeoClient {
    NeoClient::open_at(node.neo, "admin")
}
