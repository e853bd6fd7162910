//! Every way to write.

use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dmq::Request as Legacy;
use overstory_swarm::wire::put_array;

use crate::rig::{Node, push_payload, with_names};

/// Requests that are sent before the first one's answer is read.
const BURST: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Push,
    PushMulti,
    Produce,
    ProduceMulti,
    NeoPush,
    NeoPushMulti,
}

impl Writer {
    pub(super) const ALL: [Self; 6] =
        [Self::Push, Self::PushMulti, Self::Produce, Self::ProduceMulti, Self::NeoPush, Self::NeoPushMulti];

    /// Whether it writes to several channels at once.
    pub(super) fn is_multiple(self) -> bool {
        matches!(self, Self::PushMulti | Self::ProduceMulti | Self::NeoPushMulti)
    }

    /// Whether it waits while a queue is full.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Produce | Self::ProduceMulti)
    }

    /// Writes the values to all of the channels; they are there when this returns.
    pub(super) fn write(self, node: &Node, channels: &[&str], values: &[Vec<u8>]) {
        match self {
            Self::Push | Self::PushMulti => push(node, channels, values),
            Self::Produce | Self::ProduceMulti => produce(node, channels, values),
            Self::NeoPush | Self::NeoPushMulti => neo_push(node, channels, values),
        }
    }
}

fn push(node: &Node, channels: &[&str], values: &[Vec<u8>]) {
    let mut client = node.legacy();
    for burst in values.chunks(BURST) {
        let mut bytes = Vec::new();
        for value in burst {
            match channels {
                [channel] => Legacy::Push { channel: channel.as_bytes(), value }.encode(&mut bytes),
                _ => with_names(channels, |channels| Legacy::PushMulti { channels, value }.encode(&mut bytes)),
            }
        }
        client.send(&bytes);
        burst.iter().for_each(|_| assert_eq!(client.read_status(), Status::Ok, "{channels:?}"));
    }
}

fn produce(node: &Node, channels: &[&str], values: &[Vec<u8>]) {
    let mut client = node.legacy();
    let status = match channels {
        [channel] => client.ask(&Legacy::Produce { channel: channel.as_bytes() }),
        _ => with_names(channels, |channels| client.ask(&Legacy::ProduceMulti { channels })),
    };
    assert_eq!(status, Status::Ok);
    for burst in values.chunks(BURST) {
        let mut bytes = Vec::new();
        burst.iter().for_each(|value| put_array(&mut bytes, value));
        client.send(&bytes);
    }
    client.send(&[0; 8]);
    // The answer to the next request says that all was taken.
    assert_eq!(client.ask(&Legacy::Pop { channel: b"nothing" }), Status::Ok);
    assert_eq!(client.read_array(), b"");
}

fn neo_push(node: &Node, channels: &[&str], values: &[Vec<u8>]) {
    let mut client = node.neo();
    let names: Vec<_> = channels.iter().map(|name| name.as_bytes()).collect();
    for (number, burst) in values.chunks(BURST).enumerate() {
        let ids: Vec<u64> = (0..burst.len()).map(|place| (number * BURST + place + 1) as u64).collect();
        for (id, value) in ids.iter().zip(burst) {
            client.message(*id, &push_payload(&names, value));
        }
        for id in ids {
            assert_eq!((client.read(id), client.read(id)), (vec![0xfd], vec![1]), "{channels:?}");
        }
    }
}
