//! What clients say to a logfiles node. What has a form `try_` tells that the node is gone; the others panic.

use std::io;
use std::ops::{Deref, DerefMut};

use overstory_replay::{Connection, NeoClient};
use overstory_swarm::batch::{self, Added, BatchBuilder, Pairs, Refreshed};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::Request as LegacyRequest;
use overstory_swarm::neo::dls::{GetRangeMessage, Request as NeoRequest};
use overstory_testkit::node::NodeInstance;

/// A record: its key and its value.
pub(crate) type Record = (u64, Vec<u8>);

/// 16 hexadecimal digits.
pub(crate) fn hex(key: u64) -> [u8; 16] {
    format!("{key:016x}").into_bytes().try_into().unwrap()
}

/// A batch as PutBatch has it.
pub(crate) fn batch_of(records: &[Record]) -> Vec<u8> {
    let (mut builder, mut batch) = (BatchBuilder::new(16 << 20), Vec::new());
    for (key, value) in records {
        assert_eq!(builder.pair(&hex(*key), value), Added::Yes);
    }
    builder.finish(&mut batch);
    batch
}

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

    pub(crate) fn send_put(&mut self, channel: &str, key: u64, value: &[u8]) {
        self.begin(&LegacyRequest::Put { channel: channel.as_bytes(), key: &hex(key), value });
    }

    pub(crate) fn put(&mut self, channel: &str, key: u64, value: &[u8]) -> Status {
        self.send_put(channel, key, value);
        self.read_status()
    }

    /// Puts many, all of which must be taken.
    pub(crate) fn put_all(&mut self, channel: &str, records: &[Record]) {
        self.ask_for_each(records, |(key, value), out| {
            LegacyRequest::Put { channel: channel.as_bytes(), key: &hex(*key), value }.encode(out);
        });
    }

    /// Puts many at once.
    pub(crate) fn put_batch(&mut self, channel: &str, records: &[Record]) -> Status {
        self.try_put_batch(channel, records).unwrap()
    }

    pub(crate) fn try_put_batch(&mut self, channel: &str, records: &[Record]) -> io::Result<Status> {
        self.try_ask(&LegacyRequest::PutBatch { channel: channel.as_bytes(), batch: &batch_of(records) })
    }

    /// Gives each record of a channel, in the order in which they come.
    pub(crate) fn each(&mut self, channel: &str, visit: impl FnMut(u64, &[u8])) {
        self.try_each(channel, visit).unwrap();
    }

    pub(crate) fn try_each(&mut self, channel: &str, mut visit: impl FnMut(u64, &[u8])) -> io::Result<()> {
        assert_eq!(self.try_ask(&LegacyRequest::GetAll { channel: channel.as_bytes() })?, Status::Ok);
        let mut plain = Vec::new();
        loop {
            let batch = self.try_read_array()?;
            if batch.is_empty() {
                return Ok(());
            }
            batch::decode(&batch, 16 << 20, &mut plain).unwrap();
            for pair in Pairs::new(&plain) {
                let (key, value) = pair.unwrap();
                visit(u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap(), value);
            }
        }
    }

    /// All records of a channel.
    pub(crate) fn all(&mut self, channel: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.each(channel, |key, value| records.push((key, value.to_vec())));
        records
    }

    /// Records and bytes of a channel.
    pub(crate) fn channel_size(&mut self, channel: &str) -> (u64, u64) {
        self.ask_size(&LegacyRequest::GetChannelSize { channel: channel.as_bytes() })
    }

    /// Records and bytes of the whole node.
    pub(crate) fn size(&mut self) -> (u64, u64) {
        self.ask_size(&LegacyRequest::GetSize)
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

    /// Whether a record was taken.
    pub(crate) fn put(&mut self, id: u64, channel: &str, key: u64, value: &[u8]) -> bool {
        self.ask(id, &NeoRequest::Put { channel: channel.as_bytes(), timestamp: key.cast_signed(), value }) == [1]
    }

    /// The records of a channel from one timestamp to another.
    pub(crate) fn get_range(&mut self, id: u64, channel: &str, low: i64, high: i64) -> Vec<Record> {
        let request = NeoRequest::GetRange { channel: channel.as_bytes(), low, high, filter: b"", mode: 0 };
        assert_eq!(self.ask(id, &request), [1]);
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        loop {
            let message = self.read(id);
            match GetRangeMessage::decode(&message).unwrap() {
                GetRangeMessage::Records(block) => {
                    batch::decode_block(block.plain_len, block.block, 16 << 20, &mut plain).unwrap();
                    records.extend(Refreshed::new(&plain).map(|record| record.map(|(k, v)| (k, v.to_vec())).unwrap()));
                    self.message(id, &[1]);
                }
                GetRangeMessage::Finished => {
                    self.message(id, &[6]);
                    return records;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
