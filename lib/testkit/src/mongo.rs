//! A server that speaks MongoDB's protocol: SecantusDB in a virtual environment, or the one that
//! `OVERSTORY_TEST_MONGODB_URI` names.
//!
//! It is a separate process, started with `--sync-on-commit` (without it acknowledged writes are lost on kill -9). One
//! serves all tests of a process, each with a database of its own ([`shared`]); tests that kill the server start their
//! own ([`MongoServer`]). A shell beside each server ends it when the tests are gone, however they went.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use overstory_runtime::program::variable;
use overstory_store::StoreConfig;
use tempfile::TempDir;

/// Waits until nobody holds the other end of its input, then kills the server. `$1` removes its files as well.
const KEEPER: &str = r#"
remove=$1; shift
"$@" </dev/null &
server=$!
cat >/dev/null
kill -9 $server; wait $server 2>/dev/null
[ -z "$remove" ] || rm -rf "$remove"
"#;
/// How long a server may take to answer, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A configuration with a database of its own on the server that all tests of this process share. Blocks.
///
/// # Errors
/// There is no server: see [`MongoServer::start`].
pub fn shared() -> Result<StoreConfig> {
    Ok(StoreConfig::mongodb(shared_uri()?, fresh_database()))
}

fn shared_uri() -> Result<String> {
    static SHARED: Mutex<Option<(MongoServer, PathBuf)>> = Mutex::new(None);
    if let Some(uri) = variable("OVERSTORY_TEST_MONGODB_URI") {
        return Ok(uri);
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((server, _)) = shared.as_ref() {
        return Ok(server.uri());
    }
    // The process never drops what is static: the keeper removes the directory.
    let dir = tempfile::Builder::new().prefix("overstory-mongo-").tempdir()?.keep();
    let server = MongoServer::start_in(&dir, true)?;
    let uri = server.uri();
    *shared = Some((server, dir));
    Ok(uri)
}

/// A name that no other test uses.
fn fresh_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let id = overstory_model::ids::random_id();
    format!("overstory_test_{process}_{n}_{}", &id[..8])
}

/// A server of one test.
#[derive(Debug)]
pub struct MongoServer {
    port: u16,
    log: PathBuf,
    program: PathBuf,
    data: PathBuf,
    keeper: Mutex<Option<Child>>,
    removed_by_keeper: bool,
    _dir: Option<TempDir>,
}

impl MongoServer {
    /// Starts a server on a free port with an empty directory. Blocks until it answers.
    ///
    /// # Errors
    /// SecantusDB is not installed (the message says how to) or does not start.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("overstory-mongo-").tempdir()?;
        let mut server = Self::start_in(dir.path(), false)?;
        server._dir = Some(dir);
        Ok(server)
    }

    fn start_in(dir: &Path, removed_by_keeper: bool) -> Result<Self> {
        let server = Self {
            port: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
            log: dir.join("log"),
            program: program()?,
            data: dir.join("data"),
            keeper: Mutex::new(None),
            removed_by_keeper,
            _dir: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// The connection string.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// A configuration with a database of its own.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig::mongodb(self.uri(), fresh_database())
    }

    /// Ends the server as `kill -9` does.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&self) -> Result<()> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        end(keeper.context("the server is not running")?)
    }

    /// Starts the server on the same port with the same data. Blocks until it answers.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let remove = self.data.parent().filter(|_| self.removed_by_keeper);
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(remove.map_or_else(|| Path::new("").as_os_str(), Path::as_os_str))
            .arg(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--sync-on-commit"])
            .args(["--cache-size", "256M", "--log-level", "WARNING", "--storage-path"])
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sh")?;
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if Instant::now() > deadline {
                bail!("SecantusDB does not answer\n{}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            nap();
        }
        Ok(())
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // The server is gone with its keeper; there is nobody to tell more.
            let _ = end(keeper);
        }
    }
}

/// Lets the keeper see the end of its input, and waits until the server is gone.
fn end(mut keeper: Child) -> Result<()> {
    drop(keeper.stdin.take());
    keeper.wait()?;
    Ok(())
}

fn program() -> Result<PathBuf> {
    let program = match variable("OVERSTORY_TEST_SECANTUS") {
        Some(path) => PathBuf::from(path),
        None => {
            let home = variable("HOME").context("HOME is not set")?;
            Path::new(&home).join(".cache/overstory/secantus/bin/secantusd-py")
        }
    };
    ensure!(
        program.exists(),
        "{} is missing. The MongoDB store is tested against SecantusDB: `./build-install.sh --test` installs it, or\n\
         python3 -m venv ~/.cache/overstory/secantus && \
         ~/.cache/overstory/secantus/bin/pip install SecantusDB==0.7.0b3\n\
         OVERSTORY_TEST_SECANTUS names another place, OVERSTORY_TEST_MONGODB_URI another server (a replica set).",
        program.display()
    );
    Ok(program)
}

#[expect(clippy::disallowed_methods, reason = "a condition with a deadline, before the test does anything")]
fn nap() {
    std::thread::sleep(Duration::from_millis(20));
}
