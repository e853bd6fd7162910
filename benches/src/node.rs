//! A swarm node under test.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use overstory_client::{Identity, Pipeline};
use overstory_swarm::auth::ClientKey;

use crate::process;

/// The client's name and the key that goes with it.
const CLIENT: &str = "bench";
const CLIENT_KEY: [u8; 128] = [7; 128];
/// A reply that takes longer ends the run.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time until a node that loads its dump answers.
const START: Duration = Duration::from_secs(120);
/// Longest time until a node has written its dump at the end.
const STOP: Duration = Duration::from_secs(120);
/// The grain of the times that are measured from outside.
const GRAIN: Duration = Duration::from_millis(1);
/// Published for the dht: neo listens so far above legacy.
const NEO_OFFSET: u16 = 100;

/// Which node is started.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// The program.
    pub(crate) program: &'static str,
    /// What follows in `[Server]`, and the sections of this program; `NEO_PORT` is replaced.
    pub(crate) config: String,
}

/// Who asks the nodes.
pub(crate) fn identity() -> Identity {
    Identity { name: CLIENT.to_owned(), key: ClientKey(CLIENT_KEY) }
}

/// A running node; ended when dropped.
pub(crate) struct Node {
    child: Child,
    home: PathBuf,
    admin: u16,
    neo: SocketAddrV4,
}

impl Node {
    /// Starts one in `home`, which keeps its data, and waits until it is ready.
    pub(crate) fn start(executable: &Path, home: &Path, kind: &Kind) -> Result<Self> {
        let port = free_port()?;
        let admin = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        for folder in ["etc", "data", "log"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let key: String = CLIENT_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(home.join("etc/credentials"), format!("{CLIENT}:{key}\n"))?;
        fs::set_permissions(home.join("etc/credentials"), fs::Permissions::from_mode(0o600))?;
        fs::write(
            home.join("etc/config.ini"),
            format!(
                "[LOG.Root]\nlevel = info\nconsole = false\nfile = log/root.log\n\n[Report]\nenabled = false\n\n\
                 [Server]\naddress = 127.0.0.1\nport = {port}\ndata_dir = data\nunix_socket_path = node.socket\n\
                 admin = 127.0.0.1:{admin}\n{}",
                kind.config.replace("NEO_PORT", &(port + NEO_OFFSET).to_string())
            ),
        )?;
        let child = Command::new(fs::canonicalize(executable)?)
            .args([kind.program, "-c", "etc/config.ini"])
            .current_dir(home)
            .stdout(Stdio::null())
            .spawn()?;
        let neo = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port + NEO_OFFSET);
        let mut node = Self { child, home: home.to_owned(), admin, neo };
        node.wait_ready()?;
        Ok(node)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the neo protocol is spoken.
    pub(crate) const fn neo(&self) -> SocketAddrV4 {
        self.neo
    }

    /// Where the legacy protocol is spoken.
    pub(crate) const fn legacy(&self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.neo.ip(), self.neo.port() - NEO_OFFSET)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Pipeline> {
        Ok(Pipeline::connect(self.neo, &identity(), PATIENCE).await?)
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Asks it to stop, which saves what it holds, and tells how long that took.
    pub(crate) fn stop(mut self) -> Result<Duration> {
        let began = Instant::now();
        let status = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status()?;
        ensure!(status.success(), "cannot signal the node");
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the node ended with {status}");
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < STOP, "the node does not stop");
            process::pause(GRAIN);
        }
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.home.join("log/root.log")).unwrap_or_default();
                anyhow::bail!("the node ended with {status}: {log}");
            }
            if is_ready(self.admin).unwrap_or(false) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the node does not become ready");
            process::pause(GRAIN);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(admin: u16) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", admin))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// A port that is free together with the one that neo takes.
fn free_port() -> Result<u16> {
    (0..100)
        .find_map(|_| {
            let port = TcpListener::bind(("127.0.0.1", 0)).ok()?.local_addr().ok()?.port();
            (port < u16::MAX - NEO_OFFSET && TcpListener::bind(("127.0.0.1", port + NEO_OFFSET)).is_ok())
                .then_some(port)
        })
        .context("no free pair of ports")
}
