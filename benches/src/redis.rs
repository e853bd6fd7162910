//! Redis as the peer: the server without persistence, and a client that pipelines as `redis-benchmark -P` does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What it is called in figures.
pub(crate) const NAME: &str = "Redis 7.0, one thread";

/// The server from Debian's package.
const SERVER: &str = "/usr/bin/redis-server";
/// Longest time until it answers.
const START: Duration = Duration::from_secs(30);

/// A running server; ended when dropped.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    _home: tempfile::TempDir,
}

impl Redis {
    /// Starts one on a free port of the loopback interface.
    pub(crate) fn start() -> Result<Self> {
        ensure!(Path::new(SERVER).exists(), "{SERVER} is missing: overstory-bench --install-peers");
        let home = tempfile::tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = Command::new(SERVER)
            .current_dir(home.path())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let redis = Self { child, port, _home: home };
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::yield_now();
        }
        Ok(redis)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, output: Vec::new(), input: vec![0; 1 << 18] })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection that sends a batch of commands and waits for all their replies.
pub(crate) struct Client {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    /// Stores `value` under each of the keys, `in_flight` at a time.
    pub(crate) fn set(&mut self, keys: &[u64], value: &[u8], in_flight: usize) -> Result<()> {
        for batch in keys.chunks(in_flight) {
            self.output.clear();
            for key in batch {
                write!(self.output, "*3\r\n$3\r\nSET\r\n$16\r\n{key:016x}\r\n${}\r\n", value.len())?;
                self.output.extend_from_slice(value);
                self.output.extend_from_slice(b"\r\n");
            }
            self.exchange(batch.len() * b"+OK\r\n".len())?;
        }
        Ok(())
    }

    /// Reads the value of each of the keys, each `value_len` long, `in_flight` at a time.
    pub(crate) fn get(&mut self, keys: &[u64], value_len: usize, in_flight: usize) -> Result<()> {
        let reply = format!("${value_len}\r\n").len() + value_len + 2;
        for batch in keys.chunks(in_flight) {
            self.output.clear();
            for key in batch {
                write!(self.output, "*2\r\n$3\r\nGET\r\n$16\r\n{key:016x}\r\n")?;
            }
            self.exchange(batch.len() * reply)?;
        }
        Ok(())
    }

    /// Appends `value` to the left of a list, `count` times, `in_flight` at a time. The lengths in the replies are those of
    /// a list that was empty.
    pub(crate) fn lpush(&mut self, list: &str, count: usize, value: &[u8], in_flight: usize) -> Result<()> {
        for begin in (0..count).step_by(in_flight) {
            self.output.clear();
            let batch = begin..count.min(begin + in_flight);
            for _ in batch.clone() {
                write!(self.output, "*3\r\n$5\r\nLPUSH\r\n${}\r\n{list}\r\n${}\r\n", list.len(), value.len())?;
                self.output.extend_from_slice(value);
                self.output.extend_from_slice(b"\r\n");
            }
            self.exchange(batch.map(|before| format!(":{}\r\n", before + 1).len()).sum())?;
        }
        Ok(())
    }

    /// Takes `count` values, each `value_len` long, from the right of a list, `in_flight` at a time.
    pub(crate) fn rpop(&mut self, list: &str, count: usize, value_len: usize, in_flight: usize) -> Result<()> {
        let reply = format!("${value_len}\r\n").len() + value_len + 2;
        for begin in (0..count).step_by(in_flight) {
            self.output.clear();
            let batch = begin..count.min(begin + in_flight);
            for _ in batch.clone() {
                write!(self.output, "*2\r\n$4\r\nRPOP\r\n${}\r\n{list}\r\n", list.len())?;
            }
            self.exchange(batch.len() * reply)?;
        }
        Ok(())
    }

    /// Sends the batch and reads exactly the bytes of its replies.
    fn exchange(&mut self, mut expected: usize) -> Result<()> {
        // A batch may be larger than both sockets hold: what comes back is read while the rest is sent.
        let mut unsent = self.output.as_slice();
        self.stream.set_nonblocking(true)?;
        while !unsent.is_empty() {
            match self.stream.write(unsent) {
                Ok(written) => unsent = &unsent[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    match self.stream.read(&mut self.input) {
                        Ok(0) => bail!("redis closed the connection"),
                        Ok(read) => expected = self.check(read, expected)?,
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_nonblocking(false)?;
        while expected > 0 {
            let read = self.stream.read(&mut self.input).context("reading from redis")?;
            ensure!(read > 0, "redis closed the connection");
            expected = self.check(read, expected)?;
        }
        Ok(())
    }

    fn check(&self, read: usize, expected: usize) -> Result<usize> {
        ensure!(self.input[0] != b'-', "redis: {}", String::from_utf8_lossy(&self.input[..read.min(200)]));
        expected.checked_sub(read).context("redis sent more than was asked for")
    }
}
