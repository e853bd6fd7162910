//! Node programs as processes: an instance's directory, ports found free, start, stop, kill, what they wrote.
//!
//! A fixture of tests: what should never fail panics. Nothing here knows the protocols.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{free_port, free_port_with};

/// How long anything may take that should be there soon, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The key of every client, as hexadecimal digits: all zeros, as the published tests have it.
pub const ZERO_KEY: &str = concat!(
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
);

/// How a node program is told its neo port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeoPort {
    /// It is not: it takes the one so far above its legacy port.
    Above(u16),
    /// By this key of `[Server]`.
    Key(&'static str),
}

/// A type of node.
#[derive(Debug, Clone, Copy)]
pub struct NodeKind {
    /// The program, by which the executable is asked for it.
    pub program: &'static str,
    /// Where neo listens.
    pub neo: NeoPort,
    /// What its configuration needs beside addresses, logs and sockets.
    pub config: &'static str,
}

/// The dht node, responsible for all keys.
pub const DHT: NodeKind = NodeKind {
    program: "dhtnode",
    neo: NeoPort::Above(100),
    config: "minval = 0x0000000000000000\nmaxval = 0xffffffffffffffff\n[Options_Memory]\nlock_memory = false\n",
};

/// The queue node, whose queues have a megabyte in memory each and go on on disk.
pub const DMQ: NodeKind =
    NodeKind { program: "dmqnode", neo: NeoPort::Key("neoport"), config: "channel_size_limit = 1000000\n" };

/// The queue node of the seeds, whose queues are in memory alone.
pub const QUEUE: NodeKind = NodeKind { program: "queuenode", ..DMQ };

/// The logfiles node, which takes all timestamps.
pub const LOGFILES: NodeKind = NodeKind { program: "logfilesnode", neo: NeoPort::Key("neoport"), config: "" };

/// An instance: a temporary directory with `etc/config.ini` and `etc/credentials`, in which node and tools run.
#[derive(Debug)]
pub struct NodeInstance {
    directory: TempDir,
    executable: PathBuf,
    program: &'static str,
    /// Where legacy listens.
    pub legacy: SocketAddrV4,
    /// Where neo listens.
    pub neo: SocketAddrV4,
    /// Where metrics and readiness are.
    pub admin: SocketAddrV4,
}

impl NodeInstance {
    /// Makes an instance of this type that `executable` can run. Its clients are `admin` and `test`, both with
    /// [`ZERO_KEY`]; statistics come each second, and there is no broker to report to.
    #[must_use]
    pub fn new(executable: &Path, kind: NodeKind) -> Self {
        let directory = tempfile::Builder::new().prefix("ov-node-").tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        let (port, neo) = free_ports(kind.neo);
        let admin = free_port();
        let neo_key = match kind.neo {
            NeoPort::Above(_) => String::new(),
            NeoPort::Key(key) => format!("{key} = {neo}\n"),
        };
        let config = format!(
            "[LOG.Root]\nlevel = info\nfile = log/root.log\nconsole = false\n[STATS]\ninterval = 1\n\
             [PidLock]\npath = node.pid\n[UNIX_SOCKET]\npath = unix.socket\n\
             [Server]\naddress = 127.0.0.1\nport = {port}\n{neo_key}unix_socket_path = node.socket\n\
             admin = 127.0.0.1:{admin}\n{}",
            kind.config
        );
        fs::write(directory.path().join("etc/config.ini"), config).unwrap();
        let credentials = directory.path().join("etc/credentials");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(credentials).unwrap();
        write!(file, "admin:{ZERO_KEY}\ntest:{ZERO_KEY}\n").unwrap();
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let executable = executable.to_owned();
        Self { directory, executable, program: kind.program, legacy: at(port), neo: at(neo), admin: at(admin) }
    }

