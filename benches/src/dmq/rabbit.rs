//! RabbitMQ as the peer: a connection that does what the comparison needs and costs as little as possible.
//!
//! AMQP 0-9-1, section 4.2.3 for frames; class and method numbers from its XML.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use overstory_amqp::AmqpConfig;

/// A reply that takes longer ends the run.
const PATIENCE: Duration = Duration::from_secs(60);
/// Every frame ends with it.
const FRAME_END: u8 = 0xce;
/// Type, channel and length of a frame.
const FRAME_HEAD: usize = 7;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

const START_OK: (u16, u16) = (10, 11);
const TUNE: (u16, u16) = (10, 30);
const TUNE_OK: (u16, u16) = (10, 31);
const OPEN: (u16, u16) = (10, 40);
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const QUEUE_DECLARE: (u16, u16) = (50, 10);
const QOS: (u16, u16) = (60, 10);
const CONSUME: (u16, u16) = (60, 20);
const PUBLISH: (u16, u16) = (60, 40);
const DELIVER: (u16, u16) = (60, 60);
const ACK: (u16, u16) = (60, 80);
const NACK: (u16, u16) = (60, 120);
const CONFIRM_SELECT: (u16, u16) = (85, 10);

/// A connection with one channel.
pub(super) struct Rabbit {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of `input` that are there, and of these the ones that are done with.
    filled: usize,
    taken: usize,
}

