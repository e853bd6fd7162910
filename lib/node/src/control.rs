//! The unix sockets that take commands, one per line (protocol §4.5).
//!
//! `[Server] unix_socket_path` takes `update-credentials` and `list-credentials`; `[UNIX_SOCKET] path` takes
//! `reopen_files FILE...` and `show_version`. Lines, clients and the time they take have bounds, and each client is
//! served on its own.

pub(crate) mod commands;
pub(crate) mod credentials;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// A longer line ends its connection.
const MAX_LINE: u64 = 8192;
/// So many clients are served at a time; more wait.
const MAX_CLIENTS: usize = 16;
/// A client that sends no line, or takes no answer, for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// Permissions of the socket's file unless configured, those of the published umask 002.
const MODE: u32 = 0o775;

/// A command and its words, answered by a text that ends in a line break.
pub(crate) trait Commands: 'static {
    /// Carries out a line.
    fn answer(&self, line: &str) -> impl Future<Output = String>;
}

/// A bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    listener: Option<std::os::unix::net::UnixListener>,
}

impl ControlSocket {
    /// Binds the socket; a file that a process left behind which no longer serves it is replaced.
    ///
    /// # Errors
    /// Another process serves it, something else has the name, or it cannot be bound.
    pub(crate) fn bind(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("socket {}: {error}", path.display()));
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(at(io::Error::other("there is a file of that name that is no socket")));
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(at(io::Error::other("another process serves it"))),
                Err(_) => fs::remove_file(path).map_err(at)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(error)),
        }
        let listener = std::os::unix::net::UnixListener::bind(path).map_err(at)?;
        let socket = Self { path: path.to_owned(), listener: Some(listener) };
        fs::set_permissions(path, fs::Permissions::from_mode(mode.unwrap_or(MODE))).map_err(at)?;
        Ok(socket)
    }

    /// Serves the socket until it is dropped with this future. Must run in a `LocalSet`.
    pub(crate) async fn serve(mut self, commands: impl Commands) {
        let commands = Rc::new(commands);
        let listener = self.listener.take().ok_or(io::ErrorKind::NotConnected.into());
        let listener = listener.and_then(|listener: std::os::unix::net::UnixListener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(target: "node.control", %error, socket = %self.path.display(), "cannot serve the socket");
                return;
            }
        };
        tracing::info!(target: "node.control", socket = %self.path.display(), "listening");
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let commands = Rc::clone(&commands);
                    tokio::task::spawn_local(async move {
                        let _place = place;
                        converse(stream, &*commands).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(target: "node.control", %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers line after line until the client closes, is silent for too long or sends no line at all.
async fn converse(stream: UnixStream, commands: &impl Commands) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let taken = tokio::time::timeout(PATIENCE, (&mut read).take(MAX_LINE).read_until(b'\n', &mut line)).await;
        let is_line = matches!(taken, Ok(Ok(_))) && !line.is_empty() && (line.len() as u64) < MAX_LINE;
        if !is_line {
            return;
        }
        let answer = commands.answer(String::from_utf8_lossy(&line).trim()).await;
        if !matches!(tokio::time::timeout(PATIENCE, write.write_all(answer.as_bytes())).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
