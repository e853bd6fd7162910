//! A client that costs next to nothing: it asks for a range by the legacy protocol and counts what comes, and sends one
//! batch again and again.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use overstory_swarm::batch::{Added, BatchBuilder};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{Interval, Request};

/// Bytes that are read at once.
const READ: usize = 1 << 20;
/// Bytes of records in a batch that is sent.
const BATCH: usize = 1 << 20;
/// Connections that send batches in turn: the node has one at hand when the other was answered.
const SENDERS: usize = 2;
/// The first and the last key as text.
const ALL: Interval<'static> = Interval { low: b"0000000000000000", high: b"ffffffffffffffff" };

/// A connection.
pub(super) struct Scanner {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Scanner {
    pub(super) fn connect(node: SocketAddrV4) -> Result<Self> {
        Ok(Self { stream: TcpStream::connect(node)?, buffer: vec![0; READ] })
    }

    /// Reads all records of a channel whose value holds `filter`, if there is one, and says how many bytes they and
    /// their keys have.
    pub(super) fn all(&mut self, channel: &str, filter: Option<&str>) -> Result<u64> {
        let (channel, range) = (channel.as_bytes(), ALL);
        let request = match filter {
            None => Request::GetRange { channel, range },
            Some(filter) => Request::GetRangeFilter { channel, range, filter: filter.as_bytes() },
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.stream.write_all(&bytes)?;
        let mut status = [0; 4];
        self.stream.read_exact(&mut status)?;
        ensure!(i32::from_le_bytes(status) == Status::Ok.code(), "the node refused");
        self.batches()
    }

    /// Passes over the batches until the array of length 0; what they hold before compression is in front of each.
    fn batches(&mut self) -> Result<u64> {
        let (mut filled, mut position, mut plain) = (0_usize, 0_usize, 0_u64);
        loop {
            // A length is looked at when it and the plain length behind it have arrived.
            while let Some(length) = word(&self.buffer, position, filled) {
                if length == 0 {
                    ensure!(position + 8 == filled, "something follows the end");
                    return Ok(plain);
                }
                let Some(content) = word(&self.buffer, position + 8, filled) else { break };
                plain += content;
                position += 8 + usize::try_from(length)?;
            }
            // What lies before the next length is not needed any more.
            let passed = position.min(filled);
            self.buffer.copy_within(passed..filled, 0);
            (filled, position) = (filled - passed, position - passed);
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the node closed the connection");
            filled += read;
        }
    }
}

/// The number at a place, if it has arrived.
fn word(buffer: &[u8], position: usize, filled: usize) -> Option<u64> {
    let bytes = buffer.get(..filled)?.get(position..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Sends the same batch of records with one key over and over, at least `records` of them, and says how many there were
/// and how long it took until the last was answered.
pub(super) fn put_batches(
    node: SocketAddrV4,
    channel: &str,
    key: u64,
    value: &[u8],
    records: usize,
) -> Result<(usize, Duration)> {
    let (mut batch, mut each) = (BatchBuilder::new(BATCH), 0);
    let key = format!("{key:016x}");
    while batch.pair(key.as_bytes(), value) == Added::Yes {
        each += 1;
    }
    let (mut content, mut request) = (Vec::new(), Vec::new());
    batch.finish(&mut content);
    Request::PutBatch { channel: channel.as_bytes(), batch: &content }.encode(&mut request);
    let mut streams = Vec::new();
    for _ in 0..SENDERS {
        streams.push(TcpStream::connect(node)?);
    }
    let began = Instant::now();
    let (mut sent, mut answered) = (0, 0);
    for stream in &mut streams {
        stream.write_all(&request)?;
        sent += each;
    }
    for turn in (0..SENDERS).cycle() {
        let stream = &mut streams[turn];
        let mut status = [0; 4];
        stream.read_exact(&mut status)?;
        ensure!(i32::from_le_bytes(status) == Status::Ok.code(), "the node refused");
        answered += each;
        if answered == sent {
            break;
        }
        if sent < records {
            stream.write_all(&request)?;
            sent += each;
        }
    }
    Ok((answered, began.elapsed()))
}