impl Rabbit {
    /// Connects and opens the channel.
    pub(super) fn connect(broker: &AmqpConfig) -> Result<Self> {
        let stream = TcpStream::connect((broker.host.as_str(), broker.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut rabbit = Self { stream, output: Vec::new(), input: vec![0; 1 << 20], filled: 0, taken: 0 };
        rabbit.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        rabbit.expect((10, 10))?;
        rabbit.method(0, START_OK, |out| {
            long_string(out, b"");
            short_string(out, "PLAIN");
            long_string(out, format!("\0{}\0{}", broker.user, broker.password).as_bytes());
            short_string(out, "en_US");
        });
        rabbit.send()?;
        let limits = rabbit.expect(TUNE)?;
        rabbit.method(0, TUNE_OK, |out| {
            out.extend_from_slice(&limits[..6]);
            out.extend_from_slice(&0_u16.to_be_bytes());
        });
        rabbit.method(0, OPEN, |out| {
            short_string(out, &broker.vhost);
            out.extend_from_slice(&[0, 0]);
        });
        rabbit.method(1, CHANNEL_OPEN, |out| out.push(0));
        rabbit.send()?;
        rabbit.expect((10, 41))?;
        rabbit.expect((20, 11))?;
        Ok(rabbit)
    }

    /// Declares a durable queue of a type.
    pub(super) fn declare(&mut self, queue: &str, kind: &str) -> Result<()> {
        self.method(1, QUEUE_DECLARE, |out| {
            out.extend_from_slice(&[0, 0]);
            short_string(out, queue);
            out.push(0b10);
            let mut table = Vec::new();
            short_string(&mut table, "x-queue-type");
            table.push(b'S');
            long_string(&mut table, kind.as_bytes());
            long_string(out, &table);
        });
        self.send()?;
        self.expect((50, 11))?;
        Ok(())
    }

    /// Publishes persistent messages to a queue with confirms, `in_flight` at most without one.
    pub(super) fn publish(&mut self, queue: &str, count: usize, body: &[u8], in_flight: usize) -> Result<()> {
        self.method(1, CONFIRM_SELECT, |out| out.push(0));
        self.send()?;
        self.expect((85, 11))?;
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < count {
            while sent < count && sent - confirmed < in_flight {
                self.message(queue, body);
                sent += 1;
            }
            self.send()?;
            // One reply has to be waited for; those that are there, too, are taken along.
            loop {
                let (method, arguments) = self.next()?;
                ensure!(method != NACK, "the broker refused a message");
                ensure!(method == ACK && arguments.len() == 9, "{method:?} instead of a confirm");
                let tag = usize::try_from(u64::from_be_bytes(arguments[..8].try_into()?))?;
                confirmed = if arguments[8] & 1 == 1 { confirmed.max(tag) } else { confirmed + 1 };
                if !self.has_frame() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes messages of a queue, with acknowledgements for many at once.
    pub(super) fn consume(&mut self, queue: &str, count: usize, prefetch: u16) -> Result<()> {
        self.method(1, QOS, |out| {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&prefetch.to_be_bytes());
            out.push(0);
        });
        self.method(1, CONSUME, |out| {
            out.extend_from_slice(&[0, 0]);
            short_string(out, queue);
            short_string(out, "bench");
            out.push(0);
            long_string(out, b"");
        });
        self.send()?;
        self.expect((60, 11))?;
        self.expect((60, 21))?;
        let step = usize::from(prefetch / 2).max(1);
        let mut taken = 0;
        while taken < count {
            let (method, arguments) = self.next()?;
            ensure!(method == DELIVER, "{method:?} instead of a delivery");
            let at = 1 + usize::from(arguments[0]);
            let tag: [u8; 8] = arguments[at..at + 8].try_into()?;
            let mut left = self.content_length()?;
            while left > 0 {
                left = left.checked_sub(self.body_length()?).context("a body that is too long")?;
            }
            taken += 1;
            if taken % step == 0 || taken == count {
                self.method(1, ACK, |out| {
                    out.extend_from_slice(&tag);
                    out.push(1);
                });
                self.send()?;
            }
        }
        Ok(())
    }

    fn message(&mut self, queue: &str, body: &[u8]) {
        self.method(1, PUBLISH, |out| {
            out.extend_from_slice(&[0, 0]);
            short_string(out, "");
            short_string(out, queue);
            out.push(0);
        });
        self.frame(HEADER, 1, |out| {
            out.extend_from_slice(&60_u16.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            // Only the delivery mode: persistent.
            out.extend_from_slice(&0x1000_u16.to_be_bytes());
            out.push(2);
        });
        self.frame(BODY, 1, |out| out.extend_from_slice(body));
    }

    fn method(&mut self, channel: u16, (class, method): (u16, u16), arguments: impl FnOnce(&mut Vec<u8>)) {
        self.frame(METHOD, channel, |out| {
            out.extend_from_slice(&class.to_be_bytes());
            out.extend_from_slice(&method.to_be_bytes());
            arguments(out);
        });
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.output;
        out.push(kind);
        out.extend_from_slice(&channel.to_be_bytes());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        payload(out);
        let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        out.push(FRAME_END);
    }

    /// Sends what was queued. What comes meanwhile is kept, or both sides would wait for each other.
    fn send(&mut self) -> Result<()> {
        let output = std::mem::take(&mut self.output);
        let mut unsent = output.as_slice();
        self.stream.set_nonblocking(true)?;
        while !unsent.is_empty() {
            match self.stream.write(unsent) {
                Ok(written) => unsent = &unsent[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.fill() {
                    Ok(()) => {}
                    Err(error) if is_would_block(&error) => std::thread::yield_now(),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_nonblocking(false)?;
        self.output = output;
        self.output.clear();
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        if self.taken > 0 {
            self.input.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        let read = self.stream.read(&mut self.input[self.filled..])?;
        ensure!(read > 0, "the broker closed the connection");
        self.filled += read;
        Ok(())
    }

    /// The length of the frame that is there, all of it included.
    fn frame_length(&self) -> Option<usize> {
        let there = &self.input[self.taken..self.filled];
        let length = u32::from_be_bytes(there.get(3..FRAME_HEAD)?.try_into().ok()?);
        Some(FRAME_HEAD + length as usize + 1).filter(|whole| there.len() >= *whole)
    }

    fn has_frame(&self) -> bool {
        self.frame_length().is_some()
    }

    /// The next frame: its type, and where its payload is.
    fn read(&mut self) -> Result<(u8, std::ops::Range<usize>)> {
        loop {
            if let Some(length) = self.frame_length() {
                let at = self.taken;
                self.taken += length;
                ensure!(self.input[self.taken - 1] == FRAME_END, "a frame without end");
                return Ok((self.input[at], at + FRAME_HEAD..self.taken - 1));
            }
            self.fill()?;
        }
    }

    /// The next method: its number and arguments.
    fn next(&mut self) -> Result<((u16, u16), &[u8])> {
        let (kind, at) = self.read()?;
        let payload = &self.input[at];
        ensure!(kind == METHOD && payload.len() >= 4, "a frame of type {kind} instead of a method");
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        let method = (number(0), number(2));
        if matches!(method, (10, 50) | (20, 40)) {
            bail!("the broker closes: {}", String::from_utf8_lossy(&payload[4..]));
        }
        Ok((method, &payload[4..]))
    }

    fn expect(&mut self, wanted: (u16, u16)) -> Result<Vec<u8>> {
        let (method, arguments) = self.next()?;
        ensure!(method == wanted, "{method:?} instead of {wanted:?}");
        Ok(arguments.to_vec())
    }

    fn content_length(&mut self) -> Result<usize> {
        let (kind, at) = self.read()?;
        ensure!(kind == HEADER, "a frame of type {kind} instead of a header");
        let length = self.input[at].get(4..12).context("a short header")?;
        Ok(usize::try_from(u64::from_be_bytes(length.try_into()?))?)
    }

    fn body_length(&mut self) -> Result<usize> {
        let (kind, at) = self.read()?;
        ensure!(kind == BODY, "a frame of type {kind} instead of a body");
        Ok(at.len())
    }
}

fn is_would_block(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn long_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use overstory_testkit::broker;

    use super::*;

    #[test]
    fn messages_go_through_a_queue_of_each_type() -> Result<()> {
        let config = broker::shared()?;
        let mut client = Rabbit::connect(&config)?;
        for kind in ["quorum", "classic"] {
            client.declare(kind, kind)?;
            client.publish(kind, 5000, &[b'x'; 3000], 100)?;
            let mut consumer = Rabbit::connect(&config)?;
            consumer.consume(kind, 5000, 100)?;
            client = Rabbit::connect(&config)?;
        }
        Ok(())
    }
}
