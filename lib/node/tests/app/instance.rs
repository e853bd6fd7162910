//! An instance's directory, and the process that runs in it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that should be there at once, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CONFIG: &str = "[Server]
address = 127.0.0.1
port = 0
unix_socket_path = node.socket
admin = 127.0.0.1:0
minval = 0x0000000000000000
maxval = 0xffffffffffffffff
[LOG.Root]
level = info
file = log/root.log
console = false
[STATS]
interval = 1
[PidLock]
path = node.pid
[UNIX_SOCKET]
path = unix.socket
mode = 700
";

pub(crate) struct Instance {
    pub(crate) directory: tempfile::TempDir,
}

impl Instance {
    /// Makes an instance whose configuration goes on with `more`.
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/credentials"), format!("test:{}\n", "0".repeat(256))).unwrap();
        fs::write(directory.path().join("config.ini"), format!("{CONFIG}{more}")).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(program).args(args).current_dir(self.directory.path());
        command.env("OVERSTORY_HOME", self.directory.path()).env_remove("SUPERVISOR_ENABLED");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// Starts it; it is killed when the test ends before it.
    pub(crate) fn start(&self, program: &str, args: &[&str]) -> Running {
        Running { child: self.command(program, args).spawn().unwrap() }
    }

    /// Starts the node and waits until it serves.
    pub(crate) fn serving(&self, args: &[&str]) -> Running {
        let args: Vec<&str> = ["-c", "config.ini"].iter().chain(args).copied().collect();
        let mut running = self.start("toynode", &args);
        until("it serves", || {
            assert_eq!(running.child.try_wait().unwrap(), None, "{}", self.text("log/root.log"));
            self.get("/readyz").is_some_and(|text| text.contains(" 200 "))
        });
        running
    }

    /// The value of `key=` in root.log.
    pub(crate) fn logged(&self, key: &str) -> Option<String> {
        let text = self.text("log/root.log");
        let (_, rest) = text.split_once(&format!("{key}="))?;
        Some(rest.split([' ', ')', '\n']).next()?.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let address: SocketAddr = self.logged("address")?.parse().ok()?;
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    pub(crate) fn ask(&self, socket: &str, line: &str) -> String {
        let mut stream = UnixStream::connect(self.path(socket)).unwrap();
        writeln!(stream, "{line}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status?.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended in a test that went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition that has a deadline")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
