//! A server that speaks MongoDB's protocol: SecantusDB in a virtual environment, or the one that
//! `OVERSTORY_TEST_MONGODB_URI` names.
//!
//! It is a separate process, started with `--sync-on-commit` (without it acknowledged writes are lost on kill -9). One
//! serves all tests of a process, each with a database of its own ([`shared`]); tests that kill the server start their
//! own ([`MongoServer`]). A shell beside each server ends it when the tests are gone, however they went.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use overstory_runtime::program::variable;
use overstory_store::StoreConfig;
use tempfile::TempDir;

use crate::ports::free_port;

/// Becomes the server, beside a shell that waits until nobody holds the other end of its input and then kills the
/// server. `$1` is a directory to remove as well, `$2` the one that tells the server from others.
const KEEPER: &str = r#"
remove=$1 data=$2; shift 2
exec 3<&0
(
    cat <&3 >/dev/null
    grep -qsF "$data" /proc/$$/cmdline && kill -9 $$
    while grep -qsF "$data" /proc/$$/cmdline; do sleep 0.1; done
    [ -z "$remove" ] || rm -rf "$remove"
) &
exec "$@" </dev/null 3<&-
"#;
/// How long a server may take to answer, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a server is started that ends by itself.
const START_ATTEMPTS: u32 = 5;

/// A configuration with a database of its own on the server that all tests of this process share. Blocks.
///
/// # Errors
/// There is no server: see [`MongoServer::start`].
pub fn shared() -> Result<StoreConfig> {
    Ok(StoreConfig::mongodb(shared_uri()?, fresh_database()))
}

fn shared_uri() -> Result<String> {
    static SHARED: Mutex<Option<MongoServer>> = Mutex::new(None);
    if let Some(uri) = variable("OVERSTORY_TEST_MONGODB_URI") {
        return Ok(uri);
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.as_ref() {
        return Ok(server.uri());
    }
    // The process never drops what is static: the keeper removes the directory.
    let server = MongoServer::start_in(|| Ok((directory()?.keep(), None)))?;
    let uri = server.uri();
    *shared = Some(server);
    Ok(uri)
}

fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("overstory-mongo-").tempdir()?)
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
    dir: Option<TempDir>,
}

impl MongoServer {
    /// Starts a server on a free port with an empty directory. Blocks until it answers.
    ///
    /// # Errors
    /// SecantusDB is not installed (the message says how to) or does not start.
    pub fn start() -> Result<Self> {
        Self::start_in(|| {
            let dir = directory()?;
            Ok((dir.path().to_owned(), Some(dir)))
        })
    }

    /// Starts a server in a directory that is given with what removes it, or without: then the keeper does.
    fn start_in(directory: impl Fn() -> Result<(PathBuf, Option<TempDir>)>) -> Result<Self> {
        let program = program()?;
        let mut attempt = 1;
        loop {
            let (path, dir) = directory()?;
            let server = Self {
                port: free_port(),
                log: path.join("log"),
                program: program.clone(),
                data: path.join("data"),
                keeper: Mutex::new(None),
                dir,
            };
            match server.start_again() {
                Ok(()) => return Ok(server),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                // Somebody else may have been faster to take the port.
                Err(_) => attempt += 1,
            }
        }
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
        let remove = self.data.parent().filter(|_| self.dir.is_none());
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(remove.map_or_else(|| Path::new("").as_os_str(), Path::as_os_str))
            .arg(&self.data)
            .arg(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string(), "--sync-on-commit"])
            .args(["--cache-size", "256M", "--log-level", "WARNING", "--storage-path"])
            .arg(&self.data)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sh")?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ended = keeper.try_wait()?;
            if ended.is_none() && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                break;
            }
            if ended.is_some() || Instant::now() > deadline {
                end(keeper)?;
                bail!("SecantusDB does not answer\n{}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            nap();
        }
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
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
