//! What requests and messages are made of, and one of each kind made of it.

use std::net::{Ipv4Addr, SocketAddrV4};

use overstory_swarm::key::Key;
use overstory_swarm::legacy::{self, Names, NodeAddress, NodeRange, Nodes, Ranges};
use overstory_swarm::neo;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) channel: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) names: Vec<Vec<u8>>,
    pub(crate) number: u64,
    pub(crate) other: u64,
    pub(crate) fraction: f32,
    pub(crate) byte: u8,
    pub(crate) flag: bool,
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let bytes = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..200));
    let names = vec(vec(any::<u8>(), 1..9), 0..5);
    let numbers = (any::<u64>(), any::<u64>(), -1e9f32..1e9, any::<u8>(), any::<bool>());
    (bytes, names, numbers).prop_map(|((channel, key, value), names, (number, other, fraction, byte, flag))| Parts {
        channel,
        key,
        value,
        names,
        number,
        other,
        fraction,
        byte,
        flag,
    })
}

/// Room for the lists of requests.
#[derive(Default)]
pub(crate) struct Lists {
    pub(crate) first: Vec<u8>,
}

impl Parts {
    fn addresses(&self) -> impl Iterator<Item = NodeAddress<'_>> {
        self.names.iter().zip(0u16..).map(|(address, index)| NodeAddress { address, port: index * 1000 })
    }

    fn ranges(&self) -> impl Iterator<Item = NodeRange<'_>> {
        self.addresses().map(|node| NodeRange { node, min: self.number, max: self.other })
    }

    pub(crate) fn legacy_dht<'a>(&'a self, lists: &'a mut Lists) -> Vec<legacy::dht::Request<'a>> {
        use legacy::dht::Request::*;
        let Self { channel, key, value, .. } = self;
        let nodes = Ranges::new(self.ranges(), &mut lists.first);
        assert_eq!((nodes.len(), nodes.iter().eq(self.ranges())), (self.names.len(), true));
        vec![
            Put { channel, key, value },
            Get { channel, key },
            Exists { channel, key },
            Remove { channel, key },
            GetChannels,
            GetChannelSize { channel },
            GetSize,
            GetResponsibleRange,
            RemoveChannel { channel },
            GetNumConnections,
            GetVersion,
            Listen { channel },
            GetAll { channel },
            GetAllKeys { channel },
            GetAllFilter { channel, filter: value },
            Redistribute { min: self.number, max: self.other, nodes },
            PutBatch { channel, batch: value },
        ]
    }

    pub(crate) fn legacy_dmq<'a>(&'a self, lists: &'a mut Lists) -> Vec<legacy::dmq::Request<'a>> {
        use legacy::dmq::Request::*;
        let Self { channel, value, .. } = self;
        let channels = Names::new(self.names.iter().map(Vec::as_slice), &mut lists.first);
        assert!(channels.iter().eq(self.names.iter().map(Vec::as_slice)));
        assert_eq!(channels.is_empty(), self.names.is_empty());
        vec![
            Push { channel, value },
            Pop { channel },
            GetChannels,
            GetChannelSize { channel },
            GetSize,
            Consume { channel },
            GetNumConnections,
            PushMulti { channels, value },
            Produce { channel },
            ProduceMulti { channels },
            RemoveChannel { channel },
        ]
    }

    pub(crate) fn legacy_dls<'a>(&'a self, lists: &'a mut Lists) -> Vec<legacy::dls::Request<'a>> {
        use legacy::dls::Request::*;
        let Self { channel, key, value, .. } = self;
        let range = legacy::dls::Interval { low: key, high: channel };
        let nodes = Nodes::new(self.addresses(), &mut lists.first);
        vec![
            Put { channel, key, value },
            GetChannels,
            GetChannelSize { channel },
            GetSize,
            GetResponsibleRange,
            RemoveChannel { channel },
            GetNumConnections,
            GetVersion,
            GetRange { channel, range },
            GetAll { channel },
            GetAllFilter { channel, filter: value },
            GetRangeFilter { channel, range, filter: value },
            GetRangeRegex { channel, range, mode: self.byte, pattern: value },
            Redistribute { fraction: self.fraction, nodes },
            PutBatch { channel, batch: value },
        ]
    }

    pub(crate) fn neo_dht(&self) -> Vec<neo::dht::Request<'_>> {
        use neo::dht::Request::*;
        use neo::dht::UpdateStart;
        let Self { channel, value, .. } = self;
        let key = Key(self.number);
        let all = |after, keys_only| {
            let (start_suspended, filter) = (self.flag, value.as_slice());
            GetAll(neo::dht::GetAll { start_suspended, channel, after, keys_only, filter })
        };
        vec![
            GetHashRange,
            Put { channel, key, value },
            Get { channel, key },
            Mirror {
                start_suspended: self.flag,
                channel,
                initial_refresh: !self.flag,
                periodic_refresh_s: u32::from(self.byte),
            },
            all(None, self.flag),
            all(Some(key), !self.flag),
            GetChannels,
            Exists { channel, key },
            Remove { channel, key },
            RemoveChannel { channel },
            Update { channel, key, start: UpdateStart::GetRecord },
            Update { channel, key, start: UpdateStart::UpdateRecord { original_hash: self.other, value } },
        ]
    }

    pub(crate) fn neo_dmq<'a>(&'a self, lists: &'a mut Lists) -> Vec<neo::dmq::Request<'a>> {
        use neo::dmq::Request::*;
        let Self { channel, key, value, .. } = self;
        let names = || self.names.iter().map(Vec::as_slice).chain([&b""[..]]);
        let channels = neo::dmq::Channels::new(names(), &mut lists.first).unwrap();
        assert!(channels.iter().eq(names()) && channels.len() == self.names.len() + 1);
        vec![Push { channels, value }, Pop { channel }, Consume { channel, subscriber: key }]
    }

    pub(crate) fn neo_dls(&self) -> Vec<neo::dls::Request<'_>> {
        let Self { channel, value, .. } = self;
        let (low, high) = (self.number.cast_signed(), self.other.cast_signed());
        vec![
            neo::dls::Request::Put { channel, timestamp: low, value },
            neo::dls::Request::GetRange { channel, low, high, filter: value, mode: self.byte },
            neo::dls::Request::GetTimestampRange,
        ]
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        let [a, b, c, d, e, f, ..] = self.number.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f]))
    }
}