    /// Sets a key of the configuration, in a section that is there or is made.
    pub fn set(&self, section: &str, key: &str, value: &str) -> &Self {
        let file = self.path("etc/config.ini");
        let text = fs::read_to_string(&file).unwrap();
        let header = format!("[{section}]");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let begin = lines.iter().position(|line| *line == header).unwrap_or_else(|| {
            lines.push(header);
            lines.len() - 1
        });
        let rest = &lines[begin + 1..];
        let end = begin + 1 + rest.iter().position(|line| line.starts_with('[')).unwrap_or(rest.len());
        let of_key = |line: &String| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
        let line = format!("{key} = {value}");
        match lines[begin + 1..end].iter().position(of_key) {
            Some(at) => lines[begin + 1 + at] = line,
            None => lines.insert(end, line),
        }
        fs::write(file, lines.join("\n") + "\n").unwrap();
        self
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file of the directory as text; nothing if it is not there.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// What `root.log` says.
    #[must_use]
    pub fn log(&self) -> String {
        self.text("log/root.log")
    }

    /// The command that runs a program of the executable in the directory.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg(program).args(args).current_dir(self.directory.path());
        command.env("OVERSTORY_HOME", self.directory.path()).env_remove("SUPERVISOR_ENABLED");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a program to its end.
    #[must_use]
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// Starts a program beside the node; what it prints goes nowhere.
    #[must_use]
    pub fn spawn(&self, program: &str, args: &[&str]) -> NodeProcess {
        let mut command = self.command(program, args);
        NodeProcess { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
    }

    /// Begins to start the node.
    #[must_use]
    pub fn launch(&self) -> NodeProcess {
        self.spawn(self.program, &["-c", "etc/config.ini"])
    }

    /// Starts the node and waits until it serves.
    ///
    /// # Panics
    /// It ends instead.
    #[must_use]
    pub fn start(&self) -> NodeProcess {
        let mut process = self.launch();
        until("it serves", || {
            assert!(process.child.try_wait().unwrap().is_none(), "{} ended: {}", self.program, self.log());
            self.is_ready()
        });
        process
    }

    /// Whether the node has loaded its data and serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200"))
    }

    /// A page of the admin listener, with the status line; nothing while it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The value of a metric, labels included in the name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics")?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Sends a line to a unix socket of the directory, and reads what comes back.
    #[must_use]
    pub fn ask(&self, socket: &str, line: &str) -> String {
        let mut stream = UnixStream::connect(self.path(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{line}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// A process; killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
}

impl NodeProcess {
    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by name, such as `-HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Kills it as the kernel would, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; its exit code, or none if a signal ended it.
    #[must_use]
    pub fn ended(mut self) -> Option<i32> {
        let mut status: Option<ExitStatus> = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Asks it to stop and waits; its exit code.
    #[must_use]
    pub fn stop(self) -> Option<i32> {
        self.signal("-TERM");
        self.ended()
    }

    /// Memory that it alone takes, its share of what it shares included, in KiB (`Pss` of `smaps_rollup`).
    #[must_use]
    pub fn pss_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It has ended in a test that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition that has a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(3));
}

/// A legacy and a neo port.
fn free_ports(neo: NeoPort) -> (u16, u16) {
    match neo {
        NeoPort::Key(_) => (free_port(), free_port()),
        NeoPort::Above(offset) => {
            let port = free_port_with(&[offset]);
            (port, port + offset)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_where_they_belong() {
        let instance = NodeInstance::new(Path::new("none"), DHT);
        instance.set("Server", "minval", "8000000000000000").set("Dump", "period_s", "1").set("Dump", "period_s", "2");
        instance.set("Server", "connection_limit", "7");
        let text = instance.text("etc/config.ini");
        assert!(text.contains("minval = 8000000000000000\nmaxval = 0xffffffffffffffff\nconnection_limit = 7\n[Opt"));
        assert!(text.ends_with("[Dump]\nperiod_s = 2\n"), "{text}");
        assert_eq!(instance.neo.port(), instance.legacy.port() + 100);
    }
}
